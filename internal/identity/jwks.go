package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// How an issuer's keys are kept.
const (
	fetchTimeout  = 10 * time.Second
	fetchInterval = 30 * time.Second // between two fetches from one issuer, whatever the tokens say
	fetchRetry    = 5 * time.Second  // the same while we hold no keys of it at all
	keysFresh     = 15 * time.Minute // then they are fetched again, so that a withdrawn key goes
	keysStale     = 24 * time.Hour   // as long they serve when the issuer is down
	maxDocument   = 1 << 20
	maxKeys       = 64
	maxTrials     = 8 // keys tried for a token that names none
)

// A publicKey is one signing key of an issuer.
type publicKey struct {
	id  string
	alg jose.SignatureAlgorithm // empty: not restricted
	key any                     // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// A keySet is what one issuer publishes at its jwks_uri.
type keySet struct {
	issuer Issuer
	client *http.Client

	mu      sync.Mutex
	keys    []publicKey // replaced as a whole, never changed
	fetched time.Time   // when keys was
	tried   time.Time   // when the last fetch began
	running chan struct{}
	lastErr error
	url     string // the jwks_uri found by discovery; only the running fetch touches it
}

// find gives the keys that may have signed a token with this header, at least one. Only an unknown kid makes it wait
// for a fetch, and only when one is due; otherwise it answers from memory.
func (s *keySet) find(ctx context.Context, kid string, alg jose.SignatureAlgorithm) ([]publicKey, error) {
	for waited := false; ; waited = true {
		s.mu.Lock()
		now := time.Now()
		held := s.keys
		if now.Sub(s.fetched) > keysStale {
			held = nil
		}
		keys := matching(held, kid, alg)
		var wait chan struct{}
		if !waited && (len(keys) == 0 || now.Sub(s.fetched) > keysFresh) {
			wait = s.start(now)
		}
		lastErr := s.lastErr
		s.mu.Unlock()

		switch {
		case len(keys) > 0:
			return keys, nil
		case wait != nil:
			select {
			case <-wait:
			case <-ctx.Done():
				return nil, s.unavailable(ctx.Err())
			}
		case len(held) == 0:
			return nil, s.unavailable(lastErr)
		default:
			return nil, tokenError(ReasonUnknownTokenKey, fmt.Sprintf("names the signing key %s for %s, which %s does not publish: "+
				"get a new token; after a change of keys, try again in %v", quoted(kid), alg, s.issuer.URL, fetchInterval))
		}
	}
}

// refresh fetches again if a fetch is due, waits for it and reports whether one took place.
func (s *keySet) refresh(ctx context.Context) bool {
	s.mu.Lock()
	wait := s.start(time.Now())
	s.mu.Unlock()
	if wait == nil {
		return false
	}
	select {
	case <-wait:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *keySet) unavailable(cause error) error {
	return &Error{Reason: ReasonIssuerUnavailable, cause: cause, text: fmt.Sprintf(
		"the signing keys of %s cannot be had at the moment, so the Fairlead-Subject-Token cannot be checked: "+
			"try again shortly, or tell the operator", s.issuer.URL)}
}

// start begins a fetch if one is due, and gives a channel that is closed when the running fetch is done; nil if there
// is none. Called with mu held.
func (s *keySet) start(now time.Time) chan struct{} {
	if s.running != nil {
		return s.running
	}
	every := fetchInterval
	if len(s.keys) == 0 {
		every = fetchRetry
	}
	if now.Sub(s.tried) < every {
		return nil
	}
	s.tried = now
	done := make(chan struct{})
	s.running = done
	go func() {
		// Not the context of the request that happened to come first: others wait for this too.
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		keys, err := s.fetch(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.lastErr = err; err == nil {
			s.keys, s.fetched = keys, time.Now()
		}
		s.running = nil
		close(done)
	}()
	return done
}

func (s *keySet) fetch(ctx context.Context) ([]publicKey, error) {
	at := s.issuer.JWKSURL
	if at == "" {
		if s.url == "" {
			u, err := s.discover(ctx)
			if err != nil {
				return nil, err
			}
			s.url = u
		}
		at = s.url
	}
	body, err := get(ctx, s.client, at)
	if err == nil {
		var keys []publicKey
		if keys, err = parseKeys(body); err == nil {
			return keys, nil
		}
	}
	s.url = ""
	return nil, fmt.Errorf("fetching the signing keys of %s from %s: %w", s.issuer.URL, at, err)
}

// discover asks the issuer where its keys are (OpenID Connect Discovery 1.0, section 4).
func (s *keySet) discover(ctx context.Context) (string, error) {
	at := strings.TrimSuffix(s.issuer.URL, "/") + "/.well-known/openid-configuration"
	body, err := get(ctx, s.client, at)
	if err != nil {
		return "", fmt.Errorf("fetching %s: %w", at, err)
	}
	var doc struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return "", fmt.Errorf("reading %s: %w", at, err)
	}
	if doc.Issuer != s.issuer.URL {
		return "", fmt.Errorf("%s says that it belongs to issuer %s, not %s: configure the issuer exactly as it names itself",
			at, quoted(doc.Issuer), s.issuer.URL)
	}
	own, err1 := url.Parse(s.issuer.URL)
	u, err2 := url.Parse(doc.JWKSURI)
	if err1 != nil || err2 != nil || u.Scheme != own.Scheme || u.Host != own.Host {
		// We contact configured hosts only; otherwise an issuer could point us into our own network.
		return "", fmt.Errorf("issuer %s keeps its signing keys on another host, at %s: if that is right, set jwks_url to it",
			s.issuer.URL, quoted(doc.JWKSURI))
	}
	return doc.JWKSURI, nil
}

func get(ctx context.Context, client *http.Client, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer has status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxDocument {
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxDocument)
	}
	return body, nil
}

// confined gives a copy of client that follows at most three redirects and none to another host or scheme.
func confined(client *http.Client) *http.Client {
	c := http.Client{Timeout: fetchTimeout}
	if client != nil {
		c.Transport, c.Timeout = client.Transport, client.Timeout
	}
	if c.Timeout == 0 {
		c.Timeout = fetchTimeout
	}
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > 3 {
			return errors.New("more than three redirects")
		}
		if from := via[0].URL; req.URL.Host != from.Host || req.URL.Scheme != from.Scheme {
			return errors.New("a redirect to another host is not followed")
		}
		return nil
	}
	return &c
}

