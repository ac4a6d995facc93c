package text

import (
	"strings"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
)

// The bounds of Instructions, and the reach of an instruction in bytes.
const (
	maxSpans   = 1000
	beforeVerb = 300  // how much of its sentence before the verb belongs to it
	afterVerb  = 1000 // how much after it
	mergeGap   = 120  // instructions closer than this in one paragraph are one
	valueGap   = 200  // a value this close behind, in the paragraph, belongs to it
)

// Instructions gives the spans of s that read like an instruction to the reader: sentences with a clause that begins
// with a bare imperative verb and what looks like its object, or with words that ask or oblige ("please", "you must",
// "I need you to", "can you"). No known attack wording is needed or looked for. Each span reaches from the start of
// the sentence, the string literal or the list item to its end; neighbouring instructions are merged, and a value
// (see [Identifiers]) close behind in the same paragraph belongs to the span. Documentation is full of instructions:
// a span is evidence, not a verdict.
//
// It reads English; of German, French, Spanish, Italian, Portuguese, Dutch and Romanian it knows a few dozen
// imperatives each, and no other language. Orders without an imperative ("the report must be sent to X", "it would be
// nice if", bare announcements) are not found. Hidden and look-alike characters are seen through; text in another
// encoding is not: give it the text of each [View]. At most 1,000 spans are returned, and what follows is merged into
// the last one.
func Instructions(s string) []fairlead.Span {
	s = clip(s)
	p := sentences{lexer: lexer{s: s}, start: strong, hit: -1, prev: '\n'}
	for {
		t := p.next()
		if t.kind == 0 {
			break
		}
		p.token(t)
	}
	p.boundary(len(s))
	return p.withValues()
}

// A token is a word or a sign.
type token struct {
	// kind is 'w' for a word, 'x' for a word with other signs in it (an address, a name from code), '0' for a number,
	// '\n' for a line break, 0 at the end, and otherwise the sign itself.
	kind       byte
	start, end int
	word       [24]byte // folded, of a 'w'; cut off
	n          int
}

func (t *token) class() wordClass {
	if t.kind != 'w' {
		return 0
	}
	return classes[string(t.word[:t.n])]
}

func (t *token) is(w string) bool { return t.kind == 'w' && string(t.word[:t.n]) == w }

// A lexer cuts s into tokens. It is copied to look ahead.
type lexer struct {
	s string
	i int
}

// joins are signs that belong to a word or number where a letter or digit follows.
const joins = "'-_.@/:+"

func (l *lexer) next() token {
	s := l.s
	for {
		for l.i < len(s) && (s[l.i] == ' ' || s[l.i] == '\t' || s[l.i] == '\r') {
			l.i++
		}
		t := token{start: l.i}
		if l.i == len(s) {
			t.end = l.i
			return t
		}
		c := s[l.i]
		switch {
		case isAlnum(c):
			l.lexWord(&t)
		case c >= utf8.RuneSelf:
			if l.blank() {
				continue
			}
			l.lexWord(&t)
		case c == '\\' && l.i+1 < len(s) && strings.IndexByte(`nrt"'`, s[l.i+1]) >= 0: // an escape in text that is still escaped
			t.kind = s[l.i+1]
			switch t.kind {
			case 'n':
				t.kind = '\n'
			case 'r', 't':
				t.kind = '\t'
			}
			l.i += 2
		default:
			t.kind = c
			l.i++
		}
		t.end = l.i
		return t
	}
}

// blank skips one character beyond ASCII that is white space or invisible, and reports whether there was one.
func (l *lexer) blank() bool {
	r, size := utf8.DecodeRuneInString(l.s[l.i:])
	if !wideSpace(r) && r != 0xE0020 && (!hidden(r) || r > 0xE0020 && r < 0xE007F) {
		return false
	}
	l.i += size
	return true
}

// lexWord reads a word, a number, or a sign beyond ASCII.
func (l *lexer) lexWord(t *token) {
	s := l.s
	t.kind = '0'
	plain := true
	for l.i < len(s) {
		c := s[l.i]
		switch {
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			if t.kind == '0' {
				t.kind = 'w'
				plain = plain && l.i == t.start
			}
			t.add(c | 0x20)
		case isDigit(c):
			plain = plain && t.kind == '0'
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[l.i:])
			if r >= 0xE0000 && r < 0xE0080 {
				r -= 0xE0000
			}
			switch {
			case letter(r), r >= 0x1D400 && sign(r) != 0:
				if t.kind == '0' {
					t.kind = 'w'
				}
				l.fold(t, l.i, size)
			case hidden(r):
			case l.i > t.start:
				t.finish(plain)
				return
			default:
				t.kind = ' '
				if c := sign(r); r < utf8.RuneSelf {
					t.kind = byte(r)
				} else if c != 0 {
					t.kind = c
				} else if r == '。' || r == '！' || r == '？' {
					t.kind = '.'
				} else if r == '•' || r == '●' || r == '·' || r == '–' || r == '—' {
					t.kind = '-'
				}
				l.i += size
				return
			}
			l.i += size
			continue
		case strings.IndexByte(joins, c) >= 0 && l.i+1 < len(s) && (isAlnum(s[l.i+1]) || s[l.i+1] >= utf8.RuneSelf && c == '\''):
			if c == ':' {
				t.finish(plain)
				return
			}
			plain = plain && (c == '\'' || c == '-')
			t.add(c)
		case c == ':' && strings.HasPrefix(s[l.i:], "://"):
			plain = false
			l.i += 2
		default:
			t.finish(plain)
			return
		}
		l.i++
	}
	t.finish(plain)
}

