package identity

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/fairleadhq/fairlead"
)

func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Failures
		if _, ok := f.Drain(); ok {
			t.Error("a summary of nothing")
		}
		f.Add(ReasonUnknownKey, "10.0.0.1")
		s, ok := f.Drain()
		if !ok || s.Total != 1 {
			t.Fatalf("the first failure is not reported at once: %+v, %v", s, ok)
		}
		start := time.Now().UTC()
		for i := range 5000 {
			f.Add(ReasonRevokedKey, fmt.Sprint("10.0.0.", i%7))
		}
		time.Sleep(59 * time.Second)
		f.Add("made up", "10.0.0.1")
		if _, ok := f.Drain(); ok {
			t.Error("two summaries within a minute")
		}
		time.Sleep(time.Second)
		s, ok = f.Drain()
		if !ok {
			t.Fatal("no summary after a minute")
		}
		want := []fairlead.Attr{
			{Name: AttrFailures, Value: int64(5001)},
			{Name: AttrSources, Value: int64(7)},
			{Name: AttrFirstFailure, Value: "2000-01-01T00:00:00.000000Z"},
			{Name: AttrLastFailure, Value: "2000-01-01T00:00:59.000000Z"},
			{Name: "fairlead.auth.failures.revoked_key", Value: int64(5000)},
			{Name: "fairlead.auth.failures.other", Value: int64(1)},
		}
		if diff := cmp.Diff(want, s.Attrs()); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
		if !s.First.Equal(start) || s.Count(ReasonRevokedKey) != 5000 || s.Count(ReasonUnknownKey) != 0 {
			t.Errorf("summary %+v", s)
		}
		f.Add(ReasonNoCredential, "x")
		if s, ok := f.Flush(); !ok || s.Total != 1 {
			t.Errorf("Flush: %+v, %v", s, ok)
		}
		if _, ok := f.Flush(); ok {
			t.Error("Flush gave the same twice")
		}
	})
}

func TestSourcesEstimate(t *testing.T) {
	for _, n := range []int{1, 10, 100, 1000, 3000, 10_000, 300_000} {
		f := Failures{}
		for i := range n {
			f.Add(ReasonUnknownKey, fmt.Sprint(i))
		}
		s, _ := f.Flush()
		// Five standard errors: the seed is random, and the test must not fail one time in twenty.
		if off := math.Abs(float64(s.Sources)-float64(n)) / float64(n); off > 5*0.0325 {
			t.Errorf("%d sources are estimated as %d", n, s.Sources)
		}
	}
	if size := unsafe.Sizeof(Failures{}); size > 1500 {
		t.Errorf("Failures takes %d bytes", size)
	}
}

// TestReasonsAreListed finds a reason that would be counted as "other".
func TestReasonsAreListed(t *testing.T) {
	seen := map[Reason]bool{}
	for _, r := range reasons {
		if seen[r] || r == "" {
			t.Errorf("reason %q stands twice or is empty", r)
		}
		seen[r] = true
	}
	for _, e := range []*Error{ErrMalformedKey, ErrUnknownKey, ErrRevokedKey, ErrExpiredKey, errSeveralKeys} {
		if !seen[e.Reason] {
			t.Errorf("reason %q is not counted", e.Reason)
		}
	}
}
