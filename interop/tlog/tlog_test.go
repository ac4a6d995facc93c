// Package tlog shows that other people's code reads our log: Tessera's fsck and client, golang.org/x/mod/sumdb/tlog and
// verify/second/verify.py, all over HTTP from the same handler. It is a module of its own, so that what they depend on
// stays out of Fairlead's.
package tlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/verify"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// served is a log of ours behind HTTP.
type served struct {
	r          *ledger.Reader
	url        string
	keys       string // a file of verifier keys
	verifier   note.Verifier
	verifiers  verify.Keys
	checkpoint verify.Checkpoint
	older      verify.Checkpoint
	oldFile    string
}

// serve records events over two runs, with a checkpoint after each, and serves them. alter may change an answer.
func serve(t *testing.T, counts [2]int, alter func(path string, body []byte) []byte) served {
	t.Helper()
	conf := ledger.Config{Dir: filepath.Join(t.TempDir(), "data"), Keys: filepath.Join(t.TempDir(), "keys"),
		Checkpoint: time.Hour, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	var signed [2][]byte
	for run, n := range counts {
		l, err := ledger.Open(t.Context(), conf)
		if err != nil {
			t.Fatal(err)
		}
		var last *ledger.Pending
		for i := range n {
			if last, err = l.Send(t.Context(), &fairlead.Fact{Kind: fairlead.KindConfig, Attrs: []fairlead.Attr{{Name: "n", Value: int64(i)}}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := last.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		signed[run] = l.Signed()
	}
	r, err := ledger.OpenReader(conf.Dir, conf.Keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	s := served{r: r, keys: filepath.Join(t.TempDir(), "keys"), oldFile: filepath.Join(t.TempDir(), "older")}
	text, _, err := r.VerifierKeys()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{s.keys: []byte(text), s.oldFile: signed[0]} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ed, _, _ := strings.Cut(text, "\n")
	if s.verifier, err = note.NewVerifier(ed); err != nil {
		t.Fatal(err)
	}
	if s.verifiers, err = verify.ParseKeys(text); err != nil {
		t.Fatal(err)
	}
	if s.older, err = s.verifiers.OpenCheckpoint(signed[0]); err != nil {
		t.Fatal(err)
	}
	if s.checkpoint, err = s.verifiers.OpenCheckpoint(signed[1]); err != nil {
		t.Fatal(err)
	}
	tiles := r.TilesHandler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if alter == nil {
			tiles.ServeHTTP(w, q)
			return
		}
		rec := httptest.NewRecorder()
		tiles.ServeHTTP(rec, q)
		w.WriteHeader(rec.Code)
		w.Write(alter(q.URL.Path, rec.Body.Bytes()))
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// readers are those that judge a log as a whole.
var readers = map[string]func(ctx context.Context, s served) error{
	"tessera fsck": func(ctx context.Context, s served) error {
		return fsck.New(s.r.Origin(), s.verifier, s.fetcher(), func(b []byte) ([][]byte, error) {
			var bundle api.EntryBundle
			if err := bundle.UnmarshalText(b); err != nil {
				return nil, err
			}
			var out [][]byte
			for _, e := range bundle.Entries {
				out = append(out, rfc6962.DefaultHasher.HashLeaf(e))
			}
			return out, nil
		}, fsck.Opts{N: 2}).Check(ctx)
	},
	"verify.py": func(ctx context.Context, s served) error {
		cmd := exec.CommandContext(ctx, "python3", filepath.Join("..", "..", "verify", "second", "verify.py"), "log", s.keys, s.url, s.oldFile)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	},
	"ours": func(ctx context.Context, s served) error {
		r, err := verify.Log(ctx, s.r.Inspect(), s.verifiers, verify.LogOptions{})
		if err == nil && (!r.OK() || r.Root != s.checkpoint.Root) {
			err = fmt.Errorf("%v", r.Problems)
		}
		return err
	},
}

func (s served) fetcher() *client.HTTPFetcher {
	u, err := url.Parse(s.url + "/")
	if err != nil {
		panic(err)
	}
	f, err := client.NewHTTPFetcher(u, http.DefaultClient)
	if err != nil {
		panic(err)
	}
	return f
}

func TestOthersAgree(t *testing.T) {
	counts := [2]int{300, 66_000} // past 65,536 there is a complete tile of the second level
	if testing.Short() {
		counts[1] = 700
	}
	s := serve(t, counts, nil)
	for name, read := range readers {
		t.Run(name, func(t *testing.T) {
			needPython(t, name)
			if err := read(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("tessera proofs", func(t *testing.T) {
		b, err := client.NewProofBuilder(t.Context(), uint64(s.checkpoint.Size), s.fetcher().ReadTile)
		if err != nil {
			t.Fatal(err)
		}
		for _, seq := range []int64{0, 255, 256, 301, s.checkpoint.Size - 1} {
			path, err := b.InclusionProof(t.Context(), uint64(seq))
			if err != nil {
				t.Fatal(err)
			}
			e, err := s.r.Envelope(t.Context(), seq)
			if err != nil {
				t.Fatal(err)
			}
			leaf := verify.LeafHash(e)
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(seq), uint64(s.checkpoint.Size), leaf[:], path, s.checkpoint.Root[:]); err != nil {
				t.Errorf("event %d: %v", seq, err)
			}
		}
		path, err := b.ConsistencyProof(t.Context(), uint64(s.older.Size), uint64(s.checkpoint.Size))
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(s.older.Size), uint64(s.checkpoint.Size), path, s.older.Root[:], s.checkpoint.Root[:]); err != nil {
			t.Error(err)
		}
	})
	t.Run("sumdb", func(t *testing.T) {
		reader := tlog.TileHashReader(tlog.Tree{N: s.checkpoint.Size, Hash: s.checkpoint.Root}, tileReader{s.url})
		for _, seq := range []int64{0, 255, 256, 301, s.checkpoint.Size - 1} {
			ours, err := s.r.Prove(t.Context(), seq)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := tlog.ProveRecord(s.checkpoint.Size, seq, reader)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(theirs) != fmt.Sprint(ours.Hashes) {
				t.Errorf("the proofs of event %d differ", seq)
			}
		}
		path, err := tlog.ProveTree(s.checkpoint.Size, s.older.Size, reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := verify.CheckConsistency(s.older, s.checkpoint, path); err != nil {
			t.Error(err)
		}
	})
}

// TestOthersDisagree shows that the readers of TestOthersAgree can say no.
func TestOthersDisagree(t *testing.T) {
	for name, prefix := range map[string]string{"tile": "/tile/0/001", "upper tile": "/tile/1/000", "entries": "/tile/entries/001", "checkpoint": "/checkpoint"} {
		s := serve(t, [2]int{100, 700}, func(path string, body []byte) []byte {
			if strings.HasPrefix(path, prefix) {
				at := len(body) / 2
				if path == "/checkpoint" {
					at = bytes.IndexByte(body, '\n') + 2 // in its size: what is behind includes lines that others skip
				}
				body = bytes.Clone(body)
				body[at] ^= 1
			}
			return body
		})
		for _, reader := range []string{"tessera fsck", "verify.py"} {
			t.Run(name+" "+reader, func(t *testing.T) {
				needPython(t, reader)
				ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
				defer stop()
				if err := readers[reader](ctx, s); err == nil {
					t.Error("an altered log was found whole")
				}
			})
		}
	}
}

func needPython(t *testing.T, reader string) {
	if _, err := exec.LookPath("python3"); err != nil && reader == "verify.py" {
		t.Skip("python3 is not installed: the second reader cannot run here")
	}
}

// tileReader reads tiles for golang.org/x/mod/sumdb/tlog over HTTP.
type tileReader struct{ url string }

func (r tileReader) Height() int { return verify.TileHeight }

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, t := range tiles {
		path := strings.Replace(t.Path(), fmt.Sprintf("tile/%d/", verify.TileHeight), "tile/", 1)
		resp, err := http.Get(r.url + "/" + path)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s %v", path, resp.Status, err)
		}
		out = append(out, b)
	}
	return out, nil
}

func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
