package gateway

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
)

// Bodies that a provider accepts, or may one day, and that a gateway which parses and writes them anew would change.
var oddRequests = []struct{ name, body string }{
	{"plain", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`},
	{"unknown field", `{"model":"m","messages":[{"role":"user","content":"hi"}],"x_tomorrow":{"a":[1,2]}}`},
	{"unknown field of a message", `{"model":"m","messages":[{"role":"assistant","content":"hi","reasoning_content":"since"},{"role":"user","content":"go"}]}`},
	{"cache_control", `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]}`},
	{"key order", `{"messages":[{"content":"hi","role":"user"}],"temperature":0.2,"model":"m"}`},
	{"white space", "{\r\n\t\"model\" : \"m\",\n  \"messages\": [ {\"role\": \"user\",   \"content\": \"hi\"} ]\n}"},
	{"trailing white space", `{"model":"m","messages":[]}` + " \r\n\t\n"},
	{"leading white space", "\n\n  " + `{"model":"m","messages":[]}`},
	{"nulls", `{"model":"m","messages":[{"role":"user","content":"hi"}],"stop":null,"user":null,"stream":null}`},
	{"big integer", `{"model":"m","messages":[{"role":"user","content":"hi"}],"seed":9007199254740993}`},
	{"huge number", `{"model":"m","messages":[{"role":"user","content":"hi"}],"seed":1e400,"n":-0,"p":-0.0e+00}`},
	{"spelling of floats", `{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":1.0,"top_p":1E-1,"x":0.10}`},
	{"odd escapes", `{"model":"m","messages":[{"role":"user","content":"\u00e9\u0041 <b>&\/ \ud83d\ude00 \u2028"}]}`},
	{"a lone surrogate", `{"model":"m","messages":[{"role":"user","content":"\ud800 and \udc00"}]}`},
	{"escaped names", `{"\u006dodel":"m","messages":[{"r\u006fle":"user","content":"hi"}]}`},
	{"nul in a string", `{"model":"m","messages":[{"role":"user","content":"a\u0000b"}]}`},
	{"tool schema", `{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer","x-order":1}},"required":["z"],"additionalProperties":false}}}]}`},
	{"empty tools", `{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[]}`},
	{"empty name", `{"":0,"model":"m","messages":[]}`},
	{"500 deep", `{"model":"m","messages":[],"x":` + strings.Repeat(`[{"a":`, 249) + `0` + strings.Repeat(`}]`, 249) + `}`},
	{"5 MB string", `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("fünf MB ", 5<<20/9) + `"}]}`},
	{"the same text again and again", `{"model":"m","messages":[` + strings.TrimSuffix(strings.Repeat(`{"role":"user","content":"the same text, again and again, for the vault"},`, 300), ",") + `]}`},
}

// Bodies that are not read, and pass through in observe mode all the same.
var unreadRequests = []struct{ name, body, unread string }{
	{"byte order mark", "\xEF\xBB\xBF" + `{"model":"m","messages":[]}`, "malformed"},
	{"invalid UTF-8", `{"model":"m","messages":[{"role":"user","content":"` + "\xff\xfe" + `"}]}`, "malformed"},
	{"name twice", `{"model":"m","model":"n","messages":[]}`, "malformed"},
	{"cut off", `{"model":"m","messages":[`, "malformed"},
	{"two values", `{"model":"m"} {"model":"n"}`, "malformed"},
	{"10,000 deep", strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), "malformed"},
	{"10,000 deep and never closed", strings.Repeat(`{"a":[`, 5_000), "malformed"},
	{"no object", `[1,2]`, "unreadable"},
	{"stream is a string", `{"model":"m","stream":"true","messages":[]}`, "unreadable"},
	{"not JSON at all", "model=m&prompt=hi", "malformed"},
	{"empty", "", "malformed"},
}

