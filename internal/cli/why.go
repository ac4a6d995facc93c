package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/gateway"
	"github.com/fairleadhq/fairlead/internal/provenance"
)

func whyCommand() *Command {
	return &Command{
		Name: "why", Usage: "[--json] ID", Short: "explain why a call happened, down to the words that caused it",
		Long: `Explains the call ID: who is behind it and how well each is known, every message that led there and where it came from,
the tools that its answer asks for, and for each argument of these the words of the prompt that it was taken from.

Assurance is one of verified (a credential that we checked), derived (we saw it in the bytes), declared (the caller says
so), ambiguous and absent. A value marked UNTRUSTED stands in tool results only: neither the system prompt nor a user
said it.`,
		Setup: func(fs *flag.FlagSet) Run {
			data, keys, asJSON := dataFlag(fs), keysFlag(fs), jsonFlag(fs)
			return func(ctx context.Context, env *Env, args []string) error {
				if err := wantArgs(args, "ID"); err != nil {
					return err
				}
				f, err := openFolder(ctx, env, *data, *keys, false)
				if err != nil {
					return err
				}
				defer f.close()
				e, err := why(ctx, f, args[0])
				if err != nil {
					return err
				}
				if *asJSON {
					return writeJSON(env.Stdout, e)
				}
				return printWhy(env.Stdout, e.Explanation, e.Decisions)
			}
		},
	}
}

// An explained call is its explanation, with what policy decided about the tool calls of its answer.
type explained struct {
	*provenance.Explanation
	Decisions []gateway.ToolDecision `json:"decisions,omitempty"`
}

func why(ctx context.Context, f *folder, ref string) (*explained, error) {
	seq, err := f.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	fact, err := f.Fact(ctx, seq)
	if err != nil {
		return nil, err
	}
	return explainCall(ctx, f.source(), fact.ID)
}

