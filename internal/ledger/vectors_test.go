package ledger

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairleadhq/fairlead"
	"github.com/klauspost/compress/s2"
	"zombiezen.com/go/sqlite"
)

var updateVectors = flag.Bool("update", false, "write the vault vectors of verify/testdata/format anew")

// A vaultVector is a sealed blob, with those that it refers to and the keys of their scopes, and what must come out.
// Byte strings are in base64. original and names are null in a vector that must be refused.
type vaultVector struct {
	Why    string           `json:"why"`
	Scopes map[int64][]byte `json:"scopes"` // number to key
	Apps   map[int64]int64  `json:"apps"`   // number to that of the application's shared scope
	Blobs  []vectorBlob     `json:"blobs"`
	// What an event says of the last blob.
	Bytes    int64    `json:"bytes"`
	Address  []byte   `json:"address"`
	Original *[]byte  `json:"original"`
	Names    []string `json:"names"`
}

type vectorBlob struct {
	Number int64  `json:"number"`
	Scope  int64  `json:"scope"`
	Sealed []byte `json:"sealed"`
}

const vectorOriginal = `{"model":"m","messages":[{"role":"user","content":"tell me a story"}]}`

// vaultVectors makes the vectors. Keys and nonces are fixed; how well zstd compresses may change, so that the files, not
// this, are what later versions must read.
func vaultVectors(t *testing.T) map[string]vaultVector {
	key := func(n int64) []byte {
		s := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("fairlead test vectors: scope"), uint64(n)))
		return s[:]
	}
	scope := func(n int64) *Scope {
		s := &Scope{ID: n}
		if err := s.setKey(key(n)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	frame := func(s *Scope, blob int64, frame []byte) []byte {
		nonce := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(blob)))
		return s.seal.Seal(bytes.Clone(nonce[:12]), nonce[:12], frame, blobData(s.ID, blob))
	}
	raw := func(s *Scope, blob int64, record []byte) vectorBlob {
		return vectorBlob{blob, s.ID, frame(s, blob, append([]byte{frameRaw}, record...))}
	}
	original := []byte(vectorOriginal)
	rest := []op{{0, 0, int64(len(original))}}
	whole := appendRecord(nil, original, rest, []string{"user", "alice@example.com"})
	app, one, two := scope(1), scope(2), scope(3)
	address := func(s *Scope, body []byte) []byte {
		m := hmac.New(sha256.New, s.address)
		m.Write(body)
		return m.Sum(nil)
	}
	good := vaultVector{Why: "one record, as it is", Scopes: map[int64][]byte{1: key(1), 2: key(2), 3: key(3)}, Apps: map[int64]int64{1: 1, 2: 1, 3: 1},
		Blobs: []vectorBlob{raw(one, 7, whole)}, Bytes: int64(len(original)), Address: address(one, original), Original: &original,
		Names: []string{"user", "alice@example.com"}}
	accept := func(why string, edit func(v *vaultVector)) vaultVector {
		v := good
		v.Why = why
		edit(&v)
		return v
	}
	reject := func(why string, edit func(v *vaultVector)) vaultVector {
		v := accept(why, edit)
		v.Original, v.Names = nil, nil
		return v
	}
	record := func(parts ...any) []byte { // literal bytes and uvarints
		b := []byte{recordVersion, 0}
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				b = binary.AppendUvarint(b, uint64(p))
			case string:
				b = append(b, p...)
			}
		}
		return b
	}
	n := len(original)
	bad := func(why string, rec []byte) vaultVector {
		return reject(why, func(v *vaultVector) { v.Blobs = []vectorBlob{raw(app, 6, whole), raw(one, 7, rec)} })
	}
	sealed := good.Blobs[0].Sealed
	empty := []byte{}
	return map[string]vaultVector{
		"accept/raw": good,
		"accept/zstd": accept("codec 1", func(v *vaultVector) {
			v.Blobs = []vectorBlob{{7, 2, frame(one, 7, plainEnc.EncodeAll(whole, []byte{frameZstd}))}}
		}),
		"accept/zstd-dictionary": accept("codec 2", func(v *vaultVector) {
			v.Blobs = []vectorBlob{{7, 2, frame(one, 7, contentEnc.EncodeAll(whole, []byte{frameZstdDict}))}}
		}),
		"accept/s2": accept("codec 3", func(v *vaultVector) {
			v.Blobs = []vectorBlob{{7, 2, frame(one, 7, append([]byte{frameS2}, s2.Encode(nil, whole)...))}}
		}),
		"accept/s2-dictionary": accept("codec 4", func(v *vaultVector) {
			v.Blobs = []vectorBlob{{7, 2, frame(one, 7, append([]byte{frameS2Dict}, contentS2.Encode(make([]byte, 4096), whole)...))}}
		}),
		"reject/s2": reject("codec 3, and no S2", func(v *vaultVector) {
			v.Blobs = []vectorBlob{{7, 2, frame(one, 7, append([]byte{frameS2}, whole...))}}
		}),
		"accept/references": accept("parts of a blob of the same scope and of one of the application's shared scope, which refers to a third", func(v *vaultVector) {
			v.Blobs = []vectorBlob{raw(app, 4, whole), raw(app, 5, record(n, 1, 4, 0, n)), raw(one, 6, whole),
				raw(one, 7, record(n, 1, 6, 0, 10, 0, 5, vectorOriginal[10:15], 1, 5, 15, n-15))}
			v.Names = nil
		}),
		"accept/empty": accept("no bytes", func(v *vaultVector) {
			v.Blobs, v.Bytes, v.Address, v.Original, v.Names = []vectorBlob{raw(one, 7, record(0))}, 0, address(one, nil), &empty, nil
		}),
		"reject/scope":      reject("sealed under another scope", func(v *vaultVector) { v.Blobs = []vectorBlob{{7, 3, sealed}} }),
		"reject/number":     reject("sealed as another blob", func(v *vaultVector) { v.Blobs = []vectorBlob{{8, 2, sealed}} }),
		"reject/cut-off":    reject("cut off", func(v *vaultVector) { v.Blobs = []vectorBlob{{7, 2, sealed[:len(sealed)-1]}} }),
		"reject/nonce-only": reject("nothing but a nonce", func(v *vaultVector) { v.Blobs = []vectorBlob{{7, 2, sealed[:12]}} }),
		"reject/nothing":    reject("no bytes", func(v *vaultVector) { v.Blobs = []vectorBlob{{7, 2, []byte{}}} }),
		"reject/altered":    reject("one bit altered", func(v *vaultVector) { b := bytes.Clone(sealed); b[20] ^= 1; v.Blobs = []vectorBlob{{7, 2, b}} }),
		"reject/no-codec":   reject("a frame without codec", func(v *vaultVector) { v.Blobs = []vectorBlob{{7, 2, frame(one, 7, nil)}} }),
		"reject/codec":      reject("codec 5", func(v *vaultVector) { v.Blobs = []vectorBlob{{7, 2, frame(one, 7, append([]byte{5}, whole...))}} }),
		"reject/zstd": reject("codec 1, and no zstd", func(v *vaultVector) {
			v.Blobs = []vectorBlob{{7, 2, frame(one, 7, append([]byte{frameZstd}, whole...))}}
		}),
		"reject/address":      reject("another address", func(v *vaultVector) { v.Address = address(two, original) }),
		"reject/length":       reject("another length", func(v *vaultVector) { v.Bytes++ }),
		"reject/version":      bad("record version 2", append([]byte{2}, whole[1:]...)),
		"reject/forward":      bad("a reference to a later blob", record(n, 1, 8, 0, n)),
		"reject/blob-0":       bad("a reference to blob 0", record(n, 1, 0, 0, n)),
		"reject/itself":       bad("a reference to itself", record(n, 1, 7, 0, n)),
		"reject/missing":      bad("a reference to a blob that is not there", record(n, 1, 5, 0, n)),
		"reject/beyond":       bad("a reference beyond the end of the other original", record(n, 1, 6, 1, n)),
		"reject/beyond-huge":  bad("a reference whose end overflows", record(n, 1, 6, 1<<62-1, n)),
		"reject/operation":    bad("operation 2", record(n, 2, n)),
		"reject/no-bytes":     bad("an operation that gives no bytes", record(n, 0, 0, 1, 6, 0, n)),
		"reject/too-few":      bad("operations end early", record(n, 1, 6, 0, n-1)),
		"reject/too-many":     bad("operations give more than the length", record(n-1, 1, 6, 0, n)),
		"reject/trailing":     bad("bytes after the last operation", record(n, 1, 6, 0, n, 0)),
		"reject/literal-long": bad("a literal that is longer than the record", record(n, 0, n, "short")),
		"reject/names":        bad("65 pairs of names", append([]byte{recordVersion, 65}, make([]byte, 200)...)),
		"reject/application": reject("a reference into another application", func(v *vaultVector) {
			v.Apps = map[int64]int64{1: 1, 2: 2, 3: 1}
			v.Blobs = []vectorBlob{raw(app, 6, whole), raw(one, 7, record(n, 1, 6, 0, n))}
		}),
	}
}

