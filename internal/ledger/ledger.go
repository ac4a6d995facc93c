package ledger

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/seal"
	"github.com/fairleadhq/fairlead/internal/store"
	"github.com/fairleadhq/fairlead/verify"
	"github.com/gofrs/flock"
	"golang.org/x/mod/sumdb/tlog"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// Config says where a ledger lives and how it behaves. Dir and Keys are required; the rest works as zero.
type Config struct {
	Dir  string // data folder
	Keys string // keys folder, which must not be inside Dir
	// Origin names a new log; a random name by default. An existing log keeps its name.
	Origin string
	// Tenant is what new facts are recorded under: by default what the folder was last opened with, or
	// fairlead.DefaultTenant.
	Tenant string
	// Checkpoint is how often a head is signed when there are new events; a second by default.
	Checkpoint time.Duration
	// Program is the version of the program, for the record.
	Program string
	Log     *slog.Logger     // slog.Default() by default
	Now     func() time.Time // time.Now by default
	// Fault is [store.Config.Fault], for tests.
	Fault func(point string) error
}

// A Ledger appends facts. It also reads, as a Reader does. It is safe for concurrent use.
type Ledger struct {
	*Reader
	conf    Config
	lock    *flock.Flock
	boot    string
	nextN   atomic.Uint64
	queue   chan *Pending
	stop    chan struct{} // closed when no more is to be signed
	done    sync.WaitGroup
	closed  atomic.Bool
	head    atomic.Pointer[headState]
	signed  atomic.Pointer[[]byte]
	signing sync.Mutex
	failed  atomic.Pointer[error] // set when nothing can be appended any more
	busy    atomic.Bool           // commits are large: save time rather than bytes

	// Owned by the writer goroutine.
	tree      tree
	unsure    bool // the last commit failed; look at the disk before the next
	doubt     tree // what the tree is if it took effect all the same
	open      map[fairlead.ID]int64
	lastTime  time.Time
	scratch   []byte
	envelopes [][]byte
	packed    int64 // first event that is not in a packed segment
}

// headState is the durable head, for the goroutine that signs.
type headState struct {
	size int64
	root tlog.Hash
	low  int64 // the oldest event that a recovery would have to look at
}

// Limits of the queue and of one commit.
const (
	queueLen   = 4096
	batchLen   = 1024
	batchBytes = 8 << 20
)

// ErrInUse is wrapped in the error for a data folder that another process has open.
var ErrInUse = errors.New("the data folder is in use by another fairlead process")

// ErrFork is wrapped in the error for a data folder that lags behind what was signed from it: a restored backup.
var ErrFork = errors.New("the data folder is older than the newest checkpoint that was signed from it, or another history: appending would fork the log")

// Open opens the data folder for writing, making it and its keys if it is new. Calls that a dead process left open are
// closed with the outcome unknown before it returns.
func Open(ctx context.Context, c Config) (_ *Ledger, err error) {
	if c.Checkpoint <= 0 {
		c.Checkpoint = time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	l := &Ledger{conf: c, queue: make(chan *Pending, queueLen), stop: make(chan struct{}), open: map[fairlead.ID]int64{}}
	l.lock = flock.New(filepath.Join(c.Dir, lockFile))
	if ok, err := l.lock.TryLock(); err != nil {
		return nil, fmt.Errorf("locking the data folder: %w", err)
	} else if !ok {
		return nil, fmt.Errorf("%w: %s", ErrInUse, c.Dir)
	}
	defer func() {
		if err != nil {
			l.release()
		}
	}()
	if err := l.openReader(ctx); err != nil {
		return nil, err
	}
	if err := l.setTenant(ctx); err != nil {
		return nil, err
	}
	if err := l.load(ctx); err != nil {
		return nil, err
	}
	if err := l.checkHead(ctx); err != nil {
		return nil, err
	}
	var id [8]byte
	rand.Read(id[:])
	l.boot = strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(id[:]))
	l.done.Add(1)
	go l.write()
	if err := l.start(ctx); err != nil {
		close(l.queue)
		l.done.Wait()
		return nil, err
	}
	l.done.Add(1)
	go l.sign()
	return l, nil
}

