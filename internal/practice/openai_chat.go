package practice

import (
	"encoding/json"
	"fmt"

	"github.com/fairleadhq/fairlead"
)

// maxSchema bounds one tool's schema in bytes: it may be read once for every value that it describes.
const maxSchema = 256 << 10

// A chatRequest is what matters of POST /v1/chat/completions.
type chatRequest struct {
	Model               string
	Messages            list[chatMessage]
	Tools               list[chatTool]
	ToolChoice          json.RawMessage `json:"tool_choice"`
	ParallelToolCalls   *bool           `json:"parallel_tool_calls"`
	N                   *int
	MaxTokens           int `json:"max_tokens"`
	MaxCompletionTokens int `json:"max_completion_tokens"`
	Stream              bool
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	ResponseFormat struct {
		Type       string
		JSONSchema struct{ Schema json.RawMessage } `json:"json_schema"`
	} `json:"response_format"`
}

type chatMessage struct {
	Role       string
	Content    json.RawMessage
	ToolCalls  json.RawMessage `json:"tool_calls"`
	ToolCallID string          `json:"tool_call_id"`
	Name       string
}

type chatTool struct {
	Type     string
	Function struct {
		Name, Description string
		Parameters        json.RawMessage
	}
}

type chatCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"`
	Function chatFunction `json:"function"`
}

type chatFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// decodeChat reads a request into a conversation.
func decodeChat(body []byte) (*chatRequest, *conversation, error) {
	r := new(chatRequest)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, nil, err
	}
	if len(r.Messages) == 0 {
		return nil, nil, &apiError{Message: "messages is empty: send at least one", Param: "messages"}
	}
	if r.N == nil {
		one := 1
		r.N = &one
	}
	if *r.N < 1 || *r.N > maxChoices {
		return nil, nil, &apiError{Message: fmt.Sprintf("n is %d: it must be 1 to %d", *r.N, maxChoices), Param: "n"}
	}
	c := &conversation{model: r.Model, single: r.ParallelToolCalls != nil && !*r.ParallelToolCalls,
		maxOut: max(r.MaxTokens, r.MaxCompletionTokens), wantJSON: r.ResponseFormat.Type == "json_object" ||
			r.ResponseFormat.Type == "json_schema", schema: r.ResponseFormat.JSONSchema.Schema}
	for i, m := range r.Messages {
		text, err := textOf(m.Content)
		if err != nil {
			return nil, nil, fmt.Errorf("messages[%d].content: %w", i, err)
		}
		role, err := roleOf(m.Role)
		if err != nil {
			return nil, nil, fmt.Errorf("messages[%d]: %w", i, err)
		}
		t := turn{role: role, text: text}
		if role == fairlead.RoleTool {
			t.tool = m.Name
		}
		var calls list[chatCall]
		if len(m.ToolCalls) > 0 {
			if err := json.Unmarshal(m.ToolCalls, &calls); err != nil {
				return nil, nil, fmt.Errorf("messages[%d].tool_calls: %w", i, err)
			}
		}
		for _, k := range calls {
			t.calls = append(t.calls, call{k.ID, k.Function.Name, k.Function.Arguments})
		}
		if err := c.add(t, m.ToolCallID); err != nil {
			return nil, nil, err
		}
	}
	for _, t := range r.Tools {
		if t.Type == "function" {
			c.tools = append(c.tools, tool{t.Function.Name, t.Function.Description, t.Function.Parameters})
		}
	}
	c.choice = choiceOf(r.ToolChoice)
	return r, c, c.checkSchemas()
}

func (c *conversation) checkSchemas() error {
	if len(c.schema) > maxSchema {
		return fmt.Errorf("the answer's schema is longer than %d bytes", maxSchema)
	}
	for _, t := range c.tools {
		if len(t.schema) > maxSchema {
			return fmt.Errorf("the schema of tool %.64q is longer than %d bytes", t.name, maxSchema)
		}
	}
	return nil
}

func roleOf(name string) (fairlead.Role, error) {
	switch name {
	case "system", "developer":
		return fairlead.RoleSystem, nil
	case "user":
		return fairlead.RoleUser, nil
	case "assistant":
		return fairlead.RoleAssistant, nil
	case "tool", "function":
		return fairlead.RoleTool, nil
	}
	return "", fmt.Errorf("role is %.20q: it must be system, developer, user, assistant or tool", name)
}

// textOf joins the text of a content that is a string, null, or an array of parts. Other parts than text are passed
// over.
func textOf(content json.RawMessage) (string, error) {
	if len(content) == 0 || content[0] != '[' {
		var s string
		if len(content) == 0 {
			return "", nil
		}
		err := json.Unmarshal(content, &s)
		return s, err
	}
	var parts list[struct{ Text, Refusal string }]
	if err := json.Unmarshal(content, &parts); err != nil {
		return "", err
	}
	var b []byte
	for _, p := range parts {
		if len(b) > 0 && p.Text+p.Refusal != "" {
			b = append(b, '\n')
		}
		b = append(append(b, p.Text...), p.Refusal...)
	}
	return string(b), nil
}

