package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
)

// endpoints are one path of each dialect, with a body that its provider would accept.
var endpoints = []struct{ dialect, path, body, key string }{
	{"openai", chatPath, chat("hi"), "Authorization: Bearer "},
	{"anthropic", "/anthropic/v1/messages", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`, "X-Api-Key: "},
}

func enforcing() map[string]Provider {
	return map[string]Provider{"openai": {Enforce: true}, "anthropic": {Enforce: true}}
}

// refused gives the one refusal that was recorded since the first n, and fails if there was a call or another number.
func (h *harness) refused(n int) *recordedRefusal {
	h.t.Helper()
	if calls := h.calls(); len(calls) != 0 {
		h.t.Fatalf("%d calls were recorded, though none may go upstream", len(calls))
	}
	list := h.facts(fairlead.KindCallRefused)
	if len(list) != n+1 {
		h.t.Fatalf("%d refusals were recorded, want 1", len(list)-n)
	}
	e := list[n]
	return &recordedRefusal{e.Text("fairlead.refusal"), e.Int("http.response.status_code"), e.Actor.App, h.content(e), e.ID.String()}
}

type recordedRefusal struct {
	code   string
	status int64
	app    fairlead.Facet
	body   []byte
	id     string
}

// TestEnforceRefusesWhatCannotBeRead: whatever two readers could understand differently does not go upstream, the
// caller learns it in its own dialect, and the record says who sent what.
func TestEnforceRefusesWhatCannotBeRead(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, `{}`) })
	for _, ep := range endpoints {
		t.Run(ep.dialect, func(t *testing.T) {
			h := newHarness(t, up.URL, Settings{Providers: enforcing()})
			key := h.key("app")
			n := 0
			check := func(t *testing.T, body string, status int, code string, headers ...string) {
				t.Helper()
				h.t = t
				a := h.post(ep.path, body, append(headers, ep.key+key)...)
				wantRefusal(t, a, ep.dialect, status, code, false)
				r := h.refused(n)
				n++
				if r.code != code || r.status != int64(status) {
					t.Errorf("recorded as %s with status %d", r.code, r.status)
				}
				if r.app.Value != "app" || r.app.Assurance != fairlead.Verified {
					t.Errorf("the refusal is recorded without the app that was refused: %+v", r.app)
				}
				wantBytes(t, "the recorded request", r.body, []byte(body))
				if id := a.header.Get("Fairlead-Decision-Id"); id != r.id {
					t.Errorf("the answer names %q, the refusal is %s", id, r.id)
				}
			}
			for _, c := range unreadRequests {
				if c.name == "stream is a string" || c.name == "no object" || c.unread == "malformed" {
					t.Run(c.name, func(t *testing.T) { check(t, c.body, http.StatusBadRequest, c.unread) })
				}
			}
			t.Run("compressed", func(t *testing.T) {
				check(t, "\x1f\x8b\x08...", http.StatusBadRequest, "content_encoding", "Content-Encoding: gzip")
			})
			h.t = t
		})
	}
	if got := up.requests(); len(got) != 0 {
		t.Errorf("%d of them reached the provider", len(got))
	}
}

func TestUnmappedPaths(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, `{"fine":1}`) })
	h := newHarness(t, up.URL, Settings{Providers: enforcing()})
	key := "Authorization: Bearer " + h.key("app")
	long := "/openai/v1/" + strings.Repeat("x", 50_000)
	for _, path := range []string{"/openai/v1/files", "/openai", "/openai/", long} {
		a := h.post(path, `{}`, key)
		wantRefusal(t, a, "openai", http.StatusForbidden, "unmapped", false)
		if len(a.body) > 2000 {
			t.Errorf("a path of %d bytes comes back in an answer of %d", len(path), len(a.body))
		}
	}
	if n := len(h.facts(fairlead.KindCallRefused)); n != 4 || len(up.requests()) != 0 {
		t.Errorf("%d refusals, %d requests at the provider", n, len(up.requests()))
	}
	h.provider("openai", func(p *Provider) { p.Enforce = false })
	if a := h.post("/openai/v1/files", `{}`, key); a.status != http.StatusOK {
		t.Fatalf("observe mode answers %d", a.status)
	}
	c, _ := h.only(0)
	if c.intent.Attr("fairlead.uncovered") != true || fmt.Sprint(c.intent.Attr("fairlead.would_refuse")) != "[unmapped]" {
		t.Errorf("the call is not marked: %v", c.intent.Attrs)
	}
	for _, path := range []string{"/", "/nobody/v1/chat/completions", "/openai/../anthropic/v1/messages", "/openai/%2e%2e/x", "/openai/v1//chat", "/openai/v1%2fchat", "/openai/v1/."} {
		a := h.post(path, `{}`, key)
		wantRefusal(t, a, "openai", http.StatusNotFound, "unknown_path", false)
	}
	if n := len(up.requests()); n != 1 {
		t.Errorf("%d requests reached the provider, want 1", n)
	}
}

func TestTooLarge(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, got received) {
		answerJSON(w, completion("c", fmt.Sprint(len(got.body))))
	})
	h := newHarness(t, up.URL, Settings{})
	key := "Authorization: Bearer " + h.key("app")
	whole := []byte(chat(strings.Repeat("x", 64<<20-len(chat("")))))
	if len(whole) != 64<<20 {
		t.Fatalf("the test's body has %d bytes", len(whole))
	}
	if a := h.do(h.request(t.Context(), http.MethodPost, chatPath, whole, key)); a.status != http.StatusOK {
		t.Fatalf("64 MiB are answered with %d: %.200s", a.status, a.body)
	}
	c, _ := h.only(0)
	if got := h.content(c.intent); len(got) != len(whole) {
		t.Errorf("%d bytes were recorded", len(got))
	}
	for _, chunked := range []bool{false, true} {
		req := h.request(t.Context(), http.MethodPost, chatPath, append(whole, ' '), key)
		if chunked {
			req.ContentLength, req.Body = -1, io.NopCloser(bytes.NewReader(append(whole, ' ')))
		}
		wantRefusal(t, h.do(req), "openai", http.StatusRequestEntityTooLarge, "request_too_large", false)
	}
	refusals := h.facts(fairlead.KindCallRefused)
	if len(refusals) != 2 || refusals[0].Actor.App.Value != "app" {
		t.Errorf("the refusals are not recorded with who they were for: %d", len(refusals))
	}
	if n := len(up.requests()); n != 1 {
		t.Errorf("%d requests reached the provider, want 1", n)
	}
}

// send writes raw bytes to the gateway and reads the answer.
func (h *harness) send(raw string, closeWrite bool) (*http.Response, []byte, error) {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, raw); err != nil {
		h.t.Fatal(err)
	}
	if closeWrite {
		conn.(*net.TCPConn).CloseWrite()
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

func TestWrongContentLength(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	h := newHarness(t, up.URL, Settings{})
	head := "POST " + chatPath + " HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + h.key("app") + "\r\n"
	body := chat("hi")

	res, got, err := h.send(head+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body)+10, body), true)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, answer{res.StatusCode, res.Header, got, nil}, "openai", http.StatusBadRequest, "incomplete_body", false)
	if r := h.refused(0); r.code != "incomplete_body" {
		t.Errorf("recorded as %s", r.code)
	}

	// Shorter than what follows: the body is what was announced, and the rest is no second request that slips in.
	res, _, err = h.send(head+fmt.Sprintf("Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body+"POST /openai/v1/files HTTP/1.1\r\n\r\n"), false)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(err, res)
	}
	c, _ := h.only(0)
	h.wantContent("the recorded request", c.intent, []byte(body))
	if n := len(up.requests()); n != 1 {
		t.Errorf("%d requests reached the provider, want 1", n)
	}
	// Two lengths, and a length beside chunks: net/http refuses the first and drops the length of the second.
	res, _, err = h.send(head+fmt.Sprintf("Content-Length: %d\r\nContent-Length: 3\r\n\r\n%s", len(body), body), false)
	if err != nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("two lengths: %v, %v", res, err)
	}
	if n := len(up.requests()); n != 1 {
		t.Errorf("%d requests reached the provider, want 1", n)
	}
}

// TestAnonymousNonsenseCostsNothing: a caller who has no key cannot fill the disk with what is refused.
func TestAnonymousNonsenseCostsNothing(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, `{}`) })
	s := Settings{Providers: enforcing(), RequireKey: true}
	h := newHarness(t, up.URL, s)
	before := h.ledger.Size()
	for i := range 50 {
		for _, body := range []string{`{"model":`, `{"a":1,"a":2}`, "\xff"} {
			headers := []string{}
			if i%2 == 0 {
				headers = append(headers, "Authorization: Bearer flk_nonsense")
			}
			if a := h.post(chatPath, body, headers...); a.status != http.StatusUnauthorized {
				t.Fatalf("status %d: %s", a.status, a.body)
			}
		}
		if a := h.post("/openai/v1/files", `{}`); a.status != http.StatusUnauthorized {
			t.Fatalf("status %d: %s", a.status, a.body)
		}
	}
	if n := h.ledger.Size() - before; n != 0 {
		t.Errorf("200 refused strangers left %d facts", n)
	}
	h.gateway.recordSums(context.Background(), true)
	sums := h.facts(fairlead.KindAuthFailed)
	if len(sums) != 1 || sums[0].Int("fairlead.auth.failures") != 200 {
		t.Errorf("they were summed up in %d facts", len(sums))
	}
}

func TestHostedToolsAndStateInEnforceMode(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	h := newHarness(t, up.URL, Settings{Providers: enforcing()})
	key := "Authorization: Bearer " + h.key("app")
	a := h.post("/openai/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"web_search"}]}`, key)
	wantRefusal(t, a, "openai", http.StatusForbidden, "policy_denied", false)
	a = h.post("/openai/v1/responses", `{"model":"m","input":"hi","previous_response_id":"resp_never_seen"}`, key)
	wantRefusal(t, a, "openai", http.StatusForbidden, "policy_denied", false)
	if len(up.requests()) != 0 || len(h.facts(fairlead.KindCallRefused)) != 2 {
		t.Error("they were not refused, each with a fact")
	}
	h.provider("openai", func(p *Provider) { p.Enforce = false })
	h.post("/openai/v1/responses", `{"model":"m","input":"hi","previous_response_id":"resp_never_seen","tools":[{"type":"web_search"}]}`, key)
	c, _ := h.only(0)
	if got := fmt.Sprint(c.intent.Attr("fairlead.would_refuse")); got != "[deny-unresolved-state deny-hosted-unclassified]" {
		t.Errorf("observe mode says it would refuse %s", got)
	}
}
