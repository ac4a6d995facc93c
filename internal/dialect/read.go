package dialect

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// What one body may hold. Anthropic accepts 100,000 messages in a request; no API accepts more.
const (
	maxMessages = 100_000
	maxParts    = 200_000
)

// A reader gathers an exchange. Its methods do nothing more once it has failed.
type reader struct {
	ex    fairlead.Exchange
	parts int // counts tools and references too
	err   error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// room counts one more entry, and reports whether it may be kept.
func (r *reader) room() bool {
	if r.parts++; r.parts > maxParts {
		r.fail("the body has more than %d parts, tools and references: send fewer", maxParts)
	}
	return r.err == nil
}

func (r *reader) part(m *fairlead.Message, kind fairlead.PartKind, v wire.Value) *fairlead.Part {
	if !r.room() {
		return &fairlead.Part{}
	}
	m.Parts = append(m.Parts, fairlead.Part{Kind: kind, Span: v.Span()})
	return &m.Parts[len(m.Parts)-1]
}

func (r *reader) call(m *fairlead.Message, id, name, arguments wire.Value) {
	p := r.part(m, fairlead.PartToolCall, arguments)
	p.CallID, p.Name = id.Text(), name.Text()
}

func (r *reader) state(field string, value wire.Value) {
	if value.Kind() == '"' && r.room() {
		r.ex.State = append(r.ex.State, fairlead.StateRef{Field: field, Value: value.Text()})
	}
}

// link notes a URL that the provider would fetch; content that is inline in a data URL is no state.
func (r *reader) link(field string, value wire.Value) {
	const data = `"data:`
	if raw := value.Raw(); len(raw) >= len(data) && strings.EqualFold(string(raw[:len(data)]), data) {
		return
	}
	r.state(field, value)
}

func (r *reader) tool(name string) {
	if r.room() {
		r.ex.Tools = append(r.ex.Tools, name)
	}
}

func (r *reader) hosted(name string) {
	if r.room() {
		r.ex.HostedTools = append(r.ex.HostedTools, name)
	}
}

// unit notes a span that clients send again and again.
func (r *reader) unit(v wire.Value) {
	if substantial(v) {
		r.ex.Units = append(r.ex.Units, v.Span())
	}
}

// messages reads the array of messages, each with one.
func (r *reader) messages(name string, v wire.Value, one func(*fairlead.Message, wire.Value)) {
	if !present(v) {
		return
	}
	if v.Kind() != '[' {
		r.fail("%q must be an array", name)
		return
	}
	lead := v.Span().Start + 1
	for e := range v.Elements() {
		if e.Kind() != '{' {
			r.fail("%q must hold objects, but number %d is none", name, len(r.ex.Messages))
		}
		if len(r.ex.Messages) == maxMessages {
			r.fail("%q has more than %d entries: send fewer", name, maxMessages)
		}
		m := fairlead.Message{Span: e.Span(), Lead: lead}
		lead = m.Span.End
		one(&m, e)
		if r.err != nil {
			return
		}
		r.ex.Messages = append(r.ex.Messages, m)
	}
}

// maxOutput takes the first bound that the request sets on its answer.
func (r *reader) maxOutput(values ...wire.Value) {
	for _, v := range values {
		if n, ok := v.Int(); ok && n > 0 {
			r.ex.MaxOutput = min(n, 1<<31)
			return
		}
	}
}

// instructions takes a system prompt that stands outside the messages: a string, or blocks of text.
func (r *reader) instructions(v wire.Value) {
	if v.Kind() == '"' {
		r.ex.Instructions = append(r.ex.Instructions, fairlead.Part{Kind: fairlead.PartText, Span: v.Span()})
		return
	}
	for e := range v.Elements() {
		if text := e.Get("text"); text.Kind() == '"' && r.room() {
			r.ex.Instructions = append(r.ex.Instructions, fairlead.Part{Kind: fairlead.PartText, Span: text.Span()})
		}
	}
}

// settings reads the fields that all dialects spell alike.
func (r *reader) settings(model, stream wire.Value) {
	if present(model) && model.Kind() != '"' {
		r.fail(`"model" must be a string`)
	}
	switch stream.Kind() {
	case 0, 'n', 't', 'f':
	default: // some servers would take "true" or 1 for true
		r.fail(`"stream" must be true or false`)
	}
	r.ex.Model, r.ex.Stream = model.Text(), stream.Bool()
}

// result gives what was read.
func (r *reader) result(op fairlead.Operation) (fairlead.Exchange, error) {
	if r.err != nil {
		return fairlead.Exchange{}, r.err
	}
	r.ex.Operation = op
	return r.ex, nil
}

// noBody reads a request that must not have one.
func noBody(rt Route, body []byte) (fairlead.Exchange, error) {
	if len(body) > 0 {
		return fairlead.Exchange{}, errors.New("a GET request must not have a body")
	}
	return fairlead.Exchange{Operation: rt.Op, Model: rt.Model}, nil
}

// object checks a body and returns the object that it must be.
func object(body []byte) (wire.Value, error) {
	if err := wire.Check(body, wire.Limits{}); err != nil {
		return wire.Value{}, err
	}
	v := wire.Root(body)
	if v.Kind() != '{' {
		return v, errors.New("the body must be a JSON object")
	}
	return v, nil
}

// pick goes over an object once and sets out[i] to its member names[i]. It returns the first other member that holds
// something.
func pick(v wire.Value, out []wire.Value, names ...string) (other wire.Value) {
members:
	for n, m := range v.Members() {
		for i, name := range names {
			if n.Equal(name) {
				out[i] = m
				continue members
			}
		}
		if other.Kind() == 0 && substantial(m) {
			other = m
		}
	}
	return other
}

// present reports whether v is there and not null.
func present(v wire.Value) bool { return v.Kind() != 0 && v.Kind() != 'n' }

// substantial reports whether v is more than null, false or empty.
func substantial(v wire.Value) bool {
	switch v.Kind() {
	case 0, 'n', 'f':
		return false
	case '"':
		return v.Span().Len() > 2
	case '[':
		for range v.Elements() {
			return true
		}
		return false
	case '{':
		for range v.Members() {
			return true
		}
		return false
	}
	return true
}

// role reads a role. One that we do not know is nobody's with authority: its words are untrusted, as a tool's are.
func role(v wire.Value) fairlead.Role {
	switch v.Text() {
	case "user":
		return fairlead.RoleUser
	case "system", "developer":
		return fairlead.RoleSystem
	case "assistant":
		return fairlead.RoleAssistant
	}
	if !present(v) {
		return fairlead.RoleUser
	}
	return fairlead.RoleTool
}

// count reads a number of tokens: -1 if the provider does not say.
func count(v wire.Value) int64 {
	if n, ok := v.Int(); ok && n >= 0 {
		return n
	}
	return -1
}

func first(values ...string) string {
	for _, s := range values {
		if s != "" {
			return s
		}
	}
	return ""
}
