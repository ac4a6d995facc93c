package appender

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/bench/internal/measure"
)

// A Result is what one contender did in one run.
type Result struct {
	Events  int64           `json:"events"`
	Rate    float64         `json:"events_per_s"`
	CPU     float64         `json:"cpu_us_per_event"` // of the whole process, the writers' own work included; 0 when unknown
	Latency measure.Latency `json:"latency"`
}

// Run lets writers append to c for the time warm, which does not count, and then for the time d.
func Run(ctx context.Context, c Contender, writers int, warm, d time.Duration) (Result, error) {
	runtime.GC()
	ctx, cancel := context.WithTimeout(ctx, warm+d+30*time.Second)
	defer cancel()
	var (
		counting, stop atomic.Bool
		wg             sync.WaitGroup
		latencies      = make([][]time.Duration, writers)
		errs           = make([]error, writers)
	)
	for w := range writers {
		wg.Go(func() {
			s := newSource(w, c.NewID)
			for !stop.Load() {
				f := s.next()
				start := time.Now()
				if errs[w] = c.Append(ctx, f); errs[w] != nil {
					return
				}
				if counting.Load() {
					latencies[w] = append(latencies[w], time.Since(start))
				}
			}
		})
	}
	time.Sleep(warm)
	cpu0, _ := measure.OwnCPU()
	counting.Store(true)
	start := time.Now()
	time.Sleep(d)
	counting.Store(false)
	elapsed := time.Since(start)
	cpu1, _ := measure.OwnCPU()
	stop.Store(true)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return Result{}, err
	}
	var all []time.Duration
	for _, l := range latencies {
		all = append(all, l...)
	}
	if len(all) == 0 {
		return Result{}, errors.New("not one event became durable: give it more time")
	}
	n := int64(len(all))
	return Result{
		Events:  n,
		Rate:    float64(n) / elapsed.Seconds(),
		CPU:     float64((cpu1 - cpu0).Nanoseconds()) / 1e3 / float64(n),
		Latency: measure.LatencyOf(all),
	}, nil
}
