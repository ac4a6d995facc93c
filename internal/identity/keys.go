package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
)

// A virtual key in text is 64 characters:
//
//	flk_ <id: 10 of a-z2-7> _ <secret: 43 of 0-9A-Za-z> <checksum: 6 of 0-9A-Za-z>
//
// The secret is drawn evenly from base62, 256 bits in all; the checksum is the CRC-32 (IEEE) of the 58 characters
// before it, in base62. There is no dash, so that a double click selects all of it, and secret scanners can be exact.
const (
	keyPrefix   = "flk_"
	keyIDLen    = 10
	keySecret   = 43
	keySum      = 6
	keyIDEnd    = len(keyPrefix) + keyIDLen
	keyBody     = keyIDEnd + 1
	keySumStart = keyBody + keySecret
	keyLen      = keySumStart + keySum
	// keyLeak is how much of the secret makes a torn key dangerous: with 22 of the 43 characters known, fewer than 128
	// bits remain to be guessed.
	keyLeak = 22
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// The attributes of key.created/1. key.revoked/1 has AttrKeyID only, and a link RelRevokes to the fact that created it.
const (
	AttrKeyID      = "fairlead.key.id"      // the public part of the key, 10 characters of lower-case base32
	AttrKeyHash    = "fairlead.key.hash"    // SHA-256 of the whole text of the key, 64 hex digits
	AttrKeyApp     = "fairlead.key.app"     // the app that the key stands for
	AttrKeyName    = "fairlead.key.name"    // optional: what the operator calls this key
	AttrKeyExpires = "fairlead.key.expires" // optional: RFC 3339, UTC, whole seconds
)

// A Key is what is kept of a virtual key: enough to recognise it, not enough to use it.
//
// Hash is a plain SHA-256. Slow password hashes protect guessable secrets; this one has 256 bits of entropy, and no
// attacker who holds the hash can search that.
type Key struct {
	ID      string // public: it may stand in logs
	Hash    fairlead.Digest
	App     string // the operator's name for the app, 1 to 128 bytes
	Name    string
	Tenant  string
	Expires time.Time   // zero: never
	Created time.Time   // when the key.created fact was recorded
	Fact    fairlead.ID // that fact
	Revoked time.Time   // zero: live
}

// NewKey draws a new key. The caller shows the secret once, fills in App and, if wanted, Name and Expires, and records
// a key.created/1 fact with [Key.CreatedAttrs].
func NewKey() (Secret, Key) {
	var id [8]byte
	rand.Read(id[:])
	text := make([]byte, 0, keyLen)
	text = append(text, keyPrefix...)
	text = append(text, lowerBase32.EncodeToString(id[:])[:keyIDLen]...)
	text = append(text, '_')
	for len(text) < keySumStart {
		var b [64]byte
		rand.Read(b[:])
		for _, c := range b {
			// 248 is the largest multiple of 62 in a byte: above it the draw would not be even.
			if c < 248 && len(text) < keySumStart {
				text = append(text, base62[c%62])
			}
		}
	}
	sum := checksum(text)
	text = append(text, sum[:]...)
	return NewSecret(string(text)), Key{ID: string(text[len(keyPrefix):keyIDEnd]), Hash: sha256.Sum256(text)}
}

// Live reports whether the key may be used at time now.
func (k *Key) Live(now time.Time) bool {
	return k.Revoked.IsZero() && (k.Expires.IsZero() || now.Before(k.Expires))
}

// CreatedAttrs gives the attributes of the key.created/1 fact for k.
func (k *Key) CreatedAttrs() []fairlead.Attr {
	attrs := []fairlead.Attr{
		{Name: AttrKeyID, Value: k.ID},
		{Name: AttrKeyHash, Value: hex.EncodeToString(k.Hash[:])},
		{Name: AttrKeyApp, Value: k.App},
	}
	if k.Name != "" {
		attrs = append(attrs, fairlead.Attr{Name: AttrKeyName, Value: k.Name})
	}
	if !k.Expires.IsZero() {
		attrs = append(attrs, fairlead.Attr{Name: AttrKeyExpires, Value: k.Expires.UTC().Format(time.RFC3339)})
	}
	return attrs
}

// RevokedAttrs gives the attributes of the key.revoked/1 fact for k. Its link goes to k.Fact.
func (k *Key) RevokedAttrs() []fairlead.Attr {
	return []fairlead.Attr{{Name: AttrKeyID, Value: k.ID}}
}

// keyFromFact reads a key.created/1 fact.
func keyFromFact(f *fairlead.Fact) (*Key, error) {
	k := &Key{ID: f.Text(AttrKeyID), App: f.Text(AttrKeyApp), Name: f.Text(AttrKeyName),
		Tenant: f.Tenant, Created: f.Time, Fact: f.ID}
	if !isKeyID(k.ID) {
		return nil, fmt.Errorf("%s is not 10 characters of base32", AttrKeyID)
	}
	if k.App == "" || len(k.App) > 128 {
		return nil, fmt.Errorf("%s is empty or longer than 128 bytes", AttrKeyApp)
	}
	hash := f.Text(AttrKeyHash)
	if n, err := hex.Decode(k.Hash[:], []byte(hash[:min(len(hash), 2*len(k.Hash))])); err != nil || len(hash) != 64 || n != 32 {
		return nil, fmt.Errorf("%s is not 64 hex digits", AttrKeyHash)
	}
	if f.Attr(AttrKeyExpires) != nil {
		t, err := time.Parse(time.RFC3339, f.Text(AttrKeyExpires))
		if err != nil {
			// A date that we cannot read must not make a key eternal.
			return nil, fmt.Errorf("%s is not an RFC 3339 date", AttrKeyExpires)
		}
		k.Expires = t.UTC()
	}
	return k, nil
}

// Looks reports whether s has the form of one of our keys. It does not look at the checksum: a key with a typo gives
// away almost as much.
func Looks(s string) bool { return len(s) == keyLen && keyAt(s, 0) == keyLen }

// Find gives the first span of b that is one of our keys, or enough of one (22 characters of the secret) to endanger
// it. It takes linear time. A key that stands in b encoded (base64, JSON escapes) is not found.
func Find(b []byte) (fairlead.Span, bool) {
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte(keyPrefix))
		if i < 0 {
			return fairlead.Span{}, false
		}
		if n := keyAt(b, at+i); n > 0 {
			return fairlead.Span{Start: at + i, End: at + i + n}, true
		}
		at += i + len(keyPrefix)
	}
}

