package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/approval"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/flow"
	"github.com/fairleadhq/fairlead/internal/identity"
)

// toolRuling is what was decided about one tool call of an answer, and on what grounds.
type toolRuling struct {
	ruling
	Tool, CallID string
	Arguments    []flow.Argument
	// Effect is what was done: that of the verdict, unless an endorsement was used or nothing is enforced.
	Effect   fairlead.Effect
	Approval string // what was asked for, or used
	Used     bool   // an endorsement was used up for it

	index  int
	notice string
	denied bool // people were asked, and said no
}

// maxToolCalls bounds the decisions that one answer can ask for. The calls beyond it are denied.
const maxToolCalls = 512

// mediate decides every tool call of an answer before any of it is released. It reports an error only when the client
// went away while somebody was asked.
func (c *call) mediate(ctx context.Context, ans *fairlead.Answer, waiting func()) ([]toolRuling, error) {
	if c.flow == nil || len(ans.ToolCalls) == 0 {
		return nil, nil
	}
	out := make([]toolRuling, len(ans.ToolCalls))
	for i := range ans.ToolCalls {
		out[i] = c.mediateOne(ctx, i, &ans.ToolCalls[i])
	}
	if !c.target.provider.Enforce {
		return out, nil
	}
	return out, c.await(ctx, ans, out, waiting)
}

// mediateOne decides one call.
func (c *call) mediateOne(ctx context.Context, i int, t *fairlead.ToolCall) toolRuling {
	r := toolRuling{Tool: t.Name, CallID: t.ID, index: i}
	if i >= maxToolCalls {
		r.Verdict = fairlead.Verdict{Effect: fairlead.Deny, Rules: []fairlead.Rule{{ID: "too-many-tool-calls", Effect: fairlead.Deny,
			Reason: fmt.Sprintf("one answer asks for more than %d tool calls", maxToolCalls)}}}
	} else {
		p := c.flow.ToolCall(*t, c.offeredBefore(t.Name))
		r.Arguments = p.Arguments
		r.ruling = c.decide(c.ask(c.flow.Request(p)))
	}
	r.Effect = r.Verdict.Effect
	if !c.target.provider.Enforce {
		if r.Effect != fairlead.Allow {
			c.wouldRefuse(&r.Verdict)
		}
		r.Effect = fairlead.Allow
		return r
	}
	if r.Effect == fairlead.Hold {
		c.endorse(ctx, t, &r)
	}
	return r
}

// approvalOf is what people are asked about a tool call, and what an endorsement of it is bound to.
func (c *call) approvalOf(t *fairlead.ToolCall, v *fairlead.Verdict) approval.Ask {
	return approval.Ask{Binding: approval.Binding{Kind: approval.ToolCall, Tenant: c.who.Tenant(), App: c.who.Actor.App.Value,
		User: c.link.Domain.User, Conversation: c.conversation(), Tool: t.Name, Arguments: t.Arguments},
		Actor: c.who.Actor, Intent: c.intent.ID, Rules: v.Rules, Approvers: v.Approvers, Scope: c.scope}
}

// conversation names the conversation by how it began. So an endorsement holds for the same request made again, and for
// an agent's loop that starts the same task anew, and for nothing that began otherwise.
// Where the provider has the messages, it is named by the run.
func (c *call) conversation() string {
	if c.began != "" {
		return c.began
	}
	n := c.linked.Run.Messages
	if n == 0 || n > len(c.exchange.Messages) {
		n = len(c.exchange.Messages)
	}
	if c.began = "began " + c.link.Beginning(n); !c.linked.Kept.IsZero() {
		c.began = "run " + c.linked.Run.Root.String()
	}
	return c.began
}

