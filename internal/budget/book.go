package budget

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead"
)

// Config is what a [Book] is made from.
type Config struct {
	Limits []Limit
	Prices []Price // the first that fits counts
	// Now is the clock; time.Now by default. While the process lives, time that goes back stands still.
	Now func() time.Time
	// Scopes is the largest number of counters of one limit; 100,000 if 0. Beyond it new identities are refused until
	// there is room, for what was spent is not forgotten.
	Scopes int
	// Output is how many tokens an answer is taken to have if the caller sets no bound; 4,096 if 0.
	Output int64
}

// A Book keeps the counters of all limits. It is safe for concurrent use.
type Book struct {
	conf    Config
	setting sync.Mutex // held by who changes the rules

	mu      sync.Mutex
	clock   clock
	rules   []*rule
	prices  []Price
	priced  bool                 // some rule bounds money
	known   map[[2]string]*Price // what was looked up in prices
	scratch [256]byte            // for a scope
	active  Reservation          // head of the ring of reservations that are not settled
	seeded  bool
	cause   error // why not
	journal []spent
	writing bool // the journal
}

// A Call is a call as far as limits go by it.
type Call struct {
	Tenant string
	// Actor is as in the intent: how sure each name is decides what it can do.
	Actor fairlead.Actor
	Key   string // id of the virtual key
	// Provider and Model are as in the intent (gen_ai.provider.name, gen_ai.request.model).
	Provider, Model string
	// Run names the run that the call belongs to, or begins. Without one no bound on runs applies.
	Run      string
	Steps    int64     // calls that this run is known to have made before; the book's own count stands if it is larger
	Depth    int64     // how many agents are above this one
	RunBegan time.Time // when it is known; else when the book saw its first call

	Input  int64 // tokens of the request: see EstimateInput
	Output int64 // the most that the answer may have, in tokens: max_tokens; 0: not said

	// Observe makes the reservation in any case. The error then says what would have been refused.
	Observe bool
}

// ErrUnavailable is wrapped in the error of Reserve while it is not known what was used in the current periods. Whether
// the call is refused or let through is for its route to say; with Call.Observe it is counted all the same.
var ErrUnavailable = errors.New("what was used in the current period could not be read from the ledger")

// New makes a book. It knows of no use: before [Book.Seed], Reserve fails with [ErrUnavailable] where a limit counts in
// a period.
func New(c Config) (*Book, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Scopes == 0 {
		c.Scopes = 100_000
	}
	if c.Output == 0 {
		c.Output = 4096
	}
	if c.Scopes < 1 || c.Output < 1 || c.Output > maxTokens {
		return nil, fmt.Errorf("at most %d counters and %d tokens of output: give numbers from 1 to %d", c.Scopes, c.Output, maxTokens)
	}
	b := &Book{conf: c}
	b.active.next, b.active.prev = &b.active, &b.active
	b.clock.now = c.Now
	b.clock.tick()
	rules, err := b.compile(c.Limits, c.Prices)
	if err != nil {
		return nil, err
	}
	b.known = map[[2]string]*Price{}
	b.use(rules, slices.Clone(c.Prices))
	return b, nil
}

// use puts rules and prices to use.
func (b *Book) use(rules []*rule, prices []Price) {
	b.rules, b.prices = rules, prices
	b.priced = slices.ContainsFunc(rules, func(u *rule) bool { return u.max[unitMoney] > 0 })
	clear(b.known)
}

// compile makes rules of limits, with no counters yet.
func (b *Book) compile(limits []Limit, prices []Price) ([]*rule, error) {
	var errs []error
	if len(limits) > maxLimits || len(prices) > maxPrices {
		return nil, fmt.Errorf("%d limits and %d prices are too many: at most %d and %d", len(limits), len(prices), maxLimits, maxPrices)
	}
	rules, names := make([]*rule, len(limits)), map[string]bool{}
	for i := range limits {
		errs = append(errs, limits[i].check())
		if names[limits[i].Name] {
			errs = append(errs, fmt.Errorf("limit %.64q is there twice: give each its own name", limits[i].Name))
		}
		names[limits[i].Name] = true
		rules[i] = newRule(limits[i], b.conf.Scopes)
	}
	for i := range prices {
		errs = append(errs, prices[i].check())
	}
	return rules, errors.Join(errs...)
}

