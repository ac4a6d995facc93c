package policy

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	schemaast "github.com/cedar-policy/cedar-go/x/exp/schema/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

//go:embed schema.cedarschema
var schemaText []byte

// Types of declared arguments, as the values of [Options].Arguments.
const (
	typeString = "string"
	typeLong   = "long"
	typeBool   = "bool"
	typeSet    = "set"
)

var argumentTypes = map[string]schemaast.IsType{
	typeString: schemaast.String(),
	typeLong:   schemaast.Long(),
	typeBool:   schemaast.Bool(),
	typeSet:    schemaast.Set(schemaast.String()),
}

// maxArguments bounds how many arguments can be declared: the type of the context is looked at for each policy.
const maxArguments = 1000

// newSchema reads the embedded schema and adds the declared arguments to context.arg.
func newSchema(arguments map[string]string) (*resolved.Schema, error) {
	if len(arguments) > maxArguments {
		return nil, fmt.Errorf("%d tool arguments are declared: at most %d can be", len(arguments), maxArguments)
	}
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar(schemaText); err != nil {
		return nil, fmt.Errorf("reading the built-in schema: %w", err)
	}
	arg := schemaast.RecordType{}
	for _, name := range slices.Sorted(maps.Keys(arguments)) {
		t, ok := argumentTypes[arguments[name]]
		if !ok {
			return nil, fmt.Errorf("the tool argument %q is declared as %q: it has to be %s", name, arguments[name], "string, long, bool or set")
		}
		if name == "" || strings.HasPrefix(name, "__") {
			return nil, fmt.Errorf("the tool argument %q cannot be declared: names are not empty and do not begin with two underscores", name)
		}
		arg[types.String(name)] = schemaast.Attribute{Type: t, Optional: true}
	}
	s.AST().CommonTypes["Arg"] = schemaast.CommonType{Type: arg}
	r, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("reading the built-in schema: %w", err)
	}
	return r, nil
}

// A checker checks policies and, in tests, requests against the schema.
type checker struct {
	v         *validate.Validator
	arguments map[string]string
}

func newChecker(arguments map[string]string) (*checker, error) {
	s, err := newSchema(arguments)
	if err != nil {
		return nil, err
	}
	return &checker{validate.New(s, validate.WithStrict()), arguments}, nil
}

// policy lists what is wrong with a policy, in an order that does not depend on the validator's maps.
func (c *checker) policy(p *ast.Policy) []string {
	var out []string
	var walk func(error)
	walk = func(err error) {
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range many.Unwrap() {
				walk(e)
			}
			return
		}
		text := err.Error()
		for _, a := range actionIDs { // or it would be said once for each
			text = strings.ReplaceAll(text, " for "+a.String(), "")
		}
		out = append(out, cut(strings.Join(strings.Fields(text), " ")))
	}
	if err := c.v.Policy("", p); err != nil {
		walk(err)
	}
	if len(out) > 1 { // what follows from the others
		out = slices.DeleteFunc(out, func(s string) bool { return strings.HasPrefix(s, "unable to find an applicable action") })
	}
	out = append(out, c.names(p)...)
	slices.Sort(out)
	return slices.Compact(out)
}

// names lists the names that Cedar takes and that are not there: a tool class, or an attribute after has, which would
// be false for ever.
func (c *checker) names(p *ast.Policy) []string {
	var out []string
	entity := func(v types.Value) {
		e, ok := v.(types.EntityUID)
		if ok && e.Type == "ToolClass" && slices.Index(classes[:], Class(e.ID)) < 0 {
			out = append(out, fmt.Sprintf("there is no tool class %q: there are %s", cut(string(e.ID)), joined(classes[:])))
		}
	}
	for _, s := range scopesOf(p) {
		entity(s.entity)
	}
	for _, cond := range p.Conditions {
		ast.Inspect(ast.NewNode(cond.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeValue:
				entity(n.Value)
			case ast.NodeTypeHas:
				if name, ok := c.missing(n); ok {
					out = append(out, fmt.Sprintf("attribute `%s` not found", cut(name)))
				}
			}
			return true
		})
	}
	return out
}

// missing gives the name that n asks for if there is no such attribute.
func (c *checker) missing(n ast.NodeTypeHas) (string, bool) {
	path, ok := contextPath(n)
	if !ok {
		v, ok := n.Arg.(ast.NodeTypeVariable)
		return string(n.Value), ok && v.Name != "context" && n.Value != "name" && n.Value != "known"
	}
	if path[0] == "arg" && len(path) == 2 {
		_, declared := c.arguments[string(path[1])]
		return "arg." + string(path[1]), !declared
	}
	name := string(path[0])
	for _, p := range path[1:] {
		name += "." + string(p)
	}
	return name, !slices.ContainsFunc(leaves, func(l leaf) bool {
		if len(path) == 1 {
			return l.group == path[0] || l.group == "" && l.name == path[0]
		}
		return len(path) == 2 && l.group == path[0] && l.name == path[1]
	})
}

// Schema returns the Cedar schema that policies are written against, for editors; context.arg is empty in it.
func Schema() []byte { return slices.Clone(schemaText) }
