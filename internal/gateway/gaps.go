package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead"
)

// gaps counts calls that were let through although they could not be recorded.
type gaps struct {
	mu          sync.Mutex
	count       int64
	first, last time.Time
	open        []openCall // calls whose outcome is still to be recorded
}

// An openCall is a call that ended while the ledger could not record its outcome.
type openCall struct {
	intent       fairlead.ID
	tenant, kind string
}

// maxOpen bounds how many such calls are remembered; those beyond get the outcome unknown at the next start.
const maxOpen = 10_000

func (g *gaps) later(intent fairlead.ID, tenant, kind string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.open) < maxOpen {
		g.open = append(g.open, openCall{intent, tenant, kind})
	}
}

// next gives a call to close, if there is one; done says that it was closed.
func (g *gaps) next() (c openCall, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.open) == 0 {
		return c, false
	}
	return g.open[0], true
}

func (g *gaps) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = g.open[1:]
}

func (g *gaps) add(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.count == 0 {
		g.first = now
	}
	g.count++
	g.last = now
}

func (g *gaps) take() (count int64, first, last time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	count, first, last = g.count, g.first, g.last
	g.count = 0
	return count, first, last
}

// Background records, until ctx ends, what is recorded in sums: credentials that did not hold, and gaps once the ledger
// works again. Before it returns it records what is left.
func (g *Gateway) Background(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.recordSums(ctx, false)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			g.recordSums(last, true)
			return
		}
	}
}

func (g *Gateway) recordSums(ctx context.Context, all bool) {
	drain := g.conf.Failures.Drain
	if all {
		drain = g.conf.Failures.Flush
	}
	if sum, ok := drain(); ok {
		g.conf.Metrics.authFailed(sum.Total)
		if _, err := g.conf.Ledger.Append(ctx, &fairlead.Fact{Kind: fairlead.KindAuthFailed, Attrs: sum.Attrs()}); err != nil {
			// The counts go to the log, so that they are not lost altogether.
			g.conf.Log.Error("failed credentials could not be recorded", "count", sum.Total, "err", err)
		}
	}
	for {
		c, ok := g.gaps.next()
		if !ok {
			break
		}
		f := &fairlead.Fact{Kind: fairlead.KindCallOutcome, Tenant: c.tenant,
			Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: c.intent, Assurance: fairlead.Derived}},
			Attrs: []fairlead.Attr{{Name: "fairlead.outcome", Value: c.kind}, {Name: "error.type", Value: "ledger_unavailable"}}}
		if _, err := g.conf.Ledger.Append(ctx, f); err != nil {
			return // the ledger does not work yet
		}
		g.gaps.done()
	}
	count, first, last := g.gaps.take()
	if count == 0 {
		return
	}
	f := &fairlead.Fact{Kind: fairlead.KindGap, Attrs: []fairlead.Attr{{Name: "fairlead.gap.calls", Value: count},
		{Name: "fairlead.gap.first", Value: first.UTC().Format(time.RFC3339Nano)}, {Name: "fairlead.gap.last", Value: last.UTC().Format(time.RFC3339Nano)}}}
	if _, err := g.conf.Ledger.Append(ctx, f); err != nil {
		g.gaps.mu.Lock()
		g.gaps.count += count
		g.gaps.first = first
		if g.gaps.last.Before(last) {
			g.gaps.last = last
		}
		g.gaps.mu.Unlock()
	}
}
