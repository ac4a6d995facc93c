package verify

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/fairleadhq/fairlead"
)

// A bitset is a set of numbers. Pages that are full take no memory of their own.
type bitset struct {
	pages map[uint64]*page
	at    uint64 // number of the page looked at last
	last  *page
}

type page struct {
	bits  [pageBits / 64]uint64
	count int
}

const pageBits = 2048

// fullPage stands for every page that is full.
var fullPage = new(page)

func newBitset() bitset { return bitset{pages: map[uint64]*page{}} }

// set adds n and reports whether it is new.
func (s *bitset) set(n uint64) bool {
	k, bit := n/pageBits, n%pageBits
	if s.last == nil || s.at != k {
		s.at, s.last = k, s.pages[k]
		if s.last == nil {
			s.last = new(page)
			s.pages[k] = s.last
		}
	}
	p := s.last
	if p == fullPage || p.bits[bit/64]>>(bit%64)&1 == 1 {
		return false
	}
	p.bits[bit/64] |= 1 << (bit % 64)
	if p.count++; p.count == pageBits {
		s.pages[k], s.last = fullPage, fullPage
	}
	return true
}

func (s *bitset) has(n uint64) bool {
	p := s.pages[n/pageBits]
	return p == fullPage || p != nil && p.bits[n%pageBits/64]>>(n%64)&1 == 1
}

// digestCache remembers what was found of the newest blobs, so that a log that refers to a large one again and again
// does not make us hash it each time.
type digestCache struct {
	new, old map[int64]blobSeen
}

type blobSeen struct {
	scope  int64
	sealed fairlead.Digest
	there  bool
}

const cacheSize = 4096

func (c *digestCache) get(id int64) (blobSeen, bool) {
	b, ok := c.new[id]
	if !ok {
		b, ok = c.old[id]
	}
	return b, ok
}

func (c *digestCache) put(id int64, b blobSeen) {
	if c.new == nil || len(c.new) >= cacheSize {
		c.old, c.new = c.new, make(map[int64]blobSeen, cacheSize)
	}
	c.new[id] = b
}

// blob checks the blob that an event refers to.
func (l *logCheck) blob(seq, id, scope int64, sealed fairlead.Digest) error {
	b, ok := l.cache.get(id)
	if !ok {
		stored, data, err := l.src.Blob(l.ctx, id)
		if err != nil {
			if l.ctx.Err() != nil {
				return l.ctx.Err()
			}
			l.r.problem(fmt.Sprintf("blob %d", id), "it cannot be read (event %d refers to it): %v", seq, err)
			l.blobs.set(uint64(id))
			return nil
		}
		b = blobSeen{scope: stored, there: data != nil}
		if b.there {
			b.sealed = sha256.Sum256(data)
		}
		if l.blobs.set(uint64(id)) && b.there {
			l.r.Blobs++
		}
		l.cache.put(id, b)
	}
	where := fmt.Sprintf
	switch {
	case !b.there:
		has, err := l.src.HasScope(l.ctx, scope)
		if err != nil {
			return fmt.Errorf("looking for the key of scope %d: %w", scope, err)
		}
		if !has {
			l.r.Erased++
			return nil
		}
		l.r.problem(where("blob %d", id), "it is missing, though the key of its scope %d is there (event %d refers to it)", scope, seq)
	case b.sealed != sealed:
		l.r.problem(where("blob %d", id), "its bytes are not those that event %d refers to", seq)
	case b.scope != scope:
		l.r.problem(where("blob %d", id), "it is stored under key scope %d, event %d says %d", b.scope, seq, scope)
	}
	return nil
}

// tail finds blobs that nobody refers to, and events beyond the tree head. The log may have grown while it was verified,
// so the events that came meanwhile are read for their references.
func (l *logCheck) tail() error {
	spare := map[int64]bool{}
	err := l.src.Blobs(l.ctx, func(id int64) error {
		if id < 0 || !l.blobs.has(uint64(id)) {
			l.spare++
			if len(spare) < 1<<16 {
				spare[id] = true
			}
		}
		return l.ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("listing the blobs: %w", err)
	}
	top := l.r.Size
	err = l.read(l.r.Size, func(seq int64, envelope []byte) error {
		top = seq + 1
		if len(spare) > 0 && l.p.read(envelope) == nil {
			for i := range l.p.env.Content {
				if id := l.p.env.Content[i].Blob; spare[id] {
					delete(spare, id)
					l.spare--
				}
			}
		}
		return nil
	}, func(next int64) error {
		top = max(top, next)
		return nil
	})
	if err != nil {
		return err
	}
	size, _, err := l.src.Head(l.ctx)
	if err != nil {
		return fmt.Errorf("reading the tree head: %w", err)
	}
	if top > size {
		l.r.problem(eventRange(size, top), "beyond the tree head, which has %d events", size)
	}
	if size < l.r.Size {
		l.r.problem("tree head", "it went back from %d to %d events during verification", l.r.Size, size)
	}
	l.orphans(spare)
	return nil
}

// orphans reports blobs to which no event refers.
func (l *logCheck) orphans(spare map[int64]bool) {
	ids := slices.Sorted(maps.Keys(spare))
	if l.unread > 0 && l.spare > 0 {
		l.r.problem("blobs", "no event that could be read refers to %d of them; the first are %d", l.spare, ids[:min(len(ids), 3)])
		return
	}
	for _, id := range ids {
		l.r.problem(fmt.Sprintf("blob %d", id), "no event refers to it")
	}
	if more := l.spare - int64(len(ids)); more > 0 {
		l.r.problem("blobs", "no event refers to %d more", more)
	}
}
