package verify

import (
	"fmt"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
)

// MaxEnvelope is the largest envelope, in bytes (rule E1).
const MaxEnvelope = 4096

// A RuleError says which rule of docs/format.md section 1 an envelope breaks.
type RuleError struct {
	Rule string // "E1" … "E12"
	Msg  string
}

func (e *RuleError) Error() string { return e.Msg + " (rule " + e.Rule + ")" }

// ParseEnvelope reads an envelope by the rules of docs/format.md. An error is a *RuleError.
func ParseEnvelope(b []byte) (*Envelope, error) {
	p := reader{full: true}
	if err := p.read(b); err != nil {
		return nil, err
	}
	return &p.env, nil
}

// timeLayout is the only spelling of time that the format knows.
const timeLayout = "2006-01-02T15:04:05.000000Z"

func broken(rule, format string, args ...any) error {
	return &RuleError{rule, fmt.Sprintf(format, args...)}
}

func (p *reader) envelope() error {
	if err := p.head(); err != nil {
		return err
	}
	if p.accept(`,"actor":`) {
		if err := p.actor(); err != nil {
			return err
		}
	}
	if p.accept(`,"links":`) {
		if err := p.links(); err != nil {
			return err
		}
	}
	if p.accept(`,"attrs":`) {
		if err := p.attrs(); err != nil {
			return err
		}
	}
	if p.accept(`,"content":`) {
		if err := p.content(); err != nil {
			return err
		}
	}
	if !p.accept("}") {
		if err := p.rest(); err != nil {
			return err
		}
	}
	if p.i != len(p.s) {
		return broken("E2", "something follows the object at byte %d", p.i)
	}
	return nil
}

// head reads the seven required members.
func (p *reader) head() error {
	if !p.accept("{") {
		return broken("E2", "the envelope does not start with an object")
	}
	if !p.accept(`"v":`) {
		return broken("E4", "the first member is not v")
	}
	if !p.accept(`1,`) {
		return broken("E5", "the version is not 1")
	}
	var f [6]string
	for i, lit := range [...]string{`"id":`, `,"tenant":`, `,"kind":`, `,"time":`, `,"nonce":`, `,"schema":`} {
		if !p.accept(lit) {
			return broken("E4", "%s is missing or out of order at byte %d", lit, p.i)
		}
		var err error
		if f[i], err = p.str(); err != nil {
			return err
		}
	}
	e := &p.env
	var ok bool
	if e.ID, ok = parseID(f[0]); !ok {
		return broken("E6", "%.80q is not an id", f[0])
	}
	if !validTenant(f[1]) || !validKind(f[2]) {
		return broken("E7", "%.40q or %.60q is not a tenant and a kind", f[1], f[2])
	}
	if !validTime(f[3]) {
		return broken("E8", "%.40q is not a time in microseconds, UTC", f[3])
	}
	if len(f[4]) != 22 {
		return broken("E9", "the nonce is not 22 characters long")
	}
	var nonce [22]byte
	copy(nonce[:], f[4])
	if n, err := strictURL.Decode(e.Nonce[:], nonce[:]); err != nil || n != len(e.Nonce) {
		return broken("E9", "the nonce is not 16 bytes of base64url")
	}
	if !validWord(f[5], "._/-") || len(f[5]) > 64 {
		return broken("E10", "%.80q is not a schema name", f[5])
	}
	if p.full {
		t, err := time.Parse(timeLayout, f[3])
		if err != nil {
			return broken("E8", "%.40q is not a time: %v", f[3], err)
		}
		e.Time = t
	}
	p.hour = f[3][:len("2006-01-02T15")]
	e.Tenant, e.Kind, e.Schema = f[1], fairlead.Kind(f[2]), f[5]
	return nil
}

