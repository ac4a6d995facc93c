// Package seal holds the secret keys of a log: the two that sign its checkpoints and the one that wraps the key scopes of
// its vault. They live in a keys folder, by default among the user's configuration, never in the data folder, so that a
// copy of the data is neither readable nor able to sign.
//
// The keys folder has one folder per log, named after its origin, with files that only their owner may read:
//
//	log.key    two lines, the seeds of the Ed25519 and the ML-DSA-44 signing key, in base64
//	wrap.key   one line, the wrapping key, in base64
//	head       the newest checkpoint that was signed
//
// head is what keeps a restored backup from forking the log: nothing is signed that does not extend it.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/mldsa"
	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/note"
)

// Keys are the keys of one log. They are safe for concurrent use and never print.
type Keys struct {
	dir    string
	origin string
	ed     ed25519.PrivateKey
	pq     *mldsa.PrivateKey
	wrap   []byte
	aead   cipher.AEAD
}

// String says whose keys they are, and no more.
func (k *Keys) String() string { return "[keys of " + k.origin + "]" }

// GoString is String.
func (k *Keys) GoString() string { return k.String() }

// Origin is the name of the log.
func (k *Keys) Origin() string { return k.origin }

// ErrNoKeys is wrapped in the error of [Load] when the folder has no keys of that log.
var ErrNoKeys = errors.New("the keys of this log are not here")

// folder is where the keys of the log origin live in dir. Origins hold slashes and dots, which are not for file names.
func folder(dir, origin string) string {
	return filepath.Join(dir, strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == ':' || r < ' ' {
			return '_'
		}
		return r
	}, strings.TrimLeft(origin, ".")))
}

// Load reads the keys of the log called origin from the keys folder dir.
func Load(dir, origin string) (*Keys, error) {
	k := &Keys{dir: folder(dir, origin), origin: origin}
	seeds, err := readLines(filepath.Join(k.dir, "log.key"), 2)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: looked for %s in %s", ErrNoKeys, origin, dir)
	}
	if err != nil {
		return nil, err
	}
	wrap, err := readLines(filepath.Join(k.dir, "wrap.key"), 1)
	if err != nil {
		return nil, err
	}
	return k, k.set(seeds[0], seeds[1], wrap[0])
}

func (k *Keys) set(edSeed, pqSeed, wrap []byte) error {
	k.ed = ed25519.NewKeyFromSeed(edSeed)
	pq, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), pqSeed)
	if err != nil {
		return fmt.Errorf("the ML-DSA-44 key of %s: %w", k.origin, err)
	}
	block, err := aes.NewCipher(wrap)
	if err != nil {
		return fmt.Errorf("the wrapping key of %s: %w", k.origin, err)
	}
	k.pq, k.wrap = pq, wrap
	k.aead, err = cipher.NewGCM(block)
	return err
}

// Create makes the keys of a new log and writes them to the keys folder dir. It never overwrites any.
func Create(dir, origin string) (*Keys, error) {
	k := &Keys{dir: folder(dir, origin), origin: origin}
	if _, err := os.Stat(filepath.Join(k.dir, "log.key")); err == nil {
		return nil, fmt.Errorf("%s already holds keys", k.dir)
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the keys folder: %w", err)
	}
	secret := make([]byte, 96)
	rand.Read(secret)
	if err := k.set(secret[:32], secret[32:64], secret[64:]); err != nil {
		return nil, err
	}
	line := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) + "\n" }
	// The wrapping key first: a log.key without it would look like a whole set.
	if err := WriteFile(filepath.Join(k.dir, "wrap.key"), []byte(line(secret[64:])), 0o600); err != nil {
		return nil, err
	}
	return k, WriteFile(filepath.Join(k.dir, "log.key"), []byte(line(secret[:32])+line(secret[32:64])), 0o600)
}

