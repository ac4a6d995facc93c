package provenance

import (
	"context"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/verify"
)

// A Source is where calls are looked up.
type Source struct {
	Reader *ledger.Reader
	Views  *ledger.Views
}

// A Call is a recorded call as a person wants to see it.
type Call struct {
	ID        string    `json:"id"`
	Seq       int64     `json:"seq"`
	Time      time.Time `json:"time"`
	Operation string    `json:"operation,omitempty"`
	Provider  string    `json:"provider,omitempty"`
	Model     string    `json:"model,omitempty"`
	Answered  string    `json:"answered_by,omitempty"` // the model that the provider says answered
	App       Who       `json:"app"`
	User      Who       `json:"user"`
	Agent     Who       `json:"agent"`
	Chain     []string  `json:"chain,omitempty"`
	Outcome   string    `json:"outcome"`
	Conflict  string    `json:"identity_conflict,omitempty"`

	intent, outcome *verify.Envelope
	open            *OpenCall
	openErr         error
}

// Content opens what the call's outcome refers to by name; without it, it gives nil and no error.
func (c *Call) Content(ctx context.Context, v *ledger.Vault, name string) ([]byte, error) {
	if c.outcome == nil {
		return nil, nil
	}
	for _, content := range c.outcome.Content {
		if content.Name == name {
			o, err := v.Open(ctx, content)
			return o.Body, err
		}
	}
	return nil, nil
}

// Completed is the fact that completes the call, or nil while it is under way.
func (c *Call) Completed() *fairlead.Fact {
	if c.outcome == nil {
		return nil
	}
	return &c.outcome.Fact
}

// Rules are the policies that object to the call or to what its answer asks for, and Withheld the tool calls that were
// taken out of the answer.
func (c *Call) Rules() (rules, withheld []string) {
	for _, e := range []*verify.Envelope{c.intent, c.outcome} {
		if e == nil {
			continue
		}
		list, _ := e.Attr("fairlead.policy.rules").([]string)
		rules = append(rules, list...)
		list, _ = e.Attr("fairlead.tools.withheld").([]string)
		withheld = append(withheld, list...)
	}
	return rules, withheld
}

// Who is one facet of the actor, with the clear name where the vault has it.
type Who struct {
	Value     string `json:"value,omitempty"`
	Name      string `json:"name,omitempty"`
	Assurance string `json:"assurance"`
	Method    string `json:"method,omitempty"`
	Issuer    string `json:"issuer,omitempty"`
}

// An Explanation says why a call came about and what its answer asked for.
type Explanation struct {
	Call      *Call      `json:"call"`
	ToolCalls []ToolCall `json:"tool_calls"`
	Answer    string     `json:"answer,omitempty"` // the beginning of its text
	Messages  []Message  `json:"messages"`
	Causes    []Cause    `json:"causes"`
	// Sealed says why content could not be shown, if it could not.
	Sealed string `json:"sealed,omitempty"`
}

// A ToolCall is a tool invocation that the answer asks for, with where its arguments come from.
type ToolCall struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Arguments string     `json:"arguments"`
	Evidence  []Evidence `json:"evidence"`
}

// Evidence is a place in the prompt that holds the value of an argument.
type Evidence struct {
	Argument string `json:"argument"`
	Matched  string `json:"matched"`
	Message  int    `json:"message"` // index into Messages
	Part     int    `json:"part"`
	Start    int    `json:"start"` // bytes into the part's text
	End      int    `json:"end"`
	Sentence string `json:"sentence"`
	// Untrusted: the value stands in tool results only, nowhere in what system or user said.
	Untrusted bool `json:"untrusted"`
}

// A Message is one message of the prompt and how it got there.
type Message struct {
	Index     int    `json:"index"`
	Role      string `json:"role"`
	Text      string `json:"text"`
	Tool      string `json:"tool,omitempty"`    // a result: the tool that gave it
	CallID    string `json:"call_id,omitempty"` // the provider's id of the tool call
	Origin    string `json:"origin"`            // sent, returned, resent, declared
	Call      string `json:"call,omitempty"`    // the call that it came in with, or that returned it
	Assurance string `json:"assurance"`
}

// A Cause is an edge of the graph: the later call, the relation and the earlier call.
type Cause struct {
	From      string `json:"from"`
	Relation  string `json:"relation"`
	Prov      string `json:"prov"` // the W3C PROV term
	Assurance string `json:"assurance"`
	To        *Call  `json:"to"`
}

// Prov gives the W3C PROV relation that each of ours refines.
var Prov = map[fairlead.Relation]string{
	fairlead.RelCompletes: "wasStartedBy", fairlead.RelContinues: "wasInformedBy", fairlead.RelResends: "wasInformedBy",
	fairlead.RelToolResult: "wasDerivedFrom", fairlead.RelRefers: "wasDerivedFrom", fairlead.RelPossible: "wasInfluencedBy",
	fairlead.RelRevokes: "wasInvalidatedBy", fairlead.RelReplaces: "wasRevisionOf",
	fairlead.RelAbout: "used", fairlead.RelApproves: "wasInformedBy", fairlead.RelUses: "used",
}

