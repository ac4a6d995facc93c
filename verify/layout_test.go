package verify

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// tilesOf gives the tiles of a log in memory, incomplete ones too.
func tilesOf(m *memLog) TileReader {
	return func(l int, n int64, w int) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for i := n * TileWidth; len(out) < w && (i+1)<<(TileHeight*l) <= int64(len(m.events)); i++ {
			if l > 0 {
				out = append(out, Subtree(m.tiles[pos{l - 1, i}]))
			} else {
				out = append(out, LeafHash(m.events[i]))
			}
		}
		return out, nil
	}
}

func rootAt(t testing.TB, tiles TileReader, n int64) tlog.Hash {
	t.Helper()
	h, err := tlog.TreeHash(n, tiles)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func signText(t testing.TB, text string, signers ...note.Signer) string {
	t.Helper()
	// ML-DSA signs only what is a checkpoint; the Ed25519 line alone shows whether the text is refused.
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		if signed, err = note.Sign(&note.Note{Text: text}, signers[0]); err != nil {
			t.Fatal(err)
		}
	}
	return string(signed)
}

// layout gives the files of a log in the tlog-tiles layout, without its checkpoint. It holds less than 65,536 events.
func layout(m *memLog) map[string][]byte {
	out := map[string][]byte{}
	tiles := tilesOf(m)
	for l := 0; int64(len(m.events))>>(TileHeight*l) > 0; l++ {
		total := int64(len(m.events)) >> (TileHeight * l)
		for n := int64(0); n*TileWidth < total; n++ {
			w := int(min(TileWidth, total-n*TileWidth))
			hashes, _ := tiles(l, n, w)
			name := fmt.Sprintf("%03d", n)
			if w < TileWidth {
				name = fmt.Sprintf("%03d.p/%d", n, w)
			}
			var b bytes.Buffer
			for _, h := range hashes {
				b.Write(h[:])
			}
			out[filepath.ToSlash(fmt.Sprintf("tile/%d/%s", l, name))] = b.Bytes()
			if l == 0 {
				var entries []byte
				for i := range w {
					entries = AppendEntry(entries, LeafData(m.events[n*TileWidth+int64(i)]))
				}
				out["tile/entries/"+name] = entries
			}
		}
	}
	return out
}
