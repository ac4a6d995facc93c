package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fairleadhq/fairlead/internal/seal"
	"github.com/fairleadhq/fairlead/internal/store"
	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/tlog"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// File names in a data folder.
const (
	ledgerFile = "ledger.db"
	viewsFile  = "views.db"
	lockFile   = "lock"
	keysFile   = "verifier-keys" // public; a convenience, not a root of trust
)

// A Reader reads a data folder. It is safe for concurrent use and works beside a running Ledger.
type Reader struct {
	dir    string
	origin string
	db     *store.DB
	keys   *seal.Keys // nil when the keys are not here: everything but content can be read
	vault  *Vault
}

// ErrNoLedger is wrapped in the error for a folder in which nothing was recorded yet.
var ErrNoLedger = errors.New("there is no ledger in this folder")

// OpenReader opens the data folder dir for reading. keysDir may be empty or lack the log's keys: then content stays
// sealed, and everything else works.
func OpenReader(dir, keysDir string) (*Reader, error) {
	db, err := store.Open(filepath.Join(dir, ledgerFile), store.Config{Migrations: migrations, ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoLedger, dir)
	}
	if err != nil {
		return nil, err
	}
	r := &Reader{dir: dir, db: db}
	if r.origin, err = r.meta(context.Background(), "origin"); err != nil {
		r.Close()
		return nil, err
	}
	if keysDir != "" {
		r.keys, err = seal.Load(keysDir, r.origin)
		if err != nil && !errors.Is(err, seal.ErrNoKeys) {
			r.Close()
			return nil, err
		}
	}
	r.vault = newVault(r)
	return r, nil
}

// Close releases the folder.
func (r *Reader) Close() error { return r.db.Close() }

// Origin is the log's name.
func (r *Reader) Origin() string { return r.origin }

// Dir is the data folder.
func (r *Reader) Dir() string { return r.dir }

// Vault opens content.
func (r *Reader) Vault() *Vault { return r.vault }

// HasKeys reports whether content can be opened.
func (r *Reader) HasKeys() bool { return r.keys != nil }

// VerifierKeys gives the log's public keys and says whether they come from the keys folder, which whoever holds the data
// folder cannot have replaced.
func (r *Reader) VerifierKeys() (text string, trusted bool, err error) {
	if r.keys != nil {
		text, err = r.keys.VerifierKeys()
		return text, true, err
	}
	b, err := os.ReadFile(filepath.Join(r.dir, keysFile))
	return string(b), false, err
}

func (r *Reader) meta(ctx context.Context, name string) (value string, err error) {
	err = r.db.Read(ctx, func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select value from meta where name = ?", &sqlitex.ExecOptions{Args: []any{name},
			ResultFunc: func(s *sqlite.Stmt) error { value = s.ColumnText(0); return nil }})
	})
	return value, err
}

// Head is the durable tree head: how many events there are and their root hash.
func (r *Reader) Head(ctx context.Context) (size int64, root tlog.Hash, err error) {
	err = r.db.Read(ctx, func(c *sqlite.Conn) error {
		size, root, err = readHead(c)
		return err
	})
	return size, root, err
}

func readHead(c *sqlite.Conn) (size int64, root tlog.Hash, err error) {
	found := false
	err = sqlitex.Execute(c, "select size, root from tree where id = 1", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			found = true
			size = s.ColumnInt64(0)
			if n := s.ColumnBytes(1, root[:]); n != len(root) || size < 0 {
				return errors.New("the tree head is damaged")
			}
			return nil
		}})
	if err == nil && !found {
		root = (&verify.Frontier{}).Root()
	}
	return size, root, err
}

// chunk is how many events are read in one query: no snapshot is held between chunks.
const chunk = 16 * verify.TileWidth

