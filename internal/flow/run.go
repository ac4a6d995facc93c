package flow

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// A Run is a run of an agent that was recorded elsewhere, in the form in which the engine reads requests.
type Run struct {
	body     []byte
	exchange fairlead.Exchange
	calls    map[int][]RunCall // by message
	Messages int
}

// A RunCall is a tool call of a recorded run.
type RunCall struct {
	fairlead.ToolCall
	Message int
	// Answered: the recording has a result for it. Failed: the result says that the call was refused or went wrong.
	Answered, Failed bool
}

// ReadRun reads a list of messages as OpenAI's chat API has them, and the ways in which recordings differ from it:
// content as a string, a list of parts or a structure; arguments as a string or an object; tool calls without ids and
// results without the id of their call, which then belong together by their order; the roles "function", "developer"
// and others' words for them; Anthropic's tool_use and tool_result blocks. The list must have passed [wire.Check].
func ReadRun(messages wire.Value) (*Run, error) {
	if messages.Kind() != '[' {
		return nil, errors.New(`"messages" must be an array of messages`)
	}
	n := normaliser{run: &Run{calls: map[int][]RunCall{}}}
	n.out = append(n.out, `{"model":"","messages":[`...)
	for m := range messages.Elements() {
		if m.Kind() != '{' {
			return nil, fmt.Errorf("message %d is no object", n.run.Messages)
		}
		if n.run.Messages++; n.run.Messages > 1 {
			n.out = append(n.out, ',')
		}
		n.message(m)
	}
	n.run.body = append(n.out, "]}"...)
	d, _ := dialect.Lookup("openai")
	rt, _ := dialect.Match(d, "POST", "/v1/chat/completions")
	var err error
	if n.run.exchange, err = d.Read(rt, n.run.body); err != nil {
		return nil, fmt.Errorf("reading the messages: %w", err)
	}
	if len(n.run.exchange.Messages) != n.run.Messages {
		return nil, errors.New("the messages cannot be told apart")
	}
	return n.run, nil
}

type normaliser struct {
	run     *Run
	out     []byte
	pending []pending // calls that have no result yet
}

type pending struct {
	id        string
	at, index int
}

func (n *normaliser) message(m wire.Value) {
	var role, content, calls, function, id, failure wire.Value
	for key, v := range m.Members() {
		switch key.String() {
		case "role", "from", "type":
			if role.Kind() == 0 || key.Equal("role") {
				role = v
			}
		case "content", "value", "text":
			if content.Kind() == 0 || key.Equal("content") {
				content = v
			}
		case "tool_calls":
			calls = v
		case "function_call":
			function = v
		case "tool_call_id", "tool_use_id":
			id = v
		case "error", "is_error":
			failure = v
		}
	}
	at := n.run.Messages - 1
	r := roleOf(role.Text())
	for c := range calls.Elements() {
		n.call(at, c)
	}
	if function.Kind() == '{' {
		n.call(at, function)
	}
	var body strings.Builder
	n.content(&body, at, content, &r, &id)
	n.out = wire.AppendQuote(append(n.out, `{"role":`...), r)
	n.out = wire.AppendQuote(append(n.out, `,"content":`...), body.String())
	if r == "tool" {
		n.out = wire.AppendQuote(append(n.out, `,"tool_call_id":`...), n.answered(id.Text(), failed(failure, body.String())))
	}
	if made := n.run.calls[at]; len(made) > 0 && r == "assistant" {
		n.out = append(n.out, `,"tool_calls":[`...)
		for i, c := range made {
			if i > 0 {
				n.out = append(n.out, ',')
			}
			n.out = wire.AppendQuote(append(n.out, `{"type":"function","id":`...), c.ID)
			n.out = wire.AppendQuote(append(n.out, `,"function":{"name":`...), c.Name)
			n.out = wire.AppendQuote(append(n.out, `,"arguments":`...), c.Arguments)
			n.out = append(n.out, "}}"...)
		}
		n.out = append(n.out, ']')
	}
	n.out = append(n.out, '}')
}

