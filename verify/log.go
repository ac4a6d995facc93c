package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// A Source is a whole log as somebody keeps it: a data folder, a bundle, an altered copy in a test. Nothing that it says
// is believed. What it hands to a callback is good only during the call. It may grow while it is verified.
type Source interface {
	// Head is the tree head: how many events there are, and their root hash.
	Head(ctx context.Context) (size int64, root tlog.Hash, err error)
	// Events calls each for the events from number from, in order, also those beyond the head. Events that are missing
	// are left out. When some cannot be read it returns a *DamageError, after the events before them.
	Events(ctx context.Context, from int64, each func(seq int64, envelope []byte) error) error
	// Strays calls each for stored events that Events never gives, because others stand in their place.
	Strays(ctx context.Context, each func(first int64, what string) error) error
	// StoredTile gives the 256 hashes of a complete tile, or nil if it is not stored.
	StoredTile(ctx context.Context, level int, n int64) ([]tlog.Hash, error)
	// Tiles calls each for the place of every stored tile, by level and number.
	Tiles(ctx context.Context, each func(level int, n int64) error) error
	// Blob gives a sealed blob and the key scope that it is stored under. sealed is nil if there is none.
	Blob(ctx context.Context, id int64) (scope int64, sealed []byte, err error)
	// Blobs calls each for the number of every stored blob, in order.
	Blobs(ctx context.Context, each func(id int64) error) error
	// HasScope reports whether the key of a scope is still there.
	HasScope(ctx context.Context, scope int64) (bool, error)
	// Checkpoints calls each for every kept checkpoint, with the size that it is kept under.
	Checkpoints(ctx context.Context, each func(size int64, signed []byte) error) error
}

// A DamageError is how a [Source] says that it cannot read some events.
type DamageError struct {
	First int64 // where the damage starts
	Next  int64 // where reading can go on; beyond First
	Err   error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s cannot be read: %v", eventRange(e.First, e.Next), e.Err)
}

// Unwrap gives the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// LogOptions says how [Log] works. The zero value is good.
type LogOptions struct {
	// Since is a signed checkpoint that was kept elsewhere; the log must extend it.
	Since []byte
	// Progress, if set, is called about every 65,536 events.
	Progress func(done, size int64)
}

// A Report is what [Log] found.
type Report struct {
	Size int64 // of the tree head
	Root tlog.Hash
	// Checkpoint is the newest kept checkpoint that verifies and whose tree is this log's; nil if there is none.
	Checkpoint *Checkpoint
	// Unsigned is how many of the newest events stand under no such checkpoint.
	Unsigned int64
	// What was checked and found right or wrong.
	Events, Tiles, Blobs, Checkpoints int64
	// Erased is how many references point to content whose key was destroyed.
	Erased int64
	// Problems say that the log was altered or is damaged: the first 100, and More how many there are beyond.
	Problems []Problem
	More     int64
	// Notes are worth knowing and prove nothing: the first 100.
	Notes []string
}

// A Problem is one thing that is not as it was recorded.
type Problem struct {
	Where string // "event 17", "events 256 to 511", "blob 3", "tile 0/1", "tree head", "checkpoint of size 600"
	What  string // a clause about it
}

// String gives the problem as one line.
func (p Problem) String() string { return p.Where + ": " + p.What }

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

const maxProblems = 100

func (r *Report) problem(where, format string, args ...any) {
	if len(r.Problems) == maxProblems {
		r.More++
		return
	}
	r.Problems = append(r.Problems, Problem{where, fmt.Sprintf(format, args...)})
}