func (t *token) finish(plain bool) {
	if t.kind == 'w' && !plain {
		t.kind = 'x'
	}
}

func (t *token) add(c byte) {
	if t.n < len(t.word) {
		t.word[t.n] = c
		t.n++
	}
}

// fold adds the folded form of a character beyond ASCII.
func (l *lexer) fold(t *token, i, size int) {
	if t.n == len(t.word) {
		return
	}
	var room [64]byte
	// With a Latin letter before it a look-alike is read as Latin, as it would be in its word.
	in := append(append(room[:0], 'a'), l.s[i:i+size]...)
	if r, _ := utf8.DecodeRuneInString(l.s[i:]); r >= firstDouble && r < lastDouble && doubles[r-firstDouble].latin != 0 {
		t.add(doubles[r-firstDouble].latin)
		return
	} else if r >= 0xE0000 {
		t.add(byte(lower(r - 0xE0000)))
		return
	}
	for _, c := range AppendFold(nil, string(in))[1:] {
		t.add(c)
	}
}

// startKind says how sure it is that a clause starts here.
type startKind uint8

const (
	inside startKind = iota
	weak             // after a comma, a dash or "then"
	strong           // after the end of a sentence, in a new line or list item, after a colon, a quote or a bracket
)

// sentences finds the sentences of a text and keeps those that instruct.
type sentences struct {
	lexer
	spans  []fairlead.Span
	start  startKind
	begin  int  // where the sentence begins, -1 before its first token
	words  int  // how many it has had
	intro  bool // a clause of it begins with a word after which an order may come
	quote  byte // it began after this quote
	inner  int  // quotes of that kind that are open within it
	hit    int  // where the first instructing clause begins, -1 without
	last   int  // where the last one begins
	prev   byte // kind of the last token
	prev2  byte // and of the one before it
	before token
	line   int // where the line begins
}

// boundary ends the sentence before byte end.
func (p *sentences) boundary(end int) {
	if p.hit >= 0 {
		start := max(p.begin, p.hit-beforeVerb)
		p.emit(start, min(end, p.last+afterVerb))
	}
	p.start, p.begin, p.words, p.intro, p.quote, p.inner, p.hit = strong, -1, 0, false, 0, 0, -1
}

// emit adds a span, merged with its neighbour.
func (p *sentences) emit(start, end int) {
	for start > 0 && !utf8.RuneStart(p.s[start]) {
		start--
	}
	for end < len(p.s) && !utf8.RuneStart(p.s[end]) {
		end++
	}
	for end > start && isSpace(p.s[end-1]) {
		end--
	}
	if n := len(p.spans); n > 0 {
		last := &p.spans[n-1]
		if n >= maxSpans || start <= last.End || start-last.End <= mergeGap && !apart(p.s[last.End:start]) {
			last.End = max(last.End, end)
			return
		}
	}
	p.spans = append(p.spans, fairlead.Span{Start: start, End: end})
}

// withValues lets each span take in the values close behind it.
func (p *sentences) withValues() []fairlead.Span {
	for k := range p.spans {
		sp := &p.spans[k]
		to := min(len(p.s), sp.End+valueGap)
		if k+1 < len(p.spans) {
			to = min(to, p.spans[k+1].Start)
		}
		reach := min(len(p.s), to+valueGap) // so that a value is not cut in the middle
		from := sp.End
		for _, id := range Identifiers(p.s[from:reach]) {
			start, end := from+id.Start, from+id.End
			if start >= to || start < sp.End || apart(p.s[sp.End:start]) {
				break
			}
			if k+1 < len(p.spans) {
				end = min(end, p.spans[k+1].Start)
			}
			sp.End = end
		}
	}
	return p.spans
}

