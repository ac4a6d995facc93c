// Package measure holds what every program under bench needs to say a number honestly: percentiles, medians of
// interleaved pairs with their range, and what the machine was and how busy.
//
// A pair is the same work done by two contenders right after each other. Their ratio is taken within the pair and the
// median over the pairs, so that a neighbour who makes the machine slow for a minute hits both sides.
package measure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Quantile gives the smallest value of sorted that at least the share p (0 to 1) of all values do not exceed (nearest
// rank), and the zero value when there are none.
func Quantile[T cmp.Ordered](sorted []T, p float64) T {
	if len(sorted) == 0 {
		var zero T
		return zero
	}
	rank := int(math.Ceil(p * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median gives the middle value, or the mean of the two in the middle; it is NaN when there are none. values stays as
// it is.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return math.NaN()
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// A Spread is a median with the range that it comes from.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// SpreadOf summarises values. Of no values it is the zero Spread, which prints as a dash.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	return Spread{Median(values), slices.Min(values), slices.Max(values), len(values)}
}

// Format prints the median and the range with a verb for one number, such as "%.2f".
func (s Spread) Format(verb string) string {
	if s.N == 0 {
		return "–"
	}
	return fmt.Sprintf(verb+" ("+verb+"–"+verb+")", s.Median, s.Min, s.Max)
}

// Pairwise gives f(a[i], b[i]) for each pair. A pair that lacks a side is left out, and so is one whose result is no
// finite number.
func Pairwise(a, b []float64, f func(a, b float64) float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		if v := f(a[i], b[i]); !math.IsNaN(v) && !math.IsInf(v, 0) {
			out = append(out, v)
		}
	}
	return out
}

// Ratio is a divided by b, for [Pairwise].
func Ratio(a, b float64) float64 { return a / b }

// Difference is a less b, for [Pairwise].
func Difference(a, b float64) float64 { return a - b }

// A Latency summarises durations, in microseconds.
type Latency struct {
	P50  float64 `json:"p50_us"`
	P90  float64 `json:"p90_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
}

// LatencyOf summarises durations. It sorts them.
func LatencyOf(d []time.Duration) Latency {
	slices.Sort(d)
	us := func(p float64) float64 { return float64(Quantile(d, p)) / 1e3 }
	return Latency{us(.5), us(.9), us(.99), us(.999)}
}
