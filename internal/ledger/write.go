package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/verify"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// mergeEvery is after how many commits the write-ahead log is merged into the database, by another connection.
const mergeEvery = 1000

// write is the writer goroutine: it commits whatever has queued while the last commit was under way.
func (l *Ledger) write() {
	defer l.done.Done()
	merge := make(chan struct{}, 1)
	l.done.Add(1)
	go func() {
		defer l.done.Done()
		for range merge {
			if err := l.db.Checkpoint(context.Background()); err != nil {
				l.conf.Log.Warn("merging the write-ahead log", "err", err)
			}
		}
	}()
	defer close(merge)
	commits := 0
	var lastBusy time.Time
	batch := make([]*Pending, 0, batchLen)
	idle := time.NewTimer(packAfter)
	defer idle.Stop()
	for {
		var p *Pending
		var ok bool
		select {
		case p, ok = <-l.queue:
		case <-idle.C:
			if l.pack() {
				idle.Reset(time.Millisecond)
			}
			continue
		}
		if !ok {
			l.packRest()
			return
		}
		batch = append(batch[:0], p)
		size := len(p.envelope)
	fill:
		for len(batch) < batchLen && size < batchBytes {
			select {
			case p, ok := <-l.queue:
				if !ok {
					break fill
				}
				batch = append(batch, p)
				for _, b := range p.blobs {
					size += len(b.data)
				}
			default:
				break fill
			}
		}
		if len(batch) >= busyBatch {
			lastBusy = time.Now()
		}
		busy := time.Since(lastBusy) < busyFor
		l.busy.Store(busy)
		l.commit(batch)
		clear(batch)
		if !busy && len(l.queue) == 0 {
			l.pack()
		}
		if commits++; commits%mergeEvery == 0 {
			select {
			case merge <- struct{}{}:
			default:
			}
		}
		idle.Reset(packAfter)
	}
}

// packAfter is how long nothing must have come before old events are stored more densely.
const packAfter = 50 * time.Millisecond

// So many facts in one commit mean that, for a while, the machine has better things to do than to save bytes.
const (
	busyBatch = 12
	busyFor   = time.Second
)

// commit makes a batch durable and tells those who wait.
func (l *Ledger) commit(batch []*Pending) {
	err := l.settle()
	if err == nil {
		err = l.try(batch)
	}
	for _, p := range batch {
		if p.err == nil {
			p.err = err
		}
		close(p.done)
	}
}

// settle finds out what the disk holds after a commit that failed.
func (l *Ledger) settle() error {
	if !l.unsure {
		return nil
	}
	if err := l.db.Reset(); err != nil {
		return fmt.Errorf("the ledger's database does not open: %w", err)
	}
	size, root, err := readHead(l.db.Writer())
	if err != nil {
		return fmt.Errorf("the ledger's head cannot be read: %w", err)
	}
	if size == l.doubt.edge.Size() && root == l.doubt.edge.Root() {
		l.tree = l.doubt // it took effect after all, though nobody could be told
	}
	if size != l.tree.edge.Size() || root != l.tree.edge.Root() {
		err := fmt.Errorf("the ledger's head on disk (%d events) is not the one that was written (%d): somebody else writes to this folder", size, l.tree.edge.Size())
		l.failed.Store(&err)
		return err
	}
	l.unsure = false
	return nil
}

// try commits a batch. If the commit reports a failure, what the disk holds decides.
func (l *Ledger) try(batch []*Pending) error {
	if now := batch[0].time; !now.IsZero() {
		if now.Before(l.lastTime.Add(-time.Second)) {
			batch = append([]*Pending{l.clockStepped(now)}, batch...)
		}
		l.lastTime = now
	}
	next := l.tree
	var tiles []fullTile
	first := next.edge.Size()
	l.envelopes = l.envelopes[:0]
	for _, p := range batch {
		if p.run != nil {
			continue
		}
		p.seq = next.edge.Size()
		tiles = next.append(p.leaf, tiles)
		l.envelopes = append(l.envelopes, p.envelope)
	}
	root := next.edge.Root()
	err := l.db.Write(func(c *sqlite.Conn) error {
		for _, p := range batch {
			if p.run != nil {
				if p.err = p.run(c); p.err != nil {
					return p.err
				}
				continue
			}
			for _, b := range p.blobs {
				if err := putBlob(c, b); err != nil {
					return err
				}
			}
		}
		if len(l.envelopes) == 0 {
			return nil
		}
		if err := l.putSegments(c, first); err != nil {
			return err
		}
		for _, t := range tiles {
			if err := exec(c, "insert into tile(id, data) values(?, ?)", tileID(t.level, t.number), flatten(t.hashes)); err != nil {
				return err
			}
		}
		return exec(c, "insert into tree(id, size, root) values(1, ?, ?) on conflict(id) do update set size = excluded.size, root = excluded.root",
			next.edge.Size(), root[:])
	})
	if err != nil {
		l.unsure = true
		before := l.tree
		l.tree = next
		// Failed but persisted: the head on disk is the new one, and so the batch is recorded.
		if len(l.envelopes) == 0 || !l.persisted() {
			l.tree, l.doubt = before, next
			return fmt.Errorf("recording failed: %w", err)
		}
		err = nil
	}
	l.tree = next
	l.remember(batch)
	return err
}

// persisted reports whether the disk holds l.tree after a commit that reported failure.
func (l *Ledger) persisted() bool {
	if l.db.Reset() != nil {
		return false // settle will see; until then nobody is told that it worked
	}
	size, root, err := readHead(l.db.Writer())
	if err != nil || size != l.tree.edge.Size() || root != l.tree.edge.Root() {
		return false
	}
	l.unsure = false
	return true
}

