package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/identity"
)

// A script answers the first requests with the given statuses and all others with a completion or a stream.
type script struct {
	statuses []int
	n        atomic.Int64
	seen     func(n int)
}

func (s *script) answer(w http.ResponseWriter, _ *http.Request, got received) {
	n := int(s.n.Add(1))
	if s.seen != nil {
		s.seen(n)
	}
	if n <= len(s.statuses) {
		w.WriteHeader(s.statuses[n-1])
		io.WriteString(w, `{"error":{"type":"busy"}}`)
		return
	}
	if bytes.Contains(got.body, []byte(`"stream":true`)) {
		answerStream(w, delta("c", "hi", `"stop"`), done)
		return
	}
	answerJSON(w, completion("c", "hi"))
}

// TestRetries: before the first byte, as often as configured, and never an attempt that is not a fact already.
func TestRetries(t *testing.T) {
	for _, c := range []struct {
		name     string
		statuses []int
		retries  int
		status   int
		attempts int
	}{
		{"at the first", nil, 3, 200, 1},
		{"at the second", []int{500}, 3, 200, 2},
		{"at the last", []int{429, 503}, 2, 200, 3},
		{"never", []int{503, 502, 529, 500}, 2, 529, 3},
		{"none configured", []int{500}, 0, 500, 1},
		{"an error that is the caller's own", []int{400}, 3, 400, 1},
		{"the caller's key", []int{401}, 3, 401, 1},
	} {
		for _, body := range []string{chat("hi"), chatStream("hi")} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				var h *harness
				s := &script{statuses: c.statuses}
				s.seen = func(n int) {
					// What the provider is asked is a fact by the time it is asked.
					if got := len(h.facts(fairlead.KindCallIntent, fairlead.KindCallAttempt)); got != n {
						t.Errorf("attempt %d reached the provider when %d were recorded", n, got)
					}
				}
				up := newProvider(t, s.answer)
				h = newHarness(t, up.URL, Settings{Providers: map[string]Provider{"openai": {Retries: c.retries}}})
				a := h.post(chatPath, body, "Authorization: Bearer sk-client")
				if a.err != nil || a.status != c.status {
					t.Fatalf("status %d, %v", a.status, a.err)
				}
				call, outcome := h.only(0)
				if len(call.attempts) != c.attempts-1 || len(up.requests()) != c.attempts {
					t.Errorf("%d further attempts are recorded, %d requests were made, want %d in all", len(call.attempts), len(up.requests()), c.attempts)
				}
				for i, f := range call.attempts {
					if f.Int("fairlead.attempt") != int64(i+2) || f.Text("gen_ai.provider.name") != "openai" || !strings.HasPrefix(f.Text("error.type"), "status_") {
						t.Errorf("attempt %d: %v", i+2, f.Attrs)
					}
				}
				for _, r := range up.requests() {
					wantBytes(t, "what each attempt sent", r.body, []byte(body))
				}
				h.wantContent("the recorded answer", outcome, a.body)
				if n := outcome.Int("fairlead.attempts"); c.attempts > 1 && n != int64(c.attempts) {
					t.Errorf("the outcome says %d attempts", n)
				}
			})
		}
	}
}

// TestRetryOfAnswersThatBreakOff: an answer of which the client has nothing may be asked for again, one that has begun
// may not.
func TestRetryOfAnswersThatBreakOff(t *testing.T) {
	var n atomic.Int64
	var stream atomic.Bool
	base := rawProvider(t, func(c *net.TCPConn, _ []byte) {
		if n.Add(1) > 1 {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+completion("c", "hi"))
		} else if stream.Load() {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"+delta("c", "hi", "null"))
		} else {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"id\"")
		}
	})
	h := newHarness(t, base, Settings{Providers: map[string]Provider{"openai": {Retries: 1}}})
	a := h.post(chatPath, chat("hi"), "Authorization: Bearer sk-client")
	if call, _ := h.only(0); a.status != http.StatusOK || len(call.attempts) != 1 || call.attempts[0].Text("error.type") != "unreachable" {
		t.Errorf("status %d, attempts %v", a.status, call.attempts)
	}
	n.Store(0)
	stream.Store(true)
	a = h.post(chatPath, chatStream("hi"), "Authorization: Bearer sk-client")
	call, outcome := h.only(1)
	if n.Load() != 1 || len(call.attempts) != 0 || outcome.Text("fairlead.outcome") != outcomeUpstream {
		t.Errorf("a stream that had begun was asked for %d times, outcome %v", n.Load(), outcome.Attrs)
	}
	h.wantContent("the recorded answer", outcome, a.body)
}

