package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/fairleadhq/fairlead/bench/internal/appender"
	"github.com/fairleadhq/fairlead/bench/internal/measure"
)

// The targets, as issue 2 sets them: least share of the raw append's rate by writers, least advantage over Tessera, and
// least rate of verifying.
var (
	leastShare   = map[int]float64{64: .65, 512: .5}
	leastTessera = 5.
	leastVerify  = 500_000.
)

// column gives one figure of every run.
func (r row) column(f func(appender.Result) float64) []float64 {
	var out []float64
	for _, run := range r.Runs {
		out = append(out, f(run))
	}
	return out
}

func rate(r appender.Result) float64 { return r.Rate }
func p50(r appender.Result) float64  { return r.Latency.P50 }
func p99(r appender.Result) float64  { return r.Latency.P99 }
func cpu(r appender.Result) float64  { return r.CPU }

func (rep *report) find(contender string, writers int) (row, bool) {
	for _, r := range rep.Rows {
		if r.Contender == contender && r.Writers == writers {
			return r, true
		}
	}
	return row{}, false
}

// print writes the report as Markdown tables.
func (rep *report) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", rep.Machine)
	b.WriteString("| writers | contender | events/s | p50 µs | p99 µs | CPU µs/event |\n|--:|---|--:|--:|--:|--:|\n")
	for _, r := range rep.Rows {
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s |\n", r.Writers, r.Contender,
			measure.SpreadOf(r.column(rate)).Format("%.0f"), measure.SpreadOf(r.column(p50)).Format("%.0f"),
			measure.SpreadOf(r.column(p99)).Format("%.0f"), measure.SpreadOf(r.column(cpu)).Format("%.1f"))
	}
	b.WriteString("\n| within pairs | median (range) | target |\n|---|--:|---|\n")
	for _, r := range rep.Rows {
		if r.Contender == nameLedger {
			rep.compare(&b, r)
		}
	}
	if s := measure.SpreadOf(rep.Verify.Events); s.N > 0 {
		fmt.Fprintf(&b, "| verify on one core, events per CPU second | %s | %s |\n", s.Format("%.0f"), verdict(s.Median, leastVerify, "%.0f"))
		fmt.Fprintf(&b, "| the same, with a sealed blob for each event | %s | |\n", measure.SpreadOf(rep.Verify.Blobs).Format("%.0f"))
	}
	for _, n := range rep.Notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (rep *report) compare(b *strings.Builder, ours row) {
	n := ours.Writers
	who := fmt.Sprintf("%d writers", n)
	if n == 1 {
		who = "1 writer"
	}
	line := func(what string, peer row, f func(appender.Result) float64, ratio func(a, b float64) float64, target string, least float64) {
		s := measure.SpreadOf(measure.Pairwise(ours.column(f), peer.column(f), ratio))
		if least > 0 {
			target = verdict(s.Median, least, "%.2f")
		}
		fmt.Fprintf(b, "| %s: %s | %s | %s |\n", who, what, s.Format("%.2f"), target)
	}
	if raw, ok := rep.find(nameRaw, n); ok {
		line("rate / raw append's", raw, rate, measure.Ratio, "", leastShare[n])
		line("CPU per event / raw append's", raw, cpu, measure.Ratio, "", 0)
		line("p50 / raw append's", raw, p50, measure.Ratio, "", 0)
		line("p99 / raw append's", raw, p99, measure.Ratio, "", 0)
	}
	if ready, ok := rep.find(nameReady, n); ok {
		line("rate / raw append's with envelopes made beforehand", ready, rate, measure.Ratio, "", 0)
	}
	if t, ok := rep.find(nameTessera, n); ok {
		line("Tessera's p50 / ours", t, p50, func(a, b float64) float64 { return b / a }, "", leastTessera)
	}
}

// verdict says what was asked for and whether it was reached.
func verdict(got, least float64, verb string) string {
	if got >= least {
		return fmt.Sprintf("≥ "+verb+": reached", least)
	}
	return fmt.Sprintf("≥ "+verb+": **missed**", least)
}