// maxCauses bounds how many edges one explanation follows.
const maxCauses = 1000

// Why explains the call with the given id: its intent's, or that of any fact about it.
func Why(ctx context.Context, src Source, id fairlead.ID) (*Explanation, error) {
	w := walker{ctx: ctx, src: src, calls: map[fairlead.ID]*Call{}}
	c, err := w.call(id)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Call: c, ToolCalls: []ToolCall{}, Messages: []Message{}, Causes: []Cause{}}
	if err := w.causes(c, e); err != nil {
		return nil, err
	}
	if c.openErr != nil {
		e.Sealed = c.openErr.Error()
		return e, nil
	}
	for i := range c.open.Exchange.Messages {
		m, err := w.message(c, i)
		if err != nil {
			return nil, err
		}
		e.Messages = append(e.Messages, m)
	}
	if a := c.open.Answer; a != nil {
		e.Answer = clip(a.Text, 400)
		for _, t := range a.ToolCalls {
			e.ToolCalls = append(e.ToolCalls, ToolCall{t.ID, t.Name, t.Arguments, evidence(c.open, t.Arguments)})
		}
	}
	return e, nil
}

type walker struct {
	ctx   context.Context
	src   Source
	calls map[fairlead.ID]*Call
}

// call loads a call once. id may be that of any fact that completes it.
func (w *walker) call(id fairlead.ID) (*Call, error) {
	if c := w.calls[id]; c != nil {
		return c, nil
	}
	seq, err := w.src.Views.Find(w.ctx, id)
	if err != nil {
		return nil, err
	}
	e, err := w.src.Reader.Fact(w.ctx, seq)
	if err != nil {
		return nil, err
	}
	if to := e.Link(fairlead.RelCompletes); !to.IsZero() {
		return w.call(to)
	}
	if e.Kind != fairlead.KindCallIntent && e.Kind != fairlead.KindCallRefused {
		return nil, fmt.Errorf("%s is a %s, not a call", id, e.Kind)
	}
	c, err := w.load(seq, e)
	if err == nil {
		w.calls[id] = c
	}
	return c, err
}

// LoadCall gives a call, from its intent or its refusal, with its outcome.
func LoadCall(ctx context.Context, src Source, seq int64, intent *verify.Envelope) (*Call, error) {
	w := walker{ctx: ctx, src: src}
	return w.load(seq, intent)
}

func (w *walker) load(seq int64, intent *verify.Envelope) (*Call, error) {
	c := &Call{ID: intent.ID.String(), Seq: seq, Time: intent.Time, intent: intent, Chain: intent.Actor.Chain,
		Operation: intent.Text("gen_ai.operation.name"), Provider: intent.Text("gen_ai.provider.name"),
		Model: intent.Text("gen_ai.request.model"), Conflict: intent.Text("fairlead.identity.conflict")}
	c.Outcome = "under way"
	if intent.Kind == fairlead.KindCallRefused {
		c.Outcome = "refused: " + intent.Text("fairlead.refusal")
	} else if at, err := w.src.Views.Outcome(w.ctx, intent.ID); err != nil {
		return nil, err
	} else if at >= 0 {
		if c.outcome, err = w.src.Reader.Fact(w.ctx, at); err != nil {
			return nil, err
		}
		c.Outcome = c.outcome.Text("fairlead.outcome")
		c.Answered = c.outcome.Text("gen_ai.response.model")
	}
	c.open, c.openErr = Open(w.ctx, w.src.Reader.Vault(), intent, c.outcome)
	names := map[string]string{}
	if c.open != nil {
		for i := 0; i+1 < len(c.open.Request.Names); i += 2 {
			names[c.open.Request.Names[i]] = c.open.Request.Names[i+1]
		}
	}
	who := func(f fairlead.Facet) Who {
		if f.Assurance == "" {
			f.Assurance = fairlead.Absent
		}
		return Who{f.Value, names[f.Value], string(f.Assurance), f.Method, f.Issuer}
	}
	c.App, c.User, c.Agent = who(intent.Actor.App), who(intent.Actor.User), who(intent.Actor.Agent)
	// That the provider accepted the client's own key is known only with the outcome.
	if c.outcome != nil && c.outcome.Actor.App.Value == intent.Actor.App.Value && c.App.Value != "" {
		c.App = who(c.outcome.Actor.App)
	}
	return c, nil
}

// Tools lists the tools that the call's answer asks for.
func (c *Call) Tools() []string {
	if c.outcome == nil {
		return nil
	}
	names, _ := c.outcome.Attr("fairlead.tools.called").([]string)
	return names
}

