package dialect

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// withholdFiles are the golden files, and what is in them.
var withholdFiles = []struct {
	file, dialect, path string
	stream              bool
}{
	{"chat", "openai", chatPath, false},
	{"chat-stream", "openai", chatPath, true},
	{"responses", "openai", responsesPath, false},
	{"responses-stream", "openai", responsesPath, true},
	{"anthropic", "anthropic", messagesPath, false},
	{"anthropic-stream", "anthropic", messagesPath, true},
}

// TestWithhold rewrites recorded answers, and demands that they read as promised.
func TestWithhold(t *testing.T) {
	for _, f := range withholdFiles {
		file := filepath.Join("testdata", "withhold", f.file+".txtar")
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d, rt := route(t, f.dialect, "POST", f.path)
		files := map[string]string{}
		for _, part := range archive.Files {
			files[part.Name] = string(part.Data)
		}
		out := &txtar.Archive{Comment: archive.Comment}
		for _, part := range archive.Files {
			name, ok := strings.CutSuffix(part.Name, "/in")
			if !ok {
				continue
			}
			t.Run(f.file+"/"+name, func(t *testing.T) {
				in, refused := files[name+"/in"], parseRefused(t, files[name+"/refused"])
				var got string
				if f.stream {
					got, err = withholdStream(t, d, rt, in, refused)
				} else {
					got, err = withholdBody(t, d, rt, in, refused)
				}
				if err != nil {
					got = "error: " + err.Error() + "\n"
				}
				if diff := cmp.Diff(files[name+"/out"], got); diff != "" && !*update {
					t.Errorf("the output differs (-want +got):\n%s", diff)
				}
				for _, p := range [...][2]string{{"/refused", files[name+"/refused"]}, {"/in", in}, {"/out", got}} {
					out.Files = append(out.Files, txtar.File{Name: name + p[0], Data: []byte(p[1])})
				}
			})
		}
		if *update {
			if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestWithholdAnySubset refuses every set of calls of the recorded answers, and demands that each comes out as promised.
func TestWithholdAnySubset(t *testing.T) {
	for _, f := range withholdFiles {
		archive, err := txtar.ParseFile(filepath.Join("testdata", "withhold", f.file+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		d, rt := route(t, f.dialect, "POST", f.path)
		for i, part := range archive.Files {
			if !strings.HasSuffix(part.Name, "/in") || strings.HasPrefix(string(archive.Files[i+1].Data), "error: ") {
				continue
			}
			in := string(part.Data)
			n, rewrite := 0, withholdBody
			if f.stream {
				s, _, _ := holdingTools(t, d, rt, in)
				n, rewrite = len(s.Answer().ToolCalls), withholdStream
			} else {
				a, _ := d.Answer(rt, []byte(in))
				n = len(a.ToolCalls)
			}
			for pattern := range uint64(1) << n {
				if _, err := rewrite(t, d, rt, in, subset(n, pattern)); err != nil || t.Failed() {
					t.Fatalf("%s/%s without the calls %b: %v", f.file, part.Name, pattern, err)
				}
			}
		}
	}
}

// TestStreamedCallsAreTheSame reads the same answers whole and streamed.
func TestStreamedCallsAreTheSame(t *testing.T) {
	in := map[string]string{}
	for _, f := range withholdFiles {
		archive, err := txtar.ParseFile(filepath.Join("testdata", "withhold", f.file+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range archive.Files {
			in[f.file+"/"+strings.TrimSuffix(part.Name, "/in")] = string(part.Data)
		}
	}
	for _, f := range withholdFiles {
		if f.stream {
			continue
		}
		names := []string{"none-left", "text-before", "text-between"}
		if f.file == "chat" {
			names = []string{"none-left", "text-before", "two-choices", "legacy", "custom"}
		}
		d, rt := route(t, f.dialect, "POST", f.path)
		for _, name := range names {
			whole, err := d.Answer(rt, []byte(in[f.file+"/"+name]))
			if err != nil || len(whole.ToolCalls) == 0 {
				t.Fatalf("%s/%s: %v, %v", f.file, name, whole, err)
			}
			streamed := readStream(t, d, rt, in[f.file+"-stream/"+name])
			if diff := cmp.Diff(whole.ToolCalls, streamed.ToolCalls); diff != "" {
				t.Errorf("%s/%s: the calls differ (-whole +streamed):\n%s", f.file, name, diff)
			}
		}
	}
}

// TestNoCallHides gives answers that are odd, but from which some client would take a call.
func TestNoCallHides(t *testing.T) {
	const chunk = "data: "
	tests := []struct {
		dialect, path, body string
		names               []string
	}{
		{"openai", chatPath, `{"error":{"message":"x"},"choices":[{"message":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]}}]}`, []string{"f"}},
		{"openai", chatPath, `{"choices":[{"message":{"tool_calls":[{"id":"a","function":{"name":"f"}}],"function_call":{"name":"g"}}}]}`, []string{"f", "g"}},
		{"openai", chatPath, `{"choices":[{"message":{"tool_calls":{"id":"a"}}}]}`, []string{""}},
		{"openai", chatPath, chunk + `{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}},{"index":0,"id":"b","function":{"name":"g"}}]}}]}`, []string{"f", "g"}},
		{"openai", chatPath, chunk + `{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}},{"index":0,"id":"b","function":{"name":"f"}}]}}]}`, []string{"f", "f"}},
		{"openai", chatPath, chunk + `{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}},{"index":0,"id":"b","function":{"arguments":"{}"}}]}}]}`, []string{"f"}},
		{"openai", responsesPath, `{"error":{"message":"x"},"output":[{"type":"function_call","call_id":"a","name":"f"}]}`, []string{"f"}},
		{"openai", responsesPath, `{"output":[{"type":"computer_call","call_id":"a","actions":[]},{"type":"new_call"},{"type":"mcp_approval_request","server_label":"s","name":"f"}]}`, []string{"computer", "new", "mcp:s/f"}},
		{"openai", responsesPath, chunk + `{"type":"response.output_text.delta","output_index":0,"delta":"x"}` + "\n\n" + chunk + `{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"a","name":"f","arguments":"{}"}}` +
			"\n\n" + chunk + `{"type":"response.output_item.done","output_index":0,"item":{"type":"function_call","call_id":"b","name":"g","arguments":"{}"}}`, []string{"f", "g"}},
		{"openai", responsesPath, chunk + `{"type":"response.output_item.done","output_index":0,"item":{"type":"function_call","call_id":"a","name":"f","arguments":"{}"}}` + "\n\n" +
			chunk + `{"type":"response.completed","response":{"output":[{"type":"function_call","call_id":"a","name":"f","arguments":"{\"other\":1}"}]}}`, []string{"f", "f"}},
		{"openai", responsesPath, chunk + `{"type":"response.output_item.done","output_index":7,"item":{"type":"function_call","call_id":"a","name":"f","arguments":"{ }"}}` + "\n\n" +
			chunk + `{"type":"response.completed","response":{"output":[{"type":"function_call","call_id":"a","name":"f","arguments":"{}"}]}}`, []string{"f"}},
		{"anthropic", messagesPath, `{"error":{"type":"x"},"content":[{"type":"tool_use","id":"a","name":"f","input":{}}]}`, []string{"f"}},
		{"anthropic", messagesPath, chunk + `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"x"}}` + "\n\n" +
			chunk + `{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a","name":"f"}}`, []string{"f"}},
	}
	for _, tt := range tests {
		d, rt := route(t, tt.dialect, "POST", tt.path)
		var a fairlead.Answer
		if strings.HasPrefix(tt.body, chunk) {
			a = readStream(t, d, rt, tt.body+"\n\n")
		} else {
			var err error
			if a, err = d.Answer(rt, []byte(tt.body)); err != nil {
				t.Fatal(err)
			}
		}
		var names []string
		for _, c := range a.ToolCalls {
			names = append(names, c.Name)
		}
		if !slices.Equal(names, tt.names) {
			t.Errorf("%s has the calls %q, want %q", tt.body, names, tt.names)
		}
	}
}

// TestHoldTools demands that events are held from the first piece of a call on, and not earlier.
func TestHoldTools(t *testing.T) {
	tests := []struct {
		name, dialect, path string
		free                []string
		held                string
	}{
		{"call", "openai", chatPath, []string{`{"choices":[{"delta":{"content":"x","tool_calls":[]}}]}`, `{"choices":[{"delta":{"tool_calls":null}}]}`},
			`{"choices":[{"delta":{"content":"x","tool_calls":[{"index":0}]}}]}`},
		{"second choice", "openai", chatPath, nil, `{"choices":[{"delta":{"content":"x"}},{"index":1,"delta":{"function_call":{"name":"f"}}}]}`},
		{"unreadable", "openai", chatPath, nil, `{"choices":[{"delta":`},
		{"odd calls", "openai", chatPath, nil, `{"choices":[{"delta":{"tool_calls":{"id":"a"}}}]}`},
		{"item", "openai", responsesPath, []string{`{"type":"response.output_item.added","output_index":0,"item":{"type":"web_search_call","id":"w"}}`,
			`{"type":"response.output_text.delta","output_index":1,"delta":"x"}`}, `{"type":"response.output_item.added","output_index":2,"item":{"type":"new_call","id":"n"}}`},
		{"arguments only", "openai", responsesPath, nil, `{"type":"response.function_call_arguments.done","output_index":0,"arguments":"{}"}`},
		{"a call that is there at once", "openai", responsesPath, []string{`{"type":"response.in_progress","response":{"output":[]}}`}, `{"type":"response.in_progress","response":{"output":[{"type":"function_call"}]}}`},
		{"block", "anthropic", messagesPath, []string{`{"type":"message_start","message":{"content":[]}}`, `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"x"}}`,
			`{"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use","name":"web_search","input":{}}}`},
			`{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a","name":"f","input":{}}}`},
		{"input without its block", "anthropic", messagesPath, nil, `{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{"}}`},
	}
	for _, tt := range tests {
		d, rt := route(t, tt.dialect, "POST", tt.path)
		s, watched := d.Stream(rt), d.Stream(rt)
		s.HoldTools()
		for _, data := range tt.free {
			if s.Event(wire.Event{Data: []byte(data)}) {
				t.Errorf("%s: %s is held", tt.name, data)
			}
		}
		if !s.Event(wire.Event{Data: []byte(tt.held)}) {
			t.Errorf("%s: %s is not held", tt.name, tt.held)
		}
		if !s.Event(wire.Event{Data: []byte(`{}`)}) {
			t.Errorf("%s: what comes behind it is not held", tt.name)
		}
		if watched.Event(wire.Event{Data: []byte(tt.held)}) {
			t.Errorf("%s: %s is held although nobody asked", tt.name, tt.held)
		}
	}
}

// TestHostedCalls demands that tools which ran at the provider are named, and are no calls of the client.
func TestHostedCalls(t *testing.T) {
	tests := []struct {
		dialect, path, whole, stream string
		want                         []string
	}{
		{"openai", responsesPath, `{"object":"response","output":[{"type":"web_search_call"},{"type":"mcp_call","server_label":"s","name":"f"},{"type":"web_search_call"},{"type":"tool_search_call","execution":"server"}]}`,
			`{"type":"response.output_item.added","output_index":0,"item":{"type":"web_search_call"}}|{"type":"response.output_item.done","output_index":0,"item":{"type":"mcp_call","server_label":"s","name":"f"}}|{"type":"response.completed","response":{"output":[{"type":"tool_search_call","execution":"server"}]}}`,
			[]string{"mcp:s/f", "tool_search", "web_search"}},
		{"anthropic", messagesPath, `{"content":[{"type":"server_tool_use","name":"bash_code_execution","input":{}},{"type":"mcp_tool_use","server_name":"s","name":"f","input":{}}]}`,
			`{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","name":"bash_code_execution"}}|{"type":"content_block_start","index":1,"content_block":{"type":"mcp_tool_use","server_name":"s","name":"f"}}`,
			[]string{"bash_code_execution", "mcp:s/f"}},
	}
	for _, tt := range tests {
		d, rt := route(t, tt.dialect, "POST", tt.path)
		a, err := d.Answer(rt, []byte(tt.whole))
		if slices.Sort(a.HostedCalls); err != nil || !slices.Equal(a.HostedCalls, tt.want) || len(a.ToolCalls) > 0 {
			t.Errorf("%s: %+v, %v", tt.whole, a, err)
		}
		a = readStream(t, d, rt, "data: "+strings.ReplaceAll(tt.stream, "|", "\n\ndata: ")+"\n\n")
		if slices.Sort(a.HostedCalls); !slices.Equal(a.HostedCalls, tt.want) || len(a.ToolCalls) > 0 {
			t.Errorf("%s: %+v", tt.stream, a)
		}
	}
}

// parseRefused reads lines of an index and a notice.
func parseRefused(t *testing.T, text string) (refused []Withheld) {
	for line := range strings.Lines(text) {
		var w Withheld
		index, notice, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if _, err := fmt.Sscan(index, &w.Index); err != nil {
			t.Fatal(err)
		}
		w.Notice = notice
		refused = append(refused, w)
	}
	return refused
}

// withholdBody rewrites a whole answer, and checks what comes out.
func withholdBody(t *testing.T, d Dialect, rt Route, in string, refused []Withheld) (string, error) {
	t.Helper()
	before, err := d.Answer(rt, []byte(in))
	if err != nil {
		return "", err
	}
	out, err := d.Withhold(rt, []byte(in), refused)
	if err != nil {
		return "", err
	}
	after, err := d.Answer(rt, out)
	if err != nil {
		t.Fatalf("the rewritten answer cannot be read: %v", err)
	}
	checkWithheld(t, before, after, string(out), refused)
	return string(out), nil
}

// holdingTools reads a stream that holds its tool calls, and gives what was released and what was held.
func holdingTools(t *testing.T, d Dialect, rt Route, in string) (s Stream, released, held []byte) {
	t.Helper()
	s = d.Stream(rt)
	s.HoldTools()
	f := &wire.Framer{}
	emit := func(ev wire.Event) error {
		switch hold := s.Event(ev); {
		case hold:
			held = append(held, ev.Raw...)
		case held != nil:
			t.Error("an event is released behind one that is held")
		case len(s.Answer().ToolCalls) > 0:
			t.Errorf("an event with a part of a tool call is released: %s", ev.Raw)
		default:
			released = append(released, ev.Raw...)
		}
		return nil
	}
	if f.Push([]byte(in), emit) != nil || f.Close(emit) != nil {
		return nil, nil, nil
	}
	return s, released, held
}

// withholdStream rewrites what was held of a stream, and checks what a client gets.
func withholdStream(t *testing.T, d Dialect, rt Route, in string, refused []Withheld) (string, error) {
	t.Helper()
	s, released, held := holdingTools(t, d, rt, in)
	if s == nil {
		return "", fmt.Errorf("the stream cannot be framed")
	}
	before := s.Answer()
	rest, err := s.Withhold(held, refused)
	if err != nil {
		return "", err
	}
	out := string(released) + string(rest)
	again, _, _ := holdingTools(t, d, rt, out)
	after := again.Answer()
	checkWithheld(t, before, after, out, refused)
	if rt.Path == responsesPath {
		checkSequence(t, in, out)
	}
	return out, nil
}

// checkWithheld demands that exactly the refused calls are gone, that their notices are there, and that the rest of the
// answer is what it was.
func checkWithheld(t *testing.T, before, after fairlead.Answer, out string, refused []Withheld) {
	t.Helper()
	_, left, err := withheld(before.ToolCalls, refused)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(left, after.ToolCalls, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the calls that are left (-want +got):\n%s", diff)
	}
	text := after.Text
	for _, w := range refused {
		if !strings.Contains(out, string(wire.AppendQuote(nil, w.Notice)[1:])) && !strings.Contains(out, strings.Trim(string(wire.AppendQuote(nil, w.Notice)), `"`)) {
			t.Errorf("the notice %q is missing", w.Notice)
		}
		if before.ToolCalls[w.Index].Choice != 0 {
			continue
		}
		rest := strings.Replace(text, w.Notice, "", 1)
		if rest == text {
			t.Errorf("the text %q lacks %q", after.Text, w.Notice)
		}
		text = rest
	}
	squash := func(s string) string { return strings.ReplaceAll(s, "\n", "") }
	if squash(text) != squash(before.Text) {
		t.Errorf("the text was %q and is %q", before.Text, after.Text)
	}
	same := cmpopts.IgnoreFields(fairlead.Answer{}, "Text", "ToolCalls", "FinishReasons", "Items")
	if diff := cmp.Diff(before, after, same, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the rest of the answer (-want +got):\n%s", diff)
	}
	for i, reason := range after.FinishReasons {
		was := before.FinishReasons[i]
		if reason != was && (reason != "stop" && reason != "end_turn" || !slices.Contains([]string{"tool_calls", "function_call", "tool_use"}, was)) {
			t.Errorf("the finish reason was %q and is %q", was, reason)
		}
	}
}

// checkSequence demands that events are numbered upwards, if they were so before.
func checkSequence(t *testing.T, in, out string) {
	t.Helper()
	upwards := func(text string) bool {
		last, ok := int64(-1), true
		f := &wire.Framer{}
		emit := func(ev wire.Event) error {
			if wire.Check(ev.Data, wire.Limits{}) == nil {
				if n, is := wire.Root(ev.Data).Get("sequence_number").Int(); is {
					ok, last = ok && n > last, n
				}
			}
			return nil
		}
		return f.Push([]byte(text), emit) == nil && f.Close(emit) == nil && ok
	}
	if upwards(in) && !upwards(out) {
		t.Errorf("the events are not numbered upwards:\n%s", out)
	}
}

// TestWithholdNothing demands that an answer of which nothing is refused stays as it is.
func TestWithholdNothing(t *testing.T) {
	d, rt := route(t, "openai", "POST", chatPath)
	const body = ` {"choices": [ {"message":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]}}]}`
	if out, err := d.Withhold(rt, []byte(body), nil); err != nil || string(out) != body {
		t.Errorf("got %s, %v", out, err)
	}
	s, _, held := holdingTools(t, d, rt, "data: [DONE]\n\n")
	if out, err := s.Withhold(held, nil); err != nil || string(out) != "data: [DONE]\n\n" {
		t.Errorf("got %s, %v", out, err)
	}
}

// TestWithholdNeedsAllHeld demands that a stream refuses to rewrite what it has not held, or not all of it.
func TestWithholdNeedsAllHeld(t *testing.T) {
	const in = `data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}` + "\n\n"
	d, rt := route(t, "openai", "POST", chatPath)
	refused := []Withheld{{0, "No."}}
	s, _, held := holdingTools(t, d, rt, in+"data: [DONE]\n\n")
	if _, err := s.Withhold(held[:len(in)], refused); err == nil {
		t.Error("a part of what was held is taken for all of it")
	}
	if _, err := s.Withhold(held, refused); err != nil {
		t.Error(err)
	}
	s = d.Stream(rt)
	s.Event(wire.Event{Raw: []byte(in), Data: []byte(strings.TrimSpace(strings.TrimPrefix(in, "data: ")))})
	if _, err := s.Withhold([]byte(in), refused); err == nil {
		t.Error("a stream that does not hold its calls is rewritten")
	}
}

// TestMend demands that references to what only we gave out are resolved, and that nothing else is touched.
func TestMend(t *testing.T) {
	notice := func(id string) string {
		if id == "msg_fl_fc_1" {
			return `No "x".`
		}
		return ""
	}
	tests := []struct{ path, body, want string }{
		{responsesPath, `{"input": [{"type":"item_reference","id":"msg_fl_fc_1"}, {"id":"msg_fl_fc_2"},{"type":"item_reference","id":"msg_1"}],"x":1.0}`,
			`{"input": [{"type":"message","role":"assistant","content":[{"type":"output_text","text":"No \"x\"."}]}, ` +
				`{"type":"message","role":"assistant","content":[{"type":"output_text","text":"A tool call that stood here was not let through."}]},{"type":"item_reference","id":"msg_1"}],"x":1.0}`},
		{responsesPath, `{"input":[{"type":"message","id":"msg_fl_fc_1","role":"assistant","content":"x"},{"id":"msg_fl_fc_1","role":"assistant","content":"x"}]}`, ""},
		{responsesPath, `{"input":"msg_fl_fc_1"}`, ""},
		{chatPath, `{"input":[{"type":"item_reference","id":"msg_fl_fc_1"}]}`, ""},
	}
	for _, tt := range tests {
		if tt.want == "" {
			tt.want = tt.body
		}
		d, rt := route(t, "openai", "POST", tt.path)
		if got := string(d.Mend(rt, []byte(tt.body), notice)); got != tt.want {
			t.Errorf("%s becomes\n%s, want\n%s", tt.body, got, tt.want)
		}
	}
}

// TestWithholdLinear takes half of very many calls out of an answer, within a time that only linear work can keep.
func TestWithholdLinear(t *testing.T) {
	const calls = 30_000
	start := time.Now()
	var refused []Withheld
	for i := 0; i < calls; i += 2 {
		refused = append(refused, Withheld{i, "No."})
	}
	join := func(before, sep, after string, one func(i int) string) string {
		var b strings.Builder
		b.WriteString(before)
		for i := range calls {
			if i > 0 {
				b.WriteString(sep)
			}
			b.WriteString(one(i))
		}
		return b.String() + after
	}
	chatCall := func(i int) string {
		return fmt.Sprintf(`{"index":%d,"id":"c%d","function":{"name":"f","arguments":"{}"}}`, i, i)
	}
	item := func(i int) string {
		return fmt.Sprintf(`{"type":"function_call","id":"fc_%d","call_id":"c%d","name":"f","arguments":"{}"}`, i, i)
	}
	output := join(`{"object":"response","output":[`, ",", `]}`, item)
	for _, tt := range []struct {
		dialect, path, in string
		stream            bool
	}{
		{"openai", chatPath, join(`{"choices":[{"message":{"tool_calls":[`, ",", `]},"finish_reason":"tool_calls"}]}`, chatCall), false},
		{"openai", chatPath, join("", "", "data: [DONE]\n\n", func(i int) string {
			return fmt.Sprintf(`data: {"choices":[{"index":%d,"delta":{"tool_calls":[%s]}}]}`+"\n\n", i%100, chatCall(i))
		}), true},
		{"openai", responsesPath, output, false},
		{"openai", responsesPath, join("", "", `data: {"type":"response.completed","response":`+output+"}\n\n", func(i int) string {
			return fmt.Sprintf(`data: {"type":"response.output_item.done","sequence_number":%d,"output_index":%d,"item":%s}`+"\n\n", i, i, item(i))
		}), true},
		{"anthropic", messagesPath, join("", "", "", func(i int) string {
			return fmt.Sprintf(`data: {"type":"content_block_start","index":%d,"content_block":{"type":"tool_use","id":"c%d","name":"f","input":{}}}`+"\n\n", i, i)
		}), true},
	} {
		d, rt := route(t, tt.dialect, "POST", tt.path)
		var err error
		if tt.stream {
			s, f, held := d.Stream(rt), &wire.Framer{Max: len(tt.in)}, []byte(nil)
			s.HoldTools()
			err = f.Push([]byte(tt.in), func(ev wire.Event) error { s.Event(ev); held = append(held, ev.Raw...); return nil })
			if err == nil {
				_, err = s.Withhold(held, refused)
			}
		} else {
			_, err = d.Withhold(rt, []byte(tt.in), refused)
		}
		if err != nil {
			t.Errorf("%s, streamed: %v: %v", tt.path, tt.stream, err)
		}
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

// subset picks refused calls by the bits of pattern.
func subset(calls int, pattern uint64) (refused []Withheld) {
	for i := range min(calls, 64) {
		if bits.RotateLeft64(pattern, -i)&1 == 1 {
			refused = append(refused, Withheld{i, fmt.Sprintf("Call %d is \"withheld\".", i)})
		}
	}
	return refused
}

func FuzzWithhold(f *testing.F) {
	for _, g := range withholdFiles {
		archive, err := txtar.ParseFile(filepath.Join("testdata", "withhold", g.file+".txtar"))
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			if strings.HasSuffix(part.Name, "/in") {
				f.Add(string(part.Data), uint64(len(part.Name)))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string, pattern uint64) {
		for _, g := range withholdFiles {
			d, rt := route(t, g.dialect, "POST", g.path)
			if !g.stream {
				if a, err := d.Answer(rt, []byte(text)); err == nil {
					_, _ = withholdBody(t, d, rt, text, subset(len(a.ToolCalls), pattern))
				}
				continue
			}
			if s, _, _ := holdingTools(t, d, rt, text); s != nil {
				_, _ = withholdStream(t, d, rt, text, subset(len(s.Answer().ToolCalls), pattern))
			}
		}
	})
}