// choiceOf reads tool_choice in the shapes of all three APIs.
func choiceOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		var o struct {
			Type, Name string
			Function   struct{ Name string }
		}
		json.Unmarshal(raw, &o) // what cannot be read is no choice
		if name := o.Name + o.Function.Name; name != "" {
			return "tool:" + name
		}
		s = o.Type
	}
	switch s {
	case "required", "any":
		return "required"
	case "none":
		return "none"
	}
	return ""
}

func (s *server) chatCompletions(q *request) error {
	r, c, err := decodeChat(q.body)
	if err != nil {
		return err
	}
	a := c.answer()
	if len(a.text)*(*r.N) > maxAnswer {
		return &apiError{Message: "n is too large for so long an answer", Param: "n"}
	}
	out := &chatAnswer{request: r, reply: a, id: q.id("chatcmpl-", len(c.turns)), created: s.Clock().Unix()}
	written := len(a.text)
	for choice := range *r.N {
		var calls []chatCall
		for i, k := range a.calls {
			calls = append(calls, chatCall{q.id("call_", len(c.turns), choice, i), "function", chatFunction{k.name, k.args}})
			if choice == 0 {
				written += len(k.name) + len(k.args)
			}
		}
		out.calls = append(out.calls, calls)
	}
	in, made := tokens(c.size()), tokens(written)*(*r.N)
	out.usage = map[string]any{
		"prompt_tokens": in, "completion_tokens": made, "total_tokens": in + made,
		"prompt_tokens_details": map[string]int{"cached_tokens": 0, "audio_tokens": 0},
		"completion_tokens_details": map[string]int{"reasoning_tokens": 0, "audio_tokens": 0,
			"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
	}
	k := s.sink(q, r.Model)
	if r.Stream {
		s.streamChat(k, out)
	} else {
		k.whole(out.whole())
	}
	return nil
}

// A chatAnswer is an answer ready to be written.
type chatAnswer struct {
	request *chatRequest
	reply   reply
	id      string
	created int64
	calls   [][]chatCall // of each choice
	usage   map[string]any
}

func (a *chatAnswer) finish() string {
	switch {
	case len(a.reply.calls) > 0:
		return "tool_calls"
	case a.reply.cut:
		return "length"
	}
	return "stop"
}

func (a *chatAnswer) whole() any {
	var choices []any
	for i, calls := range a.calls {
		m := map[string]any{"role": "assistant", "content": orNull(a.reply.text), "refusal": nil, "annotations": []any{}}
		if a.reply.refusal {
			m["content"], m["refusal"] = nil, a.reply.text
		}
		if len(calls) > 0 {
			m["tool_calls"] = calls
		}
		choices = append(choices, map[string]any{
			"index": i, "message": m, "logprobs": nil, "finish_reason": a.finish(),
		})
	}
	return map[string]any{
		"id": a.id, "object": "chat.completion", "created": a.created, "model": a.request.Model, "choices": choices,
		"usage": a.usage, "service_tier": "default", "system_fingerprint": "fp_practice",
	}
}

// chunk is one event of a stream. The order of its fields is OpenAI's.
type chunk struct {
	ID          string `json:"id"`
	Object      string `json:"object"`
	Created     int64  `json:"created"`
	Model       string `json:"model"`
	ServiceTier string `json:"service_tier"`
	Fingerprint string `json:"system_fingerprint"`
	Choices     []any  `json:"choices"`
	Usage       any    `json:"usage,omitempty"`
}

func (s *server) streamChat(k *sink, a *chatAnswer) {
	k.open()
	send := func(choices []any, usage any) {
		k.event("", chunk{a.id, "chat.completion.chunk", a.created, a.request.Model, "default", "fp_practice", choices, usage})
	}
	var noUsage any
	if a.request.StreamOptions.IncludeUsage {
		noUsage = json.RawMessage("null")
	}
	for i, calls := range a.calls {
		delta := func(d map[string]any, finish string) {
			send([]any{map[string]any{"index": i, "delta": d, "logprobs": nil, "finish_reason": orNull(finish)}}, noUsage)
		}
		field := "content"
		if a.reply.refusal {
			field = "refusal"
		}
		first := map[string]any{"role": "assistant", "content": "", "refusal": nil}
		if len(calls) > 0 {
			first["content"] = nil
		}
		delta(first, "")
		for piece := range s.chunks(k, a.reply.text) {
			delta(map[string]any{field: piece}, "")
		}
		for j, t := range calls {
			args := t.Function.Arguments
			t.Function.Arguments = ""
			delta(map[string]any{"tool_calls": []any{map[string]any{
				"index": j, "id": t.ID, "type": t.Type, "function": t.Function}}}, "")
			for piece := range s.chunks(k, args) {
				delta(map[string]any{"tool_calls": []any{map[string]any{
					"index": j, "function": map[string]any{"arguments": piece}}}}, "")
			}
		}
		delta(map[string]any{}, a.finish())
	}
	if a.request.StreamOptions.IncludeUsage {
		send([]any{}, a.usage)
	}
	k.frame([]byte("data: [DONE]\n\n"))
}
