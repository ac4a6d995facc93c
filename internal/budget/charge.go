package budget

import (
	"math"
	"math/bits"

	"github.com/fairleadhq/fairlead"
)

// What is counted in a period. Counters know units only by their number.
const (
	unitCalls  = iota
	unitTokens // in and out together
	unitMoney  // in thousandths of Money's unit
	units
)

// nano is how many units of unitMoney there are in one of Money.
const nano = 1000

// tokens is what a call used, or may use.
type tokens struct {
	fresh, read, written int64 // input: neither from nor to a cache, from it, to it
	output               int64
}

// maxTokens is the most that one call is held to have used of anything: what a provider says is not believed beyond.
const maxTokens = 1 << 31

func (t tokens) total() int64 { return t.fresh + t.read + t.written + t.output }

// An End is how a call ended.
type End struct {
	// Outcome is the attribute fairlead.outcome.
	Outcome string
	// Status is what the provider answered with; 0 if there is no answer of its own.
	Status int
	Usage  fairlead.Usage
}

// free reports whether a call that ended so cost nothing unless the provider says so: the provider refused it, or was
// never reached. Whoever goes away, or waits in vain, pays the estimate.
func (e *End) free() bool {
	return e.Outcome == "upstream_status" || e.Outcome == "upstream_error" && e.Status == 0
}

// used is what a call that ended so counts for. The estimate stands for what the provider does not say, or says in a
// number that a ledger does not hold.
func (e *End) used(estimate tokens) tokens {
	said := func(n, otherwise int64) int64 {
		if n < 0 || n >= 1<<53 {
			n = otherwise
		}
		return min(n, maxTokens)
	}
	if e.free() {
		estimate = tokens{}
	}
	in := said(e.Usage.Input, estimate.fresh)
	t := tokens{read: min(said(e.Usage.CacheRead, 0), in), output: said(e.Usage.Output, estimate.output)}
	t.written = min(said(e.Usage.CacheCreation, 0), in-t.read)
	t.fresh = in - t.read - t.written
	return t
}

// amounts is what is counted, by unit. pico is what money has beyond whole units, in thousandths of them, so that a sum
// of parts is what the parts of a sum are.
type amounts struct {
	n    [units]int64
	pico int64
}

// cost is what t counts for at price p; without one its money is 0.
func cost(t tokens, p *Price) (a amounts) {
	a.n = [units]int64{unitCalls: 1, unitTokens: t.total()}
	if p != nil {
		a.n[unitMoney], a.pico = p.of(t)
	}
	return a
}

// of gives the price of t in units of unitMoney and thousandths of them. A price is in millionths for a million tokens:
// in pico for one.
func (p *Price) of(t tokens) (nanos, picos int64) {
	read, written := p.CacheRead, p.CacheWrite
	if read == 0 {
		read = p.Input
	}
	if written == 0 {
		written = p.Input
	}
	var hi, lo, carry uint64
	for _, part := range [...]struct {
		n     int64
		price Money
	}{{t.fresh, p.Input}, {t.read, read}, {t.written, written}, {t.output, p.Output}} {
		h, l := bits.Mul64(uint64(part.n), uint64(part.price))
		lo, carry = bits.Add64(lo, l, 0)
		hi += h + carry // of less than 2^86 in all
	}
	if hi >= 1000/2 {
		return math.MaxInt64, 0
	}
	q, r := bits.Div64(hi, lo, 1000)
	if q > math.MaxInt64 {
		return math.MaxInt64, 0
	}
	return int64(q), int64(r)
}

func (a *amounts) add(b amounts) {
	a.pico += b.pico
	carry := a.pico / 1000
	a.pico %= 1000
	for i := range a.n {
		a.n[i] = sum(a.n[i], b.n[i])
	}
	a.n[unitMoney] = sum(a.n[unitMoney], carry)
}

// less takes away what was added before. Where the sum had reached the end of numbers it ends at 0.
func (a *amounts) less(b amounts) {
	for i := range a.n {
		a.n[i] = max(a.n[i]-b.n[i], 0)
	}
}

func (a *amounts) zero() bool { return *a == amounts{} }

// most is the larger of two states of one counter.
func most(a, b amounts) amounts {
	for i := range a.n {
		if i == unitMoney && (b.n[i] > a.n[i] || b.n[i] == a.n[i] && b.pico > a.pico) {
			a.pico = b.pico
		}
		a.n[i] = max(a.n[i], b.n[i])
	}
	return a
}

// sum adds without going beyond what fits. Neither is negative.
func sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// EstimateInput guesses from the size of a request how many tokens it is: 3.5 bytes each, as English text and JSON have
// at the least. Other scripts have fewer bytes to a token, pictures far more; settling puts that right.
func EstimateInput(bytes int64) int64 {
	if bytes <= 0 {
		return 0
	}
	return min(bytes, maxTokens)*2/7 + 1
}
