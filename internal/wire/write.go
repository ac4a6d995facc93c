package wire

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
)

// AppendQuote appends s as a JSON string literal with as few escapes as RFC 8259 allows. Bytes that are not UTF-8
// become U+FFFD, so that the output is always valid.
func AppendQuote(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[from:i]...), "\uFFFD"...)
				from = i + 1
			}
			i += n
			continue
		}
		if b < 0x20 || b == '"' || b == '\\' {
			dst = appendEscape(append(dst, s[from:i]...), rune(b))
			from = i + 1
		}
		i++
	}
	return append(append(dst, s[from:]...), '"')
}

// appendEscape appends r within a string literal: escaped if it must be, and as it is otherwise.
func appendEscape(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	if r < 0x20 || utf16.IsSurrogate(r) {
		return fmt.Appendf(dst, `\u%04x`, r)
	}
	return utf8.AppendRune(dst, r)
}

// AppendCanonical appends v in the one spelling that all spellings of the same value share: no white space, members
// sorted by the bytes of their names, strings with as few escapes as possible, numbers by their exact decimal value (1,
// 1.0 and 10e-1 are the same; 9007199254740993 stays apart from 9007199254740992). Different values never share a
// spelling. It takes time linear in v, except for the sorting, and about 12 bytes of memory for each member.
func AppendCanonical(dst []byte, v Value) []byte {
	switch v.Kind() {
	case 0:
		return dst
	case '{', '[':
		c := canon{src: v.src}
		c.index(v)
		dst, _, _ = c.append(dst, v.start, 0)
		return dst
	}
	return appendScalar(dst, v.Raw())
}

// A canon writes a container in canonical form. Because skipping a nested value at each level would take time
// proportional to the depth, the members are indexed first, in one pass.
type canon struct {
	src     []byte
	members []member // in their order in the source, those of nested objects in between
	sorted  []int32  // scratch: indices of the members of the objects being written
}

// A member is where the name of a member starts, and where its value ends.
type member struct {
	name, end uint32
	next      uint32 // index of the first member after all those within its value
}

// index records the members of v and of all objects in it.
func (c *canon) index(v Value) {
	type open struct {
		member int // index of the member whose value is being read, or -1
		object bool
	}
	var stack []open
	expectName := false
	for i := v.start; i < v.end; {
		switch b := c.src[i]; b {
		case '"':
			if expectName {
				stack[len(stack)-1].member = len(c.members)
				c.members = append(c.members, member{name: uint32(i)})
				expectName = false
			}
			i = skipString(c.src, i)
			continue
		case '{', '[':
			stack = append(stack, open{-1, b == '{'})
			expectName = b == '{'
		case ',', '}', ']':
			top := &stack[len(stack)-1]
			if top.member >= 0 {
				m := &c.members[top.member]
				m.end, m.next = uint32(i), uint32(len(c.members))
				top.member = -1
			}
			expectName = b == ',' && top.object
			if b != ',' {
				stack = stack[:len(stack)-1]
			}
		}
		i++
	}
}

// append writes the value at i, whose members are recorded from index k on. It returns the end of the value and the
// index after its members. It calls itself as deep as the document is nested, which Check has bounded.
func (c *canon) append(dst []byte, i, k int) ([]byte, int, int) {
	switch c.src[i] {
	case '[':
		dst = append(dst, '[')
		i = space(c.src, i+1)
		for n := 0; c.src[i] != ']'; n++ {
			if n > 0 {
				dst = append(dst, ',')
			}
			dst, i, k = c.append(dst, i, k)
			i = separator(c.src, i)
		}
		return append(dst, ']'), i + 1, k
	case '{':
		return c.appendObject(dst, i, k)
	}
	end := skip(c.src, i)
	return appendScalar(dst, c.src[i:end]), end, k
}

func (c *canon) appendObject(dst []byte, i, k int) ([]byte, int, int) {
	dst = append(dst, '{')
	i = space(c.src, i+1)
	if c.src[i] == '}' {
		return append(dst, '}'), i + 1, k
	}
	base := len(c.sorted)
	for {
		c.sorted = append(c.sorted, int32(k))
		i = int(c.members[k].end)
		k = int(c.members[k].next)
		if c.src[i] != ',' {
			break
		}
	}
	c.sort(c.sorted[base:])
	for n := base; n < len(c.sorted); n++ {
		if n > base {
			dst = append(dst, ',')
		}
		m := int(c.sorted[n])
		at := int(c.members[m].name)
		end := skipString(c.src, at)
		dst = append(appendScalar(dst, c.src[at:end]), ':')
		dst, _, _ = c.append(dst, space(c.src, space(c.src, end)+1), m+1)
	}
	c.sorted = c.sorted[:base]
	return append(dst, '}'), i + 1, k
}

