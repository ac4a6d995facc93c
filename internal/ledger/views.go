package ledger

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/store"
	"github.com/fairleadhq/fairlead/verify"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A Projection is a view of the ledger that can be dropped and rebuilt.
type Projection struct {
	Name string
	// Version changes whenever Schema or Apply do; the view is then rebuilt from zero.
	Version int
	// Schema creates the tables, all called NAME_something.
	Schema string
	// Apply takes in one fact. It must be deterministic: no clock, no randomness, nothing but c and its arguments.
	Apply func(c *sqlite.Conn, seq int64, e *verify.Envelope) error
}

// Views is the database of projections beside a ledger. Several processes may bring it up to date at a time.
type Views struct {
	r    *Reader
	db   *store.DB
	list []Projection
}

var viewMigrations = []string{`
create table cursor(
	name    text primary key,
	version integer not null,
	next    integer not null -- the first event that was not applied
) strict, without rowid;
create table boot(
	number integer primary key,
	name   text not null unique
) strict;
`}

// OpenViews opens the views of r's data folder: the built-in one and list.
func OpenViews(r *Reader, list ...Projection) (*Views, error) {
	db, err := store.Open(filepath.Join(r.dir, viewsFile), store.Config{Migrations: viewMigrations, Lax: true})
	if err != nil {
		return nil, err
	}
	v := &Views{r: r, db: db, list: append([]Projection{facts}, list...)}
	for i := range v.list {
		if err := v.prepare(&v.list[i], false); err != nil {
			db.Close()
			return nil, err
		}
	}
	return v, nil
}

// Close releases the database.
func (v *Views) Close() error { return v.db.Close() }

// prepare makes the tables of a projection anew if they are of another version, or if asked to.
func (v *Views) prepare(p *Projection, anew bool) error {
	return v.db.Write(func(c *sqlite.Conn) error {
		version := -1
		err := sqlitex.Execute(c, "select version from cursor where name = ?", &sqlitex.ExecOptions{Args: []any{p.Name},
			ResultFunc: func(s *sqlite.Stmt) error { version = s.ColumnInt(0); return nil }})
		if err != nil || version == p.Version && !anew {
			return err
		}
		var tables []string
		err = sqlitex.Execute(c, "select name from sqlite_master where type = 'table' and substr(name, 1, ?) = ?",
			&sqlitex.ExecOptions{Args: []any{len(p.Name) + 1, p.Name + "_"},
				ResultFunc: func(s *sqlite.Stmt) error { tables = append(tables, s.ColumnText(0)); return nil }})
		if err != nil {
			return err
		}
		for _, t := range tables {
			if err := sqlitex.ExecuteTransient(c, "drop table "+t, nil); err != nil {
				return err
			}
		}
		for _, stmt := range strings.Split(p.Schema, ";") {
			if strings.TrimSpace(stmt) == "" {
				continue
			}
			if err := sqlitex.ExecuteTransient(c, stmt, nil); err != nil {
				return fmt.Errorf("making the tables of view %s: %w", p.Name, err)
			}
		}
		return sqlitex.Execute(c, "insert or replace into cursor(name, version, next) values(?, ?, 0)",
			&sqlitex.ExecOptions{Args: []any{p.Name, p.Version}})
	})
}

// Rebuild drops every view and makes it again from the first event.
func (v *Views) Rebuild(ctx context.Context, progress func(seq int64)) error {
	for i := range v.list {
		if err := v.prepare(&v.list[i], true); err != nil {
			return err
		}
	}
	return v.CatchUp(ctx, progress)
}

// viewBatch is how many events are applied in one transaction.
const viewBatch = 4096

// CatchUp applies all events that were not applied yet. progress, if not nil, is called now and then.
func (v *Views) CatchUp(ctx context.Context, progress func(seq int64)) error {
	for i := range v.list {
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				return err
			}
			var next int64
			var err error
			if next, more, err = v.apply(ctx, &v.list[i]); err != nil {
				return fmt.Errorf("bringing view %s up to date: %w", v.list[i].Name, err)
			}
			if progress != nil {
				progress(next)
			}
		}
	}
	return nil
}

// apply takes in one batch. The cursor is read inside the transaction, so that two processes never apply a fact twice.
func (v *Views) apply(ctx context.Context, p *Projection) (next int64, more bool, err error) {
	err = v.db.Write(func(c *sqlite.Conn) error {
		err := sqlitex.Execute(c, "select next from cursor where name = ?", &sqlitex.ExecOptions{Args: []any{p.Name},
			ResultFunc: func(s *sqlite.Stmt) error { next = s.ColumnInt64(0); return nil }})
		if err != nil {
			return err
		}
		last := next + viewBatch
		err = v.r.Events(ctx, next, func(seq int64, b []byte) error {
			if seq >= last {
				more = true
				return errStop
			}
			e, err := verify.ParseEnvelope(b)
			if err != nil {
				return fmt.Errorf("event %d: %w", seq, err)
			}
			next = seq + 1
			return p.Apply(c, seq, e)
		})
		if err != nil && !errors.Is(err, errStop) {
			return err
		}
		return sqlitex.Execute(c, "update cursor set next = ? where name = ?", &sqlitex.ExecOptions{Args: []any{next, p.Name}})
	})
	return next, more, err
}

