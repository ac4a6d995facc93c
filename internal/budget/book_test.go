package budget

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
)

// A hand is a clock that tests move.
type hand struct {
	mu sync.Mutex
	t  time.Time
}

func (h *hand) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.t
}

func (h *hand) add(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t = h.t.Add(d)
}

// noon is the middle of a day in the middle of a month.
var noon = time.Date(2026, 11, 18, 12, 30, 0, 0, time.UTC)

// start makes a book that nothing was used from.
func start(t testing.TB, c Config) (*Book, *hand) {
	t.Helper()
	h := &hand{t: noon}
	if c.Now == nil {
		c.Now = h.now
	}
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return b, h
}

func verified(v string) fairlead.Facet {
	return fairlead.Facet{Value: v, Assurance: fairlead.Verified}
}

func claims(v string) fairlead.Facet {
	return fairlead.Facet{Value: v, Assurance: fairlead.Declared}
}

// ask is a call of 60 tokens in and 40 out at the most.
func ask(app, user string) Call {
	return Call{Tenant: "default", Actor: fairlead.Actor{App: verified(app), User: verified(user)}, Provider: "openai", Model: "gpt-4o", Run: "r1", Input: 60, Output: 40}
}

func completed(in, out int64) End {
	return End{Outcome: "completed", Status: 200, Usage: fairlead.Usage{Input: in, Output: out}}
}

// over gives the violations in err.
func over(t testing.TB, err error) []Violation {
	t.Helper()
	var e *Exceeded
	if err == nil {
		return nil
	}
	if !errors.As(err, &e) {
		t.Fatalf("not a refusal by limits: %v", err)
	}
	return e.Over
}

var cheap = []Price{{Model: "gpt-*", Input: 2_500_000, Output: 10_000_000, CacheRead: 1_250_000}}

