package appender

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/verify"
)

// TestFacts shows that what is measured is what the gateway writes: valid envelopes of the promised size, with each
// outcome completing its intent.
func TestFacts(t *testing.T) {
	s := newSource(3, counter())
	total := 0
	const n = 100
	var intent fairlead.ID
	for i := range n {
		f := s.next()
		b, err := encode(f)
		if err != nil {
			t.Fatal(err)
		}
		e, err := verify.ParseEnvelope(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if i%2 == 0 {
			intent = e.ID
		} else if to := e.Link(fairlead.RelCompletes); to != intent {
			t.Fatalf("outcome %d completes %v, not %v", i, to, intent)
		}
		total += len(b)
	}
	if mean := total / n; mean < 700 || mean > 780 {
		t.Errorf("an envelope has %d bytes on average, not about 750", mean)
	}
}

// TestRun drives both contenders for a moment and looks whether what they say was appended is there.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	raw, err := OpenRaw(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	led, err := OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Contender{"raw": raw, "ledger": led} {
		r, err := Run(t.Context(), c, 4, 5*time.Millisecond, 50*time.Millisecond)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.Events < 1 || r.Latency.P50 <= 0 || r.Latency.P50 > r.Latency.P99 {
			t.Errorf("%s: %+v", name, r)
		}
		stored := led.l.Size()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if name == "raw" {
			stored = rawEvents(t, filepath.Join(dir, "raw"))
		}
		if stored < r.Events {
			t.Errorf("%s counted %d events and holds %d", name, r.Events, stored)
		}
	}
}

func rawEvents(t *testing.T, path string) (n int64) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		size, k := binary.Uvarint(b)
		if k <= 0 || size > uint64(len(b)-k) {
			t.Fatalf("the file breaks off after %d events", n)
		}
		b = b[k+int(size):]
		n++
	}
	return n
}

// TestVerify makes small logs and sees them verified; one that was altered is no result.
func TestVerify(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		dir := t.TempDir()
		if err := Fill(t.Context(), dir, 600, sealed); err != nil {
			t.Fatal(err)
		}
		if rate, err := Verify(t.Context(), dir); err != nil || rate <= 0 {
			t.Errorf("sealed %v: %v, %v", sealed, rate, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "data", "ledger.db"), []byte("not a database"), 0o600); err != nil {
			t.Fatal(err)
		}
		if rate, err := Verify(t.Context(), dir); err == nil {
			t.Errorf("sealed %v: a ruined log was verified at %v events/s", sealed, rate)
		}
	}
}