func readLines(path string, n int) ([][]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > 4096 {
		return nil, fmt.Errorf("%s is no key file", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	out := make([][]byte, n)
	for i := range out {
		if len(lines) == n {
			out[i], err = base64.StdEncoding.DecodeString(lines[i])
		}
		if err != nil || len(out[i]) != 32 {
			return nil, fmt.Errorf("%s is damaged: expected %d lines of 32 bytes in base64", path, n)
		}
	}
	return out, nil
}

// WriteFile writes a file so that after a crash either the old or the new content is there, whole and durable.
func WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	// Not every system can sync a folder; where it cannot, the rename is as durable as it gets.
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		_ = d.Sync()
		d.Close()
	}
	return nil
}

// Signers are the two signers of checkpoints. now gives POSIX seconds.
func (k *Keys) Signers(now func() int64) ([]note.Signer, error) {
	pq, err := verify.NewMLDSASigner(k.origin, k.pq, now)
	if err != nil {
		return nil, err
	}
	pub := append([]byte{1}, k.ed.Public().(ed25519.PublicKey)...)
	h := sha256.Sum256(append([]byte(k.origin+"\n"), pub...))
	secret := fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", k.origin, binary.BigEndian.Uint32(h[:4]),
		base64.StdEncoding.EncodeToString(append([]byte{1}, k.ed.Seed()...)))
	ed, err := note.NewSigner(secret)
	if err != nil {
		return nil, fmt.Errorf("the Ed25519 key of %s cannot sign under that name", k.origin)
	}
	return []note.Signer{ed, pq}, nil
}

// VerifierKeys is the text that [verify.ParseKeys] reads: the public halves, a line each.
func (k *Keys) VerifierKeys() (string, error) {
	ed, err := verify.Ed25519VerifierKey(k.origin, k.ed.Public().(ed25519.PublicKey))
	if err != nil {
		return "", err
	}
	return ed + "\n" + verify.VerifierKey(k.origin, k.pq.PublicKey()) + "\n", nil
}

// Derive makes a 32-byte key for one purpose from the wrapping key (HKDF-SHA-256).
func (k *Keys) Derive(purpose string) []byte {
	key, err := hkdf.Key(sha256.New, k.wrap, nil, "fairlead.derive.v1 "+purpose, 32)
	if err != nil {
		panic(err) // only for lengths beyond 255 hashes
	}
	return key
}

func scopeData(scope int64) []byte {
	return binary.BigEndian.AppendUint64([]byte("fairlead.scope.v1\n"), uint64(scope))
}

// Wrap encrypts the key of a scope for storage.
func (k *Keys) Wrap(scope int64, key []byte) []byte {
	nonce := make([]byte, k.aead.NonceSize(), k.aead.NonceSize()+len(key)+k.aead.Overhead())
	rand.Read(nonce)
	return k.aead.Seal(nonce, nonce, key, scopeData(scope))
}

// Unwrap decrypts what [Keys.Wrap] made.
func (k *Keys) Unwrap(scope int64, wrapped []byte) ([]byte, error) {
	n := k.aead.NonceSize()
	if len(wrapped) < n {
		return nil, fmt.Errorf("the key of scope %d is cut off", scope)
	}
	key, err := k.aead.Open(nil, wrapped[:n], wrapped[n:], scopeData(scope))
	if err != nil {
		return nil, fmt.Errorf("the key of scope %d does not open with the wrapping key of %s: it was altered, or made under another one", scope, k.origin)
	}
	return key, nil
}

// Head is the newest signed checkpoint, or nil if none was ever signed.
func (k *Keys) Head() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(k.dir, "head"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// SetHead replaces it, durably. A checkpoint may be shown to anybody only after that.
func (k *Keys) SetHead(signed []byte) error {
	if err := WriteFile(filepath.Join(k.dir, "head"), signed, 0o600); err != nil {
		return fmt.Errorf("keeping the signed head outside the data folder: %w", err)
	}
	return nil
}
