package text

import (
	"slices"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A Folded is a text in the form in which texts are compared. Text is valid UTF-8.
type Folded struct {
	Text   string
	hidden *offsets // from the text without its invisible characters to the original; nil is the identity
	form   *offsets // from Text to the text without its invisible characters; nil is the identity
}

// Fold gives s in the form in which texts that read alike are equal: invisible characters removed and Unicode tags
// read as the ASCII they stand for, NFKC (UAX #15, which also takes in full-width and mathematical letters), lower
// case, every run of white space one space, typographic quotes and dashes as ASCII, and Cyrillic and Greek letters as
// the Latin letters that they look like. The last happens only in words that also have a Latin letter, or that consist
// of letters with a Latin double in both cases: other Cyrillic and Greek text stays as it is. Bytes that are not UTF-8
// become U+FFFD. Accents are kept.
//
// It takes linear time. Pure ASCII costs two allocations of the size of the output.
func Fold(s string) Folded {
	s = clip(s)
	var f Folded
	t := s
	if !ascii(s) {
		t, f.hidden = reveal(s, true)
	}
	w := folder{s: t, out: make([]byte, 0, len(t)), track: true, n: len(t)}
	w.fold()
	f.Text, f.form = string(w.out), w.m
	return f
}

// AppendFold appends the folded form of s to dst, without keeping offsets.
func AppendFold(dst []byte, s string) []byte {
	s = clip(s)
	if !ascii(s) {
		s, _ = reveal(s, false)
	}
	w := folder{s: s, out: dst, n: len(s)}
	w.fold()
	return w.out
}

// Origin gives the smallest range of bytes of the original text that Text[i:j] comes from. i and j are taken to stand
// at the start of a character.
func (f *Folded) Origin(i, j int) (start, end int) {
	i = min(max(i, 0), len(f.Text))
	j = min(max(j, i), len(f.Text))
	if f.form != nil {
		i, j = f.form.span(i, j)
	}
	if f.hidden != nil {
		i, j = f.hidden.span(i, j)
	}
	return i, j
}

func isAlnum(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// ascii reports whether s is ASCII throughout.
func ascii(s string) bool {
	for len(s) >= 8 {
		if (s[0]|s[1]|s[2]|s[3]|s[4]|s[5]|s[6]|s[7])&0x80 != 0 {
			return false
		}
		s = s[8:]
	}
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// reveal takes the invisible characters out of s and reads Unicode tags as ASCII. This comes before NFKC, so that a
// hidden character cannot keep a letter and its accent apart.
func reveal(s string, track bool) (string, *offsets) {
	var out []byte
	var m *offsets
	from := 0 // s[from:i] is to be copied
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if !hidden(r) {
			i += size
			continue
		}
		if out == nil {
			out = make([]byte, 0, len(s))
			if track {
				m = newOffsets(len(s))
			}
		}
		out = append(out, s[from:i]...)
		plain := 0
		if r >= 0xE0020 && r <= 0xE007E {
			out, plain = append(out, byte(r-0xE0000)), 1
		}
		if m != nil {
			m.same(i - from)
			m.unit(plain, size)
		}
		i += size
		from = i
	}
	if out == nil {
		return s, nil
	}
	if m != nil {
		m.same(len(s) - from)
	}
	return string(append(out, s[from:]...)), m
}

// hidden reports whether r leaves no mark on a page: formatting, bidirectional controls, variation selectors, fillers,
// C1 controls and Unicode tags.
func hidden(r rune) bool {
	switch {
	case r < 0x2000:
		return r >= 0x80 && r < 0xA0 && r != 0x85 || r == 0xAD || r == 0x34F || r == 0x61C || r == 0x115F || r == 0x1160 ||
			r == 0x17B4 || r == 0x17B5 || r >= 0x180B && r <= 0x180F
	case r < 0x3000:
		return r >= 0x200B && r <= 0x200F || r >= 0x202A && r <= 0x202E || r >= 0x2060 && r <= 0x206F
	case r < 0x10000:
		return r == 0x3164 || r >= 0xFE00 && r <= 0xFE0F || r == 0xFEFF || r == 0xFFA0 || r >= 0xFFF0 && r <= 0xFFFB
	}
	return r >= 0x1BCA0 && r <= 0x1BCA3 || r >= 0x1D173 && r <= 0x1D17A || r >= 0xE0000 && r <= 0xE0FFF
}

// asciiFold gives the folded form of an ASCII byte; 0 is one that is left out, 0xFF one that is not ASCII.
var asciiFold = func() (t [256]byte) {
	for c := range t {
		switch {
		case c >= utf8.RuneSelf:
			t[c] = 0xFF
		case isSpace(byte(c)):
			t[c] = ' '
		case c >= 'A' && c <= 'Z':
			t[c] = byte(c) + 0x20
		case c > ' ' && c < 0x7F:
			t[c] = byte(c)
		}
	}
	return t
}()

// A folder holds the state of one folding, from a text without invisible characters.
type folder struct {
	s      string
	i, n   int // n is the length of s
	out    []byte
	space  bool // the last byte that was put out is a space
	track  bool
	m      *offsets // made when the mapping stops being the identity
	done   int      // s[:done] is entered in m
	wordTo int      // the word up to here was looked at
	mix    mixing   // and this was found
}

func (w *folder) fold() {
	for w.i < w.n {
		normal := w.n
		if w.i > 0 || !ascii(w.s) {
			normal = w.i + norm.NFKC.QuickSpanString(w.s[w.i:])
		}
		w.normal(normal)
		if w.i < w.n {
			w.segment()
		}
	}
	if w.m != nil {
		w.m.same(w.i - w.done)
	}
}

// entered makes sure that everything before byte i of s is in the map, as far as it is the identity.
func (w *folder) entered(i int) {
	if !w.track {
		return
	}
	if w.m == nil {
		w.m = newOffsets(w.n)
	}
	w.m.same(i - w.done)
	w.done = i
}

// changed records that the fl bytes put out last come from the ol bytes of s at i.
func (w *folder) changed(i, fl, ol int) {
	if w.track {
		w.entered(i)
		w.m.unit(fl, ol)
		w.done = i + ol
	}
}

// normal folds s up to byte end, which is in NFKC.
func (w *folder) normal(end int) {
	for w.i < end {
		if w.ascii(end); w.i == end {
			return
		}
		r, size := utf8.DecodeRuneInString(w.s[w.i:end])
		before := len(w.out)
		w.put(r, w.i)
		// One letter for another of the same length keeps the mapping the identity.
		if fl := len(w.out) - before; fl != size || r == 'ß' {
			w.changed(w.i, fl, size)
		}
		w.i += size
	}
}

// ascii folds ASCII bytes up to end or the first other byte.
func (w *folder) ascii(end int) {
	for w.i < end {
		to := min(end, w.i+4096)
		k := len(w.out)
		w.out = slices.Grow(w.out, to-w.i)
		buf := w.out[k : k+to-w.i]
		i, j, prev := w.i, 0, 0
		if w.space {
			prev = 1
		}
		for ; i < to; i++ {
			c := asciiFold[w.s[i]]
			sp := 0
			if c == ' ' {
				sp = 1
			}
			if sp&prev != 0 || c-1 >= 0xFE { // a further space, or a byte to drop, or not ASCII
				break
			}
			buf[j] = c
			j++
			prev = sp
		}
		w.out, w.space, w.i = w.out[:k+j], prev != 0, i
		if i < to {
			if w.s[i] >= utf8.RuneSelf {
				return
			}
			w.drop(end)
		}
	}
}

// drop leaves out the bytes from here on that put nothing out.
func (w *folder) drop(end int) {
	i := w.i
	for w.i < end && (asciiFold[w.s[w.i]] == 0 || asciiFold[w.s[w.i]] == ' ' && w.space) {
		w.i++
	}
	w.changed(i, 0, w.i-i)
}

// put puts out the folded form of r, which stands at byte i of s.
func (w *folder) put(r rune, i int) {
	if r < utf8.RuneSelf {
		c := asciiFold[r]
		if c == 0 || c == ' ' && w.space {
			return
		}
		w.out, w.space = append(w.out, c), c == ' '
		return
	}
	if r >= 0x2E80 && r < 0xA640 && r != 0x3000 { // CJK: nothing looks like it and it has no case
		w.out, w.space = utf8.AppendRune(w.out, r), false
		return
	}
	if wideSpace(r) {
		if !w.space {
			w.out, w.space = append(w.out, ' '), true
		}
		return
	}
	if r == 0x34F { // norm puts it into very long runs of accents
		return
	}
	w.space = false
	if r >= firstDouble && r < lastDouble {
		d := doubles[r-firstDouble]
		if d.latin != 0 && i >= w.wordTo {
			w.mix, w.wordTo = mixed(w.s, i)
		}
		if d.latin != 0 && (w.mix == latinMixed || w.mix == allDoubles && d.both) {
			w.out = append(w.out, d.latin)
			return
		}
	} else if c := sign(r); c != 0 {
		w.out = append(w.out, c)
		return
	}
	switch r {
	case 'ß', 'ẞ':
		w.out = append(w.out, "ss"...)
	case 'ς':
		w.out = append(w.out, "σ"...)
	case 'İ':
		w.out = append(w.out, 'i')
	default:
		w.out = utf8.AppendRune(w.out, lower(r))
	}
}

// lower is unicode.ToLower with a short way for the letters that are many.
func lower(r rune) rune {
	switch {
	case r >= 0x410 && r < 0x430:
		return r + 0x20
	case r >= 0x430 && r < 0x460, r >= 0xDF && r <= 0xFF, r >= 0x3B1 && r <= 0x3C9:
		return r
	case r >= 0xC0 && r < 0xDF && r != 0xD7:
		return r + 0x20
	}
	return unicode.ToLower(r)
}

// wideSpace reports whether r is white space beyond ASCII, or the blank Braille pattern.
func wideSpace(r rune) bool {
	switch r {
	case 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x2800, 0x3000:
		return true
	}
	return r >= 0x2000 && r <= 0x200A
}

// segment folds the piece of s at w.i that is not in NFKC: a character with what combines with it. It does not use
// norm.Iter, which panics on some invalid UTF-8 (x/text 0.43).
func (w *folder) segment() {
	i := w.i
	p := norm.NFKC.PropertiesString(w.s[i:])
	n := max(norm.NFKC.NextBoundaryInString(w.s[i:], true), 1)
	part := p.Decomposition()
	if p.Size() != n || !plain(part) { // the way that allocates
		var room [64]byte
		part = norm.NFKC.AppendString(room[:0], w.s[i:i+n])
	}
	before := len(w.out)
	for len(part) > 0 {
		r, size := utf8.DecodeRune(part)
		w.put(r, i)
		part = part[size:]
	}
	w.changed(i, len(w.out)-before, n)
	w.i = i + n
}

// plain reports whether nothing in a full decomposition can be put together again: ASCII, or a single character.
func plain(part []byte) bool {
	_, size := utf8.DecodeRune(part)
	if size == len(part) {
		return size > 0
	}
	for _, c := range part {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
