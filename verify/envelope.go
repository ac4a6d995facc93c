package verify

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// MaxEnvelope is the largest envelope, in bytes (rule E1).
const MaxEnvelope = 4096

// A RuleError says which rule of docs/format.md section 1 an envelope breaks.
type RuleError struct {
	Rule string // "E1" … "E11"
	Msg  string
}

func (e *RuleError) Error() string { return e.Msg + " (rule " + e.Rule + ")" }

// ParseEnvelope reads an envelope by the rules of docs/format.md. An error is a *RuleError.
func ParseEnvelope(b []byte) (*Envelope, error) {
	e := new(Envelope)
	p := reader{s: string(b), env: e, full: true}
	if err := p.envelope(); err != nil {
		return nil, err
	}
	return e, nil
}

// reader walks an envelope from left to right. The order of members is fixed, so nothing is looked up and nothing is
// read twice. Strings of the result share the memory of s.
type reader struct {
	s    string
	i    int
	env  *Envelope
	full bool // build the attributes, links and actor too, not only the id and the content
}

// timeLayout is the only spelling of time that the format knows.
const timeLayout = "2006-01-02T15:04:05.000000Z"

func broken(rule, format string, args ...any) error {
	return &RuleError{rule, fmt.Sprintf(format, args...)}
}

func (p *reader) envelope() error {
	if len(p.s) > MaxEnvelope {
		return broken("E1", "the envelope has %d bytes, %d are allowed", len(p.s), MaxEnvelope)
	}
	if !utf8.ValidString(p.s) {
		return broken("E1", "the envelope is not valid UTF-8")
	}
	if err := p.head(); err != nil {
		return err
	}
	for _, m := range [...]struct {
		name string
		read func() error
	}{{"actor", p.actor}, {"links", p.links}, {"attrs", p.attrs}, {"content", p.content}} {
		if !p.accept(`,"` + m.name + `":`) {
			continue
		}
		if err := m.read(); err != nil {
			return err
		}
	}
	if p.accept("}") {
		if p.i != len(p.s) {
			return broken("E2", "something follows the object at byte %d", p.i)
		}
		return nil
	}
	return p.rest()
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
	for i, name := range [...]string{"id", "tenant", "kind", "time", "nonce", "schema"} {
		sep := ","
		if i == 0 {
			sep = ""
		}
		if !p.accept(sep + `"` + name + `":`) {
			return broken("E4", "member %s is missing or out of order at byte %d", name, p.i)
		}
		var err error
		if f[i], err = p.str(); err != nil {
			return err
		}
	}
	id, err := fairlead.ParseID(f[0])
	if err != nil {
		return broken("E6", "%v", err)
	}
	if !validTenant(f[1]) || !validKind(f[2]) {
		return broken("E7", "%.40q or %.60q is not a tenant and a kind", f[1], f[2])
	}
	if len(f[3]) != len(timeLayout) {
		return broken("E8", "%.40q is not a time in microseconds, UTC", f[3])
	}
	if p.full {
		t, err := time.Parse(timeLayout, f[3])
		if err != nil {
			return broken("E8", "%.40q is not a time: %v", f[3], err)
		}
		p.env.Time = t
	} else if !plausibleTime(f[3]) {
		return broken("E8", "%.40q is not a time", f[3])
	}
	if n, err := base64.RawURLEncoding.Strict().Decode(p.env.Nonce[:], []byte(f[4])); err != nil || n != 16 || len(f[4]) != 22 {
		return broken("E9", "the nonce is not 16 bytes of base64url")
	}
	if !validWord(f[5], "._/-") || len(f[5]) > 64 {
		return broken("E10", "%.80q is not a schema name", f[5])
	}
	p.env.ID, p.env.Tenant, p.env.Kind, p.env.Schema = id, f[1], fairlead.Kind(f[2]), f[5]
	return nil
}

