package ledger

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/verify"
)

var update = flag.Bool("update-golden", false, "make the data folder of this version anew: only before it is released")

// golden is a data folder, with its keys, as version 1 wrote it. Every later version has to read it and go on with it.
const golden = "testdata/golden-1"

const goldenText = `{"model":"m","messages":[{"role":"user","content":"what is kept of me?"}]}`

func makeGolden(t *testing.T) {
	if err := os.RemoveAll(golden); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), Config{Dir: filepath.Join(golden, "data"), Keys: filepath.Join(golden, "keys"), Origin: "fairlead.local/golden", Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	app, err := l.Vault().AppScope(t.Context(), "default", "golden")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 { // more than a tile
		f := &fairlead.Fact{Kind: fairlead.KindCallIntent, Attrs: []fairlead.Attr{{Name: "n", Value: int64(i)}}}
		var blobs []*Blob
		if i%10 == 0 {
			blobs = l.Vault().Seal(app, "request", []byte(goldenText), nil, []string{"u:someone", "someone@example.com"})
		}
		if _, err := l.Append(t.Context(), f, blobs...); err != nil {
			t.Fatal(err)
		}
		// The last call stays open: the next version has to close it.
		if i < 299 {
			done := &fairlead.Fact{Kind: fairlead.KindCallOutcome, Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: f.ID, Assurance: fairlead.Derived}}}
			if _, err := l.Append(t.Context(), done); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(golden, "data", lockFile))
}

func TestGoldenFolder(t *testing.T) {
	if *update {
		makeGolden(t)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	data, keys := filepath.Join(dir, "data"), filepath.Join(dir, "keys")
	check := func(want int64) {
		t.Helper()
		r, err := OpenReader(data, keys)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		text, _, err := r.VerifierKeys()
		if err != nil {
			t.Fatal(err)
		}
		k, err := verify.ParseKeys(text)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := verify.Log(context.Background(), r.Inspect(), k, verify.LogOptions{})
		if err != nil || !rep.OK() || rep.Size != want || rep.Unsigned != 0 {
			t.Fatalf("%v %+v", err, rep)
		}
		e, err := r.Fact(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		o, err := r.Vault().Open(t.Context(), e.Content[0])
		if err != nil || string(o.Body) != goldenText || len(o.Names) != 2 {
			t.Fatalf("%v: %q", err, o.Body)
		}
	}
	check(600)
	l, err := Open(t.Context(), Config{Dir: data, Keys: keys, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), fact(1)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	check(603) // opened, the open call's outcome, ours
}
