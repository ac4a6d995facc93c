package gateway

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
)

// TestMemoryAndGoroutines makes many calls, a third of which are aborted somewhere, and looks at what is left of them.
// FAIRLEAD_SOAK sets how many; 2,000 by default.
func TestMemoryAndGoroutines(t *testing.T) {
	n := 2000
	if s := os.Getenv("FAIRLEAD_SOAK"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	piece := delta("c", strings.Repeat("word ", 40), "null")
	up := newProvider(t, func(w http.ResponseWriter, r *http.Request, got received) {
		switch {
		case !bytes.Contains(got.body, []byte(`"stream":true`)):
			answerJSON(w, completion("c", "hi"))
		case bytes.Contains(got.body, []byte("never ends")):
			answerStream(w, piece, piece)
			<-r.Context().Done()
		default:
			answerStream(w, piece, piece, delta("c", "", `"stop"`), done)
		}
	})
	h := newHarness(t, up.URL, Settings{})
	key := "Authorization: Bearer " + h.key("app")
	h.client.Transport.(*http.Transport).MaxIdleConnsPerHost = 32
	one := func(i int) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		switch i % 3 {
		case 0:
			h.do(h.request(ctx, http.MethodPost, chatPath, []byte(chat("question "+strconv.Itoa(i))), key))
		case 1:
			h.do(h.request(ctx, http.MethodPost, chatPath, []byte(chatStream("question "+strconv.Itoa(i))), key))
		default:
			res, err := h.client.Do(h.request(ctx, http.MethodPost, chatPath, []byte(chatStream("never ends "+strconv.Itoa(i))), key))
			if err != nil {
				t.Error(err)
				return
			}
			io.ReadFull(res.Body, make([]byte, 1+rand.IntN(2*len(piece))))
			cancel()
			res.Body.Close()
		}
	}
	run := func(from, to int) {
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := from + w; i < to; i += 16 {
					one(i)
				}
			})
		}
		wg.Wait()
		h.settle(to)
	}
	// level closes what is kept for later and waits until the goroutines are at most so many, for 5 seconds at most.
	level := func(enough int) (goroutines int, heap uint64) {
		for range 500 {
			h.client.CloseIdleConnections()
			h.gateway.transport.(*http.Transport).CloseIdleConnections()
			if goroutines = runtime.NumGoroutine(); goroutines <= enough {
				break
			}
			time.Sleep(10 * time.Millisecond) // connections take a moment to go
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return goroutines, m.HeapAlloc
	}
	empty, _ := level(1 << 20)
	warm := n / 4
	run(0, warm)
	g0, m0 := level(empty + 5)
	run(warm, n)
	g1, m1 := level(empty + 5)
	t.Logf("%d calls: goroutines %d, %d after a quarter, %d at the end; heap %d KB, then %d KB", n, empty, g0, g1, m0>>10, m1>>10)
	if g1 > empty+10 {
		buf := make([]byte, 1<<20)
		t.Errorf("goroutines went from %d to %d:\n%.6000s", empty, g1, buf[:runtime.Stack(buf, true)])
	}
	// The linker and the vault's index remember calls, up to a bound: under 2 KB each.
	if limit := m0 + 8<<20 + uint64(min(n, 1<<17))*2<<10; m1 > limit {
		t.Errorf("the heap went from %d KB to %d KB", m0>>10, m1>>10)
	}
	aborted := 0
	for _, c := range h.calls() {
		if len(c.outcomes) != 1 {
			t.Fatalf("call %s has %d outcomes", c.intent.ID, len(c.outcomes))
		}
		if c.outcomes[0].Text("fairlead.outcome") == outcomeAborted {
			aborted++
		}
	}
	if want := n / 3; aborted != want {
		t.Errorf("%d calls are recorded as aborted, %d were", aborted, want)
	}
}

