// Command gatewaybench puts Fairlead, with everything on, next to a minimal pass-through and next to Portkey's gateway
// from npm, in interleaved rounds against the same mock upstream on loopback. See bench/README.md.
//
// It builds and starts what it needs, writes only below -dir, and ends everything that it started. It measures for
// about rounds × cases × targets × (warm-up + duration), and stops at -timeout.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/fairleadhq/fairlead/bench/internal/appender"
	"github.com/fairleadhq/fairlead/bench/internal/measure"
)

// A plan is what the flags say.
type plan struct {
	rounds            int
	warm, d           time.Duration
	only              string
	portkey, program  string
	soak              int64
	settle            time.Duration
	gatewayCore, core int
	procs             int
	dir               string // where everything is
}

// A report is what is printed.
type report struct {
	Machine measure.Machine `json:"machine"`
	Pinned  bool            `json:"pinned"`
	Procs   int             `json:"gomaxprocs,omitempty"` // of fairlead and the floor, where it was set
	Rows    []*row          `json:"rows"`
	Commit  []float64       `json:"commit_p50_us"`   // one event at a time through the ledger, round by round
	Append  []float64       `json:"raw_sync_p50_us"` // and through a plain file with fdatasync
	Soak    *soak           `json:"soak,omitempty"`
	Notes   []string        `json:"notes,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var p plan
	flag.IntVar(&p.rounds, "rounds", 9, "interleaved repetitions")
	flag.DurationVar(&p.d, "d", 2*time.Second, "measured time of each run")
	flag.DurationVar(&p.warm, "warmup", 500*time.Millisecond, "unmeasured time before each run")
	flag.StringVar(&p.only, "only", "", "measure only the cases whose name contains this `text`")
	flag.StringVar(&p.portkey, "portkey", "install", "Portkey's gateway: install (from npm), skip, or the `folder` of the package")
	flag.StringVar(&p.program, "fairlead", "", "the fairlead `program` (built from this tree by default)")
	flag.Int64Var(&p.soak, "soak", 100_000, "calls after which memory and goroutines must have returned, a third of them aborted; 0 for none")
	flag.DurationVar(&p.settle, "settle", 3*time.Minute, "how long they may take to return")
	flag.IntVar(&p.gatewayCore, "gateway-core", 1, "processor of the gateways; -1 for any")
	flag.IntVar(&p.core, "load-core", 0, "processor of the load generator and the mock upstream; -1 for any")
	flag.IntVar(&p.procs, "gomaxprocs", 0, "GOMAXPROCS of fairlead and the floor; 0 for Go's own choice, which is 1 when pinned")
	dir := flag.String("dir", "", "`folder` to work in (the system's temporary folder by default)")
	asJSON := flag.Bool("json", false, "print every run as JSON instead of tables")
	timeout := flag.Duration("timeout", time.Hour, "give up after this time")
	flag.Parse()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	rep, err := p.run(ctx, *dir)
	if err == nil {
		if *asJSON {
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "  ")
			err = e.Encode(rep)
		} else {
			err = rep.print(os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gatewaybench:", err)
		os.Exit(1)
	}
}

func (p *plan) run(ctx context.Context, dir string) (*report, error) {
	if runtime.NumCPU() <= max(p.core, p.gatewayCore) {
		return nil, fmt.Errorf("there are only %d processors: say where to pin with -gateway-core and -load-core, -1 for anywhere", runtime.NumCPU())
	}
	dir, err := os.MkdirTemp(dir, "fairlead-gatewaybench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p.dir = dir
	rep := &report{Machine: measure.ThisMachine(), Procs: p.procs}
	// Everything that is started ends with this context, before the folder goes.
	ctx, cancel := context.WithCancel(ctx)
	field, err := p.start(ctx, rep)
	defer field.stop()
	defer cancel()
	if err != nil {
		return nil, err
	}
	for round := range p.rounds {
		if err := p.round(ctx, field, rep, round); err != nil {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, p.rounds)
	}
	if p.soak > 0 {
		if rep.Soak, err = p.soaked(ctx, field); err != nil {
			return nil, fmt.Errorf("the soak: %w", err)
		}
	}
	return rep, nil
}

// round runs every case on every target, in reverse order every other time, and looks what a commit costs right now.
func (p *plan) round(ctx context.Context, f *field, rep *report, round int) error {
	for _, c := range cases {
		if !c.wanted(p.only) {
			continue
		}
		for i := range f.targets {
			t := f.targets[i]
			if round%2 == 1 {
				t = f.targets[len(f.targets)-1-i]
			}
			r, err := p.load(ctx, f, t, c)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", t.name, c.name, err)
			}
			rep.add(c, t, r)
		}
	}
	ledger, err := p.commit(ctx, func(dir string) (appender.Contender, error) { return appender.OpenLedger(dir) })
	if err != nil {
		return err
	}
	raw, err := p.commit(ctx, func(dir string) (appender.Contender, error) { return appender.OpenRaw(dir, false) })
	rep.Commit, rep.Append = append(rep.Commit, ledger), append(rep.Append, raw)
	return err
}

// commit gives the median time that one event at a time takes to become durable, in microseconds.
func (p *plan) commit(ctx context.Context, open func(dir string) (appender.Contender, error)) (float64, error) {
	dir, err := os.MkdirTemp(p.dir, "commit-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	c, err := open(dir)
	if err != nil {
		return 0, err
	}
	r, err := appender.Run(ctx, c, 1, 100*time.Millisecond, 500*time.Millisecond)
	return r.Latency.P50, errors.Join(err, c.Close())
}
