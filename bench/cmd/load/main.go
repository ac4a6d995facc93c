// Command load calls an OpenAI-compatible server on loopback and prints as JSON how fast it answered and what its
// process used. One goroutine drives each connection; requests are prepared bytes and answers are parsed by hand, so
// that the generator costs little on a machine that it shares with what it measures. No two requests are the same.
//
// In the closed loop each connection sends as soon as its last answer ended. With -rate the connections together send so
// many requests a second, and a request that starts late because its connection was still busy is timed from when it
// should have started (no coordinated omission).
//
// It runs for -warmup and -d, or -n calls, and no call takes longer than 30 seconds.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/bench/internal/measure"
)

// An order is what the flags say.
type order struct {
	target  *url.URL
	conns   int
	warm, d time.Duration
	rate    float64
	size    int
	fresh   string
	stream  bool
	abort   int
	most    int64
	pid     int
	headers []string
}

// A result is what is printed.
type result struct {
	Requests  int              `json:"requests"` // answered within the measured time
	Aborted   int64            `json:"aborted"`
	Errors    int64            `json:"errors"`
	FirstErr  string           `json:"first_error,omitempty"`
	PerSecond float64          `json:"req_per_s"`
	Bytes     int              `json:"body_bytes"`
	Total     measure.Latency  `json:"total"`
	Chunk     *measure.Latency `json:"chunk,omitempty"` // upstream's write to our read, of each event
	CPU       float64          `json:"cpu_us_per_req,omitempty"`
	RSS       int64            `json:"rss_bytes,omitempty"`
}

func main() {
	var o order
	target := flag.String("url", "http://127.0.0.1:9000/v1/chat/completions", "loopback `URL` to POST to")
	flag.IntVar(&o.conns, "c", 1, "connections")
	flag.DurationVar(&o.d, "d", 3*time.Second, "measured time")
	flag.DurationVar(&o.warm, "warmup", 500*time.Millisecond, "unmeasured time before it")
	flag.Float64Var(&o.rate, "rate", 0, "requests a second of all connections; 0 for the closed loop")
	flag.IntVar(&o.size, "bytes", 1024, "bytes of a request body, about")
	flag.StringVar(&o.fresh, "fresh", "turn", "what is new in each request: turn (the last message) or all (every message)")
	flag.BoolVar(&o.stream, "stream", false, "ask for streams")
	flag.IntVar(&o.abort, "abort", 0, "hang up in the middle of every `N`th call")
	flag.Int64Var(&o.most, "n", 0, "stop after so many calls; 0 for no limit")
	flag.IntVar(&o.pid, "pid", 0, "process whose CPU time and memory to report")
	flag.Func("H", "further `header`, may be repeated", func(s string) error { o.headers = append(o.headers, s); return nil })
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r, err := run(ctx, &o, *target)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// loopback parses a URL and refuses any that leads off this machine.
func loopback(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme != "http" || ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("%s is not http:// and a loopback address: nothing else is loaded", s)
	}
	return u, nil
}

func run(ctx context.Context, o *order, target string) (*result, error) {
	var err error
	if o.target, err = loopback(target); err != nil {
		return nil, err
	}
	if o.conns < 1 || o.conns > 10_000 {
		return nil, errors.New("-c is not between 1 and 10000")
	}
	var calls atomic.Int64
	begin := time.Now()
	from, until := begin.Add(o.warm), begin.Add(o.warm+o.d)
	workers := make([]*worker, o.conns)
	for i := range workers {
		if workers[i], err = newWorker(o, i); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { w.loop(ctx, pace(o, i, begin), from, &calls) })
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	time.Sleep(time.Until(from))
	start := time.Now()
	cpu0, _ := measure.CPU(o.pid)
	select {
	case <-ctx.Done():
	case <-ended:
	}
	elapsed := time.Since(start)
	cpu1, _ := measure.CPU(o.pid)
	rss, _ := measure.RSS(o.pid)
	<-ended

	r := &result{Bytes: len(workers[0].body())}
	var total, chunk []time.Duration
	for _, w := range workers {
		total, chunk = append(total, w.total...), append(chunk, w.chunk...)
		r.Aborted += w.aborted
		r.Errors += w.errors
		if r.FirstErr == "" && w.first != nil {
			r.FirstErr = w.first.Error()
		}
	}
	r.Requests, r.Total = len(total), measure.LatencyOf(total)
	r.PerSecond = float64(len(total)) / elapsed.Seconds()
	if o.stream {
		l := measure.LatencyOf(chunk)
		r.Chunk = &l
	}
	if o.pid > 0 && len(total) > 0 {
		r.CPU, r.RSS = float64((cpu1-cpu0).Microseconds())/float64(len(total)), rss
	}
	return r, nil
}

// pace gives the times at which connection i is to send; nil means as soon as it can.
func pace(o *order, i int, begin time.Time) func() time.Time {
	if o.rate <= 0 {
		return nil
	}
	step := time.Duration(float64(time.Second) * float64(o.conns) / o.rate)
	next := begin.Add(step * time.Duration(i) / time.Duration(o.conns))
	return func() time.Time {
		t := next
		next = next.Add(step)
		return t
	}
}