// plausibleTime is the check of E8 without building a time: right digits in right places and a real date.
func plausibleTime(s string) bool {
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
	if month < 1 || month > 12 || day < 1 || two(11) > 23 || two(14) > 59 || two(17) > 59 {
		return false
	}
	if day <= 28 {
		return true
	}
	return day <= time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// rest checks the members that this version does not know: any JSON without white space, no name twice.
func (p *reader) rest() error {
	if p.i >= len(p.s) || p.s[p.i] != ',' {
		return broken("E2", "the object goes wrong at byte %d", p.i)
	}
	b := []byte(p.s)
	if err := wire.Check(b, wire.Limits{Depth: 6}); err != nil {
		if strings.Contains(err.Error(), "member") || strings.Contains(err.Error(), "deep") || strings.Contains(err.Error(), "level") {
			return broken("E3", "%v", err)
		}
		return broken("E2", "%v", err)
	}
	inString := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			return broken("E2", "white space at byte %d", i)
		}
	}
	known := map[string]bool{"v": true, "id": true, "tenant": true, "kind": true, "time": true, "nonce": true, "schema": true,
		"actor": true, "links": true, "attrs": true, "content": true}
	for name, v := range wire.Root(b).Members() {
		if s := v.Span(); s.Start > p.i && known[name.String()] {
			return broken("E4", "member %s is out of order", name)
		}
		if err := integers(v); err != nil {
			return err
		}
	}
	return nil
}

