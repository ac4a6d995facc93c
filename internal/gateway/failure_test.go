package gateway

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
)

var errDisk = errors.New("no space left on device")

func failing() error { return errDisk }

// TestLedgerThatFails: on a closed route nothing goes upstream that cannot be recorded, and no completed answer goes
// out; on an open one the call passes and the gap becomes a fact as soon as there can be facts again.
func TestLedgerThatFails(t *testing.T) {
	first := delta("c", "first", "null")
	whole := completion("c", "hi")
	stream := first + delta("c", "", `"stop"`) + done
	for _, c := range []struct {
		name      string
		stream    bool
		open      bool
		at        string // which commit fails: "intent" or "outcome"
		point     string // "before": nothing is on the disk; "after": it is all the same
		status    int
		upstream  bool
		completed bool // the client gets the answer, as if nothing had happened
		gap       bool
		outcome   string // on record once the disk works again
	}{
		{name: "closed, before the call", at: "intent", point: "before", status: 503},
		{name: "closed, before a stream", stream: true, at: "intent", point: "before", status: 503},
		{name: "closed, before the answer", at: "outcome", point: "before", status: 503, upstream: true, outcome: outcomeWithheld},
		{name: "closed, before the end of a stream", stream: true, at: "outcome", point: "before", status: 200, upstream: true, outcome: outcomeWithheld},
		{name: "open, before the call", open: true, at: "intent", point: "before", status: 200, upstream: true, completed: true, gap: true},
		{name: "open, before a stream", open: true, stream: true, at: "intent", point: "before", status: 200, upstream: true, completed: true, gap: true},
		{name: "open, before the answer", open: true, at: "outcome", point: "before", status: 200, upstream: true, completed: true, gap: true, outcome: outcomeUnrecorded},
		{name: "open, before the end of a stream", open: true, stream: true, at: "outcome", point: "before", status: 200, upstream: true, completed: true, gap: true, outcome: outcomeUnrecorded},
		{name: "persisted all the same, before the call", at: "intent", point: "after", status: 200, upstream: true, completed: true, outcome: outcomeCompleted},
		{name: "persisted all the same, before the answer", at: "outcome", point: "after", status: 200, upstream: true, completed: true, outcome: outcomeCompleted},
		{name: "persisted all the same, before the end of a stream", stream: true, at: "outcome", point: "after", status: 200, upstream: true, completed: true, outcome: outcomeCompleted},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var f faults
			up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) {
				if c.at == "outcome" {
					f.set(c.point, failing)
				}
				if c.stream {
					answerStream(w, first, strings.TrimPrefix(stream, first))
				} else {
					answerJSON(w, whole)
				}
			})
			h := &harness{t: t, fault: f.call, settings: Settings{Providers: map[string]Provider{"openai": {FailOpen: c.open}}}}
			h.prepare(up.URL)
			h.open()
			key := "Authorization: Bearer " + h.key("app")
			if c.at == "intent" {
				f.set(c.point, failing)
			}
			body, want := chat("hi"), whole
			if c.stream {
				body, want = chatStream("hi"), stream
			}
			a := h.post(chatPath, body, key)
			h.settle(1)
			if a.status != c.status || a.err != nil {
				t.Fatalf("status %d, %v: %s", a.status, a.err, a.body)
			}
			if got := len(up.requests()) > 0; got != c.upstream {
				t.Errorf("it went upstream: %v", got)
			}
			switch {
			case c.completed:
				wantBytes(t, "what the client got", a.body, []byte(want))
			case c.status != http.StatusOK:
				wantRefusal(t, a, "openai", c.status, "ledger_unavailable", true)
			default:
				if rest, ok := bytes.CutPrefix(a.body, []byte(first)); !ok || !bytes.HasPrefix(rest, []byte(`data: {"error":`)) || !bytes.Contains(rest, []byte("ledger_unavailable")) {
					t.Errorf("the client got %q", a.body)
				}
				if bytes.Contains(a.body, []byte(`"stop"`)) || bytes.Contains(a.body, []byte("[DONE]")) {
					t.Errorf("the client can take an answer that is on no record for complete: %q", a.body)
				}
			}
			// The disk works again.
			f.set("before", nil)
			f.set("after", nil)
			h.gateway.recordSums(context.Background(), true)
			gaps := h.facts(fairlead.KindGap)
			if c.gap && (len(gaps) != 1 || gaps[0].Int("fairlead.gap.calls") != 1) {
				t.Errorf("one call went unrecorded, but the gaps are %v", gaps)
			}
			if !c.gap && len(gaps) != 0 {
				t.Errorf("a gap is recorded where there is none: %v", gaps[0].Attrs)
			}
			h.gateway.recordSums(context.Background(), true)
			if again := h.facts(fairlead.KindGap); len(again) != len(gaps) {
				t.Error("the same gap is recorded twice")
			}
			for _, call := range h.calls() {
				if len(call.outcomes) != 1 {
					t.Fatalf("once the disk works again, the call has %d outcomes", len(call.outcomes))
				}
				if got := call.outcomes[0].Text("fairlead.outcome"); got != c.outcome {
					t.Errorf("the outcome says %q, want %q", got, c.outcome)
				}
			}
			if n := len(h.calls()); n == 0 && c.outcome != "" {
				t.Error("the call is on no record")
			}
			h.close()
			h.open()
			for _, call := range h.calls() {
				if len(call.outcomes) != 1 {
					t.Errorf("after a restart the call has %d outcomes", len(call.outcomes))
				}
			}
			if c.completed && !c.gap {
				call := h.calls()[0]
				h.wantContent("the recorded answer", call.outcomes[0], a.body)
			}
		})
	}
}

