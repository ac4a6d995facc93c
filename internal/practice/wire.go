package practice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An api is one of the two wire formats, where they differ outside their messages.
type api int

const (
	openAI api = iota
	anthropic
)

func (a api) requestIDHeader() string {
	if a == anthropic {
		return "request-id"
	}
	return "x-request-id"
}

// An apiError is an error to be told in an API's own shape. Status 0 means 400.
type apiError struct {
	Status      int
	Message     string
	Param, Code string // OpenAI only
}

func (e *apiError) Error() string { return e.Message }

// fail answers with err: as it is if it is an *apiError, and as a malformed request otherwise.
func (a api) fail(w http.ResponseWriter, err error) {
	e := new(apiError)
	if !errors.As(err, &e) {
		e = &apiError{Message: "the request body is not what this API expects: " + err.Error()}
	}
	status := e.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	var body any
	if a == anthropic {
		body = map[string]any{
			"type":       "error",
			"error":      map[string]any{"type": anthropicErrorType(status), "message": e.Message},
			"request_id": orNull(w.Header().Get("request-id")),
		}
	} else {
		kind, code := openAIErrorType(status)
		if e.Code != "" {
			code = e.Code
		}
		body = map[string]any{"error": map[string]any{
			"message": e.Message, "type": kind, "param": orNull(e.Param), "code": orNull(code),
		}}
	}
	if status == http.StatusTooManyRequests || status >= 500 {
		w.Header().Set("Retry-After-Ms", "1")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(encode(body))
}

func anthropicErrorType(status int) string {
	switch status {
	case 401:
		return "authentication_error"
	case 403:
		return "permission_error"
	case 404:
		return "not_found_error"
	case 413:
		return "request_too_large"
	case 429:
		return "rate_limit_error"
	case 529:
		return "overloaded_error"
	}
	if status >= 500 {
		return "api_error"
	}
	return "invalid_request_error"
}

func openAIErrorType(status int) (kind, code string) {
	switch {
	case status == 401:
		return "invalid_request_error", "invalid_api_key"
	case status == 404:
		return "invalid_request_error", "not_found"
	case status == 429:
		return "requests", "rate_limit_exceeded"
	case status >= 500:
		return "server_error", ""
	}
	return "invalid_request_error", ""
}

// scriptedError is the error that practice-error-NNN asks for, or nil.
func scriptedError(model string) error {
	digits, ok := strings.CutPrefix(model, "practice-error-")
	status, err := strconv.Atoi(digits)
	if !ok || err != nil || status < 400 || status > 599 {
		return nil
	}
	return &apiError{Status: status, Message: fmt.Sprintf("the practice model was asked to fail with status %d", status)}
}

// faultAfter is how many frames of a stream a misbehaving model sends first.
const faultAfter = 3

// A sink writes one answer, whole or as server-sent events, with the delays and faults that the model's name asks for.
type sink struct {
	w      http.ResponseWriter
	ctx    context.Context
	delay  time.Duration
	stall  time.Duration
	fault  string
	frames int
	failed bool // the client is gone: nothing more is written
}

func (s *server) sink(q *request, model string) *sink {
	k := &sink{w: q.w, ctx: q.ctx, delay: s.Delay, stall: s.Stall}
	switch model {
	case "practice-slow":
		k.delay = max(k.delay, 50*time.Millisecond)
	case "practice-stall", "practice-reset", "practice-short":
		k.fault = strings.TrimPrefix(model, "practice-")
	}
	return k
}

// whole sends v as one JSON body.
func (k *sink) whole(v any) {
	k.pause()
	body := encode(v)
	k.w.Header().Set("Content-Type", "application/json")
	switch k.fault {
	case "short":
		k.w.Header().Set("Content-Length", strconv.Itoa(len(body)+1000))
	case "stall", "reset":
		k.w.Write(body[:len(body)/2])
		k.misbehave()
		return
	}
	k.w.Write(body)
}

// open starts an event stream.
func (k *sink) open() {
	h := k.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	if k.fault == "short" {
		h.Set("Content-Length", strconv.Itoa(1<<30))
	}
	k.w.WriteHeader(http.StatusOK)
}

// event sends one frame. name may be empty.
func (k *sink) event(name string, v any) {
	var b bytes.Buffer
	if name != "" {
		fmt.Fprintf(&b, "event: %s\n", name)
	}
	b.WriteString("data: ")
	b.Write(encode(v))
	b.WriteString("\n\n")
	k.frame(b.Bytes())
}

func (k *sink) frame(b []byte) {
	if k.failed {
		return
	}
	if k.frames == faultAfter && (k.fault == "stall" || k.fault == "reset") {
		k.misbehave()
		return
	}
	k.frames++
	if _, err := k.w.Write(b); err != nil {
		k.failed = true
		return
	}
	k.flush()
}

func (k *sink) flush() {
	if err := http.NewResponseController(k.w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		k.failed = true
	}
}

// pause waits for the delay, less if the client goes away.
func (k *sink) pause() {
	if !k.wait(k.delay) {
		k.failed = true
	}
}

func (k *sink) wait(d time.Duration) bool {
	if d <= 0 {
		return k.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-k.ctx.Done():
		return false
	}
}

// misbehave ends the connection in mid-answer. It does not return to the handler's caller, except after a reset.
func (k *sink) misbehave() {
	k.flush()
	k.failed = true
	if k.fault == "stall" {
		k.wait(k.stall)
		panic(http.ErrAbortHandler)
	}
	conn, _, err := http.NewResponseController(k.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2 and recorders: the nearest thing to a reset
	}
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn() // below TLS
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) // unsent bytes are dropped and the peer gets RST
	}
	conn.Close()
}

// chunks yields text in pieces of n runes, pausing before each.
func (s *server) chunks(k *sink, text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for text != "" {
			k.pause()
			piece := firstRunes(text, s.Chunk)
			text = text[len(piece):]
			if k.failed || !yield(piece) {
				return
			}
		}
	}
}

// firstRunes is the prefix of s of at most n runes.
func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// encode is JSON as the providers write it: <, > and & as they are.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		// Everything encoded here is built from strings, numbers and JSON that was parsed before.
		panic(fmt.Sprintf("practice: encoding an answer: %v", err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// tokens counts one token for every four bytes, and at least one.
func tokens(bytes int) int { return max(1, bytes/4) }

// A list is a JSON array of at most maxItems elements. The bound holds while reading, so that an array of empty
// objects cannot grow to a multiple of the request in memory.
type list[T any] []T

func (l *list[T]) UnmarshalJSON(b []byte) error {
	*l = nil
	if string(b) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('[') {
		return fmt.Errorf("expected an array, found %.20s", b)
	}
	for d.More() {
		if len(*l) == maxItems {
			return fmt.Errorf("an array has more than %d elements", maxItems)
		}
		var v T
		if err := d.Decode(&v); err != nil {
			return err
		}
		*l = append(*l, v)
	}
	return nil
}
