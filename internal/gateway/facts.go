package gateway

import (
	"net/http"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/identity"
)

// How a call ended: the value of fairlead.outcome.
const (
	outcomeCompleted  = "completed"       // the answer reached its proper end and was recorded before its last byte was released
	outcomeStatus     = "upstream_status" // the provider answered with an error of its own
	outcomeUpstream   = "upstream_error"  // the provider could not be reached, broke off or sent what is no answer
	outcomeTimeout    = "timeout"         // the provider took too long
	outcomeAborted    = "aborted"         // the client went away
	outcomeTooLarge   = "too_large"       // the answer exceeded the limit and was cut
	outcomeWithheld   = "withheld"        // an answer came, could not be recorded, and was not released
	outcomeUnrecorded = "unrecorded"      // an answer was released although it could not be recorded: the route lets it
)

// attrs collects attributes.
type attrs []fairlead.Attr

func (a *attrs) text(name, value string) {
	if value != "" {
		*a = append(*a, fairlead.Attr{Name: name, Value: value})
	}
}

func (a *attrs) int(name string, value int64) {
	*a = append(*a, fairlead.Attr{Name: name, Value: value})
}

func (a *attrs) flag(name string, value bool) {
	if value {
		*a = append(*a, fairlead.Attr{Name: name, Value: true})
	}
}

// usage gives a token count that is at least least and that an envelope can hold.
func (a *attrs) usage(name string, n, least int64) {
	if n >= least && n < 1<<53 {
		a.int(name, n)
	}
}

// safe gives a value that came from outside if it is plain enough for an envelope; the content has the truth.
func safe(s string) string {
	if s == "" || s == fairlead.AllData || identity.Safe(s) {
		return s
	}
	return "unprintable"
}

// list gives at most 16 plain values.
func (a *attrs) list(name string, values []string) {
	if len(values) == 0 {
		return
	}
	out := make([]string, 0, min(len(values), 16))
	for _, v := range values[:min(len(values), 16)] {
		out = append(out, safe(v))
	}
	*a = append(*a, fairlead.Attr{Name: name, Value: out})
	if len(values) > 16 {
		a.int(name+".count", int64(len(values)))
	}
}

// intentAttrs describes a call before it is made.
func (c *call) intentAttrs() []fairlead.Attr {
	a := make(attrs, 0, 20)
	x, p := c.exchange, c.target.provider
	a.text("gen_ai.operation.name", string(x.Operation))
	a.text("gen_ai.provider.name", p.Name)
	a.text("fairlead.dialect", p.Dialect)
	a.text("gen_ai.request.model", safe(x.Model))
	a.flag("gen_ai.request.stream", x.Stream)
	a.text("gen_ai.conversation.id", c.who.Conversation)
	a.text("gen_ai.agent.version", c.who.AgentVersion)
	a.text("fairlead.trace.id", c.who.Trace.TraceID)
	a.text("fairlead.trace.parent", c.who.Trace.ParentID)
	if c.target.known {
		a.text("fairlead.route", c.target.route.Method+" "+c.target.route.Path)
	} else {
		a.flag("fairlead.uncovered", true)
	}
	if c.who.Key != nil {
		a.text("fairlead.key.id", c.who.Key.ID)
	}
	a.text("fairlead.mode", mode(p))
	if p.Async {
		a.text("fairlead.durability", "async")
	}
	a.text("fairlead.unread", c.unread)
	if n := len(x.Messages); n > 0 {
		a.int("fairlead.messages", int64(n))
	}
	if c.linked.Known > 0 {
		a.int("fairlead.messages.known", int64(c.linked.Known))
	}
	if c.linked.Returned > 0 {
		a.int("fairlead.messages.returned", int64(c.linked.Returned))
	}
	if c.linked.Declared > 0 {
		a.int("fairlead.turns.declared", int64(c.linked.Declared))
	}
	if n := len(x.Tools); n > 0 {
		a.int("fairlead.tools.offered", int64(n))
	}
	a.list("fairlead.tools.hosted", x.HostedTools)
	if len(c.linked.Unresolved) > 0 {
		var fields []string
		for _, s := range c.linked.Unresolved {
			fields = append(fields, s.Field)
		}
		a.list("fairlead.state.unresolved", fields)
	}
	a.text("fairlead.identity.conflict", c.who.Conflict)
	if r := c.linked.Run; !r.Root.IsZero() {
		a.text("fairlead.run.id", r.Root.String())
		a.int("fairlead.run.step", int64(r.Steps)+1)
		a.int("fairlead.run.began", r.Began.UnixMicro())
		a.int("fairlead.run.messages", int64(r.Messages))
	}
	if c.who.Token != nil {
		a.list("fairlead.user.groups", c.who.Token.Groups)
	}
	if c.flow != nil {
		c.labelAttrs(&a)
	}
	c.policyAttrs(&a, c.rulings)
	a.list("fairlead.would_refuse", c.would)
	return a
}

