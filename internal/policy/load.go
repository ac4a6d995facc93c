package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	publicast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/fairleadhq/fairlead"
)

// A Source is a file of policies.
type Source struct {
	Name string // stands in errors; unique within a set
	Text []byte // Cedar
}

// Options say what policies may refer to besides the built-in schema. The zero value adds nothing.
type Options struct {
	// Arguments are the tool arguments that policies may test, by name: "string", "long", "bool" or "set" (of strings).
	// Each becomes an optional attribute of context.arg.
	Arguments map[string]string
}

// A Set is a validated set of policies. It does not change, and any number of goroutines can ask it at once.
type Set struct {
	sources   []Source
	rules     []*rule // in order
	byID      map[types.PolicyID]*rule
	index     index
	arguments map[string]string
}

// A rule is a policy with what is said about it.
type rule struct {
	info      fairlead.Rule
	approvers int           // of a hold
	policy    *cedar.Policy // as it was written
	tree      *ast.Policy   // of policy
	body      *cedar.Policy // its conditions, or nil if it has none; flattened unless whole
	whole     bool
	uses      uses   // of body
	text      string // as in the source, with the comments above it
	at        Problem
}

// The ids of verdicts that no policy gives; no policy can have them.
const (
	defaultDeny    = "default-deny"
	invalidRequest = "invalid-request"
)

// maxApprovers is how many people a hold can ask for.
const maxApprovers = 5

// Load parses and validates sources. All of them are looked at, and a [*LoadError] lists what is wrong with any. The order of
// sources is kept and does not matter to decisions.
func Load(sources []Source, opts Options) (*Set, error) {
	check, err := newChecker(opts.Arguments)
	if err != nil {
		return nil, err
	}
	l := &loader{check: check, set: &Set{byID: map[types.PolicyID]*rule{}, arguments: opts.Arguments}}
	if len(sources) > maxSources {
		return nil, fmt.Errorf("%d files of policies: at most %d can be loaded, join some of them", len(sources), maxSources)
	}
	names := map[string]bool{}
	for _, src := range sources {
		if names[src.Name] {
			l.report(Problem{File: src.Name}, "there are two files of this name: rename one of them")
			continue
		}
		names[src.Name] = true
		l.set.sources = append(l.set.sources, Source{src.Name, slices.Clone(src.Text)})
		l.source(src)
	}
	if len(l.err.Problems) > 0 {
		return nil, &l.err
	}
	l.set.index = newIndex(l.set.rules)
	return l.set, nil
}

