package dialect

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

func init() { register(anthropic{}) }

// anthropic is the Messages API. See https://docs.anthropic.com/en/api/messages.
type anthropic struct{}

const messagesPath = "/v1/messages"

func (anthropic) Name() string { return "anthropic" }

func (anthropic) Routes() []Route {
	return []Route{
		{Method: http.MethodPost, Path: messagesPath, Op: fairlead.OpChat},
		{Method: http.MethodPost, Path: "/v1/messages/count_tokens", Op: fairlead.OpCountTokens},
		{Method: http.MethodGet, Path: "/v1/models", Op: fairlead.OpListModels},
		{Method: http.MethodGet, Path: "/v1/models/{model}", Op: fairlead.OpListModels},
	}
}

func (anthropic) Read(rt Route, body []byte) (fairlead.Exchange, error) {
	if rt.Op == fairlead.OpListModels {
		return noBody(rt, body)
	}
	v, err := object(body)
	if err != nil {
		return fairlead.Exchange{}, err
	}
	var r reader
	var f [10]wire.Value
	pick(v, f[:], "model", "stream", "messages", "system", "tools", "metadata", "mcp_servers", "container", "thread", "max_tokens")
	container := f[7]
	r.settings(f[0], f[1])
	r.messages("messages", f[2], r.anthropicMessage)
	r.instructions(f[3])
	r.maxOutput(f[9])
	r.unit(f[3])
	r.unit(f[4])
	r.anthropicTools(f[4])
	r.ex.User = f[5].Get("user_id").Text()
	for e := range f[6].Elements() {
		r.hosted("mcp:" + e.Get("name").Text())
	}
	if container.Kind() == '{' {
		for e := range container.Get("skills").Elements() {
			r.hosted("skill:" + e.Get("skill_id").Text())
		}
		container = container.Get("id")
	}
	r.state("container", container)
	r.state("thread.previous_message_id", f[8].Get("previous_message_id")) // a conversation that the provider keeps
	return r.result(rt.Op)
}

// anthropicTools reads the tools. Some that Anthropic defines are for the client to carry out, others run at Anthropic;
// one that we do not know counts as the latter.
func (r *reader) anthropicTools(v wire.Value) {
	for e := range v.Elements() {
		var f [3]wire.Value
		pick(e, f[:], "type", "name", "mcp_server_name")
		kind := f[0].Text()
		client := f[0].Kind() == 0 || f[0].Kind() == 'n' || kind == "custom"
		for _, prefix := range [...]string{"bash_", "text_editor_", "computer_", "memory_"} {
			client = client || strings.HasPrefix(kind, prefix)
		}
		switch {
		case client:
			r.tool(first(f[1].Text(), kind))
		case kind == "mcp_toolset":
			r.hosted("mcp:" + f[2].Text())
		default:
			r.hosted(first(kind, "unknown"))
		}
	}
}

func (r *reader) anthropicMessage(m *fairlead.Message, v wire.Value) {
	var f [2]wire.Value
	pick(v, f[:], "role", "content")
	m.Role = role(f[0])
	r.anthropicContent(m, f[1], 0)
}

// anthropicContent reads content: a string, or an array of blocks.
func (r *reader) anthropicContent(m *fairlead.Message, v wire.Value, depth int) {
	switch {
	case v.Kind() == '"':
		r.part(m, fairlead.PartText, v)
	case v.Kind() == '[':
		for e := range v.Elements() {
			if r.err != nil {
				return
			}
			r.anthropicBlock(m, e, depth)
		}
	case present(v):
		r.part(m, fairlead.PartOther, v)
	}
}

// callsTool reports whether a block of this type asks the client for a tool. A type that we do not know may.
func callsTool(kind string) bool {
	return kind == "tool_use" || strings.HasSuffix(kind, "_tool_use") && kind != "server_tool_use" && kind != "mcp_tool_use"
}

func (r *reader) anthropicBlock(m *fairlead.Message, v wire.Value, depth int) {
	var f [12]wire.Value
	pick(v, f[:], "type", "text", "id", "name", "input", "tool_use_id", "content", "thinking", "source", "file_id",
		"title", "context")
	content := f[6]
	switch kind := f[0].Text(); {
	case callsTool(kind) && depth == 0:
		if f[4].Kind() == 0 {
			f[4] = v // without input, or with one that we do not know
		}
		r.call(m, f[2], f[3], f[4])
	case kind == "tool_result" || strings.HasSuffix(kind, "_tool_result"):
		result := content
		if !present(result) {
			result = v
		}
		r.part(m, fairlead.PartToolResult, result).CallID = f[5].Text()
		for e := range content.Elements() {
			r.anthropicSource(e.Get("source"))
		}
	case kind == "thinking" && f[7].Kind() == '"':
		r.part(m, fairlead.PartReasoning, f[7])
	case kind == "redacted_thinking":
		r.part(m, fairlead.PartReasoning, v)
	case kind == "image", kind == "document", kind == "container_upload":
		r.state("file_id", f[9])
		r.labels(m, f[10], f[11])
		if readable := r.anthropicSource(f[8]); depth == 0 && present(readable) {
			r.anthropicContent(m, readable, depth+1)
			return
		}
		media := v
		if present(f[8]) {
			media = f[8]
		}
		r.part(m, fairlead.PartMedia, media)
	case kind == "search_result" && depth == 0 && present(content):
		r.labels(m, f[10])
		r.anthropicContent(m, content, depth+1)
	case f[1].Kind() == '"': // text, also of a kind that we do not know
		r.part(m, fairlead.PartText, f[1])
	default:
		r.part(m, fairlead.PartOther, v)
	}
}

