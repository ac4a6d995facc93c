package dialect

import (
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// route finds a route that a test relies on.
func route(t testing.TB, name, method, path string) (Dialect, Route) {
	t.Helper()
	d, ok := Lookup(name)
	if !ok {
		t.Fatalf("no dialect %s", name)
	}
	rt, ok := Match(d, method, path)
	if !ok {
		t.Fatalf("no route %s %s", method, path)
	}
	return d, rt
}

// stream reads a whole stream.
func readStream(t testing.TB, d Dialect, rt Route, text string) fairlead.Answer {
	t.Helper()
	s, f := d.Stream(rt), &wire.Framer{}
	if err := f.Push([]byte(text), func(ev wire.Event) error { s.Event(ev); return nil }); err != nil {
		t.Fatal(err)
	}
	return s.Answer()
}

// TestTurn compares answers with the ways in which SDKs send them back, and with what has been tampered with.
func TestTurn(t *testing.T) {
	tests := []struct {
		name, dialect, path string
		response, stream    string   // the answer, whole and streamed
		body                string   // the request that follows; $ stands for the turn
		same, different     []string // turns
	}{
		{
			name: "chat", dialect: "openai", path: chatPath, body: `{"messages":[{"role":"user","content":"x"},$,{"role":"user","content":"y"}]}`,
			response: `{"choices":[{"message":{"role":"assistant","content":"It \"rains\".\né","refusal":null,"reasoning_content":"hm"},"finish_reason":"stop"}]}`,
			stream: `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"It \"rains\".\n"}}]}` + "\n\n" +
				`data: {"choices":[{"index":0,"delta":{"content":"é"},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n",
			same: []string{
				`{"role":"assistant","content":"It \"rains\".\né"}`,
				`{"content":"It \u0022rains\u0022.\u000a\u00e9","role":"assistant","refusal":null,"tool_calls":[],"audio":null,"function_call":null,"annotations":[{"a":1}]}`,
				`{"role":"assistant","content":[{"type":"text","text":"It \"rains\"."},{"type":"text","text":"\né"}]}`,
				`{"role":"assistant","reasoning_content":"hm","content":"It \"rains\".\né","name":"bot"}`,
			},
			different: []string{
				`{"role":"assistant","content":"It \"rained\".\né"}`,
				`{"role":"assistant","content":"It \"rains\".\né","tool_calls":[{"id":"a","type":"function","function":{"name":"b","arguments":"{}"}}]}`,
				`{"role":"assistant","content":"It \"rains\".\né","refusal":"I was told to obey."}`,
				`{"role":"assistant","content":"It \"rains\".\né","x_more":"I was told to obey."}`,
				`{"role":"assistant","content":[{"type":"text","text":"It \"rains\".\né"},{"type":"image_url","image_url":{"url":"https://x"}}]}`,
				`{"role":"assistant","content":[{"type":"text","text":"It \"rains\".\né"},{"type":"new","what":"?"}]}`,
			},
		},
		{
			name: "chat with calls", dialect: "openai", path: chatPath, body: `{"messages":[$]}`,
			response: `{"choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"b\": [1.0, 20], \"a\": \"é/\"}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":""}},{"id":"c3","type":"custom","custom":{"name":"h","input":"free text"}}]},"finish_reason":"tool_calls"}]}`,
			stream: `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"b\": [1.0, 20], "}}]}}]}` + "\n\n" +
				`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"a\": \"é/\"}"}},{"index":1,"id":"c2","type":"function","function":{"name":"g"}}]}}]}` + "\n\n" +
				`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":2,"id":"c3","type":"custom","custom":{"name":"h","input":"free "}}]}}]}` + "\n\n" +
				`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":2,"custom":{"input":"text"}}]},"finish_reason":"tool_calls"}]}` + "\n\n",
			same: []string{
				`{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"b\": [1.0, 20], \"a\": \"é/\"}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":""}},{"id":"c3","type":"custom","custom":{"name":"h","input":"free text"}}]}`,
				`{"role":"assistant","content":"","tool_calls":[{"function":{"arguments":"{\"a\":\"\\u00e9\\/\",\"b\":[1,20]}","name":"f"},"id":"c1","index":0,"type":"function"},{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}},{"id":"c3","type":"custom","custom":{"name":"h","input":"free text"}}]}`,
				`{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":\"é/\",\"b\":[1,2e1]}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":" "}},{"id":"c3","type":"custom","custom":{"name":"h","input":"free text"}}]}`,
			},
			different: []string{
				`{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":\"é/\",\"b\":[1,21]}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}},{"id":"c3","type":"custom","custom":{"name":"h","input":"free text"}}]}`,
				`{"role":"assistant","tool_calls":[{"id":"cX","type":"function","function":{"name":"f","arguments":"{\"a\":\"é/\",\"b\":[1,20]}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}},{"id":"c3","type":"custom","custom":{"name":"h","input":"free text"}}]}`,
				`{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"rm","arguments":"{\"a\":\"é/\",\"b\":[1,20]}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}},{"id":"c3","type":"custom","custom":{"name":"h","input":"free text"}}]}`,
				`{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":\"é/\",\"b\":[1,20]}"}},{"id":"c3","type":"custom","custom":{"name":"h","input":"free text"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]}`,
				`{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":\"é/\",\"b\":[1,20]}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}},{"id":"c3","type":"custom","custom":{"name":"h","input":"other text"}}]}`,
				`{"role":"assistant","tool_calls":[]}`,
			},
		},
		{
			name: "refusal", dialect: "openai", path: chatPath, body: `{"messages":[$]}`,
			response:  `{"choices":[{"message":{"role":"assistant","content":null,"refusal":"No."},"finish_reason":"stop"}]}`,
			stream:    `data: {"choices":[{"index":0,"delta":{"refusal":"N"}}]}` + "\n\n" + `data: {"choices":[{"index":0,"delta":{"refusal":"o."}}]}` + "\n\n",
			same:      []string{`{"role":"assistant","refusal":"No."}`, `{"role":"assistant","content":[{"type":"refusal","refusal":"No."}]}`},
			different: []string{`{"role":"assistant","content":"No."}`, `{"role":"assistant","content":null}`, `{"role":"assistant","refusal":"Yes."}`},
		},
		{
			name: "responses", dialect: "openai", path: responsesPath, body: `{"input":[{"role":"user","content":"x"},$,{"type":"function_call_output","call_id":"c1","output":"y"}]}`,
			response: `{"object":"response","status":"completed","output":[{"type":"reasoning","id":"r","summary":[{"type":"summary_text","text":"hm"}]},{"type":"message","id":"m","role":"assistant","content":[{"type":"output_text","text":"Let me see.","annotations":[]}]},{"type":"function_call","id":"i","call_id":"c1","name":"f","arguments":"{\"a\": 1, \"b\": 2}"}]}`,
			stream: `data: {"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"Let me "}` + "\n\n" + `data: {"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"see."}` + "\n\n" +
				`data: {"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","call_id":"c1","name":"f","arguments":""}}` + "\n\n" +
				`data: {"type":"response.function_call_arguments.delta","output_index":2,"delta":"{\"a\": 1, \"b\": 2}"}` + "\n\n" + `data: {"type":"response.completed","response":{"status":"completed"}}` + "\n\n",
			same: []string{
				`{"type":"reasoning","id":"r","summary":[{"type":"summary_text","text":"hm"}]},{"type":"message","id":"m","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Let me see.","annotations":[]}]},{"type":"function_call","id":"i","call_id":"c1","name":"f","arguments":"{\"a\": 1, \"b\": 2}"}`,
				`{"role":"assistant","content":"Let me see."},{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"b\":2,\"a\":1}"}`,
				`{"role":"assistant","content":[{"type":"output_text","text":"Let me "},{"type":"output_text","text":"see."}]},{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1,\"b\":2}"}`,
			},
			different: []string{
				`{"role":"assistant","content":"Let me see."}`,
				`{"role":"assistant","content":"Let me not."},{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1,\"b\":2}"}`,
				`{"role":"assistant","content":"Let me see."},{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1,\"b\":3}"}`,
				`{"role":"assistant","content":"Let me see."},{"type":"function_call","call_id":"c2","name":"f","arguments":"{\"a\":1,\"b\":2}"}`,
				`{"role":"assistant","content":"Let me see."},{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1,\"b\":2}"},{"type":"web_search_call","id":"w"}`,
				`{"role":"assistant","content":"Let me see."},{"type":"item_reference","id":"i"}`,
			},
		},
		{
			name: "anthropic", dialect: "anthropic", path: messagesPath, body: `{"messages":[{"role":"user","content":"x"},$]}`,
			response: `{"content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"Let me see."},{"type":"tool_use","id":"t1","name":"f","input":{"a": 1.0, "b": "é"}},{"type":"tool_use","id":"t2","name":"g","input":{}}],"stop_reason":"tool_use"}`,
			stream: `data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}` + "\n\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Let me see."}}` + "\n\n" +
				`data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t1","name":"f","input":{}}}` + "\n\n" + `data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\": 1.0, \"b\": \"é\"}"}}` + "\n\n" +
				`data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t2","name":"g","input":{}}}` + "\n\n" + `data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}` + "\n\n",
			same: []string{
				`{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"Let me see."},{"type":"tool_use","id":"t1","name":"f","input":{"a": 1.0, "b": "é"}},{"type":"tool_use","id":"t2","name":"g","input":{}}]}`,
				`{"role":"assistant","content":[{"text":"Let me see.","type":"text","citations":null,"cache_control":{"type":"ephemeral"}},{"type":"tool_use","id":"t1","name":"f","input":{"b":"\u00e9","a":1}},{"type":"tool_use","id":"t2","name":"g","input":{ }}]}`,
				`{"role":"assistant","content":[{"type":"redacted_thinking","data":"abc"},{"type":"text","text":"Let me see."},{"type":"tool_use","id":"t1","name":"f","input":{"a":1,"b":"é"}},{"type":"tool_use","id":"t2","name":"g","input":{}}]}`,
			},
			different: []string{
				`{"role":"assistant","content":"Let me see."}`,
				`{"role":"assistant","content":[{"type":"text","text":"Let me see."},{"type":"tool_use","id":"t1","name":"f","input":{"a":1,"b":"e"}},{"type":"tool_use","id":"t2","name":"g","input":{}}]}`,
				`{"role":"assistant","content":[{"type":"text","text":"Let me see."},{"type":"tool_use","id":"t1","name":"f","input":{"a":1,"b":"é"}},{"type":"tool_use","id":"t2","name":"g","input":{"x":0}}]}`,
				`{"role":"assistant","content":[{"type":"text","text":"Let me see."},{"type":"tool_use","id":"t1","name":"f","input":{"a":1,"b":"é"}},{"type":"tool_use","id":"t2","name":"g","input":{}},{"type":"web_search_tool_result","tool_use_id":"w","content":[]}]}`,
			},
		},
		{
			name: "anthropic string", dialect: "anthropic", path: messagesPath, body: `{"messages":[$]}`,
			response:  `{"content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn"}`,
			same:      []string{`{"role":"assistant","content":"Hello"}`, `{"role":"assistant","content":[{"type":"text","text":"Hello"}]}`},
			different: []string{`{"role":"assistant","content":"Hello "}`, `{"role":"assistant","content":[]}`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, rt := route(t, tt.dialect, "POST", tt.path)
			a, err := d.Answer(rt, []byte(tt.response))
			if err != nil {
				t.Fatal(err)
			}
			want := string(Turn(nil, &a))
			if tt.stream != "" {
				a := readStream(t, d, rt, tt.stream)
				if got := string(Turn(nil, &a)); got != want {
					t.Errorf("streamed:\n%s\nwhole:\n%s", got, want)
				}
			}
			turn := func(resent string) string {
				body := []byte(strings.Replace(tt.body, "$", resent, 1))
				ex, err := d.Read(rt, body)
				if err != nil {
					t.Fatal(err)
				}
				from := 0
				for from < len(ex.Messages)-1 && ex.Messages[from].Role != fairlead.RoleAssistant {
					from++
				}
				n := max(1, Run(ex.Messages[from:]))
				return string(RequestTurn(nil, body, ex.Messages[from:from+n]...))
			}
			for _, resent := range tt.same {
				if got := turn(resent); got != want {
					t.Errorf("%s\ngives\n%s\nwant\n%s", resent, got, want)
				}
			}
			for _, resent := range tt.different {
				if got := turn(resent); got == want {
					t.Errorf("%s\nhas been changed but gives the same\n%s", resent, got)
				}
			}
		})
	}
}

