package provenance

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/wire"
	"github.com/fairleadhq/fairlead/verify"
)

// warmEvents is how far back a start looks: what is older is linked no more after a restart, and stored anew.
const warmEvents = 20_000

// Each is given a call of an earlier process: what it asked, what it was linked to, its facts, and its answer, which may
// be nil.
type Each func(r *Request, linked *Linked, intent, outcome *verify.Envelope, answer *fairlead.Answer)

// Warm teaches the linker, and the vault, the newest calls of a ledger, so that conversations go on over a restart.
// It returns how many calls it took in. each, if not nil, is given every one of them.
func (l *Linker) Warm(ctx context.Context, r *ledger.Reader, each Each) (calls int, err error) {
	size, _, err := r.Head(ctx)
	if err != nil {
		return 0, err
	}
	intents := map[fairlead.ID]*verify.Envelope{}
	opener := r.Vault().Opener() // a conversation's calls have most of their content in common
	err = r.Events(ctx, max(0, size-warmEvents), func(_ int64, b []byte) error {
		e, err := verify.ParseEnvelope(b)
		if err != nil {
			return err
		}
		switch e.Kind {
		case fairlead.KindCallIntent:
			intents[e.ID] = e
		case fairlead.KindCallOutcome:
			intent := intents[e.Link(fairlead.RelCompletes)]
			if intent == nil {
				return nil
			}
			delete(intents, intent.ID)
			if err := l.relearn(ctx, r.Vault(), opener, intent, e, each); err != nil {
				// Erased or damaged content is for verify to report; here it only links nothing.
				return ctx.Err()
			}
			calls++
		}
		return nil
	})
	return calls, err
}

var errUnread = errors.New("the call was not read when it was made")

func (l *Linker) relearn(ctx context.Context, v *ledger.Vault, o opener, intent, outcome *verify.Envelope,
	each Each) error {
	c, err := Open(ctx, o, intent, outcome)
	if err != nil {
		return err
	}
	chain := ledger.ChainOf(c.Request.Body, c.Exchange.Messages)
	if err := v.Relearn(ctx, intent.Content[0], c.Request, &ledger.Layout{Chain: chain, Units: c.Exchange.Units}); err != nil {
		return err
	}
	if len(outcome.Content) > 0 {
		if err := v.Relearn(ctx, outcome.Content[0], c.Response, nil); err != nil {
			return err
		}
	}
	d := Domain{Tenant: intent.Tenant, App: intent.Actor.App.Value}
	if intent.Actor.User.Assurance == fairlead.Verified {
		d.User = intent.Actor.User.Value
	}
	req := &Request{Domain: d, Body: c.Request.Body, Exchange: &c.Exchange, Chain: chain,
		Conversation: intent.Text("gen_ai.conversation.id"), Trace: intent.Text("fairlead.trace.id"),
		Proven: intent.Int("fairlead.messages.returned") > 0, Run: RunOf(&intent.Fact), Label: labelOf(&intent.Fact)}
	if each != nil {
		linked := l.Link(req)
		each(req, &linked, intent, outcome, c.Answer)
	}
	l.Learn(req, intent.ID, intent.Content[0].Scope, c.Answer)
	return nil
}

// RunOf reads the run of a call from its intent.
func RunOf(intent *fairlead.Fact) Run {
	r := Run{Root: intent.ID, Steps: 1, Began: intent.Time, Messages: int(intent.Int("fairlead.messages"))}
	if root, err := fairlead.ParseID(intent.Text("fairlead.run.id")); err == nil && root != intent.ID {
		r = Run{Root: root, Steps: int(intent.Int("fairlead.run.step")), Began: time.UnixMicro(intent.Int("fairlead.run.began")).UTC(),
			Messages: int(intent.Int("fairlead.run.messages"))}
	}
	return r
}

// labelOf reads the label of a call from its intent. Data labels that the envelope had no room for are nobody's to read.
func labelOf(intent *fairlead.Fact) (l fairlead.Label) {
	l.Integrity, _ = fairlead.ParseIntegrity(intent.Text("fairlead.label.integrity"))
	l.Instructional, _ = intent.Attr("fairlead.label.instructional").(bool)
	if l.Data, _ = intent.Attr("fairlead.label.data").([]string); intent.Int("fairlead.label.data.count") > 0 {
		l.Data = []string{fairlead.AllData}
	}
	return l
}

// An OpenCall is a call with its content opened and read.
type OpenCall struct {
	Request, Response ledger.Opened
	Exchange          fairlead.Exchange
	Answer            *fairlead.Answer // nil when there was none, or none that is to be believed
}

// An opener opens content: a vault, or for many calls in a row its opener.
type opener interface {
	Open(ctx context.Context, c fairlead.Content) (ledger.Opened, error)
}

// Open opens the content of a call and reads it in its dialect. outcome may be nil.
func Open(ctx context.Context, v opener, intent, outcome *verify.Envelope) (*OpenCall, error) {
	d, ok := dialect.Lookup(intent.Text("fairlead.dialect"))
	method, path, _ := strings.Cut(intent.Text("fairlead.route"), " ")
	if !ok || path == "" || len(intent.Content) == 0 || intent.Text("fairlead.unread") != "" {
		return nil, errUnread
	}
	route := dialect.Route{Method: method, Path: path}
	for _, rt := range d.Routes() {
		if rt.Method == method && rt.Path == path {
			route = rt
		}
	}
	c := &OpenCall{}
	var err error
	if c.Request, err = v.Open(ctx, intent.Content[0]); err != nil {
		return nil, err
	}
	if c.Exchange, err = d.Read(route, c.Request.Body); err != nil {
		return nil, err
	}
	if outcome == nil || len(outcome.Content) == 0 {
		return c, nil
	}
	if c.Response, err = v.Open(ctx, outcome.Content[0]); err != nil {
		return nil, err
	}
	if outcome.Text("fairlead.outcome") == "completed" {
		c.Answer = readAnswer(d, route, c.Response.Body)
	}
	return c, nil
}

// readAnswer reads a recorded answer, which was whole if it is JSON and streamed otherwise.
func readAnswer(d dialect.Dialect, rt dialect.Route, body []byte) *fairlead.Answer {
	if strings.HasPrefix(strings.TrimLeft(string(body[:min(len(body), 64)]), " \t\r\n"), "{") {
		if a, err := d.Answer(rt, body); err == nil {
			return &a
		}
		return nil
	}
	s := d.Stream(rt)
	f := wire.Framer{Max: len(body) + 1}
	each := func(ev wire.Event) error {
		s.Event(ev)
		return nil
	}
	if f.Push(body, each) != nil || f.Close(each) != nil {
		return nil
	}
	a := s.Answer()
	return &a
}