func (r *Report) note(format string, args ...any) {
	if len(r.Notes) < maxProblems {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}

// Log verifies a whole log as docs/format.md section 5 says, without any secret key. What is wrong with the log stands
// in the Report; an error says that verification itself could not go on. Time is linear in the log. Memory is a few bits
// for each event and blob, some bytes for each checkpoint, one blob and the tiles on the right edge.
func Log(ctx context.Context, src Source, keys Keys, o LogOptions) (Report, error) {
	l := &logCheck{ctx: ctx, src: src, keys: keys, o: o, boots: map[string]*boot{}, blobs: newBitset()}
	for _, step := range []func() error{l.head, l.checkpoints, l.events, l.extraTiles, l.tail} {
		if err := step(); err != nil {
			return l.r, err
		}
	}
	l.roots()
	l.counters()
	return l.r, nil
}

// logCheck is one run of Log.
type logCheck struct {
	ctx  context.Context
	src  Source
	keys Keys
	o    LogOptions
	r    Report

	p     reader
	hash  leafHasher
	boots map[string]*boot
	last  *boot // of the event before
	blobs bitset
	cache digestCache
	hours []hour
	marks []mark // checkpoints, by size
	tree  treeCheck
	spare int64 // blobs to which no event refers
	// unread is how many events could not be asked to which blobs they refer.
	unread int64
}

func (l *logCheck) head() (err error) {
	if l.r.Size, l.r.Root, err = l.src.Head(l.ctx); err == nil && l.r.Size < 0 {
		err = errors.New("it has a negative size")
	}
	if err != nil {
		return fmt.Errorf("reading the tree head: %w", err)
	}
	return nil
}

func eventRange(from, to int64) string {
	if to == from+1 {
		return fmt.Sprintf("event %d", from)
	}
	return fmt.Sprintf("events %d to %d", from, to-1)
}

// errEnough ends an iteration.
var errEnough = errors.New("enough")

// read calls each for all events from number from, and damaged where some cannot be read; these are problems.
func (l *logCheck) read(from int64, each func(seq int64, envelope []byte) error, damaged func(next int64) error) error {
	for {
		err := l.src.Events(l.ctx, from, each)
		var d *DamageError
		if !errors.As(err, &d) {
			if err != nil && !errors.Is(err, errEnough) {
				return fmt.Errorf("reading events: %w", err)
			}
			return nil
		}
		if d.Next <= from || d.Next <= d.First {
			return fmt.Errorf("reading events: %w, and reading cannot go on", err)
		}
		l.r.problem(eventRange(d.First, d.Next), "cannot be read: %v", d.Err)
		if err := damaged(d.Next); err != nil {
			return err
		}
		from = d.Next
	}
}

// events reads all events up to the head, checks each, and the tree over them.
func (l *logCheck) events() error {
	next := int64(0)
	err := l.read(0, func(seq int64, envelope []byte) error {
		if seq >= l.r.Size {
			return errEnough
		}
		if seq < next {
			return fmt.Errorf("event %d was given after event %d", seq, next-1)
		}
		if err := l.missing(next, seq); err != nil {
			return err
		}
		next = seq + 1
		return l.event(seq, envelope)
	}, func(to int64) error {
		to = min(to, l.r.Size)
		if to <= next {
			return nil
		}
		defer func() { next = to }()
		return l.skip(next, to)
	})
	if err != nil {
		return err
	}
	if err := l.missing(next, l.r.Size); err != nil {
		return err
	}
	return l.src.Strays(l.ctx, func(first int64, what string) error {
		l.r.problem(eventRange(first, first+1), "%s", what)
		return nil
	})
}

// missing goes over events that are not there.
func (l *logCheck) missing(from, to int64) error {
	if from >= to {
		return nil
	}
	l.r.problem(eventRange(from, to), "missing")
	return l.skip(from, to)
}

// event checks one envelope.
func (l *logCheck) event(seq int64, envelope []byte) error {
	l.r.Events++
	if seq&0xffff == 0 {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		if l.o.Progress != nil {
			l.o.Progress(seq, l.r.Size)
		}
	}
	if err := l.leaf(l.hash.leaf(envelope)); err != nil {
		return err
	}
	if err := l.p.read(envelope); err != nil {
		l.r.problem(eventRange(seq, seq+1), "%v", err)
		l.unread++
		return nil
	}
	e := &l.p.env
	l.seen(e.ID.Boot, e.ID.N, seq)
	if n := len(l.hours); n == 0 || l.p.hour > l.hours[n-1].name {
		l.hours = append(l.hours, hour{strings.Clone(l.p.hour), seq})
	}
	for i := range e.Content {
		if err := l.blob(seq, e.Content[i].Blob, e.Content[i].Scope, e.Content[i].Sealed); err != nil {
			return err
		}
	}
	return nil
}

// A boot is what is known of the ids of one boot.
type boot struct {
	name  string
	ids   bitset
	count uint64
	top   uint64
}

func (l *logCheck) seen(name string, n uint64, seq int64) {
	b := l.last
	if b == nil || b.name != name {
		if b = l.boots[name]; b == nil {
			b = &boot{name: strings.Clone(name), ids: newBitset()} // name shares the envelope's memory
			l.boots[b.name] = b
		}
		l.last = b
	}
	if !b.ids.set(n) {
		l.r.problem(eventRange(seq, seq+1), "its id %s-%d stood in an earlier event already", name, n)
		return
	}
	b.count++
	b.top = max(b.top, n)
}

// counters notes gaps in what a boot counted, and what was erased.
func (l *logCheck) counters() {
	if l.r.Erased > 0 {
		l.r.note("%d references point to content whose key was destroyed", l.r.Erased)
	}
	boots, lost := 0, uint64(0)
	for _, b := range l.boots {
		if b.top > b.count {
			boots, lost = boots+1, lost+b.top-b.count
		}
	}
	if lost > 0 {
		l.r.note("%d ids of %d boots were given out and stand in no event: facts that could not be recorded, or were cut off at the end", lost, boots)
	}
}