// causes collects the edges backwards from c, breadth first.
func (w *walker) causes(c *Call, e *Explanation) error {
	seen := map[string]bool{c.ID: true}
	for queue := []*Call{c}; len(queue) > 0 && len(e.Causes) < maxCauses; queue = queue[1:] {
		from := queue[0]
		for _, l := range from.intent.Links {
			to, err := w.call(l.To)
			if err != nil {
				if w.ctx.Err() != nil {
					return err
				}
				continue // verify is for what is missing
			}
			e.Causes = append(e.Causes, Cause{from.ID, string(l.Rel), Prov[l.Rel], string(l.Assurance), to})
			if !seen[to.ID] && l.Rel != fairlead.RelPossible {
				seen[to.ID] = true
				queue = append(queue, to)
			}
		}
	}
	return nil
}

// message describes message i of call c's prompt, following it back to the call that it came in with.
func (w *walker) message(c *Call, i int) (Message, error) {
	body, msg := c.open.Request.Body, c.open.Exchange.Messages[i]
	m := Message{Index: i, Role: string(msg.Role), Text: clip(messageText(body, msg), 2000), Origin: "sent", Call: c.ID, Assurance: string(fairlead.Derived)}
	for _, p := range msg.Parts {
		if p.Kind == fairlead.PartToolResult {
			m.CallID = p.CallID
			m.Role = string(fairlead.RoleTool)
		}
	}
	at := c
	for hops := 0; hops < 10_000; hops++ {
		known, returned := int(at.intent.Int("fairlead.messages.known")), int(at.intent.Int("fairlead.messages.returned"))
		if i >= known+returned {
			break
		}
		parent, assurance := parentOf(at.intent)
		if parent.IsZero() {
			break
		}
		next, err := w.call(parent)
		if err != nil {
			break
		}
		if assurance == fairlead.Ambiguous {
			m.Assurance = string(fairlead.Ambiguous)
		}
		if i >= known {
			m.Origin, m.Call = "returned", next.ID
			return m, nil
		}
		at = next
		m.Origin, m.Call = "resent", at.ID
	}
	if msg.Role == fairlead.RoleAssistant {
		m.Origin, m.Assurance = "declared", string(fairlead.Declared)
	}
	if m.CallID != "" {
		w.toolOrigin(at, &m)
	}
	return m, w.ctx.Err()
}

// toolOrigin finds the answer that asked for the tool whose result m is.
func (w *walker) toolOrigin(at *Call, m *Message) {
	for _, l := range at.intent.Links {
		asker, err := w.call(l.To)
		if err != nil || asker.open == nil || asker.open.Answer == nil {
			continue
		}
		for _, t := range asker.open.Answer.ToolCalls {
			if t.ID == m.CallID {
				m.Tool = t.Name
				return
			}
		}
	}
	m.Origin, m.Assurance = "declared", string(fairlead.Declared)
}

// parentOf is the call whose prompt the first messages of this one come from.
func parentOf(e *verify.Envelope) (fairlead.ID, fairlead.Assurance) {
	for _, rel := range []fairlead.Relation{fairlead.RelContinues, fairlead.RelResends, fairlead.RelPossible} {
		for _, l := range e.Links {
			if l.Rel == rel {
				return l.To, l.Assurance
			}
		}
	}
	return fairlead.ID{}, ""
}

func messageText(body []byte, m fairlead.Message) string {
	var out string
	for _, p := range m.Parts {
		t := dialect.PartText(body, p)
		if p.Kind == fairlead.PartToolCall {
			t = p.Name + "(" + t + ")"
		}
		if out != "" && t != "" {
			out += "\n"
		}
		out += t
	}
	return out
}

// evidence looks for the arguments of a tool call in the prompt.
func evidence(c *OpenCall, arguments string) []Evidence {
	type place struct {
		message, part int
		trusted       bool
		text          string
		folded        folded
	}
	var places []place
	for i, m := range c.Exchange.Messages {
		for j, p := range m.Parts {
			if p.Kind != fairlead.PartText && p.Kind != fairlead.PartToolResult || m.Role == fairlead.RoleAssistant {
				continue
			}
			text := dialect.PartText(c.Request.Body, p)
			places = append(places, place{i, j, p.Kind == fairlead.PartText && m.Role != fairlead.RoleTool, text, fold(text)})
		}
	}
	out := []Evidence{}
	for _, l := range leaves(arguments) {
		first := len(out)
		trusted := false
		for _, p := range places {
			matched, start, end, ok := locate(p.folded, l.value)
			if !ok {
				continue
			}
			trusted = trusted || p.trusted
			out = append(out, Evidence{Argument: l.name, Matched: matched, Message: p.message, Part: p.part, Start: start, End: end,
				Sentence: sentence(p.text, start, end)})
		}
		for i := first; i < len(out); i++ {
			out[i].Untrusted = !trusted
		}
	}
	return out
}

// clip shortens text for display.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}