// labels reads what stands beside a document: the model sees it as well.
func (r *reader) labels(m *fairlead.Message, values ...wire.Value) {
	for _, v := range values {
		if v.Kind() == '"' {
			r.part(m, fairlead.PartText, v)
		}
	}
}

// anthropicSource notes what the source of an image or document refers to, and returns its content if that is text.
func (r *reader) anthropicSource(v wire.Value) (readable wire.Value) {
	var f [5]wire.Value
	pick(v, f[:], "type", "data", "content", "url", "file_id")
	r.link("url", f[3])
	r.state("file_id", f[4])
	switch f[0].Text() {
	case "text":
		return f[1]
	case "content":
		return f[2]
	}
	return wire.Value{}
}

func (anthropic) Answer(rt Route, body []byte) (fairlead.Answer, error) {
	a := fairlead.Answer{Usage: fairlead.NoUsage}
	if err := wire.Check(body, wire.Limits{}); err != nil {
		return a, err
	}
	v := wire.Root(body)
	failed := ""
	if e := v.Get("error"); present(e) {
		failed = first(e.Get("type").Text(), "error")
	}
	if failed != "" && !substantial(v.Get("content")) {
		a.ErrorType = failed
		return a, nil
	}
	switch rt.Op {
	case fairlead.OpListModels:
		a.ID = v.Get("id").Text()
		a.Complete = a.ID != "" || v.Get("data").Kind() == '['
		return a, nil
	case fairlead.OpCountTokens:
		a.Usage.Input = count(v.Get("input_tokens"))
		a.Complete = a.Usage.Input >= 0
		return a, nil
	}
	var f [6]wire.Value
	pick(v, f[:], "id", "model", "content", "stop_reason", "usage", "role")
	var r reader
	var m fairlead.Message
	r.anthropicContent(&m, f[2], 0)
	b := builder{Answer: fairlead.Answer{ID: f[0].Text(), Model: f[1].Text()}}
	b.add(body, m.Parts)
	for e := range f[2].Elements() {
		b.anthropicHosted(e)
	}
	if reason := f[3].Text(); reason != "" {
		b.FinishReasons, b.Complete = []string{reason}, true
	}
	u := anthropicUsage{fairlead.NoUsage}
	u.take(f[4])
	b.Usage = u.total()
	if failed != "" { // with calls all the same, on which a client may act
		b.ErrorType, b.Complete = failed, false
	}
	return b.answer(), r.err
}

// anthropicHosted notes a tool that ran at Anthropic.
func (b *builder) anthropicHosted(block wire.Value) {
	var f [3]wire.Value
	pick(block, f[:], "type", "name", "server_name")
	switch f[0].Text() {
	case "server_tool_use":
		b.hosted(f[1].Text())
	case "mcp_tool_use":
		b.hosted("mcp:" + f[2].Text() + "/" + f[1].Text())
	}
}

// anthropicUsage holds the counts as Anthropic gives them: the input leaves out what was read from or written to the
// cache. The numbers in a stream are cumulative, and later ones replace earlier ones.
type anthropicUsage struct{ fairlead.Usage }

