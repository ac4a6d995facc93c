package verify

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"filippo.io/mldsa"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Checkpoint is a signed tree head (c2sp.org/tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
	// Signers are the names of the keys whose signatures were checked.
	Signers []string
}

// Text is the checkpoint's body, as it is signed.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// Signature types of c2sp.org/signed-note and c2sp.org/tlog-cosignature.
const (
	algEd25519 = 0x01
	algMLDSA44 = 0x06
)

// Keys are the verifier keys of one log.
type Keys struct {
	Origin    string
	verifiers []note.Verifier
}

// ParseKeys reads verifier keys, one a line: NAME+HASH+base64(type ‖ key). All must have the same name, which is the
// log's origin; one must be Ed25519 and at most one ML-DSA-44. Empty lines and lines that start with # are skipped.
func ParseKeys(text string) (Keys, error) {
	var k Keys
	seen := map[byte]bool{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		v, alg, err := parseVerifier(line)
		if err != nil {
			return Keys{}, fmt.Errorf("line %d: %w", i+1, err)
		}
		switch {
		case k.Origin != "" && v.Name() != k.Origin:
			return Keys{}, fmt.Errorf("line %d: this key is of %q, the one above of %q: give the keys of one log", i+1, v.Name(), k.Origin)
		case seen[alg]:
			return Keys{}, fmt.Errorf("line %d: a second key of the same type", i+1)
		}
		k.Origin, seen[alg] = v.Name(), true
		k.verifiers = append(k.verifiers, v)
	}
	if !seen[algEd25519] {
		return Keys{}, errors.New("no Ed25519 verifier key: expected a line NAME+HASH+KEY")
	}
	return k, nil
}

func parseVerifier(line string) (note.Verifier, byte, error) {
	name, rest, ok1 := strings.Cut(line, "+")
	hash, key64, ok2 := strings.Cut(rest, "+")
	key, ok3 := strictBase64(key64)
	if !ok1 || !ok2 || !ok3 || len(key) < 1 || !validName(name) {
		return nil, 0, fmt.Errorf("%.40q is not a verifier key: expected NAME+HASH+KEY", line)
	}
	if want := fmt.Sprintf("%08x", keyHash(name, key)); hash != want {
		return nil, 0, fmt.Errorf("the key of %q does not have the hash %.8q that it names", name, hash)
	}
	switch key[0] {
	case algEd25519:
		v, err := note.NewVerifier(line)
		return v, algEd25519, err
	case algMLDSA44:
		v, err := newMLDSAVerifier(name, key[1:])
		return v, algMLDSA44, err
	}
	return nil, 0, fmt.Errorf("the key of %q has type %#02x; Ed25519 (0x01) and ML-DSA-44 (0x06) are known", name, key[0])
}

func validName(s string) bool {
	return s != "" && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsSpace) < 0 && !strings.Contains(s, "+")
}

// keyHash is the key ID of c2sp.org/signed-note; key starts with the signature type.
func keyHash(name string, key []byte) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write(key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// VerifierKey is the text form of an ML-DSA-44 verifier key.
func VerifierKey(name string, pub *mldsa.PublicKey) string {
	key := append([]byte{algMLDSA44}, pub.Bytes()...)
	return fmt.Sprintf("%s+%08x+%s", name, keyHash(name, key), base64.StdEncoding.EncodeToString(key))
}

// mldsaKey verifies, and with a private key makes, ML-DSA-44 cosignatures on checkpoints.
type mldsaKey struct {
	name string
	hash uint32
	pub  *mldsa.PublicKey
	priv *mldsa.PrivateKey
	now  func() int64

	deterministic bool // for test vectors
}

func newMLDSAVerifier(name string, key []byte) (*mldsaKey, error) {
	pub, err := mldsa.NewPublicKey(mldsa.MLDSA44(), key)
	if err != nil {
		return nil, fmt.Errorf("the ML-DSA-44 key of %q: %w", name, err)
	}
	return &mldsaKey{name: name, hash: keyHash(name, append([]byte{algMLDSA44}, key...)), pub: pub}, nil
}

// NewMLDSASigner gives a note signer whose lines are ML-DSA-44 cosignatures (c2sp.org/tlog-cosignature) by the log
// itself. now gives POSIX seconds.
func NewMLDSASigner(name string, priv *mldsa.PrivateKey, now func() int64) (note.Signer, error) {
	if !validName(name) {
		return nil, fmt.Errorf("%q is no key name: it may hold neither spaces nor +", name)
	}
	k, err := newMLDSAVerifier(name, priv.PublicKey().Bytes())
	if err != nil {
		return nil, err
	}
	k.priv, k.now = priv, now
	return k, nil
}

func (k *mldsaKey) Name() string    { return k.name }
func (k *mldsaKey) KeyHash() uint32 { return k.hash }

func (k *mldsaKey) Sign(text []byte) ([]byte, error) {
	t := uint64(k.now())
	msg, err := subtreeMessage(k.name, t, text)
	if err != nil {
		return nil, err
	}
	var sig []byte
	if k.deterministic {
		sig, err = k.priv.SignDeterministic(msg, &mldsa.Options{})
	} else {
		sig, err = k.priv.Sign(nil, msg, &mldsa.Options{})
	}
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint64(nil, t), sig...), nil
}