// hasKey is Find for text.
func hasKey(s string) bool {
	for {
		i := strings.Index(s, keyPrefix)
		if i < 0 {
			return false
		}
		if keyAt(s, i) > 0 {
			return true
		}
		s = s[i+len(keyPrefix):]
	}
}

// keyAt gives the length of the whole or torn key that starts at s[i], where the prefix has been seen, or 0. It reads
// at most 64 bytes.
func keyAt[T string | []byte](s T, i int) int {
	s = s[i:min(len(s), i+keyLen)]
	if len(s) < keyBody+keyLeak || string(s[:len(keyPrefix)]) != keyPrefix || s[keyIDEnd] != '_' {
		return 0
	}
	for j := len(keyPrefix); j < keyIDEnd; j++ {
		if !isBase32(s[j]) {
			return 0
		}
	}
	n := keyBody
	for n < len(s) && isBase62(s[n]) {
		n++
	}
	if n < keyBody+keyLeak {
		return 0
	}
	return n
}

// parseKey checks form and checksum, and gives the id and the hash to compare.
func parseKey(s string) (id string, hash fairlead.Digest, err error) {
	if !Looks(s) {
		return "", hash, ErrMalformedKey
	}
	var b [keyLen]byte
	copy(b[:], s)
	if sum := checksum(b[:keySumStart]); string(sum[:]) != s[keySumStart:] {
		return "", hash, ErrMalformedKey
	}
	return s[len(keyPrefix):keyIDEnd], sha256.Sum256(b[:]), nil
}

func checksum(b []byte) (sum [keySum]byte) {
	n := crc32.ChecksumIEEE(b)
	for i := keySum - 1; i >= 0; i-- {
		sum[i] = base62[n%62]
		n /= 62
	}
	return sum
}

func isKeyID(s string) bool {
	for i := range len(s) {
		if !isBase32(s[i]) {
			return false
		}
	}
	return len(s) == keyIDLen
}

func isBase32(c byte) bool { return 'a' <= c && c <= 'z' || '2' <= c && c <= '7' }

func isBase62(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

var errKeyReused = errors.New("the ledger holds another key under the same id")
