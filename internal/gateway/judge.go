package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/approval"
	"github.com/fairleadhq/fairlead/internal/policy"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// Policies are the policy sets that a gateway asks.
type Policies struct {
	Live   *policy.Set
	Shadow *policy.Set // asked beside the live one and recorded where it differs, never obeyed; may be nil

	live, shadow string // short digests
}

// SetPolicies replaces the policies for calls that come from now on. A call is decided by one set from its beginning to
// its end.
func (g *Gateway) SetPolicies(p Policies) {
	p.live = p.Live.Digest()[:shortDigest]
	if p.Shadow != nil {
		p.shadow = p.Shadow.Digest()[:shortDigest]
	}
	g.policies.Store(&p)
}

// shortDigest is how much of a digest names a set among those that were ever activated, whose facts have all of it.
const shortDigest = 16

// Policies are those that decide now.
func (g *Gateway) Policies() Policies { return *g.policies.Load() }

// A ruling is what policy says of one request to it.
type ruling struct {
	Request policy.Request
	Verdict fairlead.Verdict
	Shadow  *fairlead.Verdict // where it differs
}

// decide asks the policies. The live set decides.
func (c *call) decide(q policy.Request) ruling {
	out := ruling{Request: q, Verdict: c.policies.Live.Decide(&q)}
	c.g.conf.Metrics.decided(q.Action, out.Verdict.Effect)
	if c.policies.Shadow != nil {
		v := c.policies.Shadow.Decide(&q)
		if v.Effect != out.Verdict.Effect {
			out.Shadow = &v
			c.g.conf.Metrics.shadowed(q.Action, out.Verdict.Effect, v.Effect)
		}
	}
	return out
}

// ask fills in who asks, and the circumstances.
func (c *call) ask(q policy.Request) policy.Request {
	a := &c.who.Actor
	party := func(f fairlead.Facet) policy.Party { return policy.Party{ID: f.Value, Assurance: f.Assurance} }
	q.Principal = policy.Principal{App: party(a.App), User: party(a.User), Agent: party(a.Agent), Chain: a.Chain,
		Service: a.App.Assurance == fairlead.Verified && a.User.Assurance == fairlead.Absent}
	if c.who.Token != nil {
		q.Principal.Groups = c.who.Token.Groups
	}
	p := c.target.provider
	q.Context.Enforce, q.Context.Provider, q.Context.Time = p.Enforce, p.Name, c.start.UTC()
	if c.target.known {
		q.Context.Route = c.target.route.Method + " " + c.target.route.Path
	}
	q.Context.Label = c.bound()
	q.Context.Conversation = policy.Conversation{Known: len(c.linked.Links) > 0, Declared: c.linked.Declared, Unresolved: len(c.linked.Unresolved), Steps: c.linked.Run.Steps}
	q.Context.Tier = "green"
	return q
}

// modelRequest asks for the call itself, at one provider.
func (c *call) modelRequest(p *Provider) policy.Request {
	q := policy.Request{Action: policy.ModelCall, Resource: policy.Resource{Name: c.exchange.Model, Server: p.Name}}
	if q.Resource.Name == "" {
		q.Resource.Name = unnamed
	}
	if c.exchange.Operation == fairlead.OpEmbeddings {
		q.Action = policy.Embedding
	}
	q.Context.Profile = policy.Guaranteed // no heuristic evidence enters into it
	q = c.ask(q)
	q.Context.Provider = p.Name
	q.Context.Forbidden = c.forbidden(p)
	return q
}

// forbidden are the data labels of the conversation that neither the provider nor the model may read.
func (c *call) forbidden(p *Provider) (out []string) {
	list := c.flow.Forbidden("provider:" + p.Name)
	if len(list) == 0 {
		return nil
	}
	model := c.flow.Forbidden("model:" + c.exchange.Model)
	for _, name := range list {
		if slices.Contains(model, name) {
			out = append(out, name)
		}
	}
	return out
}

// unnamed is the model of a request that names none.
const unnamed = "unnamed"