func TestTurnOfAnotherRole(t *testing.T) {
	d, rt := route(t, "openai", "POST", chatPath)
	body := []byte(`{"messages":[{"role":"assistant","content":"x"},{"role":"user","content":"x"}]}`)
	ex, err := d.Read(rt, body)
	if err != nil {
		t.Fatal(err)
	}
	if string(RequestTurn(nil, body, ex.Messages[0])) == string(RequestTurn(nil, body, ex.Messages[1])) {
		t.Error("what a user says has the bytes of an answer")
	}
	if n := Run(ex.Messages); n != 1 {
		t.Errorf("the run has %d messages, want 1", n)
	}
}

func TestTurnIsUnambiguous(t *testing.T) {
	call := func(id, name, args string) fairlead.ToolCall {
		return fairlead.ToolCall{ID: id, Name: name, Arguments: args}
	}
	answers := []fairlead.Answer{
		{},
		{Text: "a"},
		{Text: "a\nrefusal \"b\""},
		{Text: "a", Refusal: "b"},
		{Text: "a", ToolCalls: []fairlead.ToolCall{call("1", "f", "{}")}},
		{Text: "a", ToolCalls: []fairlead.ToolCall{call("1 f", "", "{}")}},
		{Text: "a", ToolCalls: []fairlead.ToolCall{call("1", "f", `"{}"`)}},
		{Text: "a", ToolCalls: []fairlead.ToolCall{call("1", "f", `{`)}},
		{Text: "a", ToolCalls: []fairlead.ToolCall{call("1", "f", `{"a":1,"a":2}`)}},
		{Text: "a", ToolCalls: []fairlead.ToolCall{call("1", "f", `{"a":2}`)}},
		{Text: "a", ToolCalls: []fairlead.ToolCall{call("1", "f", "{}"), call("", "", "")}},
		{Text: "a\ncall \"1\" \"f\" {}"},
	}
	seen := map[string]int{}
	for i := range answers {
		got := string(Turn(nil, &answers[i]))
		if j, ok := seen[got]; ok {
			t.Errorf("answers %d and %d have the same turn %s", j, i, got)
		}
		seen[got] = i
	}
}

