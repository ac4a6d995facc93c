// Command ledgerbench compares Fairlead's ledger with the least that durability can cost, and with a Tessera POSIX log,
// in interleaved pairs on one file system. See bench/README.md.
//
// It measures for at most pairs × (contenders × writers) × (warm-up + duration), plus verifying, and stops at -timeout.
// Its folders are made below -dir and removed again.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/bench/internal/appender"
	"github.com/fairleadhq/fairlead/bench/internal/measure"
)

// A plan is what the flags say.
type plan struct {
	pairs        int
	writers      []int
	warm, d      time.Duration
	dir          string
	tessera      string // program, or "" for none
	verifyEvents int
	verifyRuns   int
}

// A row is what one contender did with one number of writers, run by run.
type row struct {
	Contender string            `json:"contender"`
	Writers   int               `json:"writers"`
	Runs      []appender.Result `json:"runs"`
}

// A report is all of it.
type report struct {
	Machine measure.Machine `json:"machine"`
	Rows    []row           `json:"rows"`
	Verify  rates           `json:"verify_events_per_s"`
	Notes   []string        `json:"notes,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "ledgerbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var p plan
	flag.IntVar(&p.pairs, "pairs", 9, "interleaved repetitions")
	writers := flag.String("writers", "1,64,512", "numbers of writers, with commas")
	flag.DurationVar(&p.warm, "warmup", 300*time.Millisecond, "unmeasured time before each run")
	flag.DurationVar(&p.d, "d", 2*time.Second, "measured time of each run")
	flag.StringVar(&p.dir, "dir", "", "`folder` on the file system to measure (the system's temporary folder by default)")
	peers := flag.String("tessera", "build", "the Tessera peer: build, skip or the `path` of its program")
	flag.IntVar(&p.verifyEvents, "verify-events", 300_000, "events of the log that is verified; 0 for none")
	flag.IntVar(&p.verifyRuns, "verify-runs", 5, "how often it is verified")
	asJSON := flag.Bool("json", false, "print every run as JSON instead of tables")
	timeout := flag.Duration("timeout", time.Hour, "give up after this time")
	flag.Parse()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	for s := range strings.SplitSeq(*writers, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 100_000 {
			return fmt.Errorf("-writers: %q is not a number of writers", s)
		}
		p.writers = append(p.writers, n)
	}
	dir, err := os.MkdirTemp(p.dir, "fairlead-ledgerbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p.dir = dir
	rep := report{Machine: measure.ThisMachine()}
	if p.tessera, err = tesseraProgram(ctx, *peers, dir); err != nil {
		p.tessera = ""
		rep.Notes = append(rep.Notes, "Tessera was left out: "+firstLine(err.Error()))
	}
	if err := p.measure(ctx, &rep); err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(rep)
	}
	return rep.print(os.Stdout)
}

// measure runs the rounds and then verifies. In every other round the contenders run in reverse, so that none of them
// always follows the same one.
func (p *plan) measure(ctx context.Context, rep *report) error {
	rows := map[string]*row{}
	var order []string
	for round := range p.pairs {
		for _, w := range p.writers {
			cs := p.contenders(w)
			for i := range cs {
				c := cs[i]
				if round%2 == 1 {
					c = cs[len(cs)-1-i]
				}
				r, err := p.once(ctx, c, w)
				if err != nil {
					return fmt.Errorf("%s with %d writers: %w", c.name, w, err)
				}
				key := fmt.Sprint(c.name, w)
				if rows[key] == nil {
					rows[key] = &row{Contender: c.name, Writers: w}
				}
				rows[key].Runs = append(rows[key].Runs, r)
			}
			if round == 0 {
				for _, c := range cs {
					order = append(order, fmt.Sprint(c.name, w))
				}
			}
			fmt.Fprintf(os.Stderr, "round %d of %d, %d writers\n", round+1, p.pairs, w)
		}
	}
	for _, key := range order {
		rep.Rows = append(rep.Rows, *rows[key])
	}
	if p.verifyEvents > 0 {
		var err error
		rep.Verify, err = p.verify(ctx)
		return err
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
