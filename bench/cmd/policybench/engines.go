package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"github.com/cedar-policy/cedar-go"
	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/policy"
	"github.com/open-policy-agent/opa/v1/rego"
)

// cedarText is the policies in Cedar, in pieces small enough for one file each.
func cedarText(n int) []string {
	var out []string
	var b strings.Builder
	for i := range n / 2 {
		fmt.Fprintf(&b, "@id(\"p%d\") permit (principal in Group::\"team%d\", action == Action::\"tool.call\", resource == Tool::\"tool%d\")\n"+
			"when { context.mode == \"enforce\" && context.provider like \"open*\" && context.chain.contains(\"agent:planner\") };\n", i, i%20, i)
		fmt.Fprintf(&b, "@id(\"f%d\") forbid (principal, action == Action::\"tool.call\", resource == Tool::\"tool%d\")\n"+
			"when { context.label.integrity == \"untrusted\" && resource in ToolClass::\"irreversible\" || context.args.data.contains(\"pii\") || "+
			"context.conversation.steps > 14 };\n", i, i)
		if b.Len() > 900_000 {
			out = append(out, b.String())
			b.Reset()
		}
	}
	return append(out, b.String())
}

var (
	groups = []string{"team3", "team7", "team9", "team19"}
	chain  = []string{"user:alice", "app:crm", "agent:planner", "agent:mailer"}
)

func tool(n int) string { return fmt.Sprintf("tool%d", n/2-1) }

func loadFairlead(n int) (func() (bool, error), error) {
	var sources []policy.Source
	for i, text := range cedarText(n) {
		sources = append(sources, policy.Source{Name: fmt.Sprintf("%d.cedar", i), Text: []byte(text)})
	}
	s, err := policy.Load(sources, policy.Options{Arguments: map[string]string{"amount": "long"}})
	if err != nil {
		return nil, err
	}
	req := &policy.Request{
		Principal: policy.Principal{
			App: policy.Party{ID: "crm", Assurance: fairlead.Verified}, User: policy.Party{ID: "u:4f9a", Assurance: fairlead.Verified},
			Agent: policy.Party{ID: "planner", Assurance: fairlead.Declared}, Groups: append([]string{fmt.Sprintf("team%d", (n/2-1)%20)}, groups...), Chain: chain,
		},
		Action:   policy.ToolCall,
		Resource: policy.Resource{Name: tool(n), Server: "mail", Classes: []policy.Class{policy.Write, policy.Egress}, Known: true},
		Context: policy.Context{
			Enforce: true, Profile: policy.Balanced, Provider: "openai", Route: "POST /v1/chat/completions", Time: time.Now(),
			Label:        fairlead.Label{Integrity: fairlead.Untrusted, Data: []string{"customer", "internal"}},
			Conversation: policy.Conversation{Known: true, Steps: 4},
			Args:         policy.Args{Authority: "user", Data: []string{"internal"}, Values: map[string]any{"amount": int64(12)}},
			Findings:     []string{"secret.aws"}, Tier: "green",
		},
	}
	return func() (bool, error) {
		v := s.Decide(req)
		if v.Effect != fairlead.Allow {
			return false, fmt.Errorf("%+v", v.Rules)
		}
		return true, nil
	}, nil
}

func loadCedar(n int) (func() (bool, error), error) {
	ps, err := cedar.NewPolicySetFromBytes("p.cedar", []byte(strings.Join(cedarText(n), "")))
	if err != nil {
		return nil, err
	}
	resource, principal := cedar.NewEntityUID("Tool", cedar.String(tool(n))), cedar.NewEntityUID("User", "u:4f9a")
	return func() (bool, error) {
		parents := []cedar.EntityUID{cedar.NewEntityUID("App", "crm"), cedar.NewEntityUID("Group", cedar.String(fmt.Sprintf("team%d", (n/2-1)%20)))}
		for _, g := range groups {
			parents = append(parents, cedar.NewEntityUID("Group", cedar.String(g)))
		}
		entities := cedar.EntityMap{
			principal: {UID: principal, Parents: cedar.NewEntityUIDSet(parents...)},
			resource:  {UID: resource, Parents: cedar.NewEntityUIDSet(cedar.NewEntityUID("ToolClass", "write"), cedar.NewEntityUID("ToolClass", "egress"))},
		}
		var names []cedar.Value
		for _, c := range chain {
			names = append(names, cedar.String(c))
		}
		context := cedar.NewRecord(cedar.RecordMap{
			"mode": cedar.String("enforce"), "provider": cedar.String("openai"), "chain": cedar.NewSet(names...),
			"label":        cedar.NewRecord(cedar.RecordMap{"integrity": cedar.String("untrusted")}),
			"args":         cedar.NewRecord(cedar.RecordMap{"data": cedar.NewSet(cedar.String("internal"))}),
			"conversation": cedar.NewRecord(cedar.RecordMap{"steps": cedar.Long(4)}),
		})
		d, diag := cedar.Authorize(ps, entities, cedar.Request{Principal: principal, Action: cedar.NewEntityUID("Action", "tool.call"), Resource: resource, Context: context})
		if len(diag.Errors) > 0 {
			return false, fmt.Errorf("%v", diag.Errors[0])
		}
		return d == cedar.Allow, nil
	}, nil
}

