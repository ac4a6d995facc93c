package wire

import (
	"bytes"
	"fmt"
)

// An Event is one block of an event stream, up to and including the blank line that ends it. Its slices are valid only
// during the call that hands it over.
type Event struct {
	// Raw is exactly what arrived. The Raws of a stream, and its Rest, joined are the stream.
	Raw []byte
	// Name is the value of the last "event" field, Data that of all "data" fields, joined with line feeds. Both are
	// empty for a block of comments.
	Name, Data []byte
}

// A Framer cuts an event stream (WHATWG HTML, section "Server-sent events") into its events, however the stream is cut
// into chunks. Lines end in CR, LF or CRLF, and a byte order mark may stand in front. The zero value is ready for use.
//
// A CR can be the first half of a CRLF that is still under way. Where that CR ends the blank line, the Framer waits
// for the next byte, so that a client gets the whole of "\r\n\r\n" at once; but not if the line before ended in a CR
// alone, since such a stream may send nothing more until the next event. If an LF follows that CR after all, it goes
// in front of the next event, where a reader ignores it. Both depend only on the stream, not on its chunks.
type Framer struct {
	// Max is the most bytes that one event may have; 1 MiB if it is not positive.
	Max int

	buf    []byte // an event that is not complete yet
	line   int    // where the current line starts in buf
	pos    int    // how far the current line has been looked at
	last   ending // how the line before ended
	begun  bool   // an event has been handed over
	joined []byte // scratch for several data lines
	err    error
}

// An ending is how a line ended. A CR at the end of what has arrived counts as endCR until an LF follows it.
type ending byte

const (
	endNone ending = iota
	endLF
	endCR
	endCRLF
)

// defaultMax bounds an event where the caller does not.
const defaultMax = 1 << 20

// Push takes the next bytes of the stream and calls emit for each event that they complete. It fails when an event is
// too long, or when emit does; the Framer then takes no more, and Rest has what was not handed over.
func (f *Framer) Push(chunk []byte, emit func(Event) error) error {
	if f.err != nil {
		return f.err
	}
	limit := f.Max
	if limit <= 0 {
		limit = defaultMax
	}
	data := chunk
	if len(f.buf) > 0 {
		f.buf = append(f.buf, chunk...)
		data = f.buf
	}
	start := 0 // of the event
	s := scanner{data: data, cr: -1, lf: -1}
	for f.err == nil {
		end, ok := f.next(&s)
		if !ok {
			if len(data)-start > limit {
				f.err = tooLong(limit)
			}
			break
		}
		if end-start > limit {
			f.err = tooLong(limit)
			break
		}
		ev := f.parse(data[start:end:end])
		f.begun = true
		start = end
		f.err = emit(ev)
	}
	f.keep(data, start)
	return f.err
}

func tooLong(limit int) error {
	return fmt.Errorf("an event of the stream is longer than %d bytes: raise the limit for events if that is right", limit)
}

// keep stores what is left of data from start on for the next chunk.
func (f *Framer) keep(data []byte, start int) {
	if start == 0 && len(f.buf) > 0 {
		return // data is buf already: copying it at each chunk would take quadratic time
	}
	f.buf = append(f.buf[:0], data[start:]...)
	f.line, f.pos = f.line-start, f.pos-start
	if len(f.buf) == 0 && cap(f.buf) > 1<<16 {
		f.buf = nil
	}
}

// Rest returns the bytes after the last complete event. They are valid until the next call.
func (f *Framer) Rest() []byte { return f.buf }

// Close hands over what is left at the end of the stream as a last event, if anything is. WHATWG would have a reader
// discard it, but the readers of several SDKs do not, so that it must be looked at like any other.
func (f *Framer) Close(emit func(Event) error) error {
	if f.err != nil || len(f.buf) == 0 {
		return f.err
	}
	ev := f.parse(f.buf)
	f.buf, f.line, f.pos, f.begun = nil, 0, 0, true
	f.err = emit(ev)
	return f.err
}

// A scanner finds line ends. It remembers the next CR and LF, so that a stream that has only one of them is not
// searched to its end for the other at every line.
type scanner struct {
	data   []byte
	cr, lf int // offsets of the next ones at or after where was last looked; len(data) if there is none
}

// lineEnd returns the offset of the first CR or LF at or after i, or len(data).
func (s *scanner) lineEnd(i int) int {
	if s.cr < i {
		s.cr = find(s.data, i, '\r')
	}
	if s.lf < i {
		s.lf = find(s.data, i, '\n')
	}
	return min(s.cr, s.lf)
}

func find(data []byte, i int, b byte) int {
	if n := bytes.IndexByte(data[i:], b); n >= 0 {
		return i + n
	}
	return len(data)
}

// next looks for the end of the event that is being read, and remembers how far it came.
func (f *Framer) next(s *scanner) (end int, ok bool) {
	data := s.data
	for {
		if f.last == endCR && f.line < len(data) && data[f.line] == '\n' { // the other half of a CRLF
			f.line, f.last = f.line+1, endCRLF
			f.pos = max(f.pos, f.line)
		}
		i := s.lineEnd(f.pos)
		f.pos = i
		if i == len(data) {
			return 0, false
		}
		blank := i == f.line || !f.begun && f.line == 0 && string(data[:i]) == byteOrderMark
		how, after := endCR, i+1
		switch {
		case data[i] == '\n':
			how = endLF
		case !blank, f.last == endCR:
			// Whether an LF follows can be seen later.
		case after == len(data):
			return 0, false
		case data[after] == '\n':
			how, after = endCRLF, after+1
		}
		f.line, f.pos, f.last = after, after, how
		if blank {
			return after, true
		}
	}
}

const byteOrderMark = "\xEF\xBB\xBF"

// parse reads the fields of an event.
func (f *Framer) parse(raw []byte) Event {
	ev := Event{Raw: raw}
	rest := raw
	if !f.begun {
		rest = bytes.TrimPrefix(rest, []byte(byteOrderMark))
	}
	lines := 0
	s := scanner{data: rest, cr: -1, lf: -1}
	for from := 0; from < len(rest); {
		i := s.lineEnd(from)
		field, value, _ := bytes.Cut(rest[from:i], []byte(":"))
		from = i + 1
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			ev.Name = value
		case "data":
			switch lines++; lines {
			case 1:
				ev.Data = value
			case 2:
				f.joined = append(append(append(f.joined[:0], ev.Data...), '\n'), value...)
			default:
				f.joined = append(append(f.joined, '\n'), value...)
			}
		}
	}
	if lines > 1 {
		ev.Data = f.joined
	}
	return ev
}
