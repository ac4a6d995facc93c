package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/google/go-cmp/cmp"
)

// A generator makes policies and requests from small sets of names, so that they meet.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 1))} }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) some(from ...string) []string {
	var out []string
	for range g.IntN(4) {
		out = append(out, pick(g, from...)) // with repeats
	}
	return out
}

var names = []string{"a", "b", "c", ""}

func (g generator) policy(i int) string {
	principal := pick(g, "principal", "principal", "principal is User", fmt.Sprintf("principal == %s::%q", pick(g, "User", "App", "Agent", "Service"), pick(g, names...)),
		fmt.Sprintf("principal in %s::%q", pick(g, "Group", "App"), pick(g, names...)), fmt.Sprintf("principal is %s in App::%q", pick(g, "User", "Agent"), pick(g, names...)),
		fmt.Sprintf("principal is User in Group::%q", pick(g, names...)))
	resource := pick(g, "resource", "resource", "resource is Tool", fmt.Sprintf("resource == Tool::%q", pick(g, names...)),
		fmt.Sprintf("resource in ToolClass::%q", pick(g, classes[:]...)), fmt.Sprintf("resource is Tool in Server::%q", pick(g, names...)))
	action := pick(g, `action == Action::"tool.call"`, `action in [Action::"tool.call", Action::"tool.hosted"]`, `action in Action::"tool.hosted"`)
	if g.IntN(4) == 0 { // models, or everything
		resource = pick(g, "resource", fmt.Sprintf("resource == Model::%q", pick(g, names...)), fmt.Sprintf("resource in Provider::%q", pick(g, names...)))
		action = pick(g, `action == Action::"model.call"`, `action in [Action::"model.call", Action::"embedding"]`)
		if resource == "resource" && g.IntN(2) == 0 {
			action = "action"
		}
	}
	effect := pick(g, "permit", "permit", "forbid", `@effect("hold") forbid`, `@effect("hold") @approvers("2") forbid`)
	var b strings.Builder
	fmt.Fprintf(&b, "@id(\"p%d\") %s (%s, %s, %s)", i, effect, principal, action, resource)
	for range g.IntN(3) {
		fmt.Fprintf(&b, "\n%s { %s }", pick(g, "when", "unless"), g.condition(2, strings.Contains(action, "tool")))
	}
	return b.String() + ";\n"
}

func (g generator) condition(depth int, tool bool) string {
	if depth > 0 && g.IntN(3) == 0 {
		return fmt.Sprintf("(%s %s %s)", g.condition(depth-1, tool), pick(g, "&&", "||"), g.condition(depth-1, tool))
	}
	all := []string{
		fmt.Sprintf("context.label.integrity == %q", pick(g, "user", "untrusted")), fmt.Sprintf("context.label.data.contains(%q)", pick(g, names...)),
		"context.label.forbidden.isEmpty()", `context.profile == "guaranteed"`, `context.mode == "enforce"`, "context.approved", "context.approvals > 1",
		fmt.Sprintf("context.app.id == %q", pick(g, names...)), `context.user.assurance == "verified"`, "context.args.instructed",
		fmt.Sprintf("context.args.instructed_by.containsAny([%q, \"x\"])", pick(g, names...)), "context.args.new_tool",
		fmt.Sprintf("context.chain.contains(%q)", pick(g, names...)), `context.time < datetime("2026-06-01")`, "context.conversation.steps > 2",
		"context.arg has n && context.arg.n > 3", fmt.Sprintf("context.arg has s && context.arg.s like \"%s*\"", pick(g, "a", "b")),
		`["amber", "red"].contains(context.budget.tier)`, fmt.Sprintf("principal in App::%q", pick(g, names...)), fmt.Sprintf("principal in Group::%q", pick(g, names...)),
		fmt.Sprintf("resource.name == %q", pick(g, names...)),
		`context.label == {integrity: "user", instructional: false, data: ["a"], forbidden: ["b"]}`, "context.findings == context.chain",
		// These err for some requests.
		"context.conversation.steps * 4611686018427387904 > 5", "context.arg has n && context.arg.n + 9223372036854775800 > 0",
	}
	if tool {
		all = append(all, "resource.known", fmt.Sprintf("resource in ToolClass::%q", pick(g, classes[:]...)), fmt.Sprintf("resource in Server::%q", pick(g, names...)),
			`resource in [ToolClass::"write", ToolClass::"egress"]`)
	}
	return pick(g, all...)
}