func TestWhatALimitRefuses(t *testing.T) {
	use := func(calls int, e End) func(*testing.T, *Book, *hand) {
		return func(t *testing.T, b *Book, _ *hand) {
			for range calls {
				r, err := b.Reserve(ask("support", "u:a"))
				if err != nil {
					t.Fatal(err)
				}
				r.Settle(e)
			}
		}
	}
	tests := []struct {
		name   string
		limit  Limit
		before func(*testing.T, *Book, *hand)
		call   func(*Call)
		want   string // "" if it passes
		after  time.Duration
		waits  bool
	}{
		{name: "rate", limit: Limit{Rate: Rate{Requests: 2, Every: time.Second}, Per: []string{PerApp}}, before: use(2, completed(1, 1)), after: 500 * time.Millisecond, waits: true,
			want: "limit l for app=support: too many requests in too short a time: try again in 500ms, or send fewer"},
		{name: "rate, after a while", limit: Limit{Rate: Rate{Requests: 2, Every: time.Second}}, before: func(t *testing.T, b *Book, h *hand) { use(2, completed(1, 1))(t, b, h); h.add(500 * time.Millisecond) }},
		{name: "rate of another app", limit: Limit{Rate: Rate{Requests: 1, Every: time.Second}, Per: []string{PerApp}}, before: use(1, completed(1, 1)), call: func(c *Call) { c.Actor.App = verified("sales") }},
		{name: "shared rate", limit: Limit{Rate: Rate{Requests: 1, Every: time.Minute}}, before: use(1, completed(1, 1)), call: func(c *Call) { c.Actor.App = verified("sales") }, after: time.Minute, waits: true,
			want: "limit l: too many requests in too short a time: try again in 1m0s, or send fewer"},
		{name: "concurrent", limit: Limit{Concurrent: 1, Per: []string{PerUser}}, before: func(t *testing.T, b *Book, _ *hand) { b.Reserve(ask("support", "u:a")) }, after: time.Second, waits: true,
			want: "limit l for user=u:a: 1 calls are under way, and 1 may be: wait for one of them to end, or send fewer at a time"},
		{name: "calls", limit: Limit{Calls: 3, Period: Hour}, before: use(3, completed(1, 1)), after: 30 * time.Minute, waits: true,
			want: "limit l: 3 of 3 calls are used this hour, calls under way hold 0, and this one may need 1: try again after 2026-11-18T13:00:00Z, send less, bound the answer (max_tokens), or ask the operator for a higher limit"},
		{name: "tokens", limit: Limit{Tokens: 1000, Period: Day, Per: []string{PerApp, PerModel}}, before: use(4, completed(200, 30)), after: 11*time.Hour + 30*time.Minute, waits: true,
			want: "limit l for app=support model=gpt-4o: 920 of 1000 tokens are used today, calls under way hold 0, and this one may need 100: try again after 2026-11-19T00:00:00Z, send less, bound the answer (max_tokens), or ask the operator for a higher limit"},
		{name: "tokens that just fit", limit: Limit{Tokens: 1000, Period: Day}, before: use(4, completed(200, 25))},
		{name: "tokens that are held", limit: Limit{Tokens: 150, Period: Day}, before: func(t *testing.T, b *Book, _ *hand) { b.Reserve(ask("support", "u:a")) }, after: time.Second, waits: true,
			want: "limit l: 0 of 150 tokens are used today, calls under way hold 100, and this one may need 100: try again after 2026-11-19T00:00:00Z, send less, bound the answer (max_tokens), or ask the operator for a higher limit"},
		{name: "too large a call", limit: Limit{Tokens: 99, Period: Day},
			want: "limit l: 0 of 99 tokens are used today, calls under way hold 0, and this one may need 100: send less or bound the answer (max_tokens), for so large a call never fits, or ask the operator for a higher limit"},
		{name: "money", limit: Limit{Money: 1_000, Period: Month}, before: use(1, completed(100, 30)), after: 12*24*time.Hour + 11*time.Hour + 30*time.Minute, waits: true,
			want: "limit l: 0.00055 of 0.001 of money are used this month, calls under way hold 0, and this one may need 0.00055: try again after 2026-12-01T00:00:00Z, send less, bound the answer (max_tokens), or ask the operator for a higher limit"},
		{name: "no price", limit: Limit{Money: 1_000_000, Period: Month}, call: func(c *Call) { c.Model = "o9" },
			want: `limit l: nobody has said what the model "openai/o9" costs: ask the operator to add its price, or use a model that has one`},
		{name: "steps", limit: Limit{Calls: 2, Period: Run}, before: use(2, completed(1, 1)),
			want: "limit l for app=support run=r1: 2 of 2 calls are used in this run, calls under way hold 0, and this one may need 1: end this run; what is left to do can begin a new one, or ask the operator for a higher limit"},
		{name: "steps of another run", limit: Limit{Calls: 2, Period: Run}, before: use(2, completed(1, 1)), call: func(c *Call) { c.Run = "r2" }},
		{name: "steps that the caller knows of", limit: Limit{Calls: 10, Period: Run}, call: func(c *Call) { c.Steps = 10 },
			want: "limit l for app=support run=r1: 10 of 10 calls are used in this run, calls under way hold 0, and this one may need 1: end this run; what is left to do can begin a new one, or ask the operator for a higher limit"},
		{name: "depth", limit: Limit{Depth: 2}, call: func(c *Call) { c.Depth = 3 },
			want: "limit l: an agent below 3 others calls, and at most 2 may be above one: let an agent further up do it"},
		{name: "time", limit: Limit{Within: time.Minute}, before: func(t *testing.T, b *Book, h *hand) { use(1, completed(1, 1))(t, b, h); h.add(61 * time.Second) },
			want: "limit l for app=support run=r1: the run began 1m1s ago, and may last 1m0s: end this run; what is left to do can begin a new one"},
		{name: "time since a beginning that is known", limit: Limit{Within: time.Minute}, call: func(c *Call) { c.RunBegan = noon.Add(-time.Hour) },
			want: "limit l for app=support run=r1: the run began 1h0m0s ago, and may last 1m0s: end this run; what is left to do can begin a new one"},
		{name: "not its app", limit: Limit{Calls: 1, Period: Day, Apps: []string{"sales*"}}, before: use(2, completed(1, 1))},
		{name: "taken out", limit: Limit{Calls: 1, Period: Day, Apps: []string{"!support"}}, before: use(2, completed(1, 1))},
		{name: "cannot declare oneself out", limit: Limit{Calls: 1, Period: Day, Users: []string{"!u:vip"}}, before: use(1, completed(1, 1)), call: func(c *Call) { c.Actor.User = claims("u:vip") }, after: 11*time.Hour + 30*time.Minute, waits: true,
			want: "limit l: 1 of 1 calls are used today, calls under way hold 0, and this one may need 1: try again after 2026-11-19T00:00:00Z, send less, bound the answer (max_tokens), or ask the operator for a higher limit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.limit.Name = "l"
			b, h := start(t, Config{Limits: []Limit{tt.limit}, Prices: cheap})
			if tt.before != nil {
				tt.before(t, b, h)
			}
			c := ask("support", "u:a")
			if tt.call != nil {
				tt.call(&c)
			}
			_, err := b.Reserve(c)
			got := ""
			if err != nil {
				got = err.Error()
				over(t, err)
				after, ok := err.(*Exceeded).RetryAfter()
				if after != tt.after || ok != tt.waits {
					t.Errorf("try again after %s (%t), expected %s (%t)", after, ok, tt.after, tt.waits)
				}
			}
			if got != tt.want {
				t.Errorf("refused with\n\t%s\nexpected\n\t%s", got, tt.want)
			}
		})
	}
}

