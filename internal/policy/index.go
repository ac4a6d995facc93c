package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// An index finds the policies that could apply to a request by the entities in their scopes. A policy that names an entity
// as its principal or resource, or as what they have to be in, stands under that entity; one that names two stands under
// the one that fewer policies name; one that names none stands under none. Within each, policies are kept by action.
//
// Sound because a policy whose scope names an entity can only apply to a request whose principal or resource is that
// entity or is in it, and all of these are looked up.
type index struct {
	any      byAction
	byEntity map[scope]*byAction
}

type byAction [len(actions)][]*rule

// A scope is an entity and the variable that it constrains.
type scope struct {
	resource bool
	entity   types.EntityUID
}

func newIndex(rules []*rule) index {
	count := map[scope]int{}
	for _, r := range rules {
		for _, s := range scopesOf(r.tree) {
			count[s]++
		}
	}
	x := index{byEntity: map[scope]*byAction{}}
	for _, r := range rules {
		under := &x.any
		if scopes := scopesOf(r.tree); len(scopes) > 0 {
			s := slices.MinFunc(scopes, func(a, b scope) int { return count[a] - count[b] })
			if under = x.byEntity[s]; under == nil {
				under = &byAction{}
				x.byEntity[s] = under
			}
		}
		for i := range actions {
			if fitsAction(r.tree.Action, actionIDs[i]) {
				under[i] = append(under[i], r)
			}
		}
	}
	return x
}

// scopesOf lists the entities that a policy's scope names for principal and resource.
func scopesOf(p *ast.Policy) []scope {
	var out []scope
	for i, n := range [...]ast.IsScopeNode{p.Principal, p.Resource} {
		switch n := n.(type) {
		case ast.ScopeTypeEq:
			out = append(out, scope{i == 1, n.Entity})
		case ast.ScopeTypeIn:
			out = append(out, scope{i == 1, n.Entity})
		case ast.ScopeTypeIsIn:
			out = append(out, scope{i == 1, n.Entity})
		}
	}
	return out
}

// find calls f for each policy whose scope fits w.
func (x *index) find(w *world, f func(*rule)) {
	visit := func(rules []*rule) {
		for _, r := range rules {
			if fits(r.tree.Principal, w.principal, w.principalParents) && fits(r.tree.Resource, w.resource, w.resourceParents) {
				f(r)
			}
		}
	}
	visit(x.any[w.action])
	look := func(s scope) {
		if under := x.byEntity[s]; under != nil {
			visit(under[w.action])
		}
	}
	look(scope{false, w.principal})
	for _, p := range w.principalParents {
		look(scope{false, p})
	}
	look(scope{true, w.resource})
	for _, p := range w.resourceParents {
		look(scope{true, p})
	}
}

// fits reports whether the scope of a policy admits the entity self, which is in parents.
func fits(n ast.IsScopeNode, self types.EntityUID, parents []types.EntityUID) bool {
	switch n := n.(type) {
	case ast.ScopeTypeEq:
		return self == n.Entity
	case ast.ScopeTypeIn:
		return self == n.Entity || slices.Contains(parents, n.Entity)
	case ast.ScopeTypeIs:
		return self.Type == n.Type
	case ast.ScopeTypeIsIn:
		return self.Type == n.Type && (self == n.Entity || slices.Contains(parents, n.Entity))
	}
	return true
}

// fitsAction is fits for actions, none of which is in another.
func fitsAction(n ast.IsActionScopeNode, self types.EntityUID) bool {
	if set, ok := n.(ast.ScopeTypeInSet); ok {
		return slices.Contains(set.Entities, self)
	}
	return fits(n, self, nil)
}

var actionIDs = func() (ids [len(actions)]types.EntityUID) {
	for i, a := range actions {
		ids[i] = uid("Action", string(a))
	}
	return ids
}()
