package policy

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/fairleadhq/fairlead"
)

// The bounds on a request.
const (
	maxGroups = 1000
	maxSet    = 10_000 // elements of any other list
)

var actions = [...]Action{ModelCall, ToolCall, HostedTool, Embedding, Admin}

// A world is the entities of one request: the principal and the resource with what they are in. Both hierarchies are one
// level deep and lead from a type to others, so that no cycle can be made in them. It is types.EntityGetter for Cedar, and
// makes the entities when they are asked for: most policies do not.
type world struct {
	req                               *Request
	action                            int
	principal, resource               types.EntityUID
	principalParents, resourceParents []types.EntityUID
	attributed                        bool // a policy looks at an attribute of an entity
	made                              [2]*types.Entity
}

// newWorld checks req against the schema and says who asks about what.
func newWorld(req *Request, declared map[string]string) (*world, error) {
	w := &world{req: req, action: slices.Index(actions[:], req.Action)}
	if w.action < 0 {
		return nil, fmt.Errorf("there is no action %.80q", req.Action)
	}
	if err := checkContext(req, declared); err != nil {
		return nil, err
	}
	w.setPrincipal()
	return w, w.setResource()
}

// trusted reports whether an assurance may widen permission.
func trusted(a fairlead.Assurance) bool { return a == fairlead.Verified || a == fairlead.Attested }

// setPrincipal chooses the most specific member of the chain that somebody vouches for. An application that nobody
// vouches for is App::"", whatever it calls itself: a mere claim must not match a permit.
func (w *world) setPrincipal() {
	p := &w.req.Principal
	app := uid("App", "")
	if trusted(p.App.Assurance) {
		app.ID = types.String(p.App.ID)
	}
	switch {
	case p.User.ID != "" && trusted(p.User.Assurance):
		w.principal = uid("User", p.User.ID)
		w.principalParents = make([]types.EntityUID, 0, 1+len(p.Groups))
		for _, g := range distinct(p.Groups) {
			w.principalParents = append(w.principalParents, uid("Group", g))
		}
		w.principalParents = append(w.principalParents, app)
	case p.Agent.ID != "" && trusted(p.Agent.Assurance):
		w.principal, w.principalParents = uid("Agent", p.Agent.ID), []types.EntityUID{app}
	case p.Service && app.ID != "":
		w.principal, w.principalParents = uid("Service", p.App.ID), []types.EntityUID{app}
	default:
		w.principal = app
	}
}

// distinct returns list without repeats; it is list itself if it has none.
func distinct(list []string) []string {
	if len(list) > 16 {
		return slices.Compact(slices.Sorted(slices.Values(list)))
	}
	for i := range list {
		if slices.Contains(list[:i], list[i]) {
			return slices.Compact(slices.Sorted(slices.Values(list)))
		}
	}
	return list
}

func (w *world) setResource() error {
	r := &w.req.Resource
	if r.Name == "" {
		return errors.New("the resource has no name")
	}
	switch w.req.Action {
	case ModelCall, Embedding:
		w.resource = uid("Model", r.Name)
		if r.Server != "" {
			w.resourceParents = []types.EntityUID{uid("Provider", r.Server)}
		}
	case ToolCall, HostedTool:
		w.resource = uid("Tool", r.Name)
		w.resourceParents = make([]types.EntityUID, 0, 5)
		for _, c := range r.Classes {
			if slices.Index(classes[:], c) < 0 {
				return fmt.Errorf("there is no tool class %.80q", c)
			}
			if e := uid("ToolClass", string(c)); !slices.Contains(w.resourceParents, e) {
				w.resourceParents = append(w.resourceParents, e)
			}
		}
		if e := uid("ToolClass", string(Egress)); (!r.Known || len(r.Classes) == 0) && !slices.Contains(w.resourceParents, e) {
			w.resourceParents = append(w.resourceParents, e)
		}
		if r.Server != "" {
			w.resourceParents = append(w.resourceParents, uid("Server", r.Server))
		}
	default:
		w.resource = uid("System", r.Name)
	}
	return nil
}

