package budget

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/fairleadhq/fairlead"
)

// A rule is a limit that has been put to use, with its counters.
type rule struct {
	Limit
	max     [units]int64 // in counted units; 0: no bound
	per     [scopes]bool
	parts   [scopes]bool // what its scopes have: per, and the app of those that nobody vouches for
	rated   bool
	counts  bool // has counters at all
	byRun   bool // what is counted is counted for a run
	cap     int
	table   map[scope]*counter
	ring    []*counter // all of table, for hand
	hand    int
	missing int64 // the period in which somebody was not counted for want of room, plus one
}

// What a scope is made of.
const (
	ofApp = iota
	ofUser
	ofAgent
	ofKey
	ofProvider
	ofModel
	ofRun
	scopes
)

var scopeNames = [scopes]string{PerApp, PerUser, PerAgent, PerKey, PerProvider, PerModel, PerRun}

// A scope is whom a counter is for: the tenant and what its rule tells apart, each behind its mark and length in two
// bytes. It is one string because it is looked up for each limit of each call.
type scope string

// parts gives the tenant and the rest, by ofApp and so on; what the rule does not tell apart is empty.
func (c *counter) parts() (tenant string, of [scopes]string) {
	s := c.scope
	next := func() (v string) {
		n := int(s[0]&15)<<8 | int(s[1])
		v, s = marks[s[0]>>4]+string(s[2:2+n]), s[2+n:]
		return v
	}
	tenant = next()
	for i := range of {
		if c.rule.parts[i] {
			of[i] = next()
		}
	}
	return tenant, of
}

// Marks of names in a scope that nobody vouches for. A verified name may look like one, and is another all the same.
const (
	vouched  = iota
	anybody  // all of them together
	declared // a name that is merely declared, for it must not spend what is a verified one's
)

var marks = [...]string{vouched: "", anybody: "?", declared: "~"}

// part adds one part to a scope.
func part(b []byte, mark int, name string) []byte {
	name = clip(name)
	n := len(name)
	return append(append(b, byte(mark<<4|n>>8), byte(n)), name...)
}

// A counter is what a limit knows of one scope.
type counter struct {
	scope   scope
	rule    *rule
	at      int // in rule.ring
	period  int64
	used    amounts
	held    amounts
	running int64
	level   int64 // of the bucket, in microseconds times requests; what is missing to full is what was used
	filled  int64 // when that was so, by clock.mono
	began   int64 // first call of a run, in Unix microseconds; 0: none yet
	last    int64 // hour of its last call
}

func newRule(l Limit, room int) *rule {
	r := &rule{Limit: l, cap: room, table: map[scope]*counter{}}
	for _, list := range []*[]string{&r.Apps, &r.Users, &r.Agents, &r.Keys, &r.Providers, &r.Models, &r.Per} {
		*list = slices.Clone(*list)
	}
	r.max = [units]int64{unitCalls: l.Calls, unitTokens: l.Tokens, unitMoney: int64(l.Money) * nano}
	for i, name := range scopeNames {
		r.per[i] = slices.Contains(l.Per, name)
	}
	r.byRun = l.Period == Run || l.Within > 0
	r.per[ofRun] = r.per[ofRun] || r.byRun
	r.parts = r.per
	r.parts[ofApp] = r.per[ofApp] || r.per[ofUser] || r.per[ofAgent] || r.per[ofRun]
	if r.rated = l.Rate.Requests > 0; r.rated && r.Rate.Burst == 0 {
		r.Rate.Burst = l.Rate.Requests
	}
	r.counts = r.rated || l.Concurrent > 0 || l.Period != "" || l.Within > 0
	return r
}

// same reports whether counters of q can go on as those of r.
func (r *rule) same(q *rule) bool {
	return r.Name == q.Name && r.per == q.per && r.Declared == q.Declared && r.Period == q.Period
}

func (r *rule) applies(c *Call) bool {
	app, user, agent := &c.Actor.App, &c.Actor.User, &c.Actor.Agent
	return applies(r.Apps, app.Value, sure(app.Assurance)) && applies(r.Users, user.Value, sure(user.Assurance)) &&
		applies(r.Agents, agent.Value, sure(agent.Assurance)) && applies(r.Keys, c.Key, true) &&
		applies(r.Providers, c.Provider, true) && applies(r.Models, c.Model, true)
}

// scope adds to b whose counter a call counts on.
func (r *rule) scope(b []byte, c *Call) []byte {
	unknown := func(f *fairlead.Facet) bool {
		return !sure(f.Assurance) && (!r.Declared || f.Value == "" || f.Assurance == fairlead.Absent || f.Assurance == fairlead.Ambiguous)
	}
	known := func(f *fairlead.Facet) (mark int, name string) {
		switch {
		case unknown(f):
			return anybody, ""
		case sure(f.Assurance):
			return vouched, f.Value
		}
		return declared, f.Value
	}
	b = part(b, vouched, c.Tenant)
	if r.parts[ofApp] {
		mark, name := known(&c.Actor.App)
		if !r.per[ofApp] && !r.per[ofRun] && !(r.per[ofUser] && unknown(&c.Actor.User)) && !(r.per[ofAgent] && unknown(&c.Actor.Agent)) {
			mark, name = vouched, ""
		}
		b = part(b, mark, name)
	}
	if r.per[ofUser] {
		mark, name := known(&c.Actor.User)
		b = part(b, mark, name)
	}
	if r.per[ofAgent] {
		mark, name := known(&c.Actor.Agent)
		b = part(b, mark, name)
	}
	for i := ofKey; i < scopes; i++ {
		if r.per[i] {
			b = part(b, vouched, c.name(i))
		}
	}
	return b
}

