package dialect

import (
	"bytes"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// Turn appends the canonical bytes of an answer: its text, its refusal if there is one, and its tool calls with id, name
// and arguments in order. Reasoning is left out, because clients drop or shorten it. Two answers that differ in any of
// these have different bytes.
func Turn(dst []byte, a *fairlead.Answer) []byte {
	dst = wire.AppendQuote(append(dst, "text "...), a.Text)
	if a.Refusal != "" {
		dst = wire.AppendQuote(append(dst, "\nrefusal "...), a.Refusal)
	}
	for i := range a.ToolCalls {
		c := &a.ToolCalls[i]
		dst = wire.AppendQuote(append(dst, "\ncall "...), c.ID)
		dst = wire.AppendQuote(append(dst, ' '), c.Name)
		dst = appendArguments(append(dst, ' '), c.Arguments)
	}
	return dst
}

// appendArguments appends arguments so that all spellings of the same JSON are the same. What is no JSON array or
// object (the text that a custom tool takes, arguments that were cut off) is a string. None at all means no arguments:
// SDKs send "{}" back for "".
func appendArguments(dst []byte, arguments string) []byte {
	src := bytes.TrimSpace([]byte(arguments))
	switch {
	case len(src) == 0:
		return append(dst, "{}"...)
	case (src[0] == '{' || src[0] == '[') && wire.Check(src, wire.Limits{}) == nil:
		return wire.AppendCanonical(dst, wire.Root(src))
	}
	return wire.AppendQuote(dst, arguments)
}

// RequestTurn appends the canonical bytes of an assistant turn as a client resends it: one message in most dialects, a
// run of them (see [Run]) in the Responses API. They equal those of [Turn] for the answer that we returned, however the
// SDK spells it: with null or absent content, text as a string or as blocks, arguments reserialised, reasoning kept or
// dropped. Content of a kind that an Answer cannot hold makes them equal to no answer at all.
func RequestTurn(dst []byte, body []byte, msgs ...fairlead.Message) []byte {
	var b builder
	for i := range msgs {
		b.foreign = b.foreign || msgs[i].Role != fairlead.RoleAssistant
		b.add(body, msgs[i].Parts)
	}
	a := b.answer()
	dst = Turn(dst, &a)
	if b.foreign {
		dst = append(dst, "\nother"...)
	}
	return dst
}

// Canonical appends what a message of a request says, however a client spells it: as a string or as blocks, with cache
// marks or without, escaped this way or that. Reasoning is left out, because clients drop it. What is not text is taken
// as its bytes.
func Canonical(dst []byte, body []byte, m fairlead.Message) []byte {
	dst = append(append(dst, "role "...), m.Role...)
	for i := range m.Parts {
		p := &m.Parts[i]
		v := wire.Root(body[p.Span.Start:p.Span.End])
		switch {
		case p.Kind == fairlead.PartReasoning:
		case p.Kind == fairlead.PartToolCall:
			dst = wire.AppendQuote(append(dst, "\ncall "...), p.CallID)
			dst = wire.AppendQuote(append(dst, ' '), p.Name)
			dst = appendArguments(append(dst, ' '), arguments(v))
		case v.Kind() == '"' || p.Kind == fairlead.PartToolResult && onlyText(v):
			dst = append(append(append(dst, '\n'), p.Kind...), ' ')
			dst = wire.AppendQuote(append(wire.AppendQuote(dst, p.CallID), ' '), PartText(body, *p))
		default:
			dst = append(append(append(dst, "\nraw "...), p.Kind...), ' ')
			dst = wire.AppendQuote(append(wire.AppendQuote(dst, p.CallID), ' '), string(v.Raw()))
		}
	}
	return dst
}

// onlyText reports whether v is a list of text blocks.
func onlyText(v wire.Value) bool {
	if v.Kind() != '[' {
		return false
	}
	for e := range v.Elements() {
		if e.Get("type").Text() != "text" || e.Get("text").Kind() != '"' {
			return false
		}
	}
	return true
}

// Run returns how many messages at the start of msgs speak for the assistant without interruption. In the Responses API
// one answer comes back as several items: reasoning, messages and calls.
func Run(msgs []fairlead.Message) int {
	n := 0
	for n < len(msgs) && msgs[n].Role == fairlead.RoleAssistant {
		n++
	}
	return n
}

// A builder puts an answer together from parts.
type builder struct {
	fairlead.Answer
	text, reasoning, refusal []byte
	foreign                  bool // there was a part that an Answer cannot hold
}

// add takes the parts of a message in body.
func (b *builder) add(body []byte, parts []fairlead.Part) {
	for i := range parts {
		p := &parts[i]
		v := wire.Root(body[p.Span.Start:p.Span.End])
		switch p.Kind {
		case fairlead.PartText:
			b.text = v.AppendText(b.text)
		case fairlead.PartRefusal:
			b.refusal = v.AppendText(b.refusal)
		case fairlead.PartReasoning:
			b.reasoning = appendReadable(b.reasoning, v, 0)
		case fairlead.PartToolCall:
			b.ToolCalls = append(b.ToolCalls, fairlead.ToolCall{ID: p.CallID, Name: p.Name, Arguments: arguments(v)})
		default:
			b.foreign = true
		}
	}
}

// hosted notes a tool that the provider ran.
func (b *builder) hosted(name string) {
	if name != "" && len(b.HostedCalls) < maxHosted && !slices.Contains(b.HostedCalls, name) {
		b.HostedCalls = append(b.HostedCalls, name)
	}
}

func arguments(v wire.Value) string {
	if v.Kind() == '"' {
		return v.Text()
	}
	return string(v.Raw())
}

// maxHosted is how many hosted tools of one answer are named.
const maxHosted = 256

func (b *builder) answer() fairlead.Answer {
	a := b.Answer
	a.Text, a.Reasoning, a.Refusal = string(b.text), string(b.reasoning), string(b.refusal)
	return a
}

// PartText gives what can be read in a part: the text of a string; the JSON of a tool call's arguments; of any other
// structure every string in it, a line each, without those that are for machines (types, ids, signatures, media).
func PartText(body []byte, p fairlead.Part) string {
	v := wire.Root(body[p.Span.Start:p.Span.End])
	switch {
	case v.Kind() == '"' && p.Kind == fairlead.PartMedia:
		return ""
	case v.Kind() == '"':
		return v.Text()
	case p.Kind == fairlead.PartToolCall:
		return string(v.Raw())
	}
	return string(appendReadable(nil, v, 0))
}

// readableDepth is how deep appendReadable looks into structures. Each level costs a pass over what is below it, so
// what lies deeper is given as raw JSON instead: it is not lost to a detector.
const readableDepth = 12

func appendReadable(dst []byte, v wire.Value, depth int) []byte {
	switch v.Kind() {
	case '"':
		if len(dst) > 0 {
			dst = append(dst, '\n')
		}
		return v.AppendText(dst)
	case '[', '{':
		if depth == readableDepth {
			return append(append(dst, '\n'), v.Raw()...)
		}
	}
	for e := range v.Elements() {
		dst = appendReadable(dst, e, depth+1)
	}
	var opaque bool // what "data" holds
	for n, m := range v.Members() {
		if n.Equal("type") {
			kind := m.Text()
			opaque = kind == "base64" || kind == "redacted_thinking"
		}
	}
	for n, m := range v.Members() {
		if m.Kind() == '"' && (forMachines(n) || opaque && n.Equal("data") || isDataURL(m)) {
			continue
		}
		dst = appendReadable(dst, m, depth+1)
	}
	return dst
}

func forMachines(n wire.Name) bool {
	for _, s := range [...]string{"type", "id", "tool_use_id", "call_id", "signature", "encrypted_content",
		"encrypted_index", "encrypted_stdout", "media_type", "file_id", "file_data", "status"} {
		if n.Equal(s) {
			return true
		}
	}
	return false
}

func isDataURL(v wire.Value) bool {
	const start = `"data:`
	raw := v.Raw()
	return len(raw) >= len(start) && strings.EqualFold(string(raw[:len(start)]), start) &&
		bytes.Contains(raw[:min(len(raw), 200)], []byte(";base64,"))
}
