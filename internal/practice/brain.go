package practice

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead"
)

const (
	maxCalls    = 8        // tool calls in one conversation
	maxParallel = 4        // tool calls in one answer
	maxRead     = 64 << 10 // bytes of one text that are read for words
	maxQuote    = 300      // runes quoted in an answer
)

// A turn is one step of the conversation, whichever API told it.
type turn struct {
	role  fairlead.Role
	text  string
	calls []call // assistant
	tool  string // tool: the name of the tool whose result this is, if known
}

// A call is a tool call. The model leaves the id to the wire format.
type call struct {
	id, name, args string
}

// A tool is one that the request offers. Its schema is read only when the tool is considered.
type tool struct {
	name, description string
	schema            json.RawMessage
}

// A conversation is all that the model looks at.
type conversation struct {
	model    string
	turns    []turn
	tools    []tool
	choice   string // "", "none", "required", or "tool:" and the name of the only tool allowed
	single   bool   // no parallel calls
	wantJSON bool   // the answer must be JSON, of the given schema if there is one
	schema   json.RawMessage
	maxOut   int // tokens; 0 is no limit

	items int
	names map[string]string // call id -> tool name
}

// A reply is what the model says, whichever API carries it.
type reply struct {
	text    string
	refusal bool // text is a refusal
	cut     bool // text was cut at the limit of tokens
	calls   []call
}

// add appends a turn, or says that there are too many. callID links a tool's result to its call.
func (c *conversation) add(t turn, callID string) error {
	if c.items += 1 + len(t.calls); c.items > maxItems {
		return fmt.Errorf("the conversation has more than %d parts", maxItems)
	}
	if c.names == nil {
		c.names = map[string]string{}
	}
	for _, call := range t.calls {
		c.names[call.id] = call.name
	}
	if t.role == fairlead.RoleTool && t.tool == "" {
		t.tool = c.names[callID]
	}
	c.turns = append(c.turns, t)
	return nil
}

// size is the number of bytes that count as input.
func (c *conversation) size() int {
	n := 0
	for _, t := range c.turns {
		n += len(t.text)
		for _, call := range t.calls {
			n += len(call.name) + len(call.args)
		}
	}
	for _, t := range c.tools {
		n += len(t.name) + len(t.description) + len(t.schema)
	}
	return n
}

// answer decides what to say. It depends on nothing but the conversation.
func (c *conversation) answer() reply {
	switch {
	case c.model == "practice-echo":
		return reply{text: c.lastUser()}
	case c.model == "practice-refuse":
		return reply{text: "I'm sorry, but I can't help with that.", refusal: true}
	}
	if n, ok := longModel(c.model); ok {
		return reply{text: longText(n << 10)}
	}
	r := c.react()
	if len(r.calls) == 0 && c.wantJSON {
		r.text = c.jsonAnswer(r.text)
	}
	if c.maxOut > 0 && len(r.calls) == 0 && len(r.text)/4 > c.maxOut {
		r.text, r.cut = strings.ToValidUTF8(r.text[:c.maxOut*4], ""), true
	}
	return r
}

// react looks at what came in after the assistant's last turn.
func (c *conversation) react() reply {
	start, made := 0, 0
	for i, t := range c.turns {
		made += len(t.calls)
		if t.role == fairlead.RoleAssistant {
			start = i + 1
		}
	}
	fresh := c.turns[start:]
	var last turn
	sentence := ""
	for _, t := range fresh {
		if t.role == fairlead.RoleTool && isAction(t.tool, "") {
			return reply{text: fmt.Sprintf("Done: I called %s. It returned: %s", t.tool, quote(flatten(t.text)))}
		}
		if t.role == fairlead.RoleTool || t.role == fairlead.RoleUser {
			last = t
			if s := plantedIn(t); s != "" {
				sentence = s
			}
		}
	}
	canCall := len(c.tools) > 0 && c.choice != "none" && made < maxCalls
	if sentence != "" && !c.obeyed(sentence, start) {
		if canCall {
			return reply{calls: []call{c.obey(sentence)}}
		}
		if len(c.tools) == 0 || last.role == fairlead.RoleUser {
			return reply{text: "As instructed: " + quote(sentence)}
		}
	}
	if last.role == fairlead.RoleTool {
		name := last.tool
		if name == "" {
			name = "the tool"
		}
		return reply{text: fmt.Sprintf("Here is what %s returned, in short: %s", name, quote(flatten(last.text)))}
	}
	if canCall {
		if t := c.fitting(last.text); t != nil {
			return reply{calls: c.callsFor(t, last.text, maxCalls-made)}
		}
	}
	return reply{text: fmt.Sprintf("Happy to help. You wrote: “%s” This is a scripted answer from the practice model.", quote(last.text))}
}