// judge has policy decide about the call and about each tool that the provider would run by itself. A list of models
// is nobody's content and needs no leave.
func (c *call) judge() error {
	if c.exchange.Operation == fairlead.OpListModels {
		return nil
	}
	c.rulings = append(c.rulings, c.decide(c.modelRequest(c.target.provider)))
	for i, name := range c.exchange.HostedTools {
		if i == maxHosted {
			return &refusal{status: http.StatusBadRequest, code: "too_many_tools", message: fmt.Sprintf("the request names more than %d tools for the provider to run", maxHosted)}
		}
		t := c.flow.ToolCall(fairlead.ToolCall{Name: name}, true)
		c.rulings = append(c.rulings, c.decide(c.ask(policy.Request{Action: policy.HostedTool,
			Resource: policy.Resource{Name: name, Server: c.target.provider.Name, Classes: t.Classes, Known: t.Known},
			Context:  policy.Context{Profile: t.Profile, Forbidden: c.flow.Request(t).Context.Forbidden}})))
	}
	var uses []approval.Ask
	for i := range c.rulings {
		r := &c.rulings[i]
		if r.Verdict.Effect == fairlead.Allow {
			continue
		}
		if !c.target.provider.Enforce {
			c.wouldRefuse(&r.Verdict)
			continue
		}
		if r.Verdict.Effect == fairlead.Hold {
			if c.intent.ID.IsZero() {
				c.intent.ID = c.g.conf.Ledger.NewID() // what an approval is about
			}
			asks, id := c.askAboutCall(r)
			if asks == nil {
				return c.refuseByPolicy(r, id)
			}
			uses = append(uses, asks...)
			continue
		}
		return c.refuseByPolicy(r, fairlead.ID{})
	}
	return c.useAll(uses)
}

// useAll uses up what people endorsed, now that nothing else stands in the call's way.
func (c *call) useAll(asks []approval.Ask) error {
	if len(asks) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), recordTimeout)
	defer cancel()
	for _, ask := range asks {
		if _, err := c.g.conf.Approvals.Use(ctx, ask); err != nil {
			return &refusal{status: http.StatusForbidden, code: codeHeld, message: "what was endorsed about this call could not be used: send the same request again, and have it endorsed again if it is still held"}
		}
	}
	return nil
}

// prompt names all that a request says, however its JSON is spelled.
func (c *call) prompt() string {
	return fmt.Sprintf("%x", sha256.Sum256(wire.AppendCanonical(nil, wire.Root(c.body))))
}

// askAboutCall asks people about a call that is held before it goes upstream, or gives what they endorsed, to be used. What
// they endorse is this request for this reader: where it has data labels that the reader may not have, their release.
func (c *call) askAboutCall(r *ruling) (endorsed []approval.Ask, id fairlead.ID) {
	book := c.g.conf.Approvals
	if book == nil {
		return nil, id
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), recordTimeout)
	defer cancel()
	if c.scope == nil {
		if err := c.findScope(ctx); err != nil {
			c.g.conf.Log.Error("an approval could not be asked for: the call stays held", "err", err)
			return nil, id
		}
	}
	q := &r.Request
	ask := approval.Ask{Binding: approval.Binding{Kind: approval.ToolCall, Tenant: c.who.Tenant(), App: c.who.Actor.App.Value, User: c.link.Domain.User,
		Conversation: "call " + c.conversation(), Tool: string(q.Action) + ":" + q.Resource.Name, Arguments: fmt.Sprintf(`{"request":%q}`, c.prompt())},
		Actor: c.who.Actor, Intent: c.intent.ID, Rules: r.Verdict.Rules, Approvers: r.Verdict.Approvers, Scope: c.scope}
	ask.Shown.Actors, ask.Shown.Request = c.actorWords(), c.asked()
	labels := []string{""}
	if len(q.Context.Forbidden) > 0 {
		ask.Kind, ask.Tool, labels = approval.Declassify, "provider:"+q.Resource.Server, q.Context.Forbidden
	}
	for _, label := range labels {
		ask.Label = label
		people, err := book.Endorsed(ask.Binding)
		again := *q
		again.Context.Approved = len(people)
		if v := c.policies.Live.Decide(&again); err != nil || v.Effect != fairlead.Allow {
			a, err := book.Request(ctx, ask)
			if err != nil {
				c.g.conf.Log.Error("an approval could not be asked for: the call stays held", "err", err)
				return nil, id
			}
			return nil, a.ID
		}
		endorsed = append(endorsed, ask)
	}
	return endorsed, id
}

// maxHosted bounds the decisions that one request can ask for.
const maxHosted = 256

