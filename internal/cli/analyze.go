package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/flow"
	"github.com/fairleadhq/fairlead/internal/policy"
	"github.com/fairleadhq/fairlead/internal/wire"
)

func analyzeCommand() *Command {
	return &Command{
		Name: "analyze", Usage: "[--json] [--profile NAME] [--tools FILE.yaml] FILE.jsonl | [--data DIR] [--json]",
		Short: "was the injection successful? on recorded traffic, or on runs in a file",
		Long: `Without a file it looks at the traffic in the data folder: for words in untrusted content that read like an instruction,
whether they were seen by the model, whether a tool call attempted what they say, with the argument that carries it,
whether that was blocked, and whether it was executed, which a result that came back shows.

With a file it reads recorded runs of agents, one JSON object a line with "messages" as OpenAI's chat API has them (and "id", if there
is one), and decides each tool call of each run as the gateway would have, with the starter policies. "-" reads standard
input.

--profile says which kind of rule decides: balanced (evidence about each argument: heuristic), guaranteed (only what
cannot be taken back, was not named by the user, or was not classified, after untrusted content: deterministic), or
default (guaranteed for irreversible tools, balanced for all others).

--tools names a file that classifies tools: tools: {NAME: {classes: [read|write|egress|irreversible], authority:
[ARGUMENT, …], vetted: true}}. What a tool that it does not name can do is guessed from its name; the output marks such
runs as inferred.

With --json each run is a line: id, profile, decision (allow, hold or block), at (index of the message with the call),
tool, argument, rule, evidence (message, from, kind, and the instruction that it stands in), inferred, and injection:
what the recording shows of instructions in untrusted content (none, seen, attempted, blocked or executed).

Labels in the file (attack_present, attack_succeeded, injection_reached_model, in "labels" or beside the messages) are
never looked at for a decision. Where there are any, the summary counts by them afterwards, with 95 % intervals.

A line that cannot be read is reported with its number, and the others are analysed all the same; the exit code is then
1. A line may have 64 MiB.`,
		Setup: func(fs *flag.FlagSet) Run {
			asJSON := jsonFlag(fs)
			profile := fs.String("profile", "default", "decide by the rules of this `NAME`: balanced, guaranteed or default")
			tools := fs.String("tools", "", "`FILE` that classifies tools")
			data, keys := dataFlag(fs), keysFlag(fs)
			return func(ctx context.Context, env *Env, args []string) error {
				if len(args) == 0 {
					return analyzeTraffic(ctx, env, *data, *keys, *asJSON)
				}
				if err := wantArgs(args, "FILE.jsonl"); err != nil {
					return err
				}
				a, err := newAnalysis(*profile, *tools)
				if err != nil {
					return err
				}
				a.asJSON, a.out, a.errs = *asJSON, bufio.NewWriter(env.Stdout), env.Stderr
				return a.file(ctx, env, args[0])
			}
		},
	}
}

// maxRunLine is how long the line of one run may be.
const maxRunLine = 64 << 20

// An analysis goes through a file of runs. It holds one run at a time.
type analysis struct {
	rules    *flow.Rules
	policies *policy.Set
	profile  string
	asJSON   bool
	out      *bufio.Writer
	errs     io.Writer
	name     string // of the file
	progress func(line int, read int64)

	runs, unread, inferred int
	decisions              map[fairlead.Effect]int
	byRule, byInjection    map[string]int
	scores                 map[string]*score
	sources                []string
	examples               []string
}

func newAnalysis(profile, tools string) (*analysis, error) {
	c := flow.Config{Infer: true}
	switch p := policy.Profile(profile); p {
	case "default":
	case policy.Balanced, policy.Guaranteed:
		c.Profiles = map[policy.Class]policy.Profile{policy.Read: p, policy.Write: p, policy.Egress: p, policy.Irreversible: p}
	default:
		return nil, usagef("there is no profile %q: use balanced, guaranteed or default", profile)
	}
	if tools != "" {
		var err error
		if c.Tools, err = readTools(tools); err != nil {
			return nil, &Error{Err: err, Code: exitUsage}
		}
	}
	untrusted := fairlead.Untrusted
	for _, open := range [...]string{"Observation:", "[Observation]", "<tool_response>", "<tool_result>", "<function_result"} {
		// Recordings without a role for results have them in the user's.
		c.Sources = append(c.Sources, flow.Source{Role: fairlead.RoleUser, Open: open, Integrity: &untrusted})
	}
	a := &analysis{profile: profile, decisions: map[fairlead.Effect]int{}, byRule: map[string]int{}, byInjection: map[string]int{},
		scores: map[string]*score{}, progress: func(int, int64) {}}
	var err error
	if a.rules, err = flow.Compile(c); err != nil {
		return nil, &Error{Err: fmt.Errorf("reading %s: %w", tools, err), Code: exitUsage}
	}
	if a.policies, err = policy.Load(policy.Starter(), policy.Options{}); err != nil {
		return nil, fmt.Errorf("loading the starter policies: %w", err)
	}
	return a, nil
}

