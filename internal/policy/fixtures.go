package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// A Fixture is a request with the verdict that is wanted for it.
type Fixture struct {
	Name    string
	Request Request
	Want    fairlead.Effect
	// Rules are the ids of all rules that the verdict has to name, sorted; nil when any will do.
	Rules []string
}

// A Result says how a fixture went.
type Result struct {
	Name    string           `json:"name"`
	OK      bool             `json:"ok"`
	Want    fairlead.Effect  `json:"want"`
	Rules   []string         `json:"want_rules,omitempty"`
	Verdict fairlead.Verdict `json:"-"`
	Got     fairlead.Effect  `json:"got"`
	Decided []string         `json:"rules"`
	Error   string           `json:"error,omitempty"` // of the first rule that has one
}

// Test decides the request of each fixture.
func (s *Set) Test(fixtures []Fixture) []Result {
	out := make([]Result, len(fixtures))
	for i := range fixtures {
		f := &fixtures[i]
		v := s.Decide(&f.Request)
		r := Result{Name: f.Name, Want: f.Want, Rules: f.Rules, Verdict: v, Got: v.Effect, Decided: v.IDs()}
		r.OK = v.Effect == f.Want && (f.Rules == nil || slices.Equal(f.Rules, r.Decided))
		for _, rule := range v.Rules {
			if rule.Error != "" {
				r.Error = rule.Error
				break
			}
		}
		out[i] = r
	}
	return out
}

// The bounds on a file of fixtures.
const (
	maxFixtures     = 10_000
	maxFixtureDepth = 16
)

// ReadFixtures reads a list of fixtures in YAML (or JSON, which is YAML):
//
//   - name: a payment after untrusted content waits for a person
//     want: hold
//     rules: [hold-irreversible-after-untrusted]
//     request:
//     principal: {app: crm, user: alice, groups: [sales]}
//     action: tool.call
//     resource: {name: send_payment, classes: [irreversible]}
//     context: {profile: guaranteed, label: {integrity: untrusted}}
//
// The context has the attributes that policies see. Left out, mode is enforce, profile balanced, time
// 2026-01-05T12:00:00Z, label.integrity user, budget.tier green and args.authority none; lists are empty, counts 0.
// Parties are verified unless written as {id: …, assurance: declared}; a tool is known unless it says known: false.
func ReadFixtures(text []byte) ([]Fixture, error) {
	if len(text) > maxSource {
		return nil, errors.New("larger than 1 MiB: split the file")
	}
	doc, err := readYAML(text)
	if err != nil || doc == nil {
		return nil, err
	}
	if doc.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: expected a list of fixtures", doc.Line)
	}
	if len(doc.Content) > maxFixtures {
		return nil, fmt.Errorf("%d fixtures: at most %d in one file, split it", len(doc.Content), maxFixtures)
	}
	names := map[string]int{}
	out := make([]Fixture, 0, len(doc.Content))
	for _, n := range doc.Content {
		f, err := readFixture(n)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n.Line, err)
		}
		if line, twice := names[f.Name]; twice {
			return nil, fmt.Errorf("line %d: there is a fixture of this name on line %d already", n.Line, line)
		}
		names[f.Name] = n.Line
		out = append(out, f)
	}
	return out, nil
}

// readYAML parses one document without aliases. An empty one is nil.
func readYAML(text []byte) (*yaml.Node, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithV4Defaults(),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxFixtureDepth))))
	if err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	var doc, next yaml.Node
	if err := loader.Load(&doc); err == io.EOF {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	if err := loader.Load(&next); err != io.EOF {
		return nil, errors.New("a file of fixtures is one document: remove the line --- and what follows")
	}
	n := &doc
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	return n, noAliases(n)
}

// noAliases refuses what could make a small file large. The depth is bounded by the loader.
func noAliases(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return fmt.Errorf("line %d: anchors and aliases are not supported: write the value out", n.Line)
	}
	for _, c := range n.Content {
		if err := noAliases(c); err != nil {
			return err
		}
	}
	return nil
}

// The file's structure.
type (
	fixtureFile struct {
		Name    string          `yaml:"name"`
		Want    fairlead.Effect `yaml:"want"`
		Rules   []string        `yaml:"rules"`
		Request fixtureRequest  `yaml:"request"`
	}
	fixtureRequest struct {
		Principal fixturePrincipal `yaml:"principal"`
		Action    Action           `yaml:"action"`
		Resource  fixtureResource  `yaml:"resource"`
		Context   fixtureContext   `yaml:"context"`
	}
	fixturePrincipal struct {
		App     fixtureParty `yaml:"app"`
		User    fixtureParty `yaml:"user"`
		Agent   fixtureParty `yaml:"agent"`
		Groups  []string     `yaml:"groups"`
		Service bool         `yaml:"service"`
	}
	fixtureParty    Party
	fixtureResource struct {
		Name    string  `yaml:"name"`
		Server  string  `yaml:"server"`
		Classes []Class `yaml:"classes"`
		Known   *bool   `yaml:"known"`
	}
	fixtureContext struct {
		Mode     string    `yaml:"mode"`
		Profile  Profile   `yaml:"profile"`
		Provider string    `yaml:"provider"`
		Route    string    `yaml:"route"`
		Time     time.Time `yaml:"time"`
		Chain    []string  `yaml:"chain"`
		Label    struct {
			Integrity     string   `yaml:"integrity"`
			Instructional bool     `yaml:"instructional"`
			Data          []string `yaml:"data"`
			Forbidden     []string `yaml:"forbidden"`
		} `yaml:"label"`
		Conversation struct {
			Known      bool `yaml:"known"`
			Declared   int  `yaml:"declared"`
			Unresolved int  `yaml:"unresolved"`
			Steps      int  `yaml:"steps"`
		} `yaml:"conversation"`
		Args struct {
			Authority    string   `yaml:"authority"`
			InstructedBy []string `yaml:"instructed_by"`
			Data         []string `yaml:"data"`
			Forbidden    []string `yaml:"forbidden"`
			NewTool      bool     `yaml:"new_tool"`
		} `yaml:"args"`
		Arg      map[string]any `yaml:"arg"`
		Findings []string       `yaml:"findings"`
		Budget   struct {
			Tier string `yaml:"tier"`
		} `yaml:"budget"`
		Approvals int `yaml:"approvals"`
	}
)

