package approval

import (
	"container/heap"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
	"github.com/fairleadhq/fairlead/verify"
)

// A Book holds the approvals that are open, and those that were closed lately. It is safe for concurrent use.
//
// Its time is a clock's that never stands still and never goes back: when the wall clock steps back, it goes on from
// where it was, so that what expired stays expired. It starts at the newest of the ledger's last events.
type Book struct {
	conf Config
	key  []byte
	hook *hook // nil without a webhook
	// patience is how long the record of what a person decided may take, whether or not they wait for it.
	patience time.Duration

	mu     sync.Mutex
	clock  clock
	folded time.Time // of the newest fact that was folded
	byID   map[fairlead.ID]*entry
	bound  map[fairlead.Digest][]*entry // those that still stand for an answer: asking, pending, granted, denied
	open   map[string]int               // how many wait, by app
	opened int                          // how many wait
	due    deadlines
	closed []*entry // by the time of their end
	lapsed []*entry // those that expired and are not on record as expired yet
}

// An entry is an approval in memory. All of it is guarded by Book.mu.
type entry struct {
	id        fairlead.ID
	seq       int64
	kind      Kind
	tenant    string
	tool      string
	label     string
	rules     []string
	actor     fairlead.Actor
	intent    fairlead.ID
	binding   fairlead.Digest
	need      int
	content   fairlead.Content
	requested time.Time
	expires   time.Time // of the request
	grants    []Grant
	decided   fairlead.ID

	state    State
	deadline time.Time     // when it ends by itself
	place    int           // in Book.due, or -1
	waiting  bool          // it is counted in Book.opened
	ended    time.Time     // when it was closed
	recorded chan struct{} // closed when it is on record, or cannot be
	answered chan struct{} // closed when it is no longer pending
}