// parseID is fairlead.ParseID without its allocations.
func parseID(s string) (fairlead.ID, bool) {
	const boot, digits = 13, 19 // of 2^63-1
	if len(s) < boot+2 || len(s) > boot+1+digits || s[boot] != '-' || s[boot+1] == '0' {
		return fairlead.ID{}, false
	}
	for i := range boot {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return fairlead.ID{}, false
		}
	}
	var n uint64
	for _, c := range []byte(s[boot+1:]) {
		if c < '0' || c > '9' {
			return fairlead.ID{}, false
		}
		n = n*10 + uint64(c-'0') // 19 digits stay below 2^64
	}
	return fairlead.ID{Boot: s[:boot], N: n}, n < 1<<63
}

// validTime checks E8: right digits in right places, and a real date. time.Parse would also take a comma.
func validTime(s string) bool {
	if len(s) != len(timeLayout) {
		return false
	}
	for i := range len(timeLayout) {
		if c := timeLayout[i]; c >= '0' && c <= '9' {
			if s[i] < '0' || s[i] > '9' {
				return false
			}
		} else if s[i] != c {
			return false
		}
	}
	two := func(i int) int { return int(s[i]-'0')*10 + int(s[i+1]-'0') }
	year, month, day := two(0)*100+two(2), two(5), two(8)
	if year < 1 || month < 1 || month > 12 || day < 1 || two(11) > 23 || two(14) > 59 || two(17) > 59 {
		return false
	}
	if day <= 28 {
		return true
	}
	return day <= time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

func (p *reader) actor() error {
	if err := p.open("{"); err != nil {
		return err
	}
	start := p.i
	a := &p.env.Actor
	if p.accept(`"app":`) {
		if err := p.facet(&a.App); err != nil {
			return err
		}
	}
	if p.next(start, `"user":`) {
		if err := p.facet(&a.User); err != nil {
			return err
		}
	}
	if p.next(start, `"agent":`) {
		if err := p.facet(&a.Agent); err != nil {
			return err
		}
	}
	if p.next(start, `"chain":[`) {
		err := p.some("]", func() error {
			s, err := p.str()
			if p.full {
				a.Chain = append(a.Chain, s)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return p.closed(start)
}

// next reads the name of an optional member of the object that started at start, with the comma before it.
func (p *reader) next(start int, lit string) bool {
	at := p.i
	if p.i != start && !p.accept(",") {
		return false
	}
	if !p.accept(lit) {
		p.i = at
		return false
	}
	return true
}

// closed reads the end of an object that may not be empty.
func (p *reader) closed(start int) error {
	if p.i == start || !p.accept("}") {
		return broken("E4", "the object at byte %d has a member that is unknown, out of order or twice, or none, at byte %d", start-1, p.i)
	}
	return nil
}

func (p *reader) facet(f *fairlead.Facet) error {
	if err := p.open("{"); err != nil {
		return err
	}
	start := p.i
	var assurance string
	for _, m := range [...]struct {
		lit string
		to  *string
	}{{`"v":`, &f.Value}, {`"a":`, &assurance}, {`"m":`, &f.Method}, {`"i":`, &f.Issuer}} {
		if !p.next(start, m.lit) {
			continue
		}
		var err error
		if *m.to, err = p.str(); err != nil {
			return err
		}
		if *m.to == "" {
			return broken("E4", "what is empty is left out, and stands before byte %d", p.i)
		}
	}
	if f.Assurance = fairlead.Assurance(assurance); !validAssurance(f.Assurance) {
		return broken("E4", "%.20q is not an assurance", assurance)
	}
	return p.closed(start)
}

func (p *reader) links() error {
	if err := p.open("["); err != nil {
		return err
	}
	return p.some("]", func() error {
		var f [3]string
		for i, lit := range [...]string{`{"rel":`, `,"to":`, `,"a":`} {
			if !p.accept(lit) {
				return broken("E4", "a link has rel, to and a: %s is expected at byte %d", lit, p.i)
			}
			var err error
			if f[i], err = p.str(); err != nil {
				return err
			}
		}
		to, ok := parseID(f[1])
		if !ok {
			return broken("E6", "%.80q is not an id", f[1])
		}
		if f[0] == "" || !validAssurance(fairlead.Assurance(f[2])) {
			return broken("E4", "%.20q and %.20q are not a relation and an assurance", f[0], f[2])
		}
		if p.full {
			p.env.Links = append(p.env.Links, fairlead.Link{Rel: fairlead.Relation(f[0]), To: to, Assurance: fairlead.Assurance(f[2])})
		}
		return p.end()
	})
}

// end reads the end of an object all of whose members are required.
func (p *reader) end() error {
	if !p.accept("}") {
		return broken("E4", "the end of the object is expected at byte %d", p.i)
	}
	return nil
}

func (p *reader) attrs() error {
	if err := p.open("{"); err != nil {
		return err
	}
	var seen names
	return p.some("}", func() error {
		name, err := p.str()
		if err != nil {
			return err
		}
		if err := seen.add(name); err != nil {
			return err
		}
		if err := p.open(":"); err != nil {
			return err
		}
		v, err := p.attrValue()
		if err == nil && p.full {
			p.env.Attrs = append(p.env.Attrs, fairlead.Attr{Name: name, Value: v})
		}
		return err
	})
}

// attrValue reads the value of an attribute. Unless p.full it gives nil: boxing costs an allocation.
func (p *reader) attrValue() (any, error) {
	if p.i >= len(p.s) {
		return nil, broken("E2", "the envelope ends within its attributes")
	}
	switch c := p.s[p.i]; {
	case c == '"':
		s, err := p.str()
		if !p.full {
			return nil, err
		}
		return s, err
	case c == '[':
		p.i++
		var list []string
		if p.full {
			list = []string{}
		}
		err := p.list("]", func() error {
			s, err := p.str()
			if p.full {
				list = append(list, s)
			}
			return err
		})
		return list, err
	case p.accept("true"):
		return true, nil
	case p.accept("false"):
		return false, nil
	case c == '-' || c >= '0' && c <= '9':
		n, err := p.int()
		if !p.full {
			return nil, err
		}
		return n, err
	}
	return nil, broken("E4", "an attribute is a string, a number, true, false or an array of strings: what stands at byte %d is not", p.i)
}

func (p *reader) content() error {
	if err := p.open("["); err != nil {
		return err
	}
	return p.some("]", func() error {
		var c fairlead.Content
		var err error
		if !p.accept(`{"name":`) {
			return broken("E4", "content has name, blob, scope, bytes, address and sealed: name is expected at byte %d", p.i)
		}
		if c.Name, err = p.str(); err != nil {
			return err
		}
		for _, m := range [...]struct {
			lit string
			to  *int64
			min int64
		}{{`,"blob":`, &c.Blob, 1}, {`,"scope":`, &c.Scope, 1}, {`,"bytes":`, &c.Bytes, 0}} {
			if !p.accept(m.lit) {
				return broken("E4", "%s is expected at byte %d", m.lit, p.i)
			}
			if *m.to, err = p.int(); err != nil {
				return err
			}
			if *m.to < m.min {
				return broken("E11", "the number before byte %d is below %d", p.i, m.min)
			}
		}
		for _, m := range [...]struct {
			lit string
			to  *fairlead.Digest
		}{{`,"address":"`, &c.Address}, {`,"sealed":"`, &c.Sealed}} {
			if !p.accept(m.lit) || !p.digest(m.to) {
				return broken("E4", "%s… is expected before byte %d, 32 bytes of base64url", m.lit, p.i)
			}
		}
		p.env.Content = append(p.env.Content, c)
		return p.end()
	})
}

func validAssurance(a fairlead.Assurance) bool {
	switch a {
	case fairlead.Verified, fairlead.Attested, fairlead.Derived, fairlead.Declared, fairlead.Ambiguous, fairlead.Absent:
		return true
	}
	return false
}

func validTenant(s string) bool {
	if s == "" || len(s) > 32 || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// validWord reports whether s is letters, digits and the marks, and not empty.
func validWord(s, marks string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(marks, c) < 0 {
			return false
		}
	}
	return s != ""
}

func validKind(s string) bool {
	name, version, ok := strings.Cut(s, "/")
	if !ok || version == "" || version[0] == '0' || len(version) > 4 || strings.Trim(version, "0123456789") != "" {
		return false
	}
	if name == "" || name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
