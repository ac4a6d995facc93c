package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// TileHeight and TileWidth are the shape of a tile in c2sp.org/tlog-tiles: 8 levels, 256 hashes.
const (
	TileHeight = 8
	TileWidth  = 1 << TileHeight
)

// leafPrefix separates the leaf data of version 1 from every other use of SHA-256.
const leafPrefix = "fairlead.event.v1\n"

// LeafData is what the log keeps of an envelope: SHA-256 of a versioned prefix and the envelope's bytes.
func LeafData(envelope []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(leafPrefix))
	h.Write(envelope)
	var out [32]byte
	h.Sum(out[:0])
	return out
}

// LeafHash is the hash of the Merkle tree leaf that stands for envelope.
func LeafHash(envelope []byte) tlog.Hash { return leafDataHash(LeafData(envelope)) }

// A leafHasher makes leaf hashes without an allocation or clearing of memory for each.
type leafHasher struct {
	buf [len(leafPrefix) + MaxEnvelope]byte
}

func (l *leafHasher) leaf(envelope []byte) tlog.Hash {
	if len(envelope) > MaxEnvelope {
		return LeafHash(envelope)
	}
	n := copy(l.buf[:], leafPrefix)
	n += copy(l.buf[n:], envelope)
	return leafDataHash(sha256.Sum256(l.buf[:n]))
}

// leafDataHash is tlog.RecordHash without its allocation.
func leafDataHash(data [32]byte) tlog.Hash {
	var buf [33]byte
	copy(buf[1:], data[:])
	return sha256.Sum256(buf[:])
}

// nodeHash is tlog.NodeHash without its allocation.
func nodeHash(l, r tlog.Hash) tlog.Hash {
	var buf [65]byte
	buf[0] = 1
	copy(buf[1:], l[:])
	copy(buf[33:], r[:])
	return sha256.Sum256(buf[:])
}

// A Frontier is the right edge of a Merkle tree: the roots of its complete subtrees, which is all that is needed to
// append to it and to know its root. The zero value is the empty tree. Copying a Frontier copies the tree's state.
type Frontier struct {
	size  int64
	peaks [63]tlog.Hash // peaks[i] is the root of a complete subtree of 2^i leaves, where bit i of size is set
}

// Size is the number of leaves.
func (f *Frontier) Size() int64 { return f.size }

// Append adds one leaf hash.
func (f *Frontier) Append(h tlog.Hash) {
	i := 0
	for ; f.size>>i&1 == 1; i++ {
		h = nodeHash(f.peaks[i], h)
	}
	f.peaks[i] = h
	f.size++
}

// AppendSubtree adds the root of a complete subtree of 2^height leaves at once. The tree's size must be a multiple of
// that number.
func (f *Frontier) AppendSubtree(height int, root tlog.Hash) {
	if f.size&(1<<height-1) != 0 {
		panic("verify: AppendSubtree on an unaligned tree")
	}
	i := height
	for ; f.size>>i&1 == 1; i++ {
		root = nodeHash(f.peaks[i], root)
	}
	f.peaks[i] = root
	f.size += 1 << height
}

// Root is the root hash of the tree. The root of the empty tree is SHA-256 of nothing (RFC 6962 section 2.1).
func (f *Frontier) Root() tlog.Hash {
	if f.size == 0 {
		return sha256.Sum256(nil)
	}
	i := bits.TrailingZeros64(uint64(f.size))
	h := f.peaks[i]
	for i++; i < len(f.peaks); i++ {
		if f.size>>i&1 == 1 {
			h = nodeHash(f.peaks[i], h)
		}
	}
	return h
}

// Subtree is the root of the complete or partial tree over hashes, which stand next to each other.
func Subtree(hashes []tlog.Hash) tlog.Hash {
	switch n := len(hashes); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return hashes[0]
	default:
		k := 1 << (bits.Len(uint(n-1)) - 1)
		return nodeHash(Subtree(hashes[:k]), Subtree(hashes[k:]))
	}
}

// A TileReader gives the hashes of a tile: of level l (0 is the leaves), number n. It returns at least w hashes; a wider
// tile begins with the narrower one.
type TileReader func(l int, n int64, w int) ([]tlog.Hash, error)

// ReadHashes makes a TileReader a tlog.HashReader, so that golang.org/x/mod/sumdb/tlog can prove from it.
func (r TileReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		within := level % TileHeight
		first := n << within
		off := int(first % TileWidth)
		hashes, err := r(level/TileHeight, first/TileWidth, off+1<<within)
		if err != nil {
			return nil, err
		}
		if len(hashes) < off+1<<within {
			return nil, fmt.Errorf("tile %d/%d holds %d hashes, %d are needed", level/TileHeight, first/TileWidth, len(hashes), off+1<<within)
		}
		out[i] = Subtree(hashes[off : off+1<<within])
	}
	return out, nil
}

// AppendEntry appends one entry of a tlog-tiles entry bundle: leaf data behind its length.
func AppendEntry(dst []byte, leafData [32]byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(leafData)))
	return append(dst, leafData[:]...)
}
