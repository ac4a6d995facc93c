package main

import (
	"context"
	"fmt"
	"os"

	"github.com/fairleadhq/fairlead/bench/internal/appender"
)

// rates are of verifying a log, in events a second on one core, run by run.
type rates struct {
	Events []float64 `json:"events"` // events that refer to no content
	Blobs  []float64 `json:"blobs"`  // events that each refer to a sealed blob
}

func (p *plan) verify(ctx context.Context) (r rates, err error) {
	for _, sealed := range []bool{false, true} {
		dir, err := os.MkdirTemp(p.dir, "verify-")
		if err != nil {
			return r, err
		}
		defer os.RemoveAll(dir)
		if err := appender.Fill(ctx, dir, p.verifyEvents, sealed); err != nil {
			return r, fmt.Errorf("making a log to verify: %w", err)
		}
		for range p.verifyRuns {
			rate, err := appender.Verify(ctx, dir)
			if err != nil {
				return r, err
			}
			if sealed {
				r.Blobs = append(r.Blobs, rate)
			} else {
				r.Events = append(r.Events, rate)
			}
		}
	}
	return r, nil
}