// echo answers with what it was sent, in an answer that holds odd spellings of its own.
const oddReply = "{ \"id\" : \"r-1\",\n\t\"object\":\"chat.completion\", \"model\":\"m\\u0031\", \"choices\":[ {\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\\ud83d\\ude00 \\/ <&> \\u00e9 \xc3\xa9\",\"x_new\":[1.0, 1e2, 9007199254740993]},\"finish_reason\":\"stop\"} ],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2},\"x_future\":null}\r\n"

func TestRequestsArriveByteForByte(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, oddReply) })
	h := newHarness(t, up.URL, Settings{})
	key := h.key("app")
	n := 0
	check := func(t *testing.T, path, body string) (unread string) {
		t.Helper()
		h.t = t
		a := h.post(path, body, "Authorization: Bearer "+key, "X-Future-Header: kept")
		if a.err != nil || a.status != http.StatusOK {
			t.Fatalf("status %d, %v: %.300s", a.status, a.err, a.body)
		}
		got := up.last(t)
		wantBytes(t, "what the provider got", got.body, []byte(body))
		wantBytes(t, "what the client got", a.body, []byte(oddReply))
		if got.header.Get("X-Future-Header") != "kept" {
			t.Error("a header that we do not know was dropped")
		}
		if cl := got.header.Get("Content-Length"); cl != strconv.Itoa(len(body)) {
			t.Errorf("the provider was told %q bytes, there are %d", cl, len(body))
		}
		c, outcome := h.only(n)
		n++
		h.wantContent("the recorded request", c.intent, []byte(body))
		h.wantContent("the recorded answer", outcome, []byte(oddReply))
		if id := a.header.Get("Fairlead-Decision-Id"); id != c.intent.ID.String() {
			t.Errorf("the answer names decision %q, the call is %s", id, c.intent.ID)
		}
		return c.intent.Text("fairlead.unread")
	}
	for _, c := range oddRequests {
		t.Run(c.name, func(t *testing.T) {
			if unread := check(t, chatPath, c.body); unread != "" {
				t.Errorf("a request that is legal was not read: %s", unread)
			}
		})
	}
	for _, c := range unreadRequests {
		t.Run("unread: "+c.name, func(t *testing.T) {
			if unread := check(t, chatPath, c.body); unread != c.unread {
				t.Errorf("marked as %q, want %q", unread, c.unread)
			}
		})
	}
	t.Run("a path that nobody knows", func(t *testing.T) { check(t, "/openai/v1/audio/speech?voice=a&voice=b&x", "\x00\x01anything") })
	h.t = t
}

func TestAnswersArriveByteForByte(t *testing.T) {
	var reply string
	var status int
	up := newProvider(t, func(w http.ResponseWriter, r *http.Request, _ received) {
		w.Header()["Content-Type"] = []string{r.Header.Get("X-Want-Type")}
		w.Header().Set("X-Ratelimit-Remaining", "17")
		w.Header().Add("X-Twice", "1")
		w.Header().Add("X-Twice", "2")
		w.Header().Set("Fairlead-Decision-Id", "forged")
		w.Header().Set("X-Hop", "gone")
		w.Header().Set("Connection", "X-Hop")
		w.WriteHeader(status)
		io.WriteString(w, reply)
	})
	h := newHarness(t, up.URL, Settings{})
	key := h.key("app")
	for i, c := range []struct {
		name, kind string
		status     int
		body       string
		outcome    string
	}{
		{"odd JSON", "application/json", 200, oddReply, outcomeCompleted},
		{"invalid UTF-8", "application/json", 200, strings.Replace(oddReply, "<&>", "\xff", 1), outcomeUpstream},
		{"a name twice", "application/json", 200, `{"id":"a","id":"b","choices":[]}`, outcomeUpstream},
		{"HTML", "text/html", 200, "<!DOCTYPE html><p>Sign in first", outcomeUpstream},
		{"nothing at all", "application/json", 200, "", outcomeUpstream},
		{"an error in the provider's words", "application/json", 418, `{"error" : {"type":"teapot"}}`, outcomeStatus},
		{"an error in HTML", "text/html", 403, "<h1>no", outcomeStatus},
		{"a redirect", "text/plain", 307, "elsewhere", outcomeStatus},
		{"3 MB", "application/json", 200, completion("c", strings.Repeat("drei ", 600_000)), outcomeCompleted},
		{"bytes", "application/octet-stream", 200, "\x00\x01\x02\xff", outcomeUpstream},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.t, reply, status = t, c.body, c.status
			a := h.post(chatPath, chat("hi"), "Authorization: Bearer "+key, "X-Want-Type: "+c.kind)
			if a.err != nil || a.status != c.status {
				t.Fatalf("status %d, %v", a.status, a.err)
			}
			wantBytes(t, "what the client got", a.body, []byte(c.body))
			_, outcome := h.only(i)
			h.wantContent("the recorded answer", outcome, []byte(c.body))
			if got := outcome.Text("fairlead.outcome"); got != c.outcome {
				t.Errorf("the outcome says %q, want %q", got, c.outcome)
			}
			if got := outcome.Int("http.response.status_code"); got != int64(c.status) {
				t.Errorf("the outcome has status %d", got)
			}
			if a.header.Get("X-Ratelimit-Remaining") != "17" || len(a.header["X-Twice"]) != 2 || a.header.Get("Content-Type") != c.kind {
				t.Errorf("headers were changed: %v", a.header)
			}
			if a.header.Get("X-Hop") != "" {
				t.Error("a header for one connection was passed on")
			}
			if ids := a.header["Fairlead-Decision-Id"]; len(ids) != 1 || ids[0] == "forged" {
				t.Errorf("the decision id is %q: the provider can set it", ids)
			}
		})
	}
	h.t = t
}