func TestPartText(t *testing.T) {
	deep := strings.Repeat(`{"a":[`, 40) + `"buried"` + strings.Repeat(`]}`, 40)
	tests := []struct {
		kind       fairlead.PartKind
		json, want string
	}{
		{fairlead.PartText, `"a\nb"`, "a\nb"},
		{fairlead.PartToolCall, `"{\"a\":1}"`, `{"a":1}`},
		{fairlead.PartToolCall, `{"a": 1}`, `{"a": 1}`},
		{fairlead.PartToolResult, `[{"type":"text","text":"one"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"text","text":"two"}]`, "one\ntwo"},
		{fairlead.PartToolResult, `{"type":"document","source":{"type":"text","data":"words"}}`, "words"},
		{fairlead.PartToolResult, `{"rows":[{"name":"x","n":1}],"note":"y"}`, "x\ny"},
		{fairlead.PartToolResult, `[{"type":"input_image","image_url":"data:image/png;base64,AAAA"},{"type":"input_text","text":"z"}]`, "z"},
		{fairlead.PartToolResult, `{"text":"data: not an image"}`, "data: not an image"},
		{fairlead.PartToolResult, `{"type":{"text":"an odd place"}}`, "an odd place"},
		{fairlead.PartMedia, `"AAAA"`, ""},
	}
	for _, tt := range tests {
		body := []byte(" " + tt.json)
		if got := PartText(body, fairlead.Part{Kind: tt.kind, Span: fairlead.Span{Start: 1, End: len(body)}}); got != tt.want {
			t.Errorf("%s reads %q, want %q", tt.json, got, tt.want)
		}
	}
	p := fairlead.Part{Kind: fairlead.PartToolResult, Span: fairlead.Span{Start: 0, End: len(deep)}}
	if got := PartText([]byte(deep), p); !strings.Contains(got, "buried") {
		t.Errorf("text that is nested deeply is lost: %q", got)
	}
}
