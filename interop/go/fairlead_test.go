// Package interop lets the official Go SDKs call models through a running gateway, and compares what they sent and got
// with what the ledger holds. interop/run.sh starts what it needs.
package interop

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

var binary, gateway = os.Getenv("FAIRLEAD_BIN"), os.Getenv("FAIRLEAD_URL")

// The scene of all suites: a user asks for a ticket, the model calls read_ticket, gets this back and sums it up.
const (
	question    = "Please read ticket 4711 and summarise it for me."
	ticket      = "Ticket 4711: the parcel “Größe L” arrived damaged.\n\tCosts: 12 € & \"nothing\" else </b> \u2028 done."
	toolName    = "read_ticket"
	toolPurpose = "Read a ticket by its number"
	model       = "practice-1"
)

var schema = map[string]any{"type": "object", "properties": map[string]any{"id": map[string]any{"type": "string"}}, "required": []string{"id"}, "additionalProperties": false}

// An exchange is one request and its answer, as they went over the wire.
type exchange struct {
	sent      []byte
	got       bytes.Buffer
	status    int
	id, retry string
}

// wire watches the transport that the SDKs use by default; the SDKs themselves are left as they are.
type wire struct {
	under http.RoundTripper
	mu    sync.Mutex
	seen  []*exchange
}

var watched = &wire{under: http.DefaultTransport}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	x := &exchange{}
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Body.Close()
		x.sent = b
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(b))
	}
	res, err := w.under.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	x.status, x.id, x.retry = res.StatusCode, res.Header.Get("Fairlead-Decision-Id"), res.Header.Get("X-Should-Retry")
	w.mu.Lock()
	w.seen = append(w.seen, x)
	w.mu.Unlock()
	if res.Header.Get("Content-Type") == "application/json" {
		// The SDKs do not read an answer that they try again after.
		_, err := x.got.ReadFrom(res.Body)
		res.Body.Close()
		res.Body = io.NopCloser(bytes.NewReader(x.got.Bytes()))
		return res, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(res.Body, &x.got), res.Body}
	return res, nil
}

func (w *wire) take() []*exchange {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

func TestMain(m *testing.M) {
	if binary == "" || gateway == "" {
		os.Stderr.WriteString("FAIRLEAD_BIN and FAIRLEAD_URL are not set: start the suites with interop/run.sh\n")
		os.Exit(1)
	}
	http.DefaultTransport = watched
	os.Exit(m.Run())
}

func fairlead(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("fairlead %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// An app has a key of its own: the practice model gives equal answers to equal questions, and within one app it could
// not be told which of them a call goes on from.
type app struct {
	ID, App, Secret string
	settled         int
}

func newApp(t *testing.T) *app {
	t.Helper()
	watched.take() // what a failed test left
	a := new(app)
	if err := json.Unmarshal(fairlead(t, "key", "create", "--app", "go-"+rand.Text(), "--json"), a); err != nil {
		t.Fatal(err)
	}
	return a
}

type who struct{ V, A, M string }

type envelope struct {
	ID, Kind string
	Actor    struct{ App, User, Agent who }
	Links    []struct{ Rel, To, A string }
	Attrs    map[string]any
}

// A call is a call as the ledger has it.
type call struct {
	envelope
	outcome *envelope
	retry   string
}

// end is how the call ended.
func (c *call) end() any {
	if r, ok := c.Attrs["fairlead.refusal"]; ok {
		return r
	}
	return c.outcome.Attrs["fairlead.outcome"]
}

func (a *app) recorded(t *testing.T) []*call {
	t.Helper()
	var calls []*call
	for line := range bytes.Lines(fairlead(t, "tail", "--all", "--json", "-n", "1000000")) {
		var l struct{ Envelope envelope }
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		e := &l.Envelope
		switch {
		case strings.HasPrefix(e.Kind, "call.intent/"), strings.HasPrefix(e.Kind, "call.refused/"):
			if e.Attrs["fairlead.key.id"] == a.ID {
				calls = append(calls, &call{envelope: *e})
			}
		case strings.HasPrefix(e.Kind, "call.outcome/"):
			for _, c := range calls {
				if c.ID == e.Links[0].To {
					c.outcome = e
				}
			}
		}
	}
	return calls
}

// settle checks that each call since the last settle is in the ledger once, with exactly the bytes that went over the
// wire in both directions, and that there are n of them.
func (a *app) settle(t *testing.T, n int) []*call {
	t.Helper()
	seen, calls := watched.take(), a.recorded(t)[a.settled:]
	a.settled += len(calls)
	if len(calls) != len(seen) || len(calls) != n {
		t.Fatalf("%d calls in the ledger and %d on the wire, want %d", len(calls), len(seen), n)
	}
	for i, x := range seen {
		c := calls[i]
		c.retry = x.retry
		if c.ID != x.id {
			t.Fatalf("call %d is %s in the ledger and %s on the wire", i, c.ID, x.id)
		}
		if len(x.sent) > 0 && !bytes.Equal(fairlead(t, "show", "--raw", "request", c.ID), x.sent) {
			t.Errorf("request of %s is recorded otherwise than sent", c.ID)
		}
		if c.Kind == "call.refused/1" {
			continue
		}
		if c.outcome == nil {
			t.Fatalf("%s has no outcome", c.ID)
		}
		if raw := fairlead(t, "show", "--raw", "response", c.ID); !bytes.Equal(raw, x.got.Bytes()) {
			t.Errorf("answer of %s: recorded\n%s\nreceived\n%s", c.ID, raw, x.got.Bytes())
		}
	}
	return calls
}

// ends checks how n calls since the last settle ended.
func (a *app) ends(t *testing.T, want string, n int) []*call {
	t.Helper()
	calls := a.settle(t, n)
	for _, c := range calls {
		if c.end() != want {
			t.Errorf("%s ended as %v, want %s", c.ID, c.end(), want)
		}
	}
	return calls
}

// follows checks that a call was derived to go on from an earlier one, by the given relations and no other.
func (c *call) follows(t *testing.T, earlier *call, relations ...string) {
	t.Helper()
	var got []string
	for _, l := range c.Links {
		got = append(got, l.Rel+" "+l.To+" "+l.A)
	}
	var want []string
	for _, r := range relations {
		want = append(want, r+" "+earlier.ID+" derived")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s has links %q, want %q", c.ID, got, want)
	}
	for _, a := range []string{"fairlead.turns.declared", "fairlead.state.unresolved"} {
		if v, ok := c.Attrs[a]; ok {
			t.Errorf("%s has %s = %v", c.ID, a, v)
		}
	}
}