// TestAttemptThatCannotBeRecorded: a further attempt is a fact before it is made, or is not made; on an open route it
// is made and the gap is a fact.
func TestAttemptThatCannotBeRecorded(t *testing.T) {
	for _, open := range []bool{false, true} {
		var f faults
		s := &script{statuses: []int{503}, seen: func(n int) {
			if n == 1 { // the next fact is that of the second attempt
				f.next("before", failing)
			}
		}}
		up := newProvider(t, s.answer)
		h := &harness{t: t, fault: f.call, settings: Settings{Providers: map[string]Provider{"openai": {FailOpen: open, Retries: 1}}}}
		h.prepare(up.URL)
		h.open()
		a := h.post(chatPath, chat("hi"), "Authorization: Bearer sk-client")
		_, outcome := h.only(0)
		h.wantContent("the recorded answer", outcome, a.body)
		if !open {
			if outcome.Text("error.type") != "ledger_unavailable" {
				t.Errorf("the outcome says %v", outcome.Attrs)
			}
			wantRefusal(t, a, "openai", http.StatusServiceUnavailable, "ledger_unavailable", true)
			if n := len(up.requests()); n != 1 {
				t.Errorf("an attempt that is no fact was made: %d requests", n)
			}
			continue
		}
		if a.status != http.StatusOK || len(up.requests()) != 2 {
			t.Errorf("an open route answers %d after %d requests: %s", a.status, len(up.requests()), a.body)
		}
	}
}

// TestAsyncRoute: the answer does not wait for the disk, and the record is there all the same.
func TestAsyncRoute(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	var f faults
	h := &harness{t: t, fault: f.call, settings: Settings{Providers: map[string]Provider{"openai": {Async: true}}}}
	h.prepare(up.URL)
	h.open()
	gate := make(chan struct{})
	f.next("before", func() error { <-gate; return nil })
	a := h.post(chatPath, chat("hi"), "Authorization: Bearer sk-client")
	if a.status != http.StatusOK {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	close(gate)
	if err := h.ledger.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, outcome := h.only(0)
	h.wantContent("the recorded answer", outcome, a.body)
	if c.intent.Text("fairlead.durability") != "async" {
		t.Error("the call does not say that it did not wait")
	}
}