// TestNoHiddenAttempts: net/http sends a request again by itself when a kept connection dies under it and the request
// looks repeatable. A call that may cost money or act is never repeated behind the record's back.
func TestNoHiddenAttempts(t *testing.T) {
	for _, name := range []string{"X-None", "Idempotency-Key", "X-Idempotency-Key"} {
		var requests atomic.Int64
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					for r := bufio.NewReader(conn); ; {
						req, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						io.Copy(io.Discard, req.Body)
						if n := requests.Add(1); n == 2 {
							return // read, perhaps acted upon, and not answered
						} else if n > 1 && req.Header.Get(name) != "once" {
							t.Errorf("%s was lost", name)
						}
						body := completion("c", "hi")
						fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
					}
				}()
			}
		}()
		h := newHarness(t, "http://"+l.Addr().String(), Settings{})
		for range 2 {
			h.post(chatPath, chat("hi"), "Authorization: Bearer sk-client", name+": once")
		}
		attempts := int64(len(h.facts(fairlead.KindCallIntent, fairlead.KindCallAttempt)))
		if n := requests.Load(); n != attempts {
			t.Errorf("%s: the provider was asked %d times, %d are recorded", name, n, attempts)
		}
	}
}

// TestFallback: a second provider is asked with the operator's credentials only, and never with the client's.
func TestFallback(t *testing.T) {
	const operators, others, clients = "sk-operator-first", "sk-operator-second", "sk-the-clients-own"
	slots := []string{"Authorization: Bearer " + clients, "X-Api-Key: " + clients, "Api-Key: " + clients, "X-Goog-Api-Key: " + clients, "Cookie: session=" + clients}
	for _, c := range []struct {
		name            string
		ours            bool // the client has a virtual key
		path            string
		headers         []string
		first, second   string // the operator's keys
		wantSecond      bool
		wantFirst       string
		wantSecondCreds string
	}{
		{name: "a virtual key", ours: true, path: chatPath, first: operators, second: others, wantSecond: true, wantFirst: "Bearer " + operators, wantSecondCreds: "Bearer " + others},
		{name: "a virtual key and one of the client's", ours: true, path: chatPath, headers: slots[:4], first: operators, second: others, wantSecond: true, wantFirst: "Bearer " + operators, wantSecondCreds: "Bearer " + others},
		{name: "a virtual key and cookies", ours: true, path: chatPath, headers: slots[4:], first: operators, second: others, wantSecond: true, wantFirst: "Bearer " + operators, wantSecondCreds: "Bearer " + others},
		{name: "and one in the query", ours: true, path: chatPath + "?key=" + clients + "&a=b", first: operators, second: others, wantSecond: true, wantFirst: "Bearer " + operators, wantSecondCreds: "Bearer " + others},
		{name: "a second provider without a key", ours: true, path: chatPath, headers: slots[:1], first: "", second: "", wantSecond: true, wantFirst: "Bearer " + clients},
		{name: "a path that is not mapped", ours: true, path: "/openai/v1/files", headers: slots[:1], first: operators, second: others, wantFirst: "Bearer " + clients},
		{name: "the client's own key", path: chatPath, headers: slots[:1], first: operators, second: others, wantFirst: "Bearer " + clients},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			first := newProvider(t, (&script{statuses: []int{503, 503}}).answer)
			second := newProvider(t, (&script{}).answer)
			h := newHarness(t, first.URL, Settings{Providers: map[string]Provider{
				"openai": {APIKey: identity.NewSecret(c.first), Fallback: "second"},
				"second": {Dialect: "openai", BaseURL: second.URL, APIKey: identity.NewSecret(c.second)},
			}})
			headers := c.headers
			if c.ours {
				headers = append([]string{"Authorization: Bearer " + h.key("app")}, headers...)
			}
			a := h.post(c.path, chat("hi"), headers...)
			h.settle(1)
			call, outcome := h.only(0)
			got := first.last(t)
			if auth := got.header["Authorization"]; len(auth) != 1 || auth[0] != c.wantFirst {
				t.Errorf("the first provider got credentials %q, want %q", auth, c.wantFirst)
			}
			if c.first != "" && c.wantFirst != "Bearer "+clients && got.header.Get("Cookie") == "" && holds(got, clients) {
				t.Error("the client's own key went to a provider together with the operator's")
			}
			if !c.wantSecond {
				if n := len(second.requests()); n != 0 || a.status != 503 || len(call.attempts) != 0 {
					t.Errorf("the second provider was asked %d times; status %d", n, a.status)
				}
				return
			}
			if a.status != http.StatusOK || len(call.attempts) != 1 || call.attempts[0].Text("gen_ai.provider.name") != "second" {
				t.Fatalf("status %d, attempts %v", a.status, call.attempts)
			}
			got = second.last(t)
			if auth := got.header.Get("Authorization"); auth != c.wantSecondCreds {
				t.Errorf("the second provider got credentials %q, want %q", auth, c.wantSecondCreds)
			}
			if holds(got, clients) {
				t.Errorf("the client's own key went to another provider: %s %v", got.uri, got.header)
			}
			if strings.Contains(c.path, "?") && !strings.Contains(got.uri, "a=b") {
				t.Errorf("the rest of the query was lost: %s", got.uri)
			}
			if outcome.Text("gen_ai.provider.name") != "second" {
				t.Errorf("the outcome does not say who answered: %v", outcome.Attrs)
			}
		})
	}
}