func (u *anthropicUsage) take(v wire.Value) {
	var f [4]wire.Value
	pick(v, f[:], "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
	for i, p := range [...]*int64{&u.Input, &u.Output, &u.CacheRead, &u.CacheCreation} {
		if n := count(f[i]); n >= 0 {
			*p = n
		}
	}
}

// total converts the counts to the OpenTelemetry meaning, in which the input includes what the cache served.
func (u *anthropicUsage) total() fairlead.Usage {
	t := u.Usage
	for _, n := range [...]int64{t.CacheRead, t.CacheCreation} {
		if t.Input >= 0 && n > 0 && t.Input+n > 0 {
			t.Input += n
		}
	}
	return t
}

func (d anthropic) Withhold(rt Route, body []byte, refused []Withheld) ([]byte, error) {
	return withhold(d, rt, body, refused, func(v wire.Value, notices map[int]string) ([]wire.Splice, error) {
		if rt.Path != messagesPath {
			return nil, errShape
		}
		return anthropicWithhold(v, notices)
	})
}

func (anthropic) Mend(_ Route, body []byte, _ func(string) string) []byte { return body }

func (anthropic) Stream(rt Route) Stream {
	if rt.Path != messagesPath {
		return idle{fairlead.Answer{Usage: fairlead.NoUsage}}
	}
	return &anthropicStream{usage: anthropicUsage{fairlead.NoUsage}}
}

// An anthropicStream follows the events of a message. Pieces are keyed by the index of their block.
type anthropicStream struct {
	stream
	usage anthropicUsage
}

func (s *anthropicStream) Event(ev wire.Event) bool {
	v := s.data(ev)
	var f [7]wire.Value
	pick(v, f[:], "type", "message", "index", "content_block", "delta", "usage", "error")
	kind := first(f[0].Text(), string(ev.Name))
	index, _ := f[2].Int()
	for _, end := range [...]string{"message_stop", "error", "message_delta"} {
		// SDKs go by the name of the event or by the type in its data; data that we cannot read may have either.
		if named := string(ev.Name) == end; named && end != "message_delta" ||
			v.Kind() == 0 && (named || bytes.Contains(ev.Data, []byte(`"`+end+`"`))) {
			s.held = true
		}
	}
	switch kind {
	case "message_start":
		s.b.ID, s.b.Model = f[1].Get("id").Text(), f[1].Get("model").Text()
		s.usage.take(f[1].Get("usage"))
	case "content_block_start":
		s.start(ev.Data, index, f[3])
	case "content_block_delta":
		s.delta(index, f[4])
	case "message_delta":
		s.usage.take(f[5])
		if reason := f[4].Get("stop_reason"); present(reason) {
			s.held, s.b.FinishReasons = true, []string{reason.Text()}
		}
	case "message_stop":
		s.held, s.b.Complete = true, v.Kind() != 0
	case "error":
		s.held, s.b.ErrorType = true, first(f[6].Get("type").Text(), "error")
	}
	return s.hold(ev)
}

// start takes what a block begins with. The input of a call is an empty object then; what comes in deltas replaces it.
func (s *anthropicStream) start(data []byte, index int64, block wire.Value) {
	var r reader
	var m fairlead.Message
	r.anthropicBlock(&m, block, 0)
	s.b.anthropicHosted(block)
	for _, part := range m.Parts {
		p := s.begin(key{outer: index}, part.Kind) // SDKs begin a block at each such event, whatever its index
		p.begun = true
		v := wire.Root(data[part.Span.Start:part.Span.End])
		switch part.Kind {
		case fairlead.PartToolCall:
			p.id, p.name = part.CallID, part.Name
			if substantial(v) && present(block.Get("input")) {
				p.text = append(p.text, v.Raw()...)
			}
		case fairlead.PartText, fairlead.PartReasoning:
			p.text = v.AppendText(p.text)
		}
	}
}

func (s *anthropicStream) delta(index int64, v wire.Value) {
	var f [4]wire.Value
	pick(v, f[:], "type", "text", "partial_json", "thinking")
	kind, text := fairlead.PartText, f[1]
	switch f[0].Text() {
	case "text_delta":
	case "input_json_delta":
		kind, text = fairlead.PartToolCall, f[2]
	case "thinking_delta":
		kind, text = fairlead.PartReasoning, f[3]
	default:
		return
	}
	p := s.piece(key{outer: index}, kind)
	p.text = text.AppendText(p.text)
}

func (s *anthropicStream) Answer() fairlead.Answer {
	a := s.stream.Answer()
	a.Usage = s.usage.total()
	return a
}

func (anthropic) Refuse(r Refusal) (int, http.Header, []byte) {
	return r.status(), r.header("Request-Id"), anthropicRefusal(&r)
}

func (anthropic) RefuseEvent(_ Route, r Refusal) []byte {
	return append(append([]byte("event: error\ndata: "), anthropicRefusal(&r)...), "\n\n"...)
}

func anthropicRefusal(r *Refusal) []byte {
	kind := "invalid_request_error"
	switch status := r.status(); {
	case status == http.StatusUnauthorized:
		kind = "authentication_error"
	case status == http.StatusPaymentRequired:
		kind = "billing_error"
	case status == http.StatusForbidden:
		kind = "permission_error"
	case status == http.StatusNotFound:
		kind = "not_found_error"
	case status == http.StatusRequestEntityTooLarge:
		kind = "request_too_large"
	case status == http.StatusTooManyRequests:
		kind = "rate_limit_error"
	case status == http.StatusGatewayTimeout:
		kind = "timeout_error"
	case status == 529 || status == http.StatusServiceUnavailable:
		kind = "overloaded_error"
	case status >= 500:
		kind = "api_error"
	}
	b := wire.AppendQuote([]byte(`{"type":"error","error":{"type":`), kind)
	b = wire.AppendQuote(append(b, `,"message":`...), r.Message)
	switch {
	case r.Resend:
		b = append(b, `,"code":"thread_not_found","details":{"error_code":"thread_not_found"}`...)
	case r.Code != "":
		b = wire.AppendQuote(append(b, `,"code":`...), r.Code)
	}
	b = append(b, '}')
	if r.DecisionID != "" {
		b = wire.AppendQuote(append(b, `,"request_id":`...), r.DecisionID)
	}
	return append(b, '}')
}
