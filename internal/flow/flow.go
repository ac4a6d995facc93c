// Package flow says where the words of a conversation come from and how far they can be trusted, and for each argument
// of a tool call which of these words it was taken from. Policy decides on what it says; it decides nothing itself.
//
// The threat is text that steers an agent although nobody with authority wrote it: a document, an e-mail, the answer of
// a tool, a turn that the caller made up. Every part of a request gets a [fairlead.Label]. What follows from labels
// alone ([Context.Bound], the class of a tool) is sound; what compares words (the evidence for an argument, whether a
// span reads like an instruction) is a heuristic that a determined author can defeat, and docs/flow.md says how often
// it is right.
//
// Bounds: labelling takes time linear in what is new, at most [MaxText] bytes of text a part are compared and at most
// [MaxIndexed] in a conversation; of a call's arguments at most [MaxValues] values are traced, with at most
// [MaxCompared] bytes of comparing. What lies beyond any of these counts as untrusted.
package flow

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/policy"
)

// Config is what the operator says about tools, data and sources. The zero value works: every tool is unknown, user and
// system messages are trusted, and everything that tools return is not.
type Config struct {
	// Tools by their exact name, or by a pattern with one * at its end ("mcp__github__*"). The longest match wins.
	Tools map[string]Tool
	// Labels are the data labels there are, and who may read what carries them. A label that is not listed has no reader.
	Labels map[string]DataLabel
	// Sources label parts of requests by where they come from; every rule that matches applies.
	Sources []Source
	// Profiles says which kind of rule decides about tools of a class. By default irreversible tools are guaranteed and
	// all others balanced; of a tool with several classes, guaranteed wins.
	Profiles map[policy.Class]policy.Profile
	// Infer has the class and the authority arguments of unclassified tools guessed from their names, for runs that were
	// recorded elsewhere. Without it a tool that nobody classified is an egress tool.
	Infer bool
}

// A Tool is what the operator says about a tool.
type Tool struct {
	// Classes of the tool; with none it stays unknown.
	Classes []policy.Class
	// Authority names the arguments that say to whom, where to or on what the tool acts: "recipient", or a path into
	// the arguments with dots ("event.attendees"), which covers what is below it. With nil they are found by name and
	// shape; an empty list means that there are none.
	Authority []string
	// Arguments gives the type of top-level arguments that policies test: "string", "long", "bool" or "set".
	Arguments map[string]string
	// Vetted says that the operator vouches for what the tool returns.
	Vetted bool
	Data   []string // data labels of what it returns
}

// A DataLabel says who may read what carries it: "tool:NAME", "class:read", "provider:NAME", "model:NAME", each
// possibly with a * at its end.
type DataLabel struct {
	Readers []string
}

// A Source labels parts of requests. Fields that are empty match everything.
type Source struct {
	Role fairlead.Role
	Tool string // name of the tool whose result it is, or a pattern
	// Open and Close narrow the rule to what stands between these markers: from the first Open to the last Close of a
	// part, so that a marker within the text cannot end it early. Without Close, or where it is missing, to the end.
	Open, Close string
	// Integrity is that of the text. It can only lower what the role says, except that a rule that names a tool may vet
	// its results. nil leaves it.
	Integrity *fairlead.Integrity
	Data      []string
}

// Bounds on work and memory.
const (
	MaxText     = 1 << 20  // bytes of text of one part that are compared
	MaxIndexed  = 8 << 20  // bytes of text of one conversation that are compared
	MaxValues   = 512      // values of one call's arguments that are traced
	MaxCompared = 64 << 20 // bytes that one call's arguments are compared with, all in all
)

// Rules is a Config that was checked. It is safe for concurrent use.
type Rules struct {
	config   Config
	patterns []string // of tools, without their *, the longest first
	profiles map[policy.Class]policy.Profile
}