// endorse lets a held call pass if enough people endorsed exactly it. The endorsement is used up, durably, first.
func (c *call) endorse(ctx context.Context, t *fairlead.ToolCall, r *toolRuling) {
	book := c.g.conf.Approvals
	if book == nil {
		return
	}
	ask := c.approvalOf(t, &r.Verdict)
	people, err := book.Endorsed(ask.Binding)
	if err != nil || len(people) == 0 {
		return // what cannot be asked about cannot have been endorsed
	}
	q := r.Request
	q.Context.Approved = len(people)
	if again := c.policies.Live.Decide(&q); again.Effect != fairlead.Allow {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	a, err := book.Use(ctx, ask)
	if err != nil {
		if !errors.Is(err, approval.ErrNoGrant) {
			c.g.conf.Log.Error("an endorsement could not be used", "call", c.intent.ID.String(), "err", err)
		}
		return // somebody else was faster, or it cannot be recorded: held
	}
	r.Effect, r.Approval, r.Used = fairlead.Allow, a.ID.String(), true
}

// await asks for an approval of every held call, and where the route holds connections, waits for the answers.
func (c *call) await(ctx context.Context, ans *fairlead.Answer, list []toolRuling, waiting func()) error {
	deadline := c.g.now().Add(c.target.provider.Hold)
	for i := range list {
		if r := &list[i]; r.Effect == fairlead.Hold {
			c.requestApproval(ctx, &ans.ToolCalls[r.index], r)
		}
	}
	// All are asked before any is waited for.
	for i := range list {
		r := &list[i]
		t := &ans.ToolCalls[r.index]
		if r.Effect == fairlead.Hold && r.Approval != "" && !r.denied && c.target.provider.Hold > 0 {
			if err := c.waitFor(ctx, t, r, deadline, waiting); err != nil {
				return err
			}
		}
		if r.Effect != fairlead.Allow {
			r.notice = c.notice(r)
		}
	}
	return nil
}

// waitFor waits for the people who are asked.
func (c *call) waitFor(ctx context.Context, t *fairlead.ToolCall, r *toolRuling, deadline time.Time, waiting func()) error {
	id, err := fairlead.ParseID(r.Approval)
	if err != nil {
		return err
	}
	for {
		step, cancel := context.WithTimeout(ctx, min(waitingEvery, time.Until(deadline)))
		a, err := c.g.conf.Approvals.Wait(step, id)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			if a.State == approval.Granted {
				c.endorse(ctx, t, r)
			}
			return nil
		case !errors.Is(err, context.DeadlineExceeded) || !time.Now().Before(deadline):
			return nil
		}
		waiting()
	}
}

// waitingEvery is how often a client that waits for an approval is told that it still does.
const waitingEvery = 10 * time.Second

// requestApproval asks people.
func (c *call) requestApproval(ctx context.Context, t *fairlead.ToolCall, r *toolRuling) {
	book := c.g.conf.Approvals
	if book == nil {
		return
	}
	ask := c.approvalOf(t, &r.Verdict)
	ask.Shown = c.shown(r)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	a, err := book.Request(ctx, ask)
	if err != nil {
		c.g.conf.Log.Error("an approval could not be asked for: the call stays held", "call", c.intent.ID.String(), "err", err)
		return
	}
	r.Approval, r.denied = a.ID.String(), a.State == approval.Denied
}

// notice is what stands in the answer in place of a tool call. A model will read it, so it repeats nothing that an
// attacker wrote but the value that matters, quoted and short.
func (c *call) notice(r *toolRuling) string {
	var b strings.Builder
	b.WriteString("[Fairlead] " + sentence(subject(&r.Request), &r.Verdict))
	if a := r.culprit(); a != nil {
		e := a.Evidence[0]
		fmt.Fprintf(&b, " The argument %s%.80q stands only in %s%s", named(a.Path, " = "), a.Value, origin(e.From), place(e.Message))
		if a.Instructed {
			b.WriteString(", in words that read like an instruction")
		}
		b.WriteByte('.')
	}
	switch {
	case r.denied:
		fmt.Fprintf(&b, " Somebody who was asked denied it (%s).", r.Approval)
	case r.Approval != "":
		fmt.Fprintf(&b, " Approval %s was asked for: once it is granted, send the same request again and exactly this call is let through, once.", r.Approval)
	}
	fmt.Fprintf(&b, " Decision %s.", c.intent.ID)
	return b.String()
}

// culprit is the argument that the notice names: one that somebody planted, else one that says where to and that nobody
// with authority wrote; nil if there is none.
func (r *toolRuling) culprit() *flow.Argument {
	for _, planted := range []bool{true, false} {
		for i := range r.Arguments {
			a := &r.Arguments[i]
			if len(a.Evidence) > 0 && (planted && a.Instructed || !planted && a.Authority && a.Evidence[0].Label.Integrity == fairlead.Untrusted) {
				return a
			}
		}
	}
	return nil
}

