package ledger

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/note"
	"zombiezen.com/go/sqlite"
)

func newNonce() (n [16]byte) {
	rand.Read(n[:])
	return n
}

// sign is the goroutine that signs the head whenever there are new events.
func (l *Ledger) sign() {
	defer l.done.Done()
	defer close(l.queue)
	tick := time.NewTicker(l.conf.Checkpoint)
	defer tick.Stop()
	last := int64(-1)
	for stopping := false; !stopping; {
		select {
		case <-tick.C:
		case <-l.stop:
			stopping = true
			// Whatever was sent before Close is in front of this in the queue.
			if err := l.flush(); err != nil {
				l.conf.Log.Error("recording what was left at the end", "err", err)
			}
		}
		if l.head.Load().size == last {
			continue
		}
		size, err := l.signHead()
		if err != nil {
			l.conf.Log.Error("signing a checkpoint", "err", err)
			continue
		}
		last = size
	}
}

// flush waits until all that was sent so far is durable.
func (l *Ledger) flush() error {
	p := &Pending{run: func(*sqlite.Conn) error { return nil }, done: make(chan struct{})}
	l.queue <- p
	<-p.done
	return p.err
}

// Flush waits until all facts that were sent before are durable or have failed.
func (l *Ledger) Flush(ctx context.Context) error {
	return l.do(ctx, func(*sqlite.Conn) error { return nil })
}

// signHead signs the durable head and keeps it: outside the data folder first, so that nobody ever sees a checkpoint
// that a restored backup could contradict unnoticed.
func (l *Ledger) signHead() (size int64, err error) {
	l.signing.Lock() // two at a time could keep the older head as the newest
	defer l.signing.Unlock()
	h := l.head.Load()
	now := l.conf.Now()
	signers, err := l.keys.Signers(now.Unix)
	if err != nil {
		return 0, err
	}
	c := verify.Checkpoint{Origin: l.origin, Size: h.size, Root: h.root}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, signers...)
	if err != nil {
		return 0, fmt.Errorf("signing: %w", err)
	}
	if err := l.keys.SetHead(signed); err != nil {
		return 0, err
	}
	p := &Pending{done: make(chan struct{}), run: func(conn *sqlite.Conn) error {
		// Of the checkpoints of this hour only the first is kept, beside the newest.
		hour := now.Truncate(time.Hour).Unix()
		err := exec(conn, `delete from checkpoint where time >= ?1 and size >
			(select min(size) from checkpoint where time >= ?1)`, hour)
		if err != nil {
			return err
		}
		return exec(conn, "insert or replace into checkpoint(size, time, low, note) values(?, ?, ?, ?)", h.size, now.Unix(), h.low, signed)
	}}
	l.queue <- p
	<-p.done
	if p.err != nil {
		return 0, p.err
	}
	l.signed.Store(&signed)
	return h.size, nil
}

// Probe finds out whether a fact could be recorded now: it writes, and records nothing.
func (l *Ledger) Probe(ctx context.Context) error {
	return l.do(ctx, func(c *sqlite.Conn) error {
		return exec(c, "insert or replace into meta(name, value) values('probed', ?)", l.conf.Now().Unix())
	})
}

// SignNow signs the present head without waiting for its turn.
func (l *Ledger) SignNow(ctx context.Context) error {
	if err := l.Flush(ctx); err != nil {
		return err
	}
	_, err := l.signHead()
	return err
}
