package gateway

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/practice"
)

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.String()
}

func reset(conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

// TestProvidersThatMisbehave: whatever a provider does, the client gets an answer in its own dialect or exactly what
// the provider sent, and the record says which, with the same bytes.
func TestProvidersThatMisbehave(t *testing.T) {
	const sse = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
	first := delta("c", "first", "null")
	wait := func(conn net.Conn) { io.Copy(io.Discard, conn) }
	write := func(s string) func(*net.TCPConn, []byte) {
		return func(conn *net.TCPConn, _ []byte) { io.WriteString(conn, s) }
	}
	for _, c := range []struct {
		name    string
		stream  bool
		answer  func(conn *net.TCPConn, body []byte)
		status  int
		code    string // of the refusal, in the body or in the last event; empty if the answer passes unchanged
		outcome string
		errType string
	}{
		{name: "stalls before the headers", answer: func(c *net.TCPConn, _ []byte) { wait(c) },
			status: 504, code: "upstream_timeout", outcome: outcomeTimeout, errType: "timeout"},
		{name: "stalls in the headers", answer: func(c *net.TCPConn, _ []byte) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX: y\r\n"); wait(c) },
			status: 504, code: "upstream_timeout", outcome: outcomeTimeout, errType: "timeout"},
		{name: "stalls in a whole answer", answer: func(c *net.TCPConn, _ []byte) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\"")
			wait(c)
		}, status: 504, code: "upstream_timeout", outcome: outcomeTimeout, errType: "timeout"},
		{name: "stalls in a stream", stream: true, answer: func(c *net.TCPConn, _ []byte) { io.WriteString(c, sse+first); wait(c) },
			status: 200, code: "upstream_timeout", outcome: outcomeTimeout, errType: "timeout"},
		{name: "stalls in an event", stream: true, answer: func(c *net.TCPConn, _ []byte) { io.WriteString(c, sse+first+first[:20]); wait(c) },
			status: 200, code: "upstream_timeout", outcome: outcomeTimeout, errType: "timeout"},
		{name: "closes at once", answer: write(""), status: 502, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "unreachable"},
		{name: "resets at once", answer: func(c *net.TCPConn, _ []byte) { reset(c) }, status: 502, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "unreachable"},
		{name: "speaks something else", answer: write("220 mail.example ESMTP\r\n"), status: 502, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "unreachable"},
		{name: "has a status that is none", answer: write("HTTP/1.1 000 Odd\r\nContent-Length: 2\r\n\r\n{}"), status: 502, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "unreachable"},
		{name: "has a status that is none, in a stream", stream: true, answer: write(strings.Replace(sse, "200 OK", "050 Odd", 1) + first + done),
			status: 502, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "unreachable"},
		{name: "switches protocols", answer: func(c *net.TCPConn, _ []byte) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n{}")
		}, status: 502, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "unreachable"},
		{name: "promises more than it sends", answer: write("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + completion("c", "hi")),
			status: 502, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "unreachable"},
		{name: "promises less than it sends", answer: write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 40\r\nConnection: close\r\n\r\n" + completion("c", "hi")),
			status: 200, outcome: outcomeUpstream, errType: "unreadable_answer"},
		{name: "breaks its chunks", answer: write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}zzzz\r\n"),
			status: 502, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "unreachable"},
		{name: "resets in a stream", stream: true, answer: func(c *net.TCPConn, _ []byte) {
			io.WriteString(c, strings.Replace(sse, "Connection: close", "Content-Length: 100000", 1)+first+first[:30])
		}, status: 200, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "stream_broken"},
		{name: "breaks off after the finish reason", stream: true, answer: func(c *net.TCPConn, _ []byte) {
			io.WriteString(c, strings.Replace(sse, "Connection: close", "Content-Length: 100000", 1)+first+delta("c", "", `"stop"`))
		}, status: 200, code: "upstream_unreachable", outcome: outcomeUpstream, errType: "stream_broken"},
		{name: "answers in HTML", answer: write("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<p>hi"),
			status: 200, outcome: outcomeUpstream, errType: "unreadable_answer"},
		{name: "answers a stream in JSON", stream: true, answer: write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + completion("c", "hi")),
			status: 200, outcome: outcomeCompleted},
		{name: "answers 204", answer: write("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), status: 204, outcome: outcomeUpstream, errType: "unreadable_answer"},
		{name: "redirects", answer: write("HTTP/1.1 308 Permanent Redirect\r\nLocation: http://127.0.0.1:9/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
			status: 308, outcome: outcomeStatus},
		{name: "compresses", answer: write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzipped(completion("c", "hi"))),
			status: 200, outcome: outcomeCompleted},
		{name: "compresses a stream", stream: true, answer: write(strings.Replace(sse, "\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n", 1) + gzipped(first+done)),
			status: 200, outcome: outcomeCompleted},
		{name: "sends more than is let through", answer: func(c *net.TCPConn, _ []byte) {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 1<<21, bytes.Repeat([]byte{' '}, 1<<21))
		}, status: 502, code: "response_too_large", outcome: outcomeTooLarge, errType: "response_too_large"},
		{name: "sends more than is let through, and then waits", answer: func(c *net.TCPConn, _ []byte) {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 1<<30, bytes.Repeat([]byte{' '}, 1<<20+1))
			wait(c)
		}, status: 502, code: "response_too_large", outcome: outcomeTooLarge, errType: "response_too_large"},
		{name: "never ends", answer: func(c *net.TCPConn, _ []byte) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
			for chunk := bytes.Repeat([]byte{' '}, 1<<16); ; {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		}, status: 502, code: "response_too_large", outcome: outcomeTooLarge, errType: "response_too_large"},
		{name: "never ends its stream", stream: true, answer: func(c *net.TCPConn, _ []byte) {
			io.WriteString(c, sse)
			for {
				if _, err := io.WriteString(c, delta("c", strings.Repeat("on and on ", 1000), "null")); err != nil {
					return
				}
			}
		}, status: 200, code: "response_too_large", outcome: outcomeTooLarge, errType: "response_too_large"},
		{name: "fails with an event", stream: true, answer: write(sse + first + `data: {"error":{"type":"server_error","message":"oops"}}` + "\n\n"),
			status: 200, outcome: outcomeStatus, errType: "server_error"},
		{name: "refuses with an event stream", stream: true, answer: write(strings.Replace(sse, "200 OK", "400 Bad Request", 1) + `data: {"error":{"type":"bad","message":"no"}}` + "\n\n"),
			status: 400, outcome: outcomeStatus, errType: "bad"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var want []byte
			if c.code == "" {
				// What a plain client gets of such a provider is what ours has to get through the gateway.
				res, err := http.DefaultTransport.RoundTrip(httptestRequest(t, rawProvider(t, c.answer)))
				if err != nil {
					t.Fatal(err)
				}
				want, _ = io.ReadAll(res.Body)
				res.Body.Close()
			}
			timeout := 20 * time.Second
			if c.outcome == outcomeTimeout {
				timeout = 100 * time.Millisecond
			}
			h := newHarness(t, rawProvider(t, c.answer), Settings{MaxResponse: 1 << 20, StreamIdle: timeout,
				Providers: map[string]Provider{"openai": {Timeout: timeout}}})
			body := chat("hi")
			if c.stream {
				body = chatStream("hi")
			}
			a := h.post(chatPath, body, "Authorization: Bearer "+h.key("app"))
			h.settle(1)
			if a.err != nil || a.status != c.status {
				t.Fatalf("status %d, %v: %.300s", a.status, a.err, a.body)
			}
			switch {
			case c.code == "":
				wantBytes(t, "what the client got", a.body, want)
			case a.status != http.StatusOK:
				wantRefusal(t, a, "openai", c.status, c.code, c.code != "response_too_large")
			default:
				events := strings.SplitAfter(string(a.body), "\n\n")
				if events[len(events)-1] != "" || len(events) < 2 {
					t.Fatalf("the stream does not end in a whole event: %q", a.body)
				}
				last := events[len(events)-2]
				if !strings.HasPrefix(last, `data: {"error":{"message":"Fairlead: `) || !strings.Contains(last, strconv.Quote(c.code)) {
					t.Errorf("the stream's last event is %q", last)
				}
				if strings.Contains(string(a.body), "[DONE]") {
					t.Error("a broken stream ends as if it were complete")
				}
			}
			call, outcome := h.only(0)
			h.wantContent("the recorded request", call.intent, []byte(body))
			h.wantContent("the recorded answer", outcome, a.body)
			if got := outcome.Text("fairlead.outcome"); got != c.outcome {
				t.Errorf("the outcome says %q, want %q", got, c.outcome)
			}
			if got := outcome.Text("error.type"); got != c.errType {
				t.Errorf("the error is %q, want %q", got, c.errType)
			}
			if len(call.attempts) != 0 {
				t.Errorf("%d further attempts, though none are configured", len(call.attempts))
			}
		})
	}
}