// place says which message of the request it is, if it is one.
func place(message int) string {
	if message < 0 {
		return ""
	}
	return fmt.Sprintf(" (message %d)", message+1)
}

func origin(from string) string {
	if tool, ok := strings.CutPrefix(from, "tool:"); ok && tool == "" {
		return "a tool result that nobody here asked for"
	} else if ok {
		return "the result of " + cmp.Or(named(tool, ""), "a tool")
	}
	return "content of " + from
}

// named quotes a name that a model may have made up, if it is one and no sentence, with what follows.
func named(name, then string) string {
	if !identity.Safe(name) {
		return ""
	}
	return strconv.Quote(name) + then
}

// withheld lists the calls that are taken out of the answer.
func withheld(list []toolRuling) []dialect.Withheld {
	var out []dialect.Withheld
	for i := range list {
		if list[i].Effect != fairlead.Allow {
			out = append(out, dialect.Withheld{Index: list[i].index, Notice: list[i].notice})
		}
	}
	return out
}

// toolAttrs describes the rulings in an envelope.
func (c *call) toolAttrs(a *attrs, list []toolRuling) {
	if len(list) == 0 {
		return
	}
	rulings := make([]ruling, len(list))
	var held, used []string
	instructed := 0
	for i := range list {
		rulings[i] = list[i].ruling
		if list[i].Effect != fairlead.Allow {
			held = append(held, list[i].Tool)
		}
		if list[i].Approval != "" {
			used = append(used, list[i].Approval)
		}
		if len(list[i].Request.Context.Args.Instructed) > 0 {
			instructed++
		}
	}
	c.policyAttrs(a, rulings)
	a.list("fairlead.tools.decided", unremarkable(list))
	a.list("fairlead.tools.withheld", held)
	a.list("fairlead.approvals", used)
	if instructed > 0 {
		a.int("fairlead.injection.attempted", int64(instructed))
	}
	if !c.target.provider.Enforce {
		a.list("fairlead.would_refuse", rulesOf(rulings, func(r *ruling) *fairlead.Verdict { return &r.Verdict }))
	}
}

// Bounds on what is shown of each text, in bytes.
const (
	shownAround = 400
	shownAsked  = 4 << 10

	shownSources = 32 // arguments; a person looks at no more
)

// shown is what an approver sees: what the agent saw, and where each argument comes from.
func (c *call) shown(r *toolRuling) approval.Shown {
	s := approval.Shown{Actors: c.actorWords(), Request: c.asked(), Omitted: max(0, len(r.Arguments)-shownSources)}
	// What somebody may have planted comes first: there may be more sources than a person looks at.
	for _, instructed := range []bool{true, false} {
		for i := range r.Arguments {
			if r.Arguments[i].Instructed == instructed && len(s.Sources) < shownSources {
				s.Sources = append(s.Sources, c.source(&r.Arguments[i]))
			}
		}
	}
	return s
}

// actorWords names who is behind the call, with how well each is known.
func (c *call) actorWords() (out []string) {
	for _, f := range []struct {
		what string
		f    fairlead.Facet
	}{{"user", c.who.Actor.User}, {"app", c.who.Actor.App}, {"agent", c.who.Actor.Agent}} {
		if f.f.Value != "" {
			out = append(out, fmt.Sprintf("%s %s (%s)", f.what, c.clearName(f.f.Value), f.f.Assurance))
		}
	}
	return out
}

// asked is the user's newest message.
func (c *call) asked() string {
	if c.request == nil {
		s := c.newest()
		c.request = &s
	}
	return *c.request
}

func (c *call) newest() string {
	msgs := c.exchange.Messages
	for i := len(msgs) - 1; i >= 0; i-- {
		if msgs[i].Role != fairlead.RoleUser {
			continue
		}
		text := ""
		for _, p := range msgs[i].Parts {
			if p.Kind == fairlead.PartText {
				text += clip(dialect.PartText(c.body, p), shownAsked)
			}
		}
		if text != "" {
			return text
		}
	}
	return ""
}

// clearName is what a pseudonym stands for.
func (c *call) clearName(pseudonym string) string {
	for _, n := range c.who.Names {
		if n.Pseudonym == pseudonym {
			if n.Label != "" {
				return n.Label
			}
			return n.Clear
		}
	}
	return pseudonym
}

