package identity

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // refuses repeated members and is case-sensitive, unlike the standard library's
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/fairleadhq/fairlead"
)

// SubjectTokenHeader carries a signed JWT that says for whom the app acts.
const SubjectTokenHeader = "Fairlead-Subject-Token"

// Bounds of subject tokens.
const (
	maxToken      = 16 << 10
	maxSubject    = 255 // bytes, as OpenID Connect has it
	maxDelegation = 8   // actors
	maxGroups     = 256
	leeway        = 30 * time.Second
	cacheTokens   = 4096
	cacheTime     = 5 * time.Minute // then the signature is checked again: a withdrawn key must not live on in the cache
)

// An Issuer is somebody whose subject tokens are believed.
type Issuer struct {
	// URL is the issuer exactly as it stands in its tokens' iss: https, or http on loopback.
	URL string
	// Audience must be in the tokens' aud. Required: without it, a token made for any other service would do here.
	Audience string
	// JWKSURL is where the issuer publishes its keys. Empty: ask the issuer (OpenID Connect Discovery), which then must
	// name a place on its own host.
	JWKSURL string
	// Algorithms are the signature algorithms that are accepted (RFC 7518 and 8037): RS256, PS256, ES256 and their 384
	// and 512 forms, EdDSA. Empty: RS256, ES256 and EdDSA.
	Algorithms []string
}

// asymmetric are all algorithms that may be configured. HS* would make everybody who can check a token able to forge
// one, and a public key could be passed off as the shared secret.
var asymmetric = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// validate checks the configuration and fills in what was left out.
func (i *Issuer) validate() error {
	if i.Audience == "" {
		return fmt.Errorf("issuer %s has no audience: set it to the aud that its tokens for this gateway carry", i.URL)
	}
	if err := checkURL(i.URL); err != nil {
		return fmt.Errorf("issuer %q: %w", i.URL, err)
	}
	if i.JWKSURL != "" {
		if err := checkURL(i.JWKSURL); err != nil {
			return fmt.Errorf("jwks_url %q of issuer %s: %w", i.JWKSURL, i.URL, err)
		}
	}
	if len(i.Algorithms) == 0 {
		i.Algorithms = []string{"RS256", "ES256", "EdDSA"}
	}
	for _, a := range i.Algorithms {
		if !slices.Contains(asymmetric, jose.SignatureAlgorithm(a)) {
			return fmt.Errorf("issuer %s: algorithm %q is not accepted: choose among %v", i.URL, a, asymmetric)
		}
	}
	return nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
		return errors.New("expected an https URL without user name and fragment (http on loopback only)")
	}
	return nil
}

// A Token is what is kept of a subject token that held: the evidence, never the token.
type Token struct {
	Issuer  string
	KeyID   string          // kid of the key that signed it, if the token names it
	ID      string          // jti, if it is Safe
	Digest  fairlead.Digest // SHA-256 of the whole token
	Expires time.Time
	Groups  []string // what the issuer says in groups and roles: at most 256 names, sorted

	subject string
	aliases []string // other names that the issuer gives the subject
	chain   []string // act, outermost first
}

// A verifier checks subject tokens. Beside the key sets it holds at most cacheTokens of a few hundred bytes.
type verifier struct {
	issuers map[string]*keySet
	algs    []jose.SignatureAlgorithm // of all issuers together

	mu    sync.Mutex
	cache map[fairlead.Digest]*list.Element
	order list.List // of *cached, the most recently used in front
}

type cached struct {
	token *Token
	until time.Time
}

func newVerifier(issuers []Issuer, client *http.Client) (*verifier, error) {
	v := &verifier{issuers: make(map[string]*keySet), cache: make(map[fairlead.Digest]*list.Element)}
	client = confined(client)
	for _, i := range issuers {
		if err := i.validate(); err != nil {
			return nil, err
		}
		if v.issuers[i.URL] != nil {
			return nil, fmt.Errorf("issuer %s is configured twice", i.URL)
		}
		v.issuers[i.URL] = &keySet{issuer: i, client: client}
		for _, a := range i.Algorithms {
			if alg := jose.SignatureAlgorithm(a); !slices.Contains(v.algs, alg) {
				v.algs = append(v.algs, alg)
			}
		}
	}
	return v, nil
}

// header checks the subject token in h. Without one it gives nil and no error.
func (v *verifier) header(ctx context.Context, h http.Header) (*Token, error) {
	switch lines := h[SubjectTokenHeader]; len(lines) {
	case 0:
		return nil, nil
	case 1:
		return v.verify(ctx, lines[0])
	default:
		return nil, tokenError(ReasonMalformedToken, "stands more than once in the request: send one")
	}
}

