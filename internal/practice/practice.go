// Package practice is a model server for demonstrations, labs and tests: it speaks the OpenAI and the Anthropic API,
// needs no key and no network, and always gives the same answer to the same request.
//
// It is gullible on purpose. It obeys whatever instruction came last, also one planted in a document that a tool
// returned, so that what Fairlead records about such an attack (or stops of it) can be seen without a real model being
// talked into it. Nothing here understands language: instructions are found by markers ("Note to the assistant:",
// "AI:", "ignore previous instructions", an HTML comment), and the words behind a marker are carried into a tool call
// whether or not they make sense.
//
// # What it answers
//
// If the newest message is a user's and the text fits one of the offered tools, it calls that tool with arguments
// found in the text; otherwise it quotes what it was asked. If the newest message is a tool's result, it obeys the
// instruction planted there, or summarises the result. After the result of an acting tool (send, post, delete, …) it
// ends with "Done: …". It makes at most eight tool calls in one conversation.
//
// # Models
//
// The model's name chooses special behaviour; every other name answers like practice-1.
//
//	practice-1          as described above
//	practice-echo       the last user's text, verbatim
//	practice-refuse     a refusal in the API's own way
//	practice-long-N     a text of exactly N kibibytes, N at most 16384
//	practice-slow       practice-1, at least 50 ms between chunks
//	practice-error-NNN  the API's own error with status NNN, 400 to 599
//	practice-stall      half an answer, then silence for Config.Stall, then a cut connection
//	practice-reset      half an answer, then a TCP reset
//	practice-html       status 200 and an HTML page
//	practice-short      a Content-Length larger than the body
//
// # Bounds
//
// It is a tool for loopback and does not authenticate. Input may still be hostile: a request has at most 64 MiB and
// 100,000 items, answers at most 64 MiB of text, and the conversations kept for previous_response_id at most 64 MiB
// and 1,000 entries in all, the oldest leaving first. Work is linear in the request, apart from the number of tools
// times the length of the newest text (cut to 64 KiB before it is read for words).
//
// A request that carries a Fairlead key ("flk_…") in its headers or query is refused with status 400 and the message
// "a Fairlead key reached the provider": it is the tripwire for a gateway that forwards its own credentials.
package practice

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	maxBody    = 64 << 20
	maxItems   = 100_000
	maxAnswer  = 64 << 20
	maxChoices = 128
)

// A Config adjusts the model. Its zero value works.
type Config struct {
	// Delay is the pause before each chunk of text of a streamed answer, and before a whole answer.
	Delay time.Duration
	// Chunk is the length of a streamed piece of text in runes. Zero means 12.
	Chunk int
	// Stall is how long practice-stall keeps silent before it cuts the connection. Zero means 30 seconds.
	Stall time.Duration
	// Clock gives the time of creation that answers carry. Nil means a fixed instant, so that equal requests have equal
	// answers to the byte.
	Clock func() time.Time
}

// New returns the model as a handler for the paths of both APIs (/v1/chat/completions, /v1/responses, /v1/embeddings,
// /v1/messages, /v1/messages/count_tokens, /v1/models). Any other path is answered with the OpenAI API's 404. It is
// safe for concurrent use and starts no goroutine.
func New(c Config) http.Handler {
	if c.Chunk <= 0 {
		c.Chunk = 12
	}
	if c.Stall <= 0 {
		c.Stall = 30 * time.Second
	}
	if c.Clock == nil {
		epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		c.Clock = func() time.Time { return epoch }
	}
	s := &server{Config: c}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.post(openAI, s.chatCompletions))
	mux.HandleFunc("POST /v1/responses", s.post(openAI, s.createResponse))
	mux.HandleFunc("POST /v1/embeddings", s.post(openAI, s.embeddings))
	mux.HandleFunc("POST /v1/messages", s.post(anthropic, s.messages))
	mux.HandleFunc("POST /v1/messages/count_tokens", s.post(anthropic, s.countTokens))
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("GET /v1/models/{id...}", s.models)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		api := apiOf(r)
		api.fail(w, &apiError{Status: 404, Message: "there is no " + r.Method + " " + r.URL.Path + " here"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if carriesFairleadKey(r) {
			apiOf(r).fail(w, &apiError{Status: 400, Message: "a Fairlead key reached the provider"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

type server struct {
	Config
	states states
}

// A request is what every endpoint needs of a POST.
type request struct {
	w    http.ResponseWriter
	ctx  context.Context
	body []byte
	hash string // hex; identifiers derive from it
}

// id returns an identifier that is the same whenever the same request is sent.
func (q *request) id(prefix string, pos ...int) string {
	h := sha256.New()
	io.WriteString(h, q.hash+prefix)
	for _, p := range pos {
		h.Write([]byte{byte(p), byte(p >> 8), byte(p >> 16), '/'})
	}
	return prefix + hex.EncodeToString(h.Sum(nil)[:12])
}

// post reads the body, plays what the model's name asks for in the way of failures, and hands on the rest.
func (s *server) post(api api, handle func(*request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			status := http.StatusBadRequest
			if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
				status = http.StatusRequestEntityTooLarge
			}
			api.fail(w, &apiError{Status: status, Message: "reading the request body: " + err.Error()})
			return
		}
		sum := sha256.Sum256(append([]byte(r.URL.Path+"\x00"), body...))
		q := &request{w: w, ctx: r.Context(), body: body, hash: hex.EncodeToString(sum[:])}
		w.Header().Set(api.requestIDHeader(), q.id("req_"))
		var head struct{ Model string }
		err = json.Unmarshal(body, &head)
		if err == nil && head.Model == "" {
			err = &apiError{Message: "the request names no model", Param: "model"}
		}
		if err == nil {
			err = scriptedError(head.Model)
		}
		if err == nil && head.Model == "practice-html" {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, "<!DOCTYPE html>\n<title>Sign in</title>\n<p>This network wants you to sign in first.\n")
			return
		}
		if err == nil {
			err = handle(q)
		}
		if err != nil {
			api.fail(w, err)
		}
	}
}

// apiOf tells the two APIs apart on paths that they share.
func apiOf(r *http.Request) api {
	if r.Header.Get("anthropic-version") != "" || r.Header.Get("x-api-key") != "" ||
		strings.HasPrefix(r.URL.Path, "/v1/messages") {
		return anthropic
	}
	return openAI
}

// carriesFairleadKey looks wider than the usual places, because a key is leaked wherever it stands.
func carriesFairleadKey(r *http.Request) bool {
	const prefix = "flk_"
	for name, values := range r.Header {
		for _, v := range values {
			if _, basic, ok := strings.Cut(v, "Basic "); ok && name == "Authorization" {
				plain, _ := base64.StdEncoding.DecodeString(basic) // what is not base64 holds no key
				v = string(plain)
			}
			if strings.Contains(v, prefix) {
				return true
			}
		}
	}
	return strings.Contains(r.URL.RawQuery, prefix)
}