func (g generator) party() Party {
	return Party{pick(g, names...), pick(g, fairlead.Verified, fairlead.Verified, fairlead.Attested, fairlead.Declared, fairlead.Absent)}
}

func (g generator) request() *Request {
	r := &Request{
		Principal: Principal{App: g.party(), User: g.party(), Agent: g.party(), Groups: g.some(names...), Chain: g.some(names...), Service: g.IntN(2) == 0},
		Action:    pick(g, ToolCall, ToolCall, ToolCall, HostedTool, ModelCall, Embedding, Admin),
		Resource:  Resource{Name: pick(g, "a", "b", "c"), Server: pick(g, names...), Known: g.IntN(2) == 0},
		Context: Context{
			Enforce: g.IntN(2) == 0, Profile: pick(g, Balanced, Guaranteed, ""), Provider: pick(g, "0.5", "2.0", "0.25", "a"), Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, g.IntN(12), 0),
			Label:     fairlead.Label{Integrity: fairlead.Integrity(g.IntN(4)), Instructional: g.IntN(2) == 0, Data: g.some("a", "b")},
			Forbidden: g.some("a", "b"), Conversation: Conversation{Steps: g.IntN(5)},
			Args: Args{Authority: pick(g, AuthorityNone, AuthorityUnknown, "user", "untrusted"), Instructed: g.some(names...), New: g.IntN(2) == 0,
				Values: map[string]any{}},
			Findings: g.some(names...), Tier: pick(g, "", "green", "amber", "red", "spent"), Approved: max(0, g.IntN(5)-2),
		},
	}
	for range g.IntN(3) {
		r.Resource.Classes = append(r.Resource.Classes, pick(g, classes[:]...))
	}
	if g.IntN(2) == 0 {
		r.Context.Args.Values["n"] = pick(g, int64(1), 5, 100)
	}
	if g.IntN(2) == 0 {
		r.Context.Args.Values["s"] = pick(g, "abc", "bcd")
	}
	if g.IntN(2) == 0 { // one who is in a group of her own name, twice
		r.Principal.Groups = append(r.Principal.Groups, r.Principal.User.ID, r.Principal.User.ID)
	}
	return r
}

func (g generator) set(t *testing.T, n int) *Set {
	var b strings.Builder
	for i := range n {
		b.WriteString(g.policy(i))
	}
	return load(t, Options{Arguments: map[string]string{"n": "long", "s": "string"}}, b.String())
}

// A decider decides a request by a set: Decide, or one that is planted to see whether the test notices.
type decider func(*Set, *Request) fairlead.Verdict

// violation compares a decider with what Cedar says about every policy, one at a time, and returns the first difference. seen
// counts the effects.
func violation(t *testing.T, decide decider, seed uint64, sets int) (found string, seen map[fairlead.Effect]int) {
	g := newGenerator(seed)
	seen = map[fairlead.Effect]int{}
	for range sets {
		s := g.set(t, 1+g.IntN(25))
		for range 60 {
			req := g.request()
			v := decide(s, req)
			seen[v.Effect]++
			if wrong := check(s, req, v); len(wrong) > 0 {
				return wrong[0], seen
			}
			if d := cmp.Diff(s.decideUnsliced(req), v); d != "" {
				return "sliced and unsliced differ: " + d, seen
			}
			if slices.ContainsFunc(v.Rules, func(r fairlead.Rule) bool { return r.Error != "" }) {
				seen["error"]++
			}
		}
	}
	return "", seen
}

