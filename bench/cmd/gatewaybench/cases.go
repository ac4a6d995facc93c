package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/bench/internal/measure"
	"github.com/fairleadhq/fairlead/bench/internal/rig"
)

// chunksPerStream is the mock's -chunks.
const chunksPerStream = 50

// A benchCase is a way to call.
type benchCase struct {
	name   string
	args   []string // for load
	stream bool
	quiet  bool // the load is far from saturation: latency is the gateway's own
}

var cases = []benchCase{
	{name: "1 KB, 1 connection", args: []string{"-c", "1"}},
	{name: "1 KB, 16 connections", args: []string{"-c", "16"}},
	{name: "1 KB, 64 connections", args: []string{"-c", "64"}},
	{name: "30 KB conversation resent, 64 connections", args: []string{"-c", "64", "-bytes", "30720", "-warmup", "3s"}},
	{name: "30 KB never seen, 64 connections", args: []string{"-c", "64", "-bytes", "30720", "-fresh", "all"}},
	{name: "1 KB, 300 calls/s", args: []string{"-c", "16", "-rate", "300"}, quiet: true},
	{name: "stream, 1 connection", args: []string{"-c", "1", "-stream"}, stream: true},
	{name: "stream, 16 connections", args: []string{"-c", "16", "-stream"}, stream: true},
}

func (c benchCase) wanted(only string) bool { return strings.Contains(c.name, only) }

// A loaded is what load prints.
type loaded struct {
	Requests  int              `json:"requests"`
	Aborted   int64            `json:"aborted"`
	Errors    int64            `json:"errors"`
	FirstErr  string           `json:"first_error"`
	PerSecond float64          `json:"req_per_s"`
	Total     measure.Latency  `json:"total"`
	Chunk     *measure.Latency `json:"chunk"`
	CPU       float64          `json:"cpu_us_per_req"`
	RSS       int64            `json:"rss_bytes"`
}

// load runs one case on one target. A target that fails calls has a result, too.
func (p *plan) load(ctx context.Context, f *field, t target, c benchCase, more ...string) (*loaded, error) {
	args := append([]string{"-url", t.url, "-pid", strconv.Itoa(t.pid), "-d", p.d.String(), "-warmup", p.warm.String()}, c.args...)
	for _, h := range t.headers {
		args = append(args, "-H", h)
	}
	out, err := rig.Command(ctx, p.core, filepath.Join(p.dir, "load"), append(args, more...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, err
	}
	var r loaded
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("reading what load printed: %w", err)
	}
	return &r, nil
}

// A row is one case on one target, round by round.
type row struct {
	Case   string    `json:"case"`
	Target string    `json:"target"`
	Runs   []*loaded `json:"runs"`

	shape benchCase
}

func (rep *report) add(c benchCase, t target, r *loaded) {
	x := rep.find(c.name, t.name)
	if x == nil {
		x = &row{Case: c.name, Target: t.name, shape: c}
		rep.Rows = append(rep.Rows, x)
	}
	x.Runs = append(x.Runs, r)
}

func (rep *report) find(name, target string) *row {
	for _, r := range rep.Rows {
		if r.Case == name && r.Target == target {
			return r
		}
	}
	return nil
}

// failed says why the target's figures are none, or "".
func (r *row) failed() string {
	for _, run := range r.Runs {
		if run.Errors > 0 || run.Requests == 0 {
			return fmt.Sprintf("%d of %d calls failed: %s", run.Errors, run.Errors+int64(run.Requests), run.FirstErr)
		}
	}
	return ""
}

// column gives one figure of every run; of a nil row there is none.
func (r *row) column(f func(*loaded) float64) []float64 {
	if r == nil {
		return nil
	}
	var out []float64
	for _, run := range r.Runs {
		out = append(out, f(run))
	}
	return out
}
