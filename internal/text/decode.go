package text

import (
	"encoding/base64"
	"encoding/hex"
	"html"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
)

// A View is what a piece of a text says when it is decoded.
type View struct {
	// Kind is "base64", "hex", "percent", "escape" (JSON and C string escapes) or "entity" (HTML); for nested encodings
	// all of them from the outside in, joined with "+".
	Kind string
	Span fairlead.Span // the encoded piece in the original text
	Text string        // what it decodes to: valid UTF-8
}

// The bounds of Decoded.
const (
	maxDepth   = 3
	maxViews   = 4096
	minEncoded = 16 // characters of base64 or hex
)

// Decoded gives what is written in s in base64 (standard or URL alphabet, padded or not, also in lines), hex, percent
// encoding, string escapes and HTML entities, and what is encoded in that, three levels deep. Base64 and hex count from
// 16 characters on and where they decode to UTF-8 that is nearly all printable. Entities and escapes are decoded for a
// whole line or quoted string, so that the sentence around them can be read.
//
// At most 4,096 views and twice len(s) bytes are decoded: the first level before the second, and within a level in the
// order above. A text made to exceed that is decoded only so far.
func Decoded(s string) []View {
	s = clip(s)
	d := decoder{left: 2 * len(s)}
	d.level(s, "", nil)
	for depth, from := 1, 0; depth < maxDepth; depth++ {
		to := len(d.views)
		for _, v := range d.views[from:to] {
			d.level(v.Text, v.Kind+"+", &v.Span)
		}
		from = to
	}
	return d.views
}

// A decoder collects views within the bounds.
type decoder struct {
	views []View
	left  int
}

// level decodes s once. Views of a text that was decoded itself stand where that stood.
func (d *decoder) level(s, kind string, outer *fairlead.Span) {
	add := func(k string, start, end int, text string) {
		if text = strings.ToValidUTF8(text, "\ufffd"); len(d.views) >= maxViews || len(text) > d.left || text == "" {
			return
		}
		sp := fairlead.Span{Start: start, End: end}
		if outer != nil {
			sp = *outer
		}
		d.left -= len(text)
		d.views = append(d.views, View{kind + k, sp, text})
	}
	runs(s, add)
	if strings.IndexByte(s, '%') >= 0 {
		pieces(s, func(c byte) bool { return c <= ' ' || c == '"' || c == '<' || c == '>' || c == '`' }, func(i, j int) {
			if text, ok := unpercent(s[i:j]); ok {
				add("percent", i, j, text)
			}
		})
	}
	if strings.IndexByte(s, '\\') >= 0 {
		quoted(s, func(i, j int) {
			if text, ok := unescape(s[i:j]); ok {
				add("escape", i, j, text)
			}
		})
	}
	if strings.IndexByte(s, '&') >= 0 {
		pieces(s, func(c byte) bool { return c == '\n' }, func(i, j int) {
			if strings.IndexByte(s[i:j], '&') >= 0 {
				if text := html.UnescapeString(s[i:j]); text != s[i:j] {
					add("entity", i, j, text)
				}
			}
		})
	}
}

// pieces calls f with the ranges between separators.
func pieces(s string, sep func(byte) bool, f func(i, j int)) {
	start := 0
	for i := range len(s) {
		if sep(s[i]) {
			if i > start {
				f(start, i)
			}
			start = i + 1
		}
	}
	if start < len(s) {
		f(start, len(s))
	}
}

// quoted calls f with the ranges between double quotes that are not escaped: inside and outside of literals alike,
// because a stray quote must not hide what follows.
func quoted(s string, f func(i, j int)) {
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			f(start, i)
			start = i + 1
		}
	}
	f(start, len(s))
}

// runs finds base64 and hex.
func runs(s string, add func(kind string, start, end int, text string)) {
	for i := 0; i < len(s); {
		if base64Byte[s[i]] == 0 {
			i++
			continue
		}
		if s[i] == '0' && i+1 < len(s) && s[i+1] == 'x' {
			i += 2
			continue
		}
		j, breaks := runEnd(s, i)
		if j-i < minEncoded {
			i = j
			continue
		}
		end := j
		for end < len(s) && end < j+2 && s[end] == '=' {
			end++
		}
		if kind, text := unrun(s[i:j], breaks); kind != "" {
			add(kind, i, end, text)
		} else if !breaks {
			// A path or an identifier in front of it hides where it starts.
			pieces(s[i:j], func(c byte) bool { return c == '/' || c == '-' || c == '_' }, func(a, b int) {
				if a == 0 && b == j-i || b-a < minEncoded {
					return
				}
				if kind, text := unrun(s[i+a:i+b], false); kind != "" {
					add(kind, i+a, i+b, text)
				}
			})
		}
		i = end
	}
}

