package approval

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/ledger"
)

// Request asks for an approval and returns once that is on record. What is asked again while it waits, is granted, or
// has been denied and would still wait, is the approval that is there: nobody is asked twice. An error means that nothing
// was asked for and the call is to be denied; it matches [ErrFull] or [ErrTooLong] where that is why.
func (b *Book) Request(ctx context.Context, ask Ask) (Approval, error) {
	ask.Approvers = max(ask.Approvers, 1)
	key, err := b.bind(&ask.Binding)
	switch {
	case err != nil:
	case ask.Approvers > maxApprovers:
		err = fmt.Errorf("%d approvers are asked for, %d are the most", ask.Approvers, maxApprovers)
	case ask.Intent.IsZero() || ask.Scope == nil:
		err = errors.New("an approval is about a recorded call and shown from its key scope: one of them is missing")
	}
	if err != nil {
		return Approval{}, err
	}
	e, err := b.reserve(ctx, key, &ask)
	if err != nil {
		return Approval{}, err
	}
	if e.recorded == nil { // it was there
		return e.found, nil
	}
	return b.ask(ctx, e.entry, &ask)
}

// A reservation is an entry to be recorded, or an approval that is there already.
type reservation struct {
	*entry
	found    Approval
	recorded chan struct{}
}

// reserve finds what answers for the ask, or puts an entry in its place.
func (b *Book) reserve(ctx context.Context, key fairlead.Digest, ask *Ask) (reservation, error) {
	for {
		b.mu.Lock()
		now := b.now()
		var wait chan struct{}
		for _, e := range b.bound[key] {
			switch {
			case e.state == Denied, e.need >= ask.Approvers && (e.state == Pending || e.state == Granted):
				defer b.mu.Unlock()
				return reservation{found: e.view()}, nil
			case e.state == asking:
				wait = e.recorded
			}
		}
		if wait == nil {
			e := &entry{kind: ask.Kind, tenant: ask.Tenant, tool: safe(ask.Tool), label: safe(ask.Label), actor: ask.Actor, intent: ask.Intent,
				binding: key, need: ask.Approvers, requested: now, expires: now.Add(b.conf.Expiry).Truncate(time.Second), place: -1,
				recorded: make(chan struct{}), answered: make(chan struct{})}
			for _, r := range ask.Rules[:min(len(ask.Rules), maxRules)] {
				e.rules = append(e.rules, safe(r.ID))
			}
			defer b.mu.Unlock()
			if err := b.admit(e); err != nil {
				return reservation{}, err
			}
			b.bound[key] = append(b.bound[key], e)
			return reservation{entry: e, recorded: e.recorded}, nil
		}
		b.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return reservation{}, context.Cause(ctx)
		}
	}
}