// TestAllOrNone shows that a refused call leaves no trace in limits that had room for it, and names all that had none.
func TestAllOrNone(t *testing.T) {
	b, _ := start(t, Config{Limits: []Limit{
		{Name: "room", Tokens: 1000, Period: Day, Concurrent: 9, Rate: Rate{Requests: 10, Every: time.Hour}},
		{Name: "small", Tokens: 50, Period: Day},
		{Name: "flat", Depth: 1},
	}})
	c := ask("support", "u:a")
	c.Depth = 2
	_, err := b.Reserve(c)
	if got := over(t, err); len(got) != 2 || got[0].Limit != "small" || got[1].Limit != "flat" {
		t.Fatalf("refused by %+v", got)
	}
	v := err.(*Exceeded).Verdict()
	if ids := v.IDs(); v.Effect != fairlead.Deny || fmt.Sprint(ids) != "[limit:small limit:flat]" {
		t.Errorf("as a verdict: %+v", v)
	}
	if s := b.Status(10); len(s) != 0 {
		t.Errorf("a refused call left %+v", s)
	}
	// Observed, the same call is counted in all of them.
	c.Observe = true
	r, err := b.Reserve(c)
	if len(over(t, err)) != 2 || r == nil {
		t.Fatalf("observed: %v, %v", r, err)
	}
	r.Settle(completed(70, 20))
	if s := b.Status(10); len(s) != 3 || s[0].Limit != "small" || s[0].Used != 90 {
		t.Errorf("an observed call left %+v", s)
	}
}

