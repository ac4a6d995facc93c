package dialect

import (
	"bytes"
	"net/http"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

func init() { register(openAI{}) }

// openAI is the API of OpenAI and of the many servers that imitate it: chat completions, responses, embeddings, models.
// See https://platform.openai.com/docs/api-reference.
type openAI struct{}

const (
	chatPath      = "/v1/chat/completions"
	responsesPath = "/v1/responses"
)

func (openAI) Name() string { return "openai" }

func (openAI) Routes() []Route {
	return []Route{
		{Method: http.MethodPost, Path: chatPath, Op: fairlead.OpChat},
		{Method: http.MethodPost, Path: responsesPath, Op: fairlead.OpChat},
		{Method: http.MethodPost, Path: "/v1/embeddings", Op: fairlead.OpEmbeddings},
		{Method: http.MethodGet, Path: "/v1/models", Op: fairlead.OpListModels},
		{Method: http.MethodGet, Path: "/v1/models/{model}", Op: fairlead.OpListModels},
	}
}

func (openAI) Read(rt Route, body []byte) (fairlead.Exchange, error) {
	if rt.Op == fairlead.OpListModels {
		return noBody(rt, body)
	}
	v, err := object(body)
	if err != nil {
		return fairlead.Exchange{}, err
	}
	var r reader
	switch rt.Path {
	case chatPath:
		r.chat(v)
	case responsesPath:
		r.responses(v)
	default:
		r.embeddings(v)
	}
	return r.result(rt.Op)
}

func (openAI) Answer(rt Route, body []byte) (fairlead.Answer, error) {
	a := fairlead.Answer{Usage: fairlead.NoUsage}
	if err := wire.Check(body, wire.Limits{}); err != nil {
		return a, err
	}
	v := wire.Root(body)
	object, e := v.Get("object").Text(), v.Get("error")
	if object == "error" { // as vLLM has it
		e = v
	}
	failed := present(e) && object != "response" // a response that failed is still a response
	if failed && !substantial(v.Get("choices")) && !substantial(v.Get("output")) {
		a.ErrorType = openAIError(e)
		return a, nil
	}
	var err error
	switch rt.Path {
	case chatPath:
		a, err = chatAnswer(body, v)
	case responsesPath:
		a, _, err = responsesAnswer(body, v)
	}
	if failed { // with calls all the same, on which a client may act
		a.ErrorType, a.Complete = openAIError(e), false
	}
	if rt.Op == fairlead.OpChat {
		return a, err
	}
	var f [4]wire.Value
	pick(v, f[:], "id", "model", "usage", "data")
	a.ID, a.Model, a.Complete = f[0].Text(), f[1].Text(), f[0].Text() != "" || f[3].Kind() == '['
	if present(f[2]) {
		a.Usage = chatUsage(f[2])
	}
	return a, nil
}

func (d openAI) Withhold(rt Route, body []byte, refused []Withheld) ([]byte, error) {
	return withhold(d, rt, body, refused, func(v wire.Value, notices map[int]string) ([]wire.Splice, error) {
		switch rt.Path {
		case chatPath:
			return chatWithhold(body, v.Get("choices"), notices)
		case responsesPath:
			return responsesWithhold(v.Get("output"), notices, false)
		}
		return nil, errShape
	})
}

func (openAI) Mend(rt Route, body []byte, notice func(id string) string) []byte {
	if rt.Path != responsesPath || !bytes.Contains(body, []byte(noticePrefix)) {
		return body
	}
	return responsesMend(body, notice)
}

func (openAI) Stream(rt Route) Stream {
	switch rt.Path {
	case chatPath:
		s := &chatStream{}
		s.b.Usage = fairlead.NoUsage
		return s
	case responsesPath:
		s := &responsesStream{}
		s.b.Usage = fairlead.NoUsage
		return s
	}
	return idle{fairlead.Answer{Usage: fairlead.NoUsage}}
}

// openAIError names an error in the provider's words.
func openAIError(e wire.Value) string {
	return first(e.Get("type").Text(), e.Get("code").Text(), "error")
}

func (openAI) Refuse(r Refusal) (int, http.Header, []byte) {
	body := append([]byte(`{"error":`), openAIRefusal(&r)...)
	return r.status(), r.header("X-Request-Id"), append(body, '}')
}

func (openAI) RefuseEvent(rt Route, r Refusal) []byte {
	if rt.Path != responsesPath {
		return append(append([]byte(`data: {"error":`), openAIRefusal(&r)...), "}\n\n"...)
	}
	// The reference has code and message beside the type; the SDKs raise what they find under "error".
	b := []byte("event: error\ndata: {\"type\":\"error\",\"sequence_number\":0,\"code\":")
	b = wire.AppendQuote(b, r.Code)
	b = wire.AppendQuote(append(b, `,"message":`...), r.Message)
	b = append(append(b, `,"param":null,"error":`...), openAIRefusal(&r)...)
	return append(b, "}\n\n"...)
}

func openAIRefusal(r *Refusal) []byte {
	kind := "invalid_request_error"
	switch status := r.status(); {
	case status == http.StatusUnauthorized:
		kind = "authentication_error"
	case status == http.StatusForbidden:
		kind = "permission_error"
	case status == http.StatusTooManyRequests:
		kind = "rate_limit_error"
	case status >= 500:
		kind = "server_error"
	}
	b := wire.AppendQuote([]byte(`{"message":`), r.Message)
	b = wire.AppendQuote(append(b, `,"type":`...), kind)
	if r.Resend {
		b = append(b, `,"param":"previous_response_id","code":"previous_response_not_found"`...)
	} else {
		b = wire.AppendQuote(append(b, `,"param":null,"code":`...), r.Code)
	}
	if r.DecisionID != "" {
		b = wire.AppendQuote(append(b, `,"decision_id":`...), r.DecisionID)
	}
	return append(b, '}')
}

// embeddings reads a request for embeddings: its input is one message of the user.
func (r *reader) embeddings(v wire.Value) {
	var f [3]wire.Value
	pick(v, f[:], "model", "input", "user")
	input := f[1]
	r.settings(f[0], wire.Value{})
	r.ex.User = f[2].Text()
	if !present(input) {
		return
	}
	m := fairlead.Message{Role: fairlead.RoleUser, Span: input.Span(), Lead: input.Span().Start}
	if input.Kind() == '"' {
		r.part(&m, fairlead.PartText, input)
	}
	for e := range input.Elements() {
		if e.Kind() == '"' {
			r.part(&m, fairlead.PartText, e)
		}
	}
	if len(m.Parts) == 0 { // numbers of tokens
		r.part(&m, fairlead.PartOther, input)
	}
	r.ex.Messages = append(r.ex.Messages, m)
}

// openAITools reads the tools array of chat completions and responses.
func (r *reader) openAITools(v wire.Value) {
	for e := range v.Elements() {
		var f [6]wire.Value
		pick(e, f[:], "type", "name", "function", "custom", "server_label", "environment")
		kind, name := f[0].Text(), f[1].Text()
		switch kind {
		case "function":
			r.tool(first(name, f[2].Get("name").Text()))
		case "custom":
			r.tool(first(name, f[3].Get("name").Text()))
		case "computer", "computer_use_preview", "local_shell", "apply_patch":
			r.tool(kind) // the client carries these out
		case "shell":
			if f[5].Get("type").Text() == "local" {
				r.tool(kind)
				continue
			}
			r.hosted(kind)
		case "mcp":
			r.hosted("mcp:" + f[4].Text())
		default:
			r.hosted(first(kind, "unknown"))
		}
	}
}

// openAIContent reads the content of a message: a string, or an array of parts. Chat completions and responses name
// their parts differently, but no name means two things.
func (r *reader) openAIContent(m *fairlead.Message, v wire.Value) {
	if v.Kind() == '"' {
		r.part(m, fairlead.PartText, v)
		return
	}
	if v.Kind() != '[' && present(v) {
		r.part(m, fairlead.PartOther, v)
		return
	}
	for e := range v.Elements() {
		if r.err != nil {
			return
		}
		var f [3]wire.Value
		pick(e, f[:], "type", "text", "refusal")
		text, refusal := f[1], f[2]
		switch kind := f[0].Text(); {
		case kind == "refusal" && refusal.Kind() == '"':
			r.part(m, fairlead.PartRefusal, refusal)
		case kind == "reasoning_text" && text.Kind() == '"':
			r.part(m, fairlead.PartReasoning, text)
		case r.openAIMedia(e):
			r.part(m, fairlead.PartMedia, e)
		case text.Kind() == '"': // also of a kind that we do not know
			r.part(m, fairlead.PartText, text)
		default:
			r.part(m, fairlead.PartOther, e)
		}
	}
}

// openAIMedia reports whether a part is an image, audio or a file, and notes what it refers to.
func (r *reader) openAIMedia(v wire.Value) bool {
	var f [6]wire.Value
	pick(v, f[:], "type", "image_url", "file", "file_id", "file_url", "input_audio")
	image, file := f[1], f[2]
	switch f[0].Text() {
	case "image_url", "input_image", "computer_screenshot", "file", "input_file", "input_audio":
	default:
		return false
	}
	if image.Kind() == '{' {
		image = image.Get("url")
	}
	r.link("image_url", image)
	r.link("file_url", f[4])
	r.state("file_id", f[3])
	r.state("file_id", file.Get("file_id"))
	return true
}