func (v *verifier) verify(ctx context.Context, raw string) (*Token, error) {
	if len(raw) > maxToken {
		return nil, tokenError(ReasonMalformedToken, fmt.Sprintf("is longer than %d bytes: ask the issuer for one with fewer claims", maxToken))
	}
	digest := fairlead.Digest(sha256.Sum256([]byte(raw)))
	now := time.Now()
	if t := v.cached(digest, now); t != nil {
		return t, nil
	}
	t, err := v.check(ctx, raw, now)
	if err != nil {
		return nil, err
	}
	t.Digest = digest
	v.keep(t, now)
	return t, nil
}

// check does the work for a token that is not in the cache. Everything that costs nothing comes first, so that a stale
// token sent a thousand times causes neither a fetch nor a signature check.
func (v *verifier) check(ctx context.Context, raw string, now time.Time) (*Token, error) {
	if len(v.issuers) == 0 {
		return nil, tokenError(ReasonUnknownIssuer, "cannot be checked, because no issuer is configured here: leave it out, or ask the operator to configure its issuer")
	}
	jws, err := jose.ParseSignedCompact(raw, v.algs)
	if bad := (*jose.ErrUnexpectedSignatureAlgorithm)(nil); errors.As(err, &bad) {
		return nil, tokenError(ReasonTokenAlgorithm, fmt.Sprintf("is signed with %s, which is not accepted: use one of %v", quoted(string(bad.Got)), v.algs))
	}
	if err != nil || len(jws.Signatures) != 1 {
		return nil, tokenError(ReasonMalformedToken, "is not a JWT in compact form: send the bare token, three parts with two dots between")
	}
	payload := jws.UnsafePayloadWithoutVerification()
	c, err := readClaims(payload)
	if err != nil {
		return nil, err
	}
	keys := v.issuers[c.Issuer]
	if keys == nil {
		return nil, tokenError(ReasonUnknownIssuer, fmt.Sprintf("comes from issuer %s, which is not configured here", quoted(c.Issuer)))
	}
	header := jws.Signatures[0].Protected
	t, err := c.token(&keys.issuer, &header, now)
	if err != nil {
		return nil, err
	}
	proven, err := keys.verify(ctx, jws, header.KeyID, jose.SignatureAlgorithm(header.Algorithm))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(proven, payload) {
		return nil, tokenError(ReasonBadSignature, "has a signature over something else")
	}
	return t, nil
}

// verify gives the payload that the signature proves.
func (s *keySet) verify(ctx context.Context, jws *jose.JSONWebSignature, kid string, alg jose.SignatureAlgorithm) ([]byte, error) {
	for again := false; ; again = true {
		keys, err := s.find(ctx, kid, alg)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if payload, err := jws.Verify(k.key); err == nil {
				return payload, nil
			}
		}
		// A token that names no key may be signed with one that is newer than what we hold.
		if kid != "" || again || !s.refresh(ctx) {
			return nil, tokenError(ReasonBadSignature, "has a signature that does not hold under the keys of "+s.issuer.URL+": get a new token, and pass it on unchanged")
		}
	}
}

// claims are the claims that we read (RFC 7519, RFC 8693, OpenID Connect Core).
type claims struct {
	jwt.Claims
	Act    json.RawMessage `json:"act"`
	Events json.RawMessage `json:"events"`
	names  struct {
		Email    string `json:"email"`
		Username string `json:"preferred_username"`
	}
	groups struct {
		Groups []string `json:"groups"`
		Roles  []string `json:"roles"`
	}
}

func readClaims(payload []byte) (*claims, error) {
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, tokenError(ReasonMalformedToken, "has claims that cannot be read: they must be one JSON object with the types of RFC 7519")
	}
	// Names for display: if they are odd, do without.
	if json.Unmarshal(payload, &c.names) != nil {
		c.names.Email, c.names.Username = "", ""
	}
	// Groups only widen: if they are odd, there are none.
	if json.Unmarshal(payload, &c.groups) != nil {
		c.groups.Groups, c.groups.Roles = nil, nil
	}
	return &c, nil
}

