package budget

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
)

// A Limit bounds what callers may do. Its zero bounds are no bounds; at least one has to be set. Every limit that
// applies to a call counts: a second limit never widens a first.
type Limit struct {
	// Name is how a refusal, the ledger and the configuration call the limit. What has been used is kept across a
	// reload under it.
	Name string

	// Which calls the limit applies to: those that fit one pattern of each list. An empty list fits all. In a pattern
	// * stands for any characters. A pattern that begins with ! takes out what fits it, but no app, user or agent that
	// is merely declared: declaring something may not widen anything.
	Apps, Users, Agents, Keys, Providers, Models []string

	// Per says what has a counter of its own: any of [PerApp], [PerUser], [PerAgent], [PerKey], [PerProvider],
	// [PerModel] and [PerRun]. Empty: all calls that the limit applies to share one. Tenants never share.
	Per []string
	// Declared gives also those apps, users and agents a counter of their own that are merely declared. Otherwise they
	// share one (users and agents: one in each app), because whoever can name himself anew could start anew.
	Declared bool

	Rate       Rate
	Concurrent int64 // calls at a time

	// Calls, Tokens (in and out together) and Money bound what is used in one Period. The calls of a run are its steps.
	Calls, Tokens int64
	Money         Money
	Period        Period // required with Calls, Tokens and Money

	Depth  int64         // agents below agents: the largest Call.Depth
	Within time.Duration // how long after its first call a run may make another; PerRun is implied
}

// What can have a counter of its own.
const (
	PerApp      = "app"
	PerUser     = "user"
	PerAgent    = "agent"
	PerKey      = "key"
	PerProvider = "provider"
	PerModel    = "model"
	PerRun      = "run" // one run of an agent
)

// A Rate lets Requests calls through Every so often, and Burst at once (Requests, if Burst is 0): a bucket of Burst
// tokens that is refilled evenly.
type Rate struct {
	Requests int64
	Every    time.Duration
	Burst    int64
}

// A Period is after how long a counter starts again.
type Period string

// The periods. Hours, days and months are those of the calendar, in UTC. A run has no end; it is forgotten a day after
// its last call.
const (
	Hour  Period = "hour"
	Day   Period = "day"
	Month Period = "month"
	Run   Period = "run"
)

// Money is an amount in millionths of the currency that prices are given in.
type Money int64

// MaxMoney is the largest amount: five thousand million.
const MaxMoney Money = 5e9 * 1e6

// ParseMoney reads an amount as "12" or "0.075": digits, and at most six behind the point.
func ParseMoney(s string) (Money, error) {
	whole, frac, point := strings.Cut(s, ".")
	if len(whole) == 0 || len(whole) > 10 || len(frac) > 6 || point && frac == "" || strings.Trim(whole+frac, "0123456789") != "" {
		return 0, fmt.Errorf("%.30q is not an amount of money: write it like 250 or 0.075, with at most six digits behind the point", s)
	}
	n, err := strconv.ParseInt(whole+frac+"000000"[len(frac):], 10, 64)
	if err != nil || Money(n) > MaxMoney {
		return 0, fmt.Errorf("%.30q is too much money: at most %s", s, MaxMoney)
	}
	return Money(n), nil
}

// String gives what [ParseMoney] reads, with at least two digits behind a point.
func (m Money) String() string {
	sign, n := "", uint64(m)
	if m < 0 {
		sign, n = "-", -n
	}
	s := strings.TrimRight(fmt.Sprintf("%06d", n%1e6), "0")
	for len(s) > 0 && len(s) < 2 {
		s += "0"
	}
	if s != "" {
		s = "." + s
	}
	return sign + strconv.FormatUint(n/1e6, 10) + s
}

// A Price is what a million tokens of a model cost. The first price of a list whose patterns fit counts; an empty
// pattern fits all.
type Price struct {
	Provider, Model string
	Input, Output   Money
	// Of the input, what came from the provider's cache, and what was written to it. 0: as Input.
	CacheRead, CacheWrite Money
}

// Bounds on configuration.
const (
	maxLimits  = 1000
	maxPrices  = 10_000
	maxCount   = 1 << 50
	maxRate    = 1_000_000
	maxEvery   = 24 * time.Hour
	maxPattern = 256
)