// split cuts s into pieces of n bytes, so that runes and line ends fall apart.
func split(s string, n int) (out []string) {
	for len(s) > n {
		out, s = append(out, s[:n]), s[n:]
	}
	return append(out, s)
}

func TestStreamsArriveByteForByte(t *testing.T) {
	body := delta("c", "Grüße, 世界 😀", "null") + delta("c", "!", `"stop"`) + done
	big := strings.Repeat("x", 1<<20-len(delta("c", "", "null")))
	streams := []struct {
		name     string
		pieces   []string
		complete bool // what the outcome should say
	}{
		{"LF", []string{body}, true},
		{"CRLF", []string{strings.ReplaceAll(body, "\n", "\r\n")}, true},
		{"CR", []string{strings.ReplaceAll(body, "\n", "\r")}, true},
		{"one byte at a time", split(body, 1), true},
		{"CRLF, one byte at a time", split(strings.ReplaceAll(body, "\n", "\r\n"), 1), true},
		{"three bytes at a time", split(body, 3), true},
		{"comments and fields that nobody knows", []string{": ping\n\n", "id: 7\nretry: 10\nevent: x\n" + body, ": bye\n\n"}, true},
		{"byte order mark", []string{"\xEF\xBB\xBF" + body}, true},
		{"no blank line at the end", []string{strings.TrimSuffix(body, "\n")}, true},
		{"no line end at the end", []string{strings.TrimSuffix(body, "\n\n")}, true},
		{"no [DONE], but a finish reason", []string{strings.TrimSuffix(body, done)}, true},
		{"no end at all", []string{delta("c", "Gr", "null"), delta("c", "ü", "null")}, false},
		{"nothing", []string{""}, false},
		{"an event of 1 MiB", []string{delta("c", big, "null"), body}, true},
		{"an event of 3 MiB", []string{delta("c", strings.Repeat("y", 3<<20), "null"), body}, true},
		{"data over several lines", []string{"data: {\"id\":\"c\",\ndata: \"choices\":[]}\n\n" + body}, true},
		{"an event that is not JSON", []string{"data: {oops\n\n" + body}, true},
		{"something after the end", []string{body, delta("c", "more", "null"), ": and more"}, true},
		{"blank lines", []string{"\n\n\n" + body + "\n\n"}, true},
	}
	var pieces []string
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerStream(w, pieces...) })
	h := newHarness(t, up.URL, Settings{})
	key := h.key("app")
	for i, c := range streams {
		t.Run(c.name, func(t *testing.T) {
			h.t, pieces = t, c.pieces
			a := h.post(chatPath, chatStream("hi"), "Authorization: Bearer "+key)
			if a.err != nil || a.status != http.StatusOK || a.header.Get("Content-Type") != "text/event-stream" {
				t.Fatalf("status %d, %v, %v", a.status, a.err, a.header)
			}
			want := []byte(strings.Join(c.pieces, ""))
			wantBytes(t, "what the client got", a.body, want)
			_, outcome := h.only(i)
			h.wantContent("the recorded answer", outcome, want)
			kind := outcomeUpstream
			if c.complete {
				kind = outcomeCompleted
			}
			if got := outcome.Text("fairlead.outcome"); got != kind {
				t.Errorf("the outcome says %q, want %q", got, kind)
			}
		})
	}
	h.t = t
}