// UnmarshalYAML reads a party: its id, or {id, assurance}.
func (p *fixtureParty) UnmarshalYAML(n *yaml.Node) error {
	p.Assurance = fairlead.Verified
	if n.Kind == yaml.ScalarNode {
		p.ID = n.Value
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch k, v := n.Content[i].Value, n.Content[i+1].Value; k {
		case "id":
			p.ID = v
		case "assurance":
			p.Assurance = fairlead.Assurance(v)
			if !slices.Contains(assurances[:], p.Assurance) {
				return fmt.Errorf("%q is not an assurance: there are %s", v, joined(assurances[:]))
			}
		default:
			return fmt.Errorf("a party has id and assurance, not %q", k)
		}
	}
	return nil
}

var assurances = [...]fairlead.Assurance{fairlead.Verified, fairlead.Attested, fairlead.Derived, fairlead.Declared, fairlead.Ambiguous, fairlead.Absent}

func readFixture(n *yaml.Node) (Fixture, error) {
	var file fixtureFile
	if err := n.Load(&file, yaml.WithV4Defaults(), yaml.WithKnownFields()); err != nil {
		return Fixture{}, err
	}
	f := Fixture{Name: file.Name, Want: file.Want}
	switch {
	case f.Name == "":
		return f, errors.New("a fixture needs a name")
	case f.Want != fairlead.Allow && f.Want != fairlead.Hold && f.Want != fairlead.Deny:
		return f, fmt.Errorf("want has to be allow, hold or deny, not %q", f.Want)
	case !slices.Contains(actions[:], file.Request.Action):
		return f, fmt.Errorf("there is no action %q: there are %s", file.Request.Action, joined(actions[:]))
	}
	if file.Rules != nil {
		f.Rules = slices.Clone(file.Rules)
		slices.Sort(f.Rules)
	}
	err := file.Request.into(&f.Request)
	return f, err
}

// into fills in what a fixture leaves out.
func (q *fixtureRequest) into(r *Request) error {
	c := &q.Context
	in, ok := fairlead.ParseIntegrity(or(c.Label.Integrity, "user"))
	switch {
	case !ok:
		return fmt.Errorf("context.label.integrity is %q: it has to be operator, user, vetted or untrusted", c.Label.Integrity)
	case c.Mode != "" && c.Mode != "enforce" && c.Mode != "observe":
		return fmt.Errorf("context.mode is %q: it has to be enforce or observe", c.Mode)
	}
	if c.Time.IsZero() {
		c.Time = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	}
	label := fairlead.Label{Integrity: in, Instructional: c.Label.Instructional, Data: slices.Sorted(slices.Values(c.Label.Data))}
	values, err := argumentValues(c.Arg)
	if err != nil {
		return err
	}
	*r = Request{
		Principal: Principal{App: Party(q.Principal.App), User: Party(q.Principal.User), Agent: Party(q.Principal.Agent),
			Groups: q.Principal.Groups, Chain: c.Chain, Service: q.Principal.Service},
		Action: q.Action,
		Resource: Resource{Name: q.Resource.Name, Server: q.Resource.Server, Classes: q.Resource.Classes,
			Known: q.Resource.Known == nil || *q.Resource.Known},
		Context: Context{
			Enforce: c.Mode != "observe", Profile: or(c.Profile, Balanced), Provider: c.Provider, Route: c.Route, Time: c.Time,
			Label: label, Forbidden: c.Label.Forbidden,
			Conversation: Conversation{c.Conversation.Known, c.Conversation.Declared, c.Conversation.Unresolved, c.Conversation.Steps},
			Args: Args{Authority: or(c.Args.Authority, AuthorityNone), Instructed: c.Args.InstructedBy, Data: c.Args.Data,
				Forbidden: c.Args.Forbidden, New: c.Args.NewTool, Values: values},
			Findings: c.Findings, Tier: or(c.Budget.Tier, "green"), Approved: c.Approvals,
		},
	}
	return nil
}

// or is s, or def where s is empty.
func or[S ~string](s, def S) S {
	if s == "" {
		return def
	}
	return s
}

func argumentValues(arg map[string]any) (map[string]any, error) {
	out := make(map[string]any, len(arg))
	for name, v := range arg {
		switch v := v.(type) {
		case string, bool, int64:
			out[name] = v
		case int:
			out[name] = int64(v)
		case []any:
			list := make([]string, len(v))
			for i, e := range v {
				s, ok := e.(string)
				if !ok {
					return nil, fmt.Errorf("context.arg.%s: a set holds texts, not %v", strings.ToValidUTF8(name, "?"), e)
				}
				list[i] = s
			}
			out[name] = list
		default:
			return nil, fmt.Errorf("context.arg.%s: expected a text, a whole number, true, false or a list of texts", strings.ToValidUTF8(name, "?"))
		}
	}
	return out, nil
}
