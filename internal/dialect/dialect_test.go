package dialect

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		method, path string
		want, model  string
	}{
		{"POST", "/v1/chat/completions", "/v1/chat/completions", ""},
		{"GET", "/v1/models", "/v1/models", ""},
		{"GET", "/v1/models/ft:gpt-4.1:acme::x", "/v1/models/{model}", "ft:gpt-4.1:acme::x"},
		{"GET", "/v1/chat/completions", "", ""},
		{"POST", "/v1/chat/completions/", "", ""},
		{"POST", "//v1/chat/completions", "", ""},
		{"POST", "/v1/x/../chat/completions", "", ""},
		{"POST", "/V1/chat/completions", "", ""},
		{"POST", "/v1/chat%2fcompletions", "", ""},
		{"GET", "/v1/models/", "", ""},
		{"GET", "/v1/models/..", "", ""},
		{"GET", "/v1/models/.", "", ""},
		{"GET", "/v1/models/a/b", "", ""},
		{"GET", "/v1/models/..%2ffiles", "", ""},
		{"GET", `/v1/models/..\files`, "", ""},
		{"GET", "/v1/models/a?b", "", ""},
		{"GET", "/v1/models/a\r\nb", "", ""},
		{"GET", "/v1/files", "", ""},
	}
	d, _ := Lookup("openai")
	for _, tt := range tests {
		rt, ok := Match(d, tt.method, tt.path)
		if ok != (tt.want != "") || rt.Path != tt.want || rt.Model != tt.model {
			t.Errorf("%s %q matches %q with model %q, want %q with %q", tt.method, tt.path, rt.Path, rt.Model, tt.want, tt.model)
		}
	}
	if _, ok := Lookup("no such dialect"); ok {
		t.Error("found a dialect that is not there")
	}
}

func TestReadRefuses(t *testing.T) {
	tests := []struct{ dialect, path, body, fault string }{
		{"openai", chatPath, ``, "value is expected"},
		{"openai", chatPath, `{"model":"cheap","model":"dear"}`, "same name"},
		{"openai", chatPath, `{"model":"cheap","mod\u0065l":"dear"}`, "same name"},
		{"openai", chatPath, `[]`, "must be a JSON object"},
		{"openai", chatPath, `{"model":["a"]}`, `"model" must be a string`},
		{"openai", chatPath, `{"stream":"true"}`, `"stream" must be`},
		{"openai", chatPath, `{"stream":1}`, `"stream" must be`},
		{"openai", chatPath, `{"messages":{}}`, `"messages" must be an array`},
		{"openai", chatPath, `{"messages":[{},7]}`, "number 1 is none"},
		{"openai", responsesPath, `{"input":7}`, `"input" must be an array`},
		{"openai", chatPath, `{"messages":[` + strings.Repeat(`{},`, maxMessages) + `{}]}`, "more than"},
		{"openai", chatPath, `{"messages":[{"content":[` + strings.Repeat(`{},`, maxParts) + `{}]}]}`, "more than"},
		{"openai", chatPath, `{"tools":[` + strings.Repeat(`0,`, maxParts) + `0]}`, "more than"},
		{"anthropic", messagesPath, `{"messages":[{"role":"user","content":[` + strings.Repeat(`0,`, maxParts) + `0]}]}`, "more than"},
		{"anthropic", messagesPath, `{"messages":"x"}`, `"messages" must be an array`},
	}
	for _, tt := range tests {
		d, rt := route(t, tt.dialect, "POST", tt.path)
		_, err := d.Read(rt, []byte(tt.body))
		if err == nil || !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%.60s: got %v, want an error that mentions %q", tt.body, err, tt.fault)
		}
	}
	d, rt := route(t, "openai", "GET", "/v1/models")
	if _, err := d.Read(rt, []byte("{}")); err == nil {
		t.Error("a GET request with a body was accepted")
	}
	var syntax *wire.SyntaxError
	d, rt = route(t, "anthropic", "POST", messagesPath)
	if _, err := d.Read(rt, []byte("{")); !errors.As(err, &syntax) {
		t.Errorf("got %v, want a syntax error", err)
	}
	if _, err := d.Answer(rt, []byte("<html>")); !errors.As(err, &syntax) {
		t.Errorf("got %v, want a syntax error", err)
	}
}

// TestAnswerOfOtherShape gives answers that nobody documents. They must be taken, and none is complete.
func TestAnswerOfOtherShape(t *testing.T) {
	for _, name := range Names() {
		d, _ := Lookup(name)
		for _, rt := range d.Routes() {
			for _, body := range []string{`null`, `[]`, `"x"`, `{}`, `{"choices":{}}`, `{"choices":[{}]}`, `{"choices":[7]}`, `{"output":[7,{}],"status":7}`,
				`{"content":[7,{"type":"tool_use"}]}`, `{"error":"no"}`, `{"error":{"message":"no"}}`, `{"usage":[],"id":7}`} {
				a, err := d.Answer(rt, []byte(body))
				if err != nil || a.Complete {
					t.Errorf("%s %s: %s gives complete=%v, error %v", name, rt.Path, body, a.Complete, err)
				}
				if strings.Contains(body, "error") && a.ErrorType == "" {
					t.Errorf("%s %s: the error in %s is not seen", name, rt.Path, body)
				}
			}
		}
	}
}

