package dialect

import (
	"errors"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// malformedEvent is the ErrorType of a stream with an event that could not be read.
const malformedEvent = "fairlead.malformed_event"

// A stream is what the streams of all dialects have in common: an answer that comes in pieces.
type stream struct {
	b         builder
	held      bool
	pieces    map[key]*piece
	order     []*piece
	calls     int  // how many of the pieces are calls
	malformed bool // an event could not be read

	holdTools bool
	before    bool // an event was not held
	heldBytes int
}

// A key is where a piece belongs: choice and call, item and content, or block.
type key struct {
	outer, inner int64
	kind         fairlead.PartKind // what claims to be a text cannot hide a call
}

// A piece is one text or call of the answer as it grows.
type piece struct {
	kind     fairlead.PartKind
	outer    int64 // of its key
	choice   int
	id, name string
	text     []byte
	begun    bool // a call: the event that begins it has come, and it is one that can be replaced
}

// piece returns the piece at k, which begins now if it is new.
func (s *stream) piece(k key, kind fairlead.PartKind) *piece {
	k.kind = kind
	if p := s.pieces[k]; p != nil {
		return p
	}
	return s.begin(k, kind)
}

// begin returns a new piece at k, whatever was there.
func (s *stream) begin(k key, kind fairlead.PartKind) *piece {
	k.kind = kind
	if s.pieces == nil {
		s.pieces = make(map[key]*piece)
	}
	p := &piece{kind: kind, outer: k.outer}
	s.pieces[k] = p
	s.order = append(s.order, p)
	if kind == fairlead.PartToolCall {
		s.calls++
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
	s.odd()
	return wire.Value{}
}

// odd marks an event that another reader may take for a call where we do not.
func (s *stream) odd() {
	s.malformed = true
	s.b.ErrorType = first(s.b.ErrorType, malformedEvent)
}

// HoldTools implements Stream.
func (s *stream) HoldTools() { s.holdTools = true }

// hold is what Event returns, once it has read ev.
func (s *stream) hold(ev wire.Event) bool {
	if s.holdTools && (s.calls > 0 || s.malformed) { // a laxer reader may find a call in what we cannot read
		s.held = true
	}
	if s.held {
		s.heldBytes += len(ev.Raw)
	} else {
		s.before = true
	}
	return s.held
}

// ready reports why calls cannot be taken out of the held bytes, if they cannot.
func (s *stream) ready(held []byte) error {
	switch {
	case !s.holdTools:
		return errors.New("tool calls cannot be withheld from a stream that did not hold them: call HoldTools first")
	case len(held) != s.heldBytes:
		return errors.New("tool calls cannot be withheld: give all bytes of the events that were held, and no others")
	case s.malformed:
		return errShape
	}
	return nil
}

// callPieces lists the calls in the order in which Answer has them.
func (s *stream) callPieces() []*piece {
	calls := make([]*piece, 0, s.calls)
	for _, p := range s.order {
		if p.kind == fairlead.PartToolCall {
			calls = append(calls, p)
		}
	}
	return calls
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
			b.ToolCalls = append(b.ToolCalls, p.call())
		}
	}
	return b.answer()
}

func (p *piece) call() fairlead.ToolCall {
	return fairlead.ToolCall{ID: p.id, Name: p.name, Arguments: string(p.text), Choice: p.choice}
}

// An idle stream is that of a route whose answers do not come as events. It holds everything.
type idle struct{ a fairlead.Answer }

func (s idle) Event(wire.Event) bool   { return true }
func (s idle) Answer() fairlead.Answer { return s.a }
func (s idle) HoldTools()              {}

func (s idle) Withhold(held []byte, refused []Withheld) ([]byte, error) {
	_, _, err := withheld(nil, refused)
	return held, err
}
