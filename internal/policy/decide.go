package policy

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/fairleadhq/fairlead"
)

// Decide says what may be done with req, and by which rules.
//
// Deny: a policy errs, req is not valid ("invalid-request"), a forbid applies, or no permit does ("default-deny"). Hold:
// otherwise, when a forbid with @effect("hold") applies and fewer people endorsed req than it asks for; Approvers is the
// most that any of them asks for. Allow: otherwise. Every forbid that applies is named, also one that an endorsement
// released; permits are named on allow only.
func (s *Set) Decide(req *Request) fairlead.Verdict { return s.decide(req, s.sliced) }

// decideUnsliced decides like Decide by having Cedar look at every policy, its scope included, and at the whole request.
func (s *Set) decideUnsliced(req *Request) fairlead.Verdict { return s.decide(req, s.unsliced) }

// An outcome is which policies apply to a request and which err.
type outcome struct {
	applies []*rule
	errs    []cedar.DiagnosticError
}

func (s *Set) decide(req *Request, evaluate func(*world) outcome) (v fairlead.Verdict) {
	// Evaluation is not ours and meets the values of hostile requests.
	defer func() {
		if r := recover(); r != nil {
			v = invalid(fmt.Errorf("evaluating it: %v", r))
		}
	}()
	w, err := newWorld(req, s.arguments)
	if err != nil {
		return invalid(err)
	}
	return s.verdict(evaluate(w), req.Context.Approved)
}

// sliced looks at the policies whose scope fits.
func (s *Set) sliced(w *world) outcome {
	var o outcome
	var flat, whole []*rule // whose conditions are to be evaluated
	var want, wholeWant uses
	s.index.find(w, func(r *rule) {
		switch {
		case r.body == nil:
			o.applies = append(o.applies, r)
		case r.whole:
			whole, wholeWant = append(whole, r), wholeWant|r.uses
		default:
			flat, want = append(flat, r), want|r.uses
		}
	})
	// The bodies are permits without a scope, so that the reasons are all of those that apply.
	if len(flat) > 0 {
		w.attributed = want&usesAttribute != 0
		_, d := cedar.Authorize(iterator{flat, true}, w, w.query(flatContext(w.req, want)))
		s.collect(&o, d)
	}
	if len(whole) > 0 {
		w.attributed, w.made = true, [2]*types.Entity{}
		_, d := cedar.Authorize(iterator{whole, true}, w, w.query(newContext(w.req, wholeWant)))
		s.collect(&o, d)
	}
	return o
}

func (s *Set) unsliced(w *world) outcome {
	var o outcome
	w.attributed, w.made = true, [2]*types.Entity{}
	for _, permit := range []bool{true, false} { // or Cedar would not name the permits that a forbid overrules
		var some []*rule
		for _, r := range s.rules {
			if (r.info.Effect == fairlead.Allow) == permit {
				some = append(some, r)
			}
		}
		_, d := cedar.Authorize(iterator{some, false}, w, w.query(newContext(w.req, allUses)))
		s.collect(&o, d)
	}
	return o
}

func (s *Set) collect(o *outcome, d cedar.Diagnostic) {
	for _, r := range d.Reasons {
		o.applies = append(o.applies, s.byID[r.PolicyID])
	}
	o.errs = append(o.errs, d.Errors...)
}

func (w *world) query(context types.Record) cedar.Request {
	return cedar.Request{Principal: w.principal, Action: actionIDs[w.action], Resource: w.resource, Context: context}
}

func invalid(err error) fairlead.Verdict {
	return fairlead.Verdict{Effect: fairlead.Deny, Rules: []fairlead.Rule{{
		ID: invalidRequest, Effect: fairlead.Deny, Reason: "What policy was asked is not a valid request.",
		Remedy: "Report it: the fault is in Fairlead or in its configuration.", Error: err.Error(),
	}}}
}

// verdict says what follows from the policies that apply.
func (s *Set) verdict(o outcome, approved int) fairlead.Verdict {
	v := fairlead.Verdict{Effect: fairlead.Allow}
	permitted := false
	for _, e := range o.errs {
		r := s.byID[e.PolicyID].info
		permitted = permitted || r.Effect == fairlead.Allow // or it would be said that no policy permits
		r.Effect, r.Error = fairlead.Deny, e.Message
		v.Rules, v.Effect = append(v.Rules, r), fairlead.Deny
	}
	for _, r := range o.applies {
		switch r.info.Effect {
		case fairlead.Allow:
			permitted = true
			continue
		case fairlead.Hold:
			if approved < r.approvers {
				v.Effect, v.Approvers = v.Effect.Stricter(fairlead.Hold), max(v.Approvers, r.approvers)
			}
		default:
			v.Effect = fairlead.Deny
		}
		v.Rules = append(v.Rules, r.info)
	}
	if !permitted {
		v.Effect = fairlead.Deny
		v.Rules = append(v.Rules, fairlead.Rule{
			ID: defaultDeny, Effect: fairlead.Deny, Reason: "No policy permits this.",
			Remedy: "Ask the operator for a policy that permits it.",
		})
	}
	if v.Effect == fairlead.Allow {
		for _, r := range o.applies {
			if r.info.Effect == fairlead.Allow {
				v.Rules = append(v.Rules, r.info)
			}
		}
	}
	if v.Effect != fairlead.Hold {
		v.Approvers = 0
	}
	slices.SortFunc(v.Rules, func(a, b fairlead.Rule) int { return strings.Compare(a.ID, b.ID) })
	return v
}

// bodyOf returns a permit that applies where the conditions of p are met, whatever its scope, or nil if it has none. The
// conditions are flattened, unless they use a record of the context as a whole.
func bodyOf(p *ast.Policy) (body *cedar.Policy, whole bool) {
	if len(p.Conditions) == 0 {
		return nil, false
	}
	tree := ast.Permit()
	tree.Position = p.Position
	for _, c := range p.Conditions {
		flat, ok := flatten(c.Body)
		tree.Conditions = append(tree.Conditions, ast.ConditionType{Condition: c.Condition, Body: flat})
		whole = whole || !ok
	}
	if whole {
		tree.Conditions = p.Conditions
	}
	return newPolicy(tree), whole
}

// An iterator is cedar.PolicyIterator over rules: over their bodies, or over them as they were written.
type iterator struct {
	rules  []*rule
	bodies bool
}

// All implements cedar.PolicyIterator.
func (it iterator) All() iter.Seq2[types.PolicyID, *cedar.Policy] {
	return func(yield func(types.PolicyID, *cedar.Policy) bool) {
		for _, r := range it.rules {
			p := r.policy
			if it.bodies {
				p = r.body
			}
			if !yield(r.id(), p) {
				return
			}
		}
	}
}