// A Reservation is what a call has been promised. It ends with Settle or Cancel, of which the first counts: so a deferred
// Cancel takes care of every way out. A nil Reservation holds nothing.
type Reservation struct {
	b          *Book
	call       Call
	estimate   tokens
	price      *Price // nil: none is needed, or there is none
	want       amounts
	hour       int64
	holds      []hold
	few        [3]hold // room for holds
	next, prev *Reservation
	ended      bool
}

// A hold is a part of a reservation: what one counter keeps for it.
type hold struct {
	c      *counter
	period int64 // that it is kept in: a call counts where it began
	want   amounts
}

// Reserve checks a call against all limits that apply and reserves in all of them, or in none. The error is an
// [*Exceeded], or wraps [ErrUnavailable].
func (b *Book) Reserve(c Call) (*Reservation, error) {
	r := &Reservation{b: b, call: c}
	r.holds = r.few[:0]
	if r.call.Output <= 0 {
		r.call.Output = b.conf.Output
	}
	r.estimate = tokens{fresh: min(max(c.Input, 0), maxTokens), output: min(r.call.Output, maxTokens)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock.tick()
	r.hour = b.clock.hour
	err := b.check(r)
	if err != nil && !c.Observe {
		return nil, err
	}
	for i := range r.holds {
		r.holds[i].take(&b.clock, r)
	}
	r.prev, r.next = b.active.prev, &b.active
	r.prev.next, r.next.prev = r, r
	return r, err
}

// check fills r.holds and says which limits they would exceed.
func (b *Book) check(r *Reservation) error {
	var over Exceeded
	blind := false
	b.quote(r)
	for _, u := range b.rules {
		if !u.applies(&r.call) {
			continue
		}
		blind = blind || !b.seeded && (u.Period != "" || u.Within > 0)
		if u.Depth > 0 && r.call.Depth > u.Depth {
			over.add(u, "", WhatDepth, r.call.Depth-1, 0, u.Depth, 1)
		}
		h, room := b.hold(u, r)
		if !room {
			over.add(u, "", WhatScopes, int64(len(u.ring)), 0, int64(u.cap), 1)
			if r.call.Observe {
				u.miss(&b.clock)
			}
		}
		if h.c == nil {
			continue
		}
		r.holds = append(r.holds, h)
		h.check(b, r, &over)
	}
	switch {
	case blind && b.cause != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, b.cause)
	case blind:
		return ErrUnavailable
	case len(over.Over) > 0:
		return &over
	}
	return nil
}

// hold finds the counter of u that r counts on, if it counts on one; room is false if it should and there is no place.
func (b *Book) hold(u *rule, r *Reservation) (h hold, room bool) {
	if !u.counts || u.per[ofRun] && r.call.Run == "" {
		return h, true
	}
	h.c = u.counter(u.scope(b.scratch[:0], &r.call), &b.clock)
	if h.c == nil {
		return h, false
	}
	h.period = h.c.period
	h.want = u.part(r.want)
	return h, true
}

// quote says what the estimate of r counts for.
func (b *Book) quote(r *Reservation) {
	r.price = nil
	if b.priced {
		r.price = b.priceFor(r.call.Provider, r.call.Model)
	}
	r.want = cost(r.estimate, r.price)
	if r.want.pico > 0 {
		r.want.n[unitMoney], r.want.pico = sum(r.want.n[unitMoney], 1), 0
	}
}

// part is as much of a as u counts: money only where it is bounded.
func (u *rule) part(a amounts) amounts {
	if u.max[unitMoney] == 0 {
		a.n[unitMoney], a.pico = 0, 0
	}
	return a
}

// priceFor looks a price up; nil: there is none.
func (b *Book) priceFor(provider, model string) *Price {
	key := [2]string{provider, model}
	if p, ok := b.known[key]; ok {
		return p
	}
	p := priceOf(b.prices, provider, model)
	if len(provider)+len(model) <= 2*maxPattern {
		if len(b.known) >= 1024 {
			clear(b.known)
		}
		b.known[[2]string{strings.Clone(provider), strings.Clone(model)}] = p // not the request that they are parts of
	}
	return p
}

func priceOf(prices []Price, provider, model string) *Price {
	for i := range prices {
		p := &prices[i]
		if (p.Provider == "" || fits(p.Provider, provider)) && (p.Model == "" || fits(p.Model, model)) {
			return p
		}
	}
	return nil
}

