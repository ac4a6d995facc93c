package flow

import (
	"strings"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/internal/text"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// A shape is what sort of value an argument is.
type shape uint8

const (
	shapeWord   shape = iota // a few words, a name
	shapeShort               // too short, or too common, to say where it is from: "1", "me", "true"
	shapeNumber              // a number of at least four digits
	shapeDate
	shapeID    // names something outside: an address, a link, an account, a path
	shapeProse // free text
)

// A value is one leaf of a call's arguments.
type value struct {
	path, raw string
	folded    string
	shape     shape
	forms     []string // how it may be written, folded; the first is folded itself
	decoded   []string // what it says once encodings in it are undone, folded
	hosts     []string // of a link: what it begins with, without its query, and its host
	within    bool     // a name within free text, of which the text itself is another value
	rest      bool     // stands for values that were too many to look at
}

const (
	proseLen  = 80  // bytes from which a value is free text
	keptValue = 400 // bytes of a value that Argument.Value gives
	nestDepth = 4   // how many times JSON may stand in a string
)

// leaves gives the values of a call's arguments in their order.
func leaves(arguments string) []value {
	w := walker{}
	src := []byte(strings.TrimSpace(arguments))
	switch {
	case len(src) == 0:
	case wire.Check(src, wire.Limits{}) == nil:
		w.walk("", wire.Root(src), 0)
	default:
		w.leaf("", arguments)
	}
	return w.out
}

type walker struct {
	out  []value
	full bool
}

func (w *walker) walk(path string, v wire.Value, depth int) {
	if w.full {
		return
	}
	switch v.Kind() {
	case '{':
		for n, m := range v.Members() {
			name := n.String()
			if len(name) > 100 {
				name = name[:100]
			}
			if path != "" {
				name = path + "." + name
			}
			w.walk(name, m, depth)
		}
	case '[':
		for e := range v.Elements() { // all elements are under the path of the array
			w.walk(path, e, depth)
		}
	case '"':
		s := v.Text()
		if k := strings.IndexAny(s, "{["); k >= 0 && depth < nestDepth && len(s)-k > 2 {
			inner := []byte(strings.TrimSpace(s[k:]))
			if c := inner[len(inner)-1]; (c == '}' || c == ']') && wire.Check(inner, wire.Limits{}) == nil {
				w.leaf(path, s[:k])
				w.walk(path, wire.Root(inner), depth+1)
				return
			}
		}
		w.leaf(path, s)
	case '0':
		w.leaf(path, string(v.Raw()))
	}
}

func (w *walker) leaf(path, s string) {
	if strings.TrimSpace(s) == "" || w.full {
		return
	}
	if len(w.out) == MaxValues {
		w.full = true
		w.out = append(w.out, value{path: path, rest: true})
		return
	}
	v := value{path: path, raw: s}
	v.folded = strings.TrimSpace(string(text.AppendFold(nil, s[:min(len(s), MaxText)])))
	if v.folded == "" {
		return
	}
	v.shape = shapeOf(v.folded)
	v.forms = forms(v.folded, v.shape)
	if len(s) >= 12 {
		for _, d := range text.Decoded(s[:min(len(s), 1<<16)]) {
			if t := strings.TrimSpace(string(text.AppendFold(nil, d.Text))); len(t) >= 4 && t != v.folded && len(v.decoded) < 8 {
				v.decoded = append(v.decoded, t)
			}
		}
	}
	v.hosts = hosts(v.folded, v.shape)
	w.out = append(w.out, v)
	switch {
	case v.shape == shapeProse:
		w.names(path, s[:min(len(s), 1<<16)], false)
	case strings.ContainsAny(s, "@/.") && strings.ContainsAny(s, " ,;<=") && (v.shape == shapeWord || strings.Contains(s, "@")):
		w.names(path, s, true) // "Eve <eve@example.org>, bob@example.org"
	}
}

// hosts gives what of a link says where it leads.
func hosts(s string, sh shape) []string {
	if sh != shapeID || !isLink(s) {
		return nil
	}
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	s = strings.TrimPrefix(s, "www.")
	var out []string
	if k := strings.IndexAny(s, "?#"); k > 0 {
		s = s[:k]
		out = append(out, strings.TrimRight(s, "/"))
	}
	if k := strings.IndexByte(s, '/'); k > 0 {
		out = append(out, s[:k])
	}
	return out
}

// maxNames is how many links and addresses within one text are traced by themselves.
const maxNames = 32

// names adds the links in a text, and with mail the addresses.
func (w *walker) names(path, s string, mail bool) {
	n := 0
	for _, sp := range text.Identifiers(s) {
		v := value{path: path, raw: s[sp.Start:sp.End], within: !mail, shape: shapeID}
		v.folded = string(text.AppendFold(nil, v.raw))
		if !isLink(v.folded) && !(mail && strings.Contains(v.folded, "@")) {
			continue
		}
		if n++; n > maxNames || len(w.out) >= MaxValues {
			return
		}
		v.forms, v.hosts = forms(v.folded, v.shape), hosts(v.folded, v.shape)
		w.out = append(w.out, v)
	}
}

// shapeOf says what sort of value a folded text is.
func shapeOf(s string) shape {
	digits, letters, spaces, others := 0, 0, 0, 0
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9':
			digits++
		case r == ' ':
			spaces++
		case wordRune(r):
			letters++
		default:
			others++
		}
		if digits+letters+spaces+others > 2000 {
			break
		}
	}
	switch {
	case isDate(s):
		return shapeDate
	case spaces == 0 && (looksOutside(s) || digits >= 4 && letters > 0 || digits >= 6):
		return shapeID
	case letters == 0 && digits >= 4 && spaces <= 4:
		if digits >= 8 {
			return shapeID
		}
		return shapeNumber
	case len(s) >= proseLen || spaces >= 8:
		return shapeProse
	case letters < 3 || common[s]:
		return shapeShort
	}
	return shapeWord
}