// Events calls each for every event from number from up to the head that stands when it gets there, in order. The
// envelope is good only during the call. It goes on until each returns an error or there are no more events.
func (r *Reader) Events(ctx context.Context, from int64, each func(seq int64, envelope []byte) error) error {
	var buf, data []byte
	next := from
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := next &^ (verify.TileWidth - 1)
		before, last := next, start
		var stopped error // what each returned
		err := r.db.Read(ctx, func(c *sqlite.Conn) error {
			s := c.Prep("select first, count, codec, data from segment where first >= ? and first < ? order by first")
			defer s.Reset()
			s.BindInt64(1, start)
			s.BindInt64(2, start+chunk)
			for {
				row, err := s.Step()
				if err != nil || !row {
					return err
				}
				first, count, codec := s.ColumnInt64(0), s.ColumnInt(1), s.ColumnInt(2)
				if n := s.ColumnLen(3); cap(data) < n {
					data = make([]byte, n)
				}
				data = data[:s.ColumnLen(3)]
				s.ColumnBytes(3, data)
				seq := first
				buf, err = decodeSegment(buf, codec, count, data, func(envelope []byte) error {
					if seq >= next {
						if stopped = each(seq, envelope); stopped != nil {
							return stopped
						}
						next = seq + 1
					}
					seq++
					return nil
				})
				if err != nil && stopped == nil {
					return &SegmentError{First: first, Count: count, Err: err}
				}
				if stopped != nil {
					return nil
				}
				last = first + int64(count)
			}
		})
		if stopped != nil {
			return stopped
		}
		if err != nil {
			return err
		}
		if next == before {
			if last < start+chunk {
				return nil
			}
			next = start + chunk
		}
	}
}

// A SegmentError says that stored events cannot be read.
type SegmentError struct {
	First int64
	Count int
	Err   error
}

func (e *SegmentError) Error() string {
	return fmt.Sprintf("events %d to %d cannot be read: %v", e.First, e.First+int64(e.Count)-1, e.Err)
}

func (e *SegmentError) Unwrap() error { return e.Err }

// errStop ends an iteration early.
var errStop = errors.New("stop")

// Envelope gives the bytes of the event with number seq.
func (r *Reader) Envelope(ctx context.Context, seq int64) (envelope []byte, err error) {
	err = r.Events(ctx, seq, func(n int64, e []byte) error {
		if n == seq {
			envelope = append([]byte(nil), e...)
		}
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, err
	}
	if envelope == nil {
		return nil, fmt.Errorf("the ledger has no event %d", seq)
	}
	return envelope, nil
}

// Tile gives the first w hashes of a tile (level 0 is the leaves), stored or computed.
func (r *Reader) Tile(l int, n int64, w int) ([]tlog.Hash, error) {
	if l < 0 || l >= levels || n < 0 || n >= 1<<48 || w < 1 || w > verify.TileWidth {
		return nil, fmt.Errorf("there is no tile %d/%d of width %d", l, n, w)
	}
	hashes, err := r.storedTile(l, n)
	if err != nil {
		return nil, err
	}
	if hashes == nil && l == 0 {
		hashes, err = r.growingLeaves(n)
	} else if hashes == nil {
		for i := range int64(w) {
			below, err := r.storedTile(l-1, n*verify.TileWidth+i)
			if err != nil {
				return nil, err
			}
			if below == nil {
				break
			}
			hashes = append(hashes, verify.Subtree(below))
		}
	}
	if err == nil && len(hashes) < w {
		err = fmt.Errorf("tile %d/%d has %d hashes, not %d", l, n, len(hashes), w)
	}
	if err != nil {
		return nil, err
	}
	return hashes[:w], nil
}

func (r *Reader) storedTile(l int, n int64) (hashes []tlog.Hash, err error) {
	err = r.db.Read(context.Background(), func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select data from tile where id = ?", &sqlitex.ExecOptions{Args: []any{tileID(l, n)},
			ResultFunc: func(s *sqlite.Stmt) error {
				b := make([]byte, s.ColumnLen(0))
				s.ColumnBytes(0, b)
				if len(b) != verify.TileWidth*tlog.HashSize {
					return fmt.Errorf("tile %d/%d is damaged: it has %d bytes", l, n, len(b))
				}
				hashes = unflatten(b)
				return nil
			}})
	})
	return hashes, err
}