// check says everything that is wrong with a limit.
func (l *Limit) check() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("limit %.64q: %w", l.Name, fmt.Errorf(format, args...)))
	}
	if !safeName(l.Name) {
		wrong("a name is 1 to 64 letters, digits, dots, dashes and underscores")
	}
	for _, list := range [][]string{l.Apps, l.Users, l.Agents, l.Keys, l.Providers, l.Models} {
		for _, p := range list {
			if strings.TrimPrefix(p, "!") == "" || len(p) > maxPattern {
				wrong("%.40q is not a pattern: write a name, with * for any characters", p)
			}
		}
	}
	for i, p := range l.Per {
		if !slices.Contains([]string{PerApp, PerUser, PerAgent, PerKey, PerProvider, PerModel, PerRun}, p) {
			wrong("per: %.40q is none of app, user, agent, key, provider, model and run", p)
		} else if slices.Contains(l.Per[:i], p) {
			wrong("per: %s is there twice", p)
		}
	}
	for i, n := range [...]int64{l.Calls, l.Tokens, l.Concurrent, l.Depth} {
		if n < 0 || n > maxCount {
			wrong("%s is %d: give a number from 1 to %d, or leave it out", [...]string{"calls", "tokens", "concurrent", "depth"}[i], n, int64(maxCount))
		}
	}
	if l.Money < 0 || l.Money > MaxMoney {
		wrong("money is %s: give an amount from 0.000001 to %s, or leave it out", l.Money, MaxMoney)
	}
	if l.Within < 0 {
		wrong("within is %s: give a time, or leave it out", l.Within)
	}
	if l.Rate != (Rate{}) && (l.Rate.Requests < 1 || l.Rate.Requests > maxRate || l.Rate.Burst < 0 || l.Rate.Burst > maxRate ||
		l.Rate.Every < time.Millisecond || l.Rate.Every > maxEvery) {
		wrong("a rate is 1 to %d requests in 1ms to %s, with a burst of at most %d", maxRate, maxEvery, maxRate)
	}
	sums := l.Calls != 0 || l.Tokens != 0 || l.Money != 0
	switch {
	case sums && !slices.Contains([]Period{Hour, Day, Month, Run}, l.Period):
		wrong("calls, tokens and money are counted in a period: hour, day, month or run, not %.40q", l.Period)
	case sums && l.Period != Run && (slices.Contains(l.Per, PerRun) || l.Within != 0):
		wrong("for a run, calls, tokens and money are counted in the period run: make two limits of it")
	case !sums && l.Period != "":
		wrong("a period needs calls, tokens or money to bound")
	case !sums && l.Rate == (Rate{}) && l.Concurrent == 0 && l.Depth == 0 && l.Within == 0:
		wrong("it bounds nothing: give a rate, concurrent, calls, tokens, money, depth or within")
	}
	return errors.Join(errs...)
}

func safeName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("._-", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func (p *Price) check() error {
	for _, m := range [...]Money{p.Input, p.Output, p.CacheRead, p.CacheWrite} {
		if m < 0 || m > MaxMoney {
			return fmt.Errorf("the price of %.64q is %s: give an amount from 0 to %s for a million tokens", p.Provider+"/"+p.Model, m, MaxMoney)
		}
	}
	if len(p.Provider) > maxPattern || len(p.Model) > maxPattern {
		return fmt.Errorf("the price of %.64q: a pattern has at most %d characters", p.Provider+"/"+p.Model, maxPattern)
	}
	return nil
}

// fits reports whether s fits a pattern in which * stands for any characters. The time is at most the product of the
// lengths, of which the pattern's is the operator's.
func fits(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		part, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], more
	}
}

// applies reports whether a list of patterns takes in s. Only what is sure can be taken out.
func applies(list []string, s string, sure bool) bool {
	if len(list) == 0 {
		return true
	}
	wanted, in := false, false
	for _, p := range list {
		if out, ok := strings.CutPrefix(p, "!"); ok {
			if sure && fits(out, s) {
				return false
			}
			continue
		}
		wanted = true
		in = in || fits(p, s)
	}
	return in || !wanted
}

// sure reports whether a statement about identity may widen what is permitted.
func sure(a fairlead.Assurance) bool { return a == fairlead.Verified || a == fairlead.Attested }
