package wire

import (
	"bytes"
	"iter"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
)

// A Value is a view of one value in a document that passed [Check]. It holds no copy; it is good for as long as the
// document is not changed. The zero Value stands for a value that is absent: it has kind 0 and nothing in it.
type Value struct {
	src        []byte
	start, end int
}

// Root returns the value of src, which must have passed [Check].
func Root(src []byte) Value {
	i, end := space(src, 0), len(src)
	for end > i && (src[end-1] == ' ' || src[end-1] == '\n' || src[end-1] == '\r' || src[end-1] == '\t') {
		end--
	}
	return Value{src, i, end}
}

// Span gives the bytes that v occupies in the document; for a string they include the quotation marks.
func (v Value) Span() fairlead.Span { return fairlead.Span{Start: v.start, End: v.end} }

// Raw returns the bytes of v as they are in the document.
func (v Value) Raw() []byte { return v.src[v.start:v.end:v.end] }

// Kind tells what v is: '{', '[', '"', '0' for any number, 't', 'f', 'n', or 0 for the zero Value.
func (v Value) Kind() byte {
	if v.start >= v.end {
		return 0
	}
	switch b := v.src[v.start]; b {
	case '-', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return '0'
	default:
		return b
	}
}

// A Name is the name of a member.
type Name struct{ raw []byte } // between the quotation marks

// Equal reports whether the name is s, once unescaped.
func (n Name) Equal(s string) bool {
	if bytes.IndexByte(n.raw, '\\') < 0 {
		return string(n.raw) == s
	}
	return n.String() == s
}

// String returns the unescaped name.
func (n Name) String() string { return unescaped(n.raw) }

// Members goes over the members of an object in their order; over nothing if v is no object.
func (v Value) Members() iter.Seq2[Name, Value] {
	return func(yield func(Name, Value) bool) {
		if v.Kind() != '{' {
			return
		}
		for i := space(v.src, v.start+1); i < v.end && v.src[i] == '"'; {
			end := skipString(v.src, i)
			n := Name{v.src[i+1 : end-1]}
			m := at(v.src, space(v.src, end)+1) // after the colon
			if !yield(n, m) {
				return
			}
			i = separator(v.src, m.end)
		}
	}
}

// Elements goes over the elements of an array in their order; over nothing if v is no array.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != '[' {
			return
		}
		for i := space(v.src, v.start+1); i < v.end && v.src[i] != ']'; {
			e := at(v.src, i)
			if !yield(e) {
				return
			}
			i = separator(v.src, e.end)
		}
	}
}

// Get returns the member of an object that has the given name, or the zero Value. It takes time linear in the object:
// to read several members, go over [Value.Members] once.
func (v Value) Get(name string) Value {
	for n, m := range v.Members() {
		if n.Equal(name) {
			return m
		}
	}
	return Value{}
}

// Text returns the unescaped string, or "" if v is no string. A surrogate half on its own becomes U+FFFD.
func (v Value) Text() string {
	if v.Kind() != '"' {
		return ""
	}
	return unescaped(v.src[v.start+1 : v.end-1])
}

// AppendText appends what [Value.Text] returns.
func (v Value) AppendText(dst []byte) []byte {
	if v.Kind() != '"' {
		return dst
	}
	return appendUnescaped(dst, v.src[v.start+1:v.end-1])
}

// Int returns the number, if v is one that is written as an integer and fits.
func (v Value) Int() (int64, bool) {
	if v.Kind() != '0' || v.end-v.start > 20 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(v.src[v.start:v.end]), 10, 64)
	return n, err == nil
}

// Bool reports whether v is true.
func (v Value) Bool() bool { return v.Kind() == 't' }

// at returns the value that starts at or after i, behind white space.
func at(src []byte, i int) Value {
	i = space(src, i)
	return Value{src, i, skip(src, i)}
}

// separator returns the offset of what follows the comma after a member or element, or of the closing bracket.
func separator(src []byte, i int) int {
	i = space(src, i)
	if i < len(src) && src[i] == ',' {
		i = space(src, i+1)
	}
	return i
}

// skip returns the end of the value at i.
func skip(src []byte, i int) int {
	if i >= len(src) {
		return len(src)
	}
	switch src[i] {
	case '"':
		return skipString(src, i)
	case '{', '[':
		return skipContainer(src, i)
	}
	for i < len(src) && src[i] > ' ' && src[i] != ',' && src[i] != ']' && src[i] != '}' {
		i++
	}
	return i
}

func skipContainer(src []byte, i int) int {
	depth := 0
	for i < len(src) {
		switch src[i] {
		case '"':
			i = skipString(src, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return i
}

// skipString returns the end of the string literal at i. It jumps from quotation mark to quotation mark; one that is
// behind an odd number of backslashes is escaped.
func skipString(src []byte, i int) int {
	i++
	for {
		n := bytes.IndexByte(src[i:], '"')
		if n < 0 {
			return len(src)
		}
		j := i + n - 1
		for j >= i && src[j] == '\\' {
			j--
		}
		if (i+n-1-j)%2 == 0 {
			return i + n + 1
		}
		i += n + 1
	}
}

func unescaped(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	return string(appendUnescaped(make([]byte, 0, len(raw)), raw))
}

// appendUnescaped appends what the inside of a valid string literal stands for.
func appendUnescaped(dst, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:i]...)
		r, n := unescape(raw[i:])
		dst = utf8.AppendRune(dst, r) // a surrogate half becomes U+FFFD
		raw = raw[i+n:]
	}
}

// unescape reads the escape at the start of raw, or both escapes of a surrogate pair. A surrogate half on its own is
// returned as it is.
func unescape(raw []byte) (r rune, n int) {
	if len(raw) < 2 {
		return utf8.RuneError, len(raw)
	}
	switch b := raw[1]; b {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u': // below
	default:
		return rune(b), 2
	}
	r, ok := hex4(raw, 2)
	if !ok {
		return utf8.RuneError, 2
	}
	if utf16.IsSurrogate(r) && len(raw) >= 12 && raw[6] == '\\' && raw[7] == 'u' {
		if low, ok := hex4(raw, 8); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 12
			}
		}
	}
	return r, 6
}
