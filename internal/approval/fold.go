package approval

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead"
)

// The attributes of the facts. An approval.requested has all but attrShown; an approval.granted has attrShown and
// attrExpires; the tool's own name is gen_ai.tool.name.
const (
	attrKind      = "fairlead.approval.kind"      // a [Kind]
	attrTool      = "gen_ai.tool.name"            // the tool or reader, or "unprintable"
	attrLabel     = "fairlead.approval.label"     // optional: the data label to be released
	attrRules     = "fairlead.approval.rules"     // optional: ids of the rules that hold it
	attrApprovers = "fairlead.approval.approvers" // how many people it takes
	attrExpires   = "fairlead.approval.expires"   // RFC 3339, UTC, whole seconds
	attrBinding   = "fairlead.approval.binding"   // what it is for: HMAC-SHA-256, 64 hex digits
	attrAhead     = "fairlead.approval.ahead_s"   // by how many seconds the book's time is ahead of the fact's, if it is
	attrExpired   = "fairlead.approval.expired"   // on an approval.denied: true, when nobody answered, or used the answer, in time
	attrShown     = "fairlead.approval.shown"     // the address of what the approver saw, as in the request's content, in hex
)

// The names of content: what approvers see, and what an approver had to say.
const (
	contentShown = "shown"
	contentWhy   = "why"
)

// fact is the approval.requested fact of an entry.
func (e *entry) fact(id fairlead.ID) *fairlead.Fact {
	attrs := []fairlead.Attr{{Name: attrKind, Value: string(e.kind)}, {Name: attrTool, Value: e.tool}}
	if e.label != "" {
		attrs = append(attrs, fairlead.Attr{Name: attrLabel, Value: e.label})
	}
	if len(e.rules) > 0 {
		attrs = append(attrs, fairlead.Attr{Name: attrRules, Value: e.rules})
	}
	attrs = append(attrs, fairlead.Attr{Name: attrApprovers, Value: int64(e.need)}, fairlead.Attr{Name: attrExpires, Value: e.expires.Format(time.RFC3339)},
		fairlead.Attr{Name: attrBinding, Value: hex.EncodeToString(e.binding[:])})
	return &fairlead.Fact{ID: id, Kind: fairlead.KindApprovalRequested, Tenant: e.tenant, Actor: e.actor, Attrs: attrs,
		Links: []fairlead.Link{{Rel: fairlead.RelAbout, To: e.intent, Assurance: fairlead.Derived}}}
}

// answer is the fact of a person's answer.
func (e *entry) answer(k fairlead.Kind, d *Decision) *fairlead.Fact {
	return &fairlead.Fact{Kind: k, Tenant: e.tenant, Actor: d.By.Actor,
		Links: []fairlead.Link{{Rel: fairlead.RelApproves, To: e.id, Assurance: fairlead.Derived}}}
}

// stamp says in a fact how far the wall clock lags behind the book's, so that it still does after a restart.
func (b *Book) stamp(f *fairlead.Fact) {
	b.mu.Lock()
	ahead := b.clock.time.Sub(b.clock.last)
	b.mu.Unlock()
	if ahead >= time.Second {
		f.Attrs = append(f.Attrs, fairlead.Attr{Name: attrAhead, Value: int64(ahead / time.Second)})
	}
}

// Apply folds the fact with number seq, in the order of the ledger. Facts of other kinds are ignored, and so are answers
// to approvals that ended long before. An error means that the ledger holds an approval fact that cannot be read; the Book
// is then unchanged.
func (b *Book) Apply(seq int64, f fairlead.Fact) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	switch f.Kind {
	case fairlead.KindApprovalRequested:
		err = b.applyRequested(seq, &f)
	case fairlead.KindApprovalGranted:
		err = b.applyGranted(&f)
	case fairlead.KindApprovalDenied:
		b.applyDenied(&f)
	case fairlead.KindApprovalUsed:
		// Whatever else was said of it, it has been used.
		if e := b.byID[f.Link(fairlead.RelUses)]; e != nil && e.state != Used {
			again := e.state != Pending && e.state != Granted
			e.decided, e.state = f.ID, Used
			if again {
				b.unbind(e)
				b.unschedule(e)
			} else {
				b.close(e, Used, f.Time)
			}
		}
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s fact %s: %w", f.Kind, f.ID, err)
	}
	at := f.Time.Add(time.Duration(f.Int(attrAhead)) * time.Second)
	if at.After(b.folded) {
		b.folded = at
	}
	b.clock.seen(at)
	// What had ended by the time of this fact is closed by that time, not by today's: a later fact may say that it went on.
	b.sweep(b.folded)
	return nil
}

func (b *Book) applyRequested(seq int64, f *fairlead.Fact) error {
	if b.byID[f.ID] != nil {
		return nil
	}
	e := &entry{id: f.ID, seq: seq, kind: Kind(f.Text(attrKind)), tenant: f.Tenant, tool: f.Text(attrTool), label: f.Text(attrLabel),
		actor: f.Actor, intent: f.Link(fairlead.RelAbout), need: int(f.Int(attrApprovers)), requested: f.Time, place: -1, answered: make(chan struct{})}
	e.rules, _ = f.Attr(attrRules).([]string)
	if e.need < 1 || e.need > maxApprovers {
		return fmt.Errorf("%s is not 1 to %d", attrApprovers, maxApprovers)
	}
	sum, err := hex.DecodeString(f.Text(attrBinding))
	if err != nil || len(sum) != len(e.binding) {
		return fmt.Errorf("%s is not 64 hex digits", attrBinding)
	}
	copy(e.binding[:], sum)
	if e.expires, err = readExpires(f); err != nil {
		return err
	}
	if len(f.Content) == 0 || f.Content[0].Name != contentShown {
		return fmt.Errorf("what the approver is shown is missing")
	}
	e.content = f.Content[0]
	b.bound[e.binding] = append(b.bound[e.binding], e)
	b.count(e)
	b.stand(e)
	return nil
}

func (b *Book) applyGranted(f *fairlead.Fact) error {
	expires, err := readExpires(f)
	if err != nil {
		return err
	}
	e := b.byID[f.Link(fairlead.RelApproves)]
	if e == nil || e.state != Pending {
		return nil
	}
	if f.Text(attrShown) != hex.EncodeToString(e.content.Address[:]) {
		return fmt.Errorf("%s is not what was asked for", attrShown)
	}
	b.grant(e, Grant{By: f.Actor.User, Fact: f.ID, Time: f.Time, Expires: expires}, f.Time)
	return nil
}

func (b *Book) applyDenied(f *fairlead.Fact) {
	e := b.byID[f.Link(fairlead.RelApproves)]
	if e == nil {
		return
	}
	end := Denied
	if f.Attr(attrExpired) == true {
		end = Expired
	}
	switch e.state {
	case Expired: // found to be before its fact was folded
		e.decided = f.ID
	case Pending, Granted:
		e.decided = f.ID
		b.close(e, end, f.Time)
	}
}

func readExpires(f *fairlead.Fact) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, f.Text(attrExpires))
	if err != nil {
		// A date that cannot be read must not make anything eternal.
		return t, fmt.Errorf("%s is not an RFC 3339 date", attrExpires)
	}
	return t.UTC(), nil
}

func readShown(body []byte) (Shown, error) {
	var s Shown
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("what was shown cannot be read: %w", err)
	}
	return s, nil
}
