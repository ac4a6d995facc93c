package wire

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"sync"
	"unicode/utf8"
)

// Check reports whether src is exactly one JSON value by RFC 8259, with white space around it at most, in valid UTF-8,
// nested and populated within lim, and without a member name that occurs twice in one object. Names are compared after
// unescaping. An escaped half of a surrogate pair on its own is accepted, since providers accept it; where names are
// compared it stands for U+FFFD, so that two names that some reader would merge are refused.
//
// The error is a [*SyntaxError]. Ordinary documents need no allocation.
func Check(src []byte, lim Limits) error {
	if len(src) > maxDocument {
		return &SyntaxError{maxDocument, "the document is longer than 4 GiB"}
	}
	c := checkers.Get().(*checker)
	c.src, c.lim = src, lim.orDefault()
	err := c.document()
	c.release()
	if err != nil {
		return err
	}
	return nil
}

var checkers = sync.Pool{New: func() any { return &checker{seed: maphash.MakeSeed()} }}

// A checker is the state of one Check, kept for the next one.
type checker struct {
	src   []byte
	lim   Limits
	open  []frame
	names []name     // of the open objects, outermost first
	text  []byte     // the unescaped form of those names that have escapes
	sets  [][]uint32 // hash sets over names of the large open objects, outermost first
	nsets int
	seed  maphash.Seed
}

// A frame is an open array or object.
type frame struct {
	object bool
	large  bool   // the last of checker.sets in use belongs to it
	names  uint32 // where its names start in checker.names
	text   uint32 // length of checker.text before its names
}

// A name is a member name seen: a range of checker.src, or of checker.text if it had escapes.
type name struct {
	start, end uint32
	unescaped  bool
	hash       uint32 // set once the object is large
}

// Sizes: below smallObject names are compared one by one; scratch above keepScratch entries is not kept.
const (
	smallObject = 16
	keepScratch = 1 << 14
)

func (c *checker) release() {
	big := cap(c.open) > keepScratch || cap(c.names) > keepScratch || cap(c.text) > keepScratch
	for _, s := range c.sets[:cap(c.sets)] {
		big = big || cap(s) > keepScratch
	}
	if big {
		return
	}
	c.src, c.open, c.names, c.text, c.nsets = nil, c.open[:0], c.names[:0], c.text[:0], 0
	checkers.Put(c)
}

// document walks the whole source. It keeps its own stack, so that depth costs no stack of ours.
func (c *checker) document() *SyntaxError {
	src := c.src
	i := 0
	var err *SyntaxError
value:
	for {
		i = space(src, i)
		if i == len(src) {
			return &SyntaxError{i, "it ends where a value is expected"}
		}
		switch b := src[i]; b {
		case '{', '[':
			if len(c.open) >= c.lim.Depth {
				return &SyntaxError{i, "it is nested too deeply"}
			}
			c.open = append(c.open, frame{object: b == '{', names: uint32(len(c.names)), text: uint32(len(c.text))})
			i = space(src, i+1)
			if i < len(src) && src[i] == b+2 { // '}' and ']' follow their openers by two
				c.pop()
				i++
				break
			}
			if b == '{' {
				if i, err = c.name(i); err != nil {
					return err
				}
			}
			continue value
		case '"':
			if i, _, err = scanString(src, i); err != nil {
				return err
			}
		case 't':
			i, err = literal(src, i, "true")
		case 'f':
			i, err = literal(src, i, "false")
		case 'n':
			i, err = literal(src, i, "null")
		default:
			i, err = number(src, i)
		}
		if err != nil {
			return err
		}
		for { // after a value
			i = space(src, i)
			if len(c.open) == 0 {
				if i < len(src) {
					return &SyntaxError{i, "there is more after the end of the value"}
				}
				return nil
			}
			if i == len(src) {
				return &SyntaxError{i, "it ends inside an array or object"}
			}
			object := c.open[len(c.open)-1].object
			switch b := src[i]; {
			case b == ',' && object:
				if i, err = c.name(space(src, i+1)); err != nil {
					return err
				}
				continue value
			case b == ',':
				i++
				continue value
			case b == '}' && object, b == ']' && !object:
				c.pop()
				i++
			case object:
				return &SyntaxError{i, "a comma or closing brace is expected after a member"}
			default:
				return &SyntaxError{i, "a comma or closing bracket is expected after an element"}
			}
		}
	}
}

