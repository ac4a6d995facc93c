package policy

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/google/go-cmp/cmp"
)

func TestDecide(t *testing.T) {
	const (
		hold1 = `@id("hold1") @effect("hold") forbid (principal, action, resource);`
		hold3 = `@id("hold3") @effect("hold") @approvers("3") forbid (principal, action, resource);`
		deny  = `@id("deny") forbid (principal, action, resource);`
		// The sum is too large for a Long once there is an approval.
		errs    = `@id("errs") forbid (principal, action, resource) when { context.approvals + 9223372036854775807 < 0 };`
		errsToo = `@id("errs-too") permit (principal, action, resource) when { context.approvals + 9223372036854775807 > 0 };`
	)
	tests := []struct {
		name      string
		policies  string
		approved  int
		want      fairlead.Effect
		approvers int
		rules     string
	}{
		{"nothing permits", "", 0, fairlead.Deny, 0, "default-deny"},
		{"permitted", allowAll, 0, fairlead.Allow, 0, "all"},
		{"forbidden", allowAll + deny, 0, fairlead.Deny, 0, "deny"},
		{"held", allowAll + hold1, 0, fairlead.Hold, 1, "hold1"},
		{"held for the most that is asked", allowAll + hold1 + hold3, 0, fairlead.Hold, 3, "hold1 hold3"},
		{"one is not three", allowAll + hold1 + hold3, 1, fairlead.Hold, 3, "hold1 hold3"},
		{"released", allowAll + hold1 + hold3, 3, fairlead.Allow, 0, "all hold1 hold3"},
		{"a deny is not released", allowAll + deny + hold1, 5, fairlead.Deny, 0, "deny hold1"},
		{"nor is what nothing permits", hold1, 1, fairlead.Deny, 0, "default-deny hold1"},
		{"an erring forbid denies", allowAll + errs, 1, fairlead.Deny, 0, "errs"},
		{"an erring permit denies", allowAll + errsToo, 1, fairlead.Deny, 0, "errs-too"},
		{"alone, too", errsToo, 1, fairlead.Deny, 0, "errs-too"},
		{"with all that applies", allowAll + errs + deny + hold1, 1, fairlead.Deny, 0, "deny errs hold1"},
		{"what does not err decides", allowAll + errs, 0, fairlead.Allow, 0, "all"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := load(t, Options{}, tt.policies)
			req := typical("send_mail")
			req.Context.Args.Values, req.Context.Approved = nil, tt.approved
			v := s.Decide(req)
			if v.Effect != tt.want || v.Approvers != tt.approvers || strings.Join(v.IDs(), " ") != tt.rules {
				t.Errorf("got %s by %v, %d approvers; expected %s by %s, %d", v.Effect, v.IDs(), v.Approvers, tt.want, tt.rules, tt.approvers)
			}
			for _, r := range v.Rules {
				if strings.HasPrefix(r.ID, "errs") != (r.Error != "") {
					t.Errorf("%s has the error %q", r.ID, r.Error)
				}
			}
			if d := cmp.Diff(v, s.decideUnsliced(req)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestDecideInvalid(t *testing.T) {
	s := load(t, benchOptions, allowAll)
	many := make([]string, maxSet+1)
	for name, change := range map[string]func(*Request){
		"action":           func(r *Request) { r.Action = "tool.destroy" },
		"no resource":      func(r *Request) { r.Resource.Name = "" },
		"class":            func(r *Request) { r.Resource.Classes = []Class{"harmless"} },
		"profile":          func(r *Request) { r.Context.Profile = "Guaranteed" },
		"no time":          func(r *Request) { r.Context.Time = time.Time{} },
		"integrity":        func(r *Request) { r.Context.Label.Integrity = 9 },
		"tier":             func(r *Request) { r.Context.Tier = "black" },
		"no authority":     func(r *Request) { r.Context.Args.Authority = "" },
		"authority":        func(r *Request) { r.Context.Args.Authority = "root" },
		"negative":         func(r *Request) { r.Context.Approved = -1 },
		"groups":           func(r *Request) { r.Principal.Groups = many },
		"chain":            func(r *Request) { r.Principal.Chain = many },
		"findings":         func(r *Request) { r.Context.Findings = many },
		"undeclared value": func(r *Request) { r.Context.Args.Values = map[string]any{"x": "y"} },
		"type of a value":  func(r *Request) { r.Context.Args.Values = map[string]any{"amount": "12"} },
		"int":              func(r *Request) { r.Context.Args.Values = map[string]any{"amount": 12} },
	} {
		t.Run(name, func(t *testing.T) {
			req := typical("send_mail")
			if v := s.Decide(req); v.Effect != fairlead.Allow {
				t.Fatal(v)
			}
			change(req)
			v := s.Decide(req)
			if v.Effect != fairlead.Deny || len(v.Rules) != 1 || v.Rules[0].ID != invalidRequest || v.Rules[0].Error == "" {
				t.Errorf("got %+v", v)
			}
		})
	}
}

// TestPrincipal shows who a policy sees, and that a claim does not match a permit.
func TestPrincipal(t *testing.T) {
	const v, d = fairlead.Verified, fairlead.Declared
	for _, tt := range []struct {
		name, scope string
		p           Principal
		want        bool
	}{
		{"user", `principal == User::"alice"`, Principal{App: Party{"crm", v}, User: Party{"alice", v}}, true},
		{"attested user", `principal == User::"alice"`, Principal{User: Party{"alice", fairlead.Attested}}, true},
		{"declared user", `principal == User::"alice"`, Principal{App: Party{"crm", v}, User: Party{"alice", d}}, false},
		{"declared user is the app", `principal == App::"crm"`, Principal{App: Party{"crm", v}, User: Party{"alice", d}}, true},
		{"declared app", `principal == App::"crm"`, Principal{App: Party{"crm", d}}, false},
		{"nobody", `principal == App::""`, Principal{App: Party{"crm", d}, Service: true}, true},
		{"user in app", `principal in App::"crm"`, Principal{App: Party{"crm", v}, User: Party{"alice", v}}, true},
		{"user in declared app", `principal in App::"crm"`, Principal{App: Party{"crm", d}, User: Party{"alice", v}}, false},
		{"group", `principal in Group::"g"`, Principal{User: Party{"alice", v}, Groups: []string{"f", "g", "f"}}, true},
		{"group of a declared user", `principal in Group::"g"`, Principal{User: Party{"alice", d}, Groups: []string{"g"}}, false},
		{"group of an app", `principal in Group::"g"`, Principal{App: Party{"crm", v}, Groups: []string{"g"}}, false},
		{"user before agent", `principal is Agent`, Principal{User: Party{"alice", v}, Agent: Party{"bot", v}}, false},
		{"agent", `principal is Agent in App::"crm"`, Principal{App: Party{"crm", v}, Agent: Party{"bot", v}}, true},
		{"service", `principal == Service::"cron"`, Principal{App: Party{"cron", v}, Service: true}, true},
		{"declared service", `principal is Service`, Principal{App: Party{"cron", d}, Service: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := load(t, Options{}, `@id("x") permit (`+tt.scope+`, action, resource);`)
			req := &Request{Principal: tt.p, Action: ModelCall, Resource: Resource{Name: "m"}, Context: Context{Time: time.Unix(1, 0)}}
			if got := s.Decide(req).Effect == fairlead.Allow; got != tt.want {
				t.Errorf("permitted: %v, expected %v", got, tt.want)
			}
		})
	}
}

// TestUnknownTool: a tool that nobody classified is an egress tool, whatever else is said of it.
func TestUnknownTool(t *testing.T) {
	s := load(t, Options{}, allowAll+`@id("egress") forbid (principal, action, resource in ToolClass::"egress");`)
	for _, tt := range []struct {
		r    Resource
		want fairlead.Effect
	}{
		{Resource{Name: "t"}, fairlead.Deny},
		{Resource{Name: "t", Classes: []Class{Read}}, fairlead.Deny},
		{Resource{Name: "t", Known: true}, fairlead.Deny},
		{Resource{Name: "t", Known: true, Classes: []Class{Read}}, fairlead.Allow},
	} {
		req := typical("t")
		req.Resource, req.Context.Args.Values = tt.r, nil
		if v := s.Decide(req); v.Effect != tt.want {
			t.Errorf("%+v: %s, expected %s", tt.r, v.Effect, tt.want)
		}
	}
}

// TestLeaves shows that each attribute of the context reaches policies under its name with its value.
func TestLeaves(t *testing.T) {
	req := &Request{
		Principal: Principal{App: Party{"crm", fairlead.Verified}, User: Party{"alice", fairlead.Declared}, Agent: Party{"bot", fairlead.Derived},
			Chain: []string{"a", "b"}},
		Action: ToolCall, Resource: Resource{Name: "pay", Classes: []Class{Write}, Known: true, Server: "bank"},
		Context: Context{Enforce: true, Profile: Guaranteed, Provider: "openai", Route: "POST /x", Time: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC),
			Label: fairlead.Label{Integrity: fairlead.Vetted, Instructional: true, Data: []string{"d"}}, Forbidden: []string{"f"},
			Conversation: Conversation{true, 1, 2, 3},
			Args: Args{Authority: "vetted", Instructed: []string{"to"}, Data: []string{"ad"}, Forbidden: []string{"af"}, New: true,
				Values: map[string]any{"amount": int64(math.MaxInt64), "to": "bob", "now": true, "cc": []string{"eve"}}},
			Findings: []string{"secret"}, Tier: "amber", Approved: 2},
	}
	opts := Options{Arguments: map[string]string{"amount": "long", "to": "string", "now": "bool", "cc": "set"}}
	for _, cond := range []string{
		`context.app.id == "crm"`, `context.app.assurance == "verified"`, `context.user.id == "alice"`, `context.user.assurance == "declared"`,
		`context.agent.id == "bot"`, `context.agent.assurance == "derived"`, `context.chain == ["a", "b"]`, `context.mode == "enforce"`,
		`context.profile == "guaranteed"`, `context.provider == "openai"`, `context.route like "POST *"`, `context.time == datetime("2026-03-01T10:00:00Z")`,
		`context.time.toTime() >= duration("10h")`,
		`context.label.integrity == "vetted"`, `context.label.instructional`, `context.label.data == ["d"]`, `context.label.forbidden == ["f"]`,
		`context.conversation.known`, `context.conversation.declared == 1`, `context.conversation.unresolved == 2`, `context.conversation.steps == 3`,
		`context.args.authority == "vetted"`, `context.args.instructed`, `context.args.instructed_by == ["to"]`, `context.args.data == ["ad"]`,
		`context.args.forbidden == ["af"]`, `context.args.new_tool`, `context.findings == ["secret"]`, `context.budget.tier == "amber"`,
		`context.approvals == 2`, `context.approved`,
		`context.arg has amount && context.arg.amount == 9223372036854775807`, `context.arg has to && context.arg.to == "bob"`,
		`context.arg has now && context.arg.now`, `context.arg has cc && context.arg.cc == ["eve"]`,
		`context.label == {integrity: "vetted", instructional: true, data: ["d"], forbidden: ["f"]}`, `context has label && context.label has data`,
		`resource.name == "pay"`, `resource.known`, `resource in Server::"bank"`, `resource in ToolClass::"write"`, `!(resource in ToolClass::"egress")`,
		`(if context.approved then resource else resource).known`,
	} {
		s := load(t, opts, `@id("x") permit (principal, action == Action::"tool.call", resource) when { `+cond+" };")
		for _, v := range []fairlead.Verdict{s.Decide(req), s.decideUnsliced(req)} {
			if v.Effect != fairlead.Allow {
				t.Errorf("%s: %+v", cond, v.Rules)
			}
		}
	}
}