// readTools reads a file that classifies tools.
func readTools(file string) (map[string]flow.Tool, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var doc struct {
		Tools map[string]struct {
			Classes   []policy.Class `yaml:"classes"`
			Authority []string       `yaml:"authority"`
			Vetted    bool           `yaml:"vetted"`
		} `yaml:"tools"`
	}
	dec := yaml.NewDecoder(io.LimitReader(f, 16<<20))
	dec.KnownFields(true)
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	out := make(map[string]flow.Tool, len(doc.Tools))
	for name, t := range doc.Tools {
		out[name] = flow.Tool{Classes: t.Classes, Authority: t.Authority, Vetted: t.Vetted}
	}
	return out, nil
}

func (a *analysis) file(ctx context.Context, env *Env, name string) error {
	in := env.Stdin
	if a.name = "standard input"; name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in, a.name = f, filepath.Base(name)
	}
	if f, ok := env.Stderr.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			a.progress = progressOn(f)
		}
	}
	if err := a.lines(ctx, bufio.NewReaderSize(in, 1<<20)); err != nil {
		return err
	}
	if !a.asJSON {
		a.summary()
	}
	if err := a.out.Flush(); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if a.unread > 0 {
		return fmt.Errorf("%d of %d lines could not be read", a.unread, a.unread+a.runs)
	}
	return nil
}

// progressOn shows how far the analysis is, once a second.
func progressOn(w io.Writer) func(int, int64) {
	next := time.Now().Add(time.Second)
	return func(line int, read int64) {
		if now := time.Now(); now.After(next) {
			next = now.Add(time.Second)
			fmt.Fprintf(w, "\r%d lines, %d MB ", line, read>>20)
		}
	}
}

// lines goes over the lines of a file.
func (a *analysis) lines(ctx context.Context, r *bufio.Reader) error {
	var buf []byte
	var read int64
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, long, err := nextLine(r, buf[:0])
		buf = line
		read += int64(len(line))
		if err != nil && err != io.EOF {
			return fmt.Errorf("reading line %d of %s: %w", n, a.name, err)
		}
		end := err == io.EOF
		if line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))); len(line) > 0 || long {
			err := errors.New("it is longer than 64 MiB")
			if !long {
				err = a.line(n, line)
			}
			if err != nil {
				a.unread++
				fmt.Fprintf(a.errs, "fairlead: line %d of %s: %s\n", n, a.name, printable(err.Error()))
			}
		}
		a.progress(n, read)
		if end {
			return nil
		}
		if cap(buf) > 4<<20 {
			buf = nil
		}
	}
}

// nextLine reads a line. One that is too long is skipped to its end.
func nextLine(r *bufio.Reader, buf []byte) (line []byte, long bool, err error) {
	for {
		chunk, err := r.ReadSlice('\n')
		if len(buf)+len(chunk) > maxRunLine {
			long, buf = true, buf[:0]
		} else if !long {
			buf = append(buf, chunk...)
		}
		if err != bufio.ErrBufferFull {
			return buf, long, err
		}
	}
}

// A runFinding is what is said of one run, in the order in which its line has it.
type runFinding struct {
	ID        string          `json:"id"`
	Profile   string          `json:"profile"`
	Decision  string          `json:"decision"`
	At        *int            `json:"at"`
	Tool      string          `json:"tool"`
	Argument  string          `json:"argument"`
	Rule      string          `json:"rule"`
	Evidence  *evidenceOfCall `json:"evidence"`
	Injection string          `json:"injection"`
	Inferred  bool            `json:"inferred"`
}

type evidenceOfCall struct {
	Message     int    `json:"message"`
	From        string `json:"from"`
	Kind        string `json:"kind"`
	Label       string `json:"label"`
	Value       string `json:"value"`
	Instruction string `json:"instruction,omitempty"`
}