// apart reports whether two pieces of text belong to different paragraphs or string literals, from what is between.
func apart(gap string) bool {
	if strings.Contains(gap, "\n\n") || strings.Contains(gap, "\n\r\n") {
		return true
	}
	for i := 1; i < len(gap); i++ {
		if (gap[i] == ',' || gap[i] == ':') && (gap[i-1] == '"' || gap[i-1] == '\'') {
			return true
		}
	}
	return false
}

func (p *sentences) token(t token) {
	if p.begin < 0 && t.kind != '\n' && t.kind != ' ' {
		p.begin = t.start
	}
	switch t.kind {
	case 'w':
		p.word(&t)
	case 'x', '0':
		p.words++
		if t.kind == 'x' || p.words > 1 {
			p.start = inside
		}
	case '\n':
		p.newline(&t)
	case '.', '!', '?':
		p.stop(&t)
	case ':', ';', '(', '[':
		p.start = strong
	case ',':
		p.start = max(p.start, weak)
	case '-':
		if p.words > 0 && p.start == inside {
			p.start = weak
		}
	case '"', '\'', '`':
		p.quoted(&t)
	case '<', '>', '|', '{', '}':
		if p.hit < 0 || t.kind == '|' || t.kind == '<' && t.end < len(p.s) && (p.s[t.end] == '/' || p.s[t.end]|0x20 >= 'a') {
			p.boundary(t.start)
		}
		p.start = strong
	case '#', '*', '+', '_', '~', '/', ' ', '\t', ')', '=': // marks of lists, headings, emphasis and comments
	default:
		p.start = inside
	}
	p.prev2, p.prev = p.prev, t.kind
	p.before = t
}

// newline ends the sentence, unless the line looks as if it was only wrapped.
func (p *sentences) newline(t *token) {
	length := t.start - p.line
	p.line = t.end
	rest := strings.TrimLeft(p.s[t.end:min(len(p.s), t.end+8)], " \t")
	if length >= 40 && p.begin >= 0 && rest != "" && (rest[0] >= 'a' && rest[0] <= 'z' || isDigit(rest[0])) && p.prev != ':' {
		return
	}
	p.boundary(t.start)
}

// stop ends the sentence at a full stop, unless it is one of an abbreviation.
func (p *sentences) stop(t *token) {
	if t.end < len(p.s) && !isSpace(p.s[t.end]) && strings.IndexByte(`"'`+"`)*_\\<", p.s[t.end]) < 0 && p.s[t.end] < utf8.RuneSelf {
		return
	}
	if b := &p.before; t.kind == '.' && b.end == t.start {
		if b.kind == 'w' && b.n == 1 || b.is("mr") || b.is("mrs") || b.is("ms") || b.is("dr") || b.is("no") || b.is("vs") || b.is("etc") {
			return
		}
		if b.kind == 'x' && strings.IndexByte(p.s[b.start:b.end], '.') > 0 && b.n <= 3 { // "e.g."
			return
		}
	}
	p.boundary(t.end)
}

// quoted looks at a quote: one that opens starts a clause, and around values of structured text also a sentence.
func (p *sentences) quoted(t *token) {
	opens := t.start == 0 || isSpace(p.s[t.start-1]) || strings.IndexByte(`([{:,=<>*"'\`, p.s[t.start-1]) >= 0
	rest := strings.TrimLeft(p.s[t.end:min(len(p.s), t.end+3)], " ")
	closes := rest == "" && t.end+3 >= len(p.s) || rest != "" && strings.IndexByte(",}]:)\n\\", rest[0]) >= 0
	escaped := t.end-t.start > 1
	switch {
	case escaped || t.kind == '`':
	case p.quote == t.kind && p.begin >= 0 && opens && !closes:
		p.inner++ // unescaped quotes of the same kind within, as in the literals of careless programs
	case p.quote == t.kind && p.inner > 0:
		if closes || isSpace(p.s[t.end]) || p.s[t.end] == '.' {
			p.inner--
		}
	case p.quote == t.kind && closes:
		p.boundary(t.start)
	case p.quote == 0 && opens:
		structured := p.words == 0 || p.prev == '[' || p.prev == '{' ||
			p.prev == ':' && (p.words <= 2 || p.prev2 == '"' || p.prev2 == '\'') ||
			p.prev == ',' && (p.prev2 == '"' || p.prev2 == '\'' || p.prev2 == '0')
		if structured {
			p.boundary(t.start)
			p.quote = t.kind
		}
	}
	if opens {
		p.start = strong
	}
}

