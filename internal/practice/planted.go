package practice

import (
	"encoding/json"
	"strings"

	"github.com/fairleadhq/fairlead"
)

// maxSentence bounds a planted sentence in bytes.
const maxSentence = 4 << 10

// A marker announces that what follows is meant for the model.
type marker struct {
	text     string // lower case
	anywhere bool   // otherwise only at the start of a line or a sentence
	keep     bool   // the marker is part of the sentence
}

var markers = []marker{
	{text: "<!--", anywhere: true},
	{text: "<important>", anywhere: true},
	{text: "<system>", anywhere: true},
	{text: "[system]", anywhere: true},
	{text: "[inst]", anywhere: true},
	{text: "note to the assistant", anywhere: true},
	{text: "note to assistant", anywhere: true},
	{text: "note to the ai", anywhere: true},
	{text: "note to ai", anywhere: true},
	{text: "attention assistant", anywhere: true},
	{text: "attention ai", anywhere: true},
	{text: "dear assistant", anywhere: true},
	{text: "dear ai", anywhere: true},
	{text: "ignore previous instructions", anywhere: true, keep: true},
	{text: "ignore all previous instructions", anywhere: true, keep: true},
	{text: "ignore your instructions", anywhere: true, keep: true},
	{text: "ignore the above", anywhere: true, keep: true},
	{text: "disregard previous instructions", anywhere: true, keep: true},
	{text: "disregard all previous instructions", anywhere: true, keep: true},
	{text: "assistant:"},
	{text: "assistant,"},
	{text: "ai assistant:"},
	{text: "ai assistant,"},
	{text: "ai:"},
	{text: "ai,"},
	{text: "system:"},
	{text: "important:"},
}

// planted returns the last instruction in a document that is addressed to a model, verbatim to the end of its line or
// comment, or "". The first marker of a line opens it, so that nothing in the sentence itself can cut it short.
func planted(doc string) string {
	low := lower(doc)
	found := ""
	for pos := 0; pos < len(doc); {
		end := pos + lineEnd(low[pos:])
		next := end + 1
		if at, m := firstMarker(low[pos:end]); m != nil {
			from := pos + at
			if !m.keep {
				from += len(m.text)
			}
			s, stop := sentenceAt(doc, low, from, m.text == "<!--")
			if m.keep && strings.Trim(s[min(len(m.text), len(s)):], " .,:;!") == "" {
				s, stop = sentenceAt(doc, low, from+len(m.text), false)
			}
			if s != "" {
				found = s
			}
			next = max(next, stop)
		}
		pos = next
	}
	return found
}

func lineEnd(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i
	}
	return len(s)
}

// firstMarker finds the earliest marker of a line. The longest wins where several start.
func firstMarker(line string) (at int, m *marker) {
	at = len(line)
	for i := range markers {
		c := &markers[i]
		for from := 0; ; {
			j := strings.Index(line[from:], c.text)
			if j < 0 || from+j > at {
				break
			}
			j += from
			if c.anywhere || startsSentence(line[:j]) {
				if j < at || len(c.text) > len(m.text) {
					at, m = j, c
				}
				break
			}
			from = j + 1
		}
	}
	return at, m
}

// startsSentence reports whether what stands before a place in a line leaves it at a sentence's start.
func startsSentence(before string) bool {
	before = strings.TrimRight(before, " \t\r>*#-([{\"'_|")
	return before == "" || strings.HasSuffix(before, ".") || strings.HasSuffix(before, "!") || strings.HasSuffix(before, "?")
}

// sentenceAt reads the sentence that starts at from, past separators, blank lines and further markers, and says where
// it ended. A comment may span lines.
func sentenceAt(doc, low string, from int, comment bool) (s string, stop int) {
	for n := 0; n < maxNested && from < len(doc); n++ {
		from += len(doc[from:]) - len(strings.TrimLeft(doc[from:], " \t\r\n:,-.;*"))
		at, m := firstMarker(low[from:min(len(low), from+maxMarker)])
		if m == nil || at != 0 || m.keep {
			break
		}
		from += len(m.text)
	}
	end := len(doc)
	if !comment {
		end = from + lineEnd(doc[from:])
	}
	for _, close := range []string{"-->", "</important>", "</system>", "[/inst]", "[/system]"} {
		if i := strings.Index(low[from:min(end, from+maxSentence)], close); i >= 0 {
			end = from + i
		}
	}
	if end-from > maxSentence {
		end = from + maxSentence
	}
	return strings.TrimSpace(strings.ToValidUTF8(doc[from:end], "")), end
}

