package ledger

import (
	"context"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/verify"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// An orphan is a call whose process died: its intent, and what the last progress fact says of its answer.
type orphan struct {
	intent   fairlead.ID
	released int64
}

// orphans finds intents without an outcome. It looks no further back than the oldest call that was open at the last
// checkpoint.
func (l *Ledger) orphans(ctx context.Context) ([]orphan, error) {
	var low int64
	err := l.db.Read(ctx, func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select low from checkpoint order by size desc limit 1", &sqlitex.ExecOptions{
			ResultFunc: func(s *sqlite.Stmt) error { low = s.ColumnInt64(0); return nil }})
	})
	if err != nil {
		return nil, err
	}
	open := map[fairlead.ID]*orphan{}
	var order []fairlead.ID
	err = l.Events(ctx, low, func(_ int64, b []byte) error {
		e, err := verify.ParseEnvelope(b)
		if err != nil {
			return err
		}
		switch e.Kind {
		case fairlead.KindCallIntent:
			open[e.ID] = &orphan{intent: e.ID}
			order = append(order, e.ID)
		case fairlead.KindCallPartial:
			if o := open[e.Link(fairlead.RelCompletes)]; o != nil {
				o.released = e.Int("fairlead.released.bytes")
			}
		case fairlead.KindCallOutcome:
			delete(open, e.Link(fairlead.RelCompletes))
		}
		return nil
	})
	var out []orphan
	for _, id := range order {
		if o := open[id]; o != nil {
			out = append(out, *o)
		}
	}
	return out, err
}

// unknownOutcome closes a call of which nobody can say how it ended.
func unknownOutcome(o orphan) *fairlead.Fact {
	f := &fairlead.Fact{
		Kind:  fairlead.KindCallOutcome,
		Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: o.intent, Assurance: fairlead.Derived}},
		Attrs: []fairlead.Attr{{Name: "fairlead.outcome", Value: "unknown"}, {Name: "error.type", Value: "process_died"}},
	}
	if o.released > 0 {
		f.Attrs = append(f.Attrs, fairlead.Attr{Name: "fairlead.released.bytes", Value: o.released})
	}
	return f
}
