// Command tessera appends to a fresh Tessera POSIX log in a closed loop and prints what it took, for
// bench/cmd/ledgerbench to compare. It is a module of its own so that Tessera and what it needs stay out of Fairlead's.
//
// An event counts as durable when its future gives an index: Tessera has then synced, sequenced and integrated it. The
// batch size is the number of writers, so that a batch never waits for its age.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// The fields and their names are those of the result that ledgerbench reads.
type latency struct {
	P50  float64 `json:"p50_us"`
	P90  float64 `json:"p90_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
}

type result struct {
	Events  int64   `json:"events"`
	Rate    float64 `json:"events_per_s"`
	CPU     float64 `json:"cpu_us_per_event"`
	Latency latency `json:"latency"`
}

func main() {
	dir := flag.String("dir", "", "empty `folder` for the log")
	writers := flag.Int("writers", 1, "closed-loop writers")
	d := flag.Duration("d", 2*time.Second, "measured time")
	warm := flag.Duration("warmup", 200*time.Millisecond, "unmeasured time before it")
	size := flag.Int("bytes", 750, "bytes of an entry")
	flag.Parse()
	if *dir == "" || *writers < 1 || *size < 16 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), *warm+*d+30*time.Second)
	defer cancel()
	r, err := run(ctx, *dir, *writers, *size, *warm, *d)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tessera:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, writers, size int, warm, d time.Duration) (*result, error) {
	secret, _, err := note.GenerateKey(rand.Reader, "bench.example/tessera")
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, err
	}
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		return nil, err
	}
	opts := tessera.NewAppendOptions().WithCheckpointSigner(signer).
		WithBatching(uint(writers), time.Millisecond).WithCheckpointInterval(time.Second)
	log, shutdown, _, err := tessera.NewAppender(ctx, driver, opts)
	if err != nil {
		return nil, err
	}
	r, err := measure(ctx, log, writers, size, warm, d)
	// What shutdown waits for is the next checkpoint, which nobody here reads.
	stop, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return r, errors.Join(err, shutdown(stop))
}

func measure(ctx context.Context, log *tessera.Appender, writers, size int, warm, d time.Duration) (*result, error) {
	runtime.GC()
	var (
		counting, stop atomic.Bool
		wg             sync.WaitGroup
		latencies      = make([][]time.Duration, writers)
		errs           = make([]error, writers)
	)
	for w := range writers {
		wg.Go(func() {
			for !stop.Load() {
				data := make([]byte, size)
				rand.Read(data)
				start := time.Now()
				if _, errs[w] = log.Add(ctx, tessera.NewEntry(data))(); errs[w] != nil {
					return
				}
				if counting.Load() {
					latencies[w] = append(latencies[w], time.Since(start))
				}
			}
		})
	}
	time.Sleep(warm)
	cpu := cpuTime()
	counting.Store(true)
	start := time.Now()
	time.Sleep(d)
	counting.Store(false)
	elapsed := time.Since(start)
	cpu = cpuTime() - cpu
	stop.Store(true)
	wg.Wait()
	all := slices.Concat(latencies...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("not one entry became durable: give it more time")
	}
	slices.Sort(all)
	us := func(p float64) float64 {
		return float64(all[max(int(math.Ceil(p*float64(len(all)))), 1)-1]) / 1e3
	}
	n := float64(len(all))
	return &result{int64(len(all)), n / elapsed.Seconds(), float64(cpu.Nanoseconds()) / 1e3 / n, latency{us(.5), us(.9), us(.99), us(.999)}}, nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