// holds reports whether a request carries s anywhere.
func holds(r received, s string) bool {
	for _, values := range r.header {
		for _, v := range values {
			if strings.Contains(v, s) {
				return true
			}
		}
	}
	return strings.Contains(r.uri, s) || bytes.Contains(r.body, []byte(s))
}

func TestFallbackMustBeThere(t *testing.T) {
	h := newHarness(t, "http://127.0.0.1:9", Settings{})
	for _, p := range []map[string]Provider{
		{"a": {Dialect: "openai", BaseURL: "http://127.0.0.1:9", Fallback: "nobody"}},
		{"a": {Dialect: "openai", BaseURL: "http://127.0.0.1:9", Fallback: "b"}, "b": {Dialect: "anthropic", BaseURL: "http://127.0.0.1:9"}},
	} {
		if err := h.gateway.Set(Settings{Providers: p}); err == nil {
			t.Errorf("a fallback that cannot work was accepted: %v", p)
		}
	}
	if a := h.post(chatPath, chat("hi"), "Authorization: Bearer sk-x"); a.status != http.StatusBadGateway {
		t.Errorf("after settings that were refused the old ones do not hold: status %d", a.status)
	}
}

// TestOperatorsKeys: they are used for whoever showed a virtual key, on paths that are understood, and for nobody else.
func TestOperatorsKeys(t *testing.T) {
	const operators = "sk-operator"
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	h := newHarness(t, up.URL, Settings{Providers: map[string]Provider{
		"openai": {APIKey: identity.NewSecret(operators)}, "anthropic": {APIKey: identity.NewSecret(operators)}}})
	key := h.key("app")
	for _, c := range []struct {
		name, path string
		headers    []string
		status     int
		injected   bool
	}{
		{"verified", chatPath, []string{"Authorization: Bearer " + key}, 200, true},
		{"verified, in Anthropic's slot", "/anthropic/v1/messages", []string{"X-Api-Key: " + key}, 200, true},
		{"verified, unmapped", "/openai/v1/files", []string{"Authorization: Bearer " + key}, 200, false},
		{"verified, unmapped below a mapped path", chatPath + "/x", []string{"Authorization: Bearer " + key}, 200, false},
		{"nobody", chatPath, nil, 401, false},
		{"nobody, unmapped", "/openai/v1/files", nil, 401, false},
		{"the client's own", chatPath, []string{"Authorization: Bearer sk-client"}, 200, false},
		{"unknown", chatPath, []string{"Authorization: Bearer " + otherKey()}, 401, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(up.requests())
			a := h.post(c.path, chat("hi"), c.headers...)
			if a.status != c.status {
				t.Fatalf("status %d, want %d: %s", a.status, c.status, a.body)
			}
			if c.status != http.StatusOK {
				if len(up.requests()) != before {
					t.Fatal("it went upstream")
				}
				return
			}
			if got := holds(up.last(t), operators); got != c.injected {
				t.Errorf("the operator's key was used: %v, want %v", got, c.injected)
			}
		})
	}
}

// otherKey is a key that was never made here.
func otherKey() string {
	s, _ := identity.NewKey()
	return s.Reveal()
}
