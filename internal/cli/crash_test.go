package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/practice"
	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/tlog"
)

// perFolder is how many crashes one data folder goes through before it is checked and the next one is begun.
const perFolder = 25

// TestKilled kills the server at random moments under load and starts it again on the same folder. FAIRLEAD_CRASHES says
// how many times. In the end every answer that a client had all of is in the ledger, to the byte and with a proof, every
// call has one outcome, and every head that was ever signed is one of this log's.
func TestKilled(t *testing.T) {
	rounds := 6
	if s := os.Getenv("FAIRLEAD_CRASHES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("FAIRLEAD_CRASHES is %q", s)
		}
		rounds = n
	}
	bin, config := buildServer(t)
	for done := 0; done < rounds; {
		c := &crashes{t: t, bin: bin, config: config, data: filepath.Join(t.TempDir(), "data"), keys: filepath.Join(t.TempDir(), "keys"),
			whole: map[fairlead.ID][sha256.Size]byte{}, begun: map[fairlead.ID][]byte{}, heads: map[string]bool{}}
		n := min(rounds-done, perFolder)
		c.play(n)
		if t.Failed() {
			t.Fatalf("after %d crashes", done+n)
		}
		done += n
	}
}

// play crashes n times on a new folder and checks what is left.
func (c *crashes) play(n int) {
	begin := time.Now()
	c.round(true) // also the making of the folder and the keys is cut off
	c.makeKey()
	for i := 1; i < n; i++ {
		// The first is left to serve, so that there is something to check.
		c.round(i > 1 && rand.IntN(5) == 0)
	}
	took := time.Since(begin)
	c.check(n > 1)
	c.t.Logf("%d rounds of %v, %v of it until ready; %d whole answers, %d cut off behind their finish reason, %d heads", n,
		(took / time.Duration(n)).Round(time.Millisecond), (c.starting / time.Duration(max(1, c.starts))).Round(time.Millisecond),
		len(c.whole), len(c.begun), len(c.heads))
}

// crashes is a server that is killed again and again, and what the world outside remembers of it.
type crashes struct {
	t                       *testing.T
	bin, config, data, keys string
	key                     string // a virtual key

	starts   int
	starting time.Duration

	mu    sync.Mutex
	whole map[fairlead.ID][sha256.Size]byte // answers that a client has all of
	begun map[fairlead.ID][]byte            // answers that were cut off behind their finish reason
	heads map[string]bool                   // signed checkpoints that somebody saw
}

// buildServer builds the program, and writes a configuration with the practice model as the provider.
func buildServer(t *testing.T) (bin, config string) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go command to build the program with")
	}
	dir := t.TempDir()
	bin, config = filepath.Join(dir, "fairlead"), filepath.Join(dir, "fairlead.yaml")
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	if out, err := exec.Command(tool, "build", "-buildvcs=false", "-o", bin, "../../cmd/fairlead").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	model := httptest.NewServer(trickle(practice.New(practice.Config{Chunk: 700})))
	t.Cleanup(model.Close)
	text := fmt.Sprintf(`listen: 127.0.0.1:0
control: 127.0.0.1:0
log: {level: warn}
checkpoint: {interval: 100ms}
providers:
  chat: {dialect: openai, base_url: %q, durability: strict, on_failure: closed}
  claude: {dialect: anthropic, base_url: %q, durability: strict, on_failure: closed}
`, model.URL, model.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return bin, config
}

// trickle lets what h writes come in pieces that end anywhere, with pauses, so that many moments can be hit: between a
// finish reason and the end of the answer, and within either.
func trickle(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(trickler{w}, r) })
}

type trickler struct{ http.ResponseWriter }

func (w trickler) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w trickler) Flush()                      { _ = http.NewResponseController(w.ResponseWriter).Flush() }

