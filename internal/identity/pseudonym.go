package identity

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"hash"
	"log/slog"
	"strings"
	"sync"
)

// The prefixes of pseudonyms, which say what they stand for.
const (
	prefixUser         = "u:"  // a user, verified or declared
	prefixConversation = "c:"  // a conversation
	prefixHidden       = "h:"  // an agent whose name may not stand in clear
	prefixProviderKey  = "pk:" // a client's own key for the provider
)

// Pseudonyms makes pseudonyms with a secret key: without it they can be neither reversed nor guessed at, with it they
// are the same on every machine and after every restart. A pseudonym is a prefix and 16 characters of lower-case base32
// (80 bits of HMAC-SHA-256): among a million users any two share one with a chance below one in a million million.
type Pseudonyms struct {
	macs sync.Pool // of hash.Hash: HMACs set up with the key, which is half of their cost
}

var errNoPseudonyms = errors.New("identity.Config.Pseudonyms is required: make it with NewPseudonyms from 32 secret bytes")

// NewPseudonyms takes 32 secret bytes. They are to be kept like the vault's wrapping key, never in the data folder:
// with a new key every user looks new.
func NewPseudonyms(key []byte) (*Pseudonyms, error) {
	if len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		return nil, errors.New("the pseudonym key must be 32 random bytes")
	}
	p := new(Pseudonyms)
	key = bytes.Clone(key)
	p.macs.New = func() any { return hmac.New(sha256.New, key) }
	return p, nil
}

// DeclaredUser gives the pseudonym of a user that a caller merely names.
func (p *Pseudonyms) DeclaredUser(tenant, name string) string {
	return p.make(prefixUser, tenant, "declared", name)
}

// VerifiedUser gives the pseudonym of the subject of a token. It differs from that of a declared user of the same
// name, so that what an impostor declares never appears among what the person did.
func (p *Pseudonyms) VerifiedUser(tenant, issuer, sub string) string {
	return p.make(prefixUser, tenant, "verified", issuer+"\x00"+sub)
}

// Conversation gives the pseudonym of a declared conversation id.
func (p *Pseudonyms) Conversation(tenant, id string) string {
	return p.make(prefixConversation, tenant, "", id)
}

func (p *Pseudonyms) providerKey(tenant, secret string) string {
	return p.make(prefixProviderKey, tenant, "", secret)
}

// agent gives what may stand in the envelope for an agent's id: the id itself if it is [Safe] and looks neither like a
// mail address (an acting party may be a person) nor like a pseudonym, which it could forge.
func (p *Pseudonyms) agent(tenant, id string) (value string, hidden bool) {
	if Safe(id) && !strings.Contains(id, "@") && !looksPseudonymous(id) {
		return id, false
	}
	return p.make(prefixHidden, tenant, "agent", id), true
}

// make hashes its parts, each ended by a zero byte. Only the last part can hold one itself, so no two inputs collide.
func (p *Pseudonyms) make(prefix, tenant, kind, value string) string {
	m := p.macs.Get().(hash.Hash)
	defer p.macs.Put(m)
	m.Reset()
	b := make([]byte, 0, 128)
	for _, s := range [...]string{"fairlead pseudonym 1", prefix, strings.ReplaceAll(tenant, "\x00", "?"), kind} {
		b = append(append(b, s...), 0)
	}
	m.Write(append(b, value...))
	sum := m.Sum(b[:0])
	out := make([]byte, len(prefix)+16)
	lowerBase32.Encode(out[copy(out, prefix):], sum[:10])
	return string(out)
}

// Safe reports whether s may stand in an envelope in clear, if it does not identify a person: it is 1 to 64 characters
// of A-Z a-z 0-9 . _ : / @ - and holds none of our keys.
func Safe(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if !isBase62(s[i]) && strings.IndexByte("._:/@-", s[i]) < 0 {
			return false
		}
	}
	return !hasKey(s)
}

func looksPseudonymous(s string) bool {
	for _, p := range [...]string{prefixUser, prefixConversation, prefixHidden, prefixProviderKey} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// A Name is what a pseudonym stands for. It goes sealed into the vault, never into an envelope or a log: printed, it
// shows the pseudonym only.
type Name struct {
	Pseudonym string
	Clear     string // at most 1 KiB
	Label     string // for people, if the issuer or the caller gave one: a mail address, an agent's name
}

// String gives the pseudonym.
func (n Name) String() string { return n.Pseudonym }

// GoString gives the pseudonym.
func (n Name) GoString() string { return n.Pseudonym }

// LogValue gives the pseudonym.
func (n Name) LogValue() slog.Value { return slog.StringValue(n.Pseudonym) }