// remember takes into memory what is now durable.
func (l *Ledger) remember(batch []*Pending) {
	for _, p := range batch {
		for _, b := range p.blobs {
			l.vault.known(b.scope)
			if b.scope.App != nil {
				l.vault.known(b.scope.App) // its row went along
			}
			l.vault.index.learn(b.learned)
		}
		switch p.kind {
		case fairlead.KindCallIntent:
			l.open[p.id] = p.seq
		case fairlead.KindCallOutcome:
			delete(l.open, p.closes)
		}
	}
	low := l.tree.edge.Size()
	old := l.head.Load()
	// The oldest open call only matters when a checkpoint is signed, but only this goroutine may look: so look seldom.
	if len(l.open) <= 64 || old.size>>8 != low>>8 {
		for _, seq := range l.open {
			low = min(low, seq)
		}
	} else {
		low = old.low
	}
	l.head.Store(&headState{size: l.tree.edge.Size(), root: l.tree.edge.Root(), low: low})
}

// clockStepped is the fact that the wall clock went back.
func (l *Ledger) clockStepped(now time.Time) *Pending {
	f := &fairlead.Fact{ID: l.NewID(), Tenant: l.conf.Tenant, Kind: fairlead.KindClock, Time: now, Attrs: []fairlead.Attr{
		{Name: "fairlead.clock.back_us", Value: l.lastTime.Sub(now).Microseconds()}}}
	env, err := verify.AppendEnvelope(nil, f, fairlead.SchemaVersion, newNonce())
	if err != nil {
		panic(err) // every part of it is ours
	}
	return &Pending{envelope: env, leaf: verify.LeafHash(env), id: f.ID, kind: f.Kind, time: now, done: make(chan struct{})}
}

// putSegments stores l.envelopes as events from first, in segments that end at multiples of 256.
func (l *Ledger) putSegments(c *sqlite.Conn, first int64) error {
	rest := l.envelopes
	for len(rest) > 0 {
		n := min(int64(len(rest)), verify.TileWidth-first%verify.TileWidth)
		var codec int
		var data []byte
		codec, data, l.scratch = encodeSegment(l.scratch, rest[:n])
		if err := putSegment(c, first, int(n), codec, data); err != nil {
			return err
		}
		first, rest = first+n, rest[n:]
	}
	return nil
}

func putSegment(c *sqlite.Conn, first int64, count, codec int, data []byte) error {
	return exec(c, "insert into segment(first, count, codec, data) values(?, ?, ?, ?)", first, int64(count), int64(codec), data)
}

func putBlob(c *sqlite.Conn, b *Blob) error {
	if s := b.scope; !s.durable.Load() {
		var name any
		if s.name != nil {
			name = s.name
		}
		if err := exec(c, "insert or ignore into scope(id, app, name, key) values(?, ?, ?, ?)", s.ID, s.appID(), name, s.wrapped); err != nil {
			return err
		}
		if a := s.App; a != nil && !a.durable.Load() {
			if err := exec(c, "insert or ignore into scope(id, app, name, key) values(?, ?, ?, ?)", a.ID, a.ID, a.name, a.wrapped); err != nil {
				return err
			}
		}
	}
	return exec(c, "insert into blob(id, scope, data) values(?, ?, ?)", b.Content.Blob, b.scope.ID, b.data)
}

// exec runs a prepared statement.
func exec(c *sqlite.Conn, query string, args ...any) error {
	s, err := c.Prepare(query)
	if err != nil {
		return err
	}
	defer s.Reset()
	for i, a := range args {
		switch a := a.(type) {
		case int64:
			s.BindInt64(i+1, a)
		case []byte:
			s.BindBytes(i+1, a)
		case nil:
			s.BindNull(i + 1)
		default:
			return fmt.Errorf("a %T cannot be stored", a)
		}
	}
	_, err = s.Step()
	return err
}

// packRest packs what is left when the ledger is closed, for as long as somebody who waits for that will bear.
func (l *Ledger) packRest() {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && l.pack(); {
	}
}

// packAt is from how many segments on a full run of 256 events is worth storing anew as one.
const packAt = 5

// pack stores one complete run of 256 events as one segment, when there is not much else to do: events that come one by
// one compress badly alone. It reports whether there may be more to do.
func (l *Ledger) pack() bool {
	if l.unsure || l.packed+verify.TileWidth > l.tree.edge.Size() {
		return false
	}
	first := l.packed
	err := l.db.Write(func(c *sqlite.Conn) error {
		var rows int
		var all [][]byte
		err := sqlitex.Execute(c, "select count, codec, data from segment where first >= ? and first < ? order by first",
			&sqlitex.ExecOptions{Args: []any{first, first + verify.TileWidth}, ResultFunc: func(s *sqlite.Stmt) error {
				rows++
				data := make([]byte, s.ColumnLen(2))
				s.ColumnBytes(2, data)
				_, err := decodeSegment(nil, s.ColumnInt(1), s.ColumnInt(0), data, func(e []byte) error {
					all = append(all, e)
					return nil
				})
				return err
			}})
		if err != nil || rows < packAt || len(all) != verify.TileWidth {
			return err
		}
		if err := exec(c, "delete from segment where first >= ? and first < ?", first, first+verify.TileWidth); err != nil {
			return err
		}
		codec, data, _ := encodeSegment(nil, all)
		return putSegment(c, first, len(all), codec, data)
	})
	if err != nil {
		l.unsure = true // the next commit looks at the disk first; packing changes no event
		l.conf.Log.Warn("storing old events more densely", "first", first, "err", err)
	}
	l.packed += verify.TileWidth
	return true
}
