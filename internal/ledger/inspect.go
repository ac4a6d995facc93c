package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/tlog"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// Inspect gives the data folder to [verify.Log]: every row as it is stored, believing none.
func (r *Reader) Inspect() verify.Source { return inspector{r} }

type inspector struct{ r *Reader }

// Head is [Reader.Head].
func (i inspector) Head(ctx context.Context) (int64, tlog.Hash, error) { return i.r.Head(ctx) }

// Checkpoints is [Reader.Checkpoints].
func (i inspector) Checkpoints(ctx context.Context, each func(size int64, signed []byte) error) error {
	return i.r.Checkpoints(ctx, each)
}

// Events reads segment by segment. Unlike [Reader.Events] it goes on behind rows that are missing.
func (i inspector) Events(ctx context.Context, from int64, each func(seq int64, envelope []byte) error) error {
	w := walk{next: from, each: each}
	start := from &^ (verify.TileWidth - 1) // no segment crosses a multiple of 256
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := i.r.db.Read(ctx, func(c *sqlite.Conn) error { return w.chunk(c, start) })
		var damage *verify.DamageError
		if errors.As(err, &damage) && damage.Next == 0 {
			// Go on at the next row that is there.
			damage.Next, err = i.number(ctx, "select coalesce(min(first), ?1 + 1) from segment where first > ?1", damage.First)
			if err == nil {
				err = damage
			}
		}
		if err != nil {
			return err
		}
		next, err := i.number(ctx, "select coalesce(min(first), -1) from segment where first >= ?", start+chunk)
		if err != nil || next < 0 {
			return err
		}
		start = next &^ (verify.TileWidth - 1)
	}
}

// A walk goes over segments.
type walk struct {
	next      int64 // the event that is to come
	each      func(seq int64, envelope []byte) error
	data, buf []byte
}

// chunk reads the rows of the events from start on. No snapshot is held for longer.
func (w *walk) chunk(c *sqlite.Conn, start int64) error {
	s := c.Prep("select first, count, codec, data from segment where first >= ? and first < ? order by first")
	defer s.Reset()
	s.BindInt64(1, start)
	s.BindInt64(2, start+chunk)
	for {
		row, err := s.Step()
		if err != nil || !row {
			return err
		}
		if err := w.segment(s); err != nil {
			return err
		}
	}
}

func (w *walk) segment(s *sqlite.Stmt) error {
	first, count, codec := s.ColumnInt64(0), s.ColumnInt64(1), s.ColumnInt(2)
	sane := count >= 1 && first%verify.TileWidth+count <= verify.TileWidth
	if first < w.next && (!sane || first+count <= w.next) {
		return nil // it was read, or reported, before
	}
	if !sane {
		return &verify.DamageError{First: first, Err: fmt.Errorf("the row says that it holds %d", count)}
	}
	if n := s.ColumnLen(3); cap(w.data) < n {
		w.data = make([]byte, n)
	}
	w.data = w.data[:s.ColumnLen(3)]
	s.ColumnBytes(3, w.data)
	seq := first
	var stopped, err error
	w.buf, err = decodeSegment(w.buf, codec, int(count), w.data, func(envelope []byte) error {
		if seq >= w.next {
			if stopped = w.each(seq, envelope); stopped != nil {
				return stopped
			}
			w.next = seq + 1
		}
		seq++
		return nil
	})
	if stopped == nil && err != nil {
		return &verify.DamageError{First: first, Next: first + count, Err: err}
	}
	return stopped
}

// Strays calls each for rows of events that lie within others: no reader gives them.
func (i inspector) Strays(ctx context.Context, each func(first int64, what string) error) error {
	end := int64(0)
	return i.ids(ctx, "select first, count from segment where first >= ? order by first limit 4096", func(s *sqlite.Stmt) error {
		first, count := s.ColumnInt64(0), s.ColumnInt64(1)
		var err error
		if first < end {
			err = each(first, fmt.Sprintf("a second row holds events from this number on, the one before reaches up to %d", end-1))
		}
		if count >= 1 && count <= verify.TileWidth {
			end = max(end, first+count)
		}
		return err
	})
}

// number runs a query that gives one number.
func (i inspector) number(ctx context.Context, query string, arg int64) (n int64, err error) {
	err = i.r.db.Read(ctx, func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, query, &sqlitex.ExecOptions{Args: []any{arg},
			ResultFunc: func(s *sqlite.Stmt) error { n = s.ColumnInt64(0); return nil }})
	})
	return n, err
}

// StoredTile gives the hashes of a complete tile as they are stored, or nil.
func (i inspector) StoredTile(_ context.Context, level int, n int64) ([]tlog.Hash, error) {
	return i.r.storedTile(level, n)
}

// Tiles calls each for the place of every stored tile.
func (i inspector) Tiles(ctx context.Context, each func(level int, n int64) error) error {
	return i.ids(ctx, "select id from tile where id >= ? order by id limit 4096", func(s *sqlite.Stmt) error {
		id := s.ColumnInt64(0)
		return each(int(id>>48), id&(1<<48-1))
	})
}

// Blobs calls each for the number of every stored blob.
func (i inspector) Blobs(ctx context.Context, each func(id int64) error) error {
	return i.ids(ctx, "select id from blob where id >= ? order by id limit 4096", func(s *sqlite.Stmt) error {
		return each(s.ColumnInt64(0))
	})
}

// ids calls each for the rows that query gives, part by part; their first column is the key.
func (i inspector) ids(ctx context.Context, query string, each func(*sqlite.Stmt) error) error {
	for from, done := int64(-1<<63), false; !done; {
		n := 0
		err := i.r.db.Read(ctx, func(c *sqlite.Conn) error {
			return sqlitex.Execute(c, query, &sqlitex.ExecOptions{Args: []any{from}, ResultFunc: func(s *sqlite.Stmt) error {
				n, from = n+1, s.ColumnInt64(0)+1
				return each(s)
			}})
		})
		if err != nil {
			return err
		}
		done = n < 4096 || from == -1<<63 // past the largest number
	}
	return nil
}

// Blob gives a sealed blob and its scope. sealed is nil if there is none.
func (i inspector) Blob(ctx context.Context, id int64) (scope int64, sealed []byte, err error) {
	err = i.r.db.Read(ctx, func(c *sqlite.Conn) error {
		s := c.Prep("select scope, data from blob where id = ?")
		defer s.Reset()
		s.BindInt64(1, id)
		row, err := s.Step()
		if err != nil || !row {
			return err
		}
		scope = s.ColumnInt64(0)
		sealed = make([]byte, s.ColumnLen(1))
		s.ColumnBytes(1, sealed)
		return nil
	})
	return scope, sealed, err
}

// HasScope reports whether the key of a scope is there.
func (i inspector) HasScope(ctx context.Context, scope int64) (bool, error) {
	n, err := i.number(ctx, "select count(*) from scope where id = ?", scope)
	return n > 0, err
}
