package dialect

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// Withheld is a tool call that is taken out of an answer.
type Withheld struct {
	Index int // in the ToolCalls of the answer
	// Notice stands in the call's place as text of the assistant. The model reads it in the next request, so it must
	// say nothing in an attacker's words.
	Notice string
}

// withheld checks a list of refusals for an answer with the given calls. It gives the notices by index, and the calls
// that are left.
func withheld(calls []fairlead.ToolCall, refused []Withheld) (notices map[int]string, left []fairlead.ToolCall, err error) {
	notices = make(map[int]string, len(refused))
	for _, w := range refused {
		if w.Index < 0 || w.Index >= len(calls) {
			return nil, nil, fmt.Errorf("tool call %d cannot be withheld: the answer has %d", w.Index, len(calls))
		}
		if _, twice := notices[w.Index]; twice {
			return nil, nil, fmt.Errorf("tool call %d is withheld twice: say it once", w.Index)
		}
		if strings.TrimSpace(w.Notice) == "" {
			return nil, nil, fmt.Errorf("tool call %d cannot be withheld without a notice: providers take no empty text", w.Index)
		}
		notices[w.Index] = w.Notice
	}
	for i := range calls {
		if _, ok := notices[i]; !ok {
			left = append(left, calls[i])
		}
	}
	return notices, left, nil
}

// withhold frames the rewriting of a whole body: it checks what goes in, and reads again what comes out.
func withhold(d Dialect, rt Route, body []byte, refused []Withheld, rewrite func(v wire.Value, notices map[int]string) ([]wire.Splice, error)) ([]byte, error) {
	if len(refused) == 0 {
		return body, nil
	}
	before, err := d.Answer(rt, body)
	if err != nil {
		return nil, err
	}
	notices, left, err := withheld(before.ToolCalls, refused)
	if err != nil {
		return nil, err
	}
	edits, err := rewrite(wire.Root(body), notices)
	if err != nil {
		return nil, err
	}
	out := wire.Apply(make([]byte, 0, len(body)+256*len(refused)), body, edits...)
	after, err := d.Answer(rt, out)
	if err != nil || !slices.Equal(after.ToolCalls, left) {
		return nil, errShape
	}
	return out, nil
}

// errShape is the error for an answer whose calls do not stand where they can be taken out.
var errShape = errors.New("the tool calls of this answer cannot be taken out one by one, because it is built in a way that we do not know: refuse all of it")

// A list is an array or object of which some entries go. Its entries come in order.
type list struct {
	src     []byte
	open    int // offset of what follows the opening bracket
	entries []entry
}

type entry struct {
	end  int
	goes bool
}

func newList(v wire.Value, src []byte) *list { return &list{src: src, open: v.Span().Start + 1} }

func (l *list) add(v wire.Value, goes bool) {
	l.entries = append(l.entries, entry{v.Span().End, goes})
}

func (l *list) kept() (n int) {
	for _, e := range l.entries {
		if !e.goes {
			n++
		}
	}
	return n
}

// edits removes the entries that go, each with the comma before it, or with that behind it where none before it stays.
func (l *list) edits(to []wire.Splice) []wire.Splice {
	kept, lead := false, l.open
	for i, e := range l.entries {
		if e.goes {
			end := e.end
			if !kept && i+1 < len(l.entries) {
				end += bytes.IndexByte(l.src[end:], ',') + 1
			}
			to = append(to, wire.Splice{At: fairlead.Span{Start: lead, End: end}})
		}
		kept = kept || !e.goes
		lead = e.end
	}
	return to
}

func replace(v wire.Value, with []byte) wire.Splice { return wire.Splice{At: v.Span(), With: with} }

// paragraph joins notices, with a blank line in front if text comes before them.
func paragraph(texted bool, notices ...string) string {
	s := strings.Join(notices, "\n\n")
	if texted {
		return "\n\n" + s
	}
	return s
}

// A replay goes once more over the held events of a stream and writes them anew.
type replay struct {
	out []byte
	eol string // how the events of this stream end their lines
	ev  wire.Event
}

// events gives the held events one by one to each, which writes what is to stand for them.
func (w *replay) events(s *stream, held []byte, each func(v wire.Value) error) error {
	f := wire.Framer{Max: len(held) + 2}
	if s.before { // a byte order mark is one at the start of the stream only
		_ = f.Push([]byte("\n"), func(wire.Event) error { return nil }) // one blank line, which cannot be too long
	}
	started := s.before
	emit := func(ev wire.Event) error {
		if raw, ok := bytes.CutPrefix(ev.Raw, []byte("\xEF\xBB\xBF")); ok && !started {
			w.out, ev.Raw = append(w.out, ev.Raw[:3]...), raw // whatever comes first
		}
		started = true
		w.ev = ev
		w.eol = lineEnding(ev.Raw)
		if len(ev.Data) == 0 || bytes.HasPrefix(ev.Data, []byte("[DONE]")) {
			return each(wire.Value{})
		}
		if err := wire.Check(ev.Data, wire.Limits{}); err != nil {
			return errShape
		}
		return each(wire.Root(ev.Data))
	}
	if err := f.Push(held, emit); err != nil {
		return err
	}
	return f.Close(emit)
}

func lineEnding(raw []byte) string {
	switch i := bytes.IndexAny(raw, "\r\n"); {
	case i >= 0 && raw[i] == '\r' && i+1 < len(raw) && raw[i+1] == '\n':
		return "\r\n"
	case i >= 0 && raw[i] == '\r':
		return "\r"
	}
	return "\n"
}

// keep writes the event as it came, but for edits of its data.
func (w *replay) keep(edits ...wire.Splice) {
	if len(edits) == 0 {
		w.out = append(w.out, w.ev.Raw...)
		return
	}
	data := wire.Apply(nil, w.ev.Data, edits...)
	done := false
	for raw := w.ev.Raw; len(raw) > 0; {
		n := len(raw)
		if i := bytes.IndexAny(raw, "\r\n"); i >= 0 {
			n = i + 1
			if raw[i] == '\r' && n < len(raw) && raw[n] == '\n' {
				n++
			}
		}
		line := raw[:n]
		raw = raw[n:]
		text := bytes.TrimRight(line, "\r\n")
		field, _, _ := bytes.Cut(text, []byte(":"))
		switch {
		case string(field) != "data":
			w.out = append(w.out, line...)
		case !done:
			done = true
			w.out = append(w.out, "data: "...)
			w.out = append(w.out, bytes.ReplaceAll(data, []byte("\n"), []byte(w.eol+"data: "))...)
			w.out = append(w.out, line[len(text):]...)
		}
	}
}

// insert writes an event of our own. It has its name if the event that it stands beside has one.
func (w *replay) insert(name string, data []byte) {
	if len(w.ev.Name) > 0 {
		w.out = append(append(append(w.out, "event: "...), name...), w.eol...)
	}
	w.out = append(append(append(w.out, "data: "...), data...), w.eol+w.eol...)
}

// rewritten feeds a stream its own rewritten events, and compares what it reads with the calls that are to be left.
func rewritten(fresh Stream, out []byte, left []fairlead.ToolCall) ([]byte, error) {
	f := wire.Framer{Max: len(out) + 2}
	emit := func(ev wire.Event) error { fresh.Event(ev); return nil }
	if f.Push(out, emit) != nil || f.Close(emit) != nil {
		return nil, errShape
	}
	if a := fresh.Answer(); a.ErrorType == malformedEvent || !slices.Equal(a.ToolCalls, left) {
		return nil, errShape
	}
	return out, nil
}