func (c *checker) pop() {
	f := c.open[len(c.open)-1]
	c.open = c.open[:len(c.open)-1]
	c.names, c.text = c.names[:f.names], c.text[:f.text]
	if f.large {
		c.nsets--
	}
}

// name reads a member name and the colon after it, and refuses a name that the object already has.
func (c *checker) name(i int) (int, *SyntaxError) {
	src := c.src
	if i == len(src) || src[i] != '"' {
		return i, &SyntaxError{i, "a member name in quotation marks is expected"}
	}
	end, escaped, err := scanString(src, i)
	if err != nil {
		return i, err
	}
	n := name{start: uint32(i + 1), end: uint32(end - 1)}
	if escaped {
		at := len(c.text)
		c.text = appendUnescaped(c.text, src[i+1:end-1])
		n = name{start: uint32(at), end: uint32(len(c.text)), unescaped: true}
	}
	f := &c.open[len(c.open)-1]
	if len(c.names)-int(f.names) >= c.lim.Members {
		return i, &SyntaxError{i, "an object has too many members"}
	}
	if !c.add(f, n) {
		return i, &SyntaxError{i, "an object has two members of the same name"}
	}
	i = space(src, end)
	if i == len(src) || src[i] != ':' {
		return i, &SyntaxError{i, "a colon is expected after a member name"}
	}
	return i + 1, nil
}

func (c *checker) bytes(n name) []byte {
	if n.unescaped {
		return c.text[n.start:n.end]
	}
	return c.src[n.start:n.end]
}

// add puts n among the names of f, and reports false if it is there already.
func (c *checker) add(f *frame, n name) bool {
	text := c.bytes(n)
	if !f.large {
		for _, old := range c.names[f.names:] {
			if old.end-old.start == n.end-n.start && string(c.bytes(old)) == string(text) {
				return false
			}
		}
		c.names = append(c.names, n)
		if len(c.names)-int(f.names) > smallObject {
			f.large = true
			if c.nsets == len(c.sets) {
				c.sets = append(c.sets, nil)
			}
			c.nsets++
			for i := range c.names[f.names:] {
				old := &c.names[int(f.names)+i]
				old.hash = uint32(maphash.Bytes(c.seed, c.bytes(*old)))
			}
			c.rehash(f, 8*smallObject)
		}
		return true
	}
	n.hash = uint32(maphash.Bytes(c.seed, text))
	set := c.sets[c.nsets-1]
	mask := uint32(len(set) - 1)
	at := n.hash & mask
	for ; set[at] != 0; at = (at + 1) & mask {
		old := c.names[set[at]-1]
		if old.hash == n.hash && string(c.bytes(old)) == string(text) {
			return false
		}
	}
	c.names = append(c.names, n)
	set[at] = uint32(len(c.names))
	if 2*(len(c.names)-int(f.names)) > len(set) {
		c.rehash(f, 4*len(set))
	}
	return true
}

// rehash gives the innermost large object f a set of size slots, a power of two. Only that many slots are cleared, so
// a large object does not make the small ones after it expensive.
func (c *checker) rehash(f *frame, size int) {
	set := c.sets[c.nsets-1]
	if cap(set) < size {
		set = make([]uint32, size)
	} else {
		set = set[:size]
		clear(set)
	}
	mask := uint32(size - 1)
	for i := int(f.names); i < len(c.names); i++ {
		at := c.names[i].hash & mask
		for set[at] != 0 {
			at = (at + 1) & mask
		}
		set[at] = uint32(i + 1)
	}
	c.sets[c.nsets-1] = set
}

