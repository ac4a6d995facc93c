package ledger

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fairleadhq/fairlead"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A Vault keeps content: sealed under the key of a scope, each part of a conversation once, and always able to give
// back the exact original bytes. docs/format.md section 4 specifies what it writes.
type Vault struct {
	r     *Reader
	index *index

	// Set on a ledger that writes.
	busy                *atomic.Bool
	nextBlob, nextScope atomic.Int64

	mu     sync.Mutex
	byID   map[int64]*Scope
	byName map[string]*Scope
}

// maxScopes bounds the scopes kept in memory; they are found again on disk.
const maxScopes = 1 << 12

func newVault(r *Reader) *Vault {
	return &Vault{r: r, index: newIndex(), byID: map[int64]*Scope{}, byName: map[string]*Scope{}}
}

// A Scope is a key under which content is sealed, with a purpose. Losing the key is losing the content.
type Scope struct {
	ID      int64
	App     *Scope // the application's shared scope; nil in that scope itself
	name    []byte
	wrapped []byte
	seal    cipher.AEAD
	address []byte
	durable atomic.Bool // its row is in the ledger
}

// appID is the number of the application scope that s belongs to.
func (s *Scope) appID() int64 {
	if s.App == nil {
		return s.ID
	}
	return s.App.ID
}

func (s *Scope) setKey(key []byte) error {
	derive := func(purpose string) []byte {
		k, err := hkdf.Key(sha256.New, key, nil, "fairlead.vault.v1 "+purpose, 32)
		if err != nil {
			panic(err) // only for lengths beyond 255 hashes
		}
		return k
	}
	block, err := aes.NewCipher(derive("seal"))
	if err != nil {
		return err
	}
	s.address = derive("address")
	s.seal, err = cipher.NewGCM(block)
	return err
}

// AppScope is the shared scope of an application.
func (v *Vault) AppScope(ctx context.Context, tenant, app string) (*Scope, error) {
	return v.named(ctx, tenant+"\x00"+app, nil)
}

// SubjectScope is the scope of a verified subject within an application. A subject that was merely declared must never
// come here: it would choose the key that other people's words are sealed under.
func (v *Vault) SubjectScope(ctx context.Context, app *Scope, subject string) (*Scope, error) {
	return v.named(ctx, fmt.Sprintf("%d\x00%s", app.ID, subject), app)
}

// NewScope makes a scope for one conversation.
func (v *Vault) NewScope(app *Scope) (*Scope, error) { return v.create(app, nil) }

func (v *Vault) named(ctx context.Context, name string, app *Scope) (*Scope, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.byName[name]; s != nil {
		return s, nil
	}
	mac := hmac.New(sha256.New, v.r.keys.Derive("scope names"))
	mac.Write([]byte(name))
	hashed := mac.Sum(nil)
	s, err := v.load(ctx, "name = ?", hashed)
	if len(v.byName) >= maxScopes {
		// Scopes that are not on disk yet cannot be forgotten: made again, they would have other keys. There are only so
		// many while nothing can be recorded.
		if v.forget(); len(v.byName) >= maxScopes {
			return nil, errors.New("too many key scopes wait to be recorded")
		}
	}
	if errors.Is(err, errNoScope) {
		s, err = v.createLocked(app, hashed)
	}
	if err != nil {
		return nil, err
	}
	s.App = app
	v.byName[name] = s
	return s, nil
}

func (v *Vault) create(app *Scope, name []byte) (*Scope, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.createLocked(app, name)
}

func (v *Vault) createLocked(app *Scope, name []byte) (*Scope, error) {
	key := make([]byte, 32)
	rand.Read(key)
	s := &Scope{ID: v.nextScope.Add(1), App: app, name: name}
	s.wrapped = v.r.keys.Wrap(s.ID, key)
	if err := s.setKey(key); err != nil {
		return nil, err
	}
	return s, nil
}

// known remembers a scope whose row is on disk now. Before that only those who made it hold it, so that calls that cannot
// be recorded leave nothing behind.
func (v *Vault) known(s *Scope) {
	if s.durable.Swap(true) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.byID) >= maxScopes {
		v.forget()
	}
	v.byID[s.ID] = s
}