// openReader opens or makes the database and the keys.
func (l *Ledger) openReader(ctx context.Context) error {
	db, err := store.Open(filepath.Join(l.conf.Dir, ledgerFile), store.Config{Migrations: migrations, Fault: l.conf.Fault})
	if err != nil {
		return err
	}
	l.Reader = &Reader{dir: l.conf.Dir, db: db}
	origin, err := l.meta(ctx, "origin")
	if err != nil {
		return err
	}
	if origin != "" {
		l.origin = origin
		l.keys, err = seal.Load(l.conf.Keys, origin)
		if err != nil {
			return fmt.Errorf("opening %s: %w", l.conf.Dir, err)
		}
		return nil
	}
	l.origin = l.conf.Origin
	if l.origin == "" {
		var id [5]byte
		rand.Read(id[:])
		l.origin = "fairlead.local/" + strings.ToLower(base32.StdEncoding.EncodeToString(id[:]))
	}
	// A folder that lost its database, or a crash between making the keys and naming the log, leaves keys without a log.
	// They may have signed: their head decides below whether they may go on.
	if l.keys, err = seal.Load(l.conf.Keys, l.origin); errors.Is(err, seal.ErrNoKeys) {
		l.keys, err = seal.Create(l.conf.Keys, l.origin)
	}
	if err != nil {
		return err
	}
	text, err := l.keys.VerifierKeys()
	if err != nil {
		return err
	}
	if err := seal.WriteFile(filepath.Join(l.conf.Dir, keysFile), []byte(text), 0o644); err != nil {
		return err
	}
	return db.Write(func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "insert into meta(name, value) values('origin', ?)", &sqlitex.ExecOptions{Args: []any{l.origin}})
	})
}

// setTenant remembers the tenant for those who open the folder without a configuration.
func (l *Ledger) setTenant(ctx context.Context) error {
	kept, err := l.meta(ctx, "tenant")
	if err != nil {
		return err
	}
	if l.conf.Tenant == "" {
		l.conf.Tenant = kept
	}
	if l.conf.Tenant == "" {
		l.conf.Tenant = fairlead.DefaultTenant
	}
	if l.conf.Tenant == kept {
		return nil
	}
	return l.db.Write(func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "insert or replace into meta(name, value) values('tenant', ?)", &sqlitex.ExecOptions{Args: []any{l.conf.Tenant}})
	})
}

// load reads the tree and the counters.
func (l *Ledger) load(ctx context.Context) error {
	l.vault = newVault(l.Reader)
	l.vault.busy = &l.busy
	size, root, err := l.Head(ctx)
	if err != nil {
		return err
	}
	if l.tree, err = loadTree(size, l.Tile); err != nil {
		return fmt.Errorf("the data folder is damaged: %w; run fairlead verify log", err)
	}
	if l.tree.edge.Root() != root {
		return fmt.Errorf("the data folder is damaged: its events do not add up to its tree head; run fairlead verify log")
	}
	var blob, scope int64
	err = l.db.Read(ctx, func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select (select coalesce(max(id),0) from blob), (select coalesce(max(id),0) from scope)",
			&sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
				blob, scope = s.ColumnInt64(0), s.ColumnInt64(1)
				return nil
			}})
	})
	if err != nil {
		return err
	}
	l.vault.nextBlob.Store(blob)
	l.vault.nextScope.Store(scope)
	l.head.Store(&headState{size: size, root: root})
	return nil
}

// checkHead refuses a folder whose log does not extend what was last signed.
func (l *Ledger) checkHead(ctx context.Context) error {
	signed, err := l.keys.Head()
	if err != nil || signed == nil {
		return err
	}
	text, err := l.keys.VerifierKeys()
	if err != nil {
		return err
	}
	keys, err := verify.ParseKeys(text)
	if err != nil {
		return err
	}
	c, err := keys.OpenCheckpoint(signed)
	if err != nil {
		return fmt.Errorf("the signed head in the keys folder: %w", err)
	}
	if size := l.tree.edge.Size(); c.Size > size {
		return fmt.Errorf("%w: it has %d events, %d were signed", ErrFork, size, c.Size)
	}
	if c.Size > 0 {
		root, err := tlog.TreeHash(c.Size, verify.TileReader(l.Tile))
		if err != nil {
			return err
		}
		if root != c.Root {
			return fmt.Errorf("%w: its first %d events are not those that were signed", ErrFork, c.Size)
		}
	}
	l.signed.Store(&signed)
	return nil
}

// start records that the ledger was opened and closes what a dead process left open.
func (l *Ledger) start(ctx context.Context) error {
	attrs := []fairlead.Attr{{Name: "fairlead.log.origin", Value: l.origin}, {Name: "fairlead.log.size", Value: l.head.Load().size}}
	if l.conf.Program != "" {
		attrs = append(attrs, fairlead.Attr{Name: "service.version", Value: l.conf.Program})
	}
	orphans, err := l.orphans(ctx)
	if err != nil {
		return fmt.Errorf("looking for calls that a dead process left open: %w", err)
	}
	facts := []*fairlead.Fact{{Kind: fairlead.KindOpened, Attrs: attrs}}
	for _, o := range orphans {
		facts = append(facts, unknownOutcome(o))
	}
	var last *Pending
	for _, f := range facts {
		p, err := l.Send(ctx, f)
		if err != nil {
			return err
		}
		last = p
	}
	// The writer works in order: when the last is durable, so are all.
	if _, err := last.Wait(ctx); err != nil {
		return fmt.Errorf("the ledger cannot be written: %w", err)
	}
	if err := l.putBack(ctx); err != nil {
		return fmt.Errorf("keeping the newest checkpoint: %w", err)
	}
	if n := len(orphans); n > 0 {
		l.conf.Log.Warn("calls of an earlier process had no outcome; recorded as unknown", "calls", n)
	}
	return nil
}

