// Command policybench decides the same request by the same policies with Fairlead, with cedar-go as it is, with OPA and
// with cel-go, in one process and in turns, and prints medians. It is a module of its own so that OPA and cel-go stay out
// of Fairlead's.
//
// Half of the policies permit a group a tool in certain circumstances, half forbid a tool in others; the request is about
// the last tool, so that whoever looks at policies one after the other looks at all of them. Every contender starts from
// the caller's own form of the request: Fairlead and Cedar make their entities and context in the measured time, OPA and
// cel-go are given a map that is made beforehand, which favours them.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A contender decides the one request; decide reports whether it is allowed.
type contender struct {
	name string
	load func(n int) (decide func() (bool, error), err error)
}

func main() {
	sizes := flag.String("sizes", "100,1000,10000", "numbers of policies")
	rounds := flag.Int("rounds", 9, "rounds: every contender takes its turn in each")
	d := flag.Duration("d", 200*time.Millisecond, "time of one turn")
	flag.Parse()
	if err := run(*sizes, *rounds, *d); err != nil {
		fmt.Fprintln(os.Stderr, "policybench:", err)
		os.Exit(1)
	}
}

func run(sizes string, rounds int, d time.Duration) error {
	contenders := []contender{
		{"fairlead", loadFairlead}, {"cedar-go, unsliced", loadCedar}, {"opa", loadOPA}, {"cel-go", loadCEL},
	}
	fmt.Printf("%s, %s/%s, %d processors, %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 MST"), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	fmt.Println("| policies | contender | load ms | µs per decision | within rounds: × fairlead |\n|--:|---|--:|--:|--:|")
	for _, s := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 2 {
			return fmt.Errorf("%q is not a number of policies", s)
		}
		if err := compare(contenders, n, rounds, d); err != nil {
			return err
		}
	}
	return nil
}

func compare(contenders []contender, n, rounds int, d time.Duration) error {
	decide, loaded := make([]func() (bool, error), len(contenders)), make([]time.Duration, len(contenders))
	for i, c := range contenders {
		start := time.Now()
		var err error
		if decide[i], err = c.load(n); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		loaded[i] = time.Since(start)
	}
	times, ratios := make([][]float64, len(contenders)), make([][]float64, len(contenders))
	for round := range rounds {
		order := make([]int, len(contenders))
		for i := range order {
			order[i] = i
			if round%2 == 1 {
				order[i] = len(order) - 1 - i
			}
		}
		for _, i := range order {
			t, err := turn(decide[i], d)
			if err != nil {
				return fmt.Errorf("%s: %w", contenders[i].name, err)
			}
			times[i] = append(times[i], t)
		}
		for i := range contenders {
			ratios[i] = append(ratios[i], times[i][round]/times[0][round])
		}
	}
	for i, c := range contenders {
		fmt.Printf("| %d | %s | %.0f | %s | %s |\n", n, c.name, float64(loaded[i])/1e6, spread(times[i]), spread(ratios[i]))
	}
	return nil
}

// turn decides for as long as d and returns the microseconds of one decision.
func turn(decide func() (bool, error), d time.Duration) (float64, error) {
	runtime.GC()
	n, start := 0, time.Now()
	for time.Since(start) < d || n == 0 {
		for range 10 {
			ok, err := decide()
			if err != nil || !ok {
				return 0, fmt.Errorf("decided %v, %w; it has to allow", ok, err)
			}
			n++
		}
	}
	return float64(time.Since(start)) / 1e3 / float64(n), nil
}

// spread is the median and, in brackets, the range.
func spread(v []float64) string {
	s := slices.Sorted(slices.Values(v))
	return fmt.Sprintf("%.1f (%.1f–%.1f)", s[len(s)/2], s[0], s[len(s)-1])
}
