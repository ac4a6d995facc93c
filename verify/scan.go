package verify

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
)

// Limits of rule E3.
const (
	maxMembers = 64
	maxNesting = 6
)

// reader walks an envelope from left to right. The order of members is fixed and every value has one spelling, so
// nothing is looked up and nothing is read twice. Strings of the result share the memory of s. A reader may be used
// again: then what it put into env before is gone.
type reader struct {
	s       string
	i       int
	env     Envelope
	full    bool   // build the time, actor, links and attributes too, not only the id and the content
	escapes bool   // a backslash occurs somewhere
	hour    string // the time down to the hour
}

// read checks an envelope and fills p.env.
func (p *reader) read(b []byte) error {
	if len(b) > MaxEnvelope {
		return broken("E1", "the envelope has %d bytes, %d are allowed", len(b), MaxEnvelope)
	}
	control, ascii := survey(b)
	if !ascii && !utf8.Valid(b) {
		return broken("E1", "the envelope is not valid UTF-8")
	}
	if control {
		return broken("E2", "a control character stands in the envelope: white space, or one that is not escaped")
	}
	p.env = Envelope{Fact: fairlead.Fact{Content: p.env.Content[:0]}}
	p.s, p.i = string(b), 0
	p.escapes = strings.IndexByte(p.s, '\\') >= 0
	return p.envelope()
}

// survey reports whether a byte below 0x20 occurs in b, and whether all are ASCII.
func survey(b []byte) (control, ascii bool) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	var c, h uint64
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		h |= w
		c |= (w - ones*0x20) &^ w
	}
	control, ascii = c&highs != 0, h&highs == 0
	for _, x := range b {
		control = control || x < 0x20
		ascii = ascii && x < utf8.RuneSelf
	}
	return control, ascii
}

func (p *reader) accept(lit string) bool {
	if strings.HasPrefix(p.s[p.i:], lit) {
		p.i += len(lit)
		return true
	}
	return false
}

// open reads a bracket.
func (p *reader) open(bracket string) error {
	if !p.accept(bracket) {
		return broken("E2", "%s is expected at byte %d", bracket, p.i)
	}
	return nil
}

// str reads a string. Most have nothing to unescape and share memory with the envelope.
func (p *reader) str() (string, error) {
	if !p.accept(`"`) {
		return "", broken("E2", "a string is expected at byte %d", p.i)
	}
	n := strings.IndexByte(p.s[p.i:], '"')
	if n < 0 {
		return "", broken("E2", "the string at byte %d does not end", p.i)
	}
	s := p.s[p.i : p.i+n]
	if p.escapes && strings.IndexByte(s, '\\') >= 0 {
		return p.escaped()
	}
	p.i += n + 1
	return s, nil
}

// escaped reads the rest of a string that has escapes, by rule E12.
func (p *reader) escaped() (string, error) {
	var text []byte
	for i := p.i; i < len(p.s); i++ {
		c := p.s[i]
		switch {
		case c == '"':
			p.i = i + 1
			return string(text), nil
		case c != '\\':
			text = append(text, c)
			continue
		}
		e, n := unescape(p.s[i:])
		if n == 0 {
			return "", broken("E12", "the escape at byte %d is not the one spelling that is allowed", i)
		}
		text = append(text, e)
		i += n - 1
	}
	return "", broken("E2", "the string at byte %d does not end", p.i)
}

// unescape reads the escape that s starts with, and gives its length or 0.
func unescape(s string) (c byte, n int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\':
		return s[1], 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	if len(s) < 6 || s[:4] != `\u00` {
		return 0, 0
	}
	hi, lo := s[4]-'0', s[5]-'0' // of a number below 0x20
	if lo > 9 {
		if lo = s[5] - 'a' + 10; s[5] < 'a' || s[5] > 'f' {
			return 0, 0
		}
	}
	if c = hi<<4 | lo; hi > 1 || c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t' {
		return 0, 0
	}
	return c, 6
}

// int reads an integer by E11.
func (p *reader) int() (int64, error) {
	j := p.i
	if j < len(p.s) && p.s[j] == '-' {
		j++
	}
	first := j
	for j < len(p.s) && p.s[j] >= '0' && p.s[j] <= '9' {
		j++
	}
	digits := p.s[first:j]
	n, err := strconv.ParseInt(p.s[p.i:j], 10, 64)
	if err != nil || n >= 1<<53 || n <= -1<<53 || len(digits) > 1 && digits[0] == '0' || digits == "0" && first > p.i ||
		j < len(p.s) && (p.s[j] == '.' || p.s[j] == 'e' || p.s[j] == 'E') {
		return 0, broken("E11", "the number at byte %d is not an integer within 2^53", p.i)
	}
	p.i = j
	return n, nil
}