// looksOutside reports whether s, without spaces, reads like an address, a link or a path.
func looksOutside(s string) bool {
	if strings.Contains(s, "://") || strings.HasPrefix(s, "@") || strings.HasPrefix(s, "#") && len(s) > 3 {
		return true
	}
	if k := strings.IndexByte(s, '@'); k > 0 && k < len(s)-2 {
		return true
	}
	if k := strings.LastIndexByte(s, '.'); k > 0 && k < len(s)-1 && len(s)-k <= 12 {
		return strings.IndexFunc(s[k+1:], func(r rune) bool { return r >= 'a' && r <= 'z' }) >= 0
	}
	return strings.Count(s, "/") > 0 && len(s) > 4 || strings.Contains(s, `\`) && len(s) > 4
}

// address reports whether a value is where something is sent to: an e-mail address, an account, a telephone number.
func (v *value) address() bool {
	return v.shape == shapeID && !isLink(v.folded) && (strings.Contains(v.folded, "@") || isAccount(v.folded))
}

// isAccount reports whether s is a telephone, card or account number, an IBAN (ISO 13616) or a wallet.
func isAccount(s string) bool {
	s = strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' || r == '(' || r == ')' || r == '+' {
			return -1
		}
		return r
	}, s)
	const digits = "0123456789"
	switch {
	case len(s) < 8 || len(s) > 64:
		return false
	case strings.Trim(s, digits) == "":
		return true
	case strings.HasPrefix(s, "0x"):
		return len(s) >= 26 && strings.Trim(s[2:], digits+"abcdef") == ""
	}
	letter := func(c byte) bool { return c >= 'a' && c <= 'z' }
	return len(s) >= 15 && len(s) <= 34 && letter(s[0]) && letter(s[1]) && digit(rune(s[2])) && digit(rune(s[3]))
}

// isLink reports whether s, without spaces, is something that a fetch would go to.
func isLink(s string) bool {
	if strings.Contains(s, "://") || strings.HasPrefix(s, "www.") || strings.HasPrefix(s, "//") {
		return true
	}
	host, rest, path := strings.Cut(s, "/")
	k := strings.LastIndexByte(host, '.')
	if k <= 0 || strings.ContainsAny(host, "@ \\") {
		return false
	}
	tld := host[k+1:]
	return strings.Trim(tld, "abcdefghijklmnopqrstuvwxyz") == "" && (domains[tld] || len(tld) == 2 && !fileTypes[tld] || len(tld) > 2 && path && rest != "" && !fileTypes[tld]) ||
		strings.Count(host, ".") == 3 && strings.Trim(host, "0123456789.:") == ""
}

// domains are the top-level domains, besides those of two letters, by which a bare name counts as that of a host.
var domains = set(`com net org info biz edu gov mil int dev app cloud online site store shop tech xyz top club live blog page link
	click website space fun icu vip pro name mobi agency digital world today news media email zone run host press example test`)

var fileTypes = set(`txt md pdf doc docx xls xlsx ppt pptx csv json jsonl xml yaml yml html htm zip tar gz rar png jpg jpeg gif svg
	mp wav avi mov py js ts go java c cpp h rs sh sql log eml ics ini cfg conf bak tmp db exe dll so`)

// isDate reports whether s is a date, a time or both, in digits.
func isDate(s string) bool {
	digits, seps := 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c == '-' || c == ':' || c == '/':
			seps++
		case c == ' ' || c == 't' || c == 'z' || c == '.' || c == '+':
		default:
			return false
		}
	}
	if digits < 3 || digits > 20 || seps == 0 || len(s) > 40 {
		return false
	}
	if strings.Count(s, ":") >= 1 {
		return true
	}
	a, rest, ok := strings.Cut(s, "-")
	if !ok {
		a, rest, ok = strings.Cut(s, "/")
	}
	return ok && (len(a) == 4 && digits == 8 && (a[0] == '1' || a[0] == '2') || len(a) <= 2 && len(rest) >= 5 && digits <= 8)
}

var common = set(`me you him her them all any none null nil true false yes default user admin everyone everybody anyone now
	today tomorrow inbox high low normal medium on off general public private read write main master self current new old
	open close asc desc the and for with market owner member guest`)

// forms gives the ways in which a value may be written elsewhere.
func forms(s string, sh shape) []string {
	out := []string{s}
	switch sh {
	case shapeID:
		t := s
		for _, scheme := range [...]string{"https://", "http://", "mailto:", "ftp://"} {
			t = strings.TrimPrefix(t, scheme)
		}
		t = strings.TrimRight(t, "/")
		bare := strings.TrimPrefix(t, "www.")
		for _, f := range [...]string{t, bare, "www." + bare} {
			if f != s && len(f) > 3 && (f == t || strings.Contains(t, ".") && !strings.Contains(t, "@")) {
				out = append(out, f)
			}
		}
		if strings.HasPrefix(s, "@") || strings.HasPrefix(s, "#") {
			out = append(out, s[1:])
		}
		if g := grouped(s); g != nil {
			out = append(out, g...)
		}
	case shapeNumber, shapeShort:
		if strings.Trim(s, "0123456789.") == "" {
			out = append(out, amounts(s)...)
		}
	}
	return out
}

// amounts gives the other ways in which a number is written: with cents or without, with commas between thousands.
func amounts(s string) []string {
	whole, frac, _ := strings.Cut(s, ".")
	frac = strings.TrimRight(frac, "0")
	if len(whole) > 12 || len(frac) > 12 || whole == "" {
		return nil
	}
	ends := []string{"." + frac, "." + frac + "0"}
	if frac == "" {
		ends = []string{"", ".0", ".00"}
	}
	starts := []string{whole}
	if n := len(whole); n > 3 {
		t := whole
		for k := n - 3; k > 0; k -= 3 {
			t = t[:k] + "," + t[k:]
		}
		starts = append(starts, t)
	}
	var out []string
	for _, a := range starts {
		for _, b := range ends {
			if a+b != s {
				out = append(out, a+b)
			}
		}
	}
	return out
}

// grouped gives an account or card number as people write it.
func grouped(s string) []string {
	if len(s) < 10 || len(s) > 34 {
		return nil
	}
	digits, compact := 0, make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
			compact = append(compact, c)
		case c >= 'a' && c <= 'z':
			compact = append(compact, c)
		case c == '-' || c == ' ':
		default:
			return nil
		}
	}
	if digits < 8 {
		return nil
	}
	var out []string
	if len(compact) < len(s) {
		out = append(out, string(compact))
	}
	for _, sep := range [...]string{" ", "-"} {
		var b strings.Builder
		for i, c := range compact {
			if i > 0 && i%4 == 0 {
				b.WriteString(sep)
			}
			b.WriteByte(c)
		}
		out = append(out, b.String())
	}
	return out
}

// find goes over the places where needle stands in a folded text, as a token of its own: a name not within a longer
// name, an address not within a longer address.
func find(hay, needle string, id bool, at func(i, j int) bool) {
	if needle == "" {
		return
	}
	for from, tries := 0, 0; tries < 1000; tries++ {
		k := strings.Index(hay[from:], needle)
		if k < 0 {
			return
		}
		i, j := from+k, from+k+len(needle)
		if token(hay, i, j, id) && !at(i, j) {
			return
		}
		from = j
	}
}

func token(s string, i, j int, id bool) bool {
	first, _ := utf8.DecodeRuneInString(s[i:])
	last, _ := utf8.DecodeLastRuneInString(s[:j])
	if i > 0 && joins(first) {
		prev, n := utf8.DecodeLastRuneInString(s[:i])
		before, _ := utf8.DecodeLastRuneInString(s[:i-n])
		if joins(prev) && !(prev == 'n' && before == '\\') {
			return false
		}
		if joins(before) && (id && strings.ContainsRune(".-@/+%=&", prev) || digit(first) && digit(before) && (prev == '.' || prev == ',')) {
			return false
		}
	}
	if j < len(s) && joins(last) {
		next, n := utf8.DecodeRuneInString(s[j:])
		after, _ := utf8.DecodeRuneInString(s[j+n:])
		if joins(next) {
			return false
		}
		if joins(after) && (id && strings.ContainsRune(".-@/+%?=&", next) || digit(last) && digit(after) && (next == '.' || next == ',')) {
			return false
		}
	}
	return true
}

func digit(r rune) bool { return r >= '0' && r <= '9' }

// joins reports whether r makes one word with such characters next to it. Scripts without spaces have none.
func joins(r rune) bool { return r == '_' || wordRune(r) && r < 0x2e80 }