// httptestRequest is a request for a provider itself.
func httptestRequest(t testing.TB, base string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/chat/completions", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	return req
}

// TestSixtyFourMegabytes sends one byte more than the limit that holds without configuration.
func TestSixtyFourMegabytes(t *testing.T) {
	answer := append([]byte(completion("c", strings.Repeat("y", 64<<20-len(completion("c", ""))))), ' ')
	size := len(answer)
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(answer[:size])
	})
	h := newHarness(t, up.URL, Settings{})
	key := "Authorization: Bearer " + h.key("app")
	wantRefusal(t, h.post(chatPath, chat("hi"), key), "openai", http.StatusBadGateway, "response_too_large", false)
	size--
	if a := h.post(chatPath, chat("hi"), key); a.status != http.StatusOK || len(a.body) != 64<<20 {
		t.Errorf("64 MiB: status %d, %d bytes", a.status, len(a.body))
	}
}

func TestUnreachableProvider(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	h := newHarness(t, "http://"+l.Addr().String(), Settings{})
	for i, ep := range endpoints {
		a := h.post(ep.path, ep.body, ep.key+"sk-client")
		wantRefusal(t, a, ep.dialect, http.StatusBadGateway, "upstream_unreachable", true)
		c, outcome := h.only(i)
		h.wantContent("the recorded answer", outcome, a.body)
		if outcome.Attr("http.response.status_code") != nil || outcome.Actor.App.Assurance == "derived" {
			t.Errorf("the outcome speaks for a provider that said nothing: %v %v", outcome.Attrs, outcome.Actor)
		}
		if a.header.Get("Fairlead-Decision-Id") != c.intent.ID.String() {
			t.Error("the answer does not name the call")
		}
	}
}

