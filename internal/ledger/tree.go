package ledger

import (
	"fmt"

	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/tlog"
)

// levels is how many tile levels there can be: 256^7 events is past what numbers an event.
const levels = 7

// tree is what it takes to append: the right edge, and the hashes of the tile that is growing on each level. Assigning
// a tree copies it: hashes beyond a copy's length are never read through it.
type tree struct {
	edge    verify.Frontier
	growing [levels][]tlog.Hash
}

// A fullTile is a tile that will never change again.
type fullTile struct {
	level  int
	number int64
	hashes []tlog.Hash
}

// append adds a leaf hash and returns the tiles that it completed, appended to done.
func (t *tree) append(h tlog.Hash, done []fullTile) []fullTile {
	t.edge.Append(h)
	for l := range t.growing {
		if len(t.growing[l]) == 0 {
			t.growing[l] = make([]tlog.Hash, 0, verify.TileWidth)
		}
		t.growing[l] = append(t.growing[l], h)
		if len(t.growing[l]) < verify.TileWidth {
			break
		}
		full := t.growing[l]
		done = append(done, fullTile{l, t.edge.Size()>>(verify.TileHeight*(l+1)) - 1, full})
		t.growing[l] = nil // not [:0]: another copy of the tree may still hold these
		h = verify.Subtree(full)
	}
	return done
}

// loadTree rebuilds the tree of the given size from tiles and events.
func loadTree(size int64, tiles verify.TileReader) (tree, error) {
	var t tree
	for l := range t.growing {
		n := size >> (verify.TileHeight * l)
		w := int(n % verify.TileWidth)
		if n == 0 {
			break
		}
		if w == 0 {
			continue
		}
		hashes, err := tiles(l, n/verify.TileWidth, w)
		if err != nil {
			return t, err
		}
		t.growing[l] = append(make([]tlog.Hash, 0, verify.TileWidth), hashes[:w]...)
	}
	// The frontier's peaks are the roots of complete runs of the growing tiles, from the highest level down.
	for l := levels - 1; l >= 0; l-- {
		for _, h := range t.growing[l] {
			t.edge.AppendSubtree(verify.TileHeight*l, h)
		}
	}
	if t.edge.Size() != size {
		return t, fmt.Errorf("the tiles add up to %d events, the tree head says %d", t.edge.Size(), size)
	}
	return t, nil
}

func tileID(level int, n int64) int64 { return int64(level)<<48 | n }

// flatten gives the bytes of a tile.
func flatten(hashes []tlog.Hash) []byte {
	out := make([]byte, 0, len(hashes)*tlog.HashSize)
	for i := range hashes {
		out = append(out, hashes[i][:]...)
	}
	return out
}

func unflatten(b []byte) []tlog.Hash {
	out := make([]tlog.Hash, len(b)/tlog.HashSize)
	for i := range out {
		copy(out[i][:], b[i*tlog.HashSize:])
	}
	return out
}