// integers checks E11 in a member that is not known otherwise.
func integers(v wire.Value) error {
	switch v.Kind() {
	case '0':
		p := reader{s: string(v.Raw())}
		if _, err := p.int(); err != nil || p.i != len(p.s) {
			return broken("E11", "%.40q is not an integer within 2^53", v.Raw())
		}
	case '[':
		for e := range v.Elements() {
			if err := integers(e); err != nil {
				return err
			}
		}
	case '{':
		for _, e := range v.Members() {
			if err := integers(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *reader) accept(lit string) bool {
	if strings.HasPrefix(p.s[p.i:], lit) {
		p.i += len(lit)
		return true
	}
	return false
}

// str reads a string. Most have nothing to unescape and share memory with the envelope.
func (p *reader) str() (string, error) {
	if !p.accept(`"`) {
		return "", broken("E2", "a string is expected at byte %d", p.i)
	}
	for j := p.i; j < len(p.s); j++ {
		switch c := p.s[j]; {
		case c == '"':
			s := p.s[p.i:j]
			p.i = j + 1
			return s, nil
		case c == '\\':
			return p.escaped(j)
		case c < 0x20:
			return "", broken("E2", "a control character stands in the string at byte %d", j)
		}
	}
	return "", broken("E2", "the string at byte %d does not end", p.i)
}

// escaped reads on a string whose first backslash is at j.
func (p *reader) escaped(j int) (string, error) {
	for ; j < len(p.s) && p.s[j] != '"'; j++ {
		if p.s[j] == '\\' {
			j++
		}
	}
	if j >= len(p.s) {
		return "", broken("E2", "the string at byte %d does not end", p.i)
	}
	lit := []byte(p.s[p.i-1 : j+1])
	if err := wire.Check(lit, wire.Limits{}); err != nil {
		return "", broken("E2", "the string at byte %d: %v", p.i, err)
	}
	p.i = j + 1
	return wire.Root(lit).Text(), nil
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
	if err != nil || n >= 1<<53 || n <= -1<<53 || len(digits) > 1 && digits[0] == '0' || digits == "0" && first > p.i {
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

func (p *reader) open(bracket string) error {
	if !p.accept(bracket) {
		return broken("E2", "%s is expected at byte %d", bracket, p.i)
	}
	return nil
}

func (p *reader) actor() error {
	if err := p.open("{"); err != nil {
		return err
	}
	a := &p.env.Actor
	sep := ""
	for _, f := range [...]struct {
		name  string
		facet *fairlead.Facet
	}{{"app", &a.App}, {"user", &a.User}, {"agent", &a.Agent}} {
		if !p.accept(sep + `"` + f.name + `":{`) {
			continue
		}
		sep = ","
		if err := p.facet(f.facet); err != nil {
			return err
		}
	}
	if p.accept(sep + `"chain":[`) {
		err := p.list("]", func() error {
			s, err := p.str()
			a.Chain = append(a.Chain, s)
			return err
		})
		if err != nil {
			return err
		}
	}
	return p.open("}")
}

func (p *reader) facet(f *fairlead.Facet) error {
	var assurance string
	sep := ""
	for _, m := range [...]struct {
		name string
		to   *string
	}{{"v", &f.Value}, {"a", &assurance}, {"m", &f.Method}, {"i", &f.Issuer}} {
		if !p.accept(sep + `"` + m.name + `":`) {
			continue
		}
		sep = ","
		var err error
		if *m.to, err = p.str(); err != nil {
			return err
		}
	}
	f.Assurance = fairlead.Assurance(assurance)
	if !validAssurance(f.Assurance) {
		return broken("E4", "%.20q is not an assurance", assurance)
	}
	return p.open("}")
}

func (p *reader) links() error {
	if err := p.open("["); err != nil {
		return err
	}
	return p.list("]", func() error {
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
		to, err := fairlead.ParseID(f[1])
		if err != nil {
			return broken("E6", "%v", err)
		}
		if !validAssurance(fairlead.Assurance(f[2])) {
			return broken("E4", "%.20q is not an assurance", f[2])
		}
		if p.full {
			p.env.Links = append(p.env.Links, fairlead.Link{Rel: fairlead.Relation(f[0]), To: to, Assurance: fairlead.Assurance(f[2])})
		}
		return p.open("}")
	})
}

func (p *reader) attrs() error {
	if err := p.open("{"); err != nil {
		return err
	}
	var names [64]string
	n := 0
	return p.list("}", func() error {
		name, err := p.str()
		if err != nil {
			return err
		}
		if n == len(names) {
			return broken("E3", "more than %d attributes", len(names))
		}
		for _, other := range names[:n] {
			if other == name {
				return broken("E3", "attribute %.60q stands twice", name)
			}
		}
		names[n] = name
		n++
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

func (p *reader) attrValue() (any, error) {
	if p.i >= len(p.s) {
		return nil, broken("E2", "the envelope ends within its attributes")
	}
	switch c := p.s[p.i]; {
	case c == '"':
		s, err := p.str()
		if !p.full {
			return nil, err // boxing a string costs an allocation
		}
		return s, err
	case c == '[':
		p.i++
		list := []string{}
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
	}
	n, err := p.int()
	if !p.full {
		return nil, err
	}
	return n, err
}

func (p *reader) content() error {
	if err := p.open("["); err != nil {
		return err
	}
	return p.list("]", func() error {
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
		}{{`,"blob":`, &c.Blob}, {`,"scope":`, &c.Scope}, {`,"bytes":`, &c.Bytes}} {
			if !p.accept(m.lit) {
				return broken("E4", "%s is expected at byte %d", m.lit, p.i)
			}
			if *m.to, err = p.int(); err != nil {
				return err
			}
			if *m.to < 0 {
				return broken("E11", "a negative number stands before byte %d", p.i)
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
		return p.open("}")
	})
}

// digestLen is the length of 32 bytes in base64url without padding.
const digestLen = 43

func (p *reader) digest(d *fairlead.Digest) bool {
	if len(p.s)-p.i <= digestLen || p.s[p.i+digestLen] != '"' {
		return false
	}
	var src [digestLen]byte
	copy(src[:], p.s[p.i:])
	n, err := base64.RawURLEncoding.Strict().Decode(d[:], src[:])
	p.i += digestLen + 1
	return err == nil && n == len(d)
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

// AppendEnvelope writes f as an envelope. It fails if the result would break a rule, so that nothing can be recorded
// that no reader would accept.
func AppendEnvelope(dst []byte, f *fairlead.Fact, schema string, nonce [16]byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, `{"v":1,"id":"`...)
	dst = append(dst, f.ID.String()...)
	dst = append(dst, `","tenant":"`...)
	dst = append(dst, f.Tenant...)
	dst = append(dst, `","kind":"`...)
	dst = append(dst, f.Kind...)
	dst = append(dst, `","time":"`...)
	dst = f.Time.UTC().AppendFormat(dst, timeLayout)
	dst = append(dst, `","nonce":"`...)
	dst = base64.RawURLEncoding.AppendEncode(dst, nonce[:])
	dst = append(dst, `","schema":"`...)
	dst = append(dst, schema...)
	dst = append(dst, '"')
	if !f.Actor.IsZero() {
		dst = appendActor(append(dst, `,"actor":`...), &f.Actor)
	}
	for i, l := range f.Links {
		dst = append(dst, [...]string{`,"links":[`, `,`}[min(i, 1)]...)
		dst = wire.AppendQuote(append(dst, `{"rel":`...), string(l.Rel))
		dst = append(append(dst, `,"to":"`...), l.To.String()...)
		dst = append(append(dst, `","a":"`...), l.Assurance...)
		dst = append(dst, `"}`...)
	}
	if len(f.Links) > 0 {
		dst = append(dst, ']')
	}
	for i := range f.Attrs {
		dst = append(dst, [...]string{`,"attrs":{`, `,`}[min(i, 1)]...)
		dst = append(wire.AppendQuote(dst, f.Attrs[i].Name), ':')
		var err error
		if dst, err = appendAttr(dst, f.Attrs[i].Value); err != nil {
			return dst[:start], fmt.Errorf("attribute %s: %w", f.Attrs[i].Name, err)
		}
	}
	if len(f.Attrs) > 0 {
		dst = append(dst, '}')
	}
	for i := range f.Content {
		dst = append(dst, [...]string{`,"content":[`, `,`}[min(i, 1)]...)
		dst = appendContent(dst, &f.Content[i])
	}
	if len(f.Content) > 0 {
		dst = append(dst, ']')
	}
	dst = append(dst, '}')
	p := reader{s: string(dst[start:]), env: new(Envelope)}
	if err := p.envelope(); err != nil {
		return dst[:start], fmt.Errorf("fact %s of kind %s cannot be written: %w", f.ID, f.Kind, err)
	}
	return dst, nil
}

func appendActor(dst []byte, a *fairlead.Actor) []byte {
	dst = append(dst, '{')
	sep := ""
	for _, f := range [...]struct {
		name  string
		facet *fairlead.Facet
	}{{"app", &a.App}, {"user", &a.User}, {"agent", &a.Agent}} {
		if *f.facet == (fairlead.Facet{}) {
			continue
		}
		dst = append(append(append(dst, sep...), '"'), f.name...)
		dst = append(dst, `":{`...)
		sep = ""
		for _, m := range [...]struct{ name, value string }{{"v", f.facet.Value}, {"a", string(f.facet.Assurance)},
			{"m", f.facet.Method}, {"i", f.facet.Issuer}} {
			if m.value == "" {
				continue
			}
			dst = append(append(append(append(dst, sep...), '"'), m.name...), `":`...)
			dst = wire.AppendQuote(dst, m.value)
			sep = ","
		}
		dst = append(dst, '}')
		sep = ","
	}
	for i, s := range a.Chain {
		if i == 0 {
			dst = append(append(dst, sep...), `"chain":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = wire.AppendQuote(dst, s)
	}
	if len(a.Chain) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func appendAttr(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return wire.AppendQuote(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case []string:
		dst = append(dst, '[')
		for i, s := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = wire.AppendQuote(dst, s)
		}
		return append(dst, ']'), nil
	}
	return dst, fmt.Errorf("a value of type %T has no form in an envelope", v)
}

func appendContent(dst []byte, c *fairlead.Content) []byte {
	dst = wire.AppendQuote(append(dst, `{"name":`...), c.Name)
	dst = strconv.AppendInt(append(dst, `,"blob":`...), c.Blob, 10)
	dst = strconv.AppendInt(append(dst, `,"scope":`...), c.Scope, 10)
	dst = strconv.AppendInt(append(dst, `,"bytes":`...), c.Bytes, 10)
	dst = base64.RawURLEncoding.AppendEncode(append(dst, `,"address":"`...), c.Address[:])
	dst = base64.RawURLEncoding.AppendEncode(append(dst, `","sealed":"`...), c.Sealed[:])
	return append(dst, `"}`...)
}
