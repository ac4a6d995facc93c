package identity

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A Slot is a place in a request where SDKs put the api_key.
type Slot string

// The slots, in the order in which they are searched.
const (
	SlotBearer Slot = "authorization"  // OpenAI and most others; with or without the word Bearer
	SlotXAPI   Slot = "x-api-key"      // Anthropic
	SlotAPI    Slot = "api-key"        // Azure OpenAI
	SlotGoogle Slot = "x-goog-api-key" // Google
	SlotQuery  Slot = "?key="          // Google, in the URL
)

var headerSlots = [...]struct {
	slot   Slot
	header string // canonical form
}{{SlotBearer, "Authorization"}, {SlotXAPI, "X-Api-Key"}, {SlotAPI, "Api-Key"}, {SlotGoogle, "X-Goog-Api-Key"}}

// A Credential is the api_key that a request carries.
type Credential struct {
	// Slot is where it stands; empty when the request carries none. When Others is not empty and the credential is to
	// be passed on, forward this slot only: the provider might otherwise judge a credential that we did not look at.
	Slot   Slot
	Secret Secret
	// Ours says that it is a virtual key, whole or damaged; otherwise it is a key for the provider.
	Ours bool
	// Others are the slots of further credentials that differ from this one and are not ours. A key of ours beside
	// them takes precedence.
	Others []Slot
	// Several says that there are two different keys of ours: which one is meant cannot be told.
	Several bool
}

// FindCredential looks through every slot. The header names must be in canonical form, as net/http delivers them.
// Whatever contains "flk_" is taken for ours, so that a damaged key is refused here and not sent to a provider.
func FindCredential(h http.Header, q url.Values) Credential {
	var c Credential
	for _, s := range headerSlots {
		for _, v := range h[s.header] {
			if s.slot == SlotBearer {
				v = bearer(v)
			}
			c.add(s.slot, strings.TrimSpace(v))
		}
	}
	for _, v := range q["key"] {
		c.add(SlotQuery, strings.TrimSpace(v))
	}
	return c
}

func (c *Credential) add(slot Slot, value string) {
	if value == "" || value == c.Secret.Reveal() {
		return
	}
	ours := strings.Contains(value, keyPrefix)
	switch {
	case c.Slot == "":
		c.Slot, c.Secret, c.Ours = slot, NewSecret(value), ours
	case ours && c.Ours:
		c.Several = true
	case ours:
		c.other(c.Slot)
		c.Slot, c.Secret, c.Ours = slot, NewSecret(value), true
	default:
		c.other(slot)
	}
}

func (c *Credential) other(slot Slot) {
	if !slices.Contains(c.Others, slot) {
		c.Others = append(c.Others, slot)
	}
}

// bearer takes the scheme off "Bearer x" (RFC 6750, case-insensitive as RFC 9110 has it). Other schemes stay whole.
func bearer(v string) string {
	if scheme, rest, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "bearer") {
		return rest
	}
	return v
}

// Strip removes from h and q, in place, what must never reach a provider: every key of ours, wherever it stands, and
// every Fairlead-* header. A slot is emptied of whatever contains "flk_"; elsewhere whatever [Find] would find goes,
// with the whole header line or query value that holds it. It reports whether q changed: the caller then has to encode
// the query anew. A query that net/url could not parse in full is not in q: look at its raw form with [Find].
func Strip(h http.Header, q url.Values) (queryChanged bool) {
	for name, values := range h {
		if strings.HasPrefix(name, "Fairlead-") {
			delete(h, name)
			continue
		}
		slot := slices.ContainsFunc(headerSlots[:], func(s struct {
			slot   Slot
			header string
		}) bool {
			return s.header == name
		})
		if !slices.ContainsFunc(values, func(v string) bool { return stray(v, slot) }) {
			continue
		}
		// A fresh slice: h may share values with the request that is being recorded.
		if kept := slices.DeleteFunc(slices.Clone(values), func(v string) bool { return stray(v, slot) }); len(kept) > 0 {
			h[name] = kept
		} else {
			delete(h, name)
		}
	}
	for name, values := range q {
		bad := func(v string) bool { return stray(v, name == "key") || hasKey(name) }
		if !slices.ContainsFunc(values, bad) {
			continue
		}
		queryChanged = true
		if kept := slices.DeleteFunc(slices.Clone(values), bad); len(kept) > 0 {
			q[name] = kept
		} else {
			delete(q, name)
		}
	}
	return queryChanged
}

func stray(v string, slot bool) bool {
	return hasKey(v) || slot && strings.Contains(v, keyPrefix)
}