const (
	maxMarker = 48 // longer than any marker
	maxNested = 8  // markers in a row that are passed over
)

// lower folds ASCII only, byte by byte, so that offsets stay.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// plantedIn is the sentence that the model finds in a turn. A user who opens with a marker ("AI, what is …") speaks for
// themself; one further down is taken for part of a document that they pasted.
func plantedIn(t turn) string {
	text := flatten(t.text)
	if t.role == fairlead.RoleUser {
		text = strings.TrimSpace(t.text)
		if at, m := firstMarker(lower(text[:min(len(text), maxMarker)])); m != nil && at == 0 {
			return ""
		}
	}
	return planted(text)
}

// flatten gives the text of a tool's result: if it is JSON, its values one a line, and otherwise itself.
func flatten(s string) string {
	t := strings.TrimSpace(s)
	if t == "" || !strings.ContainsRune("{[\"", rune(t[0])) || !json.Valid([]byte(t)) {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	var out strings.Builder
	d := json.NewDecoder(strings.NewReader(t))
	d.UseNumber()
	var inObject []bool
	key := false
	for {
		tok, err := d.Token()
		if err != nil {
			return strings.TrimSuffix(out.String(), "\n")
		}
		if delim, ok := tok.(json.Delim); ok {
			if delim == '{' || delim == '[' {
				inObject = append(inObject, delim == '{')
			} else {
				inObject = inObject[:len(inObject)-1]
			}
			key = len(inObject) > 0 && inObject[len(inObject)-1]
			continue
		}
		if key {
			key = false
			continue
		}
		switch v := tok.(type) {
		case string:
			out.WriteString(v + "\n")
		case json.Number:
			out.WriteString(v.String() + "\n")
		}
		key = len(inObject) > 0 && inObject[len(inObject)-1]
	}
}

// obey makes the call that a planted sentence asks for. An address goes to a tool that sends, with what was gathered
// so far; without one the most action-like tool gets the sentence itself. Either way words of the sentence are in the
// arguments.
func (c *conversation) obey(sentence string) call {
	found := find(sentence)
	address := ""
	if len(found.emails) > 0 {
		address = found.emails[0]
	} else if len(found.urls) > 0 {
		address = found.urls[0]
	}
	said := map[string]bool{}
	for _, w := range words(sentence) {
		said[w] = true
	}
	var best *tool
	var to string
	top := -1
	for i := range c.tools {
		t := &c.tools[i]
		score := 10 * actionScore(t.name, t.description)
		for _, w := range words(t.name) {
			if said[w] {
				score++
			}
		}
		param := ""
		if address != "" && score >= 10 {
			var fits int
			if param, fits = recipient(t.schema, len(found.emails) > 0); param != "" {
				score += 10_000 * fits
			}
		}
		if score > top {
			best, top, to = t, score, param
		}
	}
	set := map[string]string{}
	n := parse(best.schema)
	if to != "" {
		set[to] = address
		if p := n.textParam(kindBody); p != "" && p != to {
			set[p] = c.gathered()
		}
		if p := n.textParam(kindTitle); p != "" && p != to {
			set[p] = sentence
		}
	} else {
		set[n.verbatimParam()] = sentence
	}
	f := c.filler(best.schema, sentence)
	return call{name: best.name, args: string(f.object(best.schema, set, 0))}
}

// gathered is what the model has read so far: the first lines of the newest documents, or of the user's text.
func (c *conversation) gathered() string {
	var docs []string
	for i := len(c.turns) - 1; i >= 0 && len(docs) < maxParallel; i-- {
		if c.turns[i].role == fairlead.RoleTool {
			docs = append(docs, firstLines(flatten(c.turns[i].text)))
		}
	}
	if len(docs) == 0 {
		docs = []string{firstLines(c.lastUser())}
	}
	return strings.Join(docs, "\n\n")
}

func firstLines(s string) string {
	lines := strings.SplitN(strings.TrimSpace(firstRunes(s, 600)), "\n", 9)
	return strings.Join(lines[:min(len(lines), 8)], "\n")
}
