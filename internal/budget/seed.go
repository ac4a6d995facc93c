package budget

import (
	"context"
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"
)

// Read runs fn on a connection to the database of views, as store.DB.Read does. Bring the views up to date before.
type Read = func(ctx context.Context, fn func(*sqlite.Conn) error) error

// Seed takes in what the ledger knows of the current periods and of runs. With a nil read nothing was used. On an error
// the book goes on as before; if it has never been seeded, Reserve fails with [ErrUnavailable].
//
// Seeding again does no harm: of two counts of the same, the larger stands.
func (b *Book) Seed(ctx context.Context, read Read) error {
	b.setting.Lock()
	defer b.setting.Unlock()
	limits := make([]Limit, len(b.rules)) // rules change only under setting
	for i, u := range b.rules {
		limits[i] = u.Limit
	}
	return b.load(ctx, limits, b.prices, read)
}

// Set replaces limits and prices while calls are under way. What a limit counted goes on under its name if it still
// counts for the same (Per, Declared, Period); what new ones count begins with what the ledger knows. On an error
// nothing changes. What was used under old prices is not priced anew before the next start.
func (b *Book) Set(ctx context.Context, limits []Limit, prices []Price, read Read) error {
	b.setting.Lock()
	defer b.setting.Unlock()
	return b.load(ctx, limits, slices.Clone(prices), read)
}

// load makes rules and puts them in the place of the present ones.
func (b *Book) load(ctx context.Context, limits []Limit, prices []Price, read Read) error {
	rules, err := b.compile(limits, prices)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.clock.tick()
	t := b.clock // the new rules are nobody else's yet
	b.writing, b.journal = true, nil
	b.mu.Unlock()
	if read != nil {
		err = read(ctx, func(c *sqlite.Conn) error {
			mark, known, err := readMark(c)
			if err != nil {
				return err
			}
			if wall, ok := markTime(mark, &t); known && ok {
				t.advance(wall)
			}
			return each(c, t.month, func(s *spent, ofRun bool) {
				for _, u := range rules {
					u.seed(s, ofRun, priceOf(prices, s.call.Provider, s.call.Model), &t)
				}
			})
		})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	journal := b.journal
	b.writing, b.journal = false, nil
	if err != nil {
		err = fmt.Errorf("reading what was used: %w", err)
		if !b.seeded {
			b.cause = err
		}
		return err
	}
	b.clock.tick()
	b.clock.advance(t.wall)
	b.swap(rules, prices, journal)
	b.seeded, b.cause = true, nil
	return nil
}

// seed adds to a rule what was used.
func (u *rule) seed(s *spent, ofRun bool, p *Price, t *clock) {
	if !u.applies(&s.call) {
		return
	}
	if ofRun != u.byRun || u.Period == "" && u.Within == 0 || !ofRun && s.hour < t.period(u.Period) {
		return
	}
	sc := u.scope(nil, &s.call)
	c := u.table[scope(sc)]
	switch {
	case c == nil && ofRun && t.hour-s.hour > runMemory:
		return // rows come newest first: the run is forgotten
	case c == nil:
		if c = u.counter(sc, t); c == nil {
			u.miss(t)
			return
		}
		c.last = s.hour
	case !ofRun:
		c.roll(t)
	}
	a := u.part(cost(s.tokens, p))
	a.n[unitCalls] = s.calls
	c.used.add(a)
	c.last = max(c.last, s.hour)
	if ofRun && s.began > 0 && (c.began == 0 || s.began < c.began) {
		c.began = s.began
	}
}

// swap puts rules in the place of the present ones, with what those counted since the ledger was read.
func (b *Book) swap(rules []*rule, prices []Price, journal []spent) {
	t := &b.clock
	for _, u := range rules {
		i := slices.IndexFunc(b.rules, u.same)
		if i < 0 {
			i = len(b.rules)
		} else {
			u.merge(b.rules[i], t)
		}
		for k := range journal {
			s := &journal[k]
			if i < len(b.rules) && b.rules[i].applies(&s.call) {
				continue // it is in the counter that was merged
			}
			u.seed(s, u.byRun && s.call.Run != "", priceOf(prices, s.call.Provider, s.call.Model), t)
		}
	}
	b.use(rules, prices)
	for r := b.active.next; r != &b.active; r = r.next {
		b.attach(r)
	}
}

// merge takes over the counters of the rule that u replaces, without what calls under way hold.
func (u *rule) merge(old *rule, t *clock) {
	for _, oc := range old.ring {
		if oc.roll(t); oc.used.zero() && oc.began == 0 && (!u.rated || !old.rated) {
			continue
		}
		c := u.counter([]byte(oc.scope), t)
		if c == nil {
			u.miss(t)
			continue
		}
		c.used = most(c.used, oc.used)
		c.last = max(c.last, oc.last)
		if oc.began > 0 && (c.began == 0 || oc.began < c.began) {
			c.began = oc.began
		}
		if u.rated && old.rated {
			oc.fill(t)
			c.filled, c.level = oc.filled, int64(float64(u.full())*(float64(oc.level)/float64(old.full())))
		}
	}
	u.missing = max(u.missing, old.missing)
}

// attach makes a reservation that was made under other rules one of the present ones.
func (b *Book) attach(r *Reservation) {
	r.holds = nil
	b.quote(r)
	for _, u := range b.rules {
		if !u.applies(&r.call) {
			continue
		}
		h, room := b.hold(u, r)
		if !room {
			u.miss(&b.clock)
		}
		if h.c == nil {
			continue
		}
		at := clock{}
		at.advance(time.Unix(r.hour*3600, 0).UnixMicro())
		h.period = at.period(u.Period)
		h.keep(&b.clock)
		r.holds = append(r.holds, h)
	}
}
