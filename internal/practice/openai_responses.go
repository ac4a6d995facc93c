package practice

import (
	"encoding/json"
	"fmt"
	"sync"

	"github.com/fairleadhq/fairlead"
)

// A responsesRequest is what matters of POST /v1/responses. Raw fields are told back as they came.
type responsesRequest struct {
	Model              string
	Input              json.RawMessage
	Instructions       *string
	Tools              json.RawMessage
	ToolChoice         json.RawMessage `json:"tool_choice"`
	ParallelToolCalls  *bool           `json:"parallel_tool_calls"`
	PreviousResponseID string          `json:"previous_response_id"`
	MaxOutputTokens    int             `json:"max_output_tokens"`
	Metadata           json.RawMessage
	Store              *bool
	Stream             bool
	Text               json.RawMessage
}

type responsesItem struct {
	Type, Role, Name, Arguments string
	Content, Output             json.RawMessage
	CallID                      string `json:"call_id"`
}

type responsesTool struct {
	Type, Name, Description string
	Parameters              json.RawMessage
}

// decodeResponses reads a request into a conversation that continues the earlier turns.
func decodeResponses(body []byte, earlier func(id string) ([]turn, bool)) (*responsesRequest, *conversation, error) {
	r := new(responsesRequest)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, nil, err
	}
	c := &conversation{model: r.Model, maxOut: r.MaxOutputTokens, single: r.ParallelToolCalls != nil && !*r.ParallelToolCalls}
	if r.Instructions != nil {
		c.add(turn{role: fairlead.RoleSystem, text: *r.Instructions}, "")
	}
	if id := r.PreviousResponseID; id != "" {
		turns, ok := earlier(id)
		if !ok {
			return nil, nil, &apiError{Message: fmt.Sprintf("Previous response with id '%.80s' not found.", id),
				Param: "previous_response_id", Code: "previous_response_not_found"}
		}
		for _, t := range turns {
			if err := c.add(t, ""); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := c.addInput(r.Input); err != nil {
		return nil, nil, err
	}
	var tools list[responsesTool]
	if len(r.Tools) > 0 {
		if err := json.Unmarshal(r.Tools, &tools); err != nil {
			return nil, nil, fmt.Errorf("tools: %w", err)
		}
	}
	for _, t := range tools {
		if t.Type == "function" {
			c.tools = append(c.tools, tool{t.Name, t.Description, t.Parameters})
		}
	}
	c.choice = choiceOf(r.ToolChoice)
	var text struct {
		Format struct {
			Type   string
			Schema json.RawMessage
		}
	}
	if len(r.Text) > 0 {
		if err := json.Unmarshal(r.Text, &text); err != nil {
			return nil, nil, fmt.Errorf("text: %w", err)
		}
	}
	c.wantJSON, c.schema = text.Format.Type == "json_object" || text.Format.Type == "json_schema", text.Format.Schema
	return r, c, c.checkSchemas()
}

// addInput adds the input, a string or an array of items.
func (c *conversation) addInput(input json.RawMessage) error {
	var s string
	if json.Unmarshal(input, &s) == nil && len(input) > 0 && input[0] == '"' {
		return c.add(turn{role: fairlead.RoleUser, text: s}, "")
	}
	var items list[responsesItem]
	if len(input) > 0 {
		if err := json.Unmarshal(input, &items); err != nil {
			return fmt.Errorf("input: %w", err)
		}
	}
	if len(items) == 0 {
		return &apiError{Message: "input is empty: send a string or at least one item", Param: "input"}
	}
	for i, item := range items {
		var t turn
		var err error
		switch item.Type {
		case "", "message":
			if t.role, err = roleOf(item.Role); err == nil {
				t.text, err = textOf(item.Content)
			}
		case "function_call":
			t = turn{role: fairlead.RoleAssistant, calls: []call{{item.CallID, item.Name, item.Arguments}}}
		case "function_call_output":
			t.role = fairlead.RoleTool
			t.text, err = textOf(item.Output)
		default:
			continue // reasoning, references, hosted tools: kept by the client, of no use here
		}
		if err == nil {
			err = c.add(t, item.CallID)
		}
		if err != nil {
			return fmt.Errorf("input[%d]: %w", i, err)
		}
	}
	return nil
}

func (s *server) createResponse(q *request) error {
	r, c, err := decodeResponses(q.body, s.states.get)
	if err != nil {
		return err
	}
	a := c.answer()
	if len(a.text) > maxAnswer {
		return &apiError{Message: "the answer would be too long"}
	}
	pos := len(c.turns)
	out := &response{request: r, reply: a, id: q.id("resp_", pos), created: s.Clock().Unix()}
	written := len(a.text)
	t := turn{role: fairlead.RoleAssistant, text: a.text}
	for i, k := range a.calls {
		k.id = q.id("call_", pos, i)
		t.calls = append(t.calls, k)
		written += len(k.name) + len(k.args)
		out.items = append(out.items, item{id: q.id("fc_", pos, i), call: k})
	}
	if len(a.calls) == 0 {
		out.items = []item{{id: q.id("msg_", pos)}}
	}
	in, made := tokens(c.size()), tokens(written)
	out.usage = map[string]any{
		"input_tokens": in, "input_tokens_details": map[string]int{"cached_tokens": 0},
		"output_tokens": made, "output_tokens_details": map[string]int{"reasoning_tokens": 0},
		"total_tokens": in + made,
	}
	if r.Store == nil || *r.Store {
		turns := c.turns
		if r.Instructions != nil {
			turns = turns[1:] // instructions are not inherited
		}
		s.states.put(out.id, append(turns[:len(turns):len(turns)], t))
	}
	k := s.sink(q, r.Model)
	if r.Stream {
		s.streamResponse(k, out)
	} else {
		k.whole(out.object("completed"))
	}
	return nil
}

// A response is an answer ready to be written.
type response struct {
	request *responsesRequest
	reply   reply
	id      string
	created int64
	items   []item
	usage   map[string]any
}

// An item is one element of the output: the message, or a call if it has a name.
type item struct {
	id   string
	call call
}

// part is the one content part of a message.
func (a *response) part(text string) map[string]any {
	if a.reply.refusal {
		return map[string]any{"type": "refusal", "refusal": text}
	}
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": []any{}}
}

// item renders an element of the output, without its content while it is in progress.
func (a *response) item(it item, status string) map[string]any {
	done := status != "in_progress"
	if it.call.name != "" {
		args := ""
		if done {
			args = it.call.args
		}
		return map[string]any{"id": it.id, "type": "function_call", "status": status, "call_id": it.call.id,
			"name": it.call.name, "arguments": args}
	}
	content := []any{}
	if done {
		content = []any{a.part(a.reply.text)}
	}
	return map[string]any{"id": it.id, "type": "message", "status": status, "role": "assistant", "content": content}
}

// object renders the response in a state: in_progress or completed.
func (a *response) object(status string) map[string]any {
	r := a.request
	output := []any{}
	var usage, incomplete, completedAt any
	if status == "completed" {
		if a.reply.cut {
			status, incomplete = "incomplete", map[string]string{"reason": "max_output_tokens"}
		} else {
			completedAt = a.created
		}
		usage = a.usage
		for _, it := range a.items {
			output = append(output, a.item(it, status))
		}
	}
	var limit any
	if r.MaxOutputTokens > 0 {
		limit = r.MaxOutputTokens
	}
	return map[string]any{
		"id": a.id, "object": "response", "created_at": a.created, "completed_at": completedAt, "status": status,
		"background": false, "error": nil, "incomplete_details": incomplete, "instructions": r.Instructions,
		"max_output_tokens": limit, "model": r.Model, "output": output,
		"parallel_tool_calls":  r.ParallelToolCalls == nil || *r.ParallelToolCalls,
		"previous_response_id": orNull(r.PreviousResponseID), "reasoning": map[string]any{"effort": nil, "summary": nil},
		"service_tier": "default", "store": r.Store == nil || *r.Store, "temperature": 1.0,
		"text": orElse(r.Text, `{"format":{"type":"text"}}`), "tool_choice": orElse(r.ToolChoice, `"auto"`),
		"tools": orElse(r.Tools, `[]`), "top_p": 1.0, "truncation": "disabled", "usage": usage, "user": nil,
		"metadata": orElse(r.Metadata, `{}`),
	}
}

func orElse(raw json.RawMessage, other string) json.RawMessage {
	if len(raw) == 0 || string(raw) == "null" {
		return json.RawMessage(other)
	}
	return raw
}

func (s *server) streamResponse(k *sink, a *response) {
	k.open()
	n := 0
	send := func(kind string, fields map[string]any) {
		fields["type"], fields["sequence_number"] = kind, n
		n++
		k.event(kind, fields)
	}
	send("response.created", map[string]any{"response": a.object("in_progress")})
	send("response.in_progress", map[string]any{"response": a.object("in_progress")})
	for i, it := range a.items {
		at := func(more map[string]any) map[string]any {
			more["item_id"], more["output_index"] = it.id, i
			if it.call.name == "" {
				more["content_index"] = 0
			}
			return more
		}
		send("response.output_item.added", map[string]any{"output_index": i, "item": a.item(it, "in_progress")})
		switch {
		case it.call.name != "":
			for piece := range s.chunks(k, it.call.args) {
				send("response.function_call_arguments.delta", at(map[string]any{"delta": piece}))
			}
			send("response.function_call_arguments.done", at(map[string]any{"name": it.call.name, "arguments": it.call.args}))
		case a.reply.refusal:
			send("response.content_part.added", at(map[string]any{"part": a.part("")}))
			for piece := range s.chunks(k, a.reply.text) {
				send("response.refusal.delta", at(map[string]any{"delta": piece}))
			}
			send("response.refusal.done", at(map[string]any{"refusal": a.reply.text}))
			send("response.content_part.done", at(map[string]any{"part": a.part(a.reply.text)}))
		default:
			send("response.content_part.added", at(map[string]any{"part": a.part("")}))
			for piece := range s.chunks(k, a.reply.text) {
				send("response.output_text.delta", at(map[string]any{"delta": piece, "logprobs": []any{}}))
			}
			send("response.output_text.done", at(map[string]any{"text": a.reply.text, "logprobs": []any{}}))
			send("response.content_part.done", at(map[string]any{"part": a.part(a.reply.text)}))
		}
		status := "completed"
		if a.reply.cut {
			status = "incomplete"
		}
		send("response.output_item.done", map[string]any{"output_index": i, "item": a.item(it, status)})
	}
	final := a.object("completed")
	send("response."+final["status"].(string), map[string]any{"response": final})
}

// states keeps conversations for previous_response_id. The oldest leave when there are too many.
type states struct {
	mu    sync.Mutex
	turns map[string][]turn
	order []string // oldest first
	bytes int
}

const (
	maxStates     = 1000
	maxStateBytes = 64 << 20
)

func (s *states) get(id string) ([]turn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	turns, ok := s.turns[id]
	return turns, ok
}

func (s *states) put(id string, turns []turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.turns[id]; ok {
		return // the same request again, hence the same turns
	}
	if s.turns == nil {
		s.turns = map[string][]turn{}
	}
	s.turns[id] = turns
	s.order = append(s.order, id)
	s.bytes += stateSize(turns)
	for len(s.order) > maxStates || s.bytes > maxStateBytes {
		s.bytes -= stateSize(s.turns[s.order[0]])
		delete(s.turns, s.order[0])
		s.order = s.order[1:]
	}
}

func stateSize(turns []turn) int {
	return (&conversation{turns: turns}).size() + 100*len(turns)
}
