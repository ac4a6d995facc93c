package verify

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/mldsa"
	"github.com/fairleadhq/fairlead"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Public test keys: whoever reads this can sign with them.
const testOrigin = "vectors.example/log"

func seed(label string) []byte {
	s := sha256.Sum256([]byte("fairlead test vectors: " + label))
	return s[:]
}

// testSigners gives signers whose signatures are the same every time, and their verifier keys.
func testSigners(t testing.TB) (signers []note.Signer, keys string) {
	t.Helper()
	priv := ed25519.NewKeyFromSeed(seed("ed25519"))
	pub := priv.Public().(ed25519.PublicKey)
	edKey, err := Ed25519VerifierKey(testOrigin, pub)
	if err != nil {
		t.Fatal(err)
	}
	pq, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), seed("ml-dsa-44"))
	if err != nil {
		t.Fatal(err)
	}
	now := func() int64 { return 1_800_000_000 }
	s, err := NewMLDSASigner(testOrigin, pq, now)
	if err != nil {
		t.Fatal(err)
	}
	s.(*mldsaKey).deterministic = true
	return []note.Signer{edSigner{testOrigin, keyHash(testOrigin, append([]byte{algEd25519}, pub...)), priv}, s},
		edKey + "\n" + VerifierKey(testOrigin, pq.PublicKey()) + "\n"
}

type edSigner struct {
	name string
	hash uint32
	priv ed25519.PrivateKey
}

func (s edSigner) Name() string                     { return s.name }
func (s edSigner) KeyHash() uint32                  { return s.hash }
func (s edSigner) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.priv, text), nil }

func sign(t testing.TB, size int64, root tlog.Hash, signers ...note.Signer) []byte {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: Checkpoint{Origin: testOrigin, Size: size, Root: root}.Text()}, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// memLog is a log in memory.
type memLog struct {
	size        int64
	root        tlog.Hash
	events      [][]byte
	tiles       map[pos][]tlog.Hash
	blobs       map[int64]memBlob
	scopes      map[int64]bool
	checkpoints []memCheckpoint
}

type memBlob struct {
	scope  int64
	sealed []byte
}

type memCheckpoint struct {
	size   int64
	signed []byte
}

func (m *memLog) Head(context.Context) (int64, tlog.Hash, error) { return m.size, m.root, nil }

func (m *memLog) Events(_ context.Context, from int64, each func(int64, []byte) error) error {
	for seq := from; seq < int64(len(m.events)); seq++ {
		if m.events[seq] == nil {
			continue
		}
		if err := each(seq, m.events[seq]); err != nil {
			return err
		}
	}
	return nil
}

func (m *memLog) Strays(context.Context, func(int64, string) error) error { return nil }

func (m *memLog) StoredTile(_ context.Context, level int, n int64) ([]tlog.Hash, error) {
	return m.tiles[pos{level, n}], nil
}

func (m *memLog) Tiles(_ context.Context, each func(int, int64) error) error {
	for p := range m.tiles {
		if err := each(p.level, p.n); err != nil {
			return err
		}
	}
	return nil
}

func (m *memLog) Blob(_ context.Context, id int64) (int64, []byte, error) {
	b := m.blobs[id]
	return b.scope, b.sealed, nil
}

func (m *memLog) Blobs(_ context.Context, each func(int64) error) error {
	for _, id := range slices.Sorted(maps.Keys(m.blobs)) {
		if err := each(id); err != nil {
			return err
		}
	}
	return nil
}

func (m *memLog) HasScope(_ context.Context, scope int64) (bool, error) { return m.scopes[scope], nil }

func (m *memLog) Checkpoints(_ context.Context, each func(int64, []byte) error) error {
	for _, c := range m.checkpoints {
		if err := each(c.size, c.signed); err != nil {
			return err
		}
	}
	return nil
}

// newMemLog makes a log of n typical events, the content of each in a blob, with checkpoints at the given sizes.
func newMemLog(t testing.TB, n int, checkpoints ...int64) (*memLog, Keys) {
	t.Helper()
	signers, text := testSigners(t)
	keys, err := ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	m := &memLog{tiles: map[pos][]tlog.Hash{}, blobs: map[int64]memBlob{}, scopes: map[int64]bool{1: true, 2: true}}
	var edge Frontier
	level := make([][]tlog.Hash, maxLevels)
	for i := range n {
		f := typical(i)
		if i%2 == 0 {
			id, sealed := int64(i/2+1), fmt.Appendf(nil, "sealed %d", i)
			scope := int64(1 + i/2%2)
			m.blobs[id] = memBlob{scope, sealed}
			f.Content = []fairlead.Content{{Name: "request", Blob: id, Scope: scope, Bytes: 10, Sealed: sha256.Sum256(sealed)}}
		}
		e, err := AppendEnvelope(nil, f, fairlead.SchemaVersion, [16]byte{byte(i), byte(i >> 8)})
		if err != nil {
			t.Fatal(err)
		}
		m.events = append(m.events, e)
		h := LeafHash(e)
		edge.Append(h)
		for l := range level {
			if level[l] = append(level[l], h); len(level[l]) < TileWidth {
				break
			}
			m.tiles[pos{l, edge.Size()>>(TileHeight*(l+1)) - 1}] = level[l]
			h, level[l] = Subtree(level[l]), nil
		}
		if slices.Contains(checkpoints, edge.Size()) {
			m.checkpoints = append(m.checkpoints, memCheckpoint{edge.Size(), sign(t, edge.Size(), edge.Root(), signers...)})
		}
	}
	m.size, m.root = edge.Size(), edge.Root()
	return m, keys
}

