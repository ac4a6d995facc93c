package practice

import (
	"encoding/json"
	"fmt"

	"github.com/fairleadhq/fairlead"
)

// A messagesRequest is what matters of POST /v1/messages and its count_tokens.
type messagesRequest struct {
	Model    string
	System   json.RawMessage
	Messages list[struct {
		Role    string
		Content json.RawMessage
	}]
	Tools list[struct {
		Type, Name, Description string
		InputSchema             json.RawMessage `json:"input_schema"`
	}]
	ToolChoice   json.RawMessage `json:"tool_choice"`
	MaxTokens    int             `json:"max_tokens"`
	Stream       bool
	OutputConfig outputConfig `json:"output_config"`
	OutputFormat outputFormat `json:"output_format"`
}

type outputConfig struct{ Format outputFormat }

type outputFormat struct {
	Type   string
	Schema json.RawMessage
}

type block struct {
	Type, Text, ID, Name string
	Input, Content       json.RawMessage
	ToolUseID            string `json:"tool_use_id"`
	Source               struct{ Type, Data string }
}

// decodeMessages reads a request into a conversation.
func decodeMessages(body []byte) (*messagesRequest, *conversation, error) {
	r := new(messagesRequest)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, nil, err
	}
	if len(r.Messages) == 0 {
		return nil, nil, &apiError{Message: "messages: at least one message is required"}
	}
	c := &conversation{model: r.Model, maxOut: r.MaxTokens, choice: choiceOf(r.ToolChoice)}
	var choice struct {
		Single bool `json:"disable_parallel_tool_use"`
	}
	json.Unmarshal(r.ToolChoice, &choice) // absent or odd: parallel
	c.single = choice.Single
	for _, f := range []outputFormat{r.OutputFormat, r.OutputConfig.Format} {
		if f.Type == "json_schema" {
			c.wantJSON, c.schema = true, f.Schema
		}
	}
	system, err := textOf(r.System)
	if err != nil {
		return nil, nil, fmt.Errorf("system: %w", err)
	}
	if system != "" {
		c.add(turn{role: fairlead.RoleSystem, text: system}, "")
	}
	for i, m := range r.Messages {
		if m.Role != "user" && m.Role != "assistant" && m.Role != "system" {
			return nil, nil, fmt.Errorf("messages.%d.role: %.20q is neither user nor assistant", i, m.Role)
		}
		if err := c.addBlocks(fairlead.Role(m.Role), m.Content); err != nil {
			return nil, nil, fmt.Errorf("messages.%d.content: %w", i, err)
		}
	}
	for _, t := range r.Tools {
		if t.Type == "" || t.Type == "custom" {
			c.tools = append(c.tools, tool{t.Name, t.Description, t.InputSchema})
		}
	}
	return r, c, c.checkSchemas()
}

// addBlocks adds a message: each tool result is a turn of its own, and so is the text before and after.
func (c *conversation) addBlocks(role fairlead.Role, content json.RawMessage) error {
	if len(content) == 0 {
		return fmt.Errorf("it is missing")
	}
	if content[0] != '[' {
		text, err := textOf(content)
		if err != nil {
			return err
		}
		return c.add(turn{role: role, text: text}, "")
	}
	var blocks list[block]
	if err := json.Unmarshal(content, &blocks); err != nil {
		return err
	}
	var text []byte
	t := turn{role: role}
	flush := func() error {
		if len(text) == 0 && len(t.calls) == 0 {
			return nil
		}
		t.text = string(text)
		err := c.add(t, "")
		text, t = nil, turn{role: role}
		return err
	}
	for _, b := range blocks {
		switch b.Type {
		case "text", "document":
			if b.Source.Type == "text" {
				b.Text += b.Source.Data
			}
			if len(text) > 0 {
				text = append(text, '\n')
			}
			text = append(text, b.Text...)
		case "tool_use":
			t.calls = append(t.calls, call{b.ID, b.Name, string(b.Input)})
		case "tool_result":
			result, err := textOf(b.Content)
			if err == nil {
				err = flush()
			}
			if err == nil {
				err = c.add(turn{role: fairlead.RoleTool, text: result}, b.ToolUseID)
			}
			if err != nil {
				return err
			}
		}
	}
	return flush()
}