func (a *analysis) line(n int, line []byte) error {
	if err := wire.Check(line, wire.Limits{}); err != nil {
		return err
	}
	row := wire.Root(line)
	messages := row
	if row.Kind() == '{' {
		for _, key := range [...]string{"messages", "conversation", "conversations", "trajectory", "history"} {
			if messages = row.Get(key); messages.Kind() == '[' {
				break
			}
		}
	}
	if messages.Kind() != '[' {
		return errors.New(`it has no array "messages"`)
	}
	run, err := flow.ReadRun(messages)
	if err != nil {
		return err
	}
	f := a.decide(run)
	if f.ID = row.Get("id").Text(); f.ID == "" {
		if f.ID = string(row.Get("id").Raw()); f.ID == "" || f.ID == "null" || f.ID == `""` {
			f.ID = fmt.Sprintf("line %d", n)
		}
	}
	a.runs++
	a.decisions[fairlead.Effect(f.Decision)]++
	a.byInjection[f.Injection]++
	if f.Rule != "" {
		a.byRule[f.Rule]++
	}
	if f.Inferred {
		a.inferred++
	}
	if a.asJSON {
		return a.print(f)
	}
	if f.At != nil && len(a.examples) < 10 {
		a.examples = append(a.examples, fmt.Sprintf("%s: %s at message %d, %s(%s): %s", f.ID, f.Decision, *f.At, f.Tool, f.Argument, f.Rule))
	}
	a.score(row, f)
	return nil
}

func (a *analysis) print(f runFinding) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(f); err != nil {
		return err
	}
	_, err := a.out.Write(printableJSON(b.Bytes()))
	return err
}

// decide goes through a run. The finding is that of its first call that is not allowed.
func (a *analysis) decide(run *flow.Run) runFinding {
	f := runFinding{Profile: a.profile, Decision: "allow", Injection: "none"}
	injection := 0
	run.Calls(a.rules, func(c *flow.Context, call flow.RunCall) bool {
		p := c.ToolCall(call.ToolCall, true)
		f.Inferred = f.Inferred || p.Inferred
		i := slices.IndexFunc(p.Arguments, func(arg flow.Argument) bool { return arg.Instructed })
		switch {
		case i < 0:
		case !call.Answered:
			injection = max(injection, 1)
		case call.Failed:
			injection = max(injection, 2)
		default:
			injection = max(injection, 3)
		}
		if f.At != nil {
			return injection < 3
		}
		req := c.Request(p)
		req.Principal.App = policy.Party{ID: "recorded", Assurance: fairlead.Derived}
		req.Context.Enforce = true
		req.Context.Time = time.Unix(0, 0).UTC()
		v := a.policies.Decide(&req)
		if v.Effect == fairlead.Allow {
			return true
		}
		f.Decision = "block"
		if v.Effect == fairlead.Hold {
			f.Decision = "hold"
		}
		f.At, f.Tool = &call.Message, p.Tool
		for _, r := range v.Rules {
			if r.Effect == v.Effect {
				f.Rule = r.ID
				break
			}
		}
		if i < 0 {
			i = slices.IndexFunc(p.Arguments, func(arg flow.Argument) bool {
				return arg.Authority && (len(arg.Evidence) == 0 || arg.Evidence[0].Label.Integrity == fairlead.Untrusted)
			})
		}
		if i >= 0 {
			f.Argument = p.Arguments[i].Path
			f.Evidence = evidenceFor(c, &p.Arguments[i])
		}
		return true
	})
	f.Injection = "none"
	if injection > 0 {
		f.Injection = [...]string{"", "attempted", "blocked", "executed"}[injection]
	} else if len(run.Whole(a.rules).Suspicious()) > 0 {
		f.Injection = "seen"
	}
	return f
}

func evidenceFor(c *flow.Context, arg *flow.Argument) *evidenceOfCall {
	if len(arg.Evidence) == 0 {
		return nil
	}
	ev := arg.Evidence[0]
	for _, e := range arg.Evidence {
		if e.Instruction != nil {
			ev = e
			break
		}
	}
	out := &evidenceOfCall{Message: ev.Message, From: ev.From, Kind: ev.Kind, Label: ev.Label.String(), Value: shorten(arg.Value, 200)}
	for _, s := range c.Suspicious() {
		if ev.Instruction != nil && s.Message == ev.Message && s.Part == ev.Part && s.In == *ev.Instruction {
			out.Instruction = shorten(s.Text, 400)
			break
		}
	}
	return out
}

// A score counts runs by what their labels say.
type score struct {
	hijacked, stopped     int // attack succeeded
	resisted, resistedHit int // the injection was there, and did not succeed
	unreached, lateHit    int // there was an attack, but nothing of it reached the model
	benign, interrupted   int
	other                 int // unsafe without an attack, or without labels
}

