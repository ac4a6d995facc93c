package ledger

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/verify"
)

func TestTilesHandler(t *testing.T) {
	c := config(t)
	c.Checkpoint = time.Hour
	l := open(t, c)
	h := l.TilesHandler()
	get := func(method, path string) *http.Response {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Result()
	}
	if r := get("GET", "/checkpoint"); r.StatusCode != 404 {
		t.Errorf("a log without a checkpoint answers %d", r.StatusCode)
	}
	appendMany(t, l, 599) // 600 with the first
	if _, err := l.signHead(); err != nil {
		t.Fatal(err)
	}
	appendMany(t, l, 300) // under no checkpoint
	for path, want := range map[string]int{
		"/checkpoint": 200, "/tile/0/000": 200, "/tile/0/001": 200, "/tile/0/002.p/88": 200, "/tile/0/002.p/1": 200, "/tile/0/000.p/7": 200,
		"/tile/1/000.p/2": 200, "/tile/entries/000": 200, "/tile/entries/002.p/88": 200, "/tile/entries/002.p/8": 200,
		"/": 404, "/tile": 404, "/tile/": 404, "/tile/0": 404, "/tile/0/": 404, "/tile/0/002": 404, "/tile/0/002.p/89": 404, "/tile/0/003": 404,
		"/tile/1/000": 404, "/tile/1/000.p/3": 404, "/tile/2/000.p/1": 404, "/tile/7/000": 404, "/tile/63/000": 404, "/tile/00/000": 404, "/tile/-1/000": 404,
		"/tile/entries/002": 404, "/tile/entries/002.p/89": 404, "/tile/Entries/000": 404, "/tile/data/000": 404,
		"/tile/0/0": 404, "/tile/0/0000": 404, "/tile/0/x000/000": 404, "/tile/0/x001/000": 404, "/tile/0/000/000": 404, "/tile/0/x000": 404, "/tile/0/+00": 404,
		"/tile/0/000.p/0": 404, "/tile/0/000.p/256": 404, "/tile/0/000.p/07": 404, "/tile/0/000.p/": 404, "/tile/0/000.p": 404, "/tile/0/000.p/7/": 404,
		"/tile/0/000.p/7.p/7": 404, "/tile%2F0/000": 404, "/tile/0/%30%30%30": 404, "/tile/0/../0/000": 404, "//tile/0/000": 404, "/checkpoint/": 404,
		"/tile/0/x999/x999/x999/x999/x999/x999/999": 404, "/tile/0/x999/x999/x999/x999/x999/999": 404,
	} {
		r := get("GET", path)
		if r.StatusCode != want {
			t.Errorf("%s: %d, expected %d", path, r.StatusCode, want)
		}
		cached := strings.Contains(r.Header.Get("Cache-Control"), "immutable")
		if full := want == 200 && path != "/checkpoint" && !strings.Contains(path, ".p/"); cached != full {
			t.Errorf("%s: Cache-Control %q", path, r.Header.Get("Cache-Control"))
		}
	}
	if r := get("POST", "/checkpoint"); r.StatusCode != 405 {
		t.Errorf("POST: %d", r.StatusCode)
	}
	if r := get("HEAD", "/tile/0/000"); r.StatusCode != 200 || r.Header.Get("Content-Length") != "8192" {
		t.Errorf("HEAD: %d %v", r.StatusCode, r.Header)
	}
	body := func(path string) []byte {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Body.Bytes()
	}
	if cp := body("/checkpoint"); !bytes.HasPrefix(cp, fmt.Appendf(nil, "%s\n600\n", l.Origin())) {
		t.Errorf("%s", cp)
	}
	// Entries and hashes are those of the events.
	entries, tile := body("/tile/entries/002.p/88"), body("/tile/0/002.p/88")
	for i := range int64(88) {
		e, err := l.Envelope(t.Context(), 512+i)
		if err != nil {
			t.Fatal(err)
		}
		data, leaf := verify.LeafData(e), verify.LeafHash(e)
		if !bytes.Equal(entries[34*i:34*i+34], verify.AppendEntry(nil, data)) || !bytes.Equal(tile[32*i:32*i+32], leaf[:]) {
			t.Fatalf("event %d is served otherwise", 512+i)
		}
	}
}

func FuzzTilePath(f *testing.F) {
	f.Add("/tile/0/x001/x234/067.p/8")
	f.Add("/tile/entries/000")
	f.Fuzz(func(t *testing.T, path string) {
		p, ok := parseTilePath(path)
		if !ok {
			return
		}
		level, number := fmt.Sprint(p.level), fmt.Sprintf("%03d", p.number%1000)
		if p.entries {
			level = "entries"
		}
		for n := p.number / 1000; n > 0; n /= 1000 {
			number = fmt.Sprintf("x%03d/", n%1000) + number
		}
		if p.width < verify.TileWidth {
			number += fmt.Sprintf(".p/%d", p.width)
		}
		if want := "/tile/" + level + "/" + number; want != path {
			t.Fatalf("%q reads %+v, which is %q", path, p, want)
		}
	})
}
