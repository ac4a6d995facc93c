package measure

import (
	"math"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	tests := []struct {
		name   string
		sorted []int
		p      float64
		want   int
	}{
		{"none", nil, .5, 0},
		{"one", []int{7}, .99, 7},
		{"lowest", hundred, 0, 1},
		{"middle", hundred, .5, 50},
		{"p99 leaves one above", hundred, .99, 99},
		{"p999 of a hundred is the highest", hundred, .999, 100},
		{"highest", hundred, 1, 100},
		{"of three", []int{1, 2, 3}, .5, 2},
	}
	for _, tt := range tests {
		if got := Quantile(tt.sorted, tt.p); got != tt.want {
			t.Errorf("%s: Quantile(p=%v) = %d, want %d", tt.name, tt.p, got, tt.want)
		}
	}
}

func TestMedian(t *testing.T) {
	tests := []struct {
		in   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	}
	for _, tt := range tests {
		if got := Median(tt.in); got != tt.want {
			t.Errorf("Median(%v) = %v, want %v", tt.in, got, tt.want)
		}
	}
	in := []float64{3, 1, 2}
	Median(in)
	if in[0] != 3 {
		t.Error("Median changed the order of its argument, and with it what belongs to which pair")
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

// TestPairwise shows why ratios are taken within pairs: a slow minute that hits both sides does not show.
func TestPairwise(t *testing.T) {
	ours := []float64{50, 5, 50, 7}
	peer := []float64{100, 10, 100}
	got := SpreadOf(Pairwise(ours, peer, Ratio))
	if want := (Spread{.5, .5, .5, 3}); got != want {
		t.Errorf("ratio = %+v, want %+v", got, want)
	}
	got = SpreadOf(Pairwise([]float64{5, 6, 9}, []float64{4, 4, math.NaN()}, Difference))
	if want := (Spread{1.5, 1, 2, 2}); got != want {
		t.Errorf("difference = %+v, want %+v", got, want)
	}
	if got := Pairwise([]float64{1}, []float64{0}, Ratio); len(got) != 0 {
		t.Errorf("a division by zero counts as a pair: %v", got)
	}
}

func TestFormat(t *testing.T) {
	if got := SpreadOf([]float64{1, 2, 6}).Format("%.1f"); got != "2.0 (1.0–6.0)" {
		t.Errorf("Format = %q", got)
	}
	if got := SpreadOf(nil).Format("%.1f"); got != "–" {
		t.Errorf("Format of nothing = %q", got)
	}
}

func TestLatencyOf(t *testing.T) {
	var d []time.Duration
	for i := 1000; i > 0; i-- {
		d = append(d, time.Duration(i)*time.Microsecond)
	}
	if got, want := LatencyOf(d), (Latency{500, 900, 990, 999}); got != want {
		t.Errorf("LatencyOf = %+v, want %+v", got, want)
	}
}
