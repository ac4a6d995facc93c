package policy

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// The bounds on sources. Nesting and operators bound the depth of a syntax tree, and with it every recursion over it.
const (
	maxSource    = 1 << 20 // bytes of one file
	maxSources   = 10_000
	maxPolicies  = 100_000
	maxNesting   = 64   // brackets, one in the other
	maxOperators = 1000 // of one policy: operators, accesses and ifs
	maxList      = 20_000
)

// A chunk is one policy as it stands in a file, up to its semicolon.
type chunk struct {
	text       []byte
	start      position // of the first byte that is neither space nor comment
	whole      []byte   // text with the comments directly above it
	terminated bool
}

// A position counts lines and characters from 1.
type position struct{ line, col int }

// A scanner cuts a source into policies. It knows only as much of Cedar as that takes: strings, comments and brackets.
type scanner struct {
	src []byte
	at  int
	pos position
}

// A scanError is where a source cannot be cut any further.
type scanError struct {
	pos  position
	text string
}

func newScanner(src []byte) *scanner { return &scanner{src: src, pos: position{1, 1}} }

// advance moves n bytes on, which hold whole characters.
func (s *scanner) advance(n int) {
	for end := min(s.at+n, len(s.src)); s.at < end; {
		r, size := utf8.DecodeRune(s.src[s.at:])
		s.at += size
		if r == '\n' {
			s.pos = position{s.pos.line + 1, 1}
		} else {
			s.pos.col++
		}
	}
}

// skip moves over space and comments and returns where the comments begin that directly precede what follows.
func (s *scanner) skip() (comment int) {
	comment = -1
	for blank := 0; s.at < len(s.src); {
		switch c := s.src[s.at]; {
		case c == '\n':
			if blank++; blank > 1 {
				comment = -1
			}
			s.advance(1)
		case c == ' ' || c == '\t' || c == '\r':
			s.advance(1)
		case s.comment():
			if comment < 0 {
				comment = s.at
			}
			blank = 0
			s.toLineEnd()
		default:
			if comment < 0 {
				comment = s.at
			}
			return comment
		}
	}
	return s.at
}

func (s *scanner) comment() bool { return bytes.HasPrefix(s.src[s.at:], []byte("//")) }

func (s *scanner) toLineEnd() {
	n := bytes.IndexByte(s.src[s.at:], '\n')
	if n < 0 {
		n = len(s.src) - s.at
	}
	s.advance(n)
}

// next returns the next policy, or nil at the end.
func (s *scanner) next() (*chunk, *scanError) {
	whole := s.skip()
	if s.at >= len(s.src) {
		return nil, nil
	}
	start, pos := s.at, s.pos
	var b bounds
	for s.at < len(s.src) {
		here, c := s.pos, s.src[s.at]
		switch {
		case s.comment():
			s.toLineEnd()
			continue
		case c == '"':
			if !s.text() {
				return nil, &scanError{here, "the text that begins here has no end: add a quotation mark"}
			}
			continue
		case c == '?':
			return nil, &scanError{here, "templates are not supported: write the policy once for each principal or resource, or name a group"}
		case c == ';' && b.depth == 0:
			s.advance(1)
			return &chunk{s.src[start:s.at], pos, s.src[whole:s.at], true}, nil
		}
		n := s.token()
		if msg := b.add(s.src[s.at : s.at+n]); msg != "" {
			return nil, &scanError{here, msg}
		}
		s.advance(n)
	}
	return &chunk{s.src[start:s.at], pos, s.src[whole:s.at], false}, nil
}

// text moves over a string literal and reports whether it has an end.
func (s *scanner) text() bool {
	for i := s.at + 1; i < len(s.src); i++ {
		switch s.src[i] {
		case '\\':
			i++
		case '"':
			s.advance(i + 1 - s.at)
			return true
		case '\n':
			return false
		}
	}
	return false
}

// token is the length of the word, number or sign at hand.
func (s *scanner) token() int {
	n := 0
	for s.at+n < len(s.src) && isWord(s.src[s.at+n]) {
		n++
	}
	if n > 0 {
		return n
	}
	if rest := s.src[s.at:]; len(rest) > 1 && (rest[1] == '=' || rest[1] == rest[0] && (rest[0] == '&' || rest[0] == '|')) {
		return 2
	}
	_, n = utf8.DecodeRune(s.src[s.at:])
	return n
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// bounds counts what makes a syntax tree deep.
type bounds struct{ depth, operators, items int }

func (b *bounds) add(token []byte) string {
	switch string(token) {
	case "(", "[", "{":
		if b.depth++; b.depth > maxNesting {
			return fmt.Sprintf("brackets are nested deeper than %d levels: split the policy", maxNesting)
		}
		b.operators++ // a call or a bracketed expression is a level as well
	case ")", "]", "}":
		b.depth = max(0, b.depth-1)
	case ",":
		b.items++
	case "&&", "||", "!", "-", "+", "*", ".", "<", "<=", ">", ">=", "==", "!=", "if", "has", "like", "is", "in":
		b.operators++
	}
	switch {
	case b.operators > maxOperators:
		return fmt.Sprintf("a policy has more than %d operators: split it into several", maxOperators)
	case b.items > maxList:
		return fmt.Sprintf("a policy lists more than %d values: use a group, or split it into several", maxList)
	}
	return ""
}
