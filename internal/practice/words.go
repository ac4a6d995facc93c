package practice

import (
	"strings"
	"unicode"
)

// acting lists the verbs that make a tool act on the world, the most eager first.
var acting = strings.Fields(`send email mail post transfer pay refund delete remove forward upload publish share submit
	notify message reply create write update set add insert execute exec run cancel buy purchase approve grant drop`)

// readVerbs at the start of a tool's name say that it only looks, whatever nouns follow (read_email, get_order).
var readVerbs = setOf(`read get fetch list search find lookup look show open view load query summarise summarize check
	describe retrieve count browse`)

var stopWords = setOf(`a an and any are at be by can for from has have i if in into is it its me my of on or our please
	return that the their them then this to use used using want what when where which who will with you your given
	string name value`)

func setOf(fields string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(fields) {
		set[stem(w)] = true
	}
	return set
}

// words splits a text or an identifier (snake_case, camelCase) into stems in lower case.
func words(s string) []string {
	s = s[:min(len(s), maxRead)]
	var out []string
	start := -1
	prev := ' '
	flush := func(end int) {
		if start >= 0 {
			out = append(out, stem(strings.ToLower(s[start:end])))
			start = -1
		}
	}
	for i, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			flush(i)
		} else if start < 0 {
			start = i
		} else if unicode.IsUpper(r) && unicode.IsLower(prev) {
			flush(i)
			start = i
		}
		prev = r
	}
	flush(len(s))
	return out
}

// stem takes the commonest English endings off, crudely but always in the same way.
func stem(w string) string {
	for _, end := range []string{"ing", "ed", "s"} {
		if cut, ok := strings.CutSuffix(w, end); ok && len(cut) > 2 && !(end == "s" && strings.HasSuffix(cut, "s")) {
			return cut
		}
	}
	return w
}

// actionRank is positive for an acting verb, and higher the more eager it is.
func actionRank(stemmed string) int {
	for i, verb := range acting {
		if stem(verb) == stemmed {
			return len(acting) - i
		}
	}
	return 0
}

// actionScore says how action-like a tool is: by its name, and failing that a little by its description's first word.
func actionScore(name, description string) int {
	parts := words(name)
	if len(parts) > 0 && readVerbs[parts[0]] {
		return 0
	}
	best := 0
	for _, w := range parts {
		best = max(best, actionRank(w)+1)
	}
	if best > 1 {
		return best
	}
	first, _, _ := strings.Cut(strings.TrimSpace(description), " ")
	for _, w := range words(first) {
		if actionRank(w) > 0 {
			return 1
		}
	}
	return 0
}

func isAction(name, description string) bool { return actionScore(name, description) > 0 }

// facts are the things in a text that can become arguments, in their order.
type facts struct {
	text                             string
	emails, urls, ids, quotes, names []string
}

// find reads at most maxRead bytes of the text.
func find(text string) facts {
	text = strings.ToValidUTF8(text[:min(len(text), maxRead)], "")
	f := facts{text: strings.TrimSpace(text), quotes: quoted(text)}
	opening, name := true, "" // opening: the next token starts a sentence
	for _, token := range strings.Fields(text) {
		if e := emailIn(token); e != "" {
			f.emails = append(f.emails, e)
		} else if i := max(strings.Index(token, "https://"), strings.Index(token, "http://")); i >= 0 {
			f.urls = append(f.urls, strings.TrimRight(token[i:], punctuation))
		} else if id := asID(token); id != "" {
			f.ids = append(f.ids, id)
		} else if word := strings.Trim(token, punctuation); len(word) > 1 && unicode.IsUpper([]rune(word)[0]) && !opening {
			name = strings.TrimSpace(name + " " + word)
			opening = strings.ContainsAny(token[len(token)-1:], ".!?:,;")
			if !opening {
				continue
			}
		}
		if name != "" {
			f.names = append(f.names, name)
			name = ""
		}
		opening = strings.ContainsAny(token[len(token)-1:], ".!?:")
	}
	if name != "" {
		f.names = append(f.names, name)
	}
	return f
}

const punctuation = ".,;:!?()[]{}<>\"'`*#“”‘’«»"

// asID returns a token with a digit in it, without what surrounds it, or "".
func asID(token string) string {
	token = strings.Trim(token, punctuation)
	if i := strings.LastIndexAny(token, "=:#"); i >= 0 {
		token = token[i+1:]
	}
	if len(token) > 64 || !strings.ContainsAny(token, "0123456789") {
		return ""
	}
	return token
}

// idRun returns the first ids that stand in a row ("1, 2 and 3") and are of similar length.
func idRun(text string) []string {
	var run []string
	linked := false
	for _, token := range strings.Fields(text[:min(len(text), maxRead)]) {
		id := asID(token)
		joins := token == "and" || token == "or" || token == "&"
		fits := id != "" && (len(run) == 0 || linked && len(id) <= len(run[0])+1 && len(run[0]) <= len(id)+1)
		switch {
		case fits:
			run, linked = append(run, id), strings.HasSuffix(token, ",")
		case joins:
			linked = true
		case len(run) > 1:
			return run
		default:
			run, linked = nil, false
			if id != "" {
				run, linked = []string{id}, strings.HasSuffix(token, ",")
			}
		}
	}
	return run
}

// emailIn finds an e-mail address inside a token.
func emailIn(token string) string {
	at := strings.IndexByte(token, '@')
	if at < 0 {
		return ""
	}
	allowed := func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-+%", c) >= 0
	}
	from, to := at, at+1
	for from > 0 && allowed(token[from-1]) {
		from--
	}
	for to < len(token) && allowed(token[to]) {
		to++
	}
	address := strings.Trim(token[from:to], ".-")
	user, domain, _ := strings.Cut(address, "@")
	if user == "" || !strings.Contains(domain, ".") {
		return ""
	}
	return address
}

// quoted returns what stands in quotation marks (not apostrophes).
func quoted(text string) []string {
	var out []string
	for _, q := range [][2]string{{`"`, `"`}, {"“", "”"}, {"«", "»"}, {"`", "`"}} {
		rest := text
		for {
			_, after, ok := strings.Cut(rest, q[0])
			in, next, closed := strings.Cut(after, q[1])
			if !ok || !closed {
				break
			}
			if in = strings.TrimSpace(in); in != "" {
				out = append(out, in)
			}
			rest = next
		}
	}
	return out
}
