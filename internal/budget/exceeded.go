package budget

import (
	"fmt"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
)

// An Exceeded says which limits a call would have exceeded: all of them.
type Exceeded struct {
	Over []Violation
}

// A Violation is one limit that stands in a call's way. Used, Held (reserved by calls under way), Max and Want are in
// calls, tokens, thousandths of [Money]'s unit, or microseconds, as What says.
type Violation struct {
	Limit                 string
	Scope                 string // whose counter it is: "app=support user=u:…", or ""
	What                  What
	Used, Held, Max, Want int64
	Period                Period
	Model                 string        // for which there is no price
	After                 time.Duration // when trying again may help; 0: not by waiting, or nobody knows
	Resets                time.Time     // when the period ends; zero if it does not
}

// What a limit bounds.
type What string

// What a limit can bound. WhatPrice is a model that has no price where money is bounded, and WhatScopes more identities
// than there is room for.
const (
	WhatRate       What = "rate"
	WhatConcurrent What = "concurrent"
	WhatCalls      What = "calls"
	WhatTokens     What = "tokens"
	WhatMoney      What = "money"
	WhatDepth      What = "depth"
	WhatTime       What = "time"
	WhatPrice      What = "price"
	WhatScopes     What = "scopes"
)

var whats = [units]What{WhatCalls, WhatTokens, WhatMoney}

func (e *Exceeded) add(u *rule, scope string, w What, used, held, max, want int64) *Violation {
	e.Over = append(e.Over, Violation{Limit: u.Name, Scope: scope, What: w, Used: used, Held: held, Max: max, Want: want, Period: u.Period})
	return &e.Over[len(e.Over)-1]
}

// String gives the parts of c's scope that are told apart, as "app=support model=gpt-4o".
func (c *counter) String() string {
	var b strings.Builder
	_, of := c.parts()
	for i, v := range of {
		if v == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(scopeNames[i] + "=" + v)
	}
	return b.String()
}

// Error says in a sentence or more what is exceeded and what to do.
func (e *Exceeded) Error() string {
	parts := make([]string, len(e.Over))
	for i := range e.Over {
		v := &e.Over[i]
		parts[i] = v.Reason() + ": " + v.Remedy()
	}
	return strings.Join(parts, "; ")
}

// RetryAfter says when trying again may help. It is not ok when waiting alone does not: the call itself has to change,
// or the limit, or its run is over.
func (e *Exceeded) RetryAfter() (after time.Duration, ok bool) {
	for i := range e.Over {
		d, ok := e.Over[i].after()
		if !ok {
			return 0, false
		}
		after = max(after, d)
	}
	return after, true
}

func (v *Violation) after() (d time.Duration, ok bool) {
	switch {
	case v.What == WhatRate:
		return v.After, true
	case v.What == WhatConcurrent, v.What == WhatScopes, v.Want > 0 && v.What != WhatDepth && sum(v.Used, v.Want) <= v.Max:
		return time.Second, true // calls under way end, and give back what they do not use
	}
	return v.After, v.After > 0 && v.Want <= v.Max
}

// Verdict is e in the words of policy: a rule limit:NAME for each limit, which denies.
func (e *Exceeded) Verdict() fairlead.Verdict {
	v := fairlead.Verdict{Effect: fairlead.Deny}
	for i := range e.Over {
		o := &e.Over[i]
		v.Rules = append(v.Rules, fairlead.Rule{ID: "limit:" + o.Limit, Effect: fairlead.Deny, Reason: o.Reason(), Remedy: o.Remedy()})
	}
	return v
}

// Reason says what is exceeded.
func (v *Violation) Reason() string {
	whose := ""
	if v.Scope != "" {
		whose = " for " + v.Scope
	}
	in := map[Period]string{Hour: "this hour", Day: "today", Month: "this month", Run: "in this run"}[v.Period]
	switch v.What {
	case WhatRate:
		return fmt.Sprintf("limit %s%s: too many requests in too short a time", v.Limit, whose)
	case WhatConcurrent:
		return fmt.Sprintf("limit %s%s: %d calls are under way, and %d may be", v.Limit, whose, v.Used, v.Max)
	case WhatDepth:
		return fmt.Sprintf("limit %s: an agent below %d others calls, and at most %d may be above one", v.Limit, v.Used+1, v.Max)
	case WhatTime:
		return fmt.Sprintf("limit %s%s: the run began %s ago, and may last %s", v.Limit, whose, micros(v.Used), micros(v.Max))
	case WhatPrice:
		return fmt.Sprintf("limit %s%s: nobody has said what the model %.200q costs", v.Limit, whose, v.Model)
	case WhatScopes:
		return fmt.Sprintf("limit %s: it counts for %d identities already, and has no room for more", v.Limit, v.Used)
	}
	return fmt.Sprintf("limit %s%s: %s of %s are used %s, calls under way hold %s, and this one may need %s",
		v.Limit, whose, v.amount(v.Used), v.amount(v.Max)+v.unit(), in, v.amount(v.Held), v.amount(v.Want))
}

// Remedy says what to do.
func (v *Violation) Remedy() string {
	switch {
	case v.What == WhatRate:
		return fmt.Sprintf("try again in %s, or send fewer", v.After.Round(time.Millisecond))
	case v.What == WhatConcurrent:
		return "wait for one of them to end, or send fewer at a time"
	case v.What == WhatDepth:
		return "let an agent further up do it"
	case v.What == WhatTime:
		return "end this run; what is left to do can begin a new one"
	case v.What == WhatPrice:
		return "ask the operator to add its price, or use a model that has one"
	case v.What == WhatScopes:
		return "try again later, or ask the operator for room for more"
	case v.Want > v.Max:
		return "send less or bound the answer (max_tokens), for so large a call never fits, or ask the operator for a higher limit"
	case v.Period == Run:
		return "end this run; what is left to do can begin a new one, or ask the operator for a higher limit"
	}
	return fmt.Sprintf("try again after %s, send less, bound the answer (max_tokens), or ask the operator for a higher limit", v.Resets.Format(time.RFC3339))
}

func (v *Violation) amount(n int64) string {
	if v.What == WhatMoney {
		return Money(n / nano).String()
	}
	return fmt.Sprint(n)
}

func (v *Violation) unit() string {
	if v.What == WhatMoney {
		return " of money"
	}
	return " " + string(v.What)
}

func micros(n int64) time.Duration {
	return (time.Duration(min(n, int64(1<<62)/1000)) * time.Microsecond).Round(time.Second)
}