// word looks at a word, which may begin an instructing clause.
func (p *sentences) word(t *token) {
	class := t.class()
	p.words++
	if class&intro != 0 && (p.start == strong || p.start == weak && p.words <= 4 || p.capital(t)) {
		p.intro = true
	}
	ly := t.n > 4 && strings.HasSuffix(string(t.word[:t.n]), "ly")
	if p.start == inside && (class&verb != 0 || ly) && p.capital(t) {
		p.start = weak // a sentence that was put in after one without a full stop
	}
	switch {
	case class&asks != 0:
		if l := p.lexer; l.nextWord() {
			p.found(t)
		}
		p.start = max(p.start, weak)
		return
	case p.start == inside && t.is("then"):
		if p.prev == ',' || p.before.is("and") {
			p.start = weak
		}
		return
	case p.start == inside && !t.is("you"):
		return
	case p.opens(t), p.start != inside && p.imperative(t, class):
		p.found(t)
	case p.start != inside && (class&through != 0 || ly):
		p.start = max(p.start, weak)
		return
	}
	p.start = inside
}

// capital reports whether t has a capital and the word before it, if any, has none.
func (p *sentences) capital(t *token) bool {
	b := &p.before
	return isUpper(p.s[t.start]) && !(b.kind == 'w' && isUpper(p.s[b.start])) && p.words > 1
}

func (p *sentences) found(t *token) {
	if p.hit < 0 {
		p.hit = t.start
	}
	p.last = t.start
}

// nextWord reports whether a word or value comes next in the clause.
func (l *lexer) nextWord() bool {
	switch t := l.next(); t.kind {
	case 'w', 'x', '0', '"', '\'', '`':
		return true
	}
	return false
}

// opens reports whether t begins an opener that goes on.
func (p *sentences) opens(t *token) bool {
	more := openers[string(t.word[:t.n])]
	if len(more) == 0 {
		return false
	}
	second := p.lexer
	n := second.next()
	for _, rest := range more {
		l := p.lexer
		ok := true
		for k, w := range rest {
			if k == 0 {
				l, ok = second, n.is(w)
			} else if n := l.next(); !n.is(w) {
				ok = false
			}
			if !ok {
				break
			}
		}
		if ok && l.nextWord() {
			return true
		}
	}
	return false
}

// imperative reports whether t is an imperative, going by what it is and what comes after it.
func (p *sentences) imperative(t *token, class wordClass) bool {
	l := p.lexer
	n := l.next()
	next := n.class()
	switch {
	case class&foreignVal != 0 && class&(verb|nounVerb) == 0 && t.n >= 4:
		return (n.kind == 'w' || n.kind == 'x' || n.kind == '0') && p.start == strong && next&finite == 0
	case n.is("sie") && t.n > 3 && t.word[t.n-1] == 'n' && p.s[n.start] == 'S':
		return true // German
	case next&finite != 0 || n.is("a") && p.s[n.start] == 'A':
		return false
	}
	m := l.next()
	if class == 0 {
		return (p.start == strong || p.intro) && next&article != 0 && m.kind != 0 && !isUpper(p.s[m.start]) && unknownVerb(t)
	}
	if class&(verb|nounVerb) == 0 {
		return false
	}
	// Far into a sentence a comma parts verbs that tell, more often than it comes before one that orders.
	loose := p.start == weak && !p.intro && p.words > 7 && !isUpper(p.s[t.start])
	switch n.kind {
	case 'x', '$':
		return true
	case '0':
		return class&verb != 0 || m.kind == 'w' && !loose
	case '"', '\'', '`', '<', '[', '*':
		return n.start > t.end
	case ',':
		return class&verb != 0 && p.start == strong && m.class()&(intro|through) != 0
	case 'w':
	default:
		return false
	}
	if loose {
		return n.is("your") || n.is("my") || n.is("me") || n.is("us") || n.is("our")
	}
	if next&object != 0 && next&nounVerb == 0 {
		return true
	}
	if (n.is("and") || n.is("or") || n.is("then")) && m.class()&(verb|nounVerb) != 0 {
		o := l.next()
		return o.class()&object != 0 || class&verb != 0 && o.kind == 'w'
	}
	if class&verb != 0 {
		return p.start == strong || p.intro || m.class()&(object|verbalPrep) != 0
	}
	// "Check in with the desk", "email Anna about it", "transfer funds to": the word after the next shows it.
	if next&verbalPrep != 0 {
		return m.class()&object != 0 && !n.is("to") && !n.is("with")
	}
	return m.class()&verbalPrep != 0 || m.class()&object != 0 && isUpper(p.s[n.start])
}

// unknownVerb reports whether a word that no list has could be the base form of a verb.
func unknownVerb(t *token) bool {
	w := string(t.word[:t.n])
	if t.n < 3 || !ascii(w) || strings.IndexByte(w, '\'') >= 0 {
		return false
	}
	for _, ending := range [...]string{"ed", "ing", "ly", "tion", "ment", "ness", "ity", "er", "or", "ism", "ist", "al", "ous", "ful"} {
		if strings.HasSuffix(w, ending) {
			return false
		}
	}
	return w[t.n-1] != 's' || strings.HasSuffix(w, "ss")
}
