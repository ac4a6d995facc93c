package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/tlog"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func config(t testing.TB) Config {
	return Config{Dir: filepath.Join(t.TempDir(), "data"), Keys: filepath.Join(t.TempDir(), "keys"), Log: quiet}
}

func open(t testing.TB, c Config) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func fact(n int) *fairlead.Fact {
	return &fairlead.Fact{Kind: fairlead.KindConfig, Attrs: []fairlead.Attr{{Name: "n", Value: int64(n)}}}
}

// appendMany records n facts from several goroutines.
func appendMany(t testing.TB, l *Ledger, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				if _, err := l.Append(context.Background(), fact(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestTreeIsTheStandardOne compares our tree, grown in arbitrary batches over tile boundaries and reopenings, with
// golang.org/x/mod/sumdb/tlog's.
func TestTreeIsTheStandardOne(t *testing.T) {
	c := config(t)
	total := 0
	for _, n := range []int{3, 252, 1, 700, 66000} {
		if testing.Short() && n > 1000 {
			continue
		}
		l := open(t, c)
		appendMany(t, l, n)
		total += n + 1 // ledger.opened
		size, root, err := l.Head(t.Context())
		if err != nil || size != int64(total) {
			t.Fatalf("size %d, %v; want %d", size, err, total)
		}
		var hashes []tlog.Hash
		reader := tlog.HashReaderFunc(func(ix []int64) ([]tlog.Hash, error) {
			out := make([]tlog.Hash, len(ix))
			for i, x := range ix {
				out[i] = hashes[x]
			}
			return out, nil
		})
		err = l.Events(t.Context(), 0, func(seq int64, e []byte) error {
			data := verify.LeafData(e)
			add, err := tlog.StoredHashes(seq, data[:], reader)
			hashes = append(hashes, add...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		want, err := tlog.TreeHash(size, reader)
		if err != nil || want != root {
			t.Fatalf("root of %d events is not the standard tree's (%v)", size, err)
		}
		if got, err := tlog.TreeHash(size/2, verify.TileReader(l.Tile)); err != nil {
			t.Fatal(err)
		} else if want, _ := tlog.TreeHash(size/2, reader); got != want {
			t.Fatalf("the root of the first %d events, from tiles, is not the standard tree's", size/2)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProofs(t *testing.T) {
	l := open(t, config(t))
	appendMany(t, l, 600)
	if err := l.SignNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, trusted, err := l.VerifierKeys()
	if err != nil || !trusted {
		t.Fatal(err)
	}
	keys, err := verify.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range []int64{0, 1, 255, 256, 511, 600} {
		p, err := l.Prove(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := verify.ParseProof(p.Format())
		if err != nil {
			t.Fatal(err)
		}
		env, cp, err := parsed.Check(keys)
		if err != nil || cp.Size != 601 || len(cp.Signers) != 2 {
			t.Fatalf("proof of %d: %v %+v", seq, err, cp)
		}
		if seq > 0 && env.Kind != fairlead.KindConfig {
			t.Fatalf("the proof of %d shows a %s", seq, env.Kind)
		}
		parsed.Index ^= 1
		if _, _, err := parsed.Check(keys); err == nil {
			t.Fatal("a proof for another place was accepted")
		}
	}
}

// TestCommitsThatLie makes every commit of a run fail in both ways, once before it took effect and once after, and
// checks that nobody is told the wrong thing and that the log stays whole.
func TestCommitsThatLie(t *testing.T) {
	for _, point := range []string{"before", "after"} {
		t.Run(point, func(t *testing.T) {
			c := config(t)
			c.Checkpoint = time.Hour
			var armed atomic.Bool
			c.Fault = func(p string) error {
				if p == point && armed.CompareAndSwap(true, false) {
					return errors.New("injected")
				}
				return nil
			}
			l := open(t, c)
			acked := map[int64]string{}
			failed := 0
			for i := range 200 {
				armed.Store(i%3 == 0)
				f := fact(i)
				seq, err := l.Append(t.Context(), f)
				switch {
				case err == nil:
					acked[seq] = f.ID.String()
				case point == "after":
					t.Fatalf("fact %d is on disk, but its append failed: %v", i, err)
				default:
					failed++
				}
			}
			if point == "before" && failed < 60 {
				t.Fatalf("only %d appends failed: the faults were not injected", failed)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			c.Fault = nil
			l = open(t, c)
			err := l.Events(t.Context(), 0, func(seq int64, b []byte) error {
				e, err := verify.ParseEnvelope(b)
				if err != nil {
					return err
				}
				if e.Kind == fairlead.KindConfig && acked[seq] != e.ID.String() {
					return fmt.Errorf("event %d is %s, its writer was told otherwise (%q)", seq, e.ID, acked[seq])
				}
				delete(acked, seq)
				return nil
			})
			if err != nil || len(acked) != 0 {
				t.Fatalf("%v; %d acknowledged facts are missing", err, len(acked))
			}
		})
	}
}

func TestDiskFull(t *testing.T) {
	l := open(t, config(t))
	pages := func(n int) {
		if err := setPages(l, n); err != nil {
			t.Fatal(err)
		}
	}
	pages(64)
	big := bytes.Repeat([]byte("0123456789abcdef"), 100)
	app, err := l.Vault().AppScope(t.Context(), "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	acked := 0
	var full error
	for range 1000 {
		rand.NewChaCha8([32]byte{byte(acked)}).Read(big)
		if _, err := l.Append(t.Context(), fact(acked), l.Vault().Seal(app, "request", big, nil, nil)...); err != nil {
			full = err
			break
		}
		acked++
	}
	if full == nil || !strings.Contains(full.Error(), "full") {
		t.Fatalf("the disk never filled up: %v", full)
	}
	pages(1 << 20) // room again; the connection was replaced meanwhile
	seq, err := l.Append(t.Context(), fact(acked))
	if err != nil || seq != int64(acked)+1 {
		t.Fatalf("after there was room: event %d, %v; want %d", seq, err, acked+1)
	}
}

func TestFolderInUse(t *testing.T) {
	c := config(t)
	open(t, c)
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second process opened the folder: %v", err)
	}
}

func TestRestoredBackupDoesNotFork(t *testing.T) {
	c := config(t)
	l := open(t, c)
	appendMany(t, l, 10)
	l.Close()
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(c.Dir)); err != nil {
		t.Fatal(err)
	}
	l = open(t, c)
	appendMany(t, l, 10)
	l.Close()
	c.Dir = backup
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrFork) {
		t.Fatalf("the backup was opened for writing: %v", err)
	}
	if r, err := OpenReader(backup, c.Keys); err != nil {
		t.Fatalf("the backup cannot be read either: %v", err)
	} else {
		r.Close()
	}
}

func TestDeadCallsGetAnOutcome(t *testing.T) {
	c := config(t)
	l := open(t, c)
	var intents []fairlead.ID
	for range 5 {
		f := &fairlead.Fact{Kind: fairlead.KindCallIntent}
		if _, err := l.Append(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		intents = append(intents, f.ID)
	}
	done := &fairlead.Fact{Kind: fairlead.KindCallOutcome, Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: intents[2], Assurance: fairlead.Derived}}}
	if _, err := l.Append(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	l.Close()
	for round := range 2 {
		l = open(t, c)
		got := map[string]int{}
		l.Events(t.Context(), 0, func(_ int64, b []byte) error {
			e, _ := verify.ParseEnvelope(b)
			if e.Kind == fairlead.KindCallOutcome && e.Text("fairlead.outcome") == "unknown" {
				got[e.Link(fairlead.RelCompletes).String()]++
			}
			return nil
		})
		if len(got) != 4 || got[intents[2].String()] != 0 || got[intents[0].String()] != 1 {
			t.Fatalf("round %d: outcomes unknown: %v", round, got)
		}
		l.Close()
	}
}

func TestClockGoingBackIsAFact(t *testing.T) {
	c := config(t)
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	c.Now = func() time.Time { return now }
	l := open(t, c)
	appendMany(t, l, 3)
	now = now.Add(-time.Hour)
	appendMany(t, l, 1)
	found := false
	err := l.Events(t.Context(), 0, func(_ int64, b []byte) error {
		e, err := verify.ParseEnvelope(b)
		found = found || err == nil && e.Kind == fairlead.KindClock && e.Int("fairlead.clock.back_us") == time.Hour.Microseconds()
		return err
	})
	if err != nil || !found {
		t.Fatalf("the clock went back an hour and the log does not say so (%v)", err)
	}
}

func setPages(l *Ledger, n int) error {
	return l.do(context.Background(), func(*sqlite.Conn) error {
		return sqlitex.ExecuteTransient(l.db.Writer(), fmt.Sprintf("pragma max_page_count=%d", n), nil)
	})
}

// TestTenantStays: who opens the folder without a configuration, to make a key for instance, records under its tenant.
func TestTenantStays(t *testing.T) {
	c := config(t)
	for i, tenant := range []string{"acme", "", "other", ""} {
		c.Tenant = tenant
		l := open(t, c)
		f := fact(i)
		if _, err := l.Append(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if want := []string{"acme", "acme", "other", "other"}[i]; f.Tenant != want {
			t.Errorf("opened for %q: recorded under %q, want %q", tenant, f.Tenant, want)
		}
		l.Close()
	}
}
