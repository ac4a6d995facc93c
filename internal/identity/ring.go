package identity

import (
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead"
)

// A Ring is the set of virtual keys, folded from the ledger's facts. The zero Ring is empty and ready; it is safe for
// concurrent use. A lookup costs one SHA-256 of 64 bytes and a read lock. Memory is a few hundred bytes for each key
// ever made: revoked ones stay, so that their use can be told from a typo.
type Ring struct {
	mu   sync.RWMutex
	keys map[string]*Key // by id; a *Key is never changed once it stands here
}

// Apply folds one fact. Facts of other kinds are ignored; applying the same fact again changes nothing. A revocation
// that comes before its key still holds. An error means that the ledger holds a key fact that cannot be read; the Ring
// is then unchanged.
func (r *Ring) Apply(f fairlead.Fact) error {
	switch f.Kind {
	case fairlead.KindKeyCreated:
		k, err := keyFromFact(&f)
		if err != nil {
			return fmt.Errorf("reading key.created fact %s: %w", f.ID, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if old := r.keys[k.ID]; old != nil {
			if old.App != "" {
				if old.Hash != k.Hash || old.Fact != k.Fact {
					return fmt.Errorf("reading key.created fact %s: %w (%s)", f.ID, errKeyReused, k.ID)
				}
				return nil
			}
			k.Revoked = old.Revoked
		}
		r.put(k)
	case fairlead.KindKeyRevoked:
		id := f.Text(AttrKeyID)
		if !isKeyID(id) {
			return fmt.Errorf("reading key.revoked fact %s: %s is not 10 characters of base32", f.ID, AttrKeyID)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		k := Key{ID: id}
		if old := r.keys[id]; old != nil {
			k = *old
		}
		if k.Revoked.IsZero() {
			k.Revoked = f.Time
			if k.Revoked.IsZero() {
				k.Revoked = time.Unix(0, 0).UTC()
			}
			r.put(&k)
		}
	}
	return nil
}

func (r *Ring) put(k *Key) {
	if r.keys == nil {
		r.keys = make(map[string]*Key)
	}
	r.keys[k.ID] = k
}

// Lookup gives the live key that secret opens. Its errors match [ErrMalformedKey], [ErrUnknownKey], [ErrRevokedKey] or
// [ErrExpiredKey] under errors.Is; the last two are told only to whoever holds the secret. The Key is shared and must
// not be changed.
func (r *Ring) Lookup(secret Secret) (*Key, error) {
	id, hash, err := parseKey(secret.Reveal())
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	k := r.keys[id]
	r.mu.RUnlock()
	if k == nil || k.App == "" || subtle.ConstantTimeCompare(hash[:], k.Hash[:]) != 1 {
		return nil, ErrUnknownKey
	}
	if !k.Revoked.IsZero() {
		return nil, &Error{Reason: ReasonRevokedKey, text: fmt.Sprintf("the Fairlead key %s was revoked on %s: ask the operator for a new one",
			k.ID, k.Revoked.UTC().Format(time.DateOnly))}
	}
	if !k.Live(time.Now()) {
		return nil, &Error{Reason: ReasonExpiredKey, text: fmt.Sprintf("the Fairlead key %s expired at %s: ask the operator for a new one",
			k.ID, k.Expires.Format(time.RFC3339))}
	}
	return k, nil
}

// Get gives the key with this id, live or not, or false.
func (r *Ring) Get(id string) (Key, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if k := r.keys[id]; k != nil && k.App != "" {
		return *k, true
	}
	return Key{}, false
}

// List gives all keys ever made, by app, then by time of creation.
func (r *Ring) List() []Key {
	r.mu.RLock()
	list := make([]Key, 0, len(r.keys))
	for _, k := range r.keys {
		if k.App != "" {
			list = append(list, *k)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(list, func(a, b Key) int {
		if c := strings.Compare(a.App, b.App); c != 0 {
			return c
		}
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}