// list reads the rest of an array or object whose opening bracket was read, calling each for every element.
func (p *reader) list(end string, each func() error) error {
	if p.accept(end) {
		return nil
	}
	for {
		if err := each(); err != nil {
			return err
		}
		if p.accept(end) {
			return nil
		}
		if !p.accept(",") {
			return broken("E2", "a comma is expected at byte %d", p.i)
		}
	}
}

// some is list for what is left out when it is empty.
func (p *reader) some(end string, each func() error) error {
	if strings.HasPrefix(p.s[p.i:], end) {
		return broken("E4", "what is empty is left out, and stands at byte %d", p.i-1)
	}
	return p.list(end, each)
}

// names are those that an object has so far.
type names struct {
	list [maxMembers]string
	n    int
}

func (s *names) add(name string) error {
	if s.n == len(s.list) {
		return broken("E3", "an object has more than %d members", len(s.list))
	}
	for _, other := range s.list[:s.n] {
		if other == name {
			return broken("E3", "member %.60q stands twice", name)
		}
	}
	s.list[s.n] = name
	s.n++
	return nil
}

// rest reads the members that this version does not know.
func (p *reader) rest() error {
	if p.i >= len(p.s) || p.s[p.i] != ',' {
		return broken("E2", "the object goes wrong at byte %d", p.i)
	}
	p.i++
	seen := new(names)
	for _, known := range [...]string{"v", "id", "tenant", "kind", "time", "nonce", "schema", "actor", "links", "attrs", "content"} {
		seen.list[seen.n] = known
		seen.n++
	}
	known := seen.n
	return p.list("}", func() error {
		at := p.i
		name, err := p.str()
		if err != nil {
			return err
		}
		for _, k := range seen.list[:known] {
			if name == k {
				return broken("E4", "member %s at byte %d is out of order, or stands twice", name, at)
			}
		}
		if !validMember(name) {
			return broken("E4", "%.60q at byte %d is not a name that a later version may use", name, at)
		}
		if err := seen.add(name); err != nil {
			return err
		}
		return p.member(2)
	})
}

// validMember reports whether a later version may call a member of the envelope so. Small letters only: a reader that
// ignores case must not take one for a member that it knows.
func validMember(s string) bool {
	if s == "" || len(s) > 32 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// member reads a colon and any value; a container there is the level-th.
func (p *reader) member(level int) error {
	if err := p.open(":"); err != nil {
		return err
	}
	return p.any(level)
}

// any reads any value of which this version knows nothing.
func (p *reader) any(level int) error {
	if p.i >= len(p.s) {
		return broken("E2", "the envelope ends where a value is expected")
	}
	c := p.s[p.i]
	if (c == '{' || c == '[') && level > maxNesting {
		return broken("E3", "the envelope is nested more than %d levels deep at byte %d", maxNesting, p.i)
	}
	switch {
	case c == '"':
		_, err := p.str()
		return err
	case c == '[':
		p.i++
		return p.list("]", func() error { return p.any(level + 1) })
	case c == '{':
		p.i++
		seen := new(names)
		return p.list("}", func() error {
			name, err := p.str()
			if err != nil {
				return err
			}
			if err := seen.add(name); err != nil {
				return err
			}
			return p.member(level + 1)
		})
	case p.accept("true"), p.accept("false"), p.accept("null"):
		return nil
	case c == '-' || c >= '0' && c <= '9':
		_, err := p.int()
		return err
	}
	return broken("E2", "a value is expected at byte %d", p.i)
}

// strictURL decodes base64url. It skips line breaks, like all decoders of encoding/base64: compare lengths.
var strictURL = base64.RawURLEncoding.Strict()

// digestLen is the length of 32 bytes in base64url without padding.
const digestLen = 43

func (p *reader) digest(d *fairlead.Digest) bool {
	if len(p.s)-p.i <= digestLen || p.s[p.i+digestLen] != '"' {
		return false
	}
	var src [digestLen]byte
	copy(src[:], p.s[p.i:])
	n, err := strictURL.Decode(d[:], src[:])
	p.i += digestLen + 1
	return err == nil && n == len(d)
}

// strictBase64 decodes base64 that has one spelling: what encoding/base64 tolerates inside, line breaks, is refused.
func strictBase64(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return b, err == nil && base64.StdEncoding.EncodedLen(len(b)) == len(s)
}