// obeyed reports whether the sentence was already there before the assistant's last turn, in the present task. Without
// it, a tool that always returns the same document would be obeyed for ever.
func (c *conversation) obeyed(sentence string, before int) bool {
	for i := before - 1; i >= 0 && c.turns[i].role != fairlead.RoleUser; i-- {
		if c.turns[i].role == fairlead.RoleTool && plantedIn(c.turns[i]) == sentence {
			return true
		}
	}
	return false
}

// fitting returns the tool that the user's text asks for, or nil if none fits well enough. A choice that demands a
// call always gets one.
func (c *conversation) fitting(text string) *tool {
	if name, ok := strings.CutPrefix(c.choice, "tool:"); ok {
		for i := range c.tools {
			if c.tools[i].name == name {
				return &c.tools[i]
			}
		}
	}
	said := map[string]bool{}
	for _, w := range words(text) {
		said[w] = true
	}
	best, top := (*tool)(nil), 2
	if c.choice == "required" {
		top = -100
	}
	for i := range c.tools {
		if n := fit(&c.tools[i], said); n > top {
			best, top = &c.tools[i], n
		}
	}
	return best
}

// fit scores how well a tool's words match what was said: its nouns count most, and an acting tool must be asked for.
func fit(t *tool, said map[string]bool) int {
	score := 0
	name := words(t.name)
	for _, w := range name {
		switch {
		case !said[w]:
		case len(name) > 1 && (readVerbs[w] || actionRank(w) > 0):
			score += 2
		default:
			score += 4
		}
	}
	seen := map[string]bool{}
	count := func(text string, points int) {
		for _, w := range words(text) {
			if said[w] && !seen[w] && !stopWords[w] {
				seen[w] = true
				score += points
			}
		}
	}
	for _, p := range parse(t.schema).properties {
		count(p.name, 2)
	}
	count(t.description, 1)
	if isAction(t.name, t.description) {
		asked := false
		for _, w := range name {
			asked = asked || said[w] && actionRank(w) > 0
		}
		if !asked {
			score -= 3
		}
	}
	return score
}

// callsFor fills the tool's parameters from the text. Several ids in a row ("tickets 1, 2 and 3") make several calls
// of a tool that takes one.
func (c *conversation) callsFor(t *tool, text string, left int) []call {
	n := parse(t.schema)
	ids := idRun(text)
	if len(ids) < 2 || c.single || len(n.required) != 1 || kindOf(n.required[0]) != kindID {
		f := c.filler(t.schema, text)
		return []call{{name: t.name, args: string(f.object(t.schema, nil, 0))}}
	}
	var calls []call
	for _, id := range ids[:min(len(ids), maxParallel, left)] {
		f := c.filler(t.schema, text)
		f.found.ids = []string{id}
		calls = append(calls, call{name: t.name, args: string(f.object(t.schema, nil, 0))})
	}
	return calls
}

func (c *conversation) lastUser() string {
	for i := len(c.turns) - 1; i >= 0; i-- {
		if c.turns[i].role == fairlead.RoleUser {
			return c.turns[i].text
		}
	}
	return ""
}

// jsonAnswer wraps a text so that a request for structured output is satisfied.
func (c *conversation) jsonAnswer(text string) string {
	if len(c.schema) == 0 {
		return string(encode(map[string]string{"answer": text}))
	}
	return string(c.filler(c.schema, c.lastUser()).value("", c.schema, 0))
}

// longModel reads N of practice-long-N.
func longModel(model string) (kib int, ok bool) {
	digits, ok := strings.CutPrefix(model, "practice-long-")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 1 || n > 16384 {
		return 0, false
	}
	return n, true
}

// longText is n bytes of numbered lines, so that a missing piece shows.
func longText(n int) string {
	var b strings.Builder
	b.Grow(n + 80)
	for i := 1; b.Len() < n; i++ {
		fmt.Fprintf(&b, "Line %07d of a long answer by the practice model.\n", i)
	}
	return b.String()[:n]
}

// quote shortens a text to what an answer repeats of it.
func quote(s string) string {
	s = strings.TrimSpace(s)
	short := firstRunes(s, maxQuote)
	if len(short) < len(s) {
		return short + "…"
	}
	return short
}