func (s *score) add(t *score) {
	s.hijacked, s.stopped = s.hijacked+t.hijacked, s.stopped+t.stopped
	s.resisted, s.resistedHit = s.resisted+t.resisted, s.resistedHit+t.resistedHit
	s.unreached, s.lateHit = s.unreached+t.unreached, s.lateHit+t.lateHit
	s.benign, s.interrupted = s.benign+t.benign, s.interrupted+t.interrupted
	s.other += t.other
}

// score counts a run by its labels, after it was decided.
func (a *analysis) score(row wire.Value, f runFinding) {
	labels := row.Get("labels")
	if labels.Kind() != '{' {
		labels = row
	}
	present, succeeded, reached := labels.Get("attack_present"), labels.Get("attack_succeeded"), labels.Get("injection_reached_model")
	source := row.Get("source").Text()
	if source == "" {
		source = a.name
	}
	s := a.scores[source]
	if s == nil {
		if len(a.scores) >= 1000 {
			return
		}
		s = &score{}
		a.scores[source] = s
		a.sources = append(a.sources, source)
	}
	hit := 0
	if f.At != nil {
		hit = 1
	}
	switch {
	case present.Kind() == 't' && succeeded.Kind() == 't':
		s.hijacked++
		s.stopped += hit
	case present.Kind() == 't' && reached.Kind() == 'f':
		s.unreached++
		s.lateHit += hit
	case present.Kind() == 't' && succeeded.Kind() == 'f':
		s.resisted++
		s.resistedHit += hit
	case present.Kind() == 'f' && succeeded.Kind() != 't':
		s.benign++
		s.interrupted += hit
	default:
		s.other++
	}
}

// summary prints what was found, for people.
func (a *analysis) summary() {
	w := a.out
	fmt.Fprintf(w, "%d runs, profile %s: %d allowed, %d held, %d blocked\n", a.runs, a.profile,
		a.decisions[fairlead.Allow], a.decisions[fairlead.Hold], a.decisions["block"])
	if a.inferred > 0 {
		fmt.Fprintf(w, "in %d of them what a tool can do was guessed from its name; --tools says it for certain\n", a.inferred)
	}
	counts(w, "rules that stopped the first call", a.byRule)
	counts(w, "instructions in untrusted content, as recorded", a.byInjection)
	if len(a.examples) > 0 {
		fmt.Fprint(w, "\nthe first runs that would have been stopped:\n")
		for _, e := range a.examples {
			fmt.Fprintf(w, "  %s\n", printable(e))
		}
	}
	var all score
	labelled := false
	for _, s := range a.scores {
		all.add(s)
		labelled = labelled || s.hijacked+s.resisted+s.unreached+s.benign > 0
	}
	if !labelled {
		return
	}
	fmt.Fprintf(w, "\nby the labels in the file, which had no part in any decision (profile %s):\n", a.profile)
	slices.Sort(a.sources)
	for _, name := range a.sources {
		rates(w, name, a.scores[name])
	}
	if len(a.sources) > 1 {
		rates(w, "all", &all)
	}
}

func counts(w io.Writer, title string, m map[string]int) {
	if len(m) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.SortFunc(names, func(a, b string) int {
		if m[a] != m[b] {
			return m[b] - m[a]
		}
		return strings.Compare(a, b)
	})
	for _, k := range names {
		fmt.Fprintf(w, "  %6d  %s\n", m[k], printable(k))
	}
}

func rates(w io.Writer, name string, s *score) {
	fmt.Fprintf(w, "  %s\n", printable(name))
	for _, r := range [...]struct {
		what string
		k, n int
	}{
		{"hijacked runs stopped", s.stopped, s.hijacked},
		{"injected, not hijacked: stopped", s.resistedHit, s.resisted},
		{"attack never reached the model: stopped", s.lateHit, s.unreached},
		{"benign runs interrupted", s.interrupted, s.benign},
	} {
		if r.n > 0 {
			lo, hi := wilson(r.k, r.n)
			fmt.Fprintf(w, "    %-42s %5d of %5d  %5.1f %%  [%.1f, %.1f]\n", r.what, r.k, r.n, 100*float64(r.k)/float64(r.n), 100*lo, 100*hi)
		}
	}
	if s.other > 0 {
		fmt.Fprintf(w, "    %-42s %5d\n", "without labels, or unsafe for another reason", s.other)
	}
}

// wilson gives the 95 % score interval of a rate (Wilson, 1927).
func wilson(k, n int) (lo, hi float64) {
	const z = 1.959963984540054
	p, m := float64(k)/float64(n), float64(n)
	mid := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, mid-half), min(1, mid+half)
}