var classes = [...]Class{Read, Write, Egress, Irreversible}

func uid(t types.EntityType, id string) types.EntityUID {
	return types.EntityUID{Type: t, ID: types.String(id)}
}

// Get implements types.EntityGetter.
func (w *world) Get(id types.EntityUID) (types.Entity, bool) {
	switch id {
	case w.principal:
		if w.made[0] == nil {
			w.made[0] = &types.Entity{UID: id, Parents: types.NewEntityUIDSet(w.principalParents...)}
		}
		return *w.made[0], true
	case w.resource:
		if w.made[1] == nil {
			w.made[1] = &types.Entity{UID: id, Parents: types.NewEntityUIDSet(w.resourceParents...), Attributes: w.attributes()}
		}
		return *w.made[1], true
	}
	return types.Entity{}, false
}

func (w *world) attributes() types.Record {
	r := &w.req.Resource
	if !w.attributed {
		return types.Record{}
	}
	m := types.RecordMap{"name": types.String(r.Name)}
	if w.resource.Type == "Tool" {
		m["known"] = types.Boolean(r.Known)
	}
	return types.NewRecord(m)
}

// checkContext says what is wrong with the rest of a request. A name that is not one of the schema's would slip past every
// policy that tests for it.
func checkContext(req *Request, declared map[string]string) error {
	c := &req.Context
	tool := req.Action == ToolCall
	switch {
	case c.Profile != Balanced && c.Profile != Guaranteed && c.Profile != "":
		return fmt.Errorf("there is no profile %.80q", c.Profile)
	case c.Time.IsZero():
		return errors.New("the request has no time")
	case c.Label.Integrity > fairlead.Untrusted:
		return fmt.Errorf("there is no integrity %d", c.Label.Integrity)
	case c.Tier != "" && !slices.Contains(tiers[:], c.Tier):
		return fmt.Errorf("there is no budget tier %.80q", c.Tier)
	case c.Args.Authority == "" && tool:
		return errors.New("context.args.authority is not set: it is none, unknown or an integrity")
	case c.Args.Authority != "" && !slices.Contains(authorities[:], c.Args.Authority):
		return fmt.Errorf("context.args.authority is %.80q: it is none, unknown or an integrity", c.Args.Authority)
	case c.Declared < 0 || c.Unresolved < 0 || c.Steps < 0 || c.Approved < 0:
		return errors.New("a count is negative")
	case len(req.Principal.Groups) > maxGroups:
		return fmt.Errorf("the user is in %d groups: at most %d are looked at", len(req.Principal.Groups), maxGroups)
	}
	for _, list := range [...][]string{req.Principal.Chain, c.Label.Data, c.Forbidden, c.Args.Instructed, c.Args.Data, c.Args.Forbidden, c.Findings} {
		if len(list) > maxSet {
			return fmt.Errorf("a list of the request has %d elements: at most %d are looked at", len(list), maxSet)
		}
	}
	return checkValues(c.Args.Values, declared)
}

var (
	tiers       = [...]string{"green", "amber", "red", "spent"}
	authorities = [...]string{AuthorityNone, AuthorityUnknown, "operator", "user", "vetted", "untrusted"}
)

func checkValues(values map[string]any, declared map[string]string) error {
	for name, v := range values {
		is := ""
		switch v := v.(type) {
		case string:
			is = typeString
		case int64:
			is = typeLong
		case bool:
			is = typeBool
		case []string:
			if is = typeSet; len(v) > maxSet {
				return fmt.Errorf("the argument %.80q has %d elements: at most %d are looked at", name, len(v), maxSet)
			}
		}
		if want, ok := declared[name]; !ok {
			return fmt.Errorf("the argument %.80q is not declared", name)
		} else if is != want {
			return fmt.Errorf("the argument %.80q is declared as %s and is %T", name, want, v)
		}
	}
	return nil
}
