package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/google/go-cmp/cmp"
)

func TestReadFixtures(t *testing.T) {
	got, err := ReadFixtures([]byte(`
- name: all of it
  want: hold
  rules: [b, a]
  request:
    principal: {app: crm, user: {id: alice, assurance: declared}, agent: {id: bot}, groups: [g], service: true}
    action: tool.call
    resource: {name: pay, server: bank, classes: [write, egress], known: false}
    context:
      mode: observe
      profile: guaranteed
      provider: openai
      route: POST /x
      time: 2026-03-01T10:00:00Z
      chain: [a, b]
      label: {integrity: untrusted, instructional: true, data: [z, d], forbidden: [f]}
      conversation: {known: true, declared: 1, unresolved: 2, steps: 3}
      args: {authority: unknown, instructed_by: [to], data: [ad], forbidden: [af], new_tool: true}
      arg: {amount: 12, to: bob, now: true, cc: [eve]}
      findings: [secret]
      budget: {tier: red}
      approvals: 2
- name: none of it
  want: allow
  request: {action: model.call, resource: {name: m}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Fixture{
		{Name: "all of it", Want: fairlead.Hold, Rules: []string{"a", "b"}, Request: Request{
			Principal: Principal{App: Party{"crm", fairlead.Verified}, User: Party{"alice", fairlead.Declared}, Agent: Party{"bot", fairlead.Verified},
				Groups: []string{"g"}, Chain: []string{"a", "b"}, Service: true},
			Action: ToolCall, Resource: Resource{Name: "pay", Server: "bank", Classes: []Class{Write, Egress}},
			Context: Context{Profile: Guaranteed, Provider: "openai", Route: "POST /x", Time: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC),
				Label: fairlead.Label{Integrity: fairlead.Untrusted, Instructional: true, Data: []string{"d", "z"}}, Forbidden: []string{"f"},
				Conversation: Conversation{true, 1, 2, 3},
				Args: Args{Authority: "unknown", Instructed: []string{"to"}, Data: []string{"ad"}, Forbidden: []string{"af"}, New: true,
					Values: map[string]any{"amount": int64(12), "to": "bob", "now": true, "cc": []string{"eve"}}},
				Findings: []string{"secret"}, Tier: "red", Approved: 2},
		}},
		{Name: "none of it", Want: fairlead.Allow, Request: Request{
			Action: ModelCall, Resource: Resource{Name: "m", Known: true},
			Context: Context{Enforce: true, Profile: Balanced, Time: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC),
				Label: fairlead.Label{Integrity: fairlead.User}, Args: Args{Authority: AuthorityNone, Values: map[string]any{}}, Tier: "green"},
		}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got, err := ReadFixtures([]byte(`[{"name":"json","want":"deny","rules":[],"request":{"action":"admin","resource":{"name":"x"}}}]`)); err != nil || got[0].Rules == nil {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := ReadFixtures([]byte("# nothing\n")); err != nil || got != nil {
		t.Errorf("%+v %v", got, err)
	}
}

func TestReadFixturesRejects(t *testing.T) {
	const ok = "- {name: n, want: allow, request: {action: admin, resource: {name: x}%s}}\n"
	plain := strings.Replace(ok, "%s", "", 1)
	for text, want := range map[string]string{
		"a: b":                              "line 1: expected a list of fixtures",
		"- {want: allow}":                   "line 1: a fixture needs a name",
		"- {name: n, want: maybe}":          `want has to be allow, hold or deny, not "maybe"`,
		"- {name: n, want: allow}":          `there is no action ""`,
		"- {name: n, want: allow, wnat: x}": "wnat",
		strings.Replace(ok, "%s", ", context: {label: {integrty: x}}", 1):            "integrty",
		strings.Replace(ok, "%s", ", context: {label: {integrity: x}}", 1):           "context.label.integrity",
		strings.Replace(ok, "%s", ", context: {mode: x}", 1):                         "context.mode",
		strings.Replace(ok, "%s", ", context: {arg: {a: 1.5}}", 1):                   "context.arg.a",
		strings.Replace(ok, "%s", ", context: {arg: {a: [1]}}", 1):                   "a set holds texts",
		strings.Replace(ok, "%s", ", principal: {app: {id: x, assurance: sure}}", 1): `"sure" is not an assurance`,
		strings.Replace(ok, "%s", ", principal: {app: {name: x}}", 1):                "a party has id and assurance",
		plain + "\n" + plain:           "line 3: there is a fixture of this name on line 1 already",
		plain + "---\n" + plain:        "one document",
		"- &a {name: n}\n- *a":         "anchors and aliases are not supported",
		"- {name: \"":                  "not YAML",
		strings.Repeat("[", 100):       "not YAML",
		strings.Repeat("#\n", 600_000): "larger than 1 MiB",
	} {
		if got, err := ReadFixtures([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: got %+v, %v; expected an error with %q", text, got, err, want)
		}
	}
}

func TestResults(t *testing.T) {
	s := load(t, Options{}, allowAll+`@id("errs") forbid (principal, action, resource) when { context.approvals + 9223372036854775807 < 0 };`)
	req := *typical("x")
	req.Context.Args.Values = nil
	erring := req
	erring.Context.Approved = 1
	got := s.Test([]Fixture{{"right", req, fairlead.Allow, []string{"all"}}, {"any rule", req, fairlead.Allow, nil}, {"no rules", req, fairlead.Allow, []string{}},
		{"effect", req, fairlead.Hold, nil}, {"error", erring, fairlead.Deny, []string{"errs"}}})
	var ok []bool
	for _, r := range got {
		ok = append(ok, r.OK)
	}
	if d := cmp.Diff([]bool{true, true, false, false, true}, ok); d != "" {
		t.Error(d)
	}
	if got[4].Error == "" || got[0].Error != "" {
		t.Errorf("the errors are %q and %q", got[0].Error, got[4].Error)
	}
}

func FuzzReadFixtures(f *testing.F) {
	for _, src := range StarterFixtures() {
		f.Add(src.Text)
	}
	for _, s := range []string{"", "[]", "- &a [*a]", "- {name: n, want: allow, request: {action: admin, context: {time: x, arg: {a: [1]}}}}", "- !!binary x", "? a", "- {<<: {}}"} {
		f.Add([]byte(s))
	}
	s := starterSet(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		fixtures, err := ReadFixtures(text)
		if err != nil {
			return
		}
		for _, r := range s.Test(fixtures) {
			if r.Got == "" || len(r.Decided) == 0 {
				t.Errorf("no verdict: %+v", r)
			}
		}
	})
}
