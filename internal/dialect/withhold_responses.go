package dialect

import (
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// responsesWithhold edits the output of a response. It parts a notice from text before it, unless all is set in notices
// already.
func responsesWithhold(output wire.Value, notices map[int]string, set bool) ([]wire.Splice, error) {
	var edits []wire.Splice
	results, gone := make(map[string]bool), make(map[string]bool) // by call id
	n, texted := 0, false
	for item := range output.Elements() {
		var f [4]wire.Value
		pick(item, f[:], "type", "id", "call_id", "caller")
		kind, is := responsesKind(item)
		switch {
		case strings.HasSuffix(f[0].Text(), "_output"):
			results[f[2].Text()] = true
		case kind == fairlead.PartText:
			texted = texted || is
		}
		if kind != fairlead.PartToolCall {
			continue
		}
		notice, goes := notices[n]
		n++
		if !goes {
			continue
		}
		if calledByCode(f[3]) {
			return nil, errShape
		}
		gone[f[2].Text()] = true
		m := noticeItem{id: noticeID(f[1].Text(), f[2].Text(), n), text: paragraph(texted && !set, notice)}
		edits = append(edits, replace(item, m.whole(nil, true)))
		texted = true
	}
	for id := range gone {
		if results[id] && id != "" {
			return nil, errShape // it was carried out already, and its result would stay without it
		}
	}
	return edits, nil
}

// responsesKind says what an item is: a call that a client may carry out, or text, and then whether there is any.
func responsesKind(item wire.Value) (kind fairlead.PartKind, some bool) {
	var r reader
	var m fairlead.Message
	r.responsesItem(&m, item)
	for _, p := range m.Parts {
		switch {
		case p.Kind == fairlead.PartToolCall:
			return p.Kind, true
		case p.Kind == fairlead.PartText:
			kind, some = p.Kind, some || p.Span.Len() > 2
		}
	}
	return kind, some
}

// A noticeItem is the message that stands in the place of a call.
type noticeItem struct{ id, text string }

// noticeID makes the id of the message from that of the item, so that the same item has the same everywhere. It has the
// form and length that the API accepts in later requests.
func noticeID(item, call string, n int) string {
	id := first(item, call, strconv.Itoa(n))
	const most = 64
	return noticePrefix + id[max(0, len(id)-(most-len(noticePrefix))):]
}

// noticePrefix is how the ids of messages begin that stand for calls.
const noticePrefix = "msg_fl_"

// forgotten is the notice of a call when nobody knows any more why it was withheld.
const forgotten = "A tool call that stood here was not let through."

// responsesMend puts in the input, for each reference to a message that stands for a call, that message. It has no id
// there: the API looks up those that it is given.
func responsesMend(body []byte, notice func(id string) string) []byte {
	var edits []wire.Splice
	for item := range wire.Root(body).Get("input").Elements() {
		var f [4]wire.Value
		pick(item, f[:], "type", "id", "role", "content")
		id := f[1].Text()
		if kind := f[0].Text(); kind != "item_reference" && (kind != "" || present(f[2]) || present(f[3])) || !strings.HasPrefix(id, noticePrefix) {
			continue
		}
		b := []byte(`{"type":"message","role":"assistant","content":[{"type":"output_text","text":`)
		b = wire.AppendQuote(b, first(notice(id), forgotten))
		edits = append(edits, replace(item, append(b, `}]}`...)))
	}
	if len(edits) == 0 {
		return body
	}
	return wire.Apply(make([]byte, 0, len(body)+256*len(edits)), body, edits...)
}

// whole appends the item as it is when it begins, or when it is done.
func (m *noticeItem) whole(b []byte, done bool) []byte {
	b = wire.AppendQuote(append(b, `{"id":`...), m.id)
	if !done {
		return append(b, `,"type":"message","status":"in_progress","role":"assistant","content":[]}`...)
	}
	b = append(b, `,"type":"message","status":"completed","role":"assistant","content":[`...)
	return append(m.part(b, m.text), "]}"...)
}

func (m *noticeItem) part(b []byte, text string) []byte {
	b = wire.AppendQuote(append(b, `{"type":"output_text","text":`...), text)
	return append(b, `,"annotations":[],"logprobs":[]}`...)
}

// A responsesReplay writes the held events of a response anew.
type responsesReplay struct {
	replay
	notices  map[int]string // as they are to stand, by the number of the call
	gone     map[int64]int  // the items that go, by output index: the number of the call
	said     map[int64]bool // those of them whose notice was given
	items    map[string]bool
	calls    map[string]bool // the ids of the calls that go
	ended    bool
	numbered bool
	sequence int64 // the next number
}

// Withhold implements Stream.
func (s *responsesStream) Withhold(held []byte, refused []Withheld) ([]byte, error) {
	if len(refused) == 0 {
		return held, nil
	}
	if err := s.ready(held); err != nil {
		return nil, err
	}
	notices, left, err := withheld(s.Answer().ToolCalls, refused)
	if err != nil {
		return nil, err
	}
	w := &responsesReplay{notices: notices, gone: make(map[int64]int), said: make(map[int64]bool), items: make(map[string]bool),
		calls: make(map[string]bool)}
	if err := w.plan(s); err != nil {
		return nil, err
	}
	if err := w.events(&s.stream, held, w.event); err != nil {
		return nil, err
	}
	return rewritten(openAI{}.Stream(Route{Path: responsesPath}), w.out, left)
}

// plan finds the items that go, and sets the notices as they are to stand.
func (w *responsesReplay) plan(s *responsesStream) error {
	pieces := s.callPieces()
	var number []int
	if s.whole != nil {
		number = s.inWhole(pieces)
	}
	set := make(map[int]bool)
	seen := make(map[int64]bool)
	texted, n := false, 0
	for _, p := range s.order {
		if p.kind != fairlead.PartToolCall {
			texted = texted || p.kind == fairlead.PartText && len(p.text) > 0
			continue
		}
		k := n
		if number != nil {
			k = number[n]
		}
		n++
		if k < 0 || !p.begun || seen[p.outer] {
			return errShape // what was streamed is not what the end says, or two calls claim one place
		}
		seen[p.outer] = true
		notice, goes := w.notices[k]
		if !goes {
			continue
		}
		if set[k] {
			return errShape
		}
		w.gone[p.outer], set[k] = k, true
		w.notices[k], texted = paragraph(texted, notice), true
		if p.id != "" {
			w.calls[p.id] = true
		}
	}
	for _, p := range s.order {
		if _, gone := w.gone[p.outer]; gone && p.kind != fairlead.PartToolCall {
			return errShape
		}
	}
	for k, notice := range w.notices {
		if !set[k] { // a call that only the end has
			w.notices[k] = paragraph(texted, notice)
		}
	}
	return nil
}

func (w *responsesReplay) event(v wire.Value) error {
	var f [6]wire.Value
	pick(v, f[:], "type", "response", "output_index", "item", "item_id", "sequence_number")
	kind := first(f[0].Text(), string(w.ev.Name))
	outer, _ := f[2].Int()
	item, response := f[3], f[1]
	if n, ok := f[5].Int(); ok && !w.numbered {
		w.numbered, w.sequence = true, n
	}
	if strings.HasSuffix(item.Get("type").Text(), "_output") && w.calls[item.Get("call_id").Text()] {
		return errShape
	}
	var edits []wire.Splice
	switch kind {
	case "response.completed", "response.incomplete", "response.failed", "response.cancelled":
		if output := response.Get("output"); substantial(output) {
			if w.ended {
				return errShape
			}
			w.ended = true
			var err error
			if edits, err = responsesWithhold(output, w.notices, true); err != nil {
				return err
			}
		}
	case "response.output_item.added", "response.output_item.done":
		if k, gone := w.gone[outer]; gone {
			id := item.Get("id").Text()
			if calledByCode(item.Get("caller")) {
				return errShape
			}
			w.items[id] = id != ""
			if !w.said[outer] {
				w.said[outer] = true
				w.say(&noticeItem{noticeID(id, item.Get("call_id").Text(), k+1), w.notices[k]}, outer)
			}
			return nil
		}
	default:
		if substantial(response.Get("output")) {
			return errShape
		}
	}
	if _, gone := w.gone[outer]; gone && f[2].Kind() != 0 || w.items[f[4].Text()] {
		return nil
	}
	if f[5].Kind() == '0' {
		if n := strconv.AppendInt(nil, w.sequence, 10); string(n) != string(f[5].Raw()) {
			edits = append(edits, replace(f[5], n))
		}
		w.sequence++
	}
	w.keep(edits...)
	return nil
}

// say writes the events of a message.
func (w *responsesReplay) say(m *noticeItem, outer int64) {
	at := append(strconv.AppendInt([]byte(`,"output_index":`), outer, 10), `,"content_index":0`...)
	at = append(wire.AppendQuote([]byte(`"item_id":`), m.id), at...)
	item := append(strconv.AppendInt([]byte(`"output_index":`), outer, 10), `,"item":`...)
	text := wire.AppendQuote(nil, m.text)
	join := func(a []byte, more ...[]byte) []byte {
		a = a[:len(a):len(a)]
		for _, b := range more {
			a = append(a, b...)
		}
		return a
	}
	none := []byte(`,"logprobs":[]`)
	w.one("response.output_item.added", m.whole(join(item), false))
	w.one("response.content_part.added", m.part(join(at, []byte(`,"part":`)), ""))
	w.one("response.output_text.delta", join(at, []byte(`,"delta":`), text, none))
	w.one("response.output_text.done", join(at, []byte(`,"text":`), text, none))
	w.one("response.content_part.done", m.part(join(at, []byte(`,"part":`)), m.text))
	w.one("response.output_item.done", m.whole(join(item), true))
}

func (w *responsesReplay) one(kind string, members []byte) {
	b := wire.AppendQuote([]byte(`{"type":`), kind)
	if w.numbered {
		b = strconv.AppendInt(append(b, `,"sequence_number":`...), w.sequence, 10)
		w.sequence++
	}
	b = append(append(append(b, ','), members...), '}')
	w.insert(kind, b)
}
