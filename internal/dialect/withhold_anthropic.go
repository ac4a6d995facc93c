package dialect

import (
	"strconv"

	"github.com/fairleadhq/fairlead/internal/wire"
)

// anthropicWithhold edits a message.
func anthropicWithhold(v wire.Value, notices map[int]string) ([]wire.Splice, error) {
	var f [2]wire.Value
	pick(v, f[:], "content", "stop_reason")
	var edits []wire.Splice
	n, left, texted := 0, 0, false
	for e := range f[0].Elements() {
		var b [5]wire.Value
		pick(e, b[:], "type", "text", "id", "caller", "tool_use_id")
		texted = texted || substantial(b[1])
		if kind := b[0].Text(); kind == "tool_result" {
			return nil, errShape
		} else if kind != "tool_use" {
			continue
		}
		notice, goes := notices[n]
		n++
		if !goes {
			left++
			continue
		}
		if calledByCode(b[3]) {
			return nil, errShape
		}
		block := wire.AppendQuote([]byte(`{"type":"text","text":`), paragraph(texted, notice))
		edits = append(edits, replace(e, append(block, '}')))
		texted = true
	}
	if left == 0 {
		edits = append(edits, anthropicStop(f[1])...)
	}
	return edits, nil
}

// calledByCode reports whether a call was made by code that runs at the provider and waits for its result: without the
// call the conversation could not go on.
func calledByCode(caller wire.Value) bool {
	return present(caller) && caller.Get("type").Text() != "direct"
}

func anthropicStop(reason wire.Value) []wire.Splice {
	if reason.Text() != "tool_use" {
		return nil
	}
	return []wire.Splice{replace(reason, []byte(`"end_turn"`))}
}

// An anthropicReplay writes the held events of a message anew.
type anthropicReplay struct {
	replay
	notices map[int]string // as they are to stand
	next    int            // the number of the next call
	left    int
	gone    map[int64]bool // the open blocks that go, by index
}

// Withhold implements Stream.
func (s *anthropicStream) Withhold(held []byte, refused []Withheld) ([]byte, error) {
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
	n, texted := 0, false
	for _, p := range s.order {
		switch {
		case p.kind == "text" && len(p.text) > 0:
			texted = true
		case p.kind == "tool_call" && !p.begun:
			return nil, errShape
		case p.kind == "tool_call":
			if notice, goes := notices[n]; goes {
				notices[n], texted = paragraph(texted, notice), true
			}
			n++
		}
	}
	w := &anthropicReplay{notices: notices, left: len(left), gone: make(map[int64]bool)}
	if err := w.events(&s.stream, held, w.event); err != nil {
		return nil, err
	}
	return rewritten(anthropic{}.Stream(Route{Path: messagesPath}), w.out, left)
}

func (w *anthropicReplay) event(v wire.Value) error {
	var f [4]wire.Value
	pick(v, f[:], "type", "index", "content_block", "delta")
	kind := first(f[0].Text(), string(w.ev.Name))
	index, _ := f[1].Int()
	switch kind {
	case "content_block_start":
		var b [2]wire.Value
		pick(f[2], b[:], "type", "caller")
		delete(w.gone, index)
		if b[0].Text() == "tool_result" {
			return errShape
		} else if b[0].Text() != "tool_use" {
			break
		}
		notice, goes := w.notices[w.next]
		w.next++
		if !goes {
			break
		}
		if calledByCode(b[1]) {
			return errShape
		}
		w.gone[index] = true
		w.keep(replace(f[2], []byte(`{"type":"text","text":""}`)))
		d := strconv.AppendInt([]byte(`{"type":"content_block_delta","index":`), index, 10)
		d = wire.AppendQuote(append(d, `,"delta":{"type":"text_delta","text":`...), notice)
		w.insert("content_block_delta", append(d, "}}"...))
		return nil
	case "content_block_delta":
		if w.gone[index] {
			return nil
		}
	case "content_block_stop":
		delete(w.gone, index)
	case "message_delta":
		if w.left == 0 {
			w.keep(anthropicStop(f[3].Get("stop_reason"))...)
			return nil
		}
	}
	w.keep()
	return nil
}