// wouldRefuse notes the rules that enforce mode would have obeyed.
func (c *call) wouldRefuse(v *fairlead.Verdict) {
	for _, id := range v.IDs() {
		if !slices.Contains(c.would, id) {
			c.would = append(c.would, id)
		}
	}
}

// refuseByPolicy is the refusal of a call that policy denies or holds.
func (c *call) refuseByPolicy(r *ruling, asked fairlead.ID) error {
	v := &r.Verdict
	out := &refusal{status: http.StatusForbidden, code: codeDenied, message: sentence(subject(&r.Request), v)}
	if v.Effect == fairlead.Hold {
		out.code = codeHeld
		if !asked.IsZero() {
			out.message += fmt.Sprintf(" Approval %s was asked for: once it is granted, send the same request again and it is let through, once.", asked)
		}
	}
	return out
}

// Codes of refusals by policy, for programs.
const (
	codeDenied = "policy_denied"
	codeHeld   = "approval_required"
)

// subject names what was asked for.
func subject(q *policy.Request) string {
	switch q.Action {
	case policy.ToolCall:
		return "the tool call " + cmp.Or(named(q.Resource.Name, ""), "of a tool with an odd name") // a model will read it
	case policy.HostedTool:
		return fmt.Sprintf("the tool %.100q, which the provider runs by itself,", q.Resource.Name)
	case policy.Embedding:
		return fmt.Sprintf("embedding with %.100q", q.Resource.Name)
	}
	return fmt.Sprintf("the call of the model %.100q", q.Resource.Name)
}

// sentence says why, by which rule, and what to do.
func sentence(what string, v *fairlead.Verdict) string {
	verb := "is not allowed"
	if v.Effect == fairlead.Hold {
		verb = "waits for approval"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", what, verb)
	var remedies []string
	for i, r := range v.Rules {
		if i == 4 {
			fmt.Fprintf(&b, ", and %d more rules", len(v.Rules)-i)
			break
		}
		b.WriteString(map[bool]string{true: ": ", false: "; "}[i == 0])
		fmt.Fprintf(&b, "rule %s", r.ID)
		if r.Reason != "" {
			fmt.Fprintf(&b, " (%s)", strings.TrimRight(r.Reason, "."))
		}
		if r.Error != "" {
			b.WriteString(" (it could not be evaluated, and what cannot be evaluated is denied)")
		}
		if r.Remedy != "" && !slices.Contains(remedies, r.Remedy) {
			remedies = append(remedies, r.Remedy)
		}
	}
	b.WriteByte('.')
	for _, r := range remedies {
		b.WriteString(" " + strings.TrimRight(r, ".") + ".")
	}
	return b.String()
}

// effect is the strictest of the rulings' effects.
func effect(rulings []ruling) fairlead.Effect {
	out := fairlead.Allow
	for i := range rulings {
		out = out.Stricter(rulings[i].Verdict.Effect)
	}
	return out
}

// policyAttrs describes decisions in an envelope: which set decided, how, and by which rules where it was not simply
// allowed.
func (c *call) policyAttrs(a *attrs, rulings []ruling) {
	if len(rulings) == 0 || c.policies == nil {
		return
	}
	a.text("fairlead.policy.digest", c.policies.live)
	if e := effect(rulings); e != fairlead.Allow { // without it, it was allow
		a.text("fairlead.policy.effect", string(e))
	}
	a.list("fairlead.policy.rules", rulesOf(rulings, func(r *ruling) *fairlead.Verdict { return &r.Verdict }))
	if c.policies.Shadow == nil {
		return
	}
	a.text("fairlead.shadow.digest", c.policies.shadow)
	shadow := fairlead.Allow
	for i := range rulings {
		if s := rulings[i].Shadow; s != nil {
			shadow = shadow.Stricter(s.Effect)
		} else {
			shadow = shadow.Stricter(rulings[i].Verdict.Effect)
		}
	}
	a.text("fairlead.shadow.effect", string(shadow))
	a.list("fairlead.shadow.rules", rulesOf(rulings, func(r *ruling) *fairlead.Verdict { return r.Shadow }))
}

func rulesOf(rulings []ruling, of func(*ruling) *fairlead.Verdict) []string {
	var ids []string
	for i := range rulings {
		if v := of(&rulings[i]); v != nil && v.Effect != fairlead.Allow {
			ids = append(ids, v.IDs()...)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