func TestAnthropicStreamsArriveByteForByte(t *testing.T) {
	events := "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"m\",\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n" +
		"event: ping\ndata: {\"type\": \"ping\"}\n\n" +
		"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n" +
		"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Gr\\u00fc\u00dfe\"}}\n\n" +
		"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n" +
		"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}\n\n" +
		"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerStream(w, split(events, 7)...) })
	h := newHarness(t, up.URL, Settings{})
	a := h.post("/anthropic/v1/messages", `{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}`, "X-Api-Key: sk-ant-1", "Anthropic-Version: 2023-06-01")
	wantBytes(t, "what the client got", a.body, []byte(events))
	_, outcome := h.only(0)
	h.wantContent("the recorded answer", outcome, []byte(events))
	if in, out := outcome.Int("gen_ai.usage.input_tokens"), outcome.Int("gen_ai.usage.output_tokens"); in != 5 || out != 9 {
		t.Errorf("usage %d in, %d out, want 5 and 9", in, out)
	}
	if app := outcome.Actor.App; app.Assurance != fairlead.Derived {
		t.Errorf("the provider accepted the key, but the app is %s", app.Assurance)
	}
}

// TestNothingIsReleasedEarly holds the recording of an outcome back and looks at what was written to the client by then.
func TestNothingIsReleasedEarly(t *testing.T) {
	before, after := delta("c", "first", "null")+delta("c", "second", "null"), delta("c", "", `"stop"`)+done
	for _, c := range []struct {
		name, path, body, before string
		after                    []string
	}{
		{"whole", chatPath, chat("hi"), "", nil},
		{"streamed", chatPath, chatStream("hi"), before, []string{after}},
		{"streamed, one byte at a time", chatPath, chatStream("hi"), before, split(after, 1)},
		{"streamed, the blank line apart", chatPath, chatStream("hi"), before, []string{strings.TrimSuffix(after, "\n"), "\n"}},
		{"whole, on a path that nobody knows", "/openai/v1/completions", chat("hi"), "", nil},
		{"streamed, on a path that nobody knows", "/openai/v1/completions", chatStream("hi"), before, []string{done}},
		{"streamed, on a path that nobody knows, one byte at a time", "/openai/v1/completions", chatStream("hi"), before, split(done, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f faults
			recording, goOn := make(chan struct{}), make(chan struct{})
			up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) {
				// The intent is durable by now, so that the next commit is that of the outcome.
				f.next("before", func() error {
					close(recording)
					<-goOn
					return nil
				})
				if c.before == "" {
					answerJSON(w, completion("c", "hi"))
				} else {
					answerStream(w, append([]string{c.before}, c.after...)...)
				}
			})
			h := &harness{t: t, fault: f.call, tap: new(lockedBuffer)}
			h.prepare(up.URL)
			h.open()
			got := make(chan answer)
			go func() { got <- h.post(c.path, c.body, "Authorization: Bearer sk-client") }()
			<-recording
			wantBytes(t, "what was written before the outcome was durable", h.tap.Bytes(), []byte(c.before))
			close(goOn)
			a := <-got
			_, outcome := h.only(0)
			h.wantContent("the recorded answer", outcome, a.body)
			wantBytes(t, "what was written in all", h.tap.Bytes(), a.body)
		})
	}
}