// forget drops the scopes whose rows are on disk from memory.
func (v *Vault) forget() {
	for id, s := range v.byID {
		if s.durable.Load() {
			delete(v.byID, id)
		}
	}
	for name, s := range v.byName {
		if s.durable.Load() {
			delete(v.byName, name)
		}
	}
}

// Scope finds a scope by its number.
func (v *Vault) Scope(ctx context.Context, id int64) (*Scope, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.byID[id]; s != nil {
		return s, nil
	}
	if v.r.keys == nil {
		return nil, ErrSealed
	}
	s, err := v.load(ctx, "id = ?", id)
	if errors.Is(err, errNoScope) {
		return nil, ErrErased
	}
	return s, err
}

var errNoScope = errors.New("there is no such key scope")

// ErrSealed is returned for content whose keys are not here.
var ErrSealed = errors.New("the content is sealed: the log's keys are not here (give --keys DIR)")

// ErrErased is returned for content whose key was destroyed.
var ErrErased = errors.New("the content was erased: its key was destroyed")

// load reads a scope's row. v.mu is held.
func (v *Vault) load(ctx context.Context, where string, arg any) (*Scope, error) {
	s := &Scope{}
	var app int64
	err := v.r.db.Read(ctx, func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select id, app, name, key from scope where "+where, &sqlitex.ExecOptions{Args: []any{arg},
			ResultFunc: func(st *sqlite.Stmt) error {
				s.ID, app = st.ColumnInt64(0), st.ColumnInt64(1)
				if n := st.ColumnLen(2); n > 0 {
					s.name = make([]byte, n)
					st.ColumnBytes(2, s.name)
				}
				s.wrapped = make([]byte, st.ColumnLen(3))
				st.ColumnBytes(3, s.wrapped)
				return nil
			}})
	})
	if err != nil {
		return nil, fmt.Errorf("looking up a key scope: %w", err)
	}
	if s.ID == 0 {
		return nil, errNoScope
	}
	key, err := v.r.keys.Unwrap(s.ID, s.wrapped)
	if err != nil {
		return nil, err
	}
	if err := s.setKey(key); err != nil {
		return nil, err
	}
	s.durable.Store(true)
	if app != s.ID {
		if s.App = v.byID[app]; s.App == nil {
			if s.App, err = v.load(ctx, "id = ?", app); err != nil {
				return nil, fmt.Errorf("scope %d: its application's scope: %w", s.ID, err)
			}
		}
	}
	if len(v.byID) >= maxScopes {
		v.forget()
	}
	v.byID[s.ID] = s
	return s, nil
}

// A Blob is sealed content on its way into the ledger, with what has to be remembered once it is there.
type Blob struct {
	Content fairlead.Content
	data    []byte
	scope   *Scope
	learned []learned
}

// Codecs of a frame.
const (
	frameRaw      = 0
	frameZstd     = 1
	frameZstdDict = 2
	frameS2       = 3
	frameS2Dict   = 4
)

// contentDict is what requests and answers of the known dialects repeat: wire format, nobody's words.
//
//go:embed dict/content-1
var contentDict []byte

// maxRecord is the most that a frame may open to.
const maxRecord = 256 << 20

// S2 takes a fifth of the time of zstd and a third more bytes: for when the machine is busy.
var (
	contentEnc = newEncoder(zstd.WithEncoderDictRaw(contentDictID, contentDict))
	contentS2  = s2.MakeDict(contentDict, nil)
	plainEnc   = newEncoder(zstd.WithEncoderLevel(zstd.SpeedDefault))
	contentDec = newDecoder(maxRecord, zstd.WithDecoderDictRaw(contentDictID, contentDict))
)

// dictLimit is the size up to which the dictionary is worth its set-up: what is longer repeats itself enough.
const dictLimit = 8 << 10

// buffers holds scratch space for records and frames.
var buffers = sync.Pool{New: func() any { return new([2][]byte) }}

