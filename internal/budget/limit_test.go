package budget

import (
	"strings"
	"testing"
	"time"
)

func TestLimitsThatCannotBe(t *testing.T) {
	day := func(l Limit) Limit { l.Calls, l.Period = 1, Day; return l }
	for _, tt := range []struct {
		limits []Limit
		want   string
	}{
		{[]Limit{{Name: "x"}}, `limit "x": it bounds nothing: give a rate, concurrent, calls, tokens, money, depth or within`},
		{[]Limit{day(Limit{Name: "a b"})}, `limit "a b": a name is 1 to 64 letters, digits, dots, dashes and underscores`},
		{[]Limit{day(Limit{Name: "x"}), day(Limit{Name: "x"})}, `limit "x" is there twice: give each its own name`},
		{[]Limit{{Name: "x", Tokens: 5}}, `limit "x": calls, tokens and money are counted in a period: hour, day, month or run, not ""`},
		{[]Limit{{Name: "x", Tokens: 5, Period: "week"}}, `limit "x": calls, tokens and money are counted in a period: hour, day, month or run, not "week"`},
		{[]Limit{{Name: "x", Concurrent: 5, Period: Day}}, `limit "x": a period needs calls, tokens or money to bound`},
		{[]Limit{day(Limit{Name: "x", Per: []string{"team"}})}, `limit "x": per: "team" is none of app, user, agent, key, provider, model and run`},
		{[]Limit{day(Limit{Name: "x", Per: []string{"app", "app"}})}, `limit "x": per: app is there twice`},
		{[]Limit{day(Limit{Name: "x", Per: []string{"run"}})}, `limit "x": for a run, calls, tokens and money are counted in the period run: make two limits of it`},
		{[]Limit{day(Limit{Name: "x", Within: time.Hour})}, `limit "x": for a run, calls, tokens and money are counted in the period run: make two limits of it`},
		{[]Limit{day(Limit{Name: "x", Tokens: -1, Concurrent: 1 << 60})}, "limit \"x\": tokens is -1: give a number from 1 to 1125899906842624, or leave it out\nlimit \"x\": concurrent is 1152921504606846976: give a number from 1 to 1125899906842624, or leave it out"},
		{[]Limit{day(Limit{Name: "x", Money: -5})}, `limit "x": money is -0.000005: give an amount from 0.000001 to 5000000000, or leave it out`},
		{[]Limit{day(Limit{Name: "x", Rate: Rate{Requests: 1}})}, `limit "x": a rate is 1 to 1000000 requests in 1ms to 24h0m0s, with a burst of at most 1000000`},
		{[]Limit{day(Limit{Name: "x", Apps: []string{"!"}})}, `limit "x": "!" is not a pattern: write a name, with * for any characters`},
	} {
		_, err := New(Config{Limits: tt.limits})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%+v:\n%v\nexpected\n%s", tt.limits, err, tt.want)
		}
	}
	if _, err := New(Config{Prices: []Price{{Model: "m", Output: -1}}}); err == nil || !strings.Contains(err.Error(), `the price of "/m" is -0.000001`) {
		t.Errorf("a price below 0: %v", err)
	}
	if _, err := New(Config{Limits: make([]Limit, maxLimits+1)}); err == nil {
		t.Error("limits without end")
	}
}

func TestMoney(t *testing.T) {
	for s, want := range map[string]Money{"0": 0, "12": 12e6, "0.075": 75_000, "250.00": 250e6, "0.000001": 1, "5000000000": MaxMoney, "007.5": 7_500_000} {
		if got, err := ParseMoney(s); err != nil || got != want {
			t.Errorf("ParseMoney(%q) = %d, %v; expected %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", ".", ".5", "5.", "1,000", "-1", "+1", "1e3", "0.0000001", "5000000000.000001", "99999999999", "1.2.3", "１"} {
		if got, err := ParseMoney(s); err == nil {
			t.Errorf("ParseMoney(%q) = %s", s, got)
		}
	}
	for m, want := range map[Money]string{0: "0", 75_000: "0.075", 12e6: "12", 12_500_000: "12.50", 1: "0.000001", -1_500_000: "-1.50"} {
		if got := m.String(); got != want {
			t.Errorf("%d: %s, expected %s", int64(m), got, want)
		}
	}
}

func FuzzParseMoney(f *testing.F) {
	for _, s := range []string{"12", "0.075", "5000000000", "1.", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMoney(s)
		if err != nil {
			return
		}
		if again, err := ParseMoney(m.String()); err != nil || again != m || m < 0 || m > MaxMoney {
			t.Errorf("%q is %d, which is written %s and read %d, %v", s, m, m, again, err)
		}
	})
}

func TestPrice(t *testing.T) {
	p := Price{Input: 2_500_000, Output: 10_000_000, CacheRead: 1_250_000}
	for _, tt := range []struct {
		t           tokens
		nanos, pico int64
	}{
		{tokens{fresh: 1e6}, 2_500_000_000, 0}, // 2.50 for a million
		{tokens{output: 1e6}, 10_000_000_000, 0},
		{tokens{read: 1e6}, 1_250_000_000, 0},
		{tokens{written: 1e6}, 2_500_000_000, 0}, // as input
		{tokens{fresh: 1, read: 1}, 3750, 0},
	} {
		if n, pico := p.of(tt.t); n != tt.nanos || pico != tt.pico {
			t.Errorf("%+v costs %d and %d, expected %d and %d", tt.t, n, pico, tt.nanos, tt.pico)
		}
	}
	odd := Price{Input: 37_501}
	if n, pico := odd.of(tokens{fresh: 3}); n != 112 || pico != 503 {
		t.Errorf("%d and %d", n, pico)
	}
	// The sum of many is what many cost together.
	var a amounts
	for range 1000 {
		a.add(cost(tokens{fresh: 3}, &odd))
	}
	if n, pico := odd.of(tokens{fresh: 3000}); a.n[unitMoney] != n || a.pico != pico {
		t.Errorf("one by one %d and %d, together %d and %d", a.n[unitMoney], a.pico, n, pico)
	}
}

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"a*", "a", true}, {"a*", "ba", false}, {"*a", "ba", true}, {"a*a", "a", false},
		{"a*a", "aa", true}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "acb", false}, {"gpt-*-mini", "gpt-4o-mini", true}, {"**", "x", true}, {"", "x", false}, {"*ab*ab", "ab", false},
	} {
		if got := fits(tt.pattern, tt.s); got != tt.want {
			t.Errorf("fits(%q, %q) = %t", tt.pattern, tt.s, got)
		}
	}
}

func TestEstimateInput(t *testing.T) {
	for bytes, want := range map[int64]int64{-1: 0, 0: 0, 1: 1, 7: 3, 3500: 1001, 1 << 62: maxTokens*2/7 + 1} {
		if got := EstimateInput(bytes); got != want {
			t.Errorf("%d bytes: %d tokens, expected %d", bytes, got, want)
		}
	}
}