// TestLinkLocalAddressesAreNeverCalled: the machine's metadata service hands out credentials to whoever asks.
func TestLinkLocalAddressesAreNeverCalled(t *testing.T) {
	for _, base := range []string{"http://169.254.169.254", "http://[fe80::1%25lo]:80", "http://0.0.0.0:1", "http://[::ffff:169.254.169.254]"} {
		h := newHarness(t, base, Settings{})
		a := h.post(chatPath, chat("hi"), "Authorization: Bearer sk-client")
		wantRefusal(t, a, "openai", http.StatusBadGateway, "upstream_unreachable", true)
		if !bytes.Contains(h.log.Bytes(), []byte("never called")) {
			t.Errorf("%s: the log does not say why", base)
		}
	}
}

// TestClientsThatGoAway: the call is closed with what the client had, the provider is let go, and a client that left at
// the very end leaves a record that says so.
func TestClientsThatGoAway(t *testing.T) {
	t.Run("before the answer", func(t *testing.T) {
		for _, stream := range []bool{false, true} {
			arrived, left := make(chan struct{}), make(chan struct{})
			up := newProvider(t, func(_ http.ResponseWriter, r *http.Request, _ received) {
				close(arrived)
				<-r.Context().Done()
				close(left)
			})
			h := newHarness(t, up.URL, Settings{})
			ctx, cancel := context.WithCancel(t.Context())
			body := chat("hi")
			if stream {
				body = chatStream("hi")
			}
			go func() { <-arrived; cancel() }()
			if a := h.do(h.request(ctx, http.MethodPost, chatPath, []byte(body), "Authorization: Bearer sk-client")); a.err == nil {
				t.Fatal("the client did not go away")
			}
			<-left
			h.settle(1)
			_, outcome := h.only(0)
			if outcome.Text("fairlead.outcome") != outcomeAborted || outcome.Text("error.type") != "client_gone" || outcome.Int("fairlead.released.bytes") != 0 {
				t.Errorf("the outcome says %v", outcome.Attrs)
			}
			h.wantContent("the recorded answer", outcome, nil)
		}
	})
	t.Run("in the stream", func(t *testing.T) {
		first := delta("c", "first", "null")
		left := make(chan struct{})
		up := newProvider(t, func(w http.ResponseWriter, r *http.Request, _ received) {
			answerStream(w, first+first[:11]) // one chunk, of which the second event is not whole
			<-r.Context().Done()
			close(left)
		})
		h := newHarness(t, up.URL, Settings{})
		res, err := h.client.Do(h.request(t.Context(), http.MethodPost, chatPath, []byte(chatStream("hi")), "Authorization: Bearer sk-client"))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(first))
		if _, err := io.ReadFull(res.Body, got); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		<-left
		h.settle(1)
		_, outcome := h.only(0)
		if outcome.Text("fairlead.outcome") != outcomeAborted || outcome.Int("fairlead.released.bytes") != int64(len(first)) {
			t.Errorf("the outcome says %v", outcome.Attrs)
		}
		h.wantContent("the recorded answer", outcome, []byte(first))
	})
	for _, c := range []struct{ name, body string }{{"at the end of a whole answer", chat("hi")}, {"at the end of a stream", chatStream("hi")}} {
		t.Run(c.name, func(t *testing.T) {
			var f faults
			var whole string
			ctx, cancel := context.WithCancel(t.Context())
			gone := make(chan struct{})
			up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, got received) {
				f.next("before", func() error { // the outcome is about to be recorded
					cancel()
					<-gone
					return nil
				})
				if strings.Contains(string(got.body), `"stream":true`) {
					whole = delta("c", "hi", `"stop"`) + done
					answerStream(w, whole)
				} else {
					whole = completion("c", "hi")
					answerJSON(w, whole)
				}
			})
			h := &harness{t: t, fault: f.call, onCall: func(r *http.Request) {
				go func() { <-r.Context().Done(); close(gone) }()
			}}
			h.prepare(up.URL)
			h.open()
			if a := h.do(h.request(ctx, http.MethodPost, chatPath, []byte(c.body), "Authorization: Bearer sk-client")); a.err == nil {
				t.Fatal("the client did not go away")
			}
			h.settle(1)
			call, outcome := h.only(0)
			h.wantContent("the recorded answer", outcome, []byte(whole))
			if got := outcome.Text("fairlead.outcome"); got != outcomeCompleted && got != outcomeAborted {
				t.Errorf("the outcome says %q", got)
			}
			if len(call.delivery) != 1 || call.delivery[0].Text("error.type") != "client_gone" {
				t.Errorf("that the client did not take the answer is recorded %d times, want once", len(call.delivery))
			}
		})
	}
	t.Run("while the call is being recorded", func(t *testing.T) {
		var f faults
		up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
		gone := make(chan struct{})
		h := &harness{t: t, fault: f.call, onCall: func(r *http.Request) {
			go func() { <-r.Context().Done(); close(gone) }()
		}}
		h.prepare(up.URL)
		h.open()
		ctx, cancel := context.WithCancel(t.Context())
		f.next("before", func() error {
			cancel()
			<-gone
			return nil
		})
		if a := h.do(h.request(ctx, http.MethodPost, chatPath, []byte(chat("hi")), "Authorization: Bearer sk-client")); a.err == nil {
			t.Fatal("the client did not go away")
		}
		h.settle(1)
		// The intent is durable, so that somebody has to close it.
		_, outcome := h.only(0)
		if outcome.Text("fairlead.outcome") != outcomeAborted {
			t.Errorf("the outcome says %v", outcome.Attrs)
		}
		if n := len(up.requests()); n != 0 {
			t.Errorf("the provider was asked %d times for nobody", n)
		}
	})
}

