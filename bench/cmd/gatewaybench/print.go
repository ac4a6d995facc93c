package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/fairleadhq/fairlead/bench/internal/measure"
)

// The targets of issue 2: most CPU time in microseconds, by case, with a stretch, and per chunk of a stream.
var mostCPU = map[string][2]float64{
	"1 KB, 64 connections":                      {100, 60},
	"30 KB conversation resent, 64 connections": {300, 250},
	"30 KB never seen, 64 connections":          {300, 250},
	"stream, 1 connection":                      {30, 30},
	"stream, 16 connections":                    {30, 30},
}

func rate(r *loaded) float64 { return r.PerSecond }
func p50(r *loaded) float64  { return r.Total.P50 }
func p99(r *loaded) float64  { return r.Total.P99 }
func cpu(r *loaded) float64  { return r.CPU }

func chunkCPU(r *loaded) float64 { return r.CPU / chunksPerStream }
func chunkAge(r *loaded) float64 {
	if r.Chunk == nil {
		return 0
	}
	return r.Chunk.P50
}

// print writes the report as Markdown.
func (rep *report) print(w io.Writer) error {
	var b strings.Builder
	pinned := "nothing pinned"
	if rep.Pinned {
		pinned = "gateways pinned to one processor, load and upstream to another"
	}
	if rep.Procs > 0 {
		pinned += fmt.Sprintf(", GOMAXPROCS %d for fairlead and floor", rep.Procs)
	}
	fmt.Fprintf(&b, "%s; %s\n\n", rep.Machine, pinned)
	b.WriteString("| case | target | calls/s | p50 µs | p99 µs | CPU µs/call | CPU / floor's | added p50 µs | added p99 µs |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range rep.Rows {
		rep.line(&b, r)
	}
	rep.checks(&b)
	if rep.Soak != nil {
		rep.Soak.print(&b)
	}
	for _, n := range rep.Notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (rep *report) line(b *strings.Builder, r *row) {
	fmt.Fprintf(b, "| %s | %s |", r.Case, r.Target)
	if why := r.failed(); why != "" {
		fmt.Fprintf(b, " %s | | | | | | |\n", why)
		return
	}
	median := func(f func(*loaded) float64) string { return measure.SpreadOf(r.column(f)).Format("%.0f") }
	fmt.Fprintf(b, " %s | %s | %s |", median(rate), median(p50), median(p99))
	if r.Target == nameDirect {
		b.WriteString(" | | | |\n")
		return
	}
	direct, floor := rep.find(r.Case, nameDirect), rep.find(r.Case, nameFloor)
	added := func(f func(*loaded) float64) string {
		return measure.SpreadOf(measure.Pairwise(r.column(f), direct.column(f), measure.Difference)).Format("%.0f")
	}
	ratio := measure.SpreadOf(measure.Pairwise(r.column(cpu), floor.column(cpu), measure.Ratio))
	fmt.Fprintf(b, " %s | %s | %s | %s |\n", median(cpu), ratio.Format("%.2f"), added(p50), added(p99))
}

// checks compares Fairlead's figures with the targets.
func (rep *report) checks(b *strings.Builder) {
	b.WriteString("\n| fairlead | median (range) | target |\n|---|--:|---|\n")
	commit := measure.SpreadOf(rep.Commit)
	for _, r := range rep.Rows {
		if r.Target != nameFairlead || r.failed() != "" {
			continue
		}
		if most, ok := mostCPU[r.Case]; ok {
			what, s := "CPU µs per call", measure.SpreadOf(r.column(cpu))
			if r.shape.stream {
				what, s = "CPU µs per chunk, the call's own cost included", measure.SpreadOf(r.column(chunkCPU))
			}
			fmt.Fprintf(b, "| %s: %s | %s | %s |\n", r.Case, what, s.Format("%.1f"), verdict(s.Median, most[0], most[1]))
		}
		if r.shape.stream {
			s := measure.Pairwise(r.column(chunkAge), rep.find(r.Case, nameDirect).column(chunkAge), measure.Difference)
			fmt.Fprintf(b, "| %s: added p50 µs of one event's way | %s | |\n", r.Case, measure.SpreadOf(s).Format("%.0f"))
		}
		if r.shape.quiet {
			s := measure.SpreadOf(measure.Pairwise(r.column(p50), rep.find(r.Case, nameDirect).column(p50), measure.Difference))
			most := 2.5*commit.Median + 200
			fmt.Fprintf(b, "| %s: added p50 µs | %s | %s |\n", r.Case, s.Format("%.0f"), verdict(s.Median, most, most))
		}
	}
	fmt.Fprintf(b, "| one commit of the ledger, p50 µs | %s | |\n", commit.Format("%.0f"))
	fmt.Fprintf(b, "| one raw append with fdatasync, p50 µs | %s | |\n", measure.SpreadOf(rep.Append).Format("%.0f"))
}

// verdict says what was asked for and whether it was reached.
func verdict(got, most, stretch float64) string {
	switch {
	case got > most:
		return fmt.Sprintf("≤ %.0f: **missed**", most)
	case got > stretch:
		return fmt.Sprintf("≤ %.0f: reached; stretch %.0f: missed", most, stretch)
	case stretch < most:
		return fmt.Sprintf("≤ %.0f: reached; stretch %.0f: reached", most, stretch)
	}
	return fmt.Sprintf("≤ %.0f: reached", most)
}
