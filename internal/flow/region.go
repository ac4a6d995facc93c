package flow

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/text"
)

// A region is a stretch of untrusted text that reads like an instruction.
type region struct {
	at     fairlead.Span // in the text
	body   fairlead.Span // in the body of the request that it came in with
	folded string        // its first maxRegion bytes
	acts   actions       // the kinds of deed that it speaks of
}

const maxRegion = 2000

// regions finds what reads like an instruction in s.
func regions(s string, known scripts) []region {
	var out []region
	spans := text.Instructions(s)
	for i := range spans {
		spans[i].End = fieldEnd(s, spans[i])
	}
	for _, sp := range append(spans, strange(s, known)...) {
		r := region{at: sp, folded: string(text.AppendFold(nil, s[sp.Start:min(sp.End, sp.Start+maxRegion)]))}
		for w := range words(r.folded) {
			_, a := base(w)
			r.acts |= a.set()
		}
		out = append(out, r)
	}
	return out
}

// A script is a kind of writing. What nobody with authority writes in cannot be judged.
type scripts uint32

var tables = [...]*unicode.RangeTable{unicode.Cyrillic, unicode.Greek, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul,
	unicode.Arabic, unicode.Hebrew, unicode.Devanagari, unicode.Bengali, unicode.Tamil, unicode.Telugu, unicode.Thai, unicode.Georgian,
	unicode.Armenian, unicode.Ethiopic, unicode.Khmer, unicode.Lao, unicode.Myanmar, unicode.Gujarati, unicode.Gurmukhi}

const other = 1 << len(tables)

func scriptOf(r rune) scripts {
	if r < 0x370 || !unicode.IsLetter(r) || unicode.Is(unicode.Latin, r) {
		return 0
	}
	for i, t := range tables {
		if unicode.Is(t, r) {
			return 1 << i
		}
	}
	return other
}

// scriptsIn gives the scripts that a text uses besides Latin.
func scriptsIn(s string) scripts {
	var out scripts
	for _, r := range s {
		if r >= 0x370 {
			out |= scriptOf(r)
		}
	}
	return out
}

// strange gives the lines of s with at least four letters of a script that is not among those known. Nobody here can say
// whether they are instructions, so they count as such.
func strange(s string, known scripts) []fairlead.Span {
	var out []fairlead.Span
	start, n := 0, 0
	for i, r := range s {
		if r >= 0x370 && scriptOf(r)&^known != 0 {
			n++
		}
		if r == '\n' || i+utf8.RuneLen(r) >= len(s) {
			end := min(i+1, len(s))
			if r != '\n' {
				end = len(s)
			}
			if n >= 4 && len(out) < 1000 {
				out = append(out, fairlead.Span{Start: start, End: end})
			}
			start, n = end, 0
		}
	}
	return out
}

// has reports whether a region has a word.
func (r *region) has(w string) bool {
	hit := false
	find(r.folded, w, false, func(int, int) bool { hit = true; return false })
	return hit
}

// fieldEnd gives where a span ends that begins within a field of a YAML-like record: at the next field of that record.
// The title "Cancel your order" of one search result says nothing about the link of the next.
func fieldEnd(s string, sp fairlead.Span) int {
	start := strings.LastIndexByte(s[:sp.Start], '\n') + 1
	indent, ok := field(s[start:])
	if !ok {
		return sp.End
	}
	for i := start; ; {
		k := strings.IndexByte(s[i:sp.End], '\n')
		if k < 0 {
			return sp.End
		}
		i += k + 1
		if n, ok := field(s[i:]); ok && n <= indent && i > sp.Start {
			return i
		}
	}
}

// field reports whether a line begins with "name:", perhaps as the first of an item, and how far it is indented.
func field(line string) (indent int, ok bool) {
	for indent < len(line) && (line[indent] == ' ' || line[indent] == '-') {
		indent++
	}
	k := indent
	for k < len(line) && k < indent+40 && (line[k] == '_' || line[k]|0x20 >= 'a' && line[k]|0x20 <= 'z') {
		k++
	}
	return indent, k > indent && k+1 < len(line) && line[k] == ':' && (line[k+1] == ' ' || line[k+1] == '\n')
}

// nextWord gives the next word of s, which is folded, and what stands after it.
func nextWord(s string) (word, after string) {
	i := strings.IndexFunc(s, wordRune)
	if i < 0 {
		return "", ""
	}
	j := i
	for j < len(s) {
		r, n := utf8.DecodeRuneInString(s[j:])
		if !wordRune(r) && r != '\'' && r != '-' {
			break
		}
		j += n
	}
	return strings.Trim(s[i:j], "'-"), s[j:]
}

func wordRune(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z'
	}
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}

// words goes over the words of a folded text.
func words(s string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			var w string
			if w, s = nextWord(s); w == "" || !yield(w) {
				return
			}
		}
	}
}
