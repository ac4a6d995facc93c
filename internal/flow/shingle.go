package flow

import (
	"cmp"
	"slices"
)

// A mark is the fingerprint of a window of folded text, and where the window begins.
type mark struct{ hash, at uint32 }

// The windows by which a part and free text are compared: whatever they share from 39 bytes on is found.
const (
	window = 24
	spread = 16
)

// prime is that of FNV-1a.
const prime = 0x100000001b3

// winnow calls emit with the fingerprints of s, found by winnowing (Schleimer, Wilkerson and Aiken, 2003): of every n
// consecutive windows of k bytes at least one is kept, so that two texts which share k+n-1 bytes share a fingerprint.
// Windows with few different bytes say nothing and are left out. It takes linear time; n is at most 32.
func winnow(s string, k, n int, base uint64, emit func(hash uint64, at int)) {
	if len(s) < k {
		return
	}
	var drop uint64 = 1 // base^(k-1)
	for range k - 1 {
		drop *= base
	}
	var h uint64
	for i := range k - 1 {
		h = h*base + uint64(s[i]) + 1
	}
	// Rising hashes of the last n windows in a ring: the first is the smallest.
	const ring = 32
	var hashes [ring]uint64
	var places [ring]int
	head, tail := 0, 0
	last := -1
	for i := 0; i+k <= len(s); i++ {
		h = h*base + uint64(s[i+k-1]) + 1
		m := h * 0x9e3779b97f4a7c15
		m ^= m >> 29
		for tail > head && hashes[(tail-1)%ring] >= m {
			tail--
		}
		if tail > head && places[head%ring] <= i-n {
			head++
		}
		hashes[tail%ring], places[tail%ring] = m, i
		tail++
		if at := places[head%ring]; i >= n-1 && at != last {
			last = at
			if varied(s[at : at+k]) {
				emit(hashes[head%ring], at)
			}
		}
		h -= (uint64(s[i]) + 1) * drop
	}
	if at := places[head%ring]; last < 0 && varied(s[at:at+k]) {
		emit(hashes[head%ring], at)
	}
}

// marks gives the fingerprints of a part or of free text.
func marks(s string) []mark {
	var out []mark
	if len(s) >= window {
		out = make([]mark, 0, len(s)/6)
	}
	winnow(s, window, spread, prime, func(hash uint64, at int) { out = append(out, mark{uint32(hash >> 32), uint32(at)}) })
	return out
}

// varied reports whether a window has enough different bytes to say something.
func varied(s string) bool {
	var seen [4]uint64
	n := 0
	for i := 0; i < len(s); i++ {
		if w, bit := s[i]>>6, uint64(1)<<(s[i]&63); seen[w]&bit == 0 {
			seen[w] |= bit
			if n++; n >= 9 {
				return true
			}
		}
	}
	return false
}

func byHash(a, b mark) int { return cmp.Compare(a.hash, b.hash) }

// sorted puts fingerprints in order for [lookup].
func sorted(m []mark) []mark {
	slices.SortFunc(m, byHash)
	return slices.Clip(m)
}

// lookup gives a place of h, or false.
func lookup(m []mark, h uint32) (mark, bool) {
	i, ok := slices.BinarySearchFunc(m, h, func(m mark, h uint32) int { return cmp.Compare(m.hash, h) })
	if !ok {
		return mark{}, false
	}
	return m[i], true
}

// A sieve says which sequences of three bytes a text does not have, so that most texts need not be searched.
type sieve [64]uint64

func bucket(a, b, c byte) uint32 {
	return (uint32(a)*0x9e37 ^ uint32(b)*0x85eb ^ uint32(c)*0xc2b3) >> 3 & 4095
}

func (v *sieve) add(s string) {
	for i := 2; i < len(s); i++ {
		k := bucket(s[i-2], s[i-1], s[i])
		v[k>>6] |= 1 << (k & 63)
	}
}

// may reports whether the text may hold needle. That of no text is nil.
func (v *sieve) may(needle string) bool {
	if v == nil {
		return false
	}
	for i := 2; i < min(len(needle), 40); i++ {
		if k := bucket(needle[i-2], needle[i-1], needle[i]); v[k>>6]&(1<<(k&63)) == 0 {
			return false
		}
	}
	return true
}