// name gives what of a call needs nobody's word.
func (c *Call) name(i int) string {
	switch i {
	case ofKey:
		return c.Key
	case ofProvider:
		return c.Provider
	case ofModel:
		return c.Model
	}
	return c.Run
}

// clip bounds what a name costs to keep.
func clip(s string) string {
	if len(s) <= maxPattern {
		return s
	}
	h := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(h[:])
}

// counter finds the counter for a scope, or makes it. It gives nil where there is no room for one.
func (r *rule) counter(s []byte, t *clock) *counter {
	c := r.table[scope(s)]
	if c != nil {
		c.roll(t)
		return c
	}
	if !r.room(t) || r.missing > t.period(r.Period) {
		return nil
	}
	c = &counter{scope: scope(s), rule: r, at: len(r.ring), period: t.period(r.Period), level: r.full(), filled: t.mono, last: t.hour}
	r.table[c.scope] = c
	r.ring = append(r.ring, c)
	return c
}

// miss notes that somebody is not counted: until the period ends nobody can know of a new identity that it is new.
func (r *rule) miss(t *clock) {
	if p := t.period(r.Period); p > 0 {
		r.missing = max(r.missing, p+1)
	}
}

// How many counters are looked at to find one that can go, when there is room and when there is none.
const (
	sweepSome = 2
	sweepMany = 256
)

// room makes room for one more counter, if it can.
func (r *rule) room(t *clock) bool {
	n := sweepSome
	if len(r.ring) >= r.cap {
		n = sweepMany
	}
	for range min(n, len(r.ring)) {
		if r.hand >= len(r.ring) {
			r.hand = 0
		}
		if c := r.ring[r.hand]; c.idle(t) {
			r.drop(c)
			continue
		}
		r.hand++
	}
	return len(r.ring) < r.cap
}

func (r *rule) drop(c *counter) {
	last := r.ring[len(r.ring)-1]
	r.ring[c.at], last.at = last, c.at
	r.ring[len(r.ring)-1] = nil
	r.ring = r.ring[:len(r.ring)-1]
	delete(r.table, c.scope)
}

// runMemory is for how long a run without calls is known, in hours.
const runMemory = 24

// idle reports whether a new counter would be the same.
func (c *counter) idle(t *clock) bool {
	c.roll(t)
	c.fill(t)
	if c.running > 0 || !c.held.zero() || c.level < c.rule.full() {
		return false
	}
	return c.used.zero() && c.began == 0
}

// roll begins a new period, and forgets a run.
func (c *counter) roll(t *clock) {
	if p := t.period(c.rule.Period); p > c.period {
		c.period, c.used, c.held = p, amounts{}, amounts{}
	}
	if c.rule.byRun && c.running == 0 && t.hour-c.last > runMemory {
		c.used, c.began = amounts{}, 0
	}
}

// full is the level of a full bucket.
func (r *rule) full() int64 {
	return r.Rate.Burst * r.Rate.Every.Microseconds()
}

// fill puts into the bucket what time has brought.
func (c *counter) fill(t *clock) {
	r := c.rule
	missing, passed := r.full()-c.level, t.mono-c.filled
	if missing == 0 || passed <= 0 {
		c.filled = max(c.filled, t.mono)
		return
	}
	c.filled = t.mono
	if passed > missing/r.Rate.Requests {
		c.level = r.full()
		return
	}
	c.level += passed * r.Rate.Requests
}

// wait is how long until the bucket has enough for one more request; it is 0 when it has.
func (c *counter) wait() time.Duration {
	missing := c.rule.Rate.Every.Microseconds() - c.level
	if missing <= 0 {
		return 0
	}
	n := c.rule.Rate.Requests
	return time.Duration((missing+n-1)/n) * time.Microsecond
}

// A clock only goes forward.
type clock struct {
	now   func() time.Time
	first time.Time
	mono  int64 // microseconds since first
	wall  int64 // Unix microseconds
	hour  int64 // hours since 1970
	day   int64 // the first hour of the day
	month int64 // the first hour of the month
}

func (t *clock) tick() {
	now := t.now()
	if t.first.IsZero() {
		t.first = now
	}
	t.mono = max(t.mono, now.Sub(t.first).Microseconds())
	t.advance(now.UnixMicro())
}

func (t *clock) advance(wall int64) {
	t.wall = max(t.wall, wall)
	if h := hourOf(time.UnixMicro(t.wall)); h != t.hour {
		t.hour, t.day, t.month = h, dayOf(h), monthOf(h)
	}
}

// period gives the first hour of the period that it is; 0 for those that do not end.
func (t *clock) period(p Period) int64 {
	switch p {
	case Hour:
		return t.hour
	case Day:
		return t.day
	case Month:
		return t.month
	}
	return 0
}

// ends gives when a period is over that is now, or the zero time.
func (t *clock) ends(p Period) time.Time {
	at := func(h int64) time.Time { return time.Unix(h*3600, 0).UTC() }
	switch p {
	case Hour:
		return at(t.hour + 1)
	case Day:
		return at(t.day + 24)
	case Month:
		return at(t.month).AddDate(0, 1, 0)
	}
	return time.Time{}
}

func hourOf(t time.Time) int64 {
	s := t.Unix()
	h := s / 3600
	if s%3600 < 0 {
		h--
	}
	return h
}

func dayOf(hour int64) int64 {
	d := hour / 24
	if hour%24 < 0 {
		d--
	}
	return d * 24
}

func monthOf(hour int64) int64 {
	y, m, _ := time.Unix(hour*3600, 0).UTC().Date()
	return hourOf(time.Date(y, m, 1, 0, 0, 0, 0, time.UTC))
}
