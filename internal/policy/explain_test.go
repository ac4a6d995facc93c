package policy

import (
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
	"github.com/google/go-cmp/cmp"
)

// brief gives the ids of the answers of one kind.
func brief(answers []Answer, is Applies) string {
	var ids []string
	for _, a := range answers {
		if a.Applies == is {
			ids = append(ids, a.ID)
		}
	}
	return strings.Join(ids, " ")
}

func TestExplain(t *testing.T) {
	s := load(t, Options{}, `
@id("sales") permit (principal in Group::"sales", action == Action::"tool.call", resource == Tool::"send_mail");
@id("any") permit (principal, action == Action::"tool.call", resource is Tool);
@id("models") permit (principal, action == Action::"model.call", resource);
@id("egress") @effect("hold") forbid (principal, action == Action::"tool.call", resource in ToolClass::"egress")
when { context.profile == "guaranteed" && context.label.integrity == "untrusted" };
@id("odd") forbid (principal, action, resource) when { context.label == {integrity: "user", instructional: true, data: ["a"], forbidden: ["a"]} };
@id("errs") forbid (principal, action, resource) when { context.mode == "observe" && 9223372036854775807 + 1 > 0 };
`)
	mail := Resource{Name: "send_mail", Classes: []Class{Egress}, Known: true}
	alice := Principal{App: Party{"crm", fairlead.Verified}, User: Party{"alice", fairlead.Verified}, Groups: []string{"sales"}}
	tests := []struct {
		name                      string
		q                         Query
		always, never, ifs, error string
	}{
		{"anybody with a tool", Query{Action: ToolCall, Resource: mail}, "any", "models", "sales egress odd errs", ""},
		{"one person", Query{Action: ToolCall, Resource: mail, Principal: &alice}, "sales any", "models", "egress odd errs", ""},
		{"another tool", Query{Action: ToolCall, Resource: Resource{Name: "read", Classes: []Class{Read}, Known: true}}, "any", "sales models egress", "odd errs", ""},
		{"a class", Query{Action: ToolCall, Resource: Resource{Classes: []Class{Egress}}}, "any", "models", "sales egress odd errs", ""},
		{"a model", Query{Action: ModelCall, Resource: Resource{Name: "m"}}, "models", "sales any egress", "odd errs", ""},
		{"known to be trusted", Query{Action: ToolCall, Resource: mail, Given: map[string]string{"label.integrity": "user"}}, "any", "models", "sales egress odd errs", ""},
		{"known profile", Query{Action: ToolCall, Resource: mail, Given: map[string]string{"profile": "balanced", "mode": "enforce"}}, "any", "models egress errs", "sales odd", ""},
		{"all known", Query{Action: ToolCall, Resource: mail, Given: map[string]string{"profile": "guaranteed", "label.integrity": "untrusted"}}, "any egress", "models", "sales odd errs", ""},
		{"an error", Query{Action: ToolCall, Resource: mail, Given: map[string]string{"mode": "observe"}}, "any", "models", "sales egress odd", "errs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := s.Explain(tt.q)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{tt.always, tt.never, tt.ifs, tt.error}
			if d := cmp.Diff(want, []string{brief(got, Always), brief(got, Never), brief(got, Sometimes), brief(got, Errs)}); d != "" {
				t.Error(d)
			}
			for _, a := range got {
				if a.Applies != Sometimes {
					continue
				}
				// What is left is Cedar that can be loaded again.
				if _, err := Load([]Source{{"left", []byte(`@id("left") ` + a.Condition)}}, Options{}); err != nil {
					t.Errorf("%s leaves %s: %v", a.ID, a.Condition, err)
				}
			}
		})
	}
	for _, q := range []Query{
		{Action: "fly"}, {Action: ToolCall, Resource: Resource{Classes: []Class{"x"}}}, {Action: ToolCall, Given: map[string]string{"label.x": "y"}},
		{Action: ToolCall, Given: map[string]string{"approvals": "many"}}, {Action: ToolCall, Given: map[string]string{"approved": "1"}},
		{Action: ToolCall, Given: map[string]string{"time": "noon"}}, {Action: ToolCall, Given: map[string]string{"arg": "x"}},
	} {
		if a, err := s.Explain(q); err == nil {
			t.Errorf("%+v: %v, expected an error", q, a)
		}
	}
}

