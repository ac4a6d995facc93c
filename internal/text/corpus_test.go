package text

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

const corpus = "../../../shared/data/injection-train.tar.zst"

// A rate counts over one source of the corpus.
type rate struct{ rows, hits, bytes, covered int }

// TestCorpus measures Instructions on public corpora where they are present: how many planted instructions are covered
// for at least 60 %, and how much of benign documents is. The floors are loose: they catch a scanner that broke.
func TestCorpus(t *testing.T) {
	file, err := os.Open(corpus)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the corpora are not here: ../shared/data is absent")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := zstd.NewReader(file, zstd.WithDecoderMaxWindow(1<<28))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	attacks, benign := map[string]*rate{}, map[string]*rate{}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if name, ok := strings.CutSuffix(path.Base(h.Name), ".jsonl"); ok {
			measure(t, tr, name, attacks, benign)
		}
	}
	report(t, "planted instructions covered", attacks)
	report(t, "benign documents with a span", benign)
	for source, floor := range map[string]float64{"injecagent": .9, "asb": .9, "piarena_inj": .6} {
		if r := attacks[source]; r == nil || float64(r.hits) < floor*float64(r.rows) {
			t.Errorf("%s: fewer than %.0f %% covered", source, 100*floor)
		}
	}
	for source, ceiling := range map[string]float64{"xquad_ctx": .05, "tau_bench": .05} {
		if r := benign[source]; r == nil || float64(r.covered) > ceiling*float64(r.bytes) {
			t.Errorf("%s: more than %.0f %% of the bytes covered", source, 100*ceiling)
		}
	}
}

func measure(t *testing.T, r io.Reader, source string, attacks, benign map[string]*rate) {
	for dec := json.NewDecoder(r); ; {
		var row struct{ Kind, Channel, Text, Payload string }
		if err := dec.Decode(&row); err == io.EOF {
			return
		} else if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		to := benign
		switch {
		case row.Kind == "indirect_injection" && row.Payload != "":
			to = attacks
		case row.Channel != "data" || !strings.HasSuffix(row.Kind, "benign"):
			continue
		}
		if to[source] == nil {
			to[source] = new(rate)
		}
		c := to[source]
		c.rows++
		start, end := 0, len(row.Text)
		if row.Payload != "" {
			if start = strings.Index(row.Text, row.Payload); start < 0 {
				row.Text, start = row.Payload, 0
			}
			end = start + len(row.Payload)
		}
		n := 0
		for _, sp := range Instructions(row.Text) {
			n += max(0, min(sp.End, end)-max(sp.Start, start))
		}
		c.bytes, c.covered = c.bytes+end-start, c.covered+n
		if row.Payload == "" && n > 0 || row.Payload != "" && 10*n >= 6*(end-start) {
			c.hits++
		}
	}
}

func report(t *testing.T, title string, rates map[string]*rate) {
	t.Log(title)
	var names []string
	for name := range rates {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		r := rates[name]
		t.Logf("%-22s %5d rows %5.1f %%   %9d bytes %5.1f %%", name, r.rows, 100*float64(r.hits)/float64(r.rows),
			r.bytes, 100*float64(r.covered)/float64(max(r.bytes, 1)))
	}
}