// typical is a fact about as large as those of real calls.
func typical(i int) *fairlead.Fact {
	boot := "abcdefghijklm"
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Millisecond)
	f := &fairlead.Fact{ID: fairlead.ID{Boot: boot, N: uint64(i + 1)}, Tenant: "default", Kind: fairlead.KindCallIntent, Time: at,
		Actor: fairlead.Actor{
			App:  fairlead.Facet{Value: "support", Assurance: fairlead.Verified, Method: "virtual-key"},
			User: fairlead.Facet{Value: "u:9b1deb4d3b7d4bad", Assurance: fairlead.Verified, Method: "oidc", Issuer: "https://issuer.example"},
		},
		Attrs: []fairlead.Attr{{Name: "gen_ai.operation.name", Value: "chat"}, {Name: "gen_ai.provider.name", Value: "openai"},
			{Name: "gen_ai.request.model", Value: "gpt-5-mini"}, {Name: "server.address", Value: "api.openai.com"},
			{Name: "fairlead.route", Value: "openai"}, {Name: "gen_ai.request.stream", Value: true},
			{Name: "gen_ai.request.max_tokens", Value: int64(4096)}, {Name: "http.request.method", Value: "POST"},
			{Name: "url.path", Value: "/v1/chat/completions"}, {Name: "fairlead.tools", Value: []string{"read_document", "send_mail"}}},
	}
	if i > 2 {
		f.Links = []fairlead.Link{{Rel: fairlead.RelContinues, To: fairlead.ID{Boot: boot, N: uint64(i - 2)}, Assurance: fairlead.Derived}}
	}
	return f
}

func TestLog(t *testing.T) {
	m, keys := newMemLog(t, 1500, 1, 256, 700, 1024, 1500)
	ticks := 0
	r, err := Log(t.Context(), m, keys, LogOptions{Since: m.checkpoints[2].signed, Progress: func(int64, int64) { ticks++ }})
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() || len(r.Notes) > 0 {
		t.Errorf("a whole log is not: %v %v", r.Problems, r.Notes)
	}
	if r.Events != 1500 || r.Tiles != 5 || r.Blobs != 750 || r.Checkpoints != 5 || r.Checkpoint.Size != 1500 || r.Root != m.root || ticks == 0 {
		t.Errorf("%+v", r)
	}
	empty, keys := newMemLog(t, 0)
	empty.root = (&Frontier{}).Root()
	if r, err := Log(t.Context(), empty, keys, LogOptions{}); err != nil || !r.OK() {
		t.Errorf("an empty log: %v %v", r.Problems, err)
	}
}

// TestLogBounds shows that what a hostile store claims costs neither time nor memory.
func TestLogBounds(t *testing.T) {
	m, keys := newMemLog(t, 300, 300)
	m.size = 1 << 60
	for i := range m.events {
		m.events[i] = []byte("x")
	}
	start := time.Now()
	r, err := Log(t.Context(), m, keys, LogOptions{})
	if err != nil || r.OK() || time.Since(start) > 5*time.Second {
		t.Fatalf("%v, %d problems after %v", err, len(r.Problems), time.Since(start))
	}
	if len(r.Problems) != maxProblems || r.More < 200 {
		t.Errorf("%d problems and %d more", len(r.Problems), r.More)
	}
}

// TestUpperTiles alters tiles of the second level: in place, and together with what stands below.
func TestUpperTiles(t *testing.T) {
	m, keys := newMemLog(t, 256*256+10, 256*256+10)
	for _, tt := range []struct {
		name  string
		alter func(m *memLog)
		want  string
	}{
		{"one hash", func(m *memLog) { m.tiles[pos{1, 0}][77][3] ^= 1 }, "tile 1/0: its hash 77 is not the root of tile 0/77 (events 19712 to 19967)"},
		{"missing", func(m *memLog) { delete(m.tiles, pos{1, 0}) }, "tile 1/0: it is missing (events 0 to 65535)"},
		{"tile below", func(m *memLog) { m.tiles[pos{0, 9}][5][0] ^= 1 }, "event 2309: its hash is not the one in tile 0/9; the events add up to the tree head: the tile was altered"},
		{"event", func(m *memLog) { m.events[2309] = m.events[2310] }, "event 2309: its hash is not the one in tile 0/9; the tiles add up to the tree head: the event was altered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := *m
			c.events, c.tiles = slices.Clone(m.events), map[pos][]tlog.Hash{}
			for p, h := range m.tiles {
				c.tiles[p] = slices.Clone(h)
			}
			tt.alter(&c)
			r, err := Log(t.Context(), &c, keys, LogOptions{})
			if err != nil {
				t.Fatal(err)
			}
			found := []string{}
			for _, p := range r.Problems {
				found = append(found, p.String())
			}
			if !slices.Contains(found, tt.want) {
				t.Errorf("found\n%s\nexpected\n%s", strings.Join(found, "\n"), tt.want)
			}
		})
	}
}

func BenchmarkLog(b *testing.B) {
	const n = 20_000
	m, keys := newMemLog(b, n, n)
	bytes := 0
	for _, e := range m.events {
		bytes += len(e)
	}
	b.SetBytes(int64(bytes / n))
	b.ReportAllocs()
	b.ResetTimer()
	done := 0
	for done < b.N {
		r, err := Log(context.Background(), m, keys, LogOptions{})
		if err != nil || !r.OK() {
			b.Fatal(err, r.Problems)
		}
		done += n
	}
	b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "events/s")
}
