package budget

import (
	"cmp"
	"slices"
	"time"
)

// A Status is where one counter stands. Used, Held and Max are as in [Violation]; of a rate, Used is how many tokens the
// bucket lacks, of Max.
type Status struct {
	Limit  string    `json:"limit"`
	Tenant string    `json:"tenant"`
	Scope  string    `json:"scope,omitempty"`
	What   What      `json:"what"`
	Used   int64     `json:"used"`
	Held   int64     `json:"held"`
	Max    int64     `json:"max"`
	Resets time.Time `json:"resets,omitzero"` // zero if it does not
}

// Share is how much of the limit is taken, held or used: 1 is all.
func (s *Status) Share() float64 {
	return (float64(s.Used) + float64(s.Held)) / float64(s.Max)
}

// Status lists the n counters that are closest to their limit, fullest first; those that nothing was taken from are
// left out.
func (b *Book) Status(n int) []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock.tick()
	var list []standing
	trim := func() {
		slices.SortFunc(list, func(x, y standing) int {
			return cmp.Or(cmp.Compare(y.Share(), x.Share()), cmp.Compare(x.Limit, y.Limit), cmp.Compare(x.What, y.What), cmp.Compare(x.c.scope, y.c.scope))
		})
		list = list[:min(len(list), max(n, 0))]
	}
	for _, u := range b.rules {
		for _, c := range u.ring {
			c.roll(&b.clock)
			c.fill(&b.clock)
			if list = c.standing(list, &b.clock); len(list) > 2*n+1024 {
				trim() // never hold what is not asked for
			}
		}
	}
	trim()
	out := make([]Status, len(list))
	for i, s := range list {
		out[i] = s.Status
		out[i].Tenant, _ = s.c.parts()
		out[i].Scope = s.c.String()
	}
	return out
}

// A standing is a Status whose scope has not been written out.
type standing struct {
	Status
	c *counter
}

func (c *counter) standing(list []standing, t *clock) []standing {
	u := c.rule
	add := func(w What, used, held, max int64, resets time.Time) {
		if max > 0 && (used > 0 || held > 0) {
			list = append(list, standing{Status{u.Name, "", "", w, used, held, max, resets}, c})
		}
	}
	for i, max := range u.max {
		add(whats[i], c.used.n[i], c.held.n[i], max, t.ends(u.Period))
	}
	add(WhatConcurrent, 0, c.running, u.Concurrent, time.Time{})
	if u.rated {
		every := u.Rate.Every.Microseconds()
		add(WhatRate, (u.full()-c.level+every-1)/every, 0, u.Rate.Burst, time.Time{})
	}
	if u.Within > 0 && c.began > 0 {
		add(WhatTime, t.wall-c.began, 0, u.Within.Microseconds(), time.Time{})
	}
	return list
}