func (s *server) countTokens(q *request) error {
	r, c, err := decodeMessages(q.body)
	if err != nil {
		return err
	}
	s.sink(q, r.Model).whole(map[string]int{"input_tokens": tokens(c.size())})
	return nil
}

func (s *server) messages(q *request) error {
	r, c, err := decodeMessages(q.body)
	if err != nil {
		return err
	}
	if r.MaxTokens < 1 {
		return &apiError{Message: "max_tokens: a number of at least 1 is required"}
	}
	a := c.answer()
	if len(a.text) > maxAnswer {
		return &apiError{Message: "the answer would be too long"}
	}
	pos := len(c.turns)
	out := &message{request: r, reply: a, id: q.id("msg_01", pos), in: tokens(c.size())}
	if len(a.calls) > 0 {
		out.reply.text = fmt.Sprintf("I will use %s for this.", a.calls[0].name)
	}
	written := len(out.reply.text)
	for i := range a.calls {
		a.calls[i].id = q.id("toolu_01", pos, i)
		written += len(a.calls[i].name) + len(a.calls[i].args)
	}
	out.out = tokens(written)
	k := s.sink(q, r.Model)
	if r.Stream {
		s.streamMessage(k, out)
	} else {
		k.whole(out.whole())
	}
	return nil
}

// A message is an answer ready to be written.
type message struct {
	request *messagesRequest
	reply   reply
	id      string
	in, out int // tokens
}

func (m *message) stopReason() string {
	switch {
	case m.reply.refusal:
		return "refusal"
	case len(m.reply.calls) > 0:
		return "tool_use"
	case m.reply.cut:
		return "max_tokens"
	}
	return "end_turn"
}

// object renders the message with what is known of it so far.
func (m *message) object(content []any, stop any, out int) map[string]any {
	return map[string]any{
		"id": m.id, "type": "message", "role": "assistant", "model": m.request.Model, "content": content,
		"stop_reason": stop, "stop_sequence": nil,
		"usage": map[string]any{"input_tokens": m.in, "output_tokens": out, "cache_creation_input_tokens": 0,
			"cache_read_input_tokens": 0, "service_tier": "standard"},
	}
}

func textBlock(s string) map[string]any { return map[string]any{"type": "text", "text": s} }

func toolBlock(k call, input string) map[string]any {
	return map[string]any{"type": "tool_use", "id": k.id, "name": k.name, "input": json.RawMessage(input)}
}

func (m *message) whole() any {
	content := []any{}
	if m.reply.text != "" {
		content = append(content, textBlock(m.reply.text))
	}
	for _, k := range m.reply.calls {
		content = append(content, toolBlock(k, k.args))
	}
	return m.object(content, m.stopReason(), m.out)
}

func (s *server) streamMessage(k *sink, m *message) {
	k.open()
	send := func(kind string, fields map[string]any) {
		fields["type"] = kind
		k.event(kind, fields)
	}
	send("message_start", map[string]any{"message": m.object([]any{}, nil, 1)})
	index := 0
	stream := func(start map[string]any, kind, field, text string) {
		send("content_block_start", map[string]any{"index": index, "content_block": start})
		if index == 0 {
			send("ping", map[string]any{})
		}
		for piece := range s.chunks(k, text) {
			send("content_block_delta", map[string]any{"index": index, "delta": map[string]any{"type": kind, field: piece}})
		}
		send("content_block_stop", map[string]any{"index": index})
		index++
	}
	if m.reply.text != "" {
		stream(textBlock(""), "text_delta", "text", m.reply.text)
	}
	for _, c := range m.reply.calls {
		stream(toolBlock(c, "{}"), "input_json_delta", "partial_json", c.args)
	}
	send("message_delta", map[string]any{
		"delta": map[string]any{"stop_reason": m.stopReason(), "stop_sequence": nil},
		"usage": map[string]any{"input_tokens": m.in, "output_tokens": m.out, "cache_creation_input_tokens": 0,
			"cache_read_input_tokens": 0},
	})
	send("message_stop", map[string]any{})
}
