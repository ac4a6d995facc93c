package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"zombiezen.com/go/sqlite"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/budget"
)

// limited starts a gateway whose model answers "hi" and says that this took 5 tokens.
func limited(t *testing.T, enforce bool, limits ...budget.Limit) (*harness, *provider, string) {
	t.Helper()
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("a", "hi")) })
	b, err := budget.New(budget.Config{Limits: limits, Output: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	h := &harness{t: t, settings: Settings{Providers: map[string]Provider{"openai": {Enforce: enforce}}}, limits: b}
	h.prepare(up.URL)
	h.open()
	return h, up, "Authorization: Bearer " + h.key("app")
}

func TestLimitRefusesAndSays(t *testing.T) {
	h, up, key := limited(t, true, budget.Limit{Name: "day", Per: []string{budget.PerApp}, Tokens: 40, Period: budget.Day})
	served := 0
	var a answer
	for range 12 {
		if a = h.post(chatPath, chat("x"), key); a.status != http.StatusOK {
			break
		}
		served++
	}
	wantRefusal(t, a, "openai", http.StatusTooManyRequests, "limit_exceeded", true)
	if served == 0 || served > 8 || len(up.requests()) != served {
		t.Errorf("%d calls of 5 tokens passed a limit of 40, %d reached the provider", served, len(up.requests()))
	}
	if !strings.Contains(string(a.body), "limit day for app=app") || a.header.Get("Retry-After") == "" {
		t.Errorf("the refusal does not explain itself: %s %s", a.body, a.header)
	}
	f := h.facts(fairlead.KindCallRefused)[0]
	if got := fmt.Sprint(f.Attr("fairlead.refusal.rules")); got != "[limit:day]" {
		t.Errorf("the record names the rules %s", got)
	}
	// Another app has its own.
	if a = h.post(chatPath, chat("x"), "Authorization: Bearer "+h.key("other")); a.status != http.StatusOK {
		t.Errorf("one app's use refuses another: %s", a.body)
	}
}

// TestLimitHoldsWhenAllComeAtOnce: what is under way counts.
func TestLimitHoldsWhenAllComeAtOnce(t *testing.T) {
	h, up, key := limited(t, true, budget.Limit{Name: "month", Calls: 5, Period: budget.Month}, budget.Limit{Name: "few", Concurrent: 3})
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() { h.post(chatPath, chat("x"), key) })
	}
	wg.Wait()
	if n := len(up.requests()); n == 0 || n > 5 {
		t.Errorf("%d calls passed a limit of 5", n)
	}
	for _, s := range h.limits.Status(10) {
		if s.Held != 0 {
			t.Errorf("%s holds %d when nothing is under way", s.Limit, s.Held)
		}
	}
}

func TestObserveModeCountsAndPasses(t *testing.T) {
	h, up, key := limited(t, false, budget.Limit{Name: "one", Calls: 1, Period: budget.Day})
	for range 3 {
		if a := h.post(chatPath, chat("x"), key); a.status != http.StatusOK {
			t.Fatalf("observe mode refused: %s", a.body)
		}
	}
	if len(up.requests()) != 3 || fmt.Sprint(h.calls()[2].intent.Attr("fairlead.would_refuse")) != "[limit:one]" {
		t.Errorf("the record does not say what enforce mode would have done: %v", h.calls()[2].intent.Attrs)
	}
}

// TestRunHasBounds: an agent's steps are counted over its conversation.
func TestRunHasBounds(t *testing.T) {
	h, _, key := limited(t, true, budget.Limit{Name: "steps", Per: []string{budget.PerRun}, Calls: 3, Period: budget.Run})
	turns := `{"role":"user","content":"go"}`
	for step := range 5 {
		a := h.post(chatPath, `{"model":"m","messages":[`+turns+`]}`, key)
		if want := map[bool]int{true: http.StatusOK, false: http.StatusTooManyRequests}[step < 3]; a.status != want {
			t.Fatalf("step %d: %d, want %d: %s", step, a.status, want, a.body)
		}
		turns += `,{"role":"assistant","content":"hi"},{"role":"user","content":"on"}`
	}
	if a := h.post(chatPath, chat("something else"), key); a.status != http.StatusOK {
		t.Errorf("another run is bound by the first: %s", a.body)
	}
}

// TestUnknownUse: when it cannot be read what was used, each route does what it declares.
func TestUnknownUse(t *testing.T) {
	h, up, key := limited(t, true, budget.Limit{Name: "day", Calls: 100, Period: budget.Day})
	b, err := budget.New(budget.Config{Limits: []budget.Limit{{Name: "day", Calls: 100, Period: budget.Day}}})
	if err != nil {
		t.Fatal(err)
	}
	broken := func(context.Context, func(*sqlite.Conn) error) error { return errors.New("the disk is gone") }
	if b.Seed(t.Context(), broken) == nil {
		t.Fatal("it could be read")
	}
	h.gateway.conf.Budget = b
	wantRefusal(t, h.post(chatPath, chat("x"), key), "openai", http.StatusServiceUnavailable, "limits_unavailable", true)
	if len(up.requests()) != 0 {
		t.Error("a closed route let a call pass")
	}
	h.provider("openai", func(p *Provider) { p.FailOpen = true })
	if a := h.post(chatPath, chat("x"), key); a.status != http.StatusOK {
		t.Fatalf("an open route refused: %s", a.body)
	}
	c, _ := h.only(0)
	if fmt.Sprint(c.intent.Attr("fairlead.would_refuse")) != "[limits_unavailable]" {
		t.Errorf("a silent pass: %v", c.intent.Attrs)
	}
}
