package appender

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/bench/internal/measure"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/verify"
)

// perScope is how many events share a key scope: a conversation of ten calls.
const perScope = 20

// Fill makes a new ledger below dir with so many events. With sealed each refers to a sealed blob of its own, whose
// original has 400 bytes; without it the events refer to no content.
func Fill(ctx context.Context, dir string, events int, sealed bool) (err error) {
	c, err := OpenLedger(dir)
	if err != nil {
		return err
	}
	defer func() {
		if e := c.Close(); err == nil {
			err = e
		}
	}()
	vault := c.l.Vault()
	app, err := vault.AppScope(ctx, fairlead.DefaultTenant, "bench")
	if err != nil {
		return err
	}
	s := newSource(0, c.NewID)
	var scope *ledger.Scope
	for i := range events {
		f := s.next()
		f.Content = nil
		var blobs []*ledger.Blob
		if sealed {
			if i%perScope == 0 {
				if scope, err = vault.NewScope(app); err != nil {
					return err
				}
			}
			name := [2]string{"request", "response"}[i%2]
			blobs = vault.Seal(scope, name, fmt.Appendf(nil, `{"n":%d,"content":"%0384x"}`, i, i), nil, nil)
		}
		if _, err := c.l.Send(ctx, f, blobs...); err != nil {
			return err
		}
	}
	return c.l.Flush(ctx)
}

// Verify verifies the ledger that [Fill] made below dir, on one core, and gives the rate in events per second of CPU time
// (of time, where the system does not tell), which neighbours do not change. A ledger that does not verify is an error.
func Verify(ctx context.Context, dir string) (rate float64, err error) {
	r, err := ledger.OpenReader(filepath.Join(dir, "data"), "")
	if err != nil {
		return 0, err
	}
	defer r.Close()
	text, _, err := r.VerifierKeys()
	if err != nil {
		return 0, err
	}
	keys, err := verify.ParseKeys(text)
	if err != nil {
		return 0, err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	runtime.GC()
	start := time.Now()
	cpu0, cpuErr := measure.OwnCPU()
	report, err := verify.Log(ctx, r.Inspect(), keys, verify.LogOptions{})
	if err != nil {
		return 0, err
	}
	elapsed := time.Since(start)
	if cpu1, err := measure.OwnCPU(); cpuErr == nil && err == nil {
		elapsed = cpu1 - cpu0
	}
	if !report.OK() {
		return 0, fmt.Errorf("the ledger does not verify: %s", report.Problems[0])
	}
	return float64(report.Events) / elapsed.Seconds(), nil
}
