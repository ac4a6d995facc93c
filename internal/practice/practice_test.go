package practice

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func chatBody(model, text, more string) string {
	b, _ := json.Marshal(text)
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%s}]%s}`, model, b, more)
}

const streamed = `,"stream":true`

func TestSameRequestSameBytes(t *testing.T) {
	a, b := New(Config{}), New(Config{})
	for _, e := range exchanges {
		body := strings.ReplaceAll(e.body, "%s", streamed)
		first, second, again := post(a, e.path, body), post(b, e.path, body), post(a, e.path, body)
		if first.Body.String() != second.Body.String() || first.Body.String() != again.Body.String() {
			t.Errorf("%s: two answers to one request differ", e.name)
		}
	}
	one, other := post(a, "/v1/chat/completions", chatBody("m", "a", "")), post(a, "/v1/chat/completions", chatBody("m", "b", ""))
	var x, y struct{ ID string }
	json.Unmarshal(one.Body.Bytes(), &x)
	json.Unmarshal(other.Body.Bytes(), &y)
	if x.ID == "" || x.ID == y.ID {
		t.Errorf("different requests share the id %q", x.ID)
	}
}

func TestEchoAndLong(t *testing.T) {
	h := New(Config{})
	text := "odd \u2028 text \\ \" <b>& 日本"
	var got struct {
		Choices []struct{ Message struct{ Content string } }
	}
	json.Unmarshal(post(h, "/v1/chat/completions", chatBody("practice-echo", text, "")).Body.Bytes(), &got)
	if got.Choices[0].Message.Content != text {
		t.Errorf("echo gave %q, want %q", got.Choices[0].Message.Content, text)
	}
	json.Unmarshal(post(h, "/v1/chat/completions", chatBody("practice-long-64", "x", `,"max_tokens":5`)).Body.Bytes(), &got)
	if n := len(got.Choices[0].Message.Content); n != 64<<10 {
		t.Errorf("practice-long-64 gave %d bytes", n)
	}
	if w := post(h, "/v1/chat/completions", chatBody("practice-long-16384", "x", `,"n":5`)); w.Code != 400 {
		t.Errorf("80 MiB of answers were not refused: %d", w.Code)
	}
}

func TestPreviousResponse(t *testing.T) {
	h := New(Config{})
	ask := func(body string) (id, text string, status int) {
		w := post(h, "/v1/responses", body)
		var r struct {
			ID     string
			Output []struct {
				CallID  string `json:"call_id"`
				Content []struct{ Text string }
			}
		}
		json.Unmarshal(w.Body.Bytes(), &r)
		if len(r.Output) > 0 && len(r.Output[0].Content) > 0 {
			text = r.Output[0].Content[0].Text
		} else if len(r.Output) > 0 {
			text = r.Output[0].CallID
		}
		return r.ID, text, w.Code
	}
	id, callID, _ := ask(`{"model":"m",` + responsesTools + `,"input":"Summarise document 4711"}`)
	if !strings.HasPrefix(callID, "call_") {
		t.Fatalf("no tool call, but %q", callID)
	}
	next := `{"model":"m","previous_response_id":%q,"input":[{"type":"function_call_output","call_id":%q,"output":"Jane"}]}`
	if _, text, _ := ask(fmt.Sprintf(next, id, callID)); text != "Here is what read_document returned, in short: Jane" {
		t.Errorf("the earlier call is forgotten: %q", text)
	}
	id, _, _ = ask(`{"model":"practice-echo","instructions":"` + strings.Repeat("secret ", 100) + `","input":"x"}`)
	w := post(h, "/v1/responses", fmt.Sprintf(`{"model":"m","previous_response_id":%q,"input":"y"}`, id))
	if !strings.Contains(w.Body.String(), `"input_tokens":1,`) {
		t.Errorf("instructions were inherited: %s", w.Body)
	}
	id, _, _ = ask(`{"model":"m","store":false,"input":"x"}`)
	if _, _, status := ask(fmt.Sprintf(next, id, callID)); status != 400 {
		t.Errorf("an unstored response was continued: %d", status)
	}
}

func TestStatesAreBounded(t *testing.T) {
	var s states
	big := []turn{{text: strings.Repeat("x", maxStateBytes/4)}}
	for i := range 10 {
		s.put(fmt.Sprint(i), big)
	}
	if _, ok := s.get("9"); !ok || len(s.turns) > 4 || len(s.order) != len(s.turns) {
		t.Errorf("%d large conversations are kept", len(s.turns))
	}
	for i := range 3 * maxStates {
		s.put(fmt.Sprint("small", i), []turn{{text: "x"}})
	}
	if len(s.turns) != maxStates || s.bytes > maxStateBytes {
		t.Errorf("%d conversations of %d bytes are kept", len(s.turns), s.bytes)
	}
	s.put("huge", []turn{{text: strings.Repeat("x", maxStateBytes+1)}})
	if len(s.turns) != 0 || s.bytes != 0 {
		t.Errorf("a conversation beyond the bound left %d entries and %d bytes", len(s.turns), s.bytes)
	}
}

func TestFairleadKeyIsRefused(t *testing.T) {
	h := New(Config{})
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:flk_1"))
	for _, c := range [][3]string{
		{"/v1/chat/completions", "Authorization", "Bearer flk_1"},
		{"/v1/messages", "x-api-key", "flk_1"},
		{"/v1/messages", "X-Whatever", "a, flk_1"},
		{"/v1/responses", "Authorization", basic},
		{"/v1/responses?key=flk_1", "Accept", "*/*"},
		{"/v1/nowhere", "Authorization", "flk_1"},
	} {
		r := httptest.NewRequest("POST", c[0], strings.NewReader(`{"model":"practice-1"}`))
		r.Header.Set(c[1], c[2])
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 400 || !strings.Contains(w.Body.String(), "a Fairlead key reached the provider") {
			t.Errorf("%v: %d %s", c, w.Code, w.Body)
		}
	}
	r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(chatBody("m", "about flk_ keys", "")))
	r.Header.Set("Authorization", "Bearer sk-practice")
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 200 {
		t.Errorf("a provider's key was refused: %s", w.Body)
	}
}

func TestErrors(t *testing.T) {
	h := New(Config{})
	for _, c := range []struct {
		path, body, want string
		status           int
	}{
		{"/v1/chat/completions", `{"messages":[]}`, "names no model", 400},
		{"/v1/chat/completions", `{"model":"m"}`, "messages is empty", 400},
		{"/v1/chat/completions", `{"model":"m","n":0,"messages":[{"role":"user"}]}`, "n is 0", 400},
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"wizard"}]}`, "role is", 400},
		{"/v1/chat/completions", `{"model":"m","messages":[` + strings.Repeat("[", 10001), "depth", 400},
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user"}` + strings.Repeat(`,{}`, maxItems) + `]}`, "more than", 400},
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"x":"` +
			strings.Repeat("y", maxSchema) + `"}}}]}`, "longer than", 400},
		{"/v1/responses", `{"model":"m"}`, "input is empty", 400},
		{"/v1/embeddings", `{"model":"m","input":"x","dimensions":9999}`, "dimensions", 400},
		{"/v1/embeddings", `{"model":"m","input":[]}`, "input is empty", 400},
		{"/v1/messages", `{"model":"m","messages":[{"role":"user","content":"x"}]}`, "max_tokens", 400},
		{"/v1/messages", `{"model":"practice-error-529"}`, "overloaded_error", 529},
		{"/v1/completions", `{}`, "there is no POST /v1/completions", 404},
		{"/v1/messages", `"` + strings.Repeat("x", maxBody), "request_too_large", 413},
	} {
		w := post(h, c.path, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %.80s: %d %.200s, want %d …%s…", c.path, c.body, w.Code, w.Body, c.status, c.want)
		}
	}
}