// source is where the value of an argument comes from, with the words around it.
func (c *call) source(a *flow.Argument) approval.Source {
	out := approval.Source{Argument: a.Path, Value: a.Value, Origin: "nothing that the model saw", Label: a.Bound.String(), Instruction: a.Instructed}
	if len(a.Evidence) == 0 {
		return out
	}
	e := &a.Evidence[0]
	out.Origin, out.Label = origin(e.From)+place(e.Message), e.Label.String()
	if e.Message < 0 || e.Message >= len(c.exchange.Messages) || e.Part < 0 || e.Part >= len(c.exchange.Messages[e.Message].Parts) {
		return out
	}
	text := c.text(e.Message, e.Part)
	at := e.Span
	if e.Instruction != nil {
		at = *e.Instruction
	}
	from := max(0, min(at.Start, len(text)))
	to := max(from, min(at.End, len(text)))
	out.Before = strings.ToValidUTF8(text[max(0, from-shownAround):from], "")
	out.Span = strings.ToValidUTF8(text[from:to], "")
	out.After = strings.ToValidUTF8(text[to:min(len(text), to+shownAround)], "")
	return out
}

// text is that of a part. Calls by the hundred may have their arguments from one.
func (c *call) text(message, part int) string {
	k := [2]int{message, part}
	s, ok := c.texts[k]
	if !ok {
		if c.texts == nil {
			c.texts = map[[2]int]string{}
		}
		s = dialect.PartText(c.body, c.exchange.Messages[message].Parts[part])
		c.texts[k] = s
	}
	return s
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

// Bounds on the grounds that are kept of one answer's decisions.
const (
	keptValue    = 512 // bytes of a value
	keptEvidence = 3   // places of one value
	keptSize     = 256 << 10
)

// unremarkable describes decisions that need no grounds: calls that nothing objected to and whose arguments hold nothing that
// policy could look at. It is nil if one of them is not such a call.
func unremarkable(list []toolRuling) []string {
	if len(list) > 16 { // what an envelope has room for
		return nil
	}
	out := make([]string, len(list))
	for i := range list {
		r, q := &list[i], &list[i].Request
		a := &q.Context.Args
		if r.Verdict.Effect != fairlead.Allow || r.Shadow != nil || r.Used || len(a.Instructed)+len(a.Data)+len(a.Forbidden)+len(a.Values)+len(q.Context.Forbidden) > 0 || safe(r.Tool) != r.Tool || r.Tool == "" {
			return nil
		}
		out[i] = decisionLine(q)
	}
	return out
}

// verdictJSON is the grounds of the decisions about an answer, for whoever asks why, and for replay. It quotes content,
// so it is sealed with it. Where an envelope has room for all there is to say, it is nil.
func verdictJSON(list []toolRuling) []byte {
	if len(list) == 0 || unremarkable(list) != nil {
		return nil
	}
	out := make([]ToolDecision, len(list))
	for i := range list {
		r := &list[i]
		out[i] = ToolDecision{CallID: r.CallID, Resource: r.Request.Resource, Profile: r.Request.Context.Profile, Label: r.Request.Context.Label.String(),
			Forbidden: r.Request.Context.Forbidden, Args: r.Request.Context.Args, Verdict: r.Verdict, Shadow: r.Shadow,
			Arguments: kept(r.Arguments), Effect: r.Effect, Approval: r.Approval, Used: r.Used}
		if r.Verdict.Effect == fairlead.Allow {
			out[i].Verdict.Rules = nil // what permits is in the policies
		}
		out[i].Resource.Name = r.Tool
	}
	b, err := json.Marshal(out)
	if err != nil || len(b) > keptSize {
		// Hundreds of calls: what was asked and decided matters more than where each value stood.
		for i := range out {
			out[i].Arguments = nil
		}
		if b, err = json.Marshal(out); err != nil {
			return nil
		}
	}
	return b
}

// kept is the part of the arguments' grounds that is worth its space: what matters to a decision, cut short.
func kept(args []flow.Argument) []flow.Argument {
	var out []flow.Argument
	for _, a := range args {
		if !a.Authority && !a.Sink && !a.Instructed {
			continue
		}
		a.Value = clip(a.Value, keptValue)
		a.Evidence = a.Evidence[:min(len(a.Evidence), keptEvidence)]
		out = append(out, a)
	}
	return out
}