func (r *Reader) growingLeaves(n int64) (hashes []tlog.Hash, err error) {
	err = r.Events(context.Background(), n*verify.TileWidth, func(seq int64, e []byte) error {
		if seq >= (n+1)*verify.TileWidth {
			return errStop
		}
		hashes = append(hashes, verify.LeafHash(e))
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return hashes, err
}

// Entries gives the first w entries of entry bundle n, as c2sp.org/tlog-tiles serves it.
func (r *Reader) Entries(ctx context.Context, n int64, w int) ([]byte, error) {
	var out []byte
	k := 0
	err := r.Events(ctx, n*verify.TileWidth, func(_ int64, e []byte) error {
		if k == w {
			return errStop
		}
		out = verify.AppendEntry(out, verify.LeafData(e))
		k++
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, err
	}
	if k < w {
		return nil, fmt.Errorf("entry bundle %d has %d entries, not %d", n, k, w)
	}
	return out, nil
}

// Checkpoint gives the newest signed checkpoint of at least the given size, or ErrNoCheckpoint.
func (r *Reader) Checkpoint(ctx context.Context, size int64) (signed []byte, err error) {
	err = r.db.Read(ctx, func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select note from checkpoint where size >= ? order by size desc limit 1",
			&sqlitex.ExecOptions{Args: []any{size}, ResultFunc: func(s *sqlite.Stmt) error {
				signed = make([]byte, s.ColumnLen(0))
				s.ColumnBytes(0, signed)
				return nil
			}})
	})
	if err == nil && signed == nil {
		err = ErrNoCheckpoint
	}
	return signed, err
}

// Checkpoints calls each for every signed checkpoint that is kept, the oldest first.
func (r *Reader) Checkpoints(ctx context.Context, each func(size int64, signed []byte) error) error {
	return r.db.Read(ctx, func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select size, note from checkpoint order by size", &sqlitex.ExecOptions{
			ResultFunc: func(s *sqlite.Stmt) error {
				b := make([]byte, s.ColumnLen(1))
				s.ColumnBytes(1, b)
				return each(s.ColumnInt64(0), b)
			}})
	})
}

// ErrNoCheckpoint is returned while no checkpoint covers what is asked for.
var ErrNoCheckpoint = errors.New("no checkpoint covers this event yet: a running server signs one every second")

// Prove makes the proof that event seq is in the log, under the newest checkpoint.
func (r *Reader) Prove(ctx context.Context, seq int64) (verify.Proof, error) {
	p := verify.Proof{Index: seq}
	var err error
	if p.Envelope, err = r.Envelope(ctx, seq); err != nil {
		return p, err
	}
	if p.Checkpoint, err = r.Checkpoint(ctx, seq+1); err != nil {
		return p, err
	}
	text, _, err := r.VerifierKeys()
	if err != nil {
		return p, fmt.Errorf("reading the log's public keys: %w", err)
	}
	keys, err := verify.ParseKeys(text)
	if err != nil {
		return p, err
	}
	c, err := keys.OpenCheckpoint(p.Checkpoint)
	if err != nil {
		return p, err
	}
	p.Hashes, err = tlog.ProveRecord(c.Size, seq, verify.TileReader(r.Tile))
	if err != nil {
		return p, fmt.Errorf("making the proof of event %d: %w", seq, err)
	}
	_, _, err = p.Check(keys)
	return p, err
}

// DeriveKey makes a key for one purpose that is as secret as the content, or nil when the keys are not here.
func (r *Reader) DeriveKey(purpose string) []byte {
	if r.keys == nil {
		return nil
	}
	return r.keys.Derive(purpose)
}

// SignedHead is the newest checkpoint that was signed, as the keys folder keeps it; nil without the keys.
func (r *Reader) SignedHead() ([]byte, error) {
	if r.keys == nil {
		return nil, nil
	}
	return r.keys.Head()
}
