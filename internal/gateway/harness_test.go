package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/approval"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/identity"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/provenance"
	"github.com/fairleadhq/fairlead/verify"
)

// A harness is a gateway behind a real listener, with a real ledger in a folder of its own.
type harness struct {
	t         testing.TB
	dir, keys string
	settings  Settings
	issuers   []identity.Issuer
	fault     func(point string) error
	tap       *lockedBuffer // if set, takes a copy of whatever is written to clients
	limits    *budget.Book
	policies  Policies
	onCall    func(*http.Request) // if set, sees each request as it comes in

	log      lockedBuffer
	ledger   *ledger.Ledger
	ring     *identity.Ring
	failures *identity.Failures
	linker   *provenance.Linker
	book     *approval.Book
	gateway  *Gateway
	server   *httptest.Server
	client   *http.Client

	mu                sync.Mutex
	idle              *sync.Cond
	started, finished int
	paniced           []any
}

// newHarness starts a gateway. The providers' names and dialects come from settings; a provider without a BaseURL is
// given upstream's.
func newHarness(t testing.TB, upstream string, s Settings) *harness {
	t.Helper()
	h := &harness{t: t, settings: s}
	h.prepare(upstream)
	h.open()
	return h
}

// prepare fills in what a harness needs before it is opened.
func (h *harness) prepare(upstream string) {
	dir := h.t.TempDir()
	h.dir, h.keys = filepath.Join(dir, "data"), filepath.Join(dir, "keys")
	h.idle = sync.NewCond(&h.mu)
	if h.settings.Providers == nil {
		h.settings.Providers = map[string]Provider{"openai": {}, "anthropic": {}}
	}
	h.settings.Providers = maps.Clone(h.settings.Providers)
	for name, p := range h.settings.Providers {
		if p.Dialect == "" {
			p.Dialect = name
		}
		if p.BaseURL == "" {
			p.BaseURL = upstream
		}
		h.settings.Providers[name] = p
	}
}

// open opens the ledger and starts the gateway; after close it goes on with the same folder.
func (h *harness) open() {
	h.t.Helper()
	logger := slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l, err := ledger.Open(h.t.Context(), ledger.Config{Dir: h.dir, Keys: h.keys, Log: logger, Checkpoint: time.Hour, Fault: h.fault})
	if err != nil {
		h.t.Fatal(err)
	}
	h.ledger, h.ring, h.failures, h.linker = l, new(identity.Ring), &identity.Failures{}, provenance.NewLinker()
	h.eachFact(func(e *verify.Envelope) {
		if err := h.ring.Apply(e.Fact); err != nil {
			h.t.Fatal(err)
		}
	})
	pseudonyms, err := identity.NewPseudonyms(l.DeriveKey("pseudonyms"))
	if err != nil {
		h.t.Fatal(err)
	}
	resolver, err := identity.New(identity.Config{Pseudonyms: pseudonyms, Keys: h.ring, Issuers: h.issuers})
	if err != nil {
		h.t.Fatal(err)
	}
	book, err := approval.New(h.t.Context(), approval.Config{Ledger: l, Log: logger})
	if err != nil {
		h.t.Fatal(err)
	}
	seq := int64(0)
	h.eachFact(func(e *verify.Envelope) {
		if strings.HasPrefix(string(e.Kind), "approval.") {
			if err := book.Apply(seq, e.Fact); err != nil {
				h.t.Fatal(err)
			}
		}
		seq++
	})
	h.book = book
	c := Config{Ledger: l, Approvals: book, Budget: h.limits, Policies: h.policies, Resolver: resolver, Linker: h.linker, Failures: h.failures, Log: logger, Settings: h.settings}
	if h.gateway, err = New(c); err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.linker.Warm(h.t.Context(), l.Reader, h.gateway.Relearn); err != nil {
		h.t.Fatal(err)
	}
	h.server = httptest.NewUnstartedServer(http.HandlerFunc(h.serve))
	h.server.Config.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelError)
	h.server.Start()
	h.client = &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute,
	}
	h.t.Cleanup(h.close)
}

