package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMakeBody(t *testing.T) {
	for _, size := range []int{1024, 4000, 30 << 10} {
		for _, fresh := range []string{"turn", "all"} {
			body, _, err := makeBody(size, 3, fresh, true)
			if err != nil {
				t.Fatal(err)
			}
			if d := len(body) - size; d < -size/8 || d > size/8 {
				t.Errorf("%d bytes asked for, %d made", size, len(body))
			}
			var r struct {
				Stream   bool
				Messages []struct{ Role, Content string }
				Tools    []any
			}
			if err := json.Unmarshal(body, &r); err != nil {
				t.Fatalf("%v\n%s", err, body)
			}
			if !r.Stream || (len(r.Tools) > 0) != (size >= 8000) {
				t.Errorf("%d bytes: stream %v, %d tools", size, r.Stream, len(r.Tools))
			}
			if last := r.Messages[len(r.Messages)-1]; last.Role != "user" {
				t.Errorf("the last turn is the %s's", last.Role)
			}
			want := 1
			if fresh == "all" {
				want = len(r.Messages) - 1
			}
			at := slots(body)
			if len(at) != want {
				t.Errorf("%s: %d places change, want %d", fresh, len(at), want)
			}
			before := bytes.Clone(body)
			fill(body, at, 123456789012)
			if len(body) != len(before) || bytes.Count(body, []byte("123456789012")) != want || !json.Valid(body) {
				t.Errorf("filling the places broke the body: %s", body)
			}
		}
	}
}

func TestLoopback(t *testing.T) {
	for target, ok := range map[string]bool{
		"http://127.0.0.1:80/x": true, "http://[::1]:80/": true,
		"http://192.0.2.1/": false, "http://example.com/": false, "https://127.0.0.1/": false, "http://0.0.0.0/": false,
	} {
		if _, err := loopback(target); (err == nil) != ok {
			t.Errorf("loopback(%s) = %v", target, err)
		}
	}
}

// TestRun loads a server that counts, and compares notes with it.
func TestRun(t *testing.T) {
	var mu sync.Mutex
	bodies := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		bodies[string(b)] = true
		mu.Unlock()
		if !strings.Contains(string(b), `"stream":true`) {
			fmt.Fprint(w, `{"ok":true}`)
			return
		}
		for range 3 {
			fmt.Fprintf(w, "data: {\"content\":\"t=%d \"}\n\n", time.Now().UnixNano())
			w.(http.Flusher).Flush()
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
	}))
	defer server.Close()
	tests := []struct {
		name string
		o    order
	}{
		{"whole answers", order{conns: 3, most: 90}},
		{"streams", order{conns: 3, most: 90, stream: true}},
		{"a third aborted", order{conns: 3, most: 90, stream: true, abort: 3}},
		{"at a rate", order{conns: 2, most: 20, rate: 400}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clear(bodies)
			o := tt.o
			o.d, o.size, o.fresh = 20*time.Second, 1024, "turn"
			start := time.Now()
			r, err := run(t.Context(), &o, server.URL)
			if err != nil {
				t.Fatal(err)
			}
			aborted := int64(0)
			if o.abort > 0 {
				aborted = o.most / int64(o.abort)
			}
			if r.Errors != 0 || r.Aborted != aborted || int64(r.Requests)+aborted != o.most {
				t.Errorf("%+v, want %d calls of which %d aborted", r, o.most, aborted)
			}
			if int64(len(bodies)) != o.most {
				t.Errorf("%d different bodies arrived in %d calls", len(bodies), o.most)
			}
			if o.stream && (r.Chunk == nil || r.Chunk.P50 <= 0) {
				t.Errorf("no age of events: %+v", r.Chunk)
			}
			if d := time.Since(start); o.rate > 0 && d < 40*time.Millisecond {
				t.Errorf("20 calls at 400 a second took %v", d)
			}
		})
	}
}

// TestLate shows what the fixed rate is for: a server that stalls once makes the calls that had to wait slow, too.
func TestLate(t *testing.T) {
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		once.Do(func() { time.Sleep(100 * time.Millisecond) })
		fmt.Fprint(w, "{}")
	}))
	defer server.Close()
	o := order{conns: 1, rate: 200, most: 30, d: 20 * time.Second, size: 1024, fresh: "turn"}
	r, err := run(t.Context(), &o, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if r.Total.P50 < 20_000 {
		t.Errorf("the median is %.0f µs: the calls that the stall delayed were timed from when they were sent", r.Total.P50)
	}
}

// TestFailure shows that a server that refuses is an error and not a fast answer.
func TestFailure(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	o := order{conns: 2, d: 20 * time.Second, size: 1024, fresh: "turn"}
	r, err := run(t.Context(), &o, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != 0 || r.Errors != 2*patience || !strings.Contains(r.FirstErr, "404") {
		t.Errorf("%+v", r)
	}
}
