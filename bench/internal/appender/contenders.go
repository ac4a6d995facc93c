package appender

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/bench/internal/measure"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/verify"
)

// A Contender makes events durable. [Ledger] and [Raw] are the two.
type Contender interface {
	// NewID gives the id of an event to come.
	NewID() fairlead.ID
	// Append returns when the event is durable.
	Append(context.Context, *fairlead.Fact) error
	// Close lets go of the folder.
	Close() error
}

// Ledger is Fairlead's own, as the gateway opens it: events, tiles, tree head and signed checkpoints.
type Ledger struct{ l *ledger.Ledger }

// OpenLedger makes a new ledger below dir.
func OpenLedger(dir string) (*Ledger, error) {
	l, err := ledger.Open(context.Background(), ledger.Config{
		Dir: filepath.Join(dir, "data"), Keys: filepath.Join(dir, "keys"), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return nil, err
	}
	return &Ledger{l}, nil
}

// NewID is [ledger.Ledger.NewID].
func (c *Ledger) NewID() fairlead.ID { return c.l.NewID() }

// Append is [ledger.Ledger.Append].
func (c *Ledger) Append(ctx context.Context, f *fairlead.Fact) error {
	_, err := c.l.Append(ctx, f)
	return err
}

// Close is [ledger.Ledger.Close].
func (c *Ledger) Close() error { return c.l.Close() }

// The limits of the ledger's queue and commits, which Raw shares.
const (
	queueLen = 4096
	batchLen = 1024
)

// Raw is the least that durability can cost with the same group commit: one goroutine appends whatever has queued to a
// file that is not preallocated and calls fdatasync. There is no index, no tree, no signature and no transaction.
type Raw struct {
	newID func() fairlead.ID
	file  *os.File
	queue chan rawEvent
	done  sync.WaitGroup
	ready []byte // an envelope made beforehand, or nil
}

type rawEvent struct {
	envelope []byte
	result   chan error
}

// OpenRaw makes a new file below dir. Each event is encoded as the ledger encodes it, unless ready is set: then every
// event is a copy of one envelope that was made beforehand, and its time does not show at all.
func OpenRaw(dir string, ready bool) (*Raw, error) {
	f, err := os.OpenFile(filepath.Join(dir, "raw"), os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	c := &Raw{newID: counter(), file: f, queue: make(chan rawEvent, queueLen)}
	if ready {
		s := newSource(0, c.newID)
		s.next()
		s.next()
		if c.ready, err = encode(s.next()); err != nil {
			return nil, err
		}
	}
	c.done.Add(1)
	go c.write()
	return c, nil
}

// NewID counts.
func (c *Raw) NewID() fairlead.ID { return c.newID() }

// Append returns when the event's bytes are durable.
func (c *Raw) Append(_ context.Context, f *fairlead.Fact) (err error) {
	envelope := c.ready
	if envelope == nil {
		if envelope, err = encode(f); err != nil {
			return err
		}
	}
	e := rawEvent{envelope, make(chan error, 1)}
	c.queue <- e
	return <-e.result
}

func encode(f *fairlead.Fact) ([]byte, error) {
	f.Tenant, f.Time = fairlead.DefaultTenant, stamp()
	var nonce [16]byte
	rand.Read(nonce[:])
	return verify.AppendEnvelope(make([]byte, 0, 1024), f, fairlead.SchemaVersion, nonce)
}

func (c *Raw) write() {
	defer c.done.Done()
	var buf []byte
	batch := make([]rawEvent, 0, batchLen)
	for e := range c.queue {
		batch = append(batch[:0], e)
	fill:
		for len(batch) < batchLen {
			select {
			case e, ok := <-c.queue:
				if !ok {
					break fill
				}
				batch = append(batch, e)
			default:
				break fill
			}
		}
		buf = buf[:0]
		for _, e := range batch {
			buf = binary.AppendUvarint(buf, uint64(len(e.envelope)))
			buf = append(buf, e.envelope...)
		}
		_, err := c.file.Write(buf)
		if err == nil {
			err = measure.Datasync(c.file)
		}
		for _, e := range batch {
			e.result <- err
		}
	}
}

// Close waits for what was sent and closes the file.
func (c *Raw) Close() error {
	close(c.queue)
	c.done.Wait()
	return c.file.Close()
}
