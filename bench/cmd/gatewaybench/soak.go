package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/bench/internal/rig"
	"github.com/fairleadhq/fairlead/internal/ledger"
)

// A level is what the control plane's metrics say about the process.
type level struct {
	Goroutines float64 `json:"goroutines"`
	RSS        float64 `json:"rss_bytes"`
	Heap       float64 `json:"heap_bytes"` // in use after the last collection, garbage since then included
}

// A soak is how memory and goroutines return after many calls, and whether each call was recorded.
type soak struct {
	Calls    int64         `json:"calls"`
	Answered int64         `json:"answered"`
	Aborted  int64         `json:"aborted"`
	Before   level         `json:"before"`
	Busy     level         `json:"busy"` // right after the last call
	After    level         `json:"after"`
	Settled  time.Duration `json:"settled_ns"` // how long after the last call After was read
	Intents  int64         `json:"intents"`    // of all calls, the warm-up's included
	Outcomes int64         `json:"outcomes"`
	Warm     int64         `json:"warmup_answered"`
}

// How far above its level before something may be and still count as returned.
const (
	goroutineSlack = 8
	memoryFactor   = 1.1
)

func (s *soak) returned() bool {
	return s.After.Goroutines <= s.Before.Goroutines+goroutineSlack && s.After.RSS <= s.Before.RSS*memoryFactor
}

// soaked makes the calls on a gateway of its own: a tenth of the number to warm up, then all of them, each third one
// aborted and each fifth one a stream.
func (p *plan) soaked(ctx context.Context, f *field) (*soak, error) {
	g, t, err := p.fairlead(ctx, f)
	if err != nil {
		return nil, err
	}
	s := &soak{Calls: p.soak}
	if s.Warm, _, err = p.soakCalls(ctx, f, t, max(p.soak/10, 50)); err != nil {
		return nil, err
	}
	if s.Before, err = calm(ctx, g, nil, p.settle); err != nil {
		return nil, err
	}
	if s.Answered, s.Aborted, err = p.soakCalls(ctx, f, t, p.soak); err != nil {
		return nil, err
	}
	last := time.Now()
	if s.Busy, err = levelOf(ctx, g); err != nil {
		return nil, err
	}
	s.After, err = calm(ctx, g, func(l level) bool { s.After = l; return s.returned() }, p.settle)
	if err != nil {
		return nil, err
	}
	s.Settled = time.Since(last)
	if err := g.Stop(); err != nil {
		return nil, err
	}
	return s, s.count(ctx, g.Data)
}

// soakCalls makes n calls.
func (p *plan) soakCalls(ctx context.Context, f *field, t target, n int64) (answered, aborted int64, err error) {
	for _, c := range []benchCase{
		{args: []string{"-c", "64", "-n", strconv.FormatInt(n-n/5, 10)}},
		{args: []string{"-c", "64", "-n", strconv.FormatInt(n/5, 10), "-stream"}},
	} {
		r, err := p.load(ctx, f, t, c, "-abort", "3", "-warmup", "0s", "-d", "10m")
		if err != nil {
			return 0, 0, err
		}
		if r.Errors > 0 {
			return 0, 0, fmt.Errorf("%d calls failed: %s", r.Errors, r.FirstErr)
		}
		answered, aborted = answered+int64(r.Requests), aborted+r.Aborted
	}
	return answered, aborted, nil
}

// calm reads the level every second until enough says that it will do, or until it has not fallen for ten seconds when
// enough is nil; after the time most it gives what it is then.
func calm(ctx context.Context, g *rig.Gateway, enough func(level) bool, most time.Duration) (level, error) {
	var lowest level
	quiet := 0
	for start := time.Now(); ; {
		l, err := levelOf(ctx, g)
		if err != nil {
			return l, err
		}
		if quiet++; lowest.RSS == 0 || l.RSS < lowest.RSS || l.Goroutines < lowest.Goroutines {
			lowest, quiet = l, 0
		}
		if enough != nil && enough(l) || enough == nil && quiet >= 10 || time.Since(start) > most {
			return l, nil
		}
		select {
		case <-ctx.Done():
			return l, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

func levelOf(ctx context.Context, g *rig.Gateway) (l level, err error) {
	text, err := rig.Get(ctx, g.Control+"/metrics")
	if err != nil {
		return l, err
	}
	for name, to := range map[string]*float64{"go_goroutines": &l.Goroutines, "process_resident_memory_bytes": &l.RSS, "go_memstats_heap_inuse_bytes": &l.Heap} {
		if *to, err = metric(string(text), name); err != nil {
			return l, err
		}
	}
	return l, nil
}

// metric finds a metric without labels in Prometheus's text format.
func metric(text, name string) (float64, error) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("the control plane's metrics lack %s", name)
}

// count looks into the ledger whether every call that was begun was closed.
func (s *soak) count(ctx context.Context, data string) error {
	r, err := ledger.OpenReader(data, "")
	if err != nil {
		return err
	}
	err = r.Events(ctx, 0, func(_ int64, envelope []byte) error {
		switch {
		case bytes.Contains(envelope, []byte(`"kind":"call.intent/1"`)):
			s.Intents++
		case bytes.Contains(envelope, []byte(`"kind":"call.outcome/1"`)):
			s.Outcomes++
		}
		return nil
	})
	return errors.Join(err, r.Close())
}

func (s *soak) print(b *strings.Builder) {
	fmt.Fprintf(b, "\n| %d calls, %d answered, %d aborted | goroutines | resident MB | heap MB |\n|---|--:|--:|--:|\n", s.Calls, s.Answered, s.Aborted)
	for _, l := range []struct {
		name string
		level
	}{{"before", s.Before}, {"right after", s.Busy}, {fmt.Sprintf("%.0f s later", s.Settled.Seconds()), s.After}} {
		fmt.Fprintf(b, "| %s | %.0f | %.1f | %.1f |\n", l.name, l.Goroutines, l.RSS/1e6, l.Heap/1e6)
	}
	said := "returned"
	if !s.returned() {
		said = "**did not return**"
	}
	fmt.Fprintf(b, "\nMemory and goroutines %s (to within %.0f %% and %d). ", said, (memoryFactor-1)*100, goroutineSlack)
	fmt.Fprintf(b, "%d calls were answered, warm-up included; the ledger holds %d intents and %d outcomes, those of aborted calls included. ",
		s.Answered+s.Warm, s.Intents, s.Outcomes)
	switch open := s.Intents - s.Outcomes; {
	case s.Outcomes < s.Answered+s.Warm:
		b.WriteString("**Answered calls are missing.**\n")
	case open != 0:
		fmt.Fprintf(b, "**%d calls were begun and never closed.**\n", open)
	default:
		b.WriteString("Every call that was begun was closed.\n")
	}
}
