package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
	"github.com/fairleadhq/fairlead"
)

// A Query is a request of which only a part is known.
type Query struct {
	Action Action
	// Resource with a Name is that model, tool or part of Fairlead, with what else is said of it. Without one it is any
	// resource that is in Classes.
	Resource Resource
	// Principal is nil for anybody.
	Principal *Principal
	// Given are attributes of the context that are known, by their dotted names: "label.integrity": "untrusted". Booleans
	// are true or false, numbers decimal, sets lists with commas.
	Given map[string]string
}

// An Answer says when a policy applies to what a [Query] leaves open.
type Answer struct {
	fairlead.Rule
	Applies   Applies `json:"applies"`
	Condition string  `json:"condition,omitempty"` // the policy as far as it is left, in Cedar, when Applies is Sometimes
}

// Applies says whether a policy applies to what is left open.
type Applies string

// The answers. Errs means that the policy errs where it gets that far, which denies. Of a policy that never applies it is not
// said whether it can err.
const (
	Always    Applies = "always"
	Never     Applies = "never"
	Sometimes Applies = "if"
	Errs      Applies = "error"
)

// Explain says for each policy, in order, whether it applies to the requests that q describes. A condition that is left
// may hold for none of them: nothing is proved about it.
func (s *Set) Explain(q Query) (answers []Answer, err error) {
	defer func() {
		if r := recover(); r != nil {
			answers, err = nil, fmt.Errorf("evaluating the policies in part: %v", r)
		}
	}()
	env, w, err := s.partialEnv(q)
	if err != nil {
		return nil, err
	}
	for _, r := range s.rules {
		a := Answer{Rule: r.info, Applies: Never}
		tree := *r.tree
		if q.Resource.Name == "" {
			if n, ok := tree.Resource.(ast.ScopeTypeIn); ok && slices.Contains(w.resourceParents, n.Entity) {
				tree.Resource = ast.ScopeTypeAll{}
			}
			if fitsType(tree.Resource, w.resource.Type) {
				tree.Resource = ast.ScopeTypeAll{}
			}
		}
		if usesWhole(&tree) { // Cedar would compare the variables themselves
			a.Applies, a.Condition = Sometimes, plain(&tree)
		} else if left, keep := eval.PartialPolicy(env, &tree); keep {
			a.Applies, a.Condition = judge(left, &tree)
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// fitsType reports whether a scope admits every entity of a type.
func fitsType(n ast.IsScopeNode, t types.EntityType) bool {
	is, ok := n.(ast.ScopeTypeIs)
	return ok && is.Type == t
}

// partialEnv is the environment of q, with variables in place of what is open. Of w, only the resource is to be used.
func (s *Set) partialEnv(q Query) (eval.Env, *world, error) {
	req := Request{Action: q.Action, Resource: q.Resource}
	if q.Principal != nil {
		req.Principal = *q.Principal
	}
	w := &world{req: &req, action: slices.Index(actions[:], q.Action), attributed: true}
	if w.action < 0 {
		return eval.Env{}, nil, fmt.Errorf("there is no action %q: there are %s", q.Action, joined(actions[:]))
	}
	open := q.Resource.Name == ""
	if open {
		req.Resource.Name, req.Resource.Known = "any", len(q.Resource.Classes) > 0
	}
	w.setPrincipal()
	if err := w.setResource(); err != nil {
		return eval.Env{}, nil, err
	}
	context, err := partialContext(q.Given)
	if err != nil {
		return eval.Env{}, nil, err
	}
	env := eval.Env{Entities: w, Principal: w.principal, Action: actionIDs[w.action], Resource: w.resource, Context: context}
	if q.Principal == nil {
		env.Principal = eval.Variable("principal")
	}
	if open {
		env.Resource = eval.Variable("resource")
	}
	return env, w, nil
}

func joined[S ~string](names []S) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return strings.Join(out, ", ")
}

// partialContext makes a context whose leaves are variables, except for those given.
func partialContext(given map[string]string) (types.Record, error) {
	top, groups := types.RecordMap{}, map[types.String]types.RecordMap{}
	left := maps.Clone(given)
	for _, l := range leaves {
		in, path := top, string(l.name)
		if l.group != "" {
			path = string(l.group) + "." + path
			if groups[l.group] == nil {
				groups[l.group] = types.RecordMap{}
			}
			in = groups[l.group]
		}
		in[l.name] = eval.Variable("context")
		if text, ok := left[path]; ok {
			v, err := parseLeaf(l.kind, text)
			if err != nil {
				return types.Record{}, fmt.Errorf("context.%s: %w", path, err)
			}
			in[l.name] = v
			delete(left, path)
		}
	}
	if len(left) > 0 {
		return types.Record{}, fmt.Errorf("the context has no attribute %q", slices.Min(slices.Collect(maps.Keys(left))))
	}
	for name, m := range groups {
		top[name] = types.NewRecord(m)
	}
	return types.NewRecord(top), nil
}

func parseLeaf(k kind, text string) (types.Value, error) {
	switch k {
	case kindString:
		return types.String(text), nil
	case kindBool:
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%q is neither true nor false", text)
		}
		return types.Boolean(text == "true"), nil
	case kindLong:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", text)
		}
		return types.Long(n), nil
	case kindSet:
		if text == "" {
			return types.Set{}, nil
		}
		return set(strings.Split(text, ",")), nil
	case kindTime:
		t, err := types.ParseDatetime(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a time such as 2026-12-24T08:00:00Z", text)
		}
		return t, nil
	}
	return nil, fmt.Errorf("cannot be given")
}

// judge says when what partial evaluation left of a policy applies.
func judge(left, whole *ast.Policy) (Applies, string) {
	all := ast.ScopeTypeAll{}
	if left.Principal == all && left.Action == all && left.Resource == all && len(left.Conditions) == 0 {
		return Always, ""
	}
	for _, c := range left.Conditions {
		if err, ok := eval.ToPartialError(c.Body); ok {
			return Errs, err.Error()
		}
		failed := false // within what is open; Cedar has no text for that
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			_, is := eval.ToPartialError(n)
			failed = failed || is
			return !failed
		})
		if failed {
			return Sometimes, plain(whole)
		}
	}
	return Sometimes, plain(left)
}