// Digest is the lower-case hex SHA-256 of the sources: of each, in the order of their names, the length of the name as 8
// bytes big-endian, the name, and likewise length and text. The order in which they were loaded does not change it.
func (s *Set) Digest() string {
	h := sha256.New()
	frame := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	sorted := slices.SortedFunc(slices.Values(s.sources), func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	for _, src := range sorted {
		frame([]byte(src.Name))
		frame(src.Text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Rules lists the policies in the order in which they stand in the sources. Effect is what a policy does when it applies.
func (s *Set) Rules() []fairlead.Rule {
	out := make([]fairlead.Rule, len(s.rules))
	for i, r := range s.rules {
		out[i] = r.info
		out[i].Controls = slices.Clone(r.info.Controls)
	}
	return out
}

// Sources returns what the set was loaded from, in that order.
func (s *Set) Sources() []Source {
	out := slices.Clone(s.sources)
	for i := range out {
		out[i].Text = slices.Clone(out[i].Text)
	}
	return out
}

// A Problem is one thing that is wrong with a source.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"` // counted from 1; 0 when the file as a whole is meant
	Col    int    `json:"col,omitempty"`  // in characters, from 1
	Policy string `json:"policy,omitempty"`
	Text   string `json:"text"`
}

// String is in the form that editors and compilers use: FILE:LINE:COL: policy "ID": TEXT.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
	}
	if p.Policy != "" {
		fmt.Fprintf(&b, ": policy %q", p.Policy)
	}
	return b.String() + ": " + p.Text
}

// A LoadError lists everything that is wrong with sources, up to 100 problems.
type LoadError struct {
	Problems []Problem
	More     int // further problems that are not listed
}

// Error gives each problem a line.
func (e *LoadError) Error() string {
	lines := []string{"the policies are not valid"}
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(lines, "\n")
}

const maxProblems = 100

// A loader fills a set and collects what is wrong.
type loader struct {
	check *checker
	set   *Set
	err   LoadError
}

func (l *loader) report(at Problem, format string, args ...any) {
	if len(l.err.Problems) >= maxProblems {
		l.err.More++
		return
	}
	at.Text = fmt.Sprintf(format, args...)
	l.err.Problems = append(l.err.Problems, at)
}

func (l *loader) source(src Source) {
	at := Problem{File: src.Name}
	switch {
	case len(src.Text) > maxSource:
		l.report(at, "larger than 1 MiB: split the file")
		return
	case !utf8.Valid(src.Text):
		l.report(at, "not UTF-8 text: save it as that")
		return
	}
	sc := newScanner(src.Text)
	for {
		c, serr := sc.next()
		if serr != nil {
			at.Line, at.Col = serr.pos.line, serr.pos.col
			l.report(at, "%s", serr.text)
			return // where the next policy begins is not known
		}
		if c == nil {
			return
		}
		if len(l.set.rules) >= maxPolicies {
			l.report(at, "more than %d policies: use groups and classes in place of names", maxPolicies)
			return
		}
		at.Line, at.Col = c.start.line, c.start.col
		l.policy(at, c)
	}
}

// policy reads one policy. Cedar's parser and checker are not ours and meet hostile text, so that a panic there is
// a problem of the policy.
func (l *loader) policy(at Problem, c *chunk) {
	defer func() {
		if r := recover(); r != nil {
			l.report(at, "cannot be read (%v): write it another way", r)
		}
	}()
	if !c.terminated {
		l.report(at, "the policy that begins here has no end: add a semicolon")
		return
	}
	list, err := cedar.NewPolicyListFromBytes(at.File, c.text)
	if err != nil {
		l.report(syntaxProblem(at, c, err), "%s", syntaxText(err))
		return
	}
	if len(list) != 1 {
		return // the empty policy: a semicolon too many is reported as a syntax error
	}
	r := &rule{policy: list[0], tree: (*ast.Policy)(list[0].AST()), text: string(c.whole), at: at}
	if !l.annotations(r) {
		return
	}
	if texts := l.check.policy(r.tree); len(texts) > 0 {
		for _, text := range texts {
			l.report(r.at, "%s; \"fairlead policy show --schema\" lists what there is", text)
		}
		return
	}
	if first, twice := l.set.byID[r.id()]; twice {
		l.report(r.at, "the id is already that of a policy at %s:%d: ids are unique, choose another", first.at.File, first.at.Line)
		return
	}
	r.uses = usesOf(r.tree)
	r.body, r.whole = bodyOf(r.tree)
	l.set.byID[r.id()] = r
	l.set.rules = append(l.set.rules, r)
}

// annotations reads what a policy says about itself and reports whether it can be used.
func (l *loader) annotations(r *rule) bool {
	before := len(l.err.Problems) + l.err.More
	r.info.Effect = fairlead.Deny
	if r.policy.Effect() == cedar.Permit {
		r.info.Effect = fairlead.Allow
	}
	for _, a := range r.tree.Annotations { // the id first: further problems name it
		if a.Key == "id" {
			r.info.ID, r.at.Policy = string(a.Value), string(a.Value)
		}
	}
	switch id := r.info.ID; {
	case id == "":
		l.report(r.at, "a policy needs an id: put @id(\"NAME\") in front of it")
	case !validID(id):
		r.at.Policy = ""
		l.report(r.at, "the id %.80q is not one: it has 1 to 64 letters, digits, dots, dashes and underscores", id)
	case id == defaultDeny || id == invalidRequest:
		l.report(r.at, "the id is reserved for what no policy decides: choose another")
	}
	for _, a := range r.tree.Annotations {
		l.annotation(r, string(a.Key), string(a.Value))
	}
	if r.approvers > 0 && r.info.Effect != fairlead.Hold {
		l.report(r.at, "@approvers is for policies that hold: add @effect(\"hold\") or remove it")
	}
	if r.info.Effect == fairlead.Hold && r.approvers == 0 {
		r.approvers = 1
	}
	return len(l.err.Problems)+l.err.More == before
}

func (l *loader) annotation(r *rule, key, value string) {
	switch key {
	case "id":
	case "effect":
		switch {
		case value != "hold":
			l.report(r.at, "@effect(%.80q) means nothing: the only effect to name is \"hold\"", value)
		case r.policy.Effect() == cedar.Permit:
			l.report(r.at, "@effect(\"hold\") is for forbid: a permit does not hold anything back")
		default:
			r.info.Effect = fairlead.Hold
		}
	case "approvers":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > maxApprovers || strconv.Itoa(n) != value {
			l.report(r.at, "@approvers(%.80q) is not a number from 1 to %d", value, maxApprovers)
			return
		}
		r.approvers = n
	case "reason":
		r.info.Reason = l.sentence(r, key, value)
	case "remedy":
		r.info.Remedy = l.sentence(r, key, value)
	case "controls":
		r.info.Controls = strings.Fields(l.sentence(r, key, value))
	default:
		l.report(r.at, "@%.80s is not an annotation: there are id, effect, approvers, reason, remedy and controls", key)
	}
}

// maxSentence is the length of a reason or a remedy in bytes: it stands in the answers to callers.
const maxSentence = 500

func (l *loader) sentence(r *rule, key, value string) string {
	switch {
	case strings.TrimSpace(value) == "":
		l.report(r.at, "@%s is empty: say something or remove it", key)
	case len(value) > maxSentence:
		l.report(r.at, "@%s is longer than %d bytes: callers read it, make it shorter", key, maxSentence)
	case strings.ContainsFunc(value, unicode.IsControl):
		l.report(r.at, "@%s holds control characters: write it on one line", key)
	}
	return value
}

func validID(id string) bool {
	return len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// syntaxProblem finds the place that an error of Cedar's parser speaks of: it counts from the beginning of the policy.
func syntaxProblem(at Problem, c *chunk, err error) Problem {
	at.Policy = declaredID(c.text)
	_, rest, ok := strings.Cut(err.Error(), "<input>:")
	if !ok {
		return at
	}
	var line, col int
	if n, _ := fmt.Sscanf(rest, "%d:%d", &line, &col); n != 2 || line < 1 || col < 1 {
		return at
	}
	if line == 1 {
		col += at.Col - 1
	}
	at.Line, at.Col = at.Line+line-1, col
	return at
}

// declaredID finds the id of a policy that cannot be parsed, or gives "".
func declaredID(text []byte) string {
	_, rest, ok := strings.Cut(string(text), `@id("`)
	id, _, closed := strings.Cut(rest, `"`)
	if !ok || !closed || !validID(id) {
		return ""
	}
	return id
}

// syntaxText says what Cedar's parser does in our words, without its position.
func syntaxText(err error) string {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "<input>:"); ok {
		if _, msg, ok := strings.Cut(rest, ": "); ok {
			text = msg
		}
	}
	if got, ok := strings.CutPrefix(text, "exact got "); ok {
		if i := strings.LastIndex(got, " want "); i >= 0 {
			text = fmt.Sprintf("expected %q and found %q before this", got[i+len(" want "):], cut(got[:i]))
		}
	} else if got, ok := strings.CutPrefix(text, "got "); ok && strings.HasSuffix(got, " want ,") {
		text = fmt.Sprintf("expected a comma and found %q", cut(strings.TrimSuffix(got, " want ,")))
	} else if text == "invalid primary" {
		text = "expected a value before this: principal, action, resource, context, a text, a number, true, false, a set or an entity"
	}
	return "not Cedar: " + cut(text)
}

// cut shortens what may quote a whole policy.
func cut(s string) string {
	const longest = 300
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "…"
}

// newPolicy compiles a syntax tree.
func newPolicy(tree *ast.Policy) *cedar.Policy {
	return cedar.NewPolicyFromAST((*publicast.Policy)(tree))
}

// plain prints a policy in Cedar's own layout, without annotations.
func plain(tree *ast.Policy) string {
	bare := *tree
	bare.Annotations = nil
	return string(newPolicy(&bare).MarshalCedar())
}

func (r *rule) id() types.PolicyID { return types.PolicyID(r.info.ID) }