// check says what taking h would exceed.
func (h *hold) check(b *Book, r *Reservation, over *Exceeded) {
	c, u := h.c, h.c.rule
	if u.rated {
		c.fill(&b.clock)
		if wait := c.wait(); wait > 0 {
			over.add(u, c.String(), WhatRate, u.Rate.Requests, 0, u.Rate.Requests, 1).After = wait
		}
	}
	if u.Concurrent > 0 && c.running >= u.Concurrent {
		over.add(u, c.String(), WhatConcurrent, c.running, 0, u.Concurrent, 1)
	}
	if u.max[unitMoney] > 0 && r.price == nil {
		over.add(u, c.String(), WhatPrice, 0, 0, 0, 0).Model = clip(r.call.Provider + "/" + r.call.Model)
	}
	for i, max := range u.max {
		if max == 0 {
			continue
		}
		used := c.used.n[i]
		if i == unitMoney && c.used.pico > 0 {
			used = sum(used, 1)
		}
		if i == unitCalls && u.Period == Run && r.call.Steps > sum(used, c.held.n[i]) {
			used = r.call.Steps - c.held.n[i]
		}
		if sum(sum(used, c.held.n[i]), h.want.n[i]) > max {
			v := over.add(u, c.String(), whats[i], used, c.held.n[i], max, h.want.n[i])
			if v.Resets = b.clock.ends(u.Period); !v.Resets.IsZero() {
				v.After = v.Resets.Sub(time.UnixMicro(b.clock.wall))
			}
		}
	}
	if began := c.start(r); u.Within > 0 && began > 0 && b.clock.wall-began > u.Within.Microseconds() {
		over.add(u, c.String(), WhatTime, b.clock.wall-began, 0, u.Within.Microseconds(), 0)
	}
}

// start is when the run of r began, in Unix microseconds; 0 if it begins now.
func (c *counter) start(r *Reservation) int64 {
	if given := r.call.RunBegan; !given.IsZero() && (c.began == 0 || given.UnixMicro() < c.began) {
		return given.UnixMicro()
	}
	return c.began
}

// take makes the reservation in one counter.
func (h *hold) take(t *clock, r *Reservation) {
	c := h.c
	h.keep(t)
	if c.rule.rated {
		c.fill(t)
		c.level = max(c.level-c.rule.Rate.Every.Microseconds(), 0)
	}
	if c.rule.byRun {
		if c.began = c.start(r); c.began == 0 {
			c.began = t.wall
		}
	}
}

// keep takes what a settled call gives back.
func (h *hold) keep(t *clock) {
	h.c.running++
	h.c.last = t.hour
	if h.c.rule.Period != "" && h.period == h.c.period {
		h.c.held.add(h.want)
	}
}

// Settle counts what the call used, in the periods in which it was reserved, and gives back what it did not. Where the
// provider does not say, the estimate stands, unless it refused the call or was not reached. It is for after the outcome
// is recorded, and says the same as the outcome's attributes.
func (r *Reservation) Settle(e End) {
	if r == nil {
		return
	}
	t := e.used(r.estimate)
	r.end(&t)
}

// Cancel gives back what was reserved, for a call that never went upstream. It did make a request, in the sense of a
// rate.
func (r *Reservation) Cancel() {
	if r != nil {
		r.end(nil)
	}
}

func (r *Reservation) end(t *tokens) {
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	r.prev.next, r.next.prev = r.next, r.prev
	r.next, r.prev = nil, nil
	b.clock.tick()
	var used amounts
	if t != nil {
		used = cost(*t, r.price)
	}
	for i := range r.holds {
		h := &r.holds[i]
		c := h.c
		c.roll(&b.clock)
		c.running--
		if c.rule.Period != "" && h.period == c.period {
			c.held.less(h.want)
			c.used.add(c.rule.part(used))
		}
	}
	if t != nil && b.writing {
		b.journal = append(b.journal, spent{call: r.call, tokens: *t, calls: 1, hour: r.hour})
	}
}

// Attrs are for the intent of the call: from them the ledger knows what was reserved, should nobody ever say what was
// used. It gives none while no limit counts in a period.
func (r *Reservation) Attrs() []fairlead.Attr {
	if r == nil {
		return nil
	}
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	counts := false
	for _, u := range r.b.rules {
		counts = counts || u.Period != "" || u.Within > 0
	}
	if !counts {
		return nil
	}
	a := []fairlead.Attr{{Name: attrHour, Value: r.hour}, {Name: attrInput, Value: r.estimate.fresh}, {Name: attrOutput, Value: r.estimate.output}}
	if r.call.Run != "" {
		a = append(a, fairlead.Attr{Name: attrRun, Value: clip(r.call.Run)})
	}
	return a
}