// TestExplainAgrees shows that an answer holds for the requests that fit the question.
func TestExplainAgrees(t *testing.T) {
	g := newGenerator(5)
	counted := map[Applies]int{}
	for range 15 {
		s := g.set(t, 12)
		for range 40 {
			req := g.request()
			q := Query{Action: req.Action, Resource: req.Resource}
			if g.IntN(2) == 0 {
				q.Principal = &req.Principal
			}
			if g.IntN(2) == 0 {
				q.Given = map[string]string{"label.integrity": req.Context.Label.Integrity.String(), "approved": "false", "approvals": "0"}
				req.Context.Approved = 0
			}
			if g.IntN(4) == 0 && req.Action == ToolCall {
				if q.Resource = (Resource{Classes: req.Resource.Classes}); !req.Resource.Known || len(q.Resource.Classes) == 0 {
					q.Resource.Classes = append(q.Resource.Classes[:len(q.Resource.Classes):len(q.Resource.Classes)], Egress)
				}
			}
			answers, err := s.Explain(q)
			if err != nil {
				t.Fatal(err)
			}
			w, err := newWorld(req, s.arguments)
			if err != nil {
				t.Fatal(err)
			}
			for i, a := range answers {
				counted[a.Applies]++
				o := (&Set{rules: s.rules[i : i+1], byID: s.byID}).unsliced(w)
				if a.Applies == Always && len(o.applies) == 0 || a.Applies == Errs && len(o.applies) > 0 || a.Applies == Never && len(o.applies) > 0 {
					t.Fatalf("%s applies %s, and %+v to %+v\n%s\n%+v", a.ID, a.Applies, o, req, s.rules[i].text, q)
				}
			}
		}
	}
	if counted[Always] < 50 || counted[Never] < 50 || counted[Sometimes] < 50 {
		t.Errorf("the generator shows little: %v", counted)
	}
}

func TestDiff(t *testing.T) {
	const same = `@id("same") permit (principal, action, resource);`
	a := load(t, Options{}, same+`
@id("gone") permit (principal, action, resource);
// Stricter later.
@id("scope") forbid (principal, action == Action::"tool.call", resource);
@id("effect") @effect("hold") forbid (principal, action, resource);
@id("approvers") @effect("hold") forbid (principal, action, resource);
@id("reason") @reason("a") forbid (principal, action, resource);
@id("layout") forbid (principal, action, resource) when { context.approved || true };
`)
	b := load(t, Options{}, `@id("layout")
forbid (principal,action,resource)
when { // a comment
  (context.approved) || true };
@id("reason") @reason("b") forbid (principal, action, resource);`, `@id("approvers") @effect("hold") @approvers("2") forbid (principal, action, resource);
@id("effect") forbid (principal, action, resource);
@id("scope") forbid (principal, action, resource);
@id("new") permit (principal, action, resource);`+same)
	want := []Change{
		{"approvers", Changed, a.byID["approvers"].text, b.byID["approvers"].text},
		{"effect", Changed, a.byID["effect"].text, b.byID["effect"].text},
		{"gone", Removed, a.byID["gone"].text, ""},
		{"new", Added, "", b.byID["new"].text},
		{"reason", Annotated, a.byID["reason"].text, b.byID["reason"].text},
		{"scope", Changed, "// Stricter later.\n@id(\"scope\") forbid (principal, action == Action::\"tool.call\", resource);", b.byID["scope"].text},
	}
	if d := cmp.Diff(want, Diff(a, b)); d != "" {
		t.Error(d)
	}
}
