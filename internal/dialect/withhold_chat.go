package dialect

import (
	"strconv"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// chatWithhold edits the choices of a completion.
func chatWithhold(body []byte, choices wire.Value, notices map[int]string) ([]wire.Splice, error) {
	var edits []wire.Splice
	n := 0 // of the next call, as Answer counts
	for c := range choices.Elements() {
		var f [2]wire.Value
		pick(c, f[:], "message", "finish_reason")
		w := chatCut{src: body, number: func(wire.Value, bool) int { n++; return n - 1 }, notices: notices}
		if err := w.cut(f[0]); err != nil {
			return nil, err
		}
		edits = append(edits, w.edits...)
		if len(w.said) == 0 {
			continue
		}
		said, err := chatSay(f[0], w.members.kept() > 0, w.said)
		if err != nil {
			return nil, err
		}
		edits = append(edits, said)
		if w.left == 0 {
			edits = append(edits, chatStop(f[1])...)
		}
	}
	return edits, nil
}

// chatStop edits a finish reason that speaks of calls where none is left.
func chatStop(reason wire.Value) []wire.Splice {
	switch reason.Text() {
	case "tool_calls", "function_call":
		return []wire.Splice{replace(reason, []byte(`"stop"`))}
	}
	return nil
}

// A chatCut takes calls out of a message or of the delta of a chunk.
type chatCut struct {
	src     []byte
	number  func(call wire.Value, legacy bool) int
	notices map[int]string
	index   func(number int) int64 // if set: the index that a call gets which stays

	members *list // of the message
	edits   []wire.Splice
	said    []string // the notices, once for each piece that went
	left    int      // pieces that stay
}

func (w *chatCut) goes(call wire.Value, legacy bool) bool {
	n := w.number(call, legacy)
	notice, goes := w.notices[n]
	if goes {
		w.said = append(w.said, notice)
		return true
	}
	w.left++
	if v := call.Get("index"); w.index != nil && !legacy && present(v) {
		if want := strconv.AppendInt(nil, w.index(n), 10); string(want) != string(v.Raw()) {
			w.edits = append(w.edits, replace(v, want))
		}
	}
	return false
}

func (w *chatCut) cut(m wire.Value) error {
	var f [2]wire.Value
	pick(m, f[:], "tool_calls", "function_call")
	var callsGo, legacyGoes bool
	if substantial(f[0]) {
		if f[0].Kind() != '[' {
			return errShape
		}
		elements := newList(f[0], w.src)
		for e := range f[0].Elements() {
			elements.add(e, w.goes(e, false))
		}
		if callsGo = elements.kept() == 0; !callsGo {
			w.edits = elements.edits(w.edits)
		}
	}
	if present(f[1]) {
		legacyGoes = w.goes(f[1], true)
	}
	w.members = newList(m, w.src)
	for n, v := range m.Members() {
		w.members.add(v, callsGo && n.Equal("tool_calls") || legacyGoes && n.Equal("function_call"))
	}
	w.edits = w.members.edits(w.edits)
	return nil
}

// chatSay adds notices to the content of a message.
func chatSay(m wire.Value, more bool, notices []string) (wire.Splice, error) {
	content, begin := m.Get("content"), m.Span().Start+1
	switch content.Kind() {
	case 0:
		b := wire.AppendQuote([]byte(`"content":`), paragraph(false, notices...))
		if more {
			b = append(b, ',')
		}
		return wire.Splice{At: fairlead.Span{Start: begin, End: begin}, With: b}, nil
	case 'n':
		return replace(content, wire.AppendQuote(nil, paragraph(false, notices...))), nil
	case '"':
		b := wire.AppendQuote(nil, paragraph(content.Span().Len() > 2, notices...))
		end := content.Span().End - 1
		return wire.Splice{At: fairlead.Span{Start: end, End: end}, With: b[1 : len(b)-1]}, nil
	case '[':
		some := substantial(content)
		var b []byte
		if some {
			b = append(b, ',')
		}
		b = append(wire.AppendQuote(append(b, `{"type":"text","text":`...), paragraph(some, notices...)), '}')
		end := content.Span().End - 1
		return wire.Splice{At: fairlead.Span{Start: end, End: end}, With: b}, nil
	}
	return wire.Splice{}, errShape
}

// A chatReplay writes the held chunks of a completion anew.
type chatReplay struct {
	replay
	calls   chatCalls
	notices map[int]string
	index   []int64            // by number: the index that a call gets which stays
	cut     map[int64]bool     // the choices that lose a call
	left    map[int64]int      // by choice: how many calls it keeps
	unsaid  map[int64][]string // by choice: the notices to be given before it finishes
	order   []int64            // the choices that lose a call, as they come
	texted  map[int64]bool     // the choices that have text of their own
	last    []byte             // the chunk before
}

// Withhold implements Stream.
func (s *chatStream) Withhold(held []byte, refused []Withheld) ([]byte, error) {
	if len(refused) == 0 {
		return held, nil
	}
	if err := s.ready(held); err != nil {
		return nil, err
	}
	pieces := s.callPieces()
	notices, left, err := withheld(s.Answer().ToolCalls, refused)
	if err != nil {
		return nil, err
	}
	w := &chatReplay{notices: notices, texted: s.texted, index: make([]int64, len(pieces)), left: make(map[int64]int),
		unsaid: make(map[int64][]string), cut: make(map[int64]bool)}
	for n, p := range pieces {
		if !p.begun {
			return nil, errShape
		}
		choice := p.outer
		notice, goes := notices[n]
		if !goes {
			w.index[n] = int64(w.left[choice])
			w.left[choice]++
			continue
		}
		if !w.cut[choice] {
			w.cut[choice] = true
			w.order = append(w.order, choice)
		}
		w.unsaid[choice] = append(w.unsaid[choice], notice)
	}
	if err := w.events(&s.stream, held, w.event); err != nil {
		return nil, err
	}
	w.sayAll()
	return rewritten(&chatStream{}, w.out, left)
}

func (w *chatReplay) event(v wire.Value) error {
	if v.Kind() != '{' || present(v.Get("error")) {
		if len(w.ev.Data) > 0 { // the end
			w.sayAll()
		}
		w.keep()
		return nil
	}
	var edits []wire.Splice
	empty, n := false, 0
	choices := v.Get("choices")
	for c := range choices.Elements() {
		var f [3]wire.Value
		pick(c, f[:], "index", "delta", "finish_reason")
		choice, _ := f[0].Int()
		cut := chatCut{src: w.ev.Data, notices: w.notices, number: func(v wire.Value, legacy bool) int {
			if legacy {
				return w.calls.legacy(choice, v).number
			}
			return w.calls.at(choice, v).number
		}}
		if w.cut[choice] {
			cut.index = func(n int) int64 { return w.index[n] }
		}
		if err := cut.cut(f[1]); err != nil {
			return err
		}
		edits = append(edits, cut.edits...)
		n++
		empty = n == 1 && len(cut.said) > 0 && cut.members.kept() == 0 && !present(f[2])
		if present(f[2]) && w.cut[choice] {
			if notices := w.unsaid[choice]; notices != nil {
				w.say(v, choice, notices)
			}
			if w.left[choice] == 0 {
				edits = append(edits, chatStop(f[2])...)
			}
		}
	}
	w.last = append(w.last[:0], w.ev.Data...)
	if empty && !present(v.Get("usage")) {
		return nil // it held nothing but a piece of a call that goes
	}
	w.keep(edits...)
	return nil
}

// sayAll gives the notices of choices that have not finished, where the stream ends.
func (w *chatReplay) sayAll() {
	for _, choice := range w.order {
		if notices := w.unsaid[choice]; notices != nil {
			w.say(wire.Root(w.last), choice, notices)
		}
	}
}

// say writes a chunk with notices as content, in all else like its sibling.
func (w *chatReplay) say(sibling wire.Value, choice int64, notices []string) {
	delete(w.unsaid, choice)
	b := []byte{'{'}
	for n, v := range sibling.Members() {
		switch {
		case n.Equal("choices"), v.Kind() == '{', v.Kind() == '[':
			if !n.Equal("usage") {
				continue
			}
			b = append(b, `"usage":null,`...)
		default:
			b = append(append(append(wire.AppendQuote(b, n.String()), ':'), v.Raw()...), ',')
		}
	}
	b = strconv.AppendInt(append(b, `"choices":[{"index":`...), choice, 10)
	b = wire.AppendQuote(append(b, `,"delta":{"content":`...), paragraph(w.texted[choice], notices...))
	w.insert("", append(b, `},"finish_reason":null}]}`...))
}