func (w trickler) Write(b []byte) (int, error) {
	if len(b) < 2 || rand.IntN(3) > 0 {
		return w.ResponseWriter.Write(b)
	}
	at := rand.IntN(len(b))
	n, err := w.ResponseWriter.Write(b[:at])
	if err != nil {
		return n, err
	}
	w.Flush()
	time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
	more, err := w.ResponseWriter.Write(b[at:])
	return n + more, err
}

func (c *crashes) makeKey() {
	var errs bytes.Buffer
	cmd := exec.Command(c.bin, "key", "create", "--app", "load", "--data", c.data, "--keys", c.keys)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("making a key: %v\n%s", err, &errs)
	}
	c.key = strings.TrimSpace(string(out))
}

// A running is a server process.
type running struct {
	cmd           *exec.Cmd
	data, control string // base URLs
	up            chan struct{}
	read          chan struct{} // closed when its standard error has ended; said is complete then
	said          []byte
}

var servesAt = regexp.MustCompile(`^fairlead serves calls at (http://\S+) and control at (http://\S+);`)

func (c *crashes) start() *running {
	p := &running{cmd: exec.Command(c.bin, "serve", "--config", c.config, "--data", c.data, "--keys", c.keys), up: make(chan struct{}), read: make(chan struct{})}
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		defer close(p.read)
		lines := bufio.NewScanner(errs)
		for lines.Scan() {
			p.said = append(append(p.said, lines.Bytes()...), '\n')
			if m := servesAt.FindStringSubmatch(lines.Text()); m != nil {
				p.data, p.control = m[1], m[2]
				close(p.up)
			}
		}
	}()
	return p
}

// kill ends the process without warning. It must not have ended before.
func (c *crashes) kill(p *running) {
	c.t.Helper()
	killErr := p.cmd.Process.Kill()
	<-p.read
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if killErr != nil || !errors.As(err, &exit) || exit.ExitCode() != -1 && runtime.GOOS != "windows" {
		c.t.Fatalf("the server ended by itself (%v, %v) and said:\n%s", killErr, err, p.said)
	}
	if strings.Contains(string(p.said), "level=ERROR") {
		c.t.Errorf("the server said:\n%s", p.said)
	}
}

// round starts the server and kills it, early while it is starting.
func (c *crashes) round(early bool) {
	c.t.Helper()
	began := time.Now()
	p := c.start()
	if early {
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		c.kill(p)
		c.sawHeads()
		return
	}
	select {
	case <-p.up:
	case <-p.read:
		c.t.Fatalf("the server does not start: %v\n%s", p.cmd.Wait(), p.said)
	case <-time.After(30 * time.Second):
		c.kill(p)
		c.t.Fatalf("the server does not start:\n%s", p.said)
	}
	c.starts++
	c.starting += time.Since(began)
	ctx, stop := context.WithCancel(c.t.Context())
	var load sync.WaitGroup
	for i := range 8 + rand.IntN(9) {
		load.Go(func() { c.client(ctx, p.data, i) })
	}
	load.Go(func() { c.watch(ctx, p.control) })
	time.Sleep(time.Duration(20+rand.IntN(300)) * time.Millisecond)
	c.kill(p)
	stop()
	load.Wait()
	c.sawHeads()
}