// serve counts the calls that are under way and notes panics.
func (h *harness) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.started++
	h.mu.Unlock()
	defer func() {
		p := recover()
		h.mu.Lock()
		h.finished++
		if p != nil && p != http.ErrAbortHandler {
			h.paniced = append(h.paniced, p)
		}
		h.mu.Unlock()
		h.idle.Broadcast()
		if p != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	if h.onCall != nil {
		h.onCall(r)
	}
	if h.tap != nil {
		w = tapped{w, h.tap}
	}
	h.gateway.ServeHTTP(w, r)
}

// A tapped response writer copies what is written.
type tapped struct {
	http.ResponseWriter
	copy *lockedBuffer
}

func (w tapped) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.copy.Write(b[:n])
	return n, err
}

func (w tapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Faults makes commits of the ledger fail, before they happen or after.
type faults struct {
	mu sync.Mutex
	fn map[string]func() error
}

// set makes every commit call fn at the point, until it is set to nil.
func (f *faults) set(point string, fn func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fn == nil {
		f.fn = map[string]func() error{}
	}
	f.fn[point] = fn
}

// next makes the next commit call fn at the point.
func (f *faults) next(point string, fn func() error) {
	f.set(point, func() error {
		f.set(point, nil)
		return fn()
	})
}

func (f *faults) call(point string) error {
	f.mu.Lock()
	fn := f.fn[point]
	f.mu.Unlock()
	if fn == nil {
		return nil
	}
	return fn()
}

// settle waits until at least n calls came in since the start and none is under way.
func (h *harness) settle(n int) {
	h.t.Helper()
	late := time.AfterFunc(20*time.Second, func() {
		h.mu.Lock()
		h.started = -1 << 40
		h.mu.Unlock()
		h.idle.Broadcast()
	})
	defer late.Stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.started >= 0 && (h.started < n || h.started != h.finished) {
		h.idle.Wait()
	}
	if h.started < 0 {
		h.t.Fatal("a call did not come to an end within 20 seconds")
	}
}

// close stops the gateway and releases its folder.
func (h *harness) close() {
	if h.server == nil {
		return
	}
	h.client.CloseIdleConnections()
	h.server.Close()
	h.server = nil
	if err := h.ledger.Close(); err != nil && h.fault == nil {
		h.t.Error(err)
	}
	if t, ok := h.gateway.transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	if len(h.paniced) > 0 {
		h.t.Errorf("the gateway panicked: %v", h.paniced)
	}
}

// set replaces the settings by a change of the present ones.
func (h *harness) set(change func(*Settings)) {
	h.t.Helper()
	h.settings.Providers = maps.Clone(h.settings.Providers)
	change(&h.settings)
	if err := h.gateway.Set(h.settings); err != nil {
		h.t.Fatal(err)
	}
}

// provider changes one provider.
func (h *harness) provider(name string, change func(*Provider)) {
	h.t.Helper()
	h.set(func(s *Settings) {
		p := s.Providers[name]
		change(&p)
		s.Providers[name] = p
	})
}

// key makes a virtual key for app.
func (h *harness) key(app string) string {
	h.t.Helper()
	secret, k := identity.NewKey()
	k.App = app
	f := fairlead.Fact{Kind: fairlead.KindKeyCreated, Attrs: k.CreatedAttrs()}
	if _, err := h.ledger.Append(h.t.Context(), &f); err != nil {
		h.t.Fatal(err)
	}
	if err := h.ring.Apply(f); err != nil {
		h.t.Fatal(err)
	}
	return secret.Reveal()
}

// An answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // the body did not end properly, or there was no answer at all
}

