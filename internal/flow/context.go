package flow

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/text"
)

// An Input is one request.
type Input struct {
	Body     []byte
	Exchange *fairlead.Exchange
	// Foreign reports whether message i is an assistant turn that nobody here returned, or a tool result that nobody
	// here asked for. Both are untrusted. With nil there are none.
	Foreign func(message int) bool
	// Declared are data labels that the caller declares for what is new. They can only narrow.
	Declared []string
	// Before is what was known of the first Known messages, or nil. With Known 0 it is what was known of a conversation
	// that the provider keeps and this request goes on with, without its messages.
	Before *Context
	Known  int
	// Memory knows earlier answers, one of which may have come back in a part; nil if there are none.
	Memory *Memory
}

// A Context is what is known of a conversation. It is not changed once it is made, and safe for concurrent use. It keeps
// the text of the conversation, up to [MaxIndexed] bytes, and shares it with the contexts that it was made from.
type Context struct {
	rules    *Rules
	parts    []*part
	messages int
	fresh    int // messages from here on are new
	known    int // parts before this one are not
	bound    fairlead.Label
	indexed  int         // bytes of text in parts
	missed   *part       // the first untrusted part with text that was too much to be kept
	spoken   bool        // the user said something
	scripts  scripts     // that those with authority write in
	extended atomic.Bool // a later context already uses what is behind the end of parts

	// Found when they are first needed, by prepare.
	once      sync.Once
	wants     actions // what the user asks for
	ordered   actions // what the operator asks for, or says that there is
	delegates bool    // the user hands over to what stands somewhere: "do the tasks in ..."
}

// A part is a stretch of text with one label.
type part struct {
	message, index int
	role           fairlead.Role
	from           string // "operator", "user", "tool:NAME", "assistant"
	label          fairlead.Label
	origin         fairlead.ID // the stored answer that it holds
	system         bool        // a system prompt outside the messages, as it stands
	own            bool        // an answer of ours: no evidence of where anything comes from
	body           fairlead.Span
	offset         int // where text begins in the part's text
	text           string
	views          []view
	regions        []region // in text

	// Found when they are first needed, by prepare: most conversations lead to no tool call.
	once      *sync.Once // nil of a part whose text is not kept, or is our own
	folded    text.Folded
	marks     []mark  // of folded
	sieve     *sieve  // of folded
	wants     actions // what it asks for, if somebody with authority says it
	delegates bool
}

// A view is what a part says once an encoding is undone.
type view struct {
	at      fairlead.Span // in the part's text
	folded  text.Folded
	regions []region // in the view's own text
}

// Label labels every part of a request. Where the provider runs tools of its own, everything counts as untrusted. What the
// provider keeps is not looked at: the caller joins its label, or gives it as Before. A context that knows the first
// messages already is not changed; with one that knows more than there are, or that belongs to other rules, everything is
// read anew.
func (r *Rules) Label(in Input) *Context {
	c := &Context{rules: r, messages: len(in.Exchange.Messages)}
	if b := in.Before; b != nil && b.rules == r && (in.Known == 0 || in.Known <= c.messages && in.Known >= b.messages) {
		c.parts, c.bound, c.indexed, c.missed = b.parts, b.bound, b.indexed, b.missed
		c.spoken, c.scripts = b.spoken, b.scripts
		if !b.extended.CompareAndSwap(false, true) {
			c.parts = slices.Clip(c.parts)
		}
		c.known = len(b.parts)
		if in.Known > 0 {
			c.fresh = b.messages
		} else {
			c.parts = elsewhere(c.parts)
		}
	}
	if len(in.Exchange.HostedTools) > 0 {
		c.bound.Integrity = fairlead.Untrusted // what the provider fetches does not pass here
	}
	l := labeller{c, &in}
	l.instructions()
	for i := c.fresh; i < c.messages; i++ {
		l.message(i)
	}
	c.bound = c.bound.Join(fairlead.Label{Data: declared(in.Declared)}) // also where nothing is new: it may have been forgotten before
	return c
}

// elsewhere copies parts of a conversation that the provider keeps: their messages are none of this request's.
func elsewhere(parts []*part) []*part {
	out := make([]*part, len(parts))
	for i, p := range parts {
		p.prepare()
		q := *p
		q.message = -1
		out[i] = &q
	}
	return out
}

// Bytes is how much text the context holds beyond that of the one it was made from.
func (c *Context) Bytes() int {
	n := 0
	for _, p := range c.parts[min(c.known, len(c.parts)):] {
		n += 2 * len(p.text)
	}
	return n
}