// sawHeads remembers the head outside the data folder.
func (c *crashes) sawHeads() {
	heads, err := filepath.Glob(filepath.Join(c.keys, "*", "head"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, name := range heads {
		b, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		c.mu.Lock()
		c.heads[string(b)] = true
		c.mu.Unlock()
	}
}

// watch remembers the checkpoints that are published.
func (c *crashes) watch(ctx context.Context, control string) {
	for ctx.Err() == nil {
		if res, err := http.Get(control + "/checkpoint"); err == nil {
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil && res.StatusCode == http.StatusOK {
				c.mu.Lock()
				c.heads[string(b)] = true
				c.mu.Unlock()
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A shape is one way to call: where, with what, and how to see that an answer is complete.
type shape struct {
	path     string
	messages string // name of the list of messages
	finish   string // what the event with the finish reason holds
	last     string // how the last event starts
}

var shapes = []shape{
	{"/chat/v1/chat/completions", "messages", `"finish_reason":"stop"`, "data: [DONE]\n"},
	{"/chat/v1/responses", "input", `"type":"response.completed"`, "event: response.completed\n"},
	{"/claude/v1/messages", "messages", `"stop_reason":"end_turn"`, "event: message_stop\n"},
}

// client has conversations until the server is gone.
func (c *crashes) client(ctx context.Context, base string, n int) {
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(n)))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for ctx.Err() == nil {
		s, turns := shapes[rng.IntN(len(shapes))], []any{}
		for size := 0; size < 64<<10 && rng.IntN(8) > 0; {
			text := words(rng, 1<<(6+rng.IntN(10)))
			size += len(text)
			turns = append(turns, map[string]any{"role": "user", "content": text})
			ok := c.call(ctx, client, base, s, turns, rng)
			if !ok {
				return
			}
			turns = append(turns, map[string]any{"role": "assistant", "content": words(rng, 200)})
		}
	}
}

// words is text of n bytes, half of it from a small vocabulary.
func words(rng *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		if rng.IntN(2) == 0 {
			b.WriteString("the same again ")
			continue
		}
		fmt.Fprintf(&b, "%x ", rng.Uint64())
	}
	return b.String()[:n]
}

// call makes one call and remembers what came of it. It reports whether the server is still there.
func (c *crashes) call(ctx context.Context, client *http.Client, base string, s shape, turns []any, rng *rand.Rand) bool {
	model := []string{"practice-1", "practice-echo", "practice-echo", "practice-long-8", "practice-error-429"}[rng.IntN(5)]
	body, err := json.Marshal(map[string]any{"model": model, "stream": rng.IntN(2) == 0, "max_tokens": 4096, s.messages: turns})
	if err != nil {
		c.t.Error(err)
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+s.path, bytes.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+[]string{c.key, "sk-of-the-client"}[rng.IntN(2)])
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	answer, readErr := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusTooManyRequests {
		c.t.Errorf("%s: %s %.300s", s.path, res.Status, answer)
	}
	id, err := fairlead.ParseID(res.Header.Get("Fairlead-Decision-Id"))
	if err != nil {
		c.t.Errorf("%s: %v", s.path, err)
	}
	complete, begun := readErr == nil && res.ContentLength == int64(len(answer)), false
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		at := bytes.LastIndex(answer, []byte("\n"+s.last))
		complete = at >= 0 && bytes.HasSuffix(answer[at+1:], []byte("\n\n"))
		begun = bytes.Contains(answer, []byte(s.finish))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case complete:
		c.whole[id] = sha256.Sum256(answer)
	case begun:
		c.begun[id] = answer
	}
	return readErr == nil
}

// check opens what is left, as the next process would, and compares it with what the world remembers.
func (c *crashes) check(served bool) {
	t := c.t
	l, err := ledger.Open(t.Context(), ledger.Config{Dir: c.data, Keys: c.keys, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := ledger.OpenReader(c.data, c.keys)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, _, err := r.VerifierKeys()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := verify.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := verify.Log(t.Context(), r.Inspect(), keys, verify.LogOptions{})
	if err != nil || !rep.OK() || rep.Unsigned != 0 {
		t.Fatalf("the log is not whole: %v, %v, %d events unsigned", err, rep.Problems, rep.Unsigned)
	}
	c.checkHeads(r, keys, rep.Size)
	ends := c.checkOutcomes(r)
	if served && (len(c.whole) == 0 || len(c.heads) == 0) {
		t.Errorf("clients got %d whole answers, and %d heads were signed", len(c.whole), len(c.heads))
	}
	every, n := max(1, len(c.whole)/100), 0
	for id, sum := range c.whole {
		if got := c.answer(r, ends, id); sha256.Sum256(got) != sum {
			t.Errorf("%s: the ledger has another answer than the client, of %d bytes", id, len(got))
		}
		if n++; n%every == 0 {
			c.checkProof(r, keys, ends[id])
		}
	}
	for id, part := range c.begun {
		if got := c.answer(r, ends, id); !bytes.HasPrefix(got, part) {
			t.Errorf("%s: a client has %d bytes and the finish reason; the ledger has %d bytes that start otherwise; the client's end in %q", id, len(part), len(got), part[max(0, len(part)-200):])
		}
	}
}

// answer is what the ledger says that a client got.
func (c *crashes) answer(r *ledger.Reader, ends map[fairlead.ID]int64, id fairlead.ID) []byte {
	c.t.Helper()
	end, ok := ends[id]
	if !ok {
		c.t.Errorf("%s: a client got its answer, and it has no outcome", id)
		return nil
	}
	f, err := r.Fact(c.t.Context(), end)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, part := range f.Content {
		if part.Name == "response" {
			o, err := r.Vault().Open(c.t.Context(), part)
			if err != nil {
				c.t.Errorf("%s: %v", id, err)
				return nil
			}
			return o.Body
		}
	}
	c.t.Errorf("%s: a client got an answer, and the outcome %q holds none", id, f.Text("fairlead.outcome"))
	return nil
}

// checkHeads sees to it that every head that anybody saw is a head of this log.
func (c *crashes) checkHeads(r *ledger.Reader, keys verify.Keys, size int64) {
	for text := range c.heads {
		cp, err := keys.OpenCheckpoint([]byte(text))
		if err != nil {
			if strings.HasPrefix(text, keys.Origin+"\n") {
				c.t.Errorf("a head does not verify: %v\n%s", err, text)
			}
			continue // of a log that was cut off before it had a name
		}
		if cp.Size > size {
			c.t.Errorf("a head of %d events was signed, the log has %d", cp.Size, size)
			continue
		}
		root, err := tlog.TreeHash(cp.Size, verify.TileReader(r.Tile))
		if err != nil {
			c.t.Fatal(err)
		}
		if root != cp.Root {
			c.t.Errorf("the log forked: a head of %d events has another root", cp.Size)
		}
	}
}

// checkOutcomes sees to it that every call has exactly one outcome, and returns where it is.
func (c *crashes) checkOutcomes(r *ledger.Reader) map[fairlead.ID]int64 {
	ends, intents, unknown := map[fairlead.ID]int64{}, map[fairlead.ID]bool{}, 0
	err := r.Events(c.t.Context(), 0, func(seq int64, b []byte) error {
		e, err := verify.ParseEnvelope(b)
		if err != nil {
			return err
		}
		switch e.Kind {
		case fairlead.KindCallIntent:
			intents[e.ID] = true
		case fairlead.KindCallOutcome:
			to := e.Link(fairlead.RelCompletes)
			if before, ok := ends[to]; ok || !intents[to] {
				c.t.Errorf("event %d ends call %s, which ended in event %d", seq, to, before)
			}
			ends[to] = seq
			if e.Text("fairlead.outcome") == "unknown" {
				unknown++
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	for id := range intents {
		if _, ok := ends[id]; !ok {
			c.t.Errorf("the call %s has no outcome", id)
		}
	}
	c.t.Logf("%d calls, %d of unknown outcome", len(intents), unknown)
	return ends
}

func (c *crashes) checkProof(r *ledger.Reader, keys verify.Keys, seq int64) {
	p, err := r.Prove(c.t.Context(), seq)
	if err != nil {
		c.t.Error(err)
		return
	}
	again, err := verify.ParseProof(p.Format())
	if err == nil {
		_, _, err = again.Check(keys)
	}
	if err != nil {
		c.t.Errorf("the proof of event %d (leaf %s): %v", seq, hex.EncodeToString(p.Envelope[:8]), err)
	}
}
