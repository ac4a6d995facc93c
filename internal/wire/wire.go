// Package wire reads and edits JSON documents and event streams that come from hostile clients and careless providers,
// without ever copying or rewriting what it does not have to.
//
// The threat is two readers that disagree: a gateway that authorises the first of two "model" members while the
// provider obeys the second. So a document is read once, strictly ([Check]: RFC 8259, valid UTF-8, no member name twice
// in an object), and every later reading is by spans of the checked bytes ([Value]). Changes are splices by offset
// ([Apply]); nothing is ever reserialised. Event streams are framed as WHATWG specifies, and every byte of them is
// handed on in the order of its arrival ([Framer]).
//
// Bounds: Check takes time linear in the document, and memory for its depth and the names of the objects open at a
// time. Walking a Value takes no memory. A Framer holds at most one event.
package wire

import (
	"fmt"
	"math"
)

// Limits bounds what [Check] accepts. The zero value stands for the defaults.
type Limits struct {
	// Depth is how many arrays and objects may be open at once; 1000 by default. The parsers in front of the models
	// give up between 128 and 1000 levels, so nothing deeper can have a meaning.
	Depth int
	// Members is how many members one object may have; 100,000 by default. It bounds the table that finds duplicate
	// names (about 30 bytes a member). Tools, messages and embedding inputs are array elements and are not bounded.
	Members int
}

func (l Limits) orDefault() Limits {
	if l.Depth <= 0 {
		l.Depth = 1000
	}
	if l.Members <= 0 {
		l.Members = 100_000
	}
	return l
}

// maxDocument keeps offsets within 32 bits.
const maxDocument = math.MaxUint32

// A SyntaxError says why a document was refused, and where. Msg is a clause such as "the member name is not a string";
// it quotes nothing of the document, so that it can be logged.
type SyntaxError struct {
	Offset int // in bytes from the start of the document
	Msg    string
}

// Error gives the reason and the offset as one sentence.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the JSON cannot be accepted: %s (at byte %d)", e.Msg, e.Offset)
}