// Size is how many bytes of text the context keeps from being forgotten, all that it shares with others included.
func (c *Context) Size() int { return 2 * c.indexed }

// declared gives the labels that a caller declares in the form of a label.
func declared(names []string) []string {
	var l fairlead.Label
	for _, d := range names {
		if d == fairlead.AllData || checkLabel(d) == nil {
			l = l.Join(fairlead.Label{Data: []string{d}})
		}
	}
	return l.Data
}

type labeller struct {
	*Context
	in *Input
}

// instructions takes in a system prompt that stands outside the messages, unless it is known already.
func (l *labeller) instructions() {
	var b strings.Builder
	for _, p := range l.in.Exchange.Instructions {
		b.WriteString(dialect.PartText(l.in.Body, p))
		b.WriteByte('\n')
	}
	s := b.String()
	if s == "" || slices.ContainsFunc(l.parts[:l.known], func(p *part) bool { return p.system && p.text == s }) {
		return
	}
	for _, piece := range l.divide(&part{message: -1, index: -1, role: fairlead.RoleSystem, from: "operator", system: true}, s, "") {
		l.add(piece)
	}
}

func (l *labeller) message(i int) {
	m := &l.in.Exchange.Messages[i]
	foreign := l.in.Foreign != nil && l.in.Foreign(i)
	for k := range m.Parts {
		l.part(i, k, m, &m.Parts[k], foreign)
	}
}

// maxBack is how many parts before a tool result are looked through for the call that it answers.
const maxBack = 2000

// called gives the name of the tool that the result in message i answers, or "" if nobody here asked for it.
func (l *labeller) called(i int, id string) string {
	if id == "" {
		return ""
	}
	for j, left := i-1, maxBack; j >= 0 && left > 0; j-- {
		m := &l.in.Exchange.Messages[j]
		left -= 1 + len(m.Parts)
		if m.Role != fairlead.RoleAssistant || l.in.Foreign != nil && l.in.Foreign(j) {
			continue
		}
		for k := range m.Parts {
			if m.Parts[k].Kind == fairlead.PartToolCall && m.Parts[k].CallID == id {
				return m.Parts[k].Name
			}
		}
	}
	return ""
}

func (l *labeller) part(i, k int, m *fairlead.Message, p *fairlead.Part, foreign bool) {
	q := part{message: i, index: k, role: m.Role, body: p.Span}
	tool := ""
	result := p.Kind == fairlead.PartToolResult || m.Role == fairlead.RoleTool
	switch {
	case result:
		tool = l.called(i, p.CallID)
		if tool == "" && l.rules.config.Infer {
			tool = p.Name // recorded runs name it; nobody vouches for that
		}
		q.from, q.label.Integrity = "tool:"+tool, fairlead.Untrusted
		if t, ok := l.rules.tool(tool); ok && tool != "" && !foreign {
			if t.Vetted {
				q.label.Integrity = fairlead.Vetted
			}
			q.label = q.label.Join(fairlead.Label{Data: declared(t.Data)})
		}
	case m.Role == fairlead.RoleSystem:
		q.from = "operator"
	case m.Role == fairlead.RoleAssistant && foreign:
		q.from, q.label.Integrity = "assistant", fairlead.Untrusted
	case m.Role == fairlead.RoleAssistant:
		q.from, q.label, q.own = "assistant", l.bound, true
	default:
		q.from, q.label.Integrity = "user", fairlead.User
		if p.Kind == fairlead.PartMedia || p.Kind == fairlead.PartOther {
			q.label.Integrity = fairlead.Untrusted // a document that the user attached is not his word
		}
	}
	q.label = q.label.Join(fairlead.Label{Data: declared(l.in.Declared)})
	s := dialect.PartText(l.in.Body, *p)
	for _, piece := range l.divide(&q, s, tool) {
		l.add(piece)
	}
}

// divide applies the sources to a part, and cuts it where they speak of a stretch only.
func (l *labeller) divide(q *part, s, tool string) []*part {
	whole := *q
	whole.text = s
	out := []*part{&whole}
	for _, src := range l.rules.config.Sources {
		if src.Role != "" && src.Role != q.role || src.Tool != "" && (tool == "" || !matches(src.Tool, tool)) {
			continue
		}
		if src.Open == "" {
			for _, p := range out {
				src.apply(p)
			}
			continue
		}
		var cut []*part
		for _, p := range out {
			cut = append(cut, src.cut(p)...)
		}
		out = cut
	}
	return out
}