// putBack keeps the head that was signed last, if the process died before it could: a checkpoint that was shown to
// somebody must not be missing here.
func (l *Ledger) putBack(ctx context.Context) error {
	signed := l.Signed()
	if signed == nil {
		return nil
	}
	size, err := checkpointSize(signed)
	if err != nil {
		return err
	}
	h := l.head.Load()
	return l.do(ctx, func(c *sqlite.Conn) error {
		return exec(c, "insert or ignore into checkpoint(size, time, low, note) values(?, ?, ?, ?)", size, l.conf.Now().Unix(), h.low, signed)
	})
}

// NewID gives the id of a fact that will be appended.
func (l *Ledger) NewID() fairlead.ID { return fairlead.ID{Boot: l.boot, N: l.nextN.Add(1)} }

// Now is the ledger's clock.
func (l *Ledger) Now() time.Time { return l.conf.Now() }

// A Pending is a fact on its way to the disk.
type Pending struct {
	envelope []byte
	leaf     tlog.Hash
	id       fairlead.ID
	kind     fairlead.Kind
	closes   fairlead.ID
	time     time.Time
	blobs    []*Blob
	run      func(*sqlite.Conn) error // instead of a fact: work for the writer

	done chan struct{}
	seq  int64
	err  error
}

// Wait waits until the fact is durable and gives its number. When ctx ends first the fact may still become durable.
func (p *Pending) Wait(ctx context.Context) (seq int64, err error) {
	select {
	case <-p.done:
		return p.seq, p.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// ErrClosed is returned for facts that come after Close.
var ErrClosed = errors.New("the ledger is closed")

// Send puts a fact, and the blobs that hold its content, on their way and does not wait for the disk. It sets the
// fact's id, tenant, time and content if they are not set. When the queue is full it waits as long as ctx allows.
func (l *Ledger) Send(ctx context.Context, f *fairlead.Fact, blobs ...*Blob) (*Pending, error) {
	if f.ID.IsZero() {
		f.ID = l.NewID()
	}
	if f.Tenant == "" {
		f.Tenant = l.conf.Tenant
	}
	if f.Time.IsZero() {
		f.Time = l.conf.Now().UTC().Truncate(time.Microsecond)
	}
	for _, b := range blobs {
		f.Content = append(f.Content, b.Content)
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	env, err := verify.AppendEnvelope(make([]byte, 0, 1024), f, fairlead.SchemaVersion, nonce)
	if err != nil {
		return nil, err
	}
	p := &Pending{envelope: env, leaf: verify.LeafHash(env), id: f.ID, kind: f.Kind, time: f.Time, blobs: blobs, done: make(chan struct{})}
	if f.Kind == fairlead.KindCallOutcome {
		p.closes = f.Link(fairlead.RelCompletes)
	}
	return p, l.enqueue(ctx, p)
}

func (l *Ledger) enqueue(ctx context.Context, p *Pending) (err error) {
	if e := l.failed.Load(); e != nil {
		return *e
	}
	defer func() {
		if recover() != nil { // the queue was closed while we waited for room
			err = ErrClosed
		}
	}()
	if l.closed.Load() {
		return ErrClosed
	}
	select {
	case l.queue <- p:
		return nil
	default:
	}
	select {
	case l.queue <- p:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the ledger is too busy: %w", context.Cause(ctx))
	}
}

// Append records a fact and returns once it is durable.
func (l *Ledger) Append(ctx context.Context, f *fairlead.Fact, blobs ...*Blob) (seq int64, err error) {
	p, err := l.Send(ctx, f, blobs...)
	if err != nil {
		return 0, err
	}
	return p.Wait(ctx)
}

// do runs fn in a transaction of the writer.
func (l *Ledger) do(ctx context.Context, fn func(*sqlite.Conn) error) error {
	p := &Pending{run: fn, done: make(chan struct{})}
	if err := l.enqueue(ctx, p); err != nil {
		return err
	}
	_, err := p.Wait(ctx)
	return err
}

// Signed is the newest signed checkpoint, or nil.
func (l *Ledger) Signed() []byte {
	if p := l.signed.Load(); p != nil {
		return *p
	}
	return nil
}

// Size is the number of durable events.
func (l *Ledger) Size() int64 { return l.head.Load().size }

// Err says why nothing can be appended any more, or nil.
func (l *Ledger) Err() error {
	if e := l.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// Queued is how many facts wait for the disk.
func (l *Ledger) Queued() int { return len(l.queue) }

// Close signs a last checkpoint and releases the folder. Facts that were sent before are recorded.
func (l *Ledger) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	close(l.stop)
	l.done.Wait()
	return l.release()
}

func (l *Ledger) release() error {
	var errs []error
	if l.Reader != nil {
		errs = append(errs, l.db.Close())
	}
	return errors.Join(append(errs, l.lock.Unlock())...)
}