func TestVaultVectors(t *testing.T) {
	dir := filepath.Join("..", "..", "verify", "testdata", "format", "vault")
	vectors := vaultVectors(t)
	if *updateVectors {
		for name, v := range vectors {
			b, err := json.MarshalIndent(v, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, filepath.FromSlash(name)+".json")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	if err != nil || len(files) != len(vectors) {
		t.Fatalf("%d vectors in %s, %d are known (%v)", len(files), dir, len(vectors), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var v vaultVector
			if err := json.Unmarshal(b, &v); err != nil {
				t.Fatal(err)
			}
			got, err := openVector(t, v)
			if v.Original == nil {
				if err == nil {
					t.Errorf("%s: opened as %q", v.Why, got.Body)
				}
				return
			}
			if err != nil || !bytes.Equal(got.Body, *v.Original) || !equalNames(got.Names, v.Names) {
				t.Errorf("%s: %q %q, %v", v.Why, got.Body, got.Names, err)
			}
		})
	}
}

func equalNames(a, b []string) bool {
	x, _ := json.Marshal(append([]string{}, a...))
	y, _ := json.Marshal(append([]string{}, b...))
	return bytes.Equal(x, y)
}

// openVector puts a vector into a ledger and opens its last blob.
func openVector(t *testing.T, v vaultVector) (Opened, error) {
	l := open(t, config(t))
	f := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	f(l.db.Write(func(c *sqlite.Conn) error {
		for id, key := range v.Scopes {
			if err := exec(c, "insert into scope(id, app, name, key) values(?, ?, null, ?)", id, v.Apps[id], l.keys.Wrap(id, key)); err != nil {
				return err
			}
		}
		for _, b := range v.Blobs {
			if err := exec(c, "insert into blob(id, scope, data) values(?, ?, ?)", b.Number, b.Scope, b.Sealed); err != nil {
				return err
			}
		}
		return nil
	}))
	last := v.Blobs[len(v.Blobs)-1]
	return l.Vault().Open(t.Context(), fairlead.Content{Blob: last.Number, Scope: last.Scope, Bytes: v.Bytes,
		Address: fairlead.Digest(v.Address), Sealed: sha256.Sum256(last.Sealed)})
}
