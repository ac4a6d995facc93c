package provenance

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/internal/wire"
)

// folded is text without the differences that do not matter (case, runs of white space), and where its bytes came from.
type folded struct {
	text string
	from []int // offset in the original of every byte, and the length of the original at the end
}

func fold(s string) folded {
	var b strings.Builder
	b.Grow(len(s))
	from := make([]int, 0, len(s)+1)
	space := true
	for i, r := range s {
		if unicode.IsSpace(r) {
			if space {
				continue
			}
			space, r = true, ' '
		} else {
			space, r = false, unicode.ToLower(r)
		}
		n := b.Len()
		b.WriteRune(r)
		for range b.Len() - n {
			from = append(from, i)
		}
	}
	return folded{b.String(), append(from, len(s))}
}

// find gives where value stands in the original, or ok false.
func (f folded) find(value string) (start, end int, ok bool) {
	i := strings.Index(f.text, value)
	if i < 0 || value == "" {
		return 0, 0, false
	}
	end = i + len(value)
	for end < len(f.from)-1 && f.from[end] == f.from[end-1] {
		end++ // the bytes of one rune come from one place
	}
	return f.from[i], f.from[end], true
}

// Bounds on what is compared, so that a hostile argument costs little.
const (
	maxLeaves   = 64
	maxWords    = 200
	minValue    = 4
	minRun      = 3
	maxArgument = 64 << 10
)

// A leaf is one value of a tool call's arguments.
type leaf struct{ name, value string }

// leaves lists the strings and numbers in arguments, with their paths.
func leaves(arguments string) []leaf {
	src := []byte(arguments)
	if len(src) > maxArgument || wire.Check(src, wire.Limits{Depth: 32}) != nil {
		return []leaf{{"arguments", arguments[:min(len(arguments), maxArgument)]}}
	}
	var out []leaf
	var walk func(path string, v wire.Value)
	walk = func(path string, v wire.Value) {
		if len(out) >= maxLeaves {
			return
		}
		switch v.Kind() {
		case '"':
			out = append(out, leaf{path, v.Text()})
		case '0':
			out = append(out, leaf{path, string(v.Raw())})
		case '[':
			for e := range v.Elements() {
				walk(path+"[]", e)
			}
		case '{':
			for name, e := range v.Members() {
				p := name.String()
				if path != "" {
					p = path + "." + p
				}
				walk(p, e)
			}
		}
	}
	walk("", wire.Root(src))
	return out
}

// locate finds the part of value that text holds: all of it, else the longest run of its words. start and end are
// offsets in the original text.
func locate(text folded, value string) (matched string, start, end int, ok bool) {
	v := strings.TrimSpace(fold(value).text)
	if len(v) < minValue {
		return "", 0, 0, false
	}
	if s, e, ok := text.find(v); ok {
		return v, s, e, true
	}
	words := strings.Fields(v)
	words = words[:min(len(words), maxWords)]
	best := ""
	for i := 0; i+minRun <= len(words); i++ {
		run := strings.Join(words[i:i+minRun], " ")
		if !strings.Contains(text.text, run) {
			continue
		}
		j := i + minRun
		for ; j < len(words) && strings.Contains(text.text, run+" "+words[j]); j++ {
			run += " " + words[j]
		}
		if len(run) > len(best) {
			best = run
		}
		i = j - minRun
	}
	// A word that names something, such as an address, is telling even alone.
	for _, w := range words {
		w = strings.Trim(w, `.,;:!?"'()<>[]`)
		if best == "" && len(w) >= 6 && strings.ContainsAny(w, "@/:0123456789") && strings.Contains(text.text, w) {
			best = w
		}
	}
	if best == "" {
		return "", 0, 0, false
	}
	s, e, ok := text.find(best)
	return best, s, e, ok
}

// sentence widens a span to the sentence around it, within reason.
func sentence(text string, start, end int) string {
	const reach = 240
	from, to := max(0, start-reach), min(len(text), end+reach)
	for from < start && !utf8.RuneStart(text[from]) {
		from++
	}
	for to > end && to < len(text) && !utf8.RuneStart(text[to]) {
		to--
	}
	if i := strings.LastIndexAny(text[from:start], "\n.!?"); i >= 0 {
		from += i + 1
	}
	if i := strings.IndexAny(text[end:to], "\n.!?"); i >= 0 {
		to = end + i + 1
	}
	return strings.TrimSpace(text[from:to])
}
