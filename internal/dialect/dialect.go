// Package dialect reads and writes the wire formats of model APIs: which paths there are, what a request asks and where
// its parts stand, what an answer says whether it is whole or streamed, how an answer looks from which a tool call was
// taken out, and how a refusal looks to the provider's own SDK. Each dialect is one file group that registers itself;
// nothing here does I/O, and nothing but Withhold changes a byte of a body.
//
// The threat is content that the provider reads and we do not. Requests are therefore read strictly where two readings
// could differ (malformed JSON, a name twice, a "stream" that is no boolean), and leniently where a provider may simply
// know more than we do: a part of an unknown kind is kept as such, or read if it has text. Answers are never refused
// for their shape.
//
// Bounds: reading takes time linear in the body, and memory for the parts found: at most 100,000 messages and 200,000
// parts, tools and references. A stream keeps the text that came through it, which the caller bounds by closing it.
package dialect

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// A Dialect is the API of one provider.
type Dialect interface {
	// Name is what configuration calls the dialect: "openai".
	Name() string
	// Routes lists every path that is read. What is not listed is not understood.
	Routes() []Route
	// Read reads a request. The body is checked strictly, once. The error is a [*wire.SyntaxError], or a sentence that
	// says what cannot be read. A GET route has an empty body.
	Read(rt Route, body []byte) (fairlead.Exchange, error)
	// Answer reads a whole response body, of success or of failure. It fails only on malformed JSON and on answers of
	// an absurd number of parts.
	Answer(rt Route, body []byte) (fairlead.Answer, error)
	// Withhold writes a whole answer anew without the refused calls, each counted as in the ToolCalls of Answer. Their
	// notices stand in their place as text, and a finish reason that promised calls is changed where none is left;
	// everything else stays byte for byte. It fails when the calls cannot be told apart in the answer for certain;
	// then all of the answer must be refused.
	Withhold(rt Route, body []byte, refused []Withheld) ([]byte, error)
	// Mend writes a request anew in which a client refers by its id to an item that stands for a withheld call: the
	// provider has no such item, so that the item itself stands there instead. notice gives the text for an id, "" if
	// that is forgotten. Of any other request it returns body as it is. The request must have been read.
	Mend(rt Route, body []byte, notice func(id string) string) []byte
	// Stream reads a response that comes as events.
	Stream(rt Route) Stream
	// Refuse writes a response that makes the provider's SDK raise its own error for the status.
	Refuse(r Refusal) (status int, header http.Header, body []byte)
	// RefuseEvent writes the event that ends a stream with an error, in a way that the provider's SDK raises.
	RefuseEvent(rt Route, r Refusal) []byte
}

// A Stream follows one streamed answer.
type Stream interface {
	// Event takes the next event. It reports hold when this event, or one before it, carries a finish reason or ends
	// the answer: nothing from here on may be released before the outcome is durable. An event that cannot be read is
	// no error; it leaves "fairlead.malformed_event" as the ErrorType.
	Event(ev wire.Event) (hold bool)
	// Answer gives what the answer says so far. Complete is set only after the event that properly ends it.
	Answer() fairlead.Answer
	// HoldTools makes Event hold also from the first event on that carries any part of a tool call, or that cannot be
	// read. It is called before the first event.
	HoldTools()
	// Withhold does for a stream what [Dialect.Withhold] does for a body. It is called once all events were taken,
	// with the joined Raws of all events that were held. It fails also when one of the events could not be read.
	Withhold(held []byte, refused []Withheld) ([]byte, error)
}

// A Route is one path of an API.
type Route struct {
	Method string
	Path   string // as in [http.ServeMux], for instance "/v1/models/{model}"
	Op     fairlead.Operation
	Model  string // set by [Match] where the path names the model
}

// A Refusal is why a call is not let through, or not to its end.
type Refusal struct {
	Status     int    // HTTP status; 403 if it is zero
	Code       string // for programs: "policy_denied"
	Message    string // for people: what, why and how to go on
	DecisionID string // also given as the request id, where SDKs show it
	// Retry says whether trying again can help. SDKs obey it; without it they repeat some refusals by themselves.
	Retry      bool
	RetryAfter time.Duration // with Retry: how long to wait, in whole seconds; 0 does not say
	// Resend says that the provider's state which the request builds on must not be used, for instance because it still
	// has a tool call that was withheld. It looks as if the provider had lost that state: Anthropic's SDKs then send the
	// whole conversation again by themselves. It goes before Status and Code.
	Resend bool
}

func (r *Refusal) status() int {
	if r.Resend {
		return http.StatusNotFound
	}
	if r.Status == 0 {
		return http.StatusForbidden
	}
	return r.Status
}

// header makes the headers that all dialects share; requestID is what the provider calls its own.
func (r *Refusal) header(requestID string) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("X-Should-Retry", strconv.FormatBool(r.Retry))
	if r.Retry && r.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((r.RetryAfter+time.Second-1)/time.Second)))
	}
	if r.DecisionID != "" {
		h.Set(requestID, r.DecisionID)
	}
	return h
}

var registry = map[string]Dialect{}

// register makes a dialect known. It is called from init functions only.
func register(d Dialect) {
	if _, ok := registry[d.Name()]; ok {
		panic(fmt.Sprintf("the dialect %q is registered twice", d.Name()))
	}
	registry[d.Name()] = d
}

// Lookup returns the dialect of that name.
func Lookup(name string) (Dialect, bool) { d, ok := registry[name]; return d, ok }

// Names lists the dialects, sorted.
func Names() []string { return slices.Sorted(maps.Keys(registry)) }

// Match finds the route of d for a method and a path that is decoded but otherwise as the client sent it. The match is
// exact: a path that would have to be cleaned first matches nothing, because the provider might clean it differently.
func Match(d Dialect, method, path string) (Route, bool) {
	for _, rt := range d.Routes() {
		if rt.Method != method {
			continue
		}
		before, after, variable := strings.Cut(rt.Path, "{model}")
		if !variable {
			if path == rt.Path {
				return rt, true
			}
			continue
		}
		model, ok := strings.CutPrefix(path, before)
		if ok {
			model, ok = strings.CutSuffix(model, after)
		}
		if ok && model != "" && model != "." && model != ".." && !strings.ContainsAny(model, "/\\%?#;") && printable(model) {
			rt.Model = model
			return rt, true
		}
	}
	return Route{}, false
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0
}
