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
		h := l.head.Load()
		if h.size == last {
			continue
		}
		if err := l.signHead(h); err != nil {
			l.conf.Log.Error("signing a checkpoint", "err", err)
			continue
		}
		last = h.size
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

// signHead signs a durable head and keeps it: outside the data folder first, so that nobody ever sees a checkpoint that
// a restored backup could contradict unnoticed.
func (l *Ledger) signHead(h *headState) error {
	now := l.conf.Now()
	signers, err := l.keys.Signers(now.Unix)
	if err != nil {
		return err
	}
	c := verify.Checkpoint{Origin: l.origin, Size: h.size, Root: h.root}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, signers...)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	if err := l.keys.SetHead(signed); err != nil {
		return err
	}
	p := &Pending{done: make(chan struct{}), run: func(conn *sqlite.Conn) error {
		hour := now.Truncate(time.Hour).Unix()
		// Of the checkpoints of this hour only the first is kept, beside the newest.
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
		return p.err
	}
	l.signed.Store(&signed)
	return nil
}
