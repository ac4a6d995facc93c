// Package text reads hostile text the way a person or a model would see it, and says where in the original bytes what
// it found stands. [Fold] gives a form in which two texts that look alike are equal; [Decoded] opens base64, hex,
// escapes and entities; [Identifiers] and [Instructions] find what flow rules are about: values that name something
// outside, and sentences that tell the reader to do something.
//
// The threat is a writer who knows this code: hidden characters, look-alike letters, nested encodings, text made to
// cost time or memory. So every function takes time and memory linear in its input, never panics, takes invalid UTF-8,
// and bounds how many spans it returns. Nothing here is a verdict: spans are evidence for rules elsewhere.
//
// Texts of 2 GiB and more are read up to there.
package text

import "sort"

// maxLen is the longest text that is read: offsets are kept in 32 bits.
const maxLen = 1<<31 - 1

// clip cuts s to what is read.
func clip(s string) string { return s[:min(len(s), maxLen)] }

// An anchor says that from byte f of the folded text on, units of fl bytes come one after the other from units of ol
// bytes of the source, beginning at byte o, until the next anchor. fl 0 is one unit that reaches to the next anchor.
type anchor struct {
	f, o   uint32
	fl, ol uint8
}

// offsets maps a folded text to its source. Without anchors it is the identity. It takes at most 12 bytes for each place
// where the mapping changes its shape, so at most six times the source.
type offsets struct {
	at   []anchor
	n    int // length of the source
	f, o int // how much of both texts is mapped
	last anchor
}

func newOffsets(n int) *offsets { return &offsets{n: n, last: anchor{fl: 1, ol: 1}} }

// same records that the next n bytes of both texts correspond one to one.
func (m *offsets) same(n int) {
	if n > 0 {
		m.shape(1, 1)
		m.f, m.o = m.f+n, m.o+n
	}
}

// unit records that the next fl bytes come from the next ol bytes as a whole. Without folded bytes it is a removal.
func (m *offsets) unit(fl, ol int) {
	switch {
	case fl == 0:
	case fl == 1 && ol == 1:
		m.shape(1, 1)
	case fl > 255 || ol > 255:
		m.push(anchor{f: uint32(m.f), o: uint32(m.o)})
	default:
		m.shape(uint8(fl), uint8(ol))
	}
	m.f, m.o = m.f+fl, m.o+ol
}

// shape makes sure that what follows is mapped in units of fl to ol from here.
func (m *offsets) shape(fl, ol uint8) {
	a := &m.last
	if a.fl == fl && a.ol == ol {
		if d := m.f - int(a.f); d%int(fl) == 0 && int(a.o)+d/int(fl)*int(ol) == m.o {
			return
		}
	}
	m.push(anchor{uint32(m.f), uint32(m.o), fl, ol})
}

func (m *offsets) push(a anchor) {
	m.last = a
	m.at = append(m.at, a)
}

// source gives the range of the unit that holds folded byte i. Past the end it is empty.
func (m *offsets) source(i int) (start, end int) {
	k := sort.Search(len(m.at), func(k int) bool { return int(m.at[k].f) > i })
	a := anchor{fl: 1, ol: 1}
	if k > 0 {
		a = m.at[k-1]
	}
	if a.fl == 0 {
		end = m.n
		if k < len(m.at) {
			end = int(m.at[k].o)
		}
		return int(a.o), end
	}
	start = int(a.o) + (i-int(a.f))/int(a.fl)*int(a.ol)
	return min(start, m.n), min(start+int(a.ol), m.n)
}

// span maps a folded range to the smallest source range that covers it.
func (m *offsets) span(i, j int) (start, end int) {
	if len(m.at) == 0 {
		return i, j
	}
	if i >= m.f {
		return m.n, m.n
	}
	start, _ = m.source(i)
	if j <= i {
		return start, start
	}
	_, end = m.source(min(j, m.f) - 1)
	return start, end
}
