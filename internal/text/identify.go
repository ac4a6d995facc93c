package text

import (
	"strings"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
)

// maxIdentifiers bounds what Identifiers returns.
const maxIdentifiers = 10_000

// Identifiers gives the places in s that name something outside of the text, in order and without overlap: e-mail
// addresses, URLs, host and file names, paths, @handles, UUIDs, hexadecimal and other codes that mix letters with
// digits (from 5 characters on), IBANs, and numbers and telephone numbers of at least 5 digits, also in groups. It is
// generous: what follows must match values, not judge them. At most 10,000 are returned, the first ones.
func Identifiers(s string) []fairlead.Span {
	s = clip(s)
	var spans []fairlead.Span
	for i := 0; i < len(s) && len(spans) < maxIdentifiers; {
		if between(s[i]) && s[i] != '(' {
			i++
			continue
		}
		if j := grouped(s, i); j > i {
			spans = append(spans, fairlead.Span{Start: i, End: j})
			i = j
			continue
		}
		if s[i] == '(' {
			i++
			continue
		}
		j := i
		for j < len(s) && !between(s[j]) {
			j++
		}
		if a, b := identifier(s[i:j]); b > a {
			spans = append(spans, fairlead.Span{Start: i + a, End: i + b})
		}
		i = j
	}
	return spans
}

// between reports whether c stands between identifiers.
func between(c byte) bool {
	return c <= ' ' || strings.IndexByte("\"'`<>()[]{},;|*!", c) >= 0
}

// grouped gives the end of an IBAN or a number in groups at i, or i.
func grouped(s string, i int) int {
	if i > 0 && isAlnum(s[i-1]) {
		return i
	}
	if i+4 < len(s) && isUpper(s[i]) && isUpper(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
		if j := iban(s, i); j > i {
			return j
		}
	}
	if !isDigit(s[i]) && s[i] != '+' && s[i] != '(' {
		return i
	}
	digits, end := 0, i
	for j := i; j < len(s) && j < i+40; j++ {
		c := s[j]
		switch {
		case isDigit(c):
			digits, end = digits+1, j+1
			continue
		case c == '+' && j == i, c == '(' || c == ')' || c == ' ' || c == '-' || c == '.' || c == '/':
			if j-end < 2 { // at most two signs between digits
				continue
			}
		}
		break
	}
	if digits < 5 || end < len(s) && (isAlnum(s[end]) || strings.IndexByte("_@:-", s[end]) >= 0 && end+1 < len(s) && isAlnum(s[end+1])) {
		return i
	}
	return end
}

func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }

// iban gives the end of 15 to 34 letters and digits, in one piece or in groups of four, or i.
func iban(s string, i int) int {
	n, j, group := 0, i, 0
	for ; j < len(s) && n < 34; j++ {
		switch c := s[j]; {
		case isUpper(c) || isDigit(c):
			n, group = n+1, group+1
			continue
		case c == ' ' && group == 4 && j+1 < len(s) && (isUpper(s[j+1]) || isDigit(s[j+1])):
			group = 0
			continue
		}
		break
	}
	if n < 15 || j < len(s) && isAlnum(s[j]) {
		return i
	}
	return j
}

// identifier gives the part of a piece without white space that is an identifier; it is empty if none is.
func identifier(w string) (start, end int) {
	if k := strings.Index(w, "://"); k > 0 {
		for start = k; start > 0 && isAlnum(w[start-1]); start-- {
		}
		return start, trimmed(w)
	}
	for start < len(w) && strings.IndexByte("-:=#&?%^", w[start]) >= 0 {
		start++
	}
	end = trimmed(w)
	if start >= end {
		return 0, 0
	}
	if k := strings.LastIndexAny(w[start:end], "=:"); k >= 0 && !strings.Contains(w[start:end], `:\`) { // key=value, key:value
		if a, b := start+k+1, end; b > a && named(w[a:b]) {
			return a, b
		}
	}
	if !named(w[start:end]) {
		return 0, 0
	}
	return start, end
}

// trimmed is the length of w without the punctuation of the sentence around it.
func trimmed(w string) int { return len(strings.TrimRight(w, ".:?\\")) }

// named reports whether w names something.
func named(w string) bool {
	digits, letters, hexes, dots, slashes, at := 0, 0, 0, 0, 0, -1
	for i := range len(w) {
		switch c := w[i]; {
		case isDigit(c):
			digits++
			hexes++
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			letters++
			if c|0x20 <= 'f' {
				hexes++
			}
		case c >= utf8.RuneSelf:
			letters++
		case c == '.':
			dots++
		case c == '/' || c == '\\':
			slashes++
		case c == '@' && at < 0:
			at = i
		}
	}
	switch {
	case digits+letters == 0:
		return false
	case at >= 0:
		return at == 0 && len(w) > 2 || at > 0 && at < len(w)-1
	case slashes > 0 && (w[0] == '/' || w[0] == '~' || w[0] == '.' || slashes > 1 || dots > 0 || strings.HasPrefix(w[1:], `:\`)):
		return len(w) > 3
	case digits >= 5, digits > 0 && letters > 0 && len(w) >= 5:
		return true
	case hexes == len(w):
		return len(w) >= 8 && digits > 0
	}
	return dots > 0 && nameWithDot(w)
}

// nameWithDot reports whether w is like a host or file name: what follows the last dot is 2 to 12 letters of one case,
// and what is before it is more than one character.
func nameWithDot(w string) bool {
	k := strings.LastIndexByte(w, '.')
	last := w[k+1:]
	if k < 2 || len(last) < 2 || len(last) > 12 || !isAlnum(w[k-1]) && w[k-1] < utf8.RuneSelf {
		return false
	}
	for i := range len(last) {
		if c := last[i] | 0x20; c < 'a' || c > 'z' || isUpper(last[i]) != isUpper(last[0]) {
			return false
		}
	}
	return !isUpper(last[0]) || isUpper(w[0])
}