// roleOf reads a role, in the words of several recorders. Whatever nobody knows was said by the world outside.
func roleOf(s string) string {
	switch strings.ToLower(s) {
	case "system", "developer":
		return "system"
	case "user", "human":
		return "user"
	case "assistant", "ai", "gpt", "model", "agent", "bot":
		return "assistant"
	}
	return "tool"
}

// content gathers the readable text of a message. Blocks that call a tool or give its result count as such.
func (n *normaliser) content(b *strings.Builder, at int, v wire.Value, role *string, id *wire.Value) {
	line := func(s string) {
		if b.Len() > 0 && s != "" {
			b.WriteByte('\n')
		}
		b.WriteString(s)
	}
	switch v.Kind() {
	case '"':
		line(v.Text())
	case '[':
		for e := range v.Elements() {
			n.content(b, at, e, role, id)
		}
	case '{':
		kind := v.Get("type").Text()
		switch {
		case kind == "tool_use":
			n.call(at, v)
		case kind == "tool_result":
			*role, *id = "tool", v.Get("tool_use_id")
			n.content(b, at, v.Get("content"), role, id)
		case kind == "image_url" || kind == "image" || kind == "input_audio":
		case v.Get("text").Kind() == '"':
			line(v.Get("text").Text())
		default:
			line(string(v.Raw()))
		}
	case '0', 't', 'f':
		line(string(v.Raw()))
	}
}

func (n *normaliser) call(at int, v wire.Value) {
	f := v.Get("function")
	if f.Kind() != '{' {
		f = v
	}
	c := RunCall{Message: at, ToolCall: fairlead.ToolCall{ID: v.Get("id").Text(), Name: f.Get("name").Text()}}
	if f.Kind() == '{' && c.Name == "" {
		c.Name = v.Get("function").Text()
	}
	var args wire.Value
	for _, key := range [...]string{"arguments", "args", "input", "parameters"} {
		if args = f.Get(key); args.Kind() != 0 {
			break
		}
	}
	switch args.Kind() {
	case '"':
		c.Arguments = args.Text()
	case 0, 'n':
		c.Arguments = "{}"
	default:
		c.Arguments = string(args.Raw())
	}
	if c.ID == "" {
		c.ID = "unnamed-" + strconv.Itoa(at) + "-" + strconv.Itoa(len(n.run.calls[at]))
	}
	n.pending = append(n.pending, pending{c.ID, at, len(n.run.calls[at])})
	n.run.calls[at] = append(n.run.calls[at], c)
	if len(n.pending) > maxPending {
		n.pending = n.pending[1:]
	}
}

// maxPending is how many unanswered calls a result may belong to.
const maxPending = 1000

// answered gives the id of the call that a result belongs to: the one that it names, else the oldest open one.
func (n *normaliser) answered(id string, failed bool) string {
	for i, p := range n.pending {
		if id == "" || p.id == id {
			n.pending = append(n.pending[:i:i], n.pending[i+1:]...)
			c := &n.run.calls[p.at][p.index]
			c.Answered, c.Failed = true, failed
			return p.id
		}
	}
	return id
}

// failed reports whether a result says that there is none: it is marked as an error, or begins with that word.
func failed(mark wire.Value, text string) bool {
	switch mark.Kind() {
	case '"':
		return mark.Text() != ""
	case 't', '{':
		return true
	}
	text = strings.TrimLeft(text, " \n\"'[{")
	return len(text) >= 5 && strings.EqualFold(text[:5], "error")
}

// Calls goes over the tool calls of the run in their order, each with what was known when the model asked for it. It
// stops when yield returns false.
func (run *Run) Calls(r *Rules, yield func(c *Context, call RunCall) bool) {
	var c *Context
	ex := run.exchange
	for i := range run.Messages {
		calls := run.calls[i]
		if len(calls) == 0 {
			continue
		}
		ex.Messages = run.exchange.Messages[:i]
		in := Input{Body: run.body, Exchange: &ex, Before: c}
		if c != nil {
			in.Known = c.messages
		}
		c = r.Label(in)
		for _, call := range calls {
			if !yield(c, call) {
				return
			}
		}
	}
}

// Whole labels all of the run.
func (run *Run) Whole(r *Rules) *Context {
	return r.Label(Input{Body: run.body, Exchange: &run.exchange})
}