// check holds a verdict to what each policy says when it is asked alone.
func check(s *Set, req *Request, v fairlead.Verdict) []string {
	w, err := newWorld(req, s.arguments)
	if err != nil {
		return []string{fmt.Sprintf("the request is not valid: %v", err)}
	}
	var out []string
	var errs, permits, denies bool
	needed := 0
	for _, r := range s.rules {
		alone := &Set{rules: []*rule{r}, byID: s.byID}
		o := alone.unsliced(w)
		errs = errs || len(o.errs) > 0
		if len(o.applies) == 0 && len(o.errs) == 0 {
			continue
		}
		forbids := r.info.Effect != fairlead.Allow
		if len(o.applies) > 0 {
			permits = permits || !forbids
			denies = denies || r.info.Effect == fairlead.Deny
			if r.info.Effect == fairlead.Hold {
				needed = max(needed, r.approvers)
			}
		}
		if (forbids || len(o.errs) > 0 || v.Effect == fairlead.Allow) && !slices.Contains(v.IDs(), r.info.ID) {
			out = append(out, fmt.Sprintf("%s decided %s and is not named", r.info.ID, v.Effect))
		}
	}
	want := fairlead.Allow
	switch {
	case errs || denies || !permits:
		want = fairlead.Deny
	case needed > req.Context.Approved:
		want = fairlead.Hold
	}
	if v.Effect != want {
		out = append(out, fmt.Sprintf("the verdict is %s and should be %s (errors %v, permits %v, denies %v)", v.Effect, want, errs, permits, denies))
	}
	if want == fairlead.Hold && v.Approvers != needed {
		out = append(out, fmt.Sprintf("%d approvers, %d needed", v.Approvers, needed))
	}
	return out
}

func TestDecideProperties(t *testing.T) {
	found, seen := violation(t, (*Set).Decide, 7, 25)
	if found != "" {
		t.Error(found)
	}
	for _, e := range []fairlead.Effect{fairlead.Allow, fairlead.Hold, fairlead.Deny, "error"} {
		if seen[e] < 50 {
			t.Errorf("only %d verdicts are %s: the generator shows little", seen[e], e)
		}
	}
}

// TestPlantedViolations has deciders that are wrong found by the same test.
func TestPlantedViolations(t *testing.T) {
	for name, decide := range map[string]decider{
		"errors are ignored": func(s *Set, r *Request) fairlead.Verdict {
			v := s.Decide(r)
			if v.Rules = slices.DeleteFunc(v.Rules, func(r fairlead.Rule) bool { return r.Error != "" }); len(v.Rules) == 0 {
				v.Effect = fairlead.Allow
			}
			return v
		},
		"unscoped policies are forgotten": func(s *Set, r *Request) fairlead.Verdict {
			cut := *s
			cut.index.any = byAction{}
			return cut.Decide(r)
		},
		"groups are forgotten": func(s *Set, r *Request) fairlead.Verdict {
			q := *r
			q.Principal.Groups = nil
			return s.Decide(&q)
		},
		"classes are forgotten": func(s *Set, r *Request) fairlead.Verdict {
			cut := *s
			cut.index.byEntity = map[scope]*byAction{}
			for k, v := range s.index.byEntity {
				if k.entity.Type != "ToolClass" {
					cut.index.byEntity[k] = v
				}
			}
			return cut.Decide(r)
		},
		"one approval is enough": func(s *Set, r *Request) fairlead.Verdict {
			q := *r
			if q.Context.Approved > 0 {
				q.Context.Approved = maxApprovers
			}
			return s.Decide(&q)
		},
		"approval releases a deny": func(s *Set, r *Request) fairlead.Verdict {
			v := s.Decide(r)
			if r.Context.Approved > 0 {
				v.Effect = fairlead.Allow
			}
			return v
		},
		"what nobody permits is allowed": func(s *Set, r *Request) fairlead.Verdict {
			v := s.Decide(r)
			if len(v.Rules) == 1 && v.Rules[0].ID == defaultDeny {
				v.Effect = fairlead.Allow
			}
			return v
		},
	} {
		t.Run(name, func(t *testing.T) {
			if found, _ := violation(t, decide, 11, 25); found == "" {
				t.Error("nothing was noticed")
			}
		})
	}
}
