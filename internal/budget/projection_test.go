package budget

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/store"
	"github.com/fairleadhq/fairlead/verify"
	"github.com/google/go-cmp/cmp"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A gate is as much of a gateway as limits see: it records what it does.
type gate struct {
	t    *testing.T
	conf ledger.Config
	l    *ledger.Ledger
	h    *hand
	v    *ledger.Views
}

func newGate(t *testing.T, at time.Time) *gate {
	g := &gate{t: t, h: &hand{t: at}}
	g.conf = ledger.Config{Dir: filepath.Join(t.TempDir(), "data"), Keys: filepath.Join(t.TempDir(), "keys"),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: g.h.now, Checkpoint: time.Hour}
	g.open()
	t.Cleanup(func() {
		if g.v != nil {
			g.v.Close()
		}
		g.l.Close()
	})
	return g
}

func (g *gate) open() {
	var err error
	if g.l, err = ledger.Open(g.t.Context(), g.conf); err != nil {
		g.t.Fatal(err)
	}
}

// begin reserves a call and records its intent.
func (g *gate) begin(b *Book, c Call) (*Reservation, fairlead.ID, error) {
	g.t.Helper()
	r, err := b.Reserve(c)
	if err != nil {
		return nil, fairlead.ID{}, err
	}
	f := &fairlead.Fact{Kind: fairlead.KindCallIntent, Tenant: c.Tenant, Actor: c.Actor, Attrs: append(r.Attrs(),
		fairlead.Attr{Name: "gen_ai.provider.name", Value: c.Provider}, fairlead.Attr{Name: "gen_ai.request.model", Value: c.Model})}
	if c.Key != "" {
		f.Attrs = append(f.Attrs, fairlead.Attr{Name: "fairlead.key.id", Value: c.Key})
	}
	if _, err := g.l.Append(g.t.Context(), f); err != nil {
		g.t.Fatal(err)
	}
	return r, f.ID, nil
}

// finish records an outcome, as the gateway does.
func (g *gate) finish(intent fairlead.ID, tenant string, e End) {
	g.t.Helper()
	f := &fairlead.Fact{Kind: fairlead.KindCallOutcome, Tenant: tenant, Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: intent, Assurance: fairlead.Derived}},
		Attrs: []fairlead.Attr{{Name: "fairlead.outcome", Value: e.Outcome}}}
	if e.Status != 0 {
		f.Attrs = append(f.Attrs, fairlead.Attr{Name: "http.response.status_code", Value: int64(e.Status)})
	}
	for _, u := range []struct {
		name string
		n    int64
	}{{"input_tokens", e.Usage.Input}, {"output_tokens", e.Usage.Output}, {"cache_read.input_tokens", e.Usage.CacheRead}, {"cache_creation.input_tokens", e.Usage.CacheCreation}} {
		if u.n >= 0 && u.n < 1<<53 {
			f.Attrs = append(f.Attrs, fairlead.Attr{Name: "gen_ai.usage." + u.name, Value: u.n})
		}
	}
	if _, err := g.l.Append(g.t.Context(), f); err != nil {
		g.t.Fatal(err)
	}
}

// views brings p up to date and gives a way to read it.
func (g *gate) views(p ledger.Projection) (*ledger.Views, Read) {
	g.t.Helper()
	if g.v != nil {
		g.v.Close()
	}
	v, err := ledger.OpenViews(g.l.Reader, p)
	if err != nil {
		g.t.Fatal(err)
	}
	g.v = v
	return v, func(ctx context.Context, fn func(*sqlite.Conn) error) error {
		db, err := store.Open(filepath.Join(g.conf.Dir, "views.db"), store.Config{ReadOnly: true, Migrations: make([]string, 100)})
		if err != nil {
			return err
		}
		defer db.Close()
		return db.Read(ctx, fn)
	}
}

// state is what the counters of b that still mean something have in this period.
func state(b *Book) map[string]amounts {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock.tick()
	m := map[string]amounts{}
	for _, u := range b.rules {
		for _, c := range u.ring {
			if c.roll(&b.clock); !c.used.zero() {
				tenant, _ := c.parts()
				m[fmt.Sprint(u.Name, " ", tenant, " ", c.String())] = c.used
			}
		}
	}
	return m
}