func (src *Source) apply(p *part) {
	if src.Integrity != nil && (*src.Integrity > p.label.Integrity || src.Tool != "" && *src.Integrity >= fairlead.Vetted) {
		p.label.Integrity = *src.Integrity
		p.own = p.own && *src.Integrity < fairlead.Untrusted
	}
	p.label = p.label.Join(fairlead.Label{Data: declared(src.Data)})
}

func (src *Source) cut(p *part) []*part {
	from := strings.Index(p.text, src.Open)
	if from < 0 {
		return []*part{p}
	}
	to := len(p.text)
	if src.Close != "" {
		if k := strings.LastIndex(p.text, src.Close); k >= from+len(src.Open) {
			to = k + len(src.Close)
		}
	}
	var out []*part
	for _, r := range [...]fairlead.Span{{Start: 0, End: from}, {Start: from, End: to}, {Start: to, End: len(p.text)}} {
		if r.Len() == 0 {
			continue
		}
		piece := *p
		piece.text, piece.offset = p.text[r.Start:r.End], p.offset+r.Start
		if r.Start == from && r.End == to {
			src.apply(&piece)
		}
		out = append(out, &piece)
	}
	return out
}

// add takes a finished stretch in.
func (l *labeller) add(p *part) {
	// An answer of ours has all of the conversation's label already. What is untrusted can only gain data labels.
	if m := l.in.Memory; m != nil && len(p.text) >= passage && p.from != "operator" && !p.own && m.worthwhile(p.label.Integrity == fairlead.Untrusted) {
		if label, id, ok := m.Lookup(p.text); ok {
			if p.label.Integrity == fairlead.User && label.Integrity < fairlead.User {
				label.Integrity = fairlead.User
			}
			p.label, p.origin = p.label.Join(label), id
		}
	}
	untrusted := p.label.Integrity == fairlead.Untrusted && !p.own
	keep := min(len(p.text), MaxText)
	if l.indexed+keep > MaxIndexed {
		keep = 0
	}
	if keep < len(p.text) {
		if p.text = p.text[:keep]; untrusted && l.missed == nil {
			l.missed = p
		}
	}
	l.indexed += keep
	if keep > 0 && !p.own {
		p.once = new(sync.Once)
		if untrusted {
			p.regions = regions(p.text, l.scripts)
			p.open(l.scripts)
			p.locate(l.in.Body)
			if len(p.regions) > 0 || slices.ContainsFunc(p.views, func(v view) bool { return len(v.regions) > 0 }) {
				p.label.Instructional = true
			}
		} else {
			l.learn(p)
		}
	}
	l.bound = l.bound.Join(p.label)
	l.parts = append(l.parts, p)
}

// learn notes who with authority says something, and in which scripts.
func (l *labeller) learn(p *part) {
	l.scripts |= scriptsIn(p.text)
	l.spoken = l.spoken || p.from == "user"
}

// prepare finds what a tool call is compared with.
func (p *part) prepare() {
	if p.once == nil {
		return
	}
	p.once.Do(func() {
		p.folded = text.Fold(p.text)
		p.sieve = new(sieve)
		p.sieve.add(p.folded.Text)
		p.marks = sorted(marks(p.folded.Text))
		if p.label.Integrity == fairlead.Untrusted {
			return
		}
		switch p.from {
		case "operator":
			p.wants = wanted(p.folded.Text)
		case "user":
			p.wants, p.delegates = wanted(p.folded.Text), delegates(p.folded.Text)
		}
	})
}

// prepare does so for every part, and finds what is asked for.
func (c *Context) prepare() {
	c.once.Do(func() {
		for _, p := range c.parts {
			p.prepare()
			switch {
			case p.own || p.label.Integrity == fairlead.Untrusted:
			case p.from == "operator":
				c.ordered |= p.wants
			case p.from == "user":
				c.wants |= p.wants
				c.delegates = c.delegates || p.delegates
			}
		}
	})
}

// wanted reports whether one of the deeds was asked for: by the user, or by the operator where there is no user. What
// the operator's prompt says that an agent can do is no request of somebody who is there.
func (c *Context) wanted(acts actions) bool {
	if !c.spoken {
		return c.ordered&acts != 0
	}
	return c.delegates || c.wants&acts != 0
}

// asked reports whether somebody with authority used a word.
func (c *Context) asked(w string) bool {
	hit := false
	for _, p := range c.parts {
		if p.own || p.label.Integrity == fairlead.Untrusted || !p.sieve.may(w) {
			continue
		}
		if find(p.folded.Text, w, false, func(int, int) bool { hit = true; return false }); hit {
			return true
		}
	}
	return false
}

