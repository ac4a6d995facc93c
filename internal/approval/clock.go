package approval

import "time"

// A clock passes time that neither stands still nor goes back, whatever the wall clock does.
type clock struct {
	now  func() time.Time
	last time.Time // what now said last
	time time.Time // what has been seen
}

// read gives the time.
func (c *clock) read() time.Time {
	n := c.now()
	if d := n.Sub(c.last); !c.last.IsZero() && d > 0 {
		c.time = c.time.Add(d)
	}
	c.last = n
	c.seen(n)
	return c.time
}

// seen says that it is at least t.
func (c *clock) seen(t time.Time) {
	if t = t.Round(0).UTC(); t.After(c.time) {
		c.time = t
	}
}