func explainCall(ctx context.Context, src provenance.Source, id fairlead.ID) (*explained, error) {
	e, err := provenance.Why(ctx, src, id)
	if err != nil {
		return nil, err
	}
	out := &explained{Explanation: e}
	if outcome := e.Call.Completed(); outcome != nil {
		out.Decisions = gateway.DecisionsOf(outcome)
	}
	// What cannot be opened is not shown; the explanation says so itself.
	if body, err := e.Call.Content(ctx, src.Reader.Vault(), "verdict"); err == nil && len(body) > 0 {
		if out.Decisions, err = gateway.ReadDecisions(body); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// A tree prints lines with branches in front.
type tree struct {
	w      io.Writer
	prefix string
	err    error
}

func (t *tree) line(last bool, format string, args ...any) *tree {
	branch, below := "├─ ", "│  "
	if last {
		branch, below = "└─ ", "   "
	}
	text := printable(fmt.Sprintf(format, args...))
	for i, l := range strings.Split(text, "\n") {
		p := t.prefix + branch
		if i > 0 {
			p = t.prefix + below + "  "
		}
		if t.err == nil {
			_, t.err = fmt.Fprintf(t.w, "%s%s\n", p, l)
		}
	}
	return &tree{w: t.w, prefix: t.prefix + below}
}

// printWhy prints an explanation as a tree.
func printWhy(w io.Writer, e *provenance.Explanation, decisions []gateway.ToolDecision) error {
	c := e.Call
	_, err := fmt.Fprintf(w, "%s\n", printable(fmt.Sprintf("call %s  (event %d, %s, %s)", c.ID, c.Seq, c.Time.Format("2006-01-02 15:04:05 MST"), c.Outcome)))
	t := &tree{w: w, err: err}
	for _, tc := range e.ToolCalls {
		printToolCall(t, e, tc)
	}
	for i := range decisions {
		printDecision(t, &decisions[i])
	}
	if len(e.ToolCalls) == 0 && e.Answer != "" {
		t.line(false, "answered %q", e.Answer)
	}
	by := t.line(false, "on behalf of")
	by.line(false, "app    %s", whoWords(c.App))
	by.line(false, "user   %s", whoWords(c.User))
	by.line(len(c.Chain) == 0, "agent  %s", whoWords(c.Agent))
	if len(c.Chain) > 0 {
		by.line(true, "chain  %s", strings.Join(c.Chain, " → "))
	}
	if c.Conflict != "" {
		t.line(false, "identity conflict: %s", c.Conflict)
	}
	answered := ""
	if c.Answered != "" && c.Answered != c.Model {
		answered = ", answered by " + c.Answered
	}
	model := c.Model
	if model == "" {
		model = "unknown"
	}
	t.line(false, "model  %s at %s%s", model, c.Provider, answered)
	printCauses(t, e)
	if e.Sealed != "" {
		t.line(true, "content not shown: %s", e.Sealed)
		return t.err
	}
	m := t.line(true, "because of these messages")
	for i, msg := range e.Messages {
		printMessage(m, msg, i == len(e.Messages)-1)
	}
	return t.err
}

func printToolCall(t *tree, e *provenance.Explanation, tc provenance.ToolCall) {
	b := t.line(false, "asked for tool %s(%s)", tc.Name, shorten(tc.Arguments, 200))
	if len(tc.Evidence) == 0 {
		b.line(true, "none of its arguments stands in the prompt")
	}
	for i, ev := range tc.Evidence {
		from := e.Messages[ev.Message]
		warn := ""
		if ev.Untrusted {
			warn = "UNTRUSTED, "
		}
		s := b.line(i == len(tc.Evidence)-1, "%s %q  %sfrom message %d, %s", ev.Argument, shorten(ev.Matched, 80), warn, from.Index+1, roleWords(from))
		s.line(true, "“%s”", ev.Sentence)
	}
}

// printDecision says what policy made of a tool call of the answer.
func printDecision(t *tree, d *gateway.ToolDecision) {
	did := map[fairlead.Effect]string{fairlead.Allow: "released", fairlead.Hold: "held, and not released", fairlead.Deny: "denied, and not released"}[d.Effect]
	if d.Used {
		did = "released, once, on approval " + d.Approval
	} else if d.Approval != "" {
		did += "; approval " + d.Approval + " was asked for"
	}
	if d.Effect == fairlead.Allow && !d.Used && d.Verdict.Effect != fairlead.Allow {
		did = "released, because this route only observes; enforce mode would " + string(d.Verdict.Effect) + " it"
	}
	b := t.line(false, "tool call %s: %s  (profile %s, model saw %s)", d.Resource.Name, did, d.Profile, d.Label)
	if d.Verdict.Effect == fairlead.Allow {
		b.line(true, "no rule objects")
		return
	}
	for i, r := range d.Verdict.Rules {
		b.line(i == len(d.Verdict.Rules)-1, "rule %s: %s", r.ID, r.Reason)
	}
}

func printCauses(t *tree, e *provenance.Explanation) {
	if len(e.Causes) == 0 {
		return
	}
	c := t.line(false, "follows from")
	for i, cause := range e.Causes {
		tools := ""
		if names := cause.To.Tools(); len(names) > 0 {
			tools = "  called " + strings.Join(names, ", ")
		}
		from := ""
		if cause.From != e.Call.ID {
			from = " (of " + cause.From + ")"
		}
		c.line(i == len(e.Causes)-1, "%s %s%s  [%s, prov:%s]  %s%s", cause.Relation, cause.To.ID, from, cause.Assurance, cause.Prov, cause.To.Outcome, tools)
	}
}

func printMessage(t *tree, m provenance.Message, last bool) {
	how := map[string]string{"sent": "came in with this call", "resent": "came in with call " + m.Call, "returned": "returned by us in call " + m.Call,
		"declared": "not returned or asked for by us: the caller's claim"}[m.Origin]
	b := t.line(last, "%d %s  [%s]  %s", m.Index+1, roleWords(m), m.Assurance, how)
	b.line(true, "%s", shorten(oneLine(m.Text), 160))
}

func roleWords(m provenance.Message) string {
	switch {
	case m.CallID != "" && m.Tool != "":
		return "result of " + m.Tool + " (" + m.CallID + ")"
	case m.CallID != "":
		return "tool result (" + m.CallID + ")"
	}
	return m.Role
}

func whoWords(w provenance.Who) string {
	if w.Value == "" {
		return w.Assurance
	}
	s := w.Value
	if w.Name != "" {
		s = w.Name + " (" + w.Value + ")"
	}
	s += "  " + w.Assurance
	if w.Method != "" {
		s += " by " + w.Method
	}
	if w.Issuer != "" {
		s += " of " + w.Issuer
	}
	return s
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
