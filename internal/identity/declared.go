package identity

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/fairleadhq/fairlead"
)

// Bounds of the W3C baggage header, over all its lines. The specification has them as what must at least be
// propagated; here they are also the most that is read.
const (
	maxBaggage        = 8 << 10
	maxBaggageMembers = 64
)

// declared is what the caller says about itself, in clear. Nothing of it is checked.
type declared struct {
	user, userMethod string
	agent, agentName string
	agentVersion     string
	conversation     string
	trace            TraceParent
	problems         []string // what could not be read, for Identity.Ignored
	ambiguous        string   // two different users named
}

func readDeclared(h http.Header, x *fairlead.Exchange) declared {
	d, err := readBaggage(h["Baggage"])
	if err != nil {
		d = declared{problems: []string{"the baggage header was ignored: " + err.Error()}}
	}
	if x != nil {
		if d.user == "" && x.User != "" {
			d.user, d.userMethod = x.User, "body"
		} else if x.User != "" && x.User != d.user {
			d.ambiguous = x.User
		}
		if d.conversation == "" {
			d.conversation = x.Conversation
		}
	}
	switch t := h["Traceparent"]; len(t) {
	case 0:
	case 1:
		if d.trace, err = ParseTraceParent(t[0]); err != nil {
			d.problems = append(d.problems, "the traceparent header was ignored: "+err.Error())
		}
	default:
		d.problems = append(d.problems, "the traceparent header was ignored: it stands more than once")
	}
	return d
}

// readBaggage takes from the baggage what concerns us. A name that is given two different values counts as not given.
func readBaggage(lines []string) (declared, error) {
	var d declared
	var session string
	err := parseBaggage(lines, func(key, value string) {
		var field *string
		switch key {
		case "user.id":
			field = &d.user
		case "gen_ai.agent.id":
			field = &d.agent
		case "gen_ai.agent.name":
			field = &d.agentName
		case "gen_ai.agent.version":
			field = &d.agentVersion
		case "gen_ai.conversation.id":
			field = &d.conversation
		case "session.id":
			field = &session
		default:
			return
		}
		switch *field {
		case "", value:
			*field = value
		case twice:
		default:
			*field = twice
			d.problems = append(d.problems, "the baggage names "+key+" twice with different values: neither was taken")
		}
	})
	for _, f := range [...]*string{&d.user, &d.agent, &d.agentName, &d.agentVersion, &d.conversation, &session} {
		if *f == twice {
			*f = ""
		}
	}
	if d.user != "" {
		d.userMethod = "baggage"
	}
	if d.agent == "" {
		d.agent = d.agentName
	}
	if d.conversation == "" {
		d.conversation = session
	}
	return d, err
}

// twice marks a field that was given two values. It is not valid UTF-8, so no decoded value equals it.
const twice = "\xff"

// parseBaggage reads W3C Baggage (https://www.w3.org/TR/baggage/) in linear time and calls yield for each member with
// its value percent-decoded. It is strict: after an error, what was yielded before must be dropped too. Empty members
// between commas are passed over, as RFC 9110 section 5.6.1 asks of recipients.
func parseBaggage(lines []string, yield func(key, value string)) error {
	size, members := 0, 0
	for _, line := range lines {
		if size += len(line) + 1; size > maxBaggage+1 {
			return fmt.Errorf("it is longer than %d bytes", maxBaggage)
		}
		for line != "" {
			var member string
			member, line, _ = strings.Cut(line, ",")
			if member = trimOWS(member); member == "" {
				continue
			}
			if members++; members > maxBaggageMembers {
				return fmt.Errorf("it has more than %d members", maxBaggageMembers)
			}
			key, value, err := parseMember(member)
			if err != nil {
				return fmt.Errorf("in member %d, %w", members, err)
			}
			yield(key, value)
		}
	}
	return nil
}

func parseMember(member string) (key, value string, err error) {
	pair, properties, more := strings.Cut(member, ";")
	key, value, ok := strings.Cut(pair, "=")
	key, value = trimOWS(key), trimOWS(value)
	if !ok || !isToken(key) {
		return "", "", errors.New("there is no name followed by an equals sign")
	}
	if value, err = unescape(value); err != nil {
		return "", "", err
	}
	for more {
		var p string
		p, properties, more = strings.Cut(properties, ";")
		name, v, _ := strings.Cut(p, "=")
		if !isToken(trimOWS(name)) {
			return "", "", errors.New("a property has no name")
		}
		if _, err := unescape(trimOWS(v)); err != nil {
			return "", "", err
		}
	}
	return key, value, nil
}

// unescape checks that s consists of baggage-octets and decodes it. Bytes that are no UTF-8 become U+FFFD.
func unescape(s string) (string, error) {
	escaped := false
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f || c == '"' || c == ',' || c == ';' || c == '\\':
			return "", errors.New("the value holds a byte that must be percent-encoded")
		case c == '%':
			escaped = true
			if i+2 >= len(s) || hexDigit(s[i+1]) < 0 || hexDigit(s[i+2]) < 0 {
				return "", errors.New("a percent sign is not followed by two hex digits")
			}
		}
	}
	if !escaped {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			b = append(b, byte(hexDigit(s[i+1])<<4|hexDigit(s[i+2])))
			i += 2
		} else {
			b = append(b, s[i])
		}
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func trimOWS(s string) string { return strings.Trim(s, " \t") }

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !isBase62(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// A TraceParent is the caller's place in a distributed trace, as it declares it. The zero value says that there is
// none.
type TraceParent struct {
	TraceID  string // 32 lower-case hex digits, not all zero
	ParentID string // 16 lower-case hex digits, not all zero
	Sampled  bool
}

// ParseTraceParent reads a traceparent header by W3C Trace Context level 1 and 2: version 00 exactly, a later version
// as far as it is known today.
func ParseTraceParent(s string) (TraceParent, error) {
	const size = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return TraceParent{}, errors.New("it does not have the form 00-TRACE-PARENT-FLAGS with 2, 32, 16 and 2 hex digits")
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:55]
	for _, part := range [...]string{version, trace, parent, flags} {
		if strings.Trim(part, "0123456789abcdef") != "" {
			return TraceParent{}, errors.New("it holds something other than lower-case hex digits")
		}
	}
	switch {
	case version == "ff":
		return TraceParent{}, errors.New("version ff is not allowed")
	case len(s) > size && (version == "00" || s[size] != '-'):
		return TraceParent{}, errors.New("something follows the flags")
	case strings.Trim(trace, "0") == "" || strings.Trim(parent, "0") == "":
		return TraceParent{}, errors.New("the trace or the parent id is all zero")
	}
	return TraceParent{TraceID: trace, ParentID: parent, Sampled: hexDigit(flags[1])&1 == 1}, nil
}