// ask records a reserved entry.
func (b *Book) ask(ctx context.Context, e *entry, ask *Ask) (Approval, error) {
	l := b.conf.Ledger
	id := l.NewID()
	shown := ask.Shown
	shown.ID, shown.Kind, shown.Tool, shown.Label, shown.Arguments = id.String(), ask.Kind, ask.Tool, ask.Label, ask.Arguments
	shown.Approvers, shown.Expires, shown.Rules = e.need, e.expires, ask.Rules
	body, err := shown.marshal()
	var seq int64
	if err == nil {
		blobs := l.Vault().Seal(ask.Scope, contentShown, body, nil, nil)
		e.content = blobs[0].Content // nobody else looks at an entry that is being recorded
		f := e.fact(id)
		b.stamp(f)
		seq, err = l.Append(ctx, f, blobs...)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	close(e.recorded)
	if err != nil {
		b.leave(e)
		b.unbind(e)
		return Approval{}, fmt.Errorf("recording the request for an approval: %w", err)
	}
	e.id, e.seq = id, seq
	b.stand(e)
	b.tell(e, "approval.requested", ask.Rules)
	return e.view(), nil
}

// lookup gives an entry that can still be answered. b.mu is held.
func (b *Book) lookup(id fairlead.ID, states ...State) (*entry, error) {
	e := b.byID[id]
	if e == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	for _, s := range states {
		if e.state == s {
			return e, nil
		}
	}
	return nil, fmt.Errorf("%w: %s is %s already", ErrRefused, id, e.view().State)
}

// Grant endorses what the approver was shown. It returns once that is on record; with an error nothing was granted, and
// one that matches [ErrRefused] says what the approver can do about it.
func (b *Book) Grant(ctx context.Context, id fairlead.ID, d Decision) (Approval, error) {
	if err := b.checkDecision(&d); err != nil {
		return Approval{}, err
	}
	b.mu.Lock()
	now := b.now()
	e, err := b.lookup(id, Pending)
	if err == nil {
		err = b.mayGrant(e, &d.By.Actor, now)
	}
	b.mu.Unlock()
	if err != nil {
		return Approval{}, err
	}
	if err := b.sawThis(ctx, id, &d); err != nil {
		return Approval{}, err
	}
	// A person's word is recorded whether or not they wait for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.patience)
	defer cancel()
	g := Grant{By: d.By.Actor.User, Expires: now.Add(d.For).Truncate(time.Second)}
	f := e.answer(fairlead.KindApprovalGranted, &d)
	f.Attrs = append(f.Attrs, fairlead.Attr{Name: attrShown, Value: hex.EncodeToString(e.content.Address[:])},
		fairlead.Attr{Name: attrExpires, Value: g.Expires.Format(time.RFC3339)})
	b.stamp(f)
	if _, err := b.conf.Ledger.Append(ctx, f, b.note(ctx, e, &d)...); err != nil {
		return Approval{}, fmt.Errorf("the grant could not be recorded and does not hold: %w", err)
	}
	g.Fact, g.Time = f.ID, f.Time
	b.mu.Lock()
	defer b.mu.Unlock()
	now = b.now()
	if e.state == Granted {
		return e.view(), nil // somebody else was as quick
	}
	if e.state != Pending {
		return Approval{}, fmt.Errorf("%w: %s is %s by now", ErrRefused, id, e.view().State)
	}
	b.grant(e, g, now)
	b.tell(e, "approval.granted", nil)
	return e.view(), nil
}

// grant adds a grant to a pending approval. b.mu is held.
func (b *Book) grant(e *entry, g Grant, now time.Time) {
	// Those that have lapsed, or that this one renews, say nothing any more: so there are at most a few.
	kept := e.grants[:0:0]
	for _, old := range e.grants {
		if now.Before(old.Expires) && old.By != g.By {
			kept = append(kept, old)
		}
	}
	e.grants = append(kept, g)
	if _, until := count(e.grants, now, e.need); !until.IsZero() {
		e.state, e.deadline = Granted, until
		b.leave(e)
		b.schedule(e)
	}
}

// checkDecision bounds a decision and says who may not decide anything.
func (b *Book) checkDecision(d *Decision) error {
	if d.For == 0 {
		d.For = b.conf.GrantExpiry
	}
	u := d.By.Actor.User
	switch {
	case u.Value == "" || u.Assurance != fairlead.Verified && u.Assurance != fairlead.Attested:
		return fmt.Errorf("%w: nobody vouches for who answers; a name that is only claimed does not count", ErrRefused)
	case d.For < time.Second || d.For > longest:
		return fmt.Errorf("%w: a grant is good for a second to %s, not %s", ErrRefused, longest, d.For)
	case len(d.Why) > maxWhy:
		return fmt.Errorf("%w: the reason is longer than %d bytes", ErrRefused, maxWhy)
	}
	return nil
}

// mayGrant says why an approver may not endorse this. b.mu is held.
func (b *Book) mayGrant(e *entry, by *fairlead.Actor, now time.Time) error {
	switch {
	case by.Agent.Value != "" || len(by.Chain) > 0:
		return fmt.Errorf("%w: an agent cannot approve, not even for a person: a person's own token is needed", ErrRefused)
	case b.conf.VerifiedOnly && by.User.Assurance != fairlead.Verified:
		return fmt.Errorf("%w: only a person with a verified token may approve here (--token-file)", ErrRefused)
	case by.User.Value == e.actor.User.Value:
		return fmt.Errorf("%w: the call is made for this very user, and nobody approves their own", ErrRefused)
	}
	for _, g := range e.grants {
		if g.By.Value == by.User.Value && g.By.Method == by.User.Method && g.By.Issuer == by.User.Issuer && now.Before(g.Expires) {
			return fmt.Errorf("%w: this person has endorsed it already, and it takes %d people", ErrRefused, e.need)
		}
	}
	return nil
}

// sawThis makes sure that the approver was shown what is on record, and means it.
func (b *Book) sawThis(ctx context.Context, id fairlead.ID, d *Decision) error {
	body, err := b.Show(ctx, id)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(body); d.Shown != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("%w: the grant is not for what is on record; look at it (fairlead approve show) and grant what was shown", ErrRefused)
	}
	if d.Arguments == nil {
		return nil
	}
	shown, err := readShown(body)
	if err != nil {
		return err
	}
	if canonical(*d.Arguments) != canonical(shown.Arguments) {
		return fmt.Errorf("%w: the call that is held has other arguments than those that are granted", ErrRefused)
	}
	return nil
}