// TestLongStreamsSayHowFarTheyCame: what a crash could lose is bounded by progress facts.
func TestLongStreamsSayHowFarTheyCame(t *testing.T) {
	model := httptest.NewServer(practice.New(practice.Config{Chunk: 1000}))
	defer model.Close()
	h := newHarness(t, model.URL, Settings{})
	a := h.post(chatPath, strings.Replace(chatStream("hi"), `"m"`, `"practice-long-512"`, 1), "Authorization: Bearer sk-client")
	c, outcome := h.only(0)
	h.wantContent("the recorded answer", outcome, a.body)
	if n := len(a.body) / progressBytes; len(c.progress) < n/2 || len(c.progress) > n+1 {
		t.Errorf("%d progress facts for %d bytes", len(c.progress), len(a.body))
	}
	at := int64(0)
	for _, p := range c.progress {
		n := p.Int("fairlead.released.bytes")
		if n <= at || n-at > 2*progressBytes {
			t.Errorf("progress went from %d to %d bytes", at, n)
		}
		at = n
		scope, err := h.ledger.Vault().Scope(t.Context(), outcome.Content[0].Scope)
		if err != nil {
			t.Fatal(err)
		}
		mac := scope.NewMAC()
		mac.Write(a.body[:n])
		if want := fmt.Sprintf("%x", mac.Sum()); p.Text("fairlead.released.hmac") != want {
			t.Errorf("the hash of the first %d bytes is not that of what the client got", n)
		}
	}
}