func (b *Book) sameAs(t *testing.T, other *Book) {
	t.Helper()
	if d := cmp.Diff(state(b), state(other), cmp.AllowUnexported(amounts{})); d != "" {
		t.Errorf("live (-) and from the ledger (+):\n%s", d)
	}
}

var many = []Limit{
	{Name: "hour", Tokens: maxCount, Money: MaxMoney, Calls: maxCount, Period: Hour, Per: []string{PerUser}},
	{Name: "day", Tokens: maxCount, Money: MaxMoney, Period: Day, Per: []string{PerApp, PerModel}},
	{Name: "month", Tokens: maxCount, Money: MaxMoney, Calls: maxCount, Period: Month},
	{Name: "believed", Tokens: maxCount, Period: Month, Per: []string{PerUser, PerAgent}, Declared: true, Models: []string{"gpt-*"}},
	{Name: "run", Tokens: maxCount, Calls: maxCount, Money: MaxMoney, Period: Run},
	{Name: "key", Calls: maxCount, Tokens: maxCount, Period: Day, Per: []string{PerKey, PerProvider}, Keys: []string{"*1", "*2"}},
	{Name: "sales", Calls: maxCount, Period: Month, Apps: []string{"sales"}},
}

var dear = []Price{{Model: "gpt-4o", Input: 2_500_001, Output: 10_000_003, CacheRead: 1_250_007}, {Input: 37_501, Output: 333}}

// play lets callers call for some days, over the end of a month, and now and then end in all the ways there are.
func (g *gate) play(b *Book, rnd *rand.Rand, calls int, each func(i int)) {
	g.t.Helper()
	type open struct {
		r      *Reservation
		id     fairlead.ID
		tenant string
	}
	var under []open
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	facet := func(names ...string) fairlead.Facet {
		how := []fairlead.Assurance{fairlead.Verified, fairlead.Attested, fairlead.Derived, fairlead.Declared}[rnd.IntN(4)]
		return fairlead.Facet{Value: pick(names...), Assurance: how}
	}
	for i := range calls {
		g.h.add(time.Duration(rnd.Int64N(int64(time.Hour))))
		c := Call{Tenant: pick("default", "default", "other"), Provider: pick("openai", "local"), Model: pick("gpt-4o", "gpt-5", "llama"), Key: pick("", "k1", "k2"), Run: pick("", fmt.Sprint("s", i/30), fmt.Sprint("r", i/9)),
			Input: rnd.Int64N(5000), Output: rnd.Int64N(500), Actor: fairlead.Actor{App: facet("support", "sales"), User: facet("u:a", "u:b", "u:c")}}
		if rnd.IntN(2) == 0 {
			c.Actor.Agent = facet("planner", "worker")
		}
		r, id, err := g.begin(b, c)
		if err != nil {
			g.t.Fatal(err)
		}
		under = append(under, open{r, id, c.Tenant})
		for len(under) > rnd.IntN(6) {
			k := rnd.IntN(len(under))
			u := under[k]
			under = append(under[:k], under[k+1:]...)
			n := func(max int64) int64 { return rnd.Int64N(max) - max/8 }
			e := End{Outcome: pick("completed", "completed", "upstream_status", "upstream_error", "aborted", "timeout"), Status: []int{0, 200, 500}[rnd.IntN(3)],
				Usage: fairlead.Usage{Input: n(9000), Output: n(900), CacheRead: n(3000), CacheCreation: n(500)}}
			if rnd.IntN(50) == 0 {
				e.Usage.Output = 1 << (40 + rnd.IntN(23))
			}
			g.finish(u.id, u.tenant, e)
			u.r.Settle(e)
			if rnd.IntN(20) == 0 {
				g.finish(u.id, u.tenant, completed(1e6, 1e6)) // a second outcome counts for nothing
			}
		}
		if each != nil {
			each(i)
		}
	}
	for _, u := range under { // the process dies now
		u.r.Settle(End{Outcome: "unknown", Usage: fairlead.NoUsage})
	}
}