// sealRecord encrypts a record. blob and scope are bound into it, so that it opens nowhere else.
func sealRecord(s *Scope, blob int64, record []byte, frame []byte, quick bool) (sealed, scratch []byte) {
	switch {
	case quick:
		frame = slices.Grow(frame[:0], 1+max(s2.MaxEncodedLen(len(record)), 0))
		room := frame[1:cap(frame)]
		if len(record) > dictLimit {
			frame = append(frame[:0], frameS2)
			frame = frame[:1+len(s2.Encode(room, record))]
		} else {
			frame = append(frame[:0], frameS2Dict)
			frame = frame[:1+len(contentS2.Encode(room, record))]
		}
	case len(record) > dictLimit:
		frame = plainEnc.EncodeAll(record, append(frame[:0], frameZstd))
	default:
		frame = contentEnc.EncodeAll(record, append(frame[:0], frameZstdDict))
	}
	if len(frame) == 1 || len(frame) > len(record) {
		frame = append(append(frame[:0], frameRaw), record...)
	}
	n := s.seal.NonceSize()
	sealed = make([]byte, n, n+len(frame)+s.seal.Overhead())
	rand.Read(sealed)
	return s.seal.Seal(sealed, sealed[:n], frame, blobData(s.ID, blob)), frame
}

func blobData(scope, blob int64) []byte {
	b := make([]byte, 0, 40)
	b = append(b, "fairlead.blob.v1\n"...)
	b = binary.BigEndian.AppendUint64(b, uint64(scope))
	return binary.BigEndian.AppendUint64(b, uint64(blob))
}

func openSealed(s *Scope, blob int64, sealed []byte) ([]byte, error) {
	n := s.seal.NonceSize()
	if len(sealed) < n {
		return nil, fmt.Errorf("blob %d is cut off", blob)
	}
	frame, err := s.seal.Open(nil, sealed[:n], sealed[n:], blobData(s.ID, blob))
	if err != nil || len(frame) == 0 {
		return nil, fmt.Errorf("blob %d was altered: it does not open with the key of its scope %d", blob, s.ID)
	}
	switch frame[0] {
	case frameRaw:
		return frame[1:], nil
	case frameZstd, frameZstdDict:
		record, err := contentDec.DecodeAll(frame[1:], nil)
		if err != nil {
			return nil, fmt.Errorf("blob %d does not decompress: %w", blob, err)
		}
		return record, nil
	case frameS2, frameS2Dict:
		if n, err := s2.DecodedLen(frame[1:]); err != nil || n > maxRecord {
			return nil, fmt.Errorf("blob %d does not decompress: its length is damaged", blob)
		}
		decode := s2.Decode
		if frame[0] == frameS2Dict {
			decode = contentS2.Decode
		}
		record, err := decode(nil, frame[1:])
		if err != nil {
			return nil, fmt.Errorf("blob %d does not decompress: %w", blob, err)
		}
		return record, nil
	}
	return nil, fmt.Errorf("blob %d has codec %d, which this version does not know", blob, frame[0])
}

// Seal seals body under scope as the content called name. Parts that the scope, or the application's shared scope,
// holds already are referred to, not stored again; layout says where to look for them and may be nil. names are the
// clear names behind the pseudonyms of the fact. The result may be several blobs, all of which must be recorded with
// the fact: the body's is the first.
func (v *Vault) Seal(scope *Scope, name string, body []byte, layout *Layout, names []string) []*Blob {
	p := planner{v: v, scope: scope, body: body}
	p.plan(layout)
	b := v.seal(scope, name, body, p.ops, names)
	p.learn(b)
	return append([]*Blob{b}, p.shared...)
}

func (v *Vault) seal(scope *Scope, name string, body []byte, ops []op, names []string) *Blob {
	b := &Blob{scope: scope, Content: fairlead.Content{Name: name, Blob: v.nextBlob.Add(1), Scope: scope.ID, Bytes: int64(len(body))}}
	buf := buffers.Get().(*[2][]byte)
	buf[0] = appendRecord(buf[0][:0], body, ops, names)
	b.data, buf[1] = sealRecord(scope, b.Content.Blob, buf[0], buf[1], v.busy.Load())
	if cap(buf[0])+cap(buf[1]) < 1<<20 {
		buffers.Put(buf)
	}
	mac := hmac.New(sha256.New, scope.address)
	mac.Write(body)
	mac.Sum(b.Content.Address[:0])
	b.Content.Sealed = sha256.Sum256(b.data)
	return b
}