// sort orders members by their unescaped names.
func (c *canon) sort(list []int32) {
	if len(list) < 2 {
		return
	}
	var escaped map[int32][]byte // unescaped once, not at every comparison
	raw := func(m int32) []byte {
		at := int(c.members[m].name)
		return c.src[at+1 : skipString(c.src, at)-1]
	}
	for _, m := range list {
		if r := raw(m); bytes.IndexByte(r, '\\') >= 0 {
			if escaped == nil {
				escaped = make(map[int32][]byte)
			}
			escaped[m] = appendUnescaped(nil, r)
		}
	}
	slices.SortFunc(list, func(a, b int32) int {
		x, ok := escaped[a]
		if !ok {
			x = raw(a)
		}
		y, ok := escaped[b]
		if !ok {
			y = raw(b)
		}
		return bytes.Compare(x, y)
	})
}

// appendScalar appends a string, number or literal in canonical form.
func appendScalar(dst, raw []byte) []byte {
	switch raw[0] {
	case '"':
		for {
			i := bytes.IndexByte(raw, '\\')
			if i < 0 {
				return append(dst, raw...)
			}
			dst = append(dst, raw[:i]...)
			r, n := unescape(raw[i:])
			dst = appendEscape(dst, r)
			raw = raw[i+n:]
		}
	case 't', 'f', 'n':
		return append(dst, raw...)
	}
	return appendNumber(dst, raw)
}

// appendNumber appends a number by its exact value: digits and, unless it is zero, an exponent of ten. A number whose
// exponent is beyond any use stays as it is written.
func appendNumber(dst, raw []byte) []byte {
	mantissa, exponent := raw, 0
	if e := bytes.IndexAny(raw, "eE"); e >= 0 {
		var err error
		if exponent, err = strconv.Atoi(string(raw[e+1:])); err != nil || exponent > 1<<30 || exponent < -1<<30 {
			return append(dst, raw...)
		}
		mantissa = raw[:e]
	}
	if mantissa[0] == '-' {
		mantissa = mantissa[1:]
	}
	start := len(dst)
	if raw[0] == '-' {
		dst = append(dst, '-')
	}
	from := len(dst)
	whole, fraction, _ := bytes.Cut(mantissa, []byte("."))
	dst = append(append(dst, whole...), fraction...)
	exponent -= len(fraction)
	lead := from
	for lead < len(dst)-1 && dst[lead] == '0' {
		lead++
	}
	dst = append(dst[:from], dst[lead:]...)
	if dst[from] == '0' {
		return append(dst[:start], '0') // -0 too: no serialiser keeps it apart
	}
	for exponent < 0 && dst[len(dst)-1] == '0' {
		dst, exponent = dst[:len(dst)-1], exponent+1
	}
	if exponent > 0 && exponent <= 20 && len(dst)-from+exponent <= 21 {
		return append(dst, "00000000000000000000"[:exponent]...)
	}
	for dst[len(dst)-1] == '0' && len(dst)-from+max(exponent, 0) > 21 {
		dst, exponent = dst[:len(dst)-1], exponent+1
	}
	if exponent == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, 'e'), int64(exponent), 10)
}

// A Splice replaces the bytes at a span, or inserts where the span is empty.
type Splice struct {
	At   fairlead.Span
	With []byte
}

// Apply appends src to dst with the edits made, and everything else byte for byte as it was. Spans are offsets into
// src, in any order. Where edits overlap, the later one (by its start) removes what the earlier has left, so that
// nothing that any edit removes survives. It panics if a span lies outside src. The edits are not changed.
func Apply(dst, src []byte, edits ...Splice) []byte {
	byStart := func(a, b Splice) int { return a.At.Start - b.At.Start }
	if !slices.IsSortedFunc(edits, byStart) {
		edits = slices.Clone(edits)
		slices.SortStableFunc(edits, byStart)
	}
	done := 0
	for _, e := range edits {
		if e.At.Start > done {
			dst = append(dst, src[done:e.At.Start]...)
		}
		dst = append(dst, e.With...)
		done = max(done, e.At.Start, e.At.End)
	}
	return append(dst, src[done:]...)
}
