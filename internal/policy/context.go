package policy

import (
	"math/bits"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/fairleadhq/fairlead"
)

// uses is the set of context attributes that policies look at, a bit for each leaf. What none of the policies in question
// looks at is not made: making the whole context costs more than most decisions.
type uses uint64

const (
	allUses       = ^uses(0)
	usesAttribute = uses(1) << 63 // of an entity
)

// A kind is the type of a leaf.
type kind uint8

const (
	kindString kind = iota
	kindBool
	kindLong
	kindSet
	kindTime
	kindArguments
)

// A leaf is an attribute of the context that is not itself a record. group is "" at the top level.
type leaf struct {
	group, name types.String
	kind        kind
	value       func(*Request) types.Value
}

func party(group types.String, of func(*Request) *Party) []leaf {
	return []leaf{
		{group, "id", kindString, func(r *Request) types.Value { return types.String(of(r).ID) }},
		{group, "assurance", kindString, func(r *Request) types.Value { return assurance(of(r).Assurance) }},
	}
}

// leaves is the context as schema.cedarschema has it; those of one group stand together.
var leaves = slices.Concat(
	party("app", func(r *Request) *Party { return &r.Principal.App }),
	party("user", func(r *Request) *Party { return &r.Principal.User }),
	party("agent", func(r *Request) *Party { return &r.Principal.Agent }),
	[]leaf{
		{"", "chain", kindSet, func(r *Request) types.Value { return set(r.Principal.Chain) }},
		{"", "mode", kindString, func(r *Request) types.Value { return mode(r.Context.Enforce) }},
		{"", "profile", kindString, func(r *Request) types.Value { return profile(r.Context.Profile) }},
		{"", "provider", kindString, func(r *Request) types.Value { return types.String(r.Context.Provider) }},
		{"", "route", kindString, func(r *Request) types.Value { return types.String(r.Context.Route) }},
		{"", "time", kindTime, func(r *Request) types.Value { return types.NewDatetime(r.Context.Time) }},
		{"label", "integrity", kindString, func(r *Request) types.Value { return integrity[min(r.Context.Label.Integrity, fairlead.Untrusted)] }},
		{"label", "instructional", kindBool, func(r *Request) types.Value { return types.Boolean(r.Context.Label.Instructional) }},
		{"label", "data", kindSet, func(r *Request) types.Value { return set(r.Context.Label.Data) }},
		{"label", "forbidden", kindSet, func(r *Request) types.Value { return set(r.Context.Forbidden) }},
		{"conversation", "known", kindBool, func(r *Request) types.Value { return types.Boolean(r.Context.Known) }},
		{"conversation", "declared", kindLong, func(r *Request) types.Value { return types.Long(r.Context.Declared) }},
		{"conversation", "unresolved", kindLong, func(r *Request) types.Value { return types.Long(r.Context.Unresolved) }},
		{"conversation", "steps", kindLong, func(r *Request) types.Value { return types.Long(r.Context.Steps) }},
		{"args", "authority", kindString, func(r *Request) types.Value { return authority(r.Context.Args.Authority) }},
		{"args", "instructed", kindBool, func(r *Request) types.Value { return types.Boolean(len(r.Context.Args.Instructed) > 0) }},
		{"args", "instructed_by", kindSet, func(r *Request) types.Value { return set(r.Context.Args.Instructed) }},
		{"args", "data", kindSet, func(r *Request) types.Value { return set(r.Context.Args.Data) }},
		{"args", "forbidden", kindSet, func(r *Request) types.Value { return set(r.Context.Args.Forbidden) }},
		{"args", "new_tool", kindBool, func(r *Request) types.Value { return types.Boolean(r.Context.Args.New) }},
		{"", "arg", kindArguments, func(r *Request) types.Value { return arguments(r.Context.Args.Values) }},
		{"", "findings", kindSet, func(r *Request) types.Value { return set(r.Context.Findings) }},
		{"budget", "tier", kindString, func(r *Request) types.Value { return tier(r.Context.Tier) }},
		{"", "approvals", kindLong, func(r *Request) types.Value { return types.Long(r.Context.Approved) }},
		{"", "approved", kindBool, func(r *Request) types.Value { return types.Boolean(r.Context.Approved > 0) }},
	},
)

// flatContext makes the part of the context that want names, as flattened conditions see it.
func flatContext(r *Request, want uses) types.Record {
	if want&^usesAttribute == 0 {
		return types.Record{}
	}
	m := make(types.RecordMap, bits.OnesCount64(uint64(want)))
	for i := range leaves {
		if want&(1<<i) != 0 {
			m[flatNames[i]] = leaves[i].value(r)
		}
	}
	return types.NewRecord(m)
}

var flatNames = func() []types.String {
	out := make([]types.String, len(leaves))
	for i, l := range leaves {
		if out[i] = l.name; l.group != "" {
			out[i] = l.group + "." + l.name
		}
	}
	return out
}()