// TestRestart plays days of calls, kills the process with calls under way, and finds in a new one the counters of the
// old: to the thousandth of a millionth of a millionth.
func TestRestart(t *testing.T) {
	g := newGate(t, time.Date(2026, 11, 24, 22, 0, 0, 0, time.UTC))
	live, err := New(Config{Limits: many, Prices: dear, Now: g.h.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := live.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	views, read := g.views(Projection)
	again := func(when string) *Book {
		if err := views.CatchUp(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		b, err := New(Config{Limits: many, Prices: dear, Now: g.h.now})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Seed(t.Context(), read); err != nil {
			t.Fatal(err)
		}
		t.Run(when, func(t *testing.T) { live.sameAs(t, b) })
		return b
	}
	rnd := rand.New(rand.NewPCG(4, 4))
	g.play(live, rnd, 600, func(i int) {
		if i%50 == 0 {
			again(fmt.Sprint("after call ", i, ", ", g.h.now().Format(time.DateTime)))
		}
	})
	if err := g.l.Close(); err != nil {
		t.Fatal(err)
	}
	g.open() // closes the calls that were under way
	views, read = g.views(Projection)
	b := again("after the crash")
	if n := len(state(b)); n < 20 {
		t.Errorf("only %d counters were compared", n)
	}
	// Seeding once more changes nothing.
	if err := b.Seed(t.Context(), read); err != nil {
		t.Fatal(err)
	}
	live.sameAs(t, b)
	// From zero, the view is the same as piece by piece.
	was := dump(t, read)
	if err := views.Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(was, dump(t, read)); d != "" {
		t.Errorf("rebuilt:\n%s", d)
	}
	hours := map[string]bool{}
	for _, row := range was {
		if f := strings.Split(row, "|"); f[0] == "budget_spent" {
			hours[f[1]] = true
		}
	}
	if n := len(hours); n < 5 || n > 24+12+2 { // of a day, of a month, and months
		t.Errorf("sums are kept for %d times", n)
	}
}

// dump lists what the view holds.
func dump(t *testing.T, read Read) (rows []string) {
	t.Helper()
	err := read(t.Context(), func(c *sqlite.Conn) error {
		for _, table := range []string{"budget_mark", "budget_open", "budget_spent", "budget_run"} {
			err := sqlitex.ExecuteTransient(c, "select * from "+table, &sqlitex.ExecOptions{ResultFunc: func(q *sqlite.Stmt) error {
				row := table
				for i := range q.ColumnCount() {
					row += "|" + q.ColumnText(i)
				}
				rows = append(rows, row)
				return nil
			}})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestApplyFails lets the view fail at every fact once, before and after it was taken in: none is lost and none counts
// twice.
func TestApplyFails(t *testing.T) {
	g := newGate(t, time.Date(2026, 11, 29, 22, 0, 0, 0, time.UTC))
	b, err := New(Config{Limits: many, Prices: dear, Now: g.h.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	g.play(b, rand.New(rand.NewPCG(9, 9)), 60, nil)
	views, read := g.views(Projection)
	if err := views.CatchUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want := dump(t, read)
	injected := errors.New("injected")
	failed := map[int64]bool{}
	faulty := Projection
	faulty.Version = 1000
	faulty.Apply = func(c *sqlite.Conn, seq int64, e *verify.Envelope) error {
		if at := seq * 2; !failed[at] {
			failed[at] = true
			return injected
		}
		if err := Projection.Apply(c, seq, e); err != nil {
			return err
		}
		if at := seq*2 + 1; !failed[at] {
			failed[at] = true
			return injected
		}
		return nil
	}
	views, read = g.views(faulty)
	faults := 0
	for {
		err := views.CatchUp(t.Context(), nil)
		if err == nil {
			break
		}
		if !errors.Is(err, injected) {
			t.Fatal(err)
		}
		faults++
	}
	if faults < 200 {
		t.Errorf("only %d faults", faults)
	}
	if d := cmp.Diff(want, dump(t, read)); d != "" {
		t.Errorf("after %d faults:\n%s", faults, d)
	}
}

// TestUnavailable shows what a book says that could not be seeded, and that it works once it could be.
func TestUnavailable(t *testing.T) {
	g := newGate(t, noon)
	b, err := New(Config{Now: g.h.now, Limits: []Limit{{Name: "day", Tokens: 300, Period: Day, Apps: []string{"support"}}, {Name: "rate", Rate: Rate{Requests: 9, Every: time.Second}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.try(ask("support", "u:a")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("before seeding: %v", err)
	}
	if err := b.try(ask("sales", "u:a")); err != nil {
		t.Errorf("a call that no such limit applies to: %v", err)
	}
	broken := errors.New("the disk is gone")
	if err := b.Seed(t.Context(), func(context.Context, func(*sqlite.Conn) error) error { return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if err := b.try(ask("support", "u:a")); !errors.Is(err, ErrUnavailable) || !errors.Is(err, broken) {
		t.Errorf("after seeding failed: %v", err)
	}
	// On an open route the call passes, and is counted all the same.
	c := ask("support", "u:a")
	c.Observe = true
	r, id, err := g.observe(b, c)
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("observed: %v", err)
	}
	g.finish(id, c.Tenant, completed(60, 40))
	views, read := g.views(Projection)
	if err := views.CatchUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	r.Settle(completed(60, 40))
	if err := b.Seed(t.Context(), read); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(1); len(s) != 1 || s[0].Used != 100 {
		t.Errorf("after seeding: %+v", s)
	}
	if err := b.try(ask("support", "u:a")); err != nil {
		t.Errorf("after seeding: %v", err)
	}
}

// observe is begin for a call that is let through in any case.
func (g *gate) observe(b *Book, c Call) (*Reservation, fairlead.ID, error) {
	g.t.Helper()
	r, would := b.Reserve(c)
	f := &fairlead.Fact{Kind: fairlead.KindCallIntent, Tenant: c.Tenant, Actor: c.Actor, Attrs: r.Attrs()}
	if _, err := g.l.Append(g.t.Context(), f); err != nil {
		g.t.Fatal(err)
	}
	return r, f.ID, would
}

// TestSet changes limits while calls are under way.
func TestSet(t *testing.T) {
	g := newGate(t, noon)
	old := []Limit{{Name: "day", Tokens: 1000, Period: Day}, {Name: "gone", Calls: 1000, Period: Day}, {Name: "rate", Rate: Rate{Requests: 4, Every: time.Hour}}, {Name: "run", Calls: 9, Period: Run}}
	b, err := New(Config{Limits: old, Now: g.h.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	r, id, err := g.begin(b, ask("support", "u:a"))
	if err != nil {
		t.Fatal(err)
	}
	g.finish(id, "default", completed(50, 20))
	r.Settle(completed(50, 20))
	under, _, err := g.begin(b, ask("support", "u:a"))
	if err != nil {
		t.Fatal(err)
	}
	views, read := g.views(Projection)
	if err := views.CatchUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	now := []Limit{{Name: "rate", Rate: Rate{Requests: 8, Every: time.Hour}}, {Name: "new", Tokens: 500, Period: Month, Concurrent: 2, Per: []string{PerUser}}, {Name: "day", Tokens: 200, Period: Day}, {Name: "run", Calls: 9, Period: Run}}
	if err := b.Set(t.Context(), []Limit{{Name: "bad"}}, nil, read); err == nil {
		t.Error("a limit that bounds nothing is taken")
	}
	// A call that ends while the ledger is read counts with new limits too.
	ended := false
	late := func(ctx context.Context, fn func(*sqlite.Conn) error) error {
		err := read(ctx, fn)
		r, _, rerr := g.begin(b, ask("support", "u:a"))
		if rerr != nil {
			t.Fatal(rerr)
		}
		r.Settle(completed(10, 0))
		ended = true
		return err
	}
	if err := b.Set(t.Context(), now, nil, late); err != nil || !ended {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range b.Status(10) {
		got[s.Limit+" "+string(s.What)] = fmt.Sprint(s.Used, "+", s.Held, " of ", s.Max)
	}
	want := map[string]string{"day tokens": "80+100 of 200", "new tokens": "80+100 of 500", "new concurrent": "0+1 of 2", "rate rate": "6+0 of 8", "run calls": "2+1 of 9"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("after the change:\n%s", d)
	}
	under.Settle(completed(5, 5))
	under.Settle(completed(5, 5))
	if s := b.Status(10); s[0].Limit != "rate" || len(s) != 4 || s[1].Limit != "day" || s[1].Used != 90 || s[1].Held != 0 {
		t.Errorf("after the call under way: %+v", s)
	}
	// What cannot be read changes nothing.
	if err := b.Set(t.Context(), old, nil, func(context.Context, func(*sqlite.Conn) error) error { return errors.New("no") }); err == nil {
		t.Error("no error")
	}
	if s := b.Status(10); len(s) != 4 || s[1].Used != 90 {
		t.Errorf("after an error: %+v", s)
	}
}

// TestNoRoomForAll seeds a book with more spenders than it may remember: those beyond cannot start anew.
func TestNoRoomForAll(t *testing.T) {
	g := newGate(t, noon)
	limits := []Limit{{Name: "l", Calls: 1, Period: Day, Per: []string{PerUser}}}
	b, err := New(Config{Limits: limits, Now: g.h.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		r, id, err := g.begin(b, ask("support", fmt.Sprint("u:", i)))
		if err != nil {
			t.Fatal(err)
		}
		g.finish(id, "default", completed(1, 1))
		r.Settle(completed(1, 1))
	}
	views, read := g.views(Projection)
	if err := views.CatchUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	small, err := New(Config{Limits: limits, Now: g.h.now, Scopes: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := small.Seed(t.Context(), read); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		if small.try(ask("support", fmt.Sprint("u:", i))) == nil {
			t.Errorf("spender %d starts anew", i)
		}
	}
	// So it is when room becomes scarce while the book is in use.
	if err := b.Set(t.Context(), []Limit{{Name: "l", Calls: 1, Tokens: 5, Period: Day, Per: []string{PerUser}}}, nil, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		if b.try(ask("support", fmt.Sprint("u:", i))) == nil {
			t.Errorf("spender %d starts anew after a change", i)
		}
	}
}

// TestRunBegan shows that a run that is too old is still too old after a restart.
func TestRunBegan(t *testing.T) {
	g := newGate(t, noon)
	limits := []Limit{{Name: "l", Within: time.Hour}}
	b, err := New(Config{Limits: limits, Now: g.h.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	_, id, err := g.begin(b, ask("support", "u:a"))
	if err != nil {
		t.Fatal(err)
	}
	g.finish(id, "default", completed(1, 1))
	views, read := g.views(Projection)
	if err := views.CatchUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if b, err = New(Config{Limits: limits, Now: g.h.now}); err != nil {
		t.Fatal(err)
	}
	if err := b.Seed(t.Context(), read); err != nil {
		t.Fatal(err)
	}
	g.h.add(time.Hour)
	if r, err := b.Reserve(ask("support", "u:a")); err != nil {
		t.Errorf("after an hour: %v", err)
	} else {
		r.Cancel()
	}
	g.h.add(time.Second)
	if v := over(t, b.try(ask("support", "u:a"))); len(v) != 1 || v[0].What != WhatTime {
		t.Errorf("after more than an hour: %+v", v)
	}
	if s := b.Status(9); len(s) != 1 || s[0].Share() <= 1 {
		t.Errorf("status: %+v", s)
	}
	g.h.add(25 * time.Hour)
	if err := b.try(ask("support", "u:a")); err != nil {
		t.Errorf("a day after its last call a run is forgotten: %v", err)
	}
}

// TestMarkAhead shows what a clock does that was wrong in an earlier process.
func TestMarkAhead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ahead time.Duration
		want  int64
		end   time.Duration
	}{
		{"an hour ahead: time stands still until then", time.Hour, 100, 90 * time.Minute},
		{"years ahead: not believed, and what was used then counts now", 3 * 366 * 24 * time.Hour, 100, 30 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(t, noon.Add(tt.ahead))
			limits := []Limit{{Name: "l", Tokens: 1000, Period: Hour}}
			b, err := New(Config{Limits: limits, Now: g.h.now})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Seed(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			_, id, err := g.begin(b, ask("support", "u:a"))
			if err != nil {
				t.Fatal(err)
			}
			g.finish(id, "default", completed(60, 40))
			g.h.add(-tt.ahead)
			views, read := g.views(Projection)
			if err := views.CatchUp(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if b, err = New(Config{Limits: limits, Now: g.h.now}); err != nil {
				t.Fatal(err)
			}
			if err := b.Seed(t.Context(), read); err != nil {
				t.Fatal(err)
			}
			if s := b.Status(1); len(s) != 1 || s[0].Used != tt.want || !s[0].Resets.Equal(noon.Add(tt.end)) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// BenchmarkApply is what the view costs for a call: two facts.
func BenchmarkApply(b *testing.B) {
	db, err := store.Open(filepath.Join(b.TempDir(), "views.db"), store.Config{Migrations: []string{schema}, Lax: true})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	n := uint64(0)
	b.ResetTimer()
	for n < uint64(b.N) {
		err := db.Write(func(c *sqlite.Conn) error {
			for range min(2048, uint64(b.N)-n) {
				n++
				id := fairlead.ID{Boot: "aaaaaaaaaaaaa", N: n}
				r := Reservation{b: &Book{rules: []*rule{{Limit: Limit{Period: Day}}}}, call: ask("support", fmt.Sprint("u:", n%1000)), hour: hourOf(noon)}
				r.call.Run = fmt.Sprint("r", n/20)
				intent := verify.Envelope{Fact: fairlead.Fact{ID: id, Tenant: "default", Kind: fairlead.KindCallIntent, Time: noon, Actor: r.call.Actor, Attrs: r.Attrs()}}
				if err := apply(c, 0, &intent); err != nil {
					return err
				}
				outcome := verify.Envelope{Fact: fairlead.Fact{Kind: fairlead.KindCallOutcome, Time: noon, Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: id}},
					Attrs: []fairlead.Attr{{Name: "fairlead.outcome", Value: "completed"}, {Name: "gen_ai.usage.input_tokens", Value: int64(50)}, {Name: "gen_ai.usage.output_tokens", Value: int64(20)}}}}
				if err := apply(c, 1, &outcome); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// TestLateOutcome shows where a call counts whose outcome comes long after it began: where it began, at the grain that
// this time has by now.
func TestLateOutcome(t *testing.T) {
	g := newGate(t, time.Date(2026, 11, 29, 23, 30, 0, 0, time.UTC))
	b, err := New(Config{Limits: []Limit{{Name: "l", Tokens: 1000, Period: Month}}, Now: g.h.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var ids []fairlead.ID
	for range 4 { // on the 29th and 30th of November, the 1st and 2nd of December
		c := ask("support", "u:a")
		c.Run = ""
		_, id, err := g.begin(b, c)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		g.h.add(24 * time.Hour)
	}
	for _, i := range []int{1, 3, 0, 2} {
		g.finish(ids[i], "default", completed(int64(i), 10))
	}
	views, read := g.views(Projection)
	if err := views.CatchUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range dump(t, read) {
		f := strings.Split(row, "|")
		if f[0] != "budget_spent" {
			continue
		}
		var hour int64
		if _, err := fmt.Sscan(f[1], &hour); err != nil {
			t.Fatal(err)
		}
		got = append(got, time.Unix(hour*3600, 0).UTC().Format("2006-01-02 15h ")+strings.Join(f[10:], " "))
	}
	want := []string{"2026-11-01 00h 2 1 0 0 20", "2026-12-01 00h 1 2 0 0 10", "2026-12-02 23h 1 3 0 0 10"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
