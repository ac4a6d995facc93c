package gateway

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/flow"
	"github.com/fairleadhq/fairlead/internal/policy"
)

// RecordedRequests gives back what policy was asked about a call before it went upstream, from its recorded intent or
// refusal: the question itself is not kept, because all that it depends on is in the envelope. Which class a hosted
// tool has is what rules say now.
func RecordedRequests(f *fairlead.Fact, rules *flow.Rules) []policy.Request {
	op := fairlead.Operation(f.Text("gen_ai.operation.name"))
	if f.Text("fairlead.policy.digest") == "" || op == fairlead.OpListModels {
		return nil
	}
	list := func(name string) []string { l, _ := f.Attr(name).([]string); return l }
	party := func(f fairlead.Facet) policy.Party { return policy.Party{ID: f.Value, Assurance: f.Assurance} }
	q := policy.Request{Action: policy.ModelCall, Resource: policy.Resource{Name: f.Text("gen_ai.request.model"), Server: f.Text("gen_ai.provider.name")}}
	if op == fairlead.OpEmbeddings {
		q.Action = policy.Embedding
	}
	if q.Resource.Name == "" {
		q.Resource.Name = unnamed
	}
	a := &f.Actor
	q.Principal = policy.Principal{App: party(a.App), User: party(a.User), Agent: party(a.Agent), Chain: a.Chain, Groups: list("fairlead.user.groups"),
		Service: a.App.Assurance == fairlead.Verified && a.User.Assurance == fairlead.Absent}
	x := &q.Context
	x.Enforce, x.Profile, x.Provider, x.Route, x.Time = f.Text("fairlead.mode") == "enforce", policy.Guaranteed, q.Resource.Server, f.Text("fairlead.route"), f.Time
	x.Tier, x.Args.Authority = "green", policy.AuthorityNone
	x.Label.Integrity, _ = fairlead.ParseIntegrity(f.Text("fairlead.label.integrity"))
	x.Label.Instructional, _ = f.Attr("fairlead.label.instructional").(bool)
	x.Label.Data, x.Forbidden = list("fairlead.label.data"), list("fairlead.label.forbidden")
	x.Conversation = policy.Conversation{Known: knownCall(f), Declared: int(f.Int("fairlead.turns.declared")), Unresolved: len(list("fairlead.state.unresolved")),
		Steps: max(0, int(f.Int("fairlead.run.step"))-1)}
	out := []policy.Request{q}
	if hosted := list("fairlead.tools.hosted"); len(hosted) > 0 {
		c := rules.Label(flow.Input{Exchange: &fairlead.Exchange{Messages: make([]fairlead.Message, 1)}, Declared: x.Label.Data})
		for _, name := range hosted {
			t := c.ToolCall(fairlead.ToolCall{Name: name}, true)
			h := q
			h.Action, h.Resource = policy.HostedTool, policy.Resource{Name: name, Server: q.Resource.Server, Classes: t.Classes, Known: t.Known}
			h.Context.Profile, h.Context.Forbidden = t.Profile, c.Request(t).Context.Forbidden
			out = append(out, h)
		}
	}
	return out
}

// knownCall reports whether a recorded call follows from another.
func knownCall(f *fairlead.Fact) bool {
	for _, l := range f.Links {
		switch l.Rel {
		case fairlead.RelContinues, fairlead.RelResends, fairlead.RelToolResult, fairlead.RelRefers, fairlead.RelPossible:
			return true
		}
	}
	return false
}

// A ToolDecision is what is recorded of a decision about a tool call: what was asked beside what the call's intent says,
// the verdict, and its grounds.
type ToolDecision struct {
	CallID    string            `json:"call_id,omitempty"`
	Resource  policy.Resource   `json:"resource"` // the tool
	Profile   policy.Profile    `json:"profile"`
	Label     string            `json:"label"` // what the model had seen
	Forbidden []string          `json:"forbidden,omitempty"`
	Args      policy.Args       `json:"args"`
	Verdict   fairlead.Verdict  `json:"verdict"`
	Shadow    *fairlead.Verdict `json:"shadow,omitempty"` // where it differs
	Arguments []flow.Argument   `json:"arguments,omitempty"`
	Effect    fairlead.Effect   `json:"effect"`             // what was done
	Approval  string            `json:"approval,omitempty"` // what was asked for, or used
	Used      bool              `json:"used,omitempty"`     // an endorsement was used up for it
}

// Request is what policy was asked, given what it was asked about the call itself ([RecordedRequests]).
func (d *ToolDecision) Request(call policy.Request) policy.Request {
	call.Action, call.Resource = policy.ToolCall, d.Resource
	call.Context.Profile, call.Context.Forbidden, call.Context.Args = d.Profile, d.Forbidden, d.Args
	return call
}

// decisionLine is a decision in one word: the tool, and what policy was asked about it where that is little.
func decisionLine(q *policy.Request) string {
	classes := make([]string, len(q.Resource.Classes))
	for i, c := range q.Resource.Classes {
		classes[i] = string(c)
	}
	line := []string{q.Resource.Name, string(q.Context.Profile), strings.Join(classes, "+"), q.Context.Args.Authority}
	if q.Resource.Known {
		line = append(line, "known")
	}
	if q.Context.Args.New {
		line = append(line, "new")
	}
	return strings.Join(line, " ")
}

// DecisionsOf gives back the decisions about tool calls that stand in an outcome's envelope. Where there is more to say it
// is in the content "verdict", for [ReadDecisions].
func DecisionsOf(outcome *fairlead.Fact) (out []ToolDecision) {
	list, _ := outcome.Attr("fairlead.tools.decided").([]string)
	for _, line := range list {
		words := strings.Split(line, " ")
		if len(words) < 4 {
			continue
		}
		d := ToolDecision{Resource: policy.Resource{Name: words[0]}, Profile: policy.Profile(words[1]), Verdict: fairlead.Verdict{Effect: fairlead.Allow}, Effect: fairlead.Allow}
		for _, c := range strings.Split(words[2], "+") {
			d.Resource.Classes = append(d.Resource.Classes, policy.Class(c))
		}
		d.Args.Authority = words[3]
		d.Resource.Known = slices.Contains(words[4:], "known")
		d.Args.New = slices.Contains(words[4:], "new")
		out = append(out, d)
	}
	return out
}

// ReadDecisions reads the content "verdict" of an outcome.
func ReadDecisions(body []byte) ([]ToolDecision, error) {
	var out []ToolDecision
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, fmt.Errorf("the recorded decisions cannot be read: %w", err)
	}
	return out, nil
}