// newContext makes the part of the context that want names, as the schema has it.
func newContext(r *Request, want uses) types.Record {
	if want&^usesAttribute == 0 {
		return types.Record{}
	}
	m := make(types.RecordMap)
	for i := 0; i < len(leaves); {
		if g := leaves[i].group; g != "" {
			var sub types.RecordMap
			for ; i < len(leaves) && leaves[i].group == g; i++ {
				if want&(1<<i) == 0 {
					continue
				}
				if sub == nil {
					sub = make(types.RecordMap)
				}
				sub[leaves[i].name] = leaves[i].value(r)
			}
			if sub != nil {
				m[g] = types.NewRecord(sub)
			}
			continue
		}
		if want&(1<<i) != 0 {
			m[leaves[i].name] = leaves[i].value(r)
		}
		i++
	}
	return types.NewRecord(m)
}

// usesOf finds the attributes of the context that a policy names. A use of a record as a whole is one of all that is in it.
func usesOf(p *ast.Policy) uses {
	var u uses
	for _, c := range p.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if v, ok := n.(ast.NodeTypeVariable); ok && v.Name == "context" {
				u = allUses
				return false
			}
			if path, ok := contextPath(n); ok {
				u |= usesAt(path)
				return false
			}
			switch n.(type) {
			case ast.NodeTypeAccess, ast.NodeTypeHas:
				u |= usesAttribute
			}
			return true
		})
	}
	return u
}

// usesWhole reports whether a policy uses context, or a record in it, as one value.
func usesWhole(p *ast.Policy) bool {
	whole := false
	for _, c := range p.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if v, ok := n.(ast.NodeTypeVariable); ok && v.Name == "context" {
				whole = true
			}
			path, ok := contextPath(n)
			if ok && len(path) == 1 {
				_, has := n.(ast.NodeTypeHas)
				whole = whole || !has && slices.ContainsFunc(leaves, func(l leaf) bool { return l.group == path[0] })
			}
			return !ok
		})
	}
	return whole
}

// contextPath gives the names on the way from context to what n reads or asks for.
func contextPath(n ast.IsNode) ([]types.String, bool) {
	var names []types.String
	for {
		switch v := n.(type) {
		case ast.NodeTypeAccess:
			n, names = v.Arg, append(names, v.Value)
		case ast.NodeTypeHas:
			n, names = v.Arg, append(names, v.Value)
		case ast.NodeTypeVariable:
			slices.Reverse(names)
			return names, v.Name == "context" && len(names) > 0
		default:
			return nil, false
		}
	}
}

func usesAt(path []types.String) uses {
	var u uses
	for i, l := range leaves {
		switch {
		case l.group == "" && l.name == path[0],
			l.group == path[0] && (len(path) == 1 || l.name == path[1]):
			u |= 1 << i
		}
	}
	return u
}

// The values that occur in every request are made once.
var (
	enforce, observe types.Value = types.String("enforce"), types.String("observe")
	integrity                    = [...]types.Value{types.String("operator"), types.String("user"), types.String("vetted"), types.String("untrusted")}
	constants                    = map[string]types.Value{}
)

func init() {
	for _, s := range []string{
		string(Balanced), string(Guaranteed), "green", "amber", "red", "spent", AuthorityNone, AuthorityUnknown, "operator", "user", "vetted",
		"untrusted", string(fairlead.Verified), string(fairlead.Attested), string(fairlead.Derived), string(fairlead.Declared),
		string(fairlead.Ambiguous), string(fairlead.Absent),
	} {
		constants[s] = types.String(s)
	}
}

// constant gives the value of a name from a short list, or of def when there is none.
func constant(s, def string) types.Value {
	if s == "" {
		s = def
	}
	if v, ok := constants[s]; ok {
		return v
	}
	return types.String(s)
}

func mode(enforced bool) types.Value {
	if enforced {
		return enforce
	}
	return observe
}

// A profile that nobody chose is the stricter one.
func profile(p Profile) types.Value { return constant(string(p), string(Guaranteed)) }

func tier(s string) types.Value { return constant(s, "green") }

func authority(s string) types.Value { return constant(s, AuthorityNone) }

func assurance(a fairlead.Assurance) types.Value {
	return constant(string(a), string(fairlead.Absent))
}

func set(names []string) types.Value {
	if len(names) == 0 {
		return types.Set{}
	}
	values := make([]types.Value, len(names))
	for i, n := range names {
		values[i] = types.String(n)
	}
	return types.NewSet(values...)
}

// arguments makes context.arg of values that were checked before.
func arguments(values map[string]any) types.Value {
	if len(values) == 0 {
		return types.Record{}
	}
	m := make(types.RecordMap, len(values))
	for name, v := range values {
		switch v := v.(type) {
		case string:
			m[types.String(name)] = types.String(v)
		case int64:
			m[types.String(name)] = types.Long(v)
		case bool:
			m[types.String(name)] = types.Boolean(v)
		case []string:
			m[types.String(name)] = set(v)
		}
	}
	return types.NewRecord(m)
}