func (k *mldsaKey) Verify(text, sig []byte) bool {
	if len(sig) < 8 {
		return false
	}
	t := binary.BigEndian.Uint64(sig)
	msg, err := subtreeMessage(k.name, t, text)
	return err == nil && t < 1<<63 && mldsa.Verify(k.pub, msg, sig[8:], &mldsa.Options{}) == nil
}

// subtreeMessage is the cosigned_message structure for a whole tree.
func subtreeMessage(name string, t uint64, text []byte) ([]byte, error) {
	c, err := parseCheckpointText(string(text))
	if err != nil {
		return nil, err
	}
	if len(name) > 255 || len(c.Origin) > 255 {
		return nil, errors.New("a name longer than 255 bytes cannot be cosigned")
	}
	b := []byte("subtree/v1\n\x00")
	b = append(append(b, byte(len(name))), name...)
	b = binary.BigEndian.AppendUint64(b, t)
	b = append(append(b, byte(len(c.Origin))), c.Origin...)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Size))
	return append(b, c.Root[:]...), nil
}

// maxCheckpoint bounds what is parsed: a body and some 16 post-quantum signatures.
const maxCheckpoint = 128 << 10

// OpenCheckpoint checks the signatures of a signed checkpoint against keys and reads it. There must be a good signature
// by each of the keys: one that may be missing protects nobody. Of several lines by one key the first counts; lines by
// others (witnesses) are skipped.
func (k Keys) OpenCheckpoint(signed []byte) (Checkpoint, error) {
	if len(signed) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("a checkpoint of %d bytes is too long to be one", len(signed))
	}
	n, err := note.Open(signed, note.VerifierList(k.verifiers...))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the checkpoint is not signed by %s: %w", k.Origin, err)
	}
	c, err := parseCheckpointText(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != k.Origin {
		return Checkpoint{}, fmt.Errorf("the checkpoint is of the log %q, expected %q", c.Origin, k.Origin)
	}
	for _, v := range k.verifiers {
		kind := "Ed25519"
		if _, ok := v.(*mldsaKey); ok {
			kind = "ML-DSA-44"
		}
		i := slices.IndexFunc(n.Sigs, func(s note.Signature) bool { return s.Hash == v.KeyHash() })
		if i < 0 {
			return Checkpoint{}, fmt.Errorf("the checkpoint lacks the %s signature of %s", kind, k.Origin)
		}
		if _, ok := strictBase64(n.Sigs[i].Base64); !ok {
			return Checkpoint{}, fmt.Errorf("the %s signature of %s is not canonical base64", kind, k.Origin)
		}
		c.Signers = append(c.Signers, k.Origin+" ("+kind+")")
	}
	return c, nil
}

// parseCheckpointText reads a checkpoint body: exactly three lines.
func parseCheckpointText(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] == "" {
		return Checkpoint{}, errors.New("the checkpoint's body must have three lines: origin, size, root hash")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("the checkpoint's size %.30q is not a number", lines[1])
	}
	root, ok := strictBase64(lines[2])
	if !ok || len(root) != sha256.Size {
		return Checkpoint{}, fmt.Errorf("the checkpoint's root hash %.60q is not 32 bytes of base64", lines[2])
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: tlog.Hash(root)}
	if size == 0 && c.Root != (&Frontier{}).Root() {
		return Checkpoint{}, errors.New("the checkpoint's tree is empty, its root hash is not that of an empty tree")
	}
	return c, nil
}

// Ed25519VerifierKey is the text form of an Ed25519 verifier key.
func Ed25519VerifierKey(name string, pub ed25519.PublicKey) (string, error) {
	return note.NewEd25519VerifierKey(name, pub)
}
