package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// An op produces bytes of the original: n bytes at off of the body itself (blob 0), or of an earlier blob's original.
type op struct {
	blob   int64
	off, n int64
}

const (
	recordVersion = 1
	opLiteral     = 0
	opCopy        = 1
)

func appendRecord(dst, body []byte, ops []op, names []string) []byte {
	dst = append(dst, recordVersion)
	dst = binary.AppendUvarint(dst, uint64(len(names)/2))
	for _, s := range names {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(body)))
	for _, o := range ops {
		if o.blob == 0 {
			dst = binary.AppendUvarint(append(dst, opLiteral), uint64(o.n))
			dst = append(dst, body[o.off:o.off+o.n]...)
			continue
		}
		dst = binary.AppendUvarint(append(dst, opCopy), uint64(o.blob))
		dst = binary.AppendUvarint(dst, uint64(o.off))
		dst = binary.AppendUvarint(dst, uint64(o.n))
	}
	return dst
}

// A record is a parsed record: how to rebuild an original.
type record struct {
	size  int64
	names []string
	steps []step
}

// A step is an op with the bytes of a literal, and where in the original its bytes start.
type step struct {
	op
	at      int64
	literal []byte
}

var errRecord = errors.New("the record is damaged")

// parseRecord reads the record of blob id.
func parseRecord(id int64, b []byte) (*record, error) {
	if len(b) == 0 || b[0] != recordVersion {
		return nil, errRecord
	}
	b = b[1:]
	number := func() (int64, bool) {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > 1<<62 || k > 1 && b[k-1] == 0 { // a longer spelling than need be
			return 0, false
		}
		b = b[k:]
		return int64(n), true
	}
	take := func(n int64) ([]byte, bool) {
		if n > int64(len(b)) {
			return nil, false
		}
		out := b[:n]
		b = b[n:]
		return out, true
	}
	pairs, ok := number()
	if !ok || pairs > 64 {
		return nil, errRecord
	}
	r := &record{}
	for range 2 * pairs {
		n, ok1 := number()
		s, ok2 := take(n)
		if !ok1 || !ok2 {
			return nil, errRecord
		}
		r.names = append(r.names, string(s))
	}
	if r.size, ok = number(); !ok || r.size > maxRecord {
		return nil, errRecord
	}
	for at := int64(0); at < r.size || len(b) > 0; {
		kind, ok := take(1)
		if !ok {
			return nil, errRecord
		}
		s := step{at: at}
		switch kind[0] {
		case opLiteral:
			n, ok1 := number()
			lit, ok2 := take(n)
			if !ok1 || !ok2 {
				return nil, errRecord
			}
			s.n, s.literal = n, lit
		case opCopy:
			var ok1, ok2, ok3 bool
			s.blob, ok1 = number()
			s.off, ok2 = number()
			s.n, ok3 = number()
			if !ok1 || !ok2 || !ok3 || s.blob == 0 || s.blob >= id {
				return nil, errRecord
			}
		default:
			return nil, errRecord
		}
		if at += s.n; s.n == 0 || at > r.size {
			return nil, errRecord
		}
		r.steps = append(r.steps, s)
	}
	return r, nil
}

// A rebuilder gives originals back. It opens each blob once.
type rebuilder struct {
	v       *Vault
	ctx     context.Context
	records map[int64]*record
	scopes  map[int64]*Scope
	scope   int64 // the scope of the first blob
	app     int64 // and its application's
	work    int   // copies made so far
	depth   int   // how deep they went
}

// Bounds on following references: far above what [planner] makes, so that a damaged record cannot run away.
const (
	maxCopyDepth = 256
	maxCopies    = 1 << 20
)

// record opens blob id. All blobs of one rebuild belong to one scope, or to its application's shared scope.
func (b *rebuilder) record(id int64) (*record, *Scope, error) {
	rec, scope := b.records[id], b.scopes[id]
	if rec == nil {
		scopeID, data, err := b.v.r.blob(b.ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if scope, err = b.v.Scope(b.ctx, scopeID); err != nil {
			return nil, nil, err
		}
		plain, err := openSealed(scope, id, data)
		if err != nil {
			return nil, nil, err
		}
		if rec, err = parseRecord(id, plain); err != nil {
			return nil, nil, fmt.Errorf("blob %d: %w", id, err)
		}
		b.records[id], b.scopes[id] = rec, scope
	}
	if b.scope == 0 {
		b.scope, b.app = scope.ID, scope.appID()
	}
	if scope.ID != b.scope && scope.ID != b.app {
		return nil, nil, fmt.Errorf("blob %d is of another scope", id)
	}
	return rec, scope, nil
}

// copy appends n bytes from off of the original of blob id.
func (b *rebuilder) copy(dst []byte, id, off, n int64, depth int) ([]byte, error) {
	if b.work++; depth > maxCopyDepth || b.work > maxCopies {
		return nil, fmt.Errorf("blob %d refers too far back", id)
	}
	b.depth = max(b.depth, depth)
	rec, _, err := b.record(id)
	if err != nil {
		return nil, err
	}
	if off < 0 || n < 0 || off+n > rec.size {
		return nil, fmt.Errorf("blob %d has %d bytes, %d from %d are asked for", id, rec.size, n, off)
	}
	for _, s := range rec.steps {
		if s.at+s.n <= off || n == 0 {
			continue
		}
		from := off - s.at
		k := min(n, s.n-from)
		if s.blob == 0 {
			dst = append(dst, s.literal[from:from+k]...)
		} else if dst, err = b.copy(dst, s.blob, s.off+from, k, depth+1); err != nil {
			return nil, err
		}
		off, n = off+k, n-k
	}
	return dst, nil
}