// labelAttrs describes what the model is about to see.
func (c *call) labelAttrs(a *attrs) {
	l := c.bound()
	a.text("fairlead.label.integrity", l.Integrity.String())
	a.flag("fairlead.label.instructional", l.Instructional)
	a.list("fairlead.label.data", l.Data)
	if len(c.rulings) > 0 {
		a.list("fairlead.label.forbidden", c.rulings[0].Request.Context.Forbidden)
	}
	if seen := c.flow.Seen(); seen > 0 {
		a.int("fairlead.injection.seen", int64(seen))
	}
}

func mode(p *Provider) string {
	if p.Enforce {
		return "enforce"
	}
	return "observe"
}

// outcomeAttrs describes how a call ended.
func (c *call) outcomeAttrs(o *outcome) []fairlead.Attr {
	a := make(attrs, 0, 16)
	a.text("fairlead.outcome", o.kind)
	if o.status != 0 {
		a.int("http.response.status_code", int64(o.status))
	}
	a.text("error.type", safe(o.errType))
	if ans := o.answer; ans != nil {
		a.text("gen_ai.response.id", safe(ans.ID))
		a.text("gen_ai.response.model", safe(ans.Model))
		a.list("gen_ai.response.finish_reasons", ans.FinishReasons)
		u := &ans.Usage
		a.usage("gen_ai.usage.input_tokens", u.Input, 0)
		a.usage("gen_ai.usage.output_tokens", u.Output, 0)
		a.usage("gen_ai.usage.cache_read.input_tokens", u.CacheRead, 1)
		a.usage("gen_ai.usage.cache_creation.input_tokens", u.CacheCreation, 1)
		a.usage("gen_ai.usage.reasoning.output_tokens", u.Reasoning, 1)
		if len(ans.ToolCalls) > 0 {
			names := make([]string, len(ans.ToolCalls))
			for i := range ans.ToolCalls {
				names[i] = ans.ToolCalls[i].Name
			}
			a.list("fairlead.tools.called", names)
		}
	}
	c.toolAttrs(&a, o.tools)
	if o.attempts > 1 {
		a.int("fairlead.attempts", int64(o.attempts))
		a.text("gen_ai.provider.name", o.provider)
	}
	if o.released >= 0 {
		a.int("fairlead.released.bytes", o.released)
	}
	a.int("fairlead.duration_us", c.g.now().Sub(c.start).Microseconds())
	return a
}

// appAccepted is the actor of an outcome when the provider accepted the client's own key: what was declared before is
// now derived.
func (c *call) appAccepted(status int) fairlead.Actor {
	app := c.who.Actor.App
	if app.Method != identity.MethodProviderKey || status == http.StatusUnauthorized || status == http.StatusForbidden || status == 0 {
		return fairlead.Actor{}
	}
	app.Assurance = fairlead.Derived
	return fairlead.Actor{App: app}
}

// names are the clear names to be sealed beside the request.
func (c *call) names() []string {
	out := make([]string, 0, 2*len(c.who.Names))
	for _, n := range c.who.Names {
		clear := n.Clear
		if n.Label != "" {
			clear = n.Label
		}
		out = append(out, n.Pseudonym, clear)
	}
	return out
}