// TestWhateverAClientHasIsOnRecord makes random calls, from many clients at once, to providers that misbehave at random,
// with a ledger that fails at random. Whatever a client received in full is on record with the same bytes, and every
// call that went upstream has one outcome.
func TestWhateverAClientHasIsOnRecord(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FAIRLEAD_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("FAIRLEAD_SEED=%d", seed)
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 1))
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	up := newProvider(t, func(w http.ResponseWriter, r *http.Request, got received) {
		text := strings.Repeat("wörds, 世界; ", 1+roll(3000))
		kind := roll(12)
		if kind == 0 {
			w.WriteHeader([]int{400, 401, 429, 500, 503}[roll(5)])
			io.WriteString(w, `{"error":{"type":"x"}}`)
			return
		}
		if !bytes.Contains(got.body, []byte(`"stream":true`)) {
			body := completion("c", text)
			if kind == 1 {
				w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
			}
			answerJSON(w, body)
			return
		}
		stream := delta("c", text, "null") + delta("c", text, "null") + delta("c", "", `"stop"`) + done
		if kind <= 3 {
			stream = stream[:roll(len(stream))]
		}
		if kind == 4 {
			stream = strings.ReplaceAll(stream, "\n", "\r\n")
		}
		answerStream(w, split(stream, 1+roll(5000))...)
		if kind == 2 {
			panic(http.ErrAbortHandler)
		}
	})
	var f faults
	h := &harness{t: t, fault: f.call, settings: Settings{Providers: map[string]Provider{"openai": {Retries: 1}, "bare": {Dialect: "openai"}}}}
	h.prepare(up.URL)
	h.open()
	key := "Authorization: Bearer " + h.key("app")
	f.set("before", func() error {
		if roll(40) == 0 {
			return errDisk
		}
		return nil
	})
	f.set("after", func() error {
		if roll(40) == 0 {
			return errDisk
		}
		return nil
	})
	const n = 400
	answers := make([]answer, n)
	parts := make([]answer, n) // what clients had that left
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				ctx, cancel := context.WithCancel(t.Context())
				body := chat("question " + strconv.Itoa(roll(50)))
				if roll(2) == 0 {
					body = chatStream("question " + strconv.Itoa(roll(50)))
				}
				path := []string{chatPath, "/bare/v1/chat/completions"}[roll(2)]
				req := h.request(ctx, http.MethodPost, path, []byte(body), key)
				if roll(5) > 0 {
					answers[i] = h.do(req)
					cancel()
					continue
				}
				// A client that leaves after some bytes.
				res, err := h.client.Do(req)
				if err == nil {
					part, _ := io.ReadAll(io.LimitReader(res.Body, int64(roll(20_000))))
					parts[i] = answer{status: res.StatusCode, header: res.Header, body: part}
					cancel()
					res.Body.Close()
				}
				cancel()
				answers[i].err = context.Canceled
			}
		})
	}
	wg.Wait()
	h.settle(n)
	f.set("before", nil)
	f.set("after", nil)
	h.gateway.recordSums(context.Background(), true)

	byID := map[string]*recordedCall{}
	for _, c := range h.calls() {
		byID[c.intent.ID.String()] = c
		if len(c.outcomes) != 1 {
			t.Errorf("call %s has %d outcomes", c.intent.ID, len(c.outcomes))
		}
		for _, e := range c.outcomes {
			h.content(e)
		}
		h.content(c.intent)
	}
	whole := 0
	for i, a := range answers {
		id := a.header.Get("Fairlead-Decision-Id")
		c := byID[id]
		if a.err != nil || a.status == http.StatusServiceUnavailable && bytes.Contains(a.body, []byte("ledger_unavailable")) ||
			bytes.Contains(a.body, []byte("ledger_unavailable")) && !bytes.Contains(a.body, []byte("[DONE]")) {
			continue // not in full, or not an answer
		}
		if c == nil || len(c.outcomes) != 1 {
			t.Errorf("answer %d, with status %d and decision %q, is on no record: %.100q", i, a.status, id, a.body)
			continue
		}
		whole++
		h.wantContent("the recorded answer", c.outcomes[0], a.body)
	}
	for _, a := range parts {
		c := byID[a.header.Get("Fairlead-Decision-Id")]
		if len(a.body) == 0 || bytes.Contains(a.body, []byte("ledger_unavailable")) || a.status == http.StatusServiceUnavailable && a.header.Get("X-Should-Retry") != "" {
			continue // a refusal, not an answer
		}
		if c == nil || len(c.outcomes) != 1 {
			t.Errorf("%d bytes of decision %q are on no record", len(a.body), a.header.Get("Fairlead-Decision-Id"))
		} else if kind := c.outcomes[0].Text("fairlead.outcome"); kind != outcomeWithheld && !bytes.HasPrefix(h.content(c.outcomes[0]), a.body) {
			t.Errorf("call %s (%s): a client that left had %d bytes that are not the beginning of those on record", c.intent.ID, kind, len(a.body))
		}
	}
	if whole < n/2 {
		t.Errorf("only %d of %d answers came in full: the test does not test much", whole, n)
	}
	kinds := map[string]int{}
	for _, e := range h.facts(fairlead.KindCallOutcome) {
		kinds[e.Text("fairlead.outcome")]++
	}
	t.Log(whole, "answers in full;", kinds)
}
