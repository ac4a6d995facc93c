package gateway

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/identity"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// echoing starts an upstream that sends back the bytes it was sent, with something in front: the worst that an error
// message can quote.
func echoing(t testing.TB, front string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 64<<10)
				conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				if n, err := conn.Read(buf); err == nil {
					io.WriteString(conn, front)
					conn.Write(buf[:n])
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestNoSecretAnywhere sends recognisable secrets through every slot and every failing path, with the log at its most
// talkative, and then looks for them in everything that was written.
func TestNoSecretAnywhere(t *testing.T) {
	const (
		operators = "sk-operator-0xCANARY0000000000000000"
		clients   = "sk-client-0xCANARY1111111111111111"
		prompt    = "canaryprompt the patient is called Zebedee Quux"
		reply     = "canaryreply take two of the blue ones"
		person    = "zebedee.canary@example.org"
		talkID    = "canary-conversation-77"
		tool      = "canarytoolargument"
	)
	iss := newIssuer(t)
	fail := false
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, got received) {
		switch {
		case fail:
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error":{"type":"bad_key","message":"Incorrect API key provided: `+got.header.Get("Authorization")+`"}}`)
		case bytes.Contains(got.body, []byte(`"stream":true`)):
			answerStream(w, delta("c", reply, "null"), delta("c", "", `"stop"`), done)
		default:
			answerJSON(w, completion("c", reply))
		}
	})
	var f faults
	h := &harness{t: t, fault: f.call, issuers: []identity.Issuer{iss.config()}, settings: Settings{Providers: map[string]Provider{
		"openai":    {APIKey: identity.NewSecret(operators), Retries: 1},
		"anthropic": {Enforce: true},
		"bare":      {Dialect: "openai"},
		"echo":      {Dialect: "openai", BaseURL: echoing(t, "")},
		"version":   {Dialect: "openai", BaseURL: echoing(t, "HTTP/")},
		"status":    {Dialect: "openai", BaseURL: echoing(t, "HTTP/1.1 ")},
		"header":    {Dialect: "openai", BaseURL: echoing(t, "HTTP/1.1 200 OK\r\n")},
		"length":    {Dialect: "openai", BaseURL: echoing(t, "HTTP/1.1 200 OK\r\nContent-Length: ")},
		"chunks":    {Dialect: "openai", BaseURL: echoing(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")},
		"gone":      {Dialect: "openai", BaseURL: "http://127.0.0.1:1"},
		"secret":    {Dialect: "openai", BaseURL: "http://user:" + operators + "@127.0.0.1:1"},
	}}}
	h.prepare(up.URL)
	h.open()
	key := h.key("app")
	wrong := otherKey()
	token := iss.token(t, person, func(c map[string]any) { c["email"] = person; c["act"] = map[string]any{"sub": "agent-" + person} })
	expired := iss.token(t, person, func(c map[string]any) { c["exp"] = 1 })
	baggage := "Baggage: user.id=" + person + ",gen_ai.conversation.id=" + talkID + ",gen_ai.agent.name=" + person
	talk := `{"model":"m","user":"` + person + `","messages":[{"role":"user","content":"` + prompt + `"},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":\"` + tool + `\"}"}}]},{"role":"tool","tool_call_id":"call_1","content":"` + tool + `"}]}`

	var refusals [][]byte
	send := func(path, body string, headers ...string) {
		t.Helper()
		a := h.post(path, body, headers...)
		if a.header.Get("X-Should-Retry") != "" {
			refusals = append(refusals, a.body)
		}
	}
	subject := identity.SubjectTokenHeader + ": "
	creds := [][]string{{"Authorization: Bearer " + key}, {"X-Api-Key: " + key}, {"Api-Key: " + key}, {"X-Goog-Api-Key: " + key},
		{"Authorization: Bearer " + clients}, {"X-Api-Key: " + clients}, {"Authorization: Bearer " + key, "X-Api-Key: " + clients},
		{"Authorization: Bearer " + wrong}, {"Authorization: Bearer " + key[:40]}, {}}
	names := []string{"openai", "bare", "echo", "version", "status", "header", "length", "chunks", "gone", "secret"}
	round := func() {
		for i, c := range creds {
			for j, name := range names {
				if i > 3 && j > 1 && (i+j)%3 != 0 {
					continue // the rest says nothing new, and each failing provider takes its time
				}
				send("/"+name+"/v1/chat/completions?key="+map[bool]string{true: clients, false: key}[i%2 == 0], talk, append(c, baggage)...)
				send("/"+name+"/v1/chat/completions", talk, append(c, subject+token)...)
			}
			send(chatPath, strings.Replace(talk, `{"model"`, `{"stream":true,"model"`, 1), append(c, baggage)...)
			send(chatPath, talk, append(c, subject+expired)...)
			send(chatPath, talk, append(c, subject+token[:len(token)-9])...)
			send(chatPath, talk[:len(talk)-2], append(c, "X-Note: "+wrong)...)
			send("/anthropic/v1/messages", talk[:len(talk)-2], c...)
			send("/anthropic/v1/"+wrong, talk, c...)
			send("/openai/v1/models/"+wrong, "", c...)
			send(chatPath, chat("my key is "+wrong), c...)
			send("/openai/v1/files", prompt, c...)
			send("/nobody/"+wrong+"?key="+clients, prompt, c...)
			send(chatPath, talk, append(c, "Host: "+wrong+".example")...)
			send(chatPath, talk, append(c, "Origin: https://"+wrong)...)
		}
	}
	round()
	fail = true
	for _, c := range creds {
		send(chatPath, talk, c...)
		send("/bare/v1/chat/completions", talk, c...)
	}
	f.set("before", failing)
	for _, c := range creds {
		send("/bare/v1/chat/completions", talk, c...)
	}
	f.set("before", nil)
	h.gateway.recordSums(t.Context(), true)
	views, err := ledger.OpenViews(h.ledger.Reader)
	if err != nil {
		t.Fatal(err)
	}
	defer views.Close()
	if err := views.CatchUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}

	sinks := map[string][]byte{"log": h.log.Bytes(), "refusals": bytes.Join(refusals, []byte("\n"))}
	if len(h.log.Bytes()) < 1000 || len(refusals) < 50 {
		t.Fatalf("the traffic left a log of %d bytes and %d refusals: the test does not do what it says", len(h.log.Bytes()), len(refusals))
	}
	files, err := os.ReadDir(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join(h.dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sinks[file.Name()] = b
	}
	for _, name := range []string{"ledger.db", "ledger.db-wal", "views.db"} {
		if len(sinks[name]) == 0 {
			t.Fatalf("there is no %s to look into", name)
		}
	}
	if err := h.ledger.Events(t.Context(), 0, func(_ int64, e []byte) error {
		sinks["envelopes"] = append(append(sinks["envelopes"], e...), '\n')
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	metrics := httptest.NewRecorder()
	promhttp.HandlerFor(h.gateway.Metrics().Registry, promhttp.HandlerOpts{}).ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if sinks["metrics"] = metrics.Body.Bytes(); !bytes.Contains(sinks["metrics"], []byte("fairlead_calls_total")) {
		t.Fatalf("no metrics: %s", sinks["metrics"])
	}

	parts := strings.Split(token, ".")
	secrets := map[string]string{"a virtual key": key[15:37], "a wrong key": wrong[15:37], "the operator's key": operators[10:], "the client's key": clients[10:],
		"a token's claims": parts[1][:40], "a token's signature": parts[2][:40], "an expired token": strings.Split(expired, ".")[2][:40]}
	words := map[string]string{"a prompt": "canaryprompt", "an answer": "canaryreply", "a name": "zebedee.canary", "a conversation": talkID, "a tool's argument": tool}
	for name, sink := range sinks {
		for what, secret := range secrets {
			if i := bytes.Index(sink, []byte(secret)); i >= 0 {
				t.Errorf("%s holds %s: …%q…", name, what, sink[max(0, i-80):min(len(sink), i+80)])
			}
		}
		for what, word := range words {
			if i := bytes.Index(bytes.ToLower(sink), []byte(strings.ToLower(word))); i >= 0 {
				t.Errorf("%s holds %s: …%q…", name, what, sink[max(0, i-80):min(len(sink), i+80)])
			}
		}
	}
	// The test would see them: the vault holds what was said.
	found := false
	for _, c := range h.calls() {
		found = found || bytes.Contains(h.content(c.intent), []byte(prompt))
	}
	if !found {
		t.Error("not even the vault holds the prompt")
	}
}