// request makes a request to the gateway. Headers are given as "Name: value".
func (h *harness) request(ctx context.Context, method, path string, body []byte, headers ...string) *http.Request {
	h.t.Helper()
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, h.server.URL+path, r)
	if err != nil {
		h.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header.Add(name, value)
	}
	return req
}

func (h *harness) do(req *http.Request) answer {
	res, err := h.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, body, err}
}

func (h *harness) post(path, body string, headers ...string) answer {
	h.t.Helper()
	return h.do(h.request(h.t.Context(), http.MethodPost, path, []byte(body), headers...))
}

// eachFact calls each for every recorded fact.
func (h *harness) eachFact(each func(*verify.Envelope)) {
	h.t.Helper()
	err := h.ledger.Events(context.Background(), 0, func(_ int64, b []byte) error {
		e, err := verify.ParseEnvelope(bytes.Clone(b))
		if err == nil {
			each(e)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// facts gives the recorded facts of the kinds, or all.
func (h *harness) facts(kinds ...fairlead.Kind) (out []*verify.Envelope) {
	h.t.Helper()
	h.eachFact(func(e *verify.Envelope) {
		if len(kinds) == 0 || slices.Contains(kinds, e.Kind) {
			out = append(out, e)
		}
	})
	return out
}

// A recorded call is everything that the ledger says about one call.
type recordedCall struct {
	intent   *verify.Envelope
	outcomes []*verify.Envelope
	attempts []*verify.Envelope
	progress []*verify.Envelope
	delivery []*verify.Envelope
}

// calls gives the recorded calls in the order of their intents.
func (h *harness) calls() []*recordedCall {
	h.t.Helper()
	var order []*recordedCall
	byID := map[fairlead.ID]*recordedCall{}
	h.eachFact(func(e *verify.Envelope) {
		if e.Kind == fairlead.KindCallIntent {
			c := &recordedCall{intent: e}
			order, byID[e.ID] = append(order, c), c
			return
		}
		c := byID[e.Link(fairlead.RelCompletes)]
		switch e.Kind {
		case fairlead.KindCallOutcome, fairlead.KindCallAttempt, fairlead.KindCallPartial, fairlead.KindDelivery:
			if c == nil {
				h.t.Fatalf("the %s %s is of no recorded call", e.Kind, e.ID)
			}
		}
		switch e.Kind {
		case fairlead.KindCallOutcome:
			c.outcomes = append(c.outcomes, e)
		case fairlead.KindCallAttempt:
			c.attempts = append(c.attempts, e)
		case fairlead.KindCallPartial:
			c.progress = append(c.progress, e)
		case fairlead.KindDelivery:
			c.delivery = append(c.delivery, e)
		}
	})
	return order
}

// only gives the one call that was recorded since the first n, and fails unless it has exactly one outcome.
func (h *harness) only(n int) (*recordedCall, *verify.Envelope) {
	h.t.Helper()
	list := h.calls()
	if len(list) != n+1 {
		h.t.Fatalf("%d calls were recorded, want 1", len(list)-n)
	}
	c := list[n]
	if len(c.outcomes) != 1 {
		h.t.Fatalf("the call has %d outcomes, want 1", len(c.outcomes))
	}
	return c, c.outcomes[0]
}

// content opens what a fact holds; nil when it holds nothing.
func (h *harness) content(e *verify.Envelope) []byte {
	h.t.Helper()
	if len(e.Content) == 0 {
		return nil
	}
	o, err := h.ledger.Vault().Open(context.Background(), e.Content[0])
	if err != nil {
		h.t.Fatalf("opening the content of %s: %v", e.ID, err)
	}
	return o.Body
}

// wantContent fails unless what a fact holds is want.
func (h *harness) wantContent(what string, e *verify.Envelope, want []byte) {
	h.t.Helper()
	wantBytes(h.t, what, h.content(e), want)
}

// wantBytes compares bytes and shows where they part.
func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	cut := func(b []byte) []byte { return b[max(0, min(i-20, len(b))):min(i+60, len(b))] }
	t.Errorf("%s: %d bytes, want %d; they part at %d:\n got …%q…\nwant …%q…", what, len(got), len(want), i, cut(got), cut(want))
}

// wantRefusal fails unless a is an error in the shape of the dialect, with the status and the code.
func wantRefusal(t testing.TB, a answer, dialectName string, status int, code string, retry bool) {
	t.Helper()
	if a.err != nil {
		t.Fatalf("there was no whole answer: %v", a.err)
	}
	var got struct {
		Type  string
		Error struct{ Type, Message, Code string }
	}
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatalf("the refusal is not JSON: %v: %.200q", err, a.body)
	}
	if a.status != status || got.Error.Code != code {
		t.Errorf("status %d, code %q, want %d, %q: %s", a.status, got.Error.Code, status, code, a.body)
	}
	if dialectName == "anthropic" && got.Type != "error" || got.Error.Type == "" || !strings.HasPrefix(got.Error.Message, "Fairlead: ") {
		t.Errorf("the refusal is not in the shape of %s: %s", dialectName, a.body)
	}
	if s := a.header.Get("X-Should-Retry"); s != fmt.Sprint(retry) {
		t.Errorf("x-should-retry is %q, want %v", s, retry)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("the refusal's content type is %q", ct)
	}
}

// A lockedBuffer is a buffer for several writers.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

// A received request is one as the provider saw it.
type received struct {
	method, uri, host string
	header            http.Header
	body              []byte
}

// A provider is an upstream that remembers what it was sent.
type provider struct {
	*httptest.Server
	mu  sync.Mutex
	got []received
}

// newProvider starts an upstream. answer finds the request's body in received.
func newProvider(t testing.TB, answer func(w http.ResponseWriter, r *http.Request, got received)) *provider {
	t.Helper()
	p := &provider{}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		got := received{r.Method, r.RequestURI, r.Host, r.Header.Clone(), body}
		p.mu.Lock()
		p.got = append(p.got, got)
		p.mu.Unlock()
		answer(w, r, got)
	}))
	p.Server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	p.Server.Start()
	t.Cleanup(func() {
		p.Server.CloseClientConnections()
		p.Server.Close()
	})
	return p
}

