package identity

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead"
)

// The attributes of auth.failed/1. The number of failures for one reason is called AttrFailures + "." + the Reason.
const (
	AttrFailures     = "fairlead.auth.failures" // all together
	AttrSources      = "fairlead.auth.sources"  // distinct sources, within about 4 per cent
	AttrFirstFailure = "fairlead.auth.first"    // RFC 3339, UTC, microseconds
	AttrLastFailure  = "fairlead.auth.last"
)

// Sizes of the sketch: 1024 registers give a standard error of 1.04/sqrt(1024), 3.3 per cent.
const (
	sketchBits = 10
	sketchSize = 1 << sketchBits
)

// Failures counts credentials that did not hold, so that a thousand wrong keys a second become one fact per interval
// and not a thousand. It takes about 1 KiB, however many failures and sources there are. The zero value sums up per
// minute. It is safe for concurrent use.
type Failures struct {
	// Interval is the least time between two summaries. Zero: a minute. Not to be changed after the first use.
	Interval time.Duration

	mu      sync.Mutex
	seed    maphash.Seed // secret, so that nobody can pick sources that distort the estimate
	seeded  bool
	drained time.Time
	sum     Summary
	sketch  [sketchSize]uint8 // HyperLogLog (Flajolet et al., 2007): the longest run of zeros seen, plus 1
}

// A Summary is what happened in one interval.
type Summary struct {
	First, Last time.Time
	Total       int64
	Sources     int64 // estimated

	counts [len(reasons)]int64
}

// Count gives the number of failures for one reason.
func (s *Summary) Count(r Reason) int64 { return s.counts[reasonIndex(r)] }

func reasonIndex(r Reason) int {
	if i := slices.Index(reasons[:], r); i >= 0 {
		return i
	}
	return len(reasons) - 1
}

// Add counts one failure. Source says where it came from, for instance the caller's network address; for IPv6 the
// first 64 bits are best, since one caller commands all addresses below them. It is not kept. A reason that is not
// among the constants counts as "other".
func (f *Failures) Add(r Reason, source string) {
	now := time.Now().UTC()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.seeded {
		f.seed, f.seeded = maphash.MakeSeed(), true
	}
	if f.sum.Total == 0 {
		f.sum.First = now
	}
	f.sum.Last = now
	f.sum.Total++
	f.sum.counts[reasonIndex(r)]++
	h := maphash.String(f.seed, source)
	zeros := uint8(bits.LeadingZeros64(h<<sketchBits|1<<(sketchBits-1))) + 1
	if slot := &f.sketch[h>>(64-sketchBits)]; zeros > *slot {
		*slot = zeros
	}
}

// Drain gives the summary of what was counted since the last one and starts anew. It gives false when there is nothing
// to report, or when the last summary is less than Interval ago. The first failure after a quiet time can therefore be
// reported at once.
func (f *Failures) Drain() (Summary, bool) {
	interval := f.Interval
	if interval <= 0 {
		interval = time.Minute
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); f.sum.Total > 0 && now.Sub(f.drained) >= interval {
		return f.take(now), true
	}
	return Summary{}, false
}

// Flush is Drain without waiting for the interval, for shutting down.
func (f *Failures) Flush() (Summary, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sum.Total == 0 {
		return Summary{}, false
	}
	return f.take(time.Now()), true
}

func (f *Failures) take(now time.Time) Summary {
	s := f.sum
	s.Sources = min(estimate(&f.sketch), s.Total)
	f.sum, f.sketch, f.drained = Summary{}, [sketchSize]uint8{}, now
	return s
}

// estimate is HyperLogLog's, with linear counting while registers are still empty.
func estimate(sketch *[sketchSize]uint8) int64 {
	const m = float64(sketchSize)
	sum, empty := 0.0, 0.0
	for _, z := range sketch {
		sum += math.Ldexp(1, -int(z))
		if z == 0 {
			empty++
		}
	}
	e := 0.7213 / (1 + 1.079/m) * m * m / sum
	if e <= 2.5*m && empty > 0 {
		e = m * math.Log(m/empty)
	}
	return int64(math.Round(e))
}

// Attrs gives the attributes of the auth.failed/1 fact. Reasons that did not occur are left out.
func (s *Summary) Attrs() []fairlead.Attr {
	const micros = "2006-01-02T15:04:05.000000Z"
	attrs := []fairlead.Attr{
		{Name: AttrFailures, Value: s.Total},
		{Name: AttrSources, Value: s.Sources},
		{Name: AttrFirstFailure, Value: s.First.Format(micros)},
		{Name: AttrLastFailure, Value: s.Last.Format(micros)},
	}
	for i, n := range s.counts {
		if n > 0 {
			attrs = append(attrs, fairlead.Attr{Name: AttrFailures + "." + string(reasons[i]), Value: n})
		}
	}
	return attrs
}