// TestNeverTogether lets many callers reserve, settle and cancel at once: never is more used and held than a limit
// allows, and in the end nothing is held.
func TestNeverTogether(t *testing.T) {
	b, h := start(t, Config{Prices: cheap, Limits: []Limit{
		{Name: "all", Tokens: 40_000, Money: 200_000, Calls: 700, Period: Day, Concurrent: 20},
		{Name: "user", Tokens: 9_000, Period: Hour, Per: []string{PerUser}, Concurrent: 4},
		{Name: "run", Tokens: 3_000, Calls: 25, Period: Run},
	}})
	check := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, u := range b.rules {
			for _, c := range u.ring {
				for i, max := range u.max {
					if n := c.used.n[i] + c.held.n[i]; max > 0 && n > max || c.used.n[i] < 0 || c.held.n[i] < 0 {
						t.Errorf("limit %s for %s: %d %s used and %d held of %d", u.Name, c.String(), c.used.n[i], whats[i], c.held.n[i], max)
					}
				}
				if u.Concurrent > 0 && c.running > u.Concurrent {
					t.Errorf("limit %s: %d at a time", u.Name, c.running)
				}
			}
		}
	}
	var passed, refused, spent int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			for range 60 {
				c := ask("support", fmt.Sprint("u:", rnd.IntN(5)))
				c.Run, c.Input, c.Output = fmt.Sprint("r", rnd.IntN(40)), rnd.Int64N(200), 1+rnd.Int64N(100)
				r, err := b.Reserve(c)
				check()
				mu.Lock()
				if err != nil {
					refused++
					mu.Unlock()
					continue
				}
				passed++
				mu.Unlock()
				if rnd.IntN(10) == 0 {
					h.add(time.Second)
				}
				used := completed(rnd.Int64N(c.Input+1), rnd.Int64N(c.Output+1))
				for range 1 + rnd.IntN(2) { // a second end is of no effect
					if rnd.IntN(4) == 0 {
						used = End{}
						r.Cancel()
						break
					}
					r.Settle(used)
				}
				check()
			}
		})
	}
	wg.Wait()
	for _, u := range b.rules {
		for _, c := range u.ring {
			if !c.held.zero() || c.running != 0 {
				t.Errorf("limit %s for %s still holds %+v for %d calls", u.Name, c.String(), c.held, c.running)
			}
			if u.Name == "all" {
				spent = c.used.n[unitTokens]
			}
		}
	}
	if b.active.next != &b.active {
		t.Error("a reservation that ended is remembered")
	}
	if passed < 300 || refused < 300 || spent < 10_000 {
		t.Errorf("%d passed, %d refused, %d tokens: the limits were not tried", passed, refused, spent)
	}
}