// Compile checks a Config. The error says which entry is wrong and why.
func Compile(c Config) (*Rules, error) {
	r := &Rules{config: c, profiles: map[policy.Class]policy.Profile{
		policy.Read: policy.Balanced, policy.Write: policy.Balanced, policy.Egress: policy.Balanced, policy.Irreversible: policy.Guaranteed}}
	for class, p := range c.Profiles {
		if _, ok := r.profiles[class]; !ok {
			return nil, fmt.Errorf("profile of class %q: there is no such class; use read, write, egress or irreversible", class)
		}
		if p != policy.Balanced && p != policy.Guaranteed {
			return nil, fmt.Errorf("profile %q of class %q: use balanced or guaranteed", p, class)
		}
		r.profiles[class] = p
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tools)) {
		if err := checkTool(c.Tools[name], r.profiles); err != nil {
			return nil, fmt.Errorf("tool %q: %w", name, err)
		}
		if k := strings.IndexByte(name, '*'); k >= 0 && k < len(name)-1 {
			return nil, fmt.Errorf("tool %q: a * may stand at the end only", name)
		} else if k >= 0 {
			r.patterns = append(r.patterns, name[:k])
		}
	}
	slices.SortFunc(r.patterns, func(a, b string) int { return len(b) - len(a) })
	for name, l := range c.Labels {
		if err := checkLabel(name); err != nil {
			return nil, err
		}
		for _, reader := range l.Readers {
			kind, rest, ok := strings.Cut(reader, ":")
			if !ok || rest == "" || !slices.Contains([]string{"tool", "class", "provider", "model"}, kind) {
				return nil, fmt.Errorf("reader %q of label %q: use tool:NAME, class:NAME, provider:NAME or model:NAME", reader, name)
			}
		}
	}
	for i, s := range c.Sources {
		if s.Close != "" && s.Open == "" {
			return nil, fmt.Errorf("source %d has a close marker and no open marker", i+1)
		}
		if s.Integrity == nil && len(s.Data) == 0 {
			return nil, fmt.Errorf("source %d says nothing: give it an integrity or data labels", i+1)
		}
		for _, d := range s.Data {
			if err := checkLabel(d); err != nil {
				return nil, fmt.Errorf("source %d: %w", i+1, err)
			}
		}
	}
	return r, nil
}

func checkTool(t Tool, classes map[policy.Class]policy.Profile) error {
	for _, class := range t.Classes {
		if _, ok := classes[class]; !ok {
			return fmt.Errorf("there is no class %q: use read, write, egress or irreversible", class)
		}
	}
	for name, kind := range t.Arguments {
		if !slices.Contains([]string{"string", "long", "bool", "set"}, kind) {
			return fmt.Errorf("argument %q has the type %q: use string, long, bool or set", name, kind)
		}
	}
	for _, d := range t.Data {
		if err := checkLabel(d); err != nil {
			return err
		}
	}
	return nil
}

func checkLabel(name string) error {
	if name == "" || name == fairlead.AllData || strings.ContainsAny(name, ",; \t\r\n\"") {
		return fmt.Errorf("%q cannot be the name of a data label: use letters, digits, dots and dashes", name)
	}
	return nil
}

// tool gives what the operator says about a tool.
func (r *Rules) tool(name string) (Tool, bool) {
	if t, ok := r.config.Tools[name]; ok {
		return t, true
	}
	for _, p := range r.patterns {
		if strings.HasPrefix(name, p) {
			return r.config.Tools[p+"*"], true
		}
	}
	return Tool{}, false
}

// classify says what a tool does, and whether anybody knows.
func (r *Rules) classify(name string) (classes []policy.Class, known, inferred bool) {
	if t, ok := r.tool(name); ok && len(t.Classes) > 0 {
		return t.Classes, true, false
	}
	if r.config.Infer {
		classes, known = inferClasses(name)
		return classes, known, true
	}
	return []policy.Class{policy.Egress}, false, false
}

// profile gives the stricter of the profiles of the classes.
func (r *Rules) profile(classes []policy.Class) policy.Profile {
	for _, class := range classes {
		if r.profiles[class] == policy.Guaranteed {
			return policy.Guaranteed
		}
	}
	return policy.Balanced
}

// forbidden lists those of the data labels that not all of the readers may read. Each reader is a set of names for the
// same thing ("tool:x", "class:read"), of which one must be permitted.
func (r *Rules) forbidden(data []string, readers ...[]string) []string {
	var out []string
	for _, d := range data {
		allowed := r.config.Labels[d].Readers
		for _, names := range readers {
			if !slices.ContainsFunc(names, func(name string) bool {
				return slices.ContainsFunc(allowed, func(p string) bool { return matches(p, name) })
			}) {
				out = append(out, d)
				break
			}
		}
	}
	return out
}

// matches reports whether name is what the pattern p, which may have a * at its end, stands for.
func matches(p, name string) bool {
	if prefix, ok := strings.CutSuffix(p, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return p == name
}