// base64Byte is 1 for the characters of both base64 alphabets, and 2 for those of them that are hex digits.
var base64Byte = func() (t [256]byte) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_") {
		t[c] = 1
	}
	for _, c := range []byte("0123456789abcdefABCDEF") {
		t[c] = 2
	}
	return t
}()

// runEnd gives the end of the run of base64 characters at i, over line breaks where the lines are long and full.
func runEnd(s string, i int) (end int, breaks bool) {
	line := i
	for i < len(s) {
		if base64Byte[s[i]] != 0 {
			i++
			continue
		}
		j := i
		if s[j] == '\r' {
			j++
		}
		if i-line < 60 || (i-line)%4 != 0 || j+1 >= len(s) || s[j] != '\n' || base64Byte[s[j+1]] == 0 {
			break
		}
		i, line, breaks = j+1, j+1, true
	}
	return i, breaks
}

// unrun decodes a run of base64 characters as hex or base64.
func unrun(run string, breaks bool) (kind, text string) {
	if breaks {
		run = strings.NewReplacer("\r", "", "\n", "").Replace(run)
	}
	if len(run)%2 == 0 && !strings.ContainsFunc(run, func(r rune) bool { return base64Byte[byte(r)] != 2 }) {
		if b, err := hex.DecodeString(run); err == nil && readable(b) {
			return "hex", string(b)
		}
	}
	if len(run)%4 == 1 {
		return "", ""
	}
	enc := base64.RawStdEncoding
	if strings.ContainsAny(run, "-_") {
		enc = base64.RawURLEncoding
	}
	b, err := enc.DecodeString(run)
	if err != nil {
		return "", ""
	}
	if text, ok := wide(b); ok {
		return "base64", text
	}
	if readable(b) {
		return "base64", string(b)
	}
	return "", ""
}

// wide reads ASCII in UTF-16LE, as PowerShell takes it.
func wide(b []byte) (string, bool) {
	if len(b) < 12 || len(b)%2 != 0 {
		return "", false
	}
	out := make([]byte, 0, len(b)/2)
	for i := 0; i < len(b); i += 2 {
		if b[i+1] != 0 {
			return "", false
		}
		out = append(out, b[i])
	}
	return string(out), readable(out)
}

// readable reports whether b is UTF-8 and at least nine tenths of it can be printed.
func readable(b []byte) bool {
	n, good := 0, 0
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			return false
		}
		n++
		if r >= ' ' && r < 0x7F || r == '\n' || r == '\t' || r == '\r' || r > 0xA0 && unicode.IsGraphic(r) {
			good++
		}
		b = b[size:]
	}
	return good*10 >= n*9 && n > 0
}

func unhex(s string, n int) (rune, bool) {
	if len(s) < n {
		return 0, false
	}
	var v rune
	for i := range n {
		c := s[i]
		switch {
		case isDigit(c):
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		v = v<<4 | rune(c)
	}
	return v, true
}

// unpercent decodes percent encoding and reports whether there is any.
func unpercent(s string) (string, bool) {
	k := strings.IndexByte(s, '%')
	if k < 0 {
		return "", false
	}
	any := false
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if v, ok := unhex(s[i+1:], 2); ok {
				out, any = append(out, byte(v)), true
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out), any && utf8.Valid(out)
}

// unescape decodes the escapes of JSON, Python and C strings, and reports whether there are any.
func unescape(s string) (string, bool) {
	k := strings.IndexByte(s, '\\')
	if k < 0 || k+1 == len(s) {
		return "", false
	}
	any := false
	out := append(make([]byte, 0, len(s)), s[:k]...)
	for i := k; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		r, n := escape(s[i+1:])
		if n == 0 {
			out = append(out, '\\')
			continue
		}
		if lo, m := rune(0), 0; utf16.IsSurrogate(r) && strings.HasPrefix(s[i+1+n:], `\u`) {
			if lo, m = escape(s[i+2+n:]); m > 0 && utf16.IsSurrogate(lo) {
				r, n = utf16.DecodeRune(r, lo), n+1+m
			}
		}
		out, any = utf8.AppendRune(out, r), true
		i += n
	}
	return string(out), any
}

// escape reads what follows a backslash: the character it stands for and its length, 0 if it is no escape.
func escape(s string) (rune, int) {
	switch s[0] {
	case 'n', 'r':
		return '\n', 1
	case 't', 'b', 'f':
		return ' ', 1
	case '"', '\'', '\\', '/':
		return rune(s[0]), 1
	case 'x', 'u', 'U':
		n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[0]]
		if r, ok := unhex(s[1:], n); ok && r >= 0 && r <= unicode.MaxRune {
			return r, 1 + n
		}
	}
	return 0, 0
}