func TestBucket(t *testing.T) {
	type step struct {
		wait time.Duration
		want string // p: passes, -: refused
	}
	const ms = time.Millisecond
	tests := []struct {
		name  string
		rate  Rate
		steps []step
	}{
		{"one a second", Rate{1, time.Second, 0}, []step{{0, "p--"}, {999 * ms, "-"}, {ms, "p-"}, {time.Hour, "p-"}}},
		{"burst of three", Rate{1, time.Second, 3}, []step{{0, "ppp-"}, {time.Second, "p-"}, {2500 * ms, "pp-"}, {500 * ms, "p-"}, {time.Hour, "ppp-"}}},
		{"seven a minute, which is no whole time", Rate{7, time.Minute, 1}, []step{{0, "p-"}, {8571 * ms, "-"}, {ms, "p-"}, {time.Minute - ms, "p-"}}},
		{"a million a second", Rate{1_000_000, time.Second, 2}, []step{{0, "pp-"}, {time.Microsecond, "p-"}, {3 * time.Microsecond, "pp-"}}},
		{"the slowest", Rate{1, 24 * time.Hour, 1_000_000}, []step{{0, "pp"}, {1000 * 24 * time.Hour, "p"}}},
		{"time that goes back", Rate{1, time.Second, 1}, []step{{0, "p-"}, {-time.Hour, "-"}, {time.Hour, "-"}, {time.Second, "p-"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, h := start(t, Config{Limits: []Limit{{Name: "l", Rate: tt.rate}}})
			for i, s := range tt.steps {
				h.add(s.wait)
				got := ""
				for range s.want {
					r, err := b.Reserve(ask("support", "u:a"))
					if err != nil {
						got += "-"
						continue
					}
					got += "p"
					r.Cancel() // gives no request back
				}
				if got != s.want {
					t.Errorf("step %d: %s, expected %s", i, got, s.want)
				}
			}
		})
	}
}

// TestLongRunRate shows that a bucket loses nothing to rounding: over a long time exactly the rate gets through.
func TestLongRunRate(t *testing.T) {
	b, h := start(t, Config{Limits: []Limit{{Name: "l", Rate: Rate{Requests: 7, Every: time.Second, Burst: 3}}}})
	rnd := rand.New(rand.NewPCG(7, 7))
	passed := 0
	var gone time.Duration
	for gone < 1000*time.Second {
		d := time.Duration(rnd.Int64N(int64(50 * time.Millisecond)))
		h.add(d)
		gone += d
		if _, err := b.Reserve(ask("support", "u:a")); err == nil {
			passed++
		}
	}
	if passed < 7*1000 || passed > 7*1000+4 {
		t.Errorf("%d calls in %s", passed, gone)
	}
}

func TestPeriodEnds(t *testing.T) {
	tests := []struct {
		period Period
		at     string
		ends   string
	}{
		{Hour, "2026-11-18T12:59:59.999999Z", "2026-11-18T13:00:00Z"},
		{Day, "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z"},
		{Day, "2026-03-29T23:59:59Z", "2026-03-30T00:00:00Z"}, // summer time begins in Europe
		{Month, "2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z"},
		{Month, "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"},
		{Month, "2028-02-29T12:00:00Z", "2028-03-01T00:00:00Z"},
		{Month, "2027-02-28T23:59:59Z", "2027-03-01T00:00:00Z"},
		{Month, "2026-01-31T12:00:00+14:00", "2026-02-01T00:00:00Z"},
	}
	for _, tt := range tests {
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		h := &hand{t: at}
		b, _ := start(t, Config{Now: h.now, Limits: []Limit{{Name: "l", Tokens: 100, Period: tt.period}}})
		r, err := b.Reserve(ask("support", "u:a"))
		if err != nil {
			t.Fatal(err)
		}
		r.Settle(completed(60, 40))
		_, err = b.Reserve(ask("support", "u:a"))
		v := over(t, err)
		if len(v) != 1 || v[0].Resets.Format(time.RFC3339) != tt.ends {
			t.Fatalf("%s from %s: %+v", tt.period, tt.at, v)
		}
		h.add(v[0].After - time.Microsecond)
		if _, err := b.Reserve(ask("support", "u:a")); err == nil {
			t.Errorf("%s from %s: over too early", tt.period, tt.at)
		}
		h.add(time.Microsecond)
		if _, err := b.Reserve(ask("support", "u:a")); err != nil {
			t.Errorf("%s from %s: not over at its end: %v", tt.period, tt.at, err)
		}
	}
}

// TestClockGoesBack shows that a period that is over is not opened again, and that a call counts where it began.
func TestClockGoesBack(t *testing.T) {
	b, h := start(t, Config{Limits: []Limit{{Name: "l", Tokens: 250, Period: Hour}}})
	late, err := b.Reserve(ask("support", "u:a"))
	if err != nil {
		t.Fatal(err)
	}
	h.add(time.Hour)
	now, err := b.Reserve(ask("support", "u:a"))
	if err != nil {
		t.Fatal(err)
	}
	late.Settle(completed(60, 40))
	now.Settle(completed(60, 20))
	if s := b.Status(1); len(s) != 1 || s[0].Used != 80 || s[0].Held != 0 {
		t.Fatalf("in the new hour: %+v", s)
	}
	h.add(-time.Hour)
	again, err := b.Reserve(ask("support", "u:a"))
	if err != nil {
		t.Fatal(err)
	}
	again.Settle(completed(60, 40))
	if s := b.Status(1); s[0].Used != 180 || !s[0].Resets.Equal(noon.Truncate(time.Hour).Add(2*time.Hour)) {
		t.Fatalf("with the clock turned back: %+v", s)
	}
	if _, err := b.Reserve(ask("support", "u:a")); err == nil {
		t.Error("the hour before is open again")
	}
}

// TestNamesThatNobodyVouchesFor shows that whoever names himself anew does not start anew.
func TestNamesThatNobodyVouchesFor(t *testing.T) {
	limit := Limit{Name: "l", Calls: 3, Period: Day, Per: []string{PerUser}}
	passed := func(limit Limit, app func(i int) fairlead.Facet, user func(i int) fairlead.Facet) int {
		b, _ := start(t, Config{Limits: []Limit{limit}})
		n := 0
		for i := range 20 {
			c := ask("", "")
			c.Actor = fairlead.Actor{App: app(i), User: user(i)}
			if r, err := b.Reserve(c); err == nil {
				r.Settle(completed(1, 1))
				n++
			}
		}
		return n
	}
	support := func(int) fairlead.Facet { return verified("support") }
	other := func(i int) fairlead.Facet { return verified(fmt.Sprint("x", i%2)) }
	newName := func(i int) fairlead.Facet { return claims(fmt.Sprint("x", i)) }
	twoNames := func(i int) fairlead.Facet { return claims(fmt.Sprint("x", i%2)) }
	nobody := func(int) fairlead.Facet { return fairlead.Facet{Assurance: fairlead.Absent} }
	believed := limit
	believed.Declared = true
	for _, tt := range []struct {
		name      string
		limit     Limit
		app, user func(int) fairlead.Facet
		want      int
	}{
		{"verified users", limit, support, other, 6},
		{"declared users", limit, support, newName, 3},
		{"no users", limit, support, nobody, 3},
		{"declared users of two apps", limit, other, newName, 6},
		{"declared users of declared apps", limit, newName, newName, 3},
		{"declared users that are believed", believed, support, twoNames, 6},
	} {
		if got := passed(tt.limit, tt.app, tt.user); got != tt.want {
			t.Errorf("%s: %d calls passed, expected %d", tt.name, got, tt.want)
		}
	}
	// Nor does a verified name that looks like a mark.
	b, _ := start(t, Config{Limits: []Limit{believed}})
	for _, user := range []fairlead.Facet{verified("~x"), claims("x"), verified("?"), {Assurance: fairlead.Absent}, verified("x")} {
		for i := range 4 {
			c := ask("support", "")
			c.Actor.User = user
			r, err := b.Reserve(c)
			if (err == nil) != (i < 3) {
				t.Errorf("%+v, call %d: %v", user, i, err)
			}
			r.Settle(completed(1, 1))
		}
	}
	// Not even where it is believed does a declared name spend what is a verified one's.
	b, _ = start(t, Config{Limits: []Limit{believed}})
	for range 3 {
		c := ask("support", "")
		c.Actor.User = claims("u:victim")
		r, err := b.Reserve(c)
		if err != nil {
			t.Fatal(err)
		}
		r.Settle(completed(1, 1))
	}
	if _, err := b.Reserve(ask("support", "u:victim")); err != nil {
		t.Errorf("the victim pays: %v", err)
	}
}

func TestUsageIsNotBelieved(t *testing.T) {
	estimate := tokens{fresh: 60, output: 40}
	u := func(in, out, read, written int64) fairlead.Usage {
		return fairlead.Usage{Input: in, Output: out, CacheRead: read, CacheCreation: written}
	}
	for _, tt := range []struct {
		name string
		end  End
		want tokens
	}{
		{"said", End{"completed", 200, u(10, 5, -1, -1)}, tokens{fresh: 10, output: 5}},
		{"with a cache", End{"completed", 200, u(100, 5, 70, 20)}, tokens{fresh: 10, read: 70, written: 20, output: 5}},
		{"more from the cache than there is", End{"completed", 200, u(100, 5, 170, 20)}, tokens{read: 100, output: 5}},
		{"not said", End{"completed", 200, fairlead.NoUsage}, estimate},
		{"half said", End{"completed", 200, u(10, -1, -1, -1)}, tokens{fresh: 10, output: 40}},
		{"nothing", End{"completed", 200, u(0, 0, 0, 0)}, tokens{}},
		{"beyond what a fact holds", End{"completed", 200, u(1<<53, 1<<62, 1<<60, 1<<60)}, estimate},
		{"absurd", End{"completed", 200, u(1<<52, 1<<52, 1<<52, 1<<52)}, tokens{read: maxTokens, output: maxTokens}},
		{"refused by the provider", End{"upstream_status", 429, fairlead.NoUsage}, tokens{}},
		{"refused, and charged", End{"upstream_status", 500, u(60, 0, -1, -1)}, tokens{fresh: 60}},
		{"never reached", End{"upstream_error", 0, fairlead.NoUsage}, tokens{}},
		{"broke off", End{"upstream_error", 200, fairlead.NoUsage}, estimate},
		{"the client went away", End{"aborted", 0, fairlead.NoUsage}, estimate},
		{"took too long", End{"timeout", 0, fairlead.NoUsage}, estimate},
		{"the process died", End{"unknown", 0, fairlead.NoUsage}, estimate},
	} {
		if got := tt.end.used(estimate); got != tt.want {
			t.Errorf("%s: %+v, expected %+v", tt.name, got, tt.want)
		}
	}
	// The dearest call there can be, many times over, ends at the end of numbers and not below 0.
	b, _ := start(t, Config{Limits: []Limit{{Name: "l", Money: MaxMoney, Tokens: maxCount, Period: Month}}, Prices: []Price{{Input: MaxMoney, Output: MaxMoney}}})
	var held []*Reservation
	for range 5 {
		c := ask("support", "u:a")
		c.Observe, c.Input, c.Output = true, 1<<62, 1<<62
		r, _ := b.Reserve(c)
		held = append(held, r)
	}
	for _, r := range held {
		r.Settle(completed(1<<52, 1<<52))
	}
	_, err := b.Reserve(ask("support", "u:a"))
	if v := over(t, err); len(v) != 1 || v[0].What != WhatMoney || v[0].Used != 1<<63-1 || v[0].Held != 0 {
		t.Errorf("after absurd calls: %+v", v)
	}
}

// TestManyIdentities shows that a limit keeps no more counters than it may, forgets what need not be known, and nothing
// else.
func TestManyIdentities(t *testing.T) {
	const room = 1000
	b, h := start(t, Config{Scopes: room, Limits: []Limit{{Name: "l", Tokens: 100, Period: Day, Rate: Rate{Requests: 1, Every: time.Second}, Per: []string{PerUser}}}})
	call := func(i int) error {
		r, err := b.Reserve(ask("support", fmt.Sprint("u:", i)))
		if err == nil {
			r.Cancel()
		}
		return err
	}
	for i := range 100_000 {
		h.add(10 * time.Millisecond) // at most 100 buckets are not full
		if err := call(i); err != nil {
			t.Fatalf("identity %d: %v", i, err)
		}
		if n := len(b.rules[0].ring); n > room || n != len(b.rules[0].table) {
			t.Fatalf("%d counters", n)
		}
	}
	for i := range room {
		h.add(10 * time.Millisecond)
		r, err := b.Reserve(ask("support", fmt.Sprint("v:", i)))
		if err != nil {
			t.Fatalf("spender %d: %v", i, err)
		}
		r.Settle(completed(60, 40))
	}
	h.add(time.Hour)
	if v := over(t, call(1)); len(v) != 1 || v[0].What != WhatScopes {
		t.Errorf("one more identity: %+v", v)
	}
	for i := range room {
		if v := over(t, b.try(ask("support", fmt.Sprint("v:", i)))); len(v) != 1 || v[0].What != WhatTokens {
			t.Fatalf("spender %d was forgotten: %+v", i, v)
		}
	}
	h.add(24 * time.Hour)
	for i := range room {
		if err := call(i); err != nil {
			t.Fatalf("the day after: %v", err)
		}
		h.add(10 * time.Millisecond)
	}
}

func (b *Book) try(c Call) error {
	_, err := b.Reserve(c)
	return err
}

// TestLongNames shows that a name costs no more memory than a short one, and is still itself.
func TestLongNames(t *testing.T) {
	b, _ := start(t, Config{Limits: []Limit{{Name: "l", Calls: 1, Period: Day, Per: []string{PerModel}}}})
	for _, tail := range []string{"a", "b"} {
		c := ask("support", "u:a")
		c.Model = strings.Repeat("m", 1<<20) + tail
		if err := b.try(c); err != nil {
			t.Error(err)
		}
		if err := b.try(c); err == nil {
			t.Error("the second call passes")
		}
	}
	for _, c := range b.rules[0].ring {
		if n := len(c.scope); n > 2*maxPattern {
			t.Errorf("a name of %d bytes is kept", n)
		}
	}
}

func BenchmarkReserve(b *testing.B) {
	for _, n := range []int{0, 1, 5, 20} {
		b.Run(fmt.Sprint(n, "limits"), func(b *testing.B) {
			var limits []Limit
			for i := range n {
				limits = append(limits, Limit{Name: fmt.Sprint("l", i), Tokens: maxCount, Money: MaxMoney, Period: Month, Concurrent: 1 << 20, Per: []string{PerUser, PerModel}[:i%3],
					Rate: Rate{Requests: maxRate, Every: time.Millisecond}})
			}
			book, _ := start(b, Config{Now: time.Now, Limits: limits, Prices: append(make([]Price, 0), Price{Model: "claude-*"}, cheap[0])})
			calls := make([]Call, 1000)
			for i := range calls {
				calls[i] = ask("support", fmt.Sprint("u:", i))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r, err := book.Reserve(calls[i%len(calls)])
				if err != nil {
					b.Fatal(err)
				}
				r.Settle(completed(50, 20))
			}
		})
	}
}

// TestNobodySlipsIn shows that calls that were let through uncounted, for want of room, close the limit to new identities
// until the period ends: nobody can tell who of them is new.
func TestNobodySlipsIn(t *testing.T) {
	b, h := start(t, Config{Scopes: 1, Limits: []Limit{{Name: "l", Tokens: 1000, Period: Day, Per: []string{PerUser}}}})
	first, err := b.Reserve(ask("support", "u:a"))
	if err != nil {
		t.Fatal(err)
	}
	second := ask("support", "u:b")
	if v := over(t, b.try(second)); len(v) != 1 || v[0].What != WhatScopes {
		t.Fatalf("without room: %+v", v)
	}
	first.Cancel()
	if err := b.try(second); err != nil {
		t.Fatalf("with room again, and nothing uncounted: %v", err)
	}
	observed := ask("support", "u:c")
	observed.Observe = true
	r, err := b.Reserve(observed)
	if v := over(t, err); len(v) != 1 || v[0].What != WhatScopes {
		t.Fatalf("observed: %+v", v)
	}
	r.Settle(completed(900, 99))
	for c := range b.rules[0].table {
		delete(b.rules[0].table, c)
	}
	b.rules[0].ring = nil
	if v := over(t, b.try(ask("support", "u:c"))); len(v) != 1 || v[0].What != WhatScopes {
		t.Errorf("after an uncounted call: %+v", v)
	}
	h.add(24 * time.Hour)
	if err := b.try(ask("support", "u:c")); err != nil {
		t.Errorf("the day after: %v", err)
	}
}

func TestUnpriced(t *testing.T) {
	b, _ := start(t, Config{Limits: []Limit{{Name: "l", Money: 5e6, Period: Day}}, Prices: cheap})
	for _, model := range []string{"o9", "gpt-4o", "llama", "o9"} {
		c := ask("support", "u:a")
		c.Model, c.Observe = model, true
		if _, err := b.Reserve(c); (err != nil) != (model != "gpt-4o") {
			t.Errorf("%s: %v", model, err)
		}
	}
	for i := range 3000 {
		c := ask("support", "u:a")
		c.Model = fmt.Sprint("x", i)
		_ = b.try(c)
	}
	if n := len(b.known); n > 1024 {
		t.Errorf("%d models are remembered", n)
	}
	var none *Reservation
	none.Settle(End{})
	none.Cancel()
	if none.Attrs() != nil {
		t.Error("a reservation that is none has attributes")
	}
}
