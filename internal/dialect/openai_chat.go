package dialect

import (
	"bytes"
	"math"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// chat reads a request for a chat completion.
func (r *reader) chat(v wire.Value) {
	var f [11]wire.Value
	pick(v, f[:], "model", "stream", "messages", "tools", "functions", "safety_identifier", "user", "web_search_options",
		"max_completion_tokens", "max_tokens", "n")
	tools, functions := f[3], f[4]
	r.settings(f[0], f[1])
	r.messages("messages", f[2], r.chatMessage)
	r.unit(tools)
	r.unit(functions)
	r.openAITools(tools)
	for e := range functions.Elements() {
		r.tool(e.Get("name").Text())
	}
	if present(f[7]) {
		r.hosted("web_search")
	}
	r.ex.User = first(f[5].Text(), f[6].Text())
	r.maxOutput(f[8], f[9])
	if n, ok := f[10].Int(); ok && n > 1 && r.ex.MaxOutput > 0 { // each of the alternatives may be so long
		r.ex.MaxOutput *= min(n, 128)
	}
}

// chatMessage reads a message of a request or of an answer. A member of an assistant message that we do not know, if
// it holds anything, is a part of its own, so that such a message equals no answer that we returned.
func (r *reader) chatMessage(m *fairlead.Message, v wire.Value) {
	var f [14]wire.Value
	other := pick(v, f[:], "role", "content", "refusal", "tool_calls", "function_call", "tool_call_id", "name",
		"reasoning_content", "reasoning", "audio", "annotations", "parsed", "reasoning_details", "thinking_blocks")
	content, refusal, calls, legacy, reasoning, audio := f[1], f[2], f[3], f[4], f[7], f[9]
	m.Role = role(f[0])
	if name := f[0].Text(); (name == "tool" || name == "function") && present(content) {
		p := r.part(m, fairlead.PartToolResult, content)
		p.CallID, p.Name = f[5].Text(), f[6].Text()
		for e := range content.Elements() {
			r.openAIMedia(e)
		}
		content = wire.Value{}
	}
	for _, v := range [...]wire.Value{f[8], f[12], f[13]} { // other servers' names for it
		if !substantial(reasoning) {
			reasoning = v
		}
	}
	if substantial(reasoning) {
		r.part(m, fairlead.PartReasoning, reasoning)
	}
	r.openAIContent(m, content)
	if substantial(refusal) {
		r.part(m, fairlead.PartRefusal, refusal)
	}
	if substantial(calls) && calls.Kind() != '[' {
		r.call(m, wire.Value{}, wire.Value{}, calls) // a client may make something of it
	}
	for c := range calls.Elements() {
		if r.err != nil {
			return
		}
		var f [4]wire.Value
		pick(c, f[:], "id", "type", "function", "custom")
		if f[3].Kind() == '{' {
			r.chatCall(m, c, f[0], f[3], "input")
		} else {
			r.chatCall(m, c, f[0], f[2], "arguments")
		}
	}
	if present(legacy) {
		r.chatCall(m, legacy, wire.Value{}, legacy, "arguments")
	}
	if present(audio) {
		r.state("audio", audio.Get("id"))
		r.part(m, fairlead.PartMedia, audio)
	}
	if m.Role == fairlead.RoleAssistant && substantial(other) {
		r.part(m, fairlead.PartOther, other)
	}
}

// chatCall reads a call whose name and arguments are in inner, which call holds. Where it has no arguments, or none that
// we know of, the whole call is taken for them.
func (r *reader) chatCall(m *fairlead.Message, call, id, inner wire.Value, arguments string) {
	var f [2]wire.Value
	pick(inner, f[:], "name", arguments)
	if f[1].Kind() == 0 {
		f[1] = call
	}
	r.call(m, id, f[0], f[1])
}

// chatAnswer reads a whole completion. Its text is that of the first choice; its tool calls are those of all choices,
// because a client may act on any of them.
func chatAnswer(body []byte, v wire.Value) (fairlead.Answer, error) {
	var f [4]wire.Value
	pick(v, f[:], "id", "model", "choices", "usage")
	var r reader
	b := builder{Answer: fairlead.Answer{ID: f[0].Text(), Model: f[1].Text(), Usage: chatUsage(f[3])}}
	n, finished := 0, 0
	for c := range f[2].Elements() {
		var f [3]wire.Value
		pick(c, f[:], "index", "message", "finish_reason")
		var m fairlead.Message
		r.chatMessage(&m, f[1])
		index, ok := f[0].Int()
		if !ok {
			index = int64(n)
		}
		first := len(b.ToolCalls)
		if index == 0 {
			b.add(body, m.Parts)
		} else {
			var rest builder
			rest.add(body, m.Parts)
			b.ToolCalls = append(b.ToolCalls, rest.ToolCalls...)
		}
		for i := first; i < len(b.ToolCalls); i++ {
			b.ToolCalls[i].Choice = int(index)
		}
		n++
		if reason := f[2].Text(); reason != "" {
			finished++
			b.FinishReasons = append(b.FinishReasons, reason)
		}
	}
	b.Complete = n > 0 && finished == n
	return b.answer(), r.err
}

// chatUsage reads the usage of a completion or of embeddings.
func chatUsage(v wire.Value) fairlead.Usage {
	return openAIUsage(v, "prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
}

func openAIUsage(v wire.Value, names ...string) fairlead.Usage {
	var f [4]wire.Value
	pick(v, f[:], names...)
	return fairlead.Usage{
		Input:         count(f[0]),
		Output:        count(f[1]),
		CacheRead:     count(f[2].Get("cached_tokens")),
		CacheCreation: -1,
		Reasoning:     count(f[3].Get("reasoning_tokens")),
	}
}

// A chatStream follows the chunks of a completion. Pieces are keyed by choice, and within it by a number for each text,
// or by that which chatCalls gives a call.
type chatStream struct {
	stream
	calls  chatCalls
	texted map[int64]bool // the choices that have text
}

// Where the texts of a choice are kept.
const (
	chatText = iota
	chatReasoning
	chatRefusal
)

func (s *chatStream) Event(ev wire.Event) bool {
	if bytes.HasPrefix(ev.Data, []byte("[DONE]")) { // as the SDKs compare it
		s.held = true
		s.b.Complete = s.b.ErrorType == "" || s.b.ErrorType == malformedEvent
		return s.hold(ev)
	}
	v := s.data(ev)
	if v.Kind() == 0 { // it cannot be read, but a laxer reader may find the end of the answer in it
		n := func(s string) int { return bytes.Count(ev.Data, []byte(s)) }
		if n(`finish_reason`) > n(`"finish_reason":null`)+n(`"finish_reason": null`) {
			s.held = true
		}
	}
	var f [5]wire.Value
	pick(v, f[:], "id", "model", "choices", "usage", "error")
	s.b.ID, s.b.Model = first(s.b.ID, f[0].Text()), first(s.b.Model, f[1].Text())
	for c := range f[2].Elements() {
		s.choice(c)
	}
	if f[3].Kind() == '{' {
		s.b.Usage = chatUsage(f[3])
	}
	if present(f[4]) {
		s.held, s.b.ErrorType = true, openAIError(f[4])
	}
	return s.hold(ev)
}

func (s *chatStream) choice(c wire.Value) {
	var f [3]wire.Value
	pick(c, f[:], "index", "delta", "finish_reason")
	choice, _ := f[0].Int()
	if present(f[2]) {
		s.held = true
		s.b.FinishReasons = append(s.b.FinishReasons, f[2].Text())
	}
	var d [6]wire.Value
	pick(f[1], d[:], "content", "refusal", "reasoning_content", "reasoning", "tool_calls", "function_call")
	if choice == 0 {
		s.text(chatText, fairlead.PartText, d[0])
		s.text(chatRefusal, fairlead.PartRefusal, d[1])
		if present(d[2]) {
			s.text(chatReasoning, fairlead.PartReasoning, d[2])
		} else {
			s.text(chatReasoning, fairlead.PartReasoning, d[3])
		}
	}
	if substantial(d[0]) {
		if s.texted == nil {
			s.texted = make(map[int64]bool)
		}
		s.texted[choice] = true
	}
	if substantial(d[4]) && d[4].Kind() != '[' {
		s.begin(key{outer: choice, inner: -1}, fairlead.PartToolCall) // a client may make something of it
	}
	for call := range d[4].Elements() {
		s.grow(choice, s.calls.at(choice, call), call)
	}
	if present(d[5]) {
		s.grow(choice, s.calls.legacy(choice, d[5]), d[5])
	}
}

// text adds to a text of the first choice. Content that comes in blocks is read like that of a message.
func (s *chatStream) text(inner int64, kind fairlead.PartKind, v wire.Value) {
	if v.Kind() == '"' && v.Span().Len() > 2 {
		p := s.piece(key{outer: 0, inner: inner}, kind)
		p.text = v.AppendText(p.text)
	}
	for e := range v.Elements() {
		s.text(inner, kind, e.Get("text"))
	}
}

// grow adds what v has of the given call.
func (s *chatStream) grow(choice int64, c *chatCall, v wire.Value) {
	p := s.piece(key{outer: choice, inner: int64(c.number)}, fairlead.PartToolCall)
	p.choice, p.begun = int(choice), true
	p.id, p.name = c.id, c.name
	_, arguments := chatInner(v)
	if arguments.Kind() == '"' {
		p.text = arguments.AppendText(p.text)
	} else if substantial(arguments) {
		p.text = append(p.text, arguments.Raw()...)
	}
}

// chatInner gives name and arguments of a call, or of a piece of it.
func chatInner(v wire.Value) (name, arguments wire.Value) {
	var f [5]wire.Value
	pick(v, f[:], "name", "arguments", "function", "custom", "type")
	inner, field := f[2], "arguments"
	if f[3].Kind() == '{' {
		inner, field = f[3], "input"
	}
	if inner.Kind() != '{' {
		return f[0], f[1] // legacy
	}
	var g [2]wire.Value
	pick(inner, g[:], "name", field)
	return g[0], g[1]
}

// chatCalls tells apart the calls in the chunks of a stream, and numbers them in the order in which they begin.
type chatCalls struct {
	last map[int64]int64 // of each choice, the index of its last call
	open map[[2]int64]*chatCall
	n    int
}

type chatCall struct {
	number   int
	id, name string
}

// legacyIndex stands for the index of a call in the older form, which has none.
const legacyIndex = math.MinInt64

// at finds the call that an element of tool_calls belongs to. A server that gives no index sends each call whole, with
// its id; some give all calls the same index.
func (t *chatCalls) at(choice int64, v wire.Value) *chatCall {
	var f [2]wire.Value
	pick(v, f[:], "index", "id")
	name, _ := chatInner(v)
	index, ok := f[0].Int()
	if last, known := t.last[choice]; !ok || index < 0 {
		index = last
		if known && substantial(f[1]) {
			index++
		}
	}
	if t.last == nil {
		t.last = make(map[int64]int64)
	}
	t.last[choice] = index
	return t.get(choice, index, f[1].Text(), name.Text())
}

func (t *chatCalls) legacy(choice int64, v wire.Value) *chatCall {
	name, _ := chatInner(v)
	return t.get(choice, legacyIndex, "", name.Text())
}

func (t *chatCalls) get(choice, index int64, id, name string) *chatCall {
	k := [2]int64{choice, index}
	c := t.open[k]
	if c == nil || name != "" && (c.name != "" && name != c.name || c.id != "" && id != "" && id != c.id) {
		if t.open == nil {
			t.open = make(map[[2]int64]*chatCall)
		}
		c = &chatCall{number: t.n}
		t.n++
		t.open[k] = c
	}
	c.id, c.name = first(c.id, id), first(c.name, name)
	return c
}
