package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/verify"
)

// TilesHandler serves the log as c2sp.org/tlog-tiles specifies, for witnesses, mirrors and auditors: /checkpoint,
// /tile/<L>/<N>[.p/<W>] and /tile/entries/<N>[.p/<W>]. Entries are 32-byte hashes: nothing of what was recorded leaves
// this way. It serves nothing beyond the newest checkpoint, and answers 404 to whatever is not in the layout.
func (r *Reader) TilesHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are served here", http.StatusMethodNotAllowed)
			return
		}
		body, err := r.resource(q.Context(), q.URL.EscapedPath(), w.Header())
		switch {
		case errors.Is(err, errNotServed), errors.Is(err, ErrNoCheckpoint):
			http.Error(w, "the log has no such tile", http.StatusNotFound)
		case err != nil:
			http.Error(w, "the tile cannot be read", http.StatusInternalServerError)
		default:
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			// A client that went away is no fault of ours.
			_, _ = w.Write(body)
		}
	})
}

var errNotServed = errors.New("there is no such resource")

// resource gives what stands at a path of the layout, and sets the headers for it.
func (r *Reader) resource(ctx context.Context, path string, h http.Header) ([]byte, error) {
	signed, err := r.Checkpoint(ctx, 0)
	if err != nil {
		return nil, err
	}
	if path == "/checkpoint" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		return signed, nil
	}
	t, ok := parseTilePath(path)
	if !ok {
		return nil, errNotServed
	}
	size, err := checkpointSize(signed)
	if err != nil {
		return nil, err
	}
	if t.number >= 1<<48 || t.number*verify.TileWidth+int64(t.width) > size>>(verify.TileHeight*t.level) {
		return nil, errNotServed
	}
	var body []byte
	if t.entries {
		body, err = r.Entries(ctx, t.number, t.width)
	} else {
		hashes, e := r.Tile(t.level, t.number, t.width)
		body, err = flatten(hashes), e
	}
	if err != nil {
		return nil, err
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	if t.width < verify.TileWidth {
		h.Set("Cache-Control", "public, max-age=3600") // it never changes either, but is soon of no use
	}
	return body, nil
}

// checkpointSize reads the size in a checkpoint that we signed.
func checkpointSize(signed []byte) (int64, error) {
	lines := strings.SplitN(string(signed), "\n", 3)
	if len(lines) < 3 {
		return 0, errors.New("the kept checkpoint is damaged")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return 0, fmt.Errorf("the kept checkpoint has the size %.30q", lines[1])
	}
	return size, nil
}

// A tilePath is a parsed path of c2sp.org/tlog-tiles.
type tilePath struct {
	entries bool
	level   int
	number  int64
	width   int // 256 for a full tile
}

// parseTilePath reads a path. Every tile has one spelling.
func parseTilePath(path string) (t tilePath, ok bool) {
	rest, ok := strings.CutPrefix(path, "/tile/")
	if !ok || len(rest) > 64 {
		return t, false
	}
	level, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return t, false
	}
	if t.entries = level == "entries"; !t.entries {
		if t.level, ok = decimal(level, levels-1); !ok {
			return t, false
		}
	}
	t.width = verify.TileWidth
	if number, width, partial := strings.Cut(rest, ".p/"); partial {
		if t.width, ok = decimal(width, verify.TileWidth-1); !ok || t.width == 0 {
			return t, false
		}
		rest = number
	}
	groups := strings.Split(rest, "/")
	for i, g := range groups {
		if last := i == len(groups)-1; !last {
			if g, ok = strings.CutPrefix(g, "x"); !ok {
				return t, false
			}
		}
		n, err := strconv.ParseUint(g, 10, 16)
		// The first of several groups is not zero: 067 has no second spelling x000/067.
		if err != nil || len(g) != 3 || i == 0 && len(groups) > 1 && n == 0 || i > 5 {
			return t, false
		}
		t.number = t.number*1000 + int64(n)
	}
	return t, true
}

// decimal reads a number without leading zeros, up to limit.
func decimal(s string, limit int) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && n <= limit && strconv.Itoa(n) == s
}