// space returns the offset of the first byte at or after i that is not white space.
func space(src []byte, i int) int {
	for i < len(src) && src[i] <= ' ' && (src[i] == ' ' || src[i] == '\n' || src[i] == '\r' || src[i] == '\t') {
		i++
	}
	return i
}

func literal(src []byte, i int, word string) (int, *SyntaxError) {
	if len(src)-i < len(word) || string(src[i:i+len(word)]) != word {
		return i, &SyntaxError{i, "a value is expected here"}
	}
	return i + len(word), nil
}

func digits(src []byte, i int) int {
	for i < len(src) && '0' <= src[i] && src[i] <= '9' {
		i++
	}
	return i
}

// number reads a number at i, or says that no value starts there.
func number(src []byte, i int) (int, *SyntaxError) {
	j := i
	if src[j] == '-' {
		j++
	}
	switch whole := digits(src, j); {
	case whole == j && i == j:
		return i, &SyntaxError{i, "a value is expected here"}
	case whole == j:
		return i, &SyntaxError{j, "a digit is expected in a number"}
	case src[j] == '0' && whole > j+1:
		return i, &SyntaxError{j, "a number starts with a zero that it does not need"}
	default:
		j = whole
	}
	if j < len(src) && src[j] == '.' {
		end := digits(src, j+1)
		if end == j+1 {
			return i, &SyntaxError{end, "a digit is expected after the decimal point"}
		}
		j = end
	}
	if j < len(src) && (src[j] == 'e' || src[j] == 'E') {
		j++
		if j < len(src) && (src[j] == '+' || src[j] == '-') {
			j++
		}
		end := digits(src, j)
		if end == j {
			return i, &SyntaxError{end, "a digit is expected in an exponent"}
		}
		j = end
	}
	return j, nil
}

// Every byte of a word set to one, and every high bit.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// scanString reads the string literal that opens at i, and returns the offset after its closing quotation mark and
// whether it has escapes. It looks at eight bytes at a time for one that is not plain ASCII text.
func scanString(src []byte, i int) (end int, escaped bool, err *SyntaxError) {
	start := i
	i++
	for {
		for len(src)-i >= 8 {
			w := binary.LittleEndian.Uint64(src[i:])
			quote, slash := w^(ones*'"'), w^(ones*'\\')
			// A borrow can mark bytes above the lowest that is marked, so only that one is used.
			if m := (w | (w - ones*0x20) | (quote-ones)&^quote | (slash-ones)&^slash) & highs; m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
			i += 8
		}
		if i >= len(src) {
			return i, escaped, &SyntaxError{start, "a string has no end"}
		}
		switch b := src[i]; {
		case b == '"':
			return i + 1, escaped, nil
		case b == '\\':
			escaped = true
			n := escape(src, i)
			if n == 0 {
				return i, escaped, &SyntaxError{i, "a string has an escape that JSON does not know"}
			}
			i += n
		case b < 0x20:
			return i, escaped, &SyntaxError{i, "a string has a control character that is not escaped"}
		case b < utf8.RuneSelf:
			i++
		default:
			for i < len(src) && src[i] >= utf8.RuneSelf {
				r, n := utf8.DecodeRune(src[i:])
				if r == utf8.RuneError && n == 1 {
					return i, escaped, &SyntaxError{i, "a string is not valid UTF-8"}
				}
				i += n
			}
		}
	}
}

// escape returns the length of the escape at i, or 0 if it is none.
func escape(src []byte, i int) int {
	if i+1 >= len(src) {
		return 0
	}
	switch src[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(src, i+2); ok {
			return 6
		}
	}
	return 0
}

// hex4 reads the four hexadecimal digits at i.
func hex4(src []byte, i int) (rune, bool) {
	if len(src)-i < 4 {
		return 0, false
	}
	var r rune
	for _, b := range src[i : i+4] {
		r <<= 4
		switch {
		case '0' <= b && b <= '9':
			r |= rune(b - '0')
		case 'a' <= b|0x20 && b|0x20 <= 'f':
			r |= rune(b|0x20-'a') + 10
		default:
			return 0, false
		}
	}
	return r, true
}
