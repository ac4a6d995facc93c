package dialect

import (
	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// malformedEvent is the ErrorType of a stream with an event that could not be read.
const malformedEvent = "fairlead.malformed_event"

// A stream is what the streams of all dialects have in common: an answer that comes in pieces.
type stream struct {
	b      builder
	held   bool
	pieces map[key]*piece
	order  []*piece
}

// A key is where a piece belongs: choice and call, item and content, or block.
type key struct{ outer, inner int64 }

// A piece is one text or call of the answer as it grows.
type piece struct {
	kind     fairlead.PartKind
	id, name string
	text     []byte
}

// piece returns the piece at k, which begins now if it is new.
func (s *stream) piece(k key, kind fairlead.PartKind) *piece {
	p := s.pieces[k]
	if p == nil {
		if s.pieces == nil {
			s.pieces = make(map[key]*piece)
		}
		p = &piece{kind: kind}
		s.pieces[k] = p
		s.order = append(s.order, p)
	}
	return p
}

// data checks the data of an event and returns the object in it, or the zero Value.
func (s *stream) data(ev wire.Event) wire.Value {
	if len(ev.Data) == 0 {
		return wire.Value{}
	}
	if wire.Check(ev.Data, wire.Limits{}) == nil {
		if v := wire.Root(ev.Data); v.Kind() == '{' {
			return v
		}
	}
	s.b.ErrorType = first(s.b.ErrorType, malformedEvent)
	return wire.Value{}
}

// Answer gives what has come so far.
func (s *stream) Answer() fairlead.Answer {
	b := s.b
	b.text, b.reasoning, b.refusal, b.ToolCalls = nil, nil, nil, nil
	for _, p := range s.order {
		switch p.kind {
		case fairlead.PartText:
			b.text = append(b.text, p.text...)
		case fairlead.PartReasoning:
			b.reasoning = append(b.reasoning, p.text...)
		case fairlead.PartRefusal:
			b.refusal = append(b.refusal, p.text...)
		case fairlead.PartToolCall:
			b.ToolCalls = append(b.ToolCalls, fairlead.ToolCall{ID: p.id, Name: p.name, Arguments: string(p.text)})
		}
	}
	return b.answer()
}

// An idle stream is that of a route whose answers do not come as events. It holds everything.
type idle struct{ a fairlead.Answer }

func (s idle) Event(wire.Event) bool   { return true }
func (s idle) Answer() fairlead.Answer { return s.a }
