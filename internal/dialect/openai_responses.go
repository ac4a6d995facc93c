package dialect

import (
	"bytes"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// responses reads a request for a response.
func (r *reader) responses(v wire.Value) {
	var f [12]wire.Value
	pick(v, f[:], "model", "stream", "input", "instructions", "tools", "safety_identifier", "user",
		"previous_response_id", "conversation", "background", "prompt", "max_output_tokens")
	input, conversation := f[2], f[8]
	r.settings(f[0], f[1])
	if input.Kind() == '"' {
		m := fairlead.Message{Role: fairlead.RoleUser, Span: input.Span(), Lead: input.Span().Start}
		r.part(&m, fairlead.PartText, input)
		r.ex.Messages = append(r.ex.Messages, m)
	} else {
		r.messages("input", input, r.responsesItem)
	}
	r.instructions(f[3])
	r.unit(f[3])
	r.unit(f[4])
	r.openAITools(f[4])
	r.maxOutput(f[11])
	r.ex.User = first(f[5].Text(), f[6].Text())
	r.state("previous_response_id", f[7])
	if conversation.Kind() == '{' {
		conversation = conversation.Get("id")
	}
	r.state("conversation", conversation)
	r.ex.Conversation = conversation.Text()
	if substantial(f[9]) && r.room() {
		r.ex.State = append(r.ex.State, fairlead.StateRef{Field: "background", Value: "true"})
	}
	r.state("prompt.id", f[10].Get("id"))
}

// responsesItem reads an item of the input or of the output.
func (r *reader) responsesItem(m *fairlead.Message, v wire.Value) {
	var f [18]wire.Value
	pick(v, f[:], "type", "role", "content", "id", "call_id", "name", "arguments", "input", "action", "operation",
		"output", "summary", "results", "encrypted_content", "outputs", "actions", "server_label", "execution")
	kind, id, call, name, output := f[0].Text(), f[3], f[4], f[5], f[10]
	m.Role = fairlead.RoleAssistant
	switch kind {
	case "", "message":
		if f[0].Kind() == 0 && !present(f[1]) && present(id) { // an item_reference may leave out its type
			r.state("item_reference", id)
			r.part(m, fairlead.PartOther, v)
			return
		}
		m.Role = role(f[1])
		r.openAIContent(m, f[2])
	case "function_call":
		r.action(m, v, call, name.Text(), f[6])
	case "custom_tool_call":
		r.action(m, v, call, name.Text(), f[7])
	case "computer_call", "local_shell_call", "shell_call":
		action := f[8]
		if action.Kind() == 0 {
			action = f[15] // several at once
		}
		r.action(m, v, call, strings.TrimSuffix(kind, "_call"), action)
	case "apply_patch_call":
		r.action(m, v, call, "apply_patch", f[9])
	case "mcp_approval_request": // the client says whether the provider goes on with it
		r.action(m, v, id, "mcp:"+f[16].Text()+"/"+name.Text(), f[6])
	case "reasoning":
		for _, part := range [...]wire.Value{f[11], f[2]} {
			if substantial(part) {
				r.part(m, fairlead.PartReasoning, part)
			}
		}
	case "item_reference":
		r.state("item_reference", id)
		r.part(m, fairlead.PartOther, v)
	case "mcp_approval_response":
		m.Role = fairlead.RoleUser
		r.part(m, fairlead.PartOther, v)
	default:
		if strings.HasSuffix(kind, "_call_output") {
			m.Role = fairlead.RoleTool
		}
		found := m.Role == fairlead.RoleTool
		for _, part := range [...]wire.Value{output, f[12], f[14]} { // of a client's tool, or of a hosted one
			if substantial(part) {
				found = true
				r.part(m, fairlead.PartToolResult, part).CallID = first(call.Text(), id.Text())
				r.openAIMedia(part)
				for e := range part.Elements() {
					r.openAIMedia(e)
				}
			}
		}
		switch {
		case found:
		case strings.HasSuffix(kind, "_call") && !hostedItem(kind, f[17]):
			r.action(m, v, call, strings.TrimSuffix(kind, "_call"), wire.Value{})
		default:
			r.part(m, fairlead.PartOther, v)
		}
	}
}

// hostedItem reports whether an item tells of a tool that the provider has run. A call of a kind that we do not know is
// none: a client may be the one to carry it out.
func hostedItem(kind string, execution wire.Value) bool {
	switch kind {
	case "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call", "program":
		return true
	case "tool_search_call":
		return execution.Text() == "server"
	}
	return false
}

// responsesHosted notes the tool that the provider ran for an item, if it is one of those.
func (b *builder) responsesHosted(item wire.Value) {
	var f [4]wire.Value
	pick(item, f[:], "type", "name", "server_label", "execution")
	switch kind := f[0].Text(); {
	case kind == "mcp_call":
		b.hosted("mcp:" + f[2].Text() + "/" + f[1].Text())
	case hostedItem(kind, f[3]):
		b.hosted(strings.TrimSuffix(kind, "_call"))
	}
}

// action reads a call that the client is to carry out. Where it has no arguments that we know of, the whole item is
// taken for them.
func (r *reader) action(m *fairlead.Message, item, id wire.Value, name string, arguments wire.Value) {
	if arguments.Kind() == 0 {
		arguments = item
	}
	p := r.part(m, fairlead.PartToolCall, arguments)
	p.CallID, p.Name = id.Text(), name
}

// maxItems is how many items of one answer can be referred to later.
const maxItems = 256

// responsesAnswer reads a whole response, in a body of its own or in the event that ends a stream. It also gives where
// in the output each of the calls is.
func responsesAnswer(body []byte, v wire.Value) (a fairlead.Answer, at []int, err error) {
	var f [7]wire.Value
	pick(v, f[:], "id", "model", "status", "incomplete_details", "output", "usage", "error")
	status := f[2].Text()
	b := builder{Answer: fairlead.Answer{
		ID:       f[0].Text(),
		Model:    f[1].Text(),
		Usage:    openAIUsage(f[5], "input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"),
		Complete: status == "completed" || status == "incomplete",
	}}
	if reason := first(f[3].Get("reason").Text(), status); reason != "" {
		b.FinishReasons = []string{reason}
	}
	if present(f[6]) {
		b.ErrorType = first(f[6].Get("code").Text(), openAIError(f[6]))
	}
	var r reader
	n := 0
	for item := range f[4].Elements() {
		var m fairlead.Message
		r.responsesItem(&m, item)
		b.add(body, m.Parts)
		b.responsesHosted(item)
		if len(b.ToolCalls) > len(at) { // an item is one call at most
			at = append(at, n)
		}
		n++
		if id := item.Get("id").Text(); id != "" && len(b.Items) < maxItems {
			b.Items = append(b.Items, id)
		}
	}
	return b.answer(), at, r.err
}

// A responsesStream follows the events of a response. Pieces are keyed by the item's index in the output and by the
// index of the content in the item.
type responsesStream struct {
	stream
	whole *fairlead.Answer // from the event that ends the stream, if it has the output
	at    []int            // where in that output each of its calls is
}

func (s *responsesStream) Event(ev wire.Event) bool {
	if bytes.HasPrefix(ev.Data, []byte("[DONE]")) {
		s.held = true
		return s.hold(ev)
	}
	v := s.data(ev)
	var f [9]wire.Value
	pick(v, f[:], "type", "response", "output_index", "content_index", "delta", "item", "summary_index", "code", "error")
	kind := first(f[0].Text(), string(ev.Name))
	outer, _ := f[2].Int()
	inner, _ := f[3].Int()
	for _, end := range [...]string{"response.completed", "response.failed", "response.incomplete", "response.cancelled", "error"} {
		// SDKs go by the type in the data or by the name of the event; data that we cannot read may have either.
		if kind == end || string(ev.Name) == end || v.Kind() == 0 && bytes.Contains(ev.Data, []byte(`"`+end+`"`)) {
			s.held = true
		}
	}
	switch kind {
	case "response.created", "response.in_progress", "response.queued":
		s.b.ID, s.b.Model = f[1].Get("id").Text(), f[1].Get("model").Text()
		if s.holdTools && substantial(f[1].Get("output")) {
			s.odd() // output before any item: a client may act on it
		}
	case "response.output_item.added", "response.output_item.done":
		s.b.responsesHosted(f[5])
		s.item(ev.Data, outer, f[5])
	case "response.output_text.delta":
		s.grow(key{outer: outer, inner: inner}, fairlead.PartText, f[4])
	case "response.refusal.delta":
		s.grow(key{outer: outer, inner: inner}, fairlead.PartRefusal, f[4])
	case "response.reasoning_text.delta":
		s.grow(key{outer: outer, inner: inner}, fairlead.PartReasoning, f[4])
	case "response.reasoning_summary_text.delta":
		summary, _ := f[6].Int()
		s.grow(key{outer: outer, inner: -1 - summary}, fairlead.PartReasoning, f[4])
	case "response.function_call_arguments.delta", "response.custom_tool_call_input.delta":
		s.grow(key{outer: outer}, fairlead.PartToolCall, f[4])
	case "response.function_call_arguments.done", "response.custom_tool_call_input.done":
		if s.holdTools && s.pieces[key{outer: outer, kind: fairlead.PartToolCall}] == nil {
			s.odd() // a call that nothing began
		}
	case "response.completed", "response.incomplete", "response.failed", "response.cancelled":
		s.end(ev.Data, f[1], kind)
	case "error":
		s.b.ErrorType = first(f[7].Text(), openAIError(f[8]))
	default:
		if s.holdTools && (strings.Contains(kind, "function_call") || strings.Contains(kind, "tool_call")) {
			s.held = true
		}
	}
	return s.hold(ev)
}

func (s *responsesStream) grow(k key, kind fairlead.PartKind, delta wire.Value) {
	p := s.piece(k, kind)
	p.text = delta.AppendText(p.text)
}

// item takes the id and name of a call when it begins, and its arguments once they are whole.
func (s *responsesStream) item(data []byte, index int64, v wire.Value) {
	var r reader
	var m fairlead.Message
	r.responsesItem(&m, v)
	var b builder
	b.add(data, m.Parts)
	for _, c := range b.ToolCalls {
		p := s.piece(key{outer: index}, fairlead.PartToolCall)
		if p.id != "" && c.ID != "" && p.id != c.ID || p.name != "" && p.name != c.Name {
			p = s.begin(key{outer: index}, fairlead.PartToolCall) // another call that claims the same place
		}
		p.begun = true
		p.id, p.name = first(c.ID, p.id), first(c.Name, p.name)
		if c.Arguments != "" {
			p.text = append(p.text[:0], c.Arguments...)
		}
	}
}

// end takes the response that the last event carries. Its output is preferred to what was streamed, unless it has none.
func (s *responsesStream) end(data []byte, v wire.Value, kind string) {
	a, at, err := responsesAnswer(data, v)
	if err != nil {
		s.odd()
		return
	}
	if a.ErrorType == "" {
		a.ErrorType = s.b.ErrorType
	}
	a.ID, a.Model = first(a.ID, s.b.ID), first(a.Model, s.b.Model)
	b := builder{Answer: a}
	for _, name := range s.b.HostedCalls {
		b.hosted(name)
	}
	a.HostedCalls = b.HostedCalls
	a.Complete = v.Kind() == '{' && (kind == "response.completed" || kind == "response.incomplete")
	if len(a.FinishReasons) == 0 {
		a.FinishReasons = []string{strings.TrimPrefix(kind, "response.")}
	}
	s.b.Answer = a
	if substantial(v.Get("output")) {
		s.whole, s.at = &a, at
	}
}

// Answer takes the output of the last event, and in addition any call that was streamed but is not in there: some
// clients act on the one, some on the other.
func (s *responsesStream) Answer() fairlead.Answer {
	if s.whole == nil {
		return s.stream.Answer()
	}
	a := *s.whole
	a.ErrorType = first(a.ErrorType, s.b.ErrorType)
	a.ToolCalls = slices.Clone(a.ToolCalls)
	pieces := s.callPieces()
	for i, k := range s.inWhole(pieces) {
		if k < 0 {
			a.ToolCalls = append(a.ToolCalls, pieces[i].call())
		}
	}
	return a
}

// inWhole gives for each streamed call which one of the final output it is, or -1. Servers disagree on what the index of
// an item counts, so that one with the same id is it wherever it stands.
func (s *responsesStream) inWhole(pieces []*piece) []int {
	place, id := make(map[int64]int), make(map[string]int)
	for k := range s.whole.ToolCalls {
		place[int64(s.at[k])] = k
		id[s.whole.ToolCalls[k].ID] = k
	}
	found := make([]int, len(pieces))
	for i, p := range pieces {
		found[i] = -1
		if k, ok := place[p.outer]; ok && p.is(&s.whole.ToolCalls[k]) {
			found[i] = k
		} else if k, ok := id[p.id]; ok && p.id != "" && p.is(&s.whole.ToolCalls[k]) {
			found[i] = k
		}
	}
	return found
}

// is reports whether what was streamed of a call is c.
func (p *piece) is(c *fairlead.ToolCall) bool {
	return (p.id == c.ID || p.id == "") && (p.name == c.Name || p.name == "") && (len(p.text) == 0 || string(p.text) == c.Arguments ||
		bytes.Equal(appendArguments(nil, string(p.text)), appendArguments(nil, c.Arguments)))
}