// TestHeld gives events one by one, and demands that the first that may end an answer is held, and all after it.
func TestHeld(t *testing.T) {
	const text = `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}`
	tests := []struct {
		name, dialect, path string
		before              []string // NAME|DATA, released
		end                 string   // held
	}{
		{"done", "openai", chatPath, []string{"|", `|{"choices":[{"delta":{"content":"x"},"finish_reason":null}]}`}, "|[DONE]"},
		{"done with more", "openai", chatPath, nil, "|[DONE] x"},
		{"finish", "openai", chatPath, []string{`|{"choices":[{"delta":{}}]}`}, `|{"choices":[{"delta":{},"finish_reason":"stop"}]}`},
		{"second choice", "openai", chatPath, nil, `|{"choices":[{"index":0,"finish_reason":null},{"index":1,"finish_reason":"stop"}]}`},
		{"error", "openai", chatPath, nil, `|{"error":{"message":"no"}}`},
		{"malformed", "openai", chatPath, []string{"|{\"choices\":[{\"delta\":{\"content\":\"\xff\"},\"finish_reason\":null}]}", "|ping"},
			`|{"choices":[{"finish_reason":null,"finish_reason":"stop"}]}`},
		{"completed", "openai", responsesPath, []string{`|{"type":"response.output_text.done"}`}, `|{"type":"response.completed"}`},
		{"completed by name", "openai", responsesPath, nil, `response.completed|{"x":0}`},
		{"failed", "openai", responsesPath, nil, `|{"type":"response.failed"}`},
		{"error event", "openai", responsesPath, nil, `error|{"type":"error","code":"x"}`},
		{"malformed completed", "openai", responsesPath, []string{`|{"type":"response.output_text.delta"`}, `|{"type":"response.completed"`},
		{"stop reason", "anthropic", messagesPath, []string{"|" + text, `ping|{"type":"ping"}`, `message_delta|{"type":"message_delta","delta":{"stop_reason":null}}`},
			`message_delta|{"type":"message_delta","delta":{"stop_reason":"end_turn"}}`},
		{"stop", "anthropic", messagesPath, []string{"content_block_delta|" + text}, `|{"type":"message_stop"}`},
		{"stop by name", "anthropic", messagesPath, nil, `message_stop|`},
		{"stop by name, with another type", "anthropic", messagesPath, nil, `message_stop|{"type":"x"}`},
		{"malformed stop", "anthropic", messagesPath, []string{`|{"type":"content_block_delta"`}, `|{"type":"message_delta"`},
		{"anthropic error", "anthropic", messagesPath, nil, `error|{}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, rt := route(t, tt.dialect, "POST", tt.path)
			s := d.Stream(rt)
			give := func(e string) bool {
				name, data, _ := strings.Cut(e, "|")
				return s.Event(wire.Event{Name: []byte(name), Data: []byte(data)})
			}
			for _, e := range tt.before {
				if give(e) {
					t.Fatalf("%s is held", e)
				}
			}
			if !give(tt.end) {
				t.Errorf("%s is not held", tt.end)
			}
			if !give("|" + text) {
				t.Error("what comes after it is not held")
			}
			if strings.HasPrefix(tt.name, "malformed") && s.Answer().ErrorType != malformedEvent {
				t.Errorf("the error is %q", s.Answer().ErrorType)
			}
		})
	}
}

// TestRefuse checks refusals for what the SDKs look at: the status, the headers that stop them from trying again, and
// the shape from which they make their error.
func TestRefuse(t *testing.T) {
	r := Refusal{Status: 403, Code: "policy_denied", Message: "The tool \"rm\" is not allowed.\nAsk for it.", DecisionID: "b-7"}
	for _, name := range Names() {
		d, _ := Lookup(name)
		status, header, body := d.Refuse(r)
		var e struct {
			Type  string
			Error struct{ Type, Message, Code string }
		}
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatalf("%s: %v in %s", name, err, body)
		}
		if status != 403 || header.Get("Content-Type") != "application/json" || header.Get("X-Should-Retry") != "false" || header.Get("Retry-After") != "" {
			t.Errorf("%s: status %d, header %v", name, status, header)
		}
		if e.Error.Type != "permission_error" || e.Error.Message != r.Message || e.Error.Code != r.Code || !strings.Contains(string(body), "b-7") {
			t.Errorf("%s: %s", name, body)
		}
		for _, rt := range d.Routes() {
			if rt.Method != http.MethodPost {
				continue
			}
			if a, err := d.Answer(rt, body); err != nil || a.ErrorType != "permission_error" || a.Complete {
				t.Errorf("%s: our own refusal reads %+v, %v", name, a, err)
			}
			event := d.RefuseEvent(rt, r)
			if strings.Contains(string(event), "[DONE]") || !strings.HasSuffix(string(event), "\n\n") || strings.Count(string(event), "\n\n") != 1 {
				t.Errorf("%s %s: %q is not one event", name, rt.Path, event)
			}
			if rt.Op == fairlead.OpChat {
				if a := readStream(t, d, rt, string(event)); a.ErrorType == "" || a.ErrorType == malformedEvent || a.Complete {
					t.Errorf("%s %s: the event reads %+v", name, rt.Path, a)
				}
			}
			if _, data, _ := strings.Cut(string(event), "data: "); json.Unmarshal([]byte(data), &e) != nil || e.Error.Message != r.Message {
				t.Errorf("%s %s: %q", name, rt.Path, event)
			}
		}
		_, header, _ = d.Refuse(Refusal{Status: 429, Retry: true, RetryAfter: 1500 * time.Millisecond})
		if header.Get("X-Should-Retry") != "true" || header.Get("Retry-After") != "2" {
			t.Errorf("%s: header %v", name, header)
		}
	}
	for name, code := range map[string]string{"openai": `"code":"previous_response_not_found"`, "anthropic": `"details":{"error_code":"thread_not_found"}`} {
		d, _ := Lookup(name)
		if status, _, body := d.Refuse(Refusal{Status: 403, Code: "x", Resend: true}); status != 404 || !strings.Contains(string(body), code) || !json.Valid(body) {
			t.Errorf("%s: to have all sent again, %d %s", name, status, body)
		}
	}
	want := map[int][2]string{
		0: {"permission_error", "permission_error"}, 400: {"invalid_request_error", "invalid_request_error"}, 401: {"authentication_error", "authentication_error"},
		404: {"invalid_request_error", "not_found_error"}, 413: {"invalid_request_error", "request_too_large"}, 429: {"rate_limit_error", "rate_limit_error"},
		502: {"server_error", "api_error"}, 503: {"server_error", "overloaded_error"}, 504: {"server_error", "timeout_error"},
	}
	for status, types := range want {
		for i, name := range []string{"openai", "anthropic"} {
			d, _ := Lookup(name)
			if _, _, body := d.Refuse(Refusal{Status: status}); !strings.Contains(string(body), `"type":"`+types[i]+`"`) {
				t.Errorf("%s: %d gives %s, want %s", name, status, body, types[i])
			}
		}
	}
}

// TestLinear reads bodies that make a careless reader quadratic, within a time that only linear work can keep.
func TestLinear(t *testing.T) {
	var tools strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&tools, `,{"type":"function","name":"t%d","function":{"name":"t%d"}}`, i, i)
	}
	big := strings.Repeat(`{\"a\": [1, 2, {\"c\": \"text\"}]},`, 300_000)
	start := time.Now()
	for _, name := range Names() {
		d, _ := Lookup(name)
		for _, rt := range d.Routes() {
			if rt.Method != http.MethodPost {
				continue
			}
			ex, err := d.Read(rt, []byte(`{"tools":[`+tools.String()[1:]+`]}`))
			if err != nil || rt.Op == fairlead.OpChat && len(ex.Tools)+len(ex.HostedTools) != 100_000 {
				t.Errorf("%s %s: %d tools, %v", name, rt.Path, len(ex.Tools), err)
			}
		}
	}
	d, rt := route(t, "openai", "POST", chatPath)
	body := []byte(`{"messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"[` + big + `0]"}}]}]}`)
	ex, err := d.Read(rt, body)
	if err != nil {
		t.Fatal(err)
	}
	resent := RequestTurn(nil, body, ex.Messages...)
	s := d.Stream(rt)
	give := func(arguments string) {
		s.Event(wire.Event{Data: []byte(`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"` + arguments + `"}}]}}]}`)})
	}
	give("[")
	for rest := big; rest != ""; rest = rest[min(350, len(rest)):] { // a multiple of the pattern, so that no escape is cut
		give(rest[:min(350, len(rest))])
	}
	give("0]")
	a := s.Answer()
	if string(Turn(nil, &a)) != string(resent) {
		t.Error("streamed arguments differ from those sent back")
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":"u"}]}],"tools":[{"type":"mcp"}]}`,
		`{"input":[{"type":"function_call","call_id":"c","arguments":"{}"},{"type":"reasoning","summary":[]},{"id":"x"}],"conversation":{"id":"c"}}`,
		`{"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"source":{"url":"u"}}]},{"type":"document","source":{"type":"content","content":[{"type":"text","text":"x"}]}}]}]}`,
		`{"choices":[{"message":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}`,
		`{"object":"response","output":[{"type":"custom_tool_call","input":"x"}],"status":"completed"}`,
		`{"content":[{"type":"tool_use","input":{"a":[{"b":{}}]}},{"type":"redacted_thinking","data":"x"}],"stop_reason":"x","usage":{"input_tokens":1}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, name := range Names() {
			d, _ := Lookup(name)
			for _, rt := range d.Routes() {
				if ex, err := d.Read(rt, body); err == nil {
					tile(t, body, ex)
					for _, m := range ex.Messages {
						for _, p := range m.Parts {
							PartText(body, p)
						}
					}
					RequestTurn(nil, body, ex.Messages...)
				}
				if a, err := d.Answer(rt, body); err == nil {
					Turn(nil, &a)
				}
			}
		}
	})
}

func FuzzStream(f *testing.F) {
	for _, s := range []string{
		"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\",\"tool_calls\":[{\"id\":\"c\",\"function\":{\"arguments\":\"{\"}}]},\"finish_reason\":null}]}\n\ndata: [DONE]\n\n",
		"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[{}],\"status\":\"completed\"}}\n\n",
		"data: {\"type\":\"response.output_item.added\",\"output_index\":-1,\"item\":{\"type\":\"function_call\",\"arguments\":\"\"}}\n\n",
		"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"input\":{}}}\n\nevent: message_stop\ndata: {}\n\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range Names() {
			d, _ := Lookup(name)
			for _, rt := range d.Routes() {
				s, fr := d.Stream(rt), &wire.Framer{}
				held := false
				emit := func(ev wire.Event) error {
					hold := s.Event(ev)
					if held && !hold {
						t.Error("an event is released behind one that is held")
					}
					held = hold
					return nil
				}
				if fr.Push([]byte(text), emit) == nil && fr.Close(emit) == nil {
					a := s.Answer()
					if a.Complete && !held {
						t.Error("the answer is complete, but nothing was held")
					}
					if len(a.Text)+len(a.Reasoning) > 3*len(text) {
						t.Errorf("%d bytes of text came out of %d", len(a.Text), len(text))
					}
				}
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	d, rt := route(b, "openai", "POST", chatPath)
	var body strings.Builder
	body.WriteString(`{"model":"m","messages":[{"role":"system","content":"x"}`)
	for i := 0; body.Len() < 30<<10; i++ {
		fmt.Fprintf(&body, `,{"role":"user","content":%q}`, strings.Repeat("Some \"text\" that goes on.\n", 40))
	}
	body.WriteString("]}")
	src := []byte(body.String())
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Read(rt, src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStreamEvent(b *testing.B) {
	d, rt := route(b, "openai", "POST", chatPath)
	s := d.Stream(rt)
	ev := wire.Event{Data: []byte(`{"id":"chatcmpl-2","object":"chat.completion.chunk","created":1741570283,"model":"gpt-4.1","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null}`)}
	b.ReportAllocs()
	for b.Loop() {
		s.Event(ev)
	}
}

// TestSystemPromptAndBound: what the operator says outside the messages is found, and how long an answer may be.
func TestSystemPromptAndBound(t *testing.T) {
	for _, c := range []struct {
		dialect, path, body, system string
		max                         int64
	}{
		{"openai", chatPath, `{"model":"m","max_tokens":7,"n":3,"messages":[]}`, "", 21},
		{"openai", chatPath, `{"model":"m","max_completion_tokens":9,"max_tokens":7,"messages":[]}`, "", 9},
		{"openai", responsesPath, `{"model":"m","instructions":"Be kind.","max_output_tokens":5,"input":"x"}`, "Be kind.", 5},
		{"anthropic", "/v1/messages", `{"model":"m","max_tokens":4,"system":"Be brief.","messages":[]}`, "Be brief.", 4},
		{"anthropic", "/v1/messages", `{"model":"m","max_tokens":-4,"system":[{"type":"text","text":"Be "},{"type":"text","text":"brief."}],"messages":[]}`, "Be brief.", 0},
		{"anthropic", "/v1/messages", `{"model":"m","max_tokens":99999999999,"messages":[]}`, "", 1 << 31},
	} {
		d, _ := Lookup(c.dialect)
		rt, ok := Match(d, "POST", c.path)
		if !ok {
			t.Fatal(c.path)
		}
		x, err := d.Read(rt, []byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		system := ""
		for _, p := range x.Instructions {
			system += PartText([]byte(c.body), p)
		}
		if system != c.system || x.MaxOutput != c.max {
			t.Errorf("%s: system prompt %q and %d tokens, want %q and %d", c.body, system, x.MaxOutput, c.system, c.max)
		}
	}
}