// Relearn remembers where the parts of recorded content are, so that they are not stored again after a restart.
func (v *Vault) Relearn(ctx context.Context, c fairlead.Content, o Opened, layout *Layout) error {
	scope, err := v.Scope(ctx, c.Scope)
	if err != nil {
		return err
	}
	p := planner{v: v, scope: scope, body: o.Body, again: true}
	p.plan(layout)
	b := &Blob{Content: c}
	p.learn(b)
	for i := range b.learned {
		if b.learned[i].key.kind == keyChain {
			b.learned[i].ref.depth = o.depth + 1
		}
	}
	v.index.learn(b.learned)
	return nil
}

// Opened is content as it was recorded.
type Opened struct {
	Body  []byte
	Names []string
	depth int
}

// Open gives back the exact bytes of content, and the names that stand with it. It checks them against the address.
func (v *Vault) Open(ctx context.Context, c fairlead.Content) (Opened, error) {
	return v.Opener().Open(ctx, c)
}

// An Opener opens many contents in a row and remembers for a while what they have in common. It is not safe for
// concurrent use.
type Opener struct{ b rebuilder }

// Opener gives an opener.
func (v *Vault) Opener() *Opener {
	return &Opener{rebuilder{v: v, records: map[int64]*record{}, scopes: map[int64]*Scope{}}}
}

// maxOpened bounds the records that an opener remembers.
const maxOpened = 4096

// Open is [Vault.Open].
func (o *Opener) Open(ctx context.Context, c fairlead.Content) (Opened, error) {
	b := &o.b
	if len(b.records) > maxOpened {
		clear(b.records)
		clear(b.scopes)
	}
	b.ctx, b.scope, b.app, b.work, b.depth = ctx, 0, 0, 0, 0
	rec, scope, err := b.record(c.Blob)
	if err != nil {
		return Opened{}, err
	}
	if scope.ID != c.Scope || rec.size != c.Bytes {
		return Opened{}, fmt.Errorf("blob %d is not the content that the event refers to", c.Blob)
	}
	body, err := b.copy(make([]byte, 0, rec.size), c.Blob, 0, rec.size, 0)
	if err != nil {
		return Opened{}, err
	}
	mac := hmac.New(sha256.New, scope.address)
	mac.Write(body)
	if !hmac.Equal(mac.Sum(nil), c.Address[:]) {
		return Opened{}, fmt.Errorf("the bytes rebuilt from blob %d are not those that were recorded", c.Blob)
	}
	return Opened{Body: body, Names: rec.names, depth: b.depth}, nil
}

// blob reads a sealed blob.
func (r *Reader) blob(ctx context.Context, id int64) (scope int64, data []byte, err error) {
	err = r.db.Read(ctx, func(c *sqlite.Conn) error {
		return sqlitex.Execute(c, "select scope, data from blob where id = ?", &sqlitex.ExecOptions{Args: []any{id},
			ResultFunc: func(s *sqlite.Stmt) error {
				scope = s.ColumnInt64(0)
				data = make([]byte, s.ColumnLen(1))
				s.ColumnBytes(1, data)
				return nil
			}})
	})
	if err == nil && data == nil {
		err = fmt.Errorf("blob %d is missing", id)
	}
	return scope, data, err
}

// NewMAC starts the keyed hash under which scope addresses content; for running hashes of answers that still flow.
func (s *Scope) NewMAC() *MAC { return &MAC{hmac.New(sha256.New, s.address)} }

// A MAC is a keyed hash that can be read while it grows.
type MAC struct {
	h interface {
		Write([]byte) (int, error)
		Sum([]byte) []byte
	}
}

// Write adds bytes; it never fails.
func (m *MAC) Write(b []byte) (int, error) { return m.h.Write(b) }

// Sum is the hash of what was written so far.
func (m *MAC) Sum() fairlead.Digest { return fairlead.Digest(bytes.Clone(m.h.Sum(nil))) }
