package budget

import (
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/verify"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// Attributes of an intent, from [Reservation.Attrs].
const (
	attrHour   = "fairlead.budget.hour" // in which it was reserved, since 1970
	attrInput  = "fairlead.budget.input_tokens"
	attrOutput = "fairlead.budget.output_tokens"
	attrRun    = "fairlead.run.id"
)

// Projection sums up what calls used, by who made them and when. It holds tokens and not money, which prices make of
// them when it is read.
//
// Sums are by the hour for the day of the newest call, by the day for the rest of its month, and by the month before:
// so a year of one caller is at most 24 + 31 + 11 rows for each model. Runs are forgotten two days after their last
// call.
var Projection = ledger.Projection{Name: "budget", Version: 1, Schema: schema, Apply: apply}

const (
	who  = "tenant, app, user, agent, how, key, provider, model"
	used = "calls, fresh, read, written, output"

	whoColumns  = "tenant text not null, app text not null, user text not null, agent text not null, how integer not null, key text not null, provider text not null, model text not null"
	usedColumns = "calls integer not null, fresh integer not null, read integer not null, written integer not null, output integer not null"
	addUsed     = "calls = calls + excluded.calls, fresh = fresh + excluded.fresh, read = read + excluded.read, written = written + excluded.written, output = output + excluded.output"
	sumUsed     = "sum(calls), sum(fresh), sum(read), sum(written), sum(output)"
)

const schema = `
	create table budget_mark(one integer primary key check(one = 1), hour integer not null) strict;
	create table budget_open(
		id text primary key, hour integer not null, at integer not null, run text not null,
		input integer not null, output integer not null, ` + whoColumns + `
	) strict, without rowid;
	create table budget_spent(hour integer not null, ` + whoColumns + `, ` + usedColumns + `,
		primary key(hour, ` + who + `)) strict, without rowid;
	create table budget_run(run text not null, ` + whoColumns + `, began integer not null, last integer not null, ` + usedColumns + `,
		primary key(run, ` + who + `)) strict, without rowid`

func run(c *sqlite.Conn, query string, args ...any) error {
	return sqlitex.Execute(c, query, &sqlitex.ExecOptions{Args: args})
}

func apply(c *sqlite.Conn, _ int64, e *verify.Envelope) error {
	switch e.Kind {
	case fairlead.KindCallIntent:
		return opened(c, e)
	case fairlead.KindCallOutcome:
		return closed(c, e)
	}
	return nil
}

// maxDrift is by how many hours a reservation may precede or follow its intent.
const maxDrift = 48

// opened remembers a call until its outcome.
func opened(c *sqlite.Conn, e *verify.Envelope) error {
	hour := hourOf(e.Time)
	if h, ok := e.Attr(attrHour).(int64); ok && h >= hour-maxDrift && h <= hour+maxDrift {
		hour = h
	}
	a := &e.Actor
	bound := func(n int64) int64 { return min(max(n, 0), maxTokens) }
	return run(c, "insert or ignore into budget_open(id, hour, at, run, input, output, "+who+") values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		e.ID.String(), hour, e.Time.UnixMicro(), e.Text(attrRun), bound(e.Int(attrInput)), bound(e.Int(attrOutput)),
		e.Tenant, a.App.Value, a.User.Value, a.Agent.Value, int64(how(&a.App)|how(&a.User)<<2|how(&a.Agent)<<4),
		e.Text("fairlead.key.id"), e.Text("gen_ai.provider.name"), e.Text("gen_ai.request.model"))
}

// how is as much of an assurance as counts here.
func how(f *fairlead.Facet) int {
	switch {
	case sure(f.Assurance):
		return 2
	case f.Assurance == fairlead.Absent || f.Assurance == fairlead.Ambiguous:
		return 0
	}
	return 1
}

func facet(value string, how int64) fairlead.Facet {
	return fairlead.Facet{Value: value, Assurance: [4]fairlead.Assurance{fairlead.Absent, fairlead.Declared, fairlead.Verified, fairlead.Absent}[how&3]}
}

// closed counts a call once, with its first outcome.
func closed(c *sqlite.Conn, e *verify.Envelope) error {
	id := e.Link(fairlead.RelCompletes).String()
	var s spent
	var estimate tokens
	found := false
	err := sqlitex.Execute(c, "select hour, at, run, input, output, "+who+" from budget_open where id = ?", &sqlitex.ExecOptions{Args: []any{id},
		ResultFunc: func(q *sqlite.Stmt) error {
			found = true
			s.hour, s.began, estimate.fresh, estimate.output = q.ColumnInt64(0), q.ColumnInt64(1), q.ColumnInt64(3), q.ColumnInt64(4)
			s.call = callOf(q, 5)
			s.call.Run = q.ColumnText(2)
			return nil
		}})
	if err != nil || !found {
		return err
	}
	end := endOf(e)
	s.tokens = end.used(estimate)
	mark, err := advance(c, s.hour)
	if err != nil {
		return err
	}
	at := func(hour int64) int64 {
		switch {
		case hour >= dayOf(mark):
			return hour
		case hour >= monthOf(mark):
			return dayOf(hour)
		}
		return monthOf(hour)
	}
	if err := run(c, "delete from budget_open where id = ?", id); err != nil {
		return err
	}
	columns := append(s.who(), 1, s.tokens.fresh, s.tokens.read, s.tokens.written, s.tokens.output)
	err = run(c, "insert into budget_spent(hour, "+who+", "+used+") values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set "+addUsed,
		append([]any{at(s.hour)}, columns...)...)
	if err != nil || s.call.Run == "" {
		return err
	}
	return run(c, "insert into budget_run(run, began, last, "+who+", "+used+") values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set "+
		addUsed+", began = min(began, excluded.began), last = max(last, excluded.last)", append([]any{s.call.Run, s.began, s.hour}, columns...)...)
}

// endOf reads from an outcome what Reservation.Settle is told.
func endOf(e *verify.Envelope) End {
	n := func(name string) int64 {
		if v, ok := e.Attr(name).(int64); ok {
			return v
		}
		return -1
	}
	return End{Outcome: e.Text("fairlead.outcome"), Status: int(e.Int("http.response.status_code")), Usage: fairlead.Usage{
		Input: n("gen_ai.usage.input_tokens"), Output: n("gen_ai.usage.output_tokens"),
		CacheRead: n("gen_ai.usage.cache_read.input_tokens"), CacheCreation: n("gen_ai.usage.cache_creation.input_tokens")}}
}

// spent is what calls used that are alike.
type spent struct {
	call   Call
	tokens tokens
	calls  int64
	hour   int64 // of the reservation, or the first hour of the day or month
	began  int64 // of a run, in Unix microseconds
}

func (s *spent) who() []any {
	c := &s.call
	a := &c.Actor
	return []any{c.Tenant, a.App.Value, a.User.Value, a.Agent.Value, int64(how(&a.App) | how(&a.User)<<2 | how(&a.Agent)<<4), c.Key, c.Provider, c.Model}
}

// callOf reads the columns of who, from number i on.
func callOf(q *sqlite.Stmt, i int) Call {
	h := q.ColumnInt64(i + 4)
	return Call{Tenant: q.ColumnText(i), Actor: fairlead.Actor{App: facet(q.ColumnText(i+1), h), User: facet(q.ColumnText(i+2), h>>2), Agent: facet(q.ColumnText(i+3), h>>4)},
		Key: q.ColumnText(i + 5), Provider: q.ColumnText(i + 6), Model: q.ColumnText(i + 7)}
}

// advance moves the mark to hour, if that is later, and folds what is now of an earlier day or month.
func advance(c *sqlite.Conn, hour int64) (mark int64, err error) {
	mark, known, err := readMark(c)
	if err != nil || known && hour <= mark {
		return mark, err
	}
	if err := run(c, "insert or replace into budget_mark(one, hour) values(1, ?)", hour); err != nil {
		return 0, err
	}
	if !known {
		return hour, nil
	}
	if err := run(c, "delete from budget_run where (tenant, run) in (select tenant, run from budget_run group by tenant, run having max(last) < ?)", hour-2*runMemory); err != nil {
		return 0, err
	}
	if day := dayOf(hour); day > mark {
		if err := fold(c, "hour - hour % 24", day); err != nil {
			return 0, err
		}
	}
	if month := monthOf(hour); month > mark {
		if err := fold(c, "unixepoch(hour * 3600, 'unixepoch', 'start of month') / 3600", month); err != nil {
			return 0, err
		}
	}
	return hour, nil
}

func readMark(c *sqlite.Conn) (hour int64, known bool, err error) {
	err = sqlitex.Execute(c, "select hour from budget_mark", &sqlitex.ExecOptions{ResultFunc: func(q *sqlite.Stmt) error {
		hour, known = q.ColumnInt64(0), true
		return nil
	}})
	return hour, known, err
}

// fold adds up what is before an hour, by what start makes of each.
func fold(c *sqlite.Conn, start string, before int64) error {
	err := run(c, "insert into budget_spent(hour, "+who+", "+used+") select "+start+" as start, "+who+", "+sumUsed+
		" from budget_spent where hour < ? and hour <> "+start+" group by start, "+who+" on conflict do update set "+addUsed, before)
	if err != nil {
		return err
	}
	return run(c, "delete from budget_spent where hour < ? and hour <> "+start, before)
}

// each calls fn for what was used since an hour, and for what is known of runs, newest first.
func each(c *sqlite.Conn, since int64, fn func(s *spent, ofRun bool)) error {
	var s spent
	err := sqlitex.Execute(c, "select hour, "+who+", "+used+" from budget_spent where hour >= ?", &sqlitex.ExecOptions{Args: []any{since},
		ResultFunc: func(q *sqlite.Stmt) error {
			s = spent{hour: q.ColumnInt64(0), call: callOf(q, 1), calls: q.ColumnInt64(9), tokens: tokensOf(q, 10)}
			fn(&s, false)
			return nil
		}})
	if err != nil {
		return err
	}
	return sqlitex.Execute(c, "select run, began, last, "+who+", "+used+" from budget_run order by last desc", &sqlitex.ExecOptions{
		ResultFunc: func(q *sqlite.Stmt) error {
			s = spent{began: q.ColumnInt64(1), hour: q.ColumnInt64(2), call: callOf(q, 3), calls: q.ColumnInt64(11), tokens: tokensOf(q, 12)}
			s.call.Run = q.ColumnText(0)
			fn(&s, true)
			return nil
		}})
}

func tokensOf(q *sqlite.Stmt, i int) tokens {
	return tokens{fresh: q.ColumnInt64(i), read: q.ColumnInt64(i + 1), written: q.ColumnInt64(i + 2), output: q.ColumnInt64(i + 3)}
}

// later is by how many hours a mark may be ahead of the clock to be believed.
const later = 24

// markTime is the time that a mark stands for, if it is believed.
func markTime(mark int64, t *clock) (wall int64, ok bool) {
	return time.Unix(mark*3600, 0).UnixMicro(), mark <= t.hour+later
}
