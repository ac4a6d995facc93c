package main

import (
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	tests := []struct {
		got, most, stretch float64
		want               string
	}{
		{101, 100, 60, "≤ 100: **missed**"},
		{100, 100, 60, "≤ 100: reached; stretch 60: missed"},
		{60, 100, 60, "≤ 100: reached; stretch 60: reached"},
		{30, 30, 30, "≤ 30: reached"},
	}
	for _, tt := range tests {
		if got := verdict(tt.got, tt.most, tt.stretch); got != tt.want {
			t.Errorf("verdict(%v) = %q, want %q", tt.got, got, tt.want)
		}
	}
}

func TestMetric(t *testing.T) {
	const text = "# HELP go_goroutines Number.\n# TYPE go_goroutines gauge\ngo_goroutines 17\ngo_goroutines_max 99\nrss 1.5e+07\n"
	for name, want := range map[string]float64{"go_goroutines": 17, "rss": 1.5e7} {
		if got, err := metric(text, name); got != want || err != nil {
			t.Errorf("%s = %v, %v", name, got, err)
		}
	}
	if got, err := metric(text, "go_max"); err == nil {
		t.Errorf("a metric that is not there is %v", got)
	}
}

// TestPrint shows that added latency and ratios are taken within rounds, and that a target that failed has no figures.
func TestPrint(t *testing.T) {
	c := benchCase{name: "1 KB, 300 calls/s", quiet: true}
	rep := &report{Commit: []float64{100, 100}}
	for _, slow := range []float64{1, 10} { // the second round is ten times slower for all
		for name, us := range map[string]float64{nameDirect: 100, nameFloor: 150, nameFairlead: 300} {
			r := &loaded{Requests: 10, CPU: us * slow}
			r.Total.P50 = us * slow
			rep.add(c, target{name: name}, r)
		}
		rep.add(c, target{name: namePortkey}, &loaded{Requests: 3, Errors: 7, FirstErr: "answered HTTP/1.1 500"})
	}
	var b strings.Builder
	if err := rep.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| 1 KB, 300 calls/s | fairlead | 0 (0–0) | 1650 (300–3000) | 0 (0–0) | 1650 (300–3000) | 2.00 (2.00–2.00) | 1100 (200–2000) | 0 (0–0) |",
		"portkey | 7 of 10 calls failed: answered HTTP/1.1 500 |",
		"added p50 µs | 1100 (200–2000) | ≤ 450: **missed** |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, b.String())
		}
	}
}

func TestReturned(t *testing.T) {
	s := soak{Before: level{20, 100e6, 0}, After: level{25, 105e6, 0}}
	if !s.returned() {
		t.Error("a little more is taken as a leak")
	}
	for _, after := range []level{{2000, 100e6, 0}, {20, 200e6, 0}} {
		if s.After = after; s.returned() {
			t.Errorf("%+v is taken as returned", after)
		}
	}
}

// TestSoakVerdict shows that a call without an end is said aloud.
func TestSoakVerdict(t *testing.T) {
	tests := []struct {
		s    soak
		want string
	}{
		{soak{Answered: 60, Warm: 6, Intents: 99, Outcomes: 99}, "Every call that was begun was closed."},
		{soak{Answered: 60, Warm: 6, Intents: 99, Outcomes: 66}, "**33 calls were begun and never closed.**"},
		{soak{Answered: 60, Warm: 6, Intents: 65, Outcomes: 65}, "**Answered calls are missing.**"},
	}
	for _, tt := range tests {
		var b strings.Builder
		if tt.s.print(&b); !strings.Contains(b.String(), tt.want) {
			t.Errorf("%+v is said to be\n%s\nwant %s", tt.s, b.String(), tt.want)
		}
	}
}