// input is the request for OPA and cel-go.
func input(n int) map[string]any {
	return map[string]any{
		"action": "tool.call", "tool": tool(n), "classes": list([]string{"write", "egress"}), "groups": list(append([]string{fmt.Sprintf("team%d", (n/2-1)%20)}, groups...)),
		"mode": "enforce", "provider": "openai", "chain": list(chain), "integrity": "untrusted", "data": list([]string{"internal"}), "steps": 4,
	}
}

func list(names []string) []any {
	out := make([]any, len(names))
	for i, n := range names {
		out[i] = n
	}
	return out
}

func loadOPA(n int) (func() (bool, error), error) {
	var b strings.Builder
	b.WriteString("package p\nimport rego.v1\ndefault allow := false\nallow if { count(deny) == 0; permit }\n")
	for i := range n / 2 {
		fmt.Fprintf(&b, "permit if { input.action == \"tool.call\"; input.tool == \"tool%d\"; \"team%d\" in input.groups; input.mode == \"enforce\"; "+
			"startswith(input.provider, \"open\"); \"agent:planner\" in input.chain }\n", i, i%20)
		head := fmt.Sprintf("input.action == \"tool.call\"; input.tool == \"tool%d\"; ", i)
		fmt.Fprintf(&b, "deny contains \"f%da\" if { %s input.integrity == \"untrusted\"; \"irreversible\" in input.classes }\n", i, head)
		fmt.Fprintf(&b, "deny contains \"f%db\" if { %s \"pii\" in input.data }\ndeny contains \"f%dc\" if { %s input.steps > 14 }\n", i, head, i, head)
	}
	ctx := context.Background()
	q, err := rego.New(rego.Query("data.p.allow"), rego.Module("p.rego", b.String())).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	in := input(n)
	return func() (bool, error) {
		rs, err := q.Eval(ctx, rego.EvalInput(in))
		return err == nil && rs.Allowed(), err
	}, nil
}

func loadCEL(n int) (func() (bool, error), error) {
	var vars []cel.EnvOption
	for _, name := range []string{"action", "tool", "mode", "provider", "integrity"} {
		vars = append(vars, cel.Variable(name, cel.StringType))
	}
	for _, name := range []string{"classes", "groups", "chain", "data"} {
		vars = append(vars, cel.Variable(name, cel.ListType(cel.StringType)))
	}
	env, err := cel.NewEnv(append(vars, cel.Variable("steps", cel.IntType))...)
	if err != nil {
		return nil, err
	}
	compile := func(text string) (cel.Program, error) {
		ast, issues := env.Compile(text)
		if issues.Err() != nil {
			return nil, issues.Err()
		}
		return env.Program(ast, cel.EvalOptions(cel.OptOptimize))
	}
	var permits, forbids []cel.Program
	for i := range n / 2 {
		p, err := compile(fmt.Sprintf(`action == "tool.call" && tool == "tool%d" && "team%d" in groups && mode == "enforce" && provider.startsWith("open") && "agent:planner" in chain`, i, i%20))
		if err != nil {
			return nil, err
		}
		f, err := compile(fmt.Sprintf(`action == "tool.call" && tool == "tool%d" && (integrity == "untrusted" && "irreversible" in classes || "pii" in data || steps > 14)`, i))
		if err != nil {
			return nil, err
		}
		permits, forbids = append(permits, p), append(forbids, f)
	}
	in := input(n)
	// All are asked, as in the other engines: every rule that applies is to be named.
	any := func(programs []cel.Program) (found bool, err error) {
		for _, p := range programs {
			v, _, err := p.Eval(in)
			if err != nil {
				return false, err
			}
			b, ok := v.Value().(bool)
			if !ok {
				return false, errors.New("not a boolean")
			}
			found = found || b
		}
		return found, nil
	}
	return func() (bool, error) {
		forbidden, err := any(forbids)
		if err != nil || forbidden {
			return false, err
		}
		return any(permits)
	}, nil
}