// TestMisbehaviour asks a real server, because the faults are those of a connection.
func TestMisbehaviour(t *testing.T) {
	srv := httptest.NewServer(New(Config{Stall: 50 * time.Millisecond}))
	defer srv.Close()
	for _, path := range []string{"/v1/chat/completions", "/v1/responses", "/v1/messages"} {
		for _, stream := range []string{"", streamed} {
			for _, model := range []string{"practice-stall", "practice-reset", "practice-short"} {
				body := chatBody(model, "hello", `,"input":"hello","max_tokens":100`+stream)
				began := time.Now()
				resp, err := http.Post(srv.URL+path, "application/json", strings.NewReader(body))
				var got []byte
				if err == nil {
					got, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				name := path + " " + model + stream
				if err == nil {
					t.Errorf("%s ended well: %s", name, got)
				}
				if model == "practice-reset" {
					// Elsewhere a reset has other names.
					if runtime.GOOS == "linux" && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%s: %v", name, err)
					}
				} else if len(got) < 20 {
					t.Errorf("%s sent only %q", name, got)
				}
				if model == "practice-stall" && time.Since(began) < 50*time.Millisecond {
					t.Errorf("%s did not stall", name)
				}
			}
			resp, err := http.Post(srv.URL+path, "application/json", strings.NewReader(chatBody("practice-html", "x", stream)))
			if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%s practice-html: %v %v", path, resp, err)
			} else {
				resp.Body.Close()
			}
		}
	}
}

// A stalled or slow answer must not outlive its client.
func TestClientGoesAway(t *testing.T) {
	done := make(chan struct{}, 1)
	h := New(Config{Delay: time.Hour, Stall: time.Hour})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { recover(); done <- struct{}{} }()
		h.ServeHTTP(w, r)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, "POST", srv.URL+"/v1/messages", strings.NewReader(chatBody("m", "x", streamed+`,"max_tokens":9`)))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "event: message_start\n" {
		t.Fatalf("the first event does not arrive before the first text: %q %v", line, err)
	}
	cancel()
	resp.Body.Close()
	select {
	case <-done:
		srv.Close() // which waits for handlers, so not deferred
	case <-time.After(10 * time.Second):
		t.Fatal("the answer goes on after its client left")
	}
}

func FuzzRequest(f *testing.F) {
	for _, e := range exchanges {
		f.Add(e.path, strings.ReplaceAll(e.body, "%s", streamed))
	}
	f.Add("/v1/messages", `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"tool_result","content":{}}]}]}`)
	f.Add("/v1/responses", `{"model":"m","input":[{"type":"function_call"},{"type":"message","role":"user","content":null}],"text":{"format":{"type":"json_schema","schema":{"enum":[]}}}}`)
	h := New(Config{Chunk: 1000})
	f.Fuzz(func(t *testing.T, path, body string) {
		paths := map[string]bool{}
		for _, e := range exchanges {
			paths[e.path] = true
		}
		if !paths[path] || strings.Contains(body, "practice-") {
			return
		}
		w := post(h, path, body)
		if ct := w.Header().Get("Content-Type"); ct == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("the answer is not JSON: %s", w.Body)
		}
	})
}

func FuzzPlanted(f *testing.F) {
	f.Add("a <!-- AI: in a\ncomment --> b")
	f.Add("IMPORTANT:\n\n over here\xff İ")
	f.Add(`{"a":["Note to the assistant: x",1]}`)
	f.Fuzz(func(t *testing.T, doc string) {
		text := flatten(doc)
		if s := planted(text); !strings.Contains(text, s) || len(s) > maxSentence {
			t.Errorf("planted(%q) = %q, which is not in it", text, s)
		}
	})
}