func (p *provider) requests() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// last gives the newest request.
func (p *provider) last(t testing.TB) received {
	t.Helper()
	all := p.requests()
	if len(all) == 0 {
		t.Fatal("nothing reached the provider")
	}
	return all[len(all)-1]
}

// rawProvider starts an upstream that writes bytes of its own making to the connection. It returns its base URL.
func rawProvider(t testing.TB, answer func(conn *net.TCPConn, body []byte)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				body, err := io.ReadAll(req.Body)
				if err != nil {
					return
				}
				answer(conn.(*net.TCPConn), body)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

const chatPath = "/openai/v1/chat/completions"

// chat is a request body for a chat completion with one user message.
func chat(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return `{"model":"m","messages":[{"role":"user","content":` + string(b) + `}]}`
}

// chatStream is the same for a stream.
func chatStream(text string) string {
	return strings.Replace(chat(text), `{"model"`, `{"stream":true,"model"`, 1)
}

// completion is a whole answer of a chat model.
func completion(id, text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return `{"id":"` + id + `","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":` + string(b) +
		`},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`
}

// delta is a chunk of a streamed chat answer; finish is a JSON value.
func delta(id, text, finish string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return `data: {"id":"` + id + `","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":` + string(b) +
		`},"finish_reason":` + finish + `}]}` + "\n\n"
}

const done = "data: [DONE]\n\n"

func answerJSON(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, body)
}

// answerStream writes pieces of an event stream, each flushed on its own.
func answerStream(w http.ResponseWriter, pieces ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	for _, p := range pieces {
		if _, err := io.WriteString(w, p); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
	}
}