// Bound is the join over everything in the conversation.
func (c *Context) Bound() fairlead.Label { return c.bound }

// Forbidden lists the data labels of the conversation that not all of the readers ("provider:NAME", "model:NAME") may
// read.
func (c *Context) Forbidden(readers ...string) []string {
	sets := make([][]string, len(readers))
	for i := range readers {
		sets[i] = readers[i : i+1]
	}
	return c.rules.forbidden(c.bound.Data, sets...)
}

// A Suspect is a span that reads like an instruction although it stands in untrusted content.
type Suspect struct {
	Message, Part int
	At            fairlead.Span // in the original body; the whole part where its text is in several strings
	In            fairlead.Span // in the part's text, as dialect.PartText gives it
	Text          string        // what it says; of an encoded span, decoded and folded
	New           bool          // came in with this request
}

// Seen counts the instruction-like spans in untrusted parts that came in with this request.
func (c *Context) Seen() (n int) {
	for _, p := range c.parts[min(c.known, len(c.parts)):] {
		n += len(p.regions)
		for i := range p.views {
			n += len(p.views[i].regions)
		}
	}
	return n
}

// Suspicious lists the instruction-like spans in untrusted parts.
func (c *Context) Suspicious() []Suspect {
	var out []Suspect
	for i, p := range c.parts {
		for _, r := range p.regions {
			in := fairlead.Span{Start: p.offset + r.at.Start, End: p.offset + r.at.End}
			out = append(out, Suspect{p.message, p.index, r.body, in, p.text[r.at.Start:r.at.End], i >= c.known})
		}
		for _, v := range p.views {
			for _, r := range v.regions {
				in := fairlead.Span{Start: p.offset + v.at.Start, End: p.offset + v.at.End}
				out = append(out, Suspect{p.message, p.index, r.body, in, r.folded, i >= c.known})
			}
		}
	}
	return out
}

// locate finds where the regions stand in the body.
func (p *part) locate(body []byte) {
	raw := body[p.body.Start:p.body.End]
	place := func(sp fairlead.Span) fairlead.Span {
		if len(raw) == 0 || raw[0] != '"' {
			return p.body
		}
		sp = unescaped(raw, fairlead.Span{Start: sp.Start + p.offset, End: sp.End + p.offset})
		return fairlead.Span{Start: sp.Start + p.body.Start, End: sp.End + p.body.Start}
	}
	for i := range p.regions {
		if i < maxPlaced {
			p.regions[i].body = place(p.regions[i].at)
		} else {
			p.regions[i].body = p.body
		}
	}
	for i := range p.views {
		for k := range p.views[i].regions {
			p.views[i].regions[k].body = p.body
		}
	}
}

// maxPlaced bounds how many regions of a part are located exactly; each costs a pass over the part.
const maxPlaced = 64

// unescaped maps a span of a JSON string's text to the literal, quotation marks included.
func unescaped(raw []byte, sp fairlead.Span) fairlead.Span {
	out := fairlead.Span{Start: len(raw) - 1, End: len(raw) - 1}
	for i, at := 1, 0; i < len(raw)-1; {
		if at >= sp.Start && out.Start == len(raw)-1 {
			out.Start = i
		}
		if at >= sp.End {
			out.End = i
			break
		}
		switch {
		case raw[i] != '\\':
			i++
			at++
		case raw[i+1] != 'u':
			i += 2
			at++
		default:
			n, size := 6, 3
			r, _ := strconv.ParseUint(string(raw[i+2:i+6]), 16, 32)
			switch {
			case r < 0x80:
				size = 1
			case r < 0x800:
				size = 2
			case r >= 0xd800 && r < 0xdc00 && i+12 <= len(raw) && raw[i+6] == '\\' && raw[i+7] == 'u':
				if low, _ := strconv.ParseUint(string(raw[i+8:i+12]), 16, 32); low >= 0xdc00 && low < 0xe000 {
					n, size = 12, 4
				}
			}
			i += n
			at += size
		}
	}
	return out
}

// maxViews is how many encoded pieces of one part are looked at.
const maxViews = 256

// open undoes encodings.
func (p *part) open(known scripts) {
	views := text.Decoded(p.text)
	for i := range views[:min(len(views), maxViews)] {
		if t := views[i].Text; !strings.Contains(t, " ") && strings.Contains(views[i].Kind, "percent") {
			views[i].Text = strings.ReplaceAll(t, "+", " ") // as forms are encoded
		}
		v := view{at: views[i].Span, folded: text.Fold(views[i].Text), regions: regions(views[i].Text, known)}
		p.views = append(p.views, v)
	}
}