// facts is the built-in view: where each fact is, how each call ended, and which facts are not about calls.
var facts = Projection{
	Name: "facts", Version: 1,
	Schema: `
		create table facts_place(key integer primary key, seq integer not null) strict;
		create table facts_outcome(intent integer primary key, seq integer not null) strict;
		create table facts_other(seq integer primary key, kind text not null) strict`,
	Apply: func(c *sqlite.Conn, seq int64, e *verify.Envelope) error {
		key, err := bootKey(c, e.ID, true)
		if err != nil {
			return err
		}
		if err := exec(c, "insert or replace into facts_place(key, seq) values(?, ?)", key, seq); err != nil {
			return err
		}
		switch {
		case e.Kind == fairlead.KindCallOutcome:
			intent, err := bootKey(c, e.Link(fairlead.RelCompletes), true)
			if err != nil {
				return err
			}
			return exec(c, "insert or replace into facts_outcome(intent, seq) values(?, ?)", intent, seq)
		case !strings.HasPrefix(string(e.Kind), "call."):
			return sqlitex.Execute(c, "insert into facts_other(seq, kind) values(?, ?)",
				&sqlitex.ExecOptions{Args: []any{seq, string(e.Kind)}})
		}
		return nil
	},
}

// bootKey makes an integer of an id: the number of the boot and that of the fact, so that ids are next to each other as
// they are in time.
func bootKey(c *sqlite.Conn, id fairlead.ID, make bool) (int64, error) {
	number := int64(-1)
	get := func() error {
		return sqlitex.Execute(c, "select number from boot where name = ?", &sqlitex.ExecOptions{Args: []any{id.Boot},
			ResultFunc: func(s *sqlite.Stmt) error { number = s.ColumnInt64(0); return nil }})
	}
	if err := get(); err != nil {
		return 0, err
	}
	if number < 0 {
		if !make {
			return 0, errNoFact
		}
		if err := sqlitex.Execute(c, "insert into boot(name) values(?)", &sqlitex.ExecOptions{Args: []any{id.Boot}}); err != nil {
			return 0, err
		}
		if err := get(); err != nil {
			return 0, err
		}
	}
	return number<<40 | int64(id.N&(1<<40-1)), nil
}

var errNoFact = errors.New("the ledger has no such fact")

// Read runs fn on a connection for reading the tables of projections. Bring them up to date before.
func (v *Views) Read(ctx context.Context, fn func(*sqlite.Conn) error) error {
	return v.db.Read(ctx, fn)
}

// Find gives the number of the fact with this id.
func (v *Views) Find(ctx context.Context, id fairlead.ID) (seq int64, err error) {
	return v.find(ctx, id, "select seq from facts_place where key = ?")
}

// Outcome gives the number of the fact that completes the call with this id, or -1 while it is under way.
func (v *Views) Outcome(ctx context.Context, intent fairlead.ID) (seq int64, err error) {
	seq, err = v.find(ctx, intent, "select seq from facts_outcome where intent = ?")
	if errors.Is(err, errNoFact) {
		return -1, nil
	}
	return seq, err
}

func (v *Views) find(ctx context.Context, id fairlead.ID, query string) (seq int64, err error) {
	seq = -1
	err = v.db.Read(ctx, func(c *sqlite.Conn) error {
		key, err := bootKey(c, id, false)
		if err != nil {
			return err
		}
		return sqlitex.Execute(c, query, &sqlitex.ExecOptions{Args: []any{key},
			ResultFunc: func(s *sqlite.Stmt) error { seq = s.ColumnInt64(0); return nil }})
	})
	if err == nil && seq < 0 {
		err = errNoFact
	}
	if err != nil {
		err = fmt.Errorf("looking for %s: %w", id, err)
	}
	return seq, err
}

// Others calls each for every fact whose kind starts with prefix, in order; only kinds that are not about calls.
func (v *Views) Others(ctx context.Context, prefix string, each func(seq int64, e *verify.Envelope) error) error {
	var list []int64
	err := v.db.Read(ctx, func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select seq from facts_other where substr(kind, 1, ?) = ? order by seq",
			&sqlitex.ExecOptions{Args: []any{len(prefix), prefix},
				ResultFunc: func(s *sqlite.Stmt) error { list = append(list, s.ColumnInt64(0)); return nil }})
	})
	if err != nil {
		return err
	}
	for _, seq := range list {
		e, err := v.r.Fact(ctx, seq)
		if err != nil {
			return err
		}
		if err := each(seq, e); err != nil {
			return err
		}
	}
	return nil
}

// Fact gives the fact with number seq.
func (r *Reader) Fact(ctx context.Context, seq int64) (*verify.Envelope, error) {
	b, err := r.Envelope(ctx, seq)
	if err != nil {
		return nil, err
	}
	e, err := verify.ParseEnvelope(b)
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", seq, err)
	}
	return e, nil
}