// token checks everything but the signature.
func (c *claims) token(i *Issuer, header *jose.Header, now time.Time) (*Token, error) {
	if !slices.Contains(i.Algorithms, header.Algorithm) {
		return nil, tokenError(ReasonTokenAlgorithm, fmt.Sprintf("is signed with %s, which is not accepted from %s: use one of %v", header.Algorithm, i.URL, i.Algorithms))
	}
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); !subjectType(typ) || len(c.Events) > 0 {
		return nil, tokenError(ReasonTokenType, "is a token for another purpose: send an ID token, an access token or a transaction token")
	}
	switch {
	case c.Subject == "" || len(c.Subject) > maxSubject:
		return nil, tokenError(ReasonIncompleteToken, fmt.Sprintf("has no sub, or one of more than %d bytes: it must name whom the app acts for", maxSubject))
	case c.Expiry == nil:
		return nil, tokenError(ReasonIncompleteToken, "has no exp: tokens that never expire are not accepted")
	}
	switch err := c.ValidateWithLeeway(jwt.Expected{AnyAudience: jwt.Audience{i.Audience}, Time: now}, leeway); {
	case err == nil:
	case errors.Is(err, jwt.ErrInvalidAudience):
		return nil, tokenError(ReasonWrongAudience, fmt.Sprintf("was made for another audience: ask the issuer for one with aud %q", i.Audience))
	case errors.Is(err, jwt.ErrExpired):
		return nil, tokenError(ReasonExpiredToken, fmt.Sprintf("expired at %s (it is %s here): get a new one", rfc3339(c.Expiry), now.UTC().Format(time.RFC3339)))
	default:
		return nil, tokenError(ReasonTokenNotYetValid, fmt.Sprintf("is not valid yet (it is %s here): check the clocks", now.UTC().Format(time.RFC3339)))
	}
	chain, err := actors(c.Act)
	if err != nil {
		return nil, err
	}
	t := &Token{Issuer: i.URL, KeyID: header.KeyID, Expires: c.Expiry.Time().UTC(), subject: c.Subject, chain: chain}
	if Safe(c.ID) {
		t.ID = c.ID
	}
	for _, n := range [...]string{c.names.Email, c.names.Username} {
		if n != "" && len(n) <= maxSubject {
			t.aliases = append(t.aliases, n)
		}
	}
	groups := slices.Concat(c.groups.Groups, c.groups.Roles)
	slices.Sort(groups)
	if groups = slices.Compact(groups); len(groups) > maxGroups {
		return nil, tokenError(ReasonMalformedToken, fmt.Sprintf("names more than %d groups and roles: ask the issuer for one that names those that matter here", maxGroups))
	}
	for _, g := range groups {
		if g != "" && len(g) <= maxSubject {
			t.Groups = append(t.Groups, g)
		}
	}
	return t, nil
}

func rfc3339(d *jwt.NumericDate) string { return d.Time().UTC().Format(time.RFC3339) }

// subjectType says which values of the typ header (RFC 8725, section 3.11) are subject tokens.
func subjectType(typ string) bool {
	switch strings.TrimPrefix(strings.ToLower(typ), "application/") {
	case "", "jwt", "at+jwt", "txntoken+jwt":
		return true
	}
	return false
}

// actors unrolls the act claim (RFC 8693, section 4.1): the current actor first, then whoever acted before it.
func actors(act json.RawMessage) ([]string, error) {
	var chain []string
	for len(act) > 0 && string(act) != "null" {
		if len(chain) == maxDelegation {
			return nil, tokenError(ReasonDelegationTooDeep, fmt.Sprintf("has more than %d actors nested in act", maxDelegation))
		}
		var a struct {
			Subject string          `json:"sub"`
			Act     json.RawMessage `json:"act"`
		}
		if err := json.Unmarshal(act, &a); err != nil {
			return nil, tokenError(ReasonMalformedToken, "has an act claim that cannot be read: it must be an object with sub, as RFC 8693 has it")
		}
		if a.Subject == "" || len(a.Subject) > maxSubject {
			return nil, tokenError(ReasonIncompleteToken, fmt.Sprintf("has an act without sub, or with one of more than %d bytes", maxSubject))
		}
		chain, act = append(chain, a.Subject), a.Act
	}
	return chain, nil
}

func (v *verifier) cached(d fairlead.Digest, now time.Time) *Token {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.cache[d]
	if e == nil {
		return nil
	}
	c := e.Value.(*cached)
	if !now.Before(c.until) {
		v.order.Remove(e)
		delete(v.cache, d)
		return nil
	}
	v.order.MoveToFront(e)
	return c.token
}

func (v *verifier) keep(t *Token, now time.Time) {
	until := now.Add(cacheTime)
	if t.Expires.Before(until) {
		until = t.Expires
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cache[t.Digest] != nil {
		return
	}
	v.cache[t.Digest] = v.order.PushFront(&cached{t, until})
	if v.order.Len() > cacheTokens {
		old := v.order.Remove(v.order.Back()).(*cached)
		delete(v.cache, old.token.Digest)
	}
}
