package gateway

import (
	"errors"
	"net/http"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/budget"
)

// reserve takes from the limits that apply what the call may need.
func (c *call) reserve() error {
	b, p := c.g.conf.Budget, c.target.provider
	if b == nil || c.exchange.Operation == fairlead.OpListModels {
		return nil
	}
	run := c.linked.Run
	if run.Root.IsZero() { // a run is named by its first call, which this may be
		c.intent.ID = c.g.conf.Ledger.NewID()
		run.Root = c.intent.ID
	}
	q := budget.Call{Tenant: c.who.Tenant(), Actor: c.who.Actor, Provider: p.Name, Model: safe(c.exchange.Model), Run: run.Root.String(),
		Steps: int64(run.Steps), Depth: int64(len(c.who.Actor.Chain)), RunBegan: run.Began,
		Input: budget.EstimateInput(int64(len(c.body))), Output: c.exchange.MaxOutput, Observe: !p.Enforce}
	if c.who.Key != nil {
		q.Key = c.who.Key.ID
	}
	var err error
	c.reserved, err = b.Reserve(q)
	if err == nil {
		return nil
	}
	var over *budget.Exceeded
	if errors.As(err, &over) {
		v := over.Verdict()
		if !p.Enforce {
			c.wouldRefuse(&v)
			return nil
		}
		after, retry := over.RetryAfter()
		return &refusal{status: http.StatusTooManyRequests, code: "limit_exceeded", message: over.Error(), retry: retry, after: after, rules: v.IDs()}
	}
	c.g.conf.Log.Error("limits cannot be checked", "err", err, "open", p.FailOpen)
	if p.FailOpen || !p.Enforce {
		// What cannot be checked is counted all the same, and noted: the route lets it pass.
		c.would = append(c.would, "limits_unavailable")
		if c.reserved == nil {
			q.Observe = true
			c.reserved, _ = b.Reserve(q)
		}
		return nil
	}
	return &refusal{status: http.StatusServiceUnavailable, code: "limits_unavailable", retry: true,
		message: "it cannot be told at the moment how much of the limits is used, and this route lets through only what it can count; try again shortly"}
}

// giveBack gives back what was reserved for a call that did not go upstream. It does nothing once the call was settled.
func (c *call) giveBack() {
	if c.reserved != nil {
		c.reserved.Cancel()
	}
}

// settle counts what the call used.
func (c *call) settle(o *outcome) {
	if c.reserved == nil {
		return
	}
	end := budget.End{Outcome: o.kind, Status: o.status, Usage: fairlead.NoUsage}
	if o.answer != nil {
		end.Usage = o.answer.Usage
	}
	c.reserved.Settle(end)
}