// Deny refuses what is pending, or takes back a grant that was not used. The denial holds at once; an error then only says
// that it is not on record, and that it may be forgotten when the server restarts.
func (b *Book) Deny(ctx context.Context, id fairlead.ID, d Decision) (Approval, error) {
	d.For = 0
	if err := b.checkDecision(&d); err != nil {
		return Approval{}, err
	}
	b.mu.Lock()
	now := b.now()
	e, err := b.lookup(id, Pending, Granted)
	if err == nil {
		b.close(e, Denied, now)
	}
	b.mu.Unlock()
	if err != nil {
		return Approval{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.patience)
	defer cancel()
	f := e.answer(fairlead.KindApprovalDenied, &d)
	if _, err := b.conf.Ledger.Append(ctx, f, b.note(ctx, e, &d)...); err != nil {
		return Approval{}, fmt.Errorf("it is denied, but that could not be recorded: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e.decided = f.ID
	b.tell(e, "approval.denied", nil)
	return e.view(), nil
}

// note seals what is not for the envelope: clear names and words. Where the request's key is gone so are they.
func (b *Book) note(ctx context.Context, e *entry, d *Decision) []*ledger.Blob {
	if d.Why == "" && len(d.By.Names) == 0 {
		return nil
	}
	scope, err := b.conf.Ledger.Vault().Scope(ctx, e.content.Scope)
	if err != nil {
		b.conf.Log.Warn("an approver's name and reason cannot be kept", "approval", e.id, "err", err)
		return nil
	}
	return b.conf.Ledger.Vault().Seal(scope, contentWhy, []byte(d.Why), nil, d.By.Names)
}

// Use takes a grant for exactly this, once: whatever runs beside it, one caller gets it. When it returns nil the use is on
// record and the call may be let go. With any error nothing may be released; one that matches [ErrNoGrant] means that
// there is no grant, or none by enough people. If the record of the use fails in a way that leaves it unclear whether it
// is on disk, the grant is lost and has to be given again.
func (b *Book) Use(ctx context.Context, ask Ask) (Approval, error) {
	key, err := b.bind(&ask.Binding)
	if err == nil && ask.Intent.IsZero() {
		err = errors.New("a grant is used by a recorded call, which is missing")
	}
	if err != nil {
		return Approval{}, err
	}
	e, err := b.take(key, max(ask.Approvers, 1))
	if err != nil {
		return Approval{}, err
	}
	f := &fairlead.Fact{Kind: fairlead.KindApprovalUsed, Tenant: e.tenant, Actor: ask.Actor, Links: []fairlead.Link{
		{Rel: fairlead.RelUses, To: e.id, Assurance: fairlead.Derived}, {Rel: fairlead.RelAbout, To: ask.Intent, Assurance: fairlead.Derived}}}
	p, err := b.conf.Ledger.Send(ctx, f)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		// It never went on its way, so the grant is as good as before.
		e.state = Granted
		b.bound[key] = append(b.bound[key], e)
		b.schedule(e)
		return Approval{}, fmt.Errorf("recording the use of an approval: %w", err)
	}
	_, err = p.Wait(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.close(e, Lost, b.now())
		return Approval{}, fmt.Errorf("recording the use of an approval: %w; nothing was released, and it has to be approved again", err)
	}
	e.decided = f.ID
	b.close(e, Used, b.now())
	b.tell(e, "approval.used", nil)
	return e.view(), nil
}

// take makes one caller the owner of a grant.
func (b *Book) take(key fairlead.Digest, need int) (*entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	var best *entry
	for _, e := range b.bound[key] {
		if e.state != Granted {
			continue
		}
		if who, until := count(e.grants, now, e.need); until.IsZero() || len(who) < need {
			continue
		}
		if best == nil || e.deadline.Before(best.deadline) {
			best = e
		}
	}
	if best == nil {
		return nil, ErrNoGrant
	}
	best.state = using
	b.unbind(best)
	b.unschedule(best)
	return best, nil
}