// New makes an empty book. Fold the facts "approval." into it with [Book.Apply] before it is used.
func New(ctx context.Context, c Config) (*Book, error) {
	if c.Ledger == nil {
		return nil, errors.New("approvals need a ledger")
	}
	if c.Now == nil {
		c.Now = c.Ledger.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	for _, d := range []struct {
		to        *time.Duration
		otherwise time.Duration
		name      string
	}{{&c.Expiry, defaultExpiry, "approval expiry"}, {&c.GrantExpiry, defaultGrant, "grant expiry"}} {
		if *d.to == 0 {
			*d.to = d.otherwise
		}
		if *d.to < time.Second || *d.to > longest {
			return nil, fmt.Errorf("the %s is from a second to %s, not %s", d.name, longest, *d.to)
		}
	}
	b := &Book{conf: c, key: c.Ledger.DeriveKey("approvals"), patience: 30 * time.Second, clock: clock{now: c.Now}, byID: map[fairlead.ID]*entry{},
		bound: map[fairlead.Digest][]*entry{}, open: map[string]int{}}
	if len(b.key) < sha256.Size {
		return nil, errors.New("approvals need the log's keys")
	}
	if c.Hook != nil {
		var err error
		if b.hook, err = newHook(*c.Hook, c.Log); err != nil {
			return nil, err
		}
	}
	// Time that the ledger has seen has passed, whatever the clock says now.
	err := c.Ledger.Events(ctx, max(0, c.Ledger.Size()-256), func(_ int64, env []byte) error {
		e, err := verify.ParseEnvelope(env)
		if err == nil {
			b.clock.seen(e.Time)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading when the ledger was last written: %w", err)
	}
	return b, nil
}

// bind gives the keyed hash of a binding, or says why it cannot stand for anything.
func (b *Book) bind(x *Binding) (fairlead.Digest, error) {
	var d fairlead.Digest
	switch {
	case x.Kind != ToolCall && x.Kind != Declassify:
		return d, fmt.Errorf("%q is not a kind of approval", x.Kind)
	case x.Tenant == "" || x.Conversation == "" || x.Tool == "":
		return d, errors.New("an approval is for a tenant, a conversation and a tool: one of them is missing")
	case (x.Kind == Declassify) != (x.Label != ""):
		return d, errors.New("a data label is named to declassify, and only then")
	case len(x.Arguments) > maxArguments:
		return d, fmt.Errorf("%w: they have %d bytes, the most is %d", ErrTooLong, len(x.Arguments), maxArguments)
	case !utf8.ValidString(x.Arguments) || !utf8.ValidString(x.Tool):
		return d, errors.New("a tool call that is not UTF-8 cannot be shown, and so not approved")
	}
	mac := hmac.New(sha256.New, b.key)
	args := canonical(x.Arguments)
	var n [binary.MaxVarintLen64]byte
	for _, f := range []string{"fairlead.approval.v1", string(x.Kind), x.Tenant, x.App, x.User, x.Conversation, x.Tool, x.Label, args} {
		mac.Write(n[:binary.PutUvarint(n[:], uint64(len(f)))])
		mac.Write([]byte(f))
	}
	mac.Sum(d[:0])
	return d, nil
}

// canonical gives the one spelling of JSON arguments, marked apart from those that are not JSON.
func canonical(args string) string {
	src := []byte(args)
	if wire.Check(src, wire.Limits{}) != nil {
		return "bytes:" + args
	}
	return string(wire.AppendCanonical([]byte("json:"), wire.Root(src)))
}

// Endorsed gives the people who endorsed exactly this and whose word still holds: as many as count together for one
// approval, so none when nobody did. It changes nothing; only [Book.Use] makes anything of it.
func (b *Book) Endorsed(x Binding) ([]fairlead.Facet, error) {
	b.mu.Lock()
	idle := len(b.bound) == 0
	b.mu.Unlock()
	if idle {
		return nil, nil
	}
	key, err := b.bind(&x)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	var best []fairlead.Facet
	for _, e := range b.bound[key] {
		if e.state != Pending && e.state != Granted {
			continue
		}
		if who, _ := count(e.grants, now, e.need); len(who) > len(best) {
			best = who
		}
	}
	return best, nil
}

// count gives the largest group of distinct people whose grants hold at time now, and until when at least need of such a
// group hold (zero if they do not). People count as distinct only when the same authority tells them apart: one person
// may well have an account on this machine and one with an issuer.
func count(grants []Grant, now time.Time, need int) (who []fairlead.Facet, until time.Time) {
	groups := map[[2]string]map[string]Grant{}
	for _, g := range grants {
		if !now.Before(g.Expires) {
			continue
		}
		by := [2]string{g.By.Method, g.By.Issuer}
		if groups[by] == nil {
			groups[by] = map[string]Grant{}
		}
		if old, ok := groups[by][g.By.Value]; !ok || g.Expires.After(old.Expires) {
			groups[by][g.By.Value] = g
		}
	}
	for _, people := range groups {
		var ends []time.Time
		var group []fairlead.Facet
		for _, g := range people {
			ends, group = append(ends, g.Expires), append(group, g.By)
		}
		if len(group) > len(who) {
			who = group
		}
		slices.SortFunc(ends, func(x, y time.Time) int { return y.Compare(x) })
		if len(ends) >= need && ends[need-1].After(until) {
			until = ends[need-1]
		}
	}
	slices.SortFunc(who, func(x, y fairlead.Facet) int { return strings.Compare(x.Value, y.Value) })
	return who, until
}

// Wait waits until a pending approval is answered or expires, and gives it as it then stands.
func (b *Book) Wait(ctx context.Context, id fairlead.ID) (Approval, error) {
	for {
		b.mu.Lock()
		now := b.now()
		e := b.byID[id]
		if e == nil {
			b.mu.Unlock()
			return Approval{}, fmt.Errorf("%w: %s", ErrUnknown, id)
		}
		a, answered, left := e.view(), e.answered, e.deadline.Sub(now)
		b.mu.Unlock()
		if a.State != Pending {
			return a, nil
		}
		// Time may jump, so look now and then.
		t := time.NewTimer(min(left, time.Second))
		select {
		case <-answered:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return a, context.Cause(ctx)
		}
		t.Stop()
	}
}

// Get gives the approval with this id.
func (b *Book) Get(id fairlead.ID) (Approval, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now()
	if e := b.byID[id]; e != nil {
		return e.view(), true
	}
	return Approval{}, false
}

// Find resolves what a person types: an id, the number of its event with or without #, or the start of an id if only one
// starts so. Its errors match [ErrUnknown].
func (b *Book) Find(ref string) (Approval, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(ref, "#"), 10, 64)
	number := err == nil
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now()
	var found []*entry
	for id, e := range b.byID {
		text := id.String()
		if number && e.seq == n || text == ref {
			return e.view(), nil
		}
		if ref != "" && strings.HasPrefix(text, ref) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 1:
		return found[0].view(), nil
	case 0:
		return Approval{}, fmt.Errorf("%w as %q: it may have ended more than an hour ago; fairlead show finds what the ledger holds", ErrUnknown, ref)
	}
	return Approval{}, fmt.Errorf("%w: %q fits %d of them, write more of the id or the event's number", ErrUnknown, ref, len(found))
}

// List gives the approvals that wait or, with all, every one that is remembered, the oldest first.
func (b *Book) List(all bool) []Approval {
	b.mu.Lock()
	b.now()
	var list []Approval
	for _, e := range b.byID {
		if all || e.state == Pending || e.state == Granted {
			list = append(list, e.view())
		}
	}
	b.mu.Unlock()
	slices.SortFunc(list, func(x, y Approval) int { return int(x.Seq - y.Seq) })
	return list
}

// Show gives the bytes that an approver is to see, a [Shown] as JSON, from the vault.
func (b *Book) Show(ctx context.Context, id fairlead.ID) ([]byte, error) {
	b.mu.Lock()
	e := b.byID[id]
	var content fairlead.Content
	if e != nil {
		content = e.content
	}
	b.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	o, err := b.conf.Ledger.Vault().Open(ctx, content)
	if err != nil {
		return nil, fmt.Errorf("what was asked for cannot be shown: %w", err)
	}
	return o.Body, nil
}

// view copies an entry for others.
func (e *entry) view() Approval {
	a := Approval{ID: e.id, Seq: e.seq, Kind: e.kind, Tenant: e.tenant, App: e.actor.App.Value, Tool: e.tool, Label: e.label,
		Rules: slices.Clone(e.rules), State: e.state, Approvers: e.need, Grants: slices.Clone(e.grants), Intent: e.intent,
		Requested: e.requested, Expires: e.expires, Decided: e.decided}
	switch a.State {
	case using:
		a.State = Used
	case asking:
		a.State = Pending
	case Granted:
		a.Expires = e.deadline
	}
	return a
}

// now reads the clock and closes what has ended. b.mu is held.
func (b *Book) now() time.Time {
	now := b.clock.read()
	b.sweep(now)
	return now
}

// sweep closes what has ended by time now and forgets what ended long ago. b.mu is held.
func (b *Book) sweep(now time.Time) {
	for len(b.due) > 0 && !now.Before(b.due[0].deadline) {
		e := b.due[0]
		if e.state == Denied { // its answer has stood until now: the same may be asked again
			heap.Pop(&b.due)
			b.unbind(e)
			continue
		}
		b.close(e, Expired, e.deadline)
		if len(b.lapsed) < maxClosed {
			b.lapsed = append(b.lapsed, e)
		}
	}
	n := 0
	for n < len(b.closed) && (len(b.closed)-n > maxClosed || now.Sub(b.closed[n].ended) >= remembered) {
		e := b.closed[n]
		b.unbind(e)
		b.unschedule(e)
		delete(b.byID, e.id)
		b.closed[n] = nil
		n++
	}
	b.closed = b.closed[n:]
}

// admit counts an approval as waiting, if it may. b.mu is held.
func (b *Book) admit(e *entry) error {
	app := e.tenant + "\x00" + e.actor.App.Value
	switch {
	case b.opened >= maxOpen:
		return fmt.Errorf("%w: %d wait for an answer, and this is denied: answer or deny some (fairlead approve list)", ErrFull, maxOpen)
	case b.open[app] >= maxOpenApp:
		return fmt.Errorf("%w: %d of this app wait for an answer, and this is denied: answer or deny some (fairlead approve list)", ErrFull, maxOpenApp)
	}
	b.count(e)
	return nil
}

// count counts an approval as waiting. b.mu is held.
func (b *Book) count(e *entry) {
	b.opened++
	b.open[e.tenant+"\x00"+e.actor.App.Value]++
	e.waiting = true
}

// stand puts an approval that is on record among those that can be found and end. b.mu is held.
func (b *Book) stand(e *entry) {
	b.byID[e.id] = e
	e.state, e.deadline = Pending, e.expires
	b.schedule(e)
}

// close ends an approval. A denial goes on to answer for what is asked again until the request would have expired; any
// other end leaves nothing behind that could be used. b.mu is held.
func (b *Book) close(e *entry, s State, at time.Time) {
	e.state, e.ended = s, at
	b.leave(e)
	if s == Denied {
		e.deadline = e.expires
		b.schedule(e)
	} else {
		b.unbind(e)
		b.unschedule(e)
	}
	b.closed = append(b.closed, e)
}

// leave takes an approval out of those that wait for an answer. b.mu is held.
func (b *Book) leave(e *entry) {
	if !e.waiting {
		return
	}
	e.waiting = false
	app := e.tenant + "\x00" + e.actor.App.Value
	b.opened--
	if b.open[app]--; b.open[app] <= 0 {
		delete(b.open, app)
	}
	close(e.answered)
}

func (b *Book) unbind(e *entry) {
	list := slices.DeleteFunc(b.bound[e.binding], func(x *entry) bool { return x == e })
	if len(list) == 0 {
		delete(b.bound, e.binding)
		return
	}
	b.bound[e.binding] = list
}

func (b *Book) schedule(e *entry) {
	if e.place >= 0 {
		heap.Fix(&b.due, e.place)
		return
	}
	heap.Push(&b.due, e)
}

func (b *Book) unschedule(e *entry) {
	if e.place >= 0 {
		heap.Remove(&b.due, e.place)
	}
}

// deadlines is a heap of entries by when they end.
type deadlines []*entry

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i]; d[i].place, d[j].place = i, j }

// Push is for package heap.
func (d *deadlines) Push(x any) {
	e := x.(*entry)
	e.place = len(*d)
	*d = append(*d, e)
}

// Pop is for package heap.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last], e.place = nil, -1
	*d = (*d)[:last]
	return e
}