// parseKeys reads a JWK set (RFC 7517). Keys that we cannot use are passed over, as its section 5 asks: unknown types,
// symmetric or private ones, RSA of fewer than 2048 bits, keys for encryption.
func parseKeys(body []byte) ([]publicKey, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("reading the key set: %w", err)
	}
	var keys []publicKey
	for _, raw := range doc.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil || k.Use != "" && k.Use != "sig" {
			continue
		}
		switch key := k.Key.(type) {
		case *rsa.PublicKey:
			if n := key.N.BitLen(); n < 2048 || n > 8192 {
				continue
			}
		case *ecdsa.PublicKey, ed25519.PublicKey:
		default:
			continue
		}
		if keys = append(keys, publicKey{k.KeyID, jose.SignatureAlgorithm(k.Algorithm), k.Key}); len(keys) == maxKeys {
			break
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set holds no key that can be used")
	}
	return keys, nil
}

// matching gives the keys that fit the algorithm and, if the token names one, the key id.
func matching(keys []publicKey, kid string, alg jose.SignatureAlgorithm) []publicKey {
	var fit []publicKey
	for _, k := range keys {
		if kid != "" && k.id != kid || k.alg != "" && k.alg != alg || !fits(k.key, alg) {
			continue
		}
		if fit = append(fit, k); len(fit) == maxTrials {
			break
		}
	}
	return fit
}

func fits(key any, alg jose.SignatureAlgorithm) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(string(alg), "RS") || strings.HasPrefix(string(alg), "PS")
	case *ecdsa.PublicKey:
		switch alg {
		case jose.ES256:
			return k.Curve == elliptic.P256()
		case jose.ES384:
			return k.Curve == elliptic.P384()
		case jose.ES512:
			return k.Curve == elliptic.P521()
		}
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	}
	return false
}
