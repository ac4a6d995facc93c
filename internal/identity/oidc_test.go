package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

const (
	testIssuer   = "https://idp.example"
	testAudience = "fairlead"
)

// Keys are made once: RSA is slow.
var (
	rsaKey      = sync.OnceValue(func() any { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	rsaOther    = sync.OnceValue(func() any { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey       = sync.OnceValue(func() any { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ecOther     = sync.OnceValue(func() any { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ec384Key    = sync.OnceValue(func() any { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	ed25519Key  = sync.OnceValue(func() any { _, k, err := ed25519.GenerateKey(rand.Reader); return must(k, err) })
	testPseudos = sync.OnceValue(func() *Pseudonyms { return must(NewPseudonyms([]byte(strings.Repeat("k", 32)))) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type obj = map[string]any

// goodClaims are claims that hold at the time of the call.
func goodClaims() obj {
	return obj{"iss": testIssuer, "aud": testAudience, "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
}

// with gives a copy of goodClaims with pairs changed; a nil value deletes.
func with(pairs ...any) obj {
	c := goodClaims()
	for i := 0; i < len(pairs); i += 2 {
		if c[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
			delete(c, pairs[i].(string))
		}
	}
	return c
}

func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid, typ string, claims any) string {
	t.Helper()
	opts := (&jose.SignerOptions{}).WithType(jose.ContentType(typ))
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	payload, ok := claims.(string)
	if !ok {
		payload = string(must(json.Marshal(claims)))
	}
	return must(must(s.Sign([]byte(payload))).CompactSerialize())
}

func public(key any, kid string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: (&jose.JSONWebKey{Key: key}).Public().Key, KeyID: kid}
}

// A fakeIssuer answers for an issuer without a network, so that tests can run on synctest's clock.
type fakeIssuer struct {
	keys    atomic.Pointer[jose.JSONWebKeySet]
	fetches atomic.Int64
	down    atomic.Bool
	delay   time.Duration
}

func (f *fakeIssuer) publish(keys ...jose.JSONWebKey) *fakeIssuer {
	f.keys.Store(&jose.JSONWebKeySet{Keys: keys})
	return f
}

func (f *fakeIssuer) RoundTrip(req *http.Request) (*http.Response, error) {
	f.fetches.Add(1)
	if f.delay > 0 {
		select {
		case <-time.After(f.delay):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	if f.down.Load() {
		return nil, errors.New("connection refused")
	}
	body := must(json.Marshal(f.keys.Load()))
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(string(body))), Header: http.Header{}, Request: req}, nil
}

func (f *fakeIssuer) verifier(t testing.TB) *verifier {
	t.Helper()
	v, err := newVerifier([]Issuer{{URL: testIssuer, Audience: testAudience, JWKSURL: testIssuer + "/keys"}}, &http.Client{Transport: f})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		small := must(rsa.GenerateKey(rand.Reader, 1024))
		f := new(fakeIssuer).publish(public(rsaKey(), "r"), public(ecKey(), "e"), public(ed25519Key(), "d"), public(ec384Key(), "e384"),
			public(small, "small"), jose.JSONWebKey{Key: []byte(strings.Repeat("s", 32)), KeyID: "secret"},
			jose.JSONWebKey{Key: public(rsaOther(), "").Key, KeyID: "enc", Use: "enc"})
		v := f.verifier(t)
		now := time.Now()
		rs := func(c any) string { return sign(t, jose.RS256, rsaKey(), "r", "JWT", c) }
		b64 := base64.RawURLEncoding.EncodeToString
		good := rs(goodClaims())
		parts := strings.Split(good, ".")
		act := func(depth int) any {
			var a any
			for i := depth; i > 0; i-- {
				o := obj{"sub": fmt.Sprint("agent-", i)}
				if a != nil {
					o["act"] = a
				}
				a = o
			}
			return a
		}
		publicPEM := []byte(fmt.Sprint(public(rsaKey(), "").Key.(*rsa.PublicKey).N))

		for _, c := range []struct {
			name, token string
			want        Reason // empty: holds
		}{
			{"RS256", good, ""},
			{"ES256", sign(t, jose.ES256, ecKey(), "e", "at+jwt", goodClaims()), ""},
			{"EdDSA", sign(t, jose.EdDSA, ed25519Key(), "d", "application/JWT", goodClaims()), ""},
			{"no kid", sign(t, jose.RS256, rsaKey(), "", "txntoken+jwt", goodClaims()), ""},
			{"several audiences", rs(with("aud", []string{"x", testAudience})), ""},
			{"just expired", rs(with("exp", now.Add(-29*time.Second).Unix())), ""},
			{"almost valid", rs(with("nbf", now.Add(29*time.Second).Unix())), ""},
			{"act nested 8 deep", rs(with("act", act(8))), ""},

			{"empty", "", ReasonMalformedToken},
			{"no JWT", "hello", ReasonMalformedToken},
			{"two parts", parts[0] + "." + parts[1], ReasonMalformedToken},
			{"space around", " " + good, ReasonMalformedToken},
			{"JSON serialization", `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`, ReasonMalformedToken},
			{"over 16 KiB", rs(with("x", strings.Repeat("x", 16<<10))), ReasonMalformedToken},
			{"claims no object", rs(`[]`), ReasonMalformedToken},
			{"a claim twice", rs(`{"iss":"` + testIssuer + `","aud":"fairlead","sub":"a","sub":"b","exp":99999999999}`), ReasonMalformedToken},
			{"sub a number", rs(with("sub", 5)), ReasonMalformedToken},
			{"exp beyond time", rs(with("exp", 1e30)), ReasonMalformedToken},
			{"act a string", rs(with("act", "agent")), ReasonMalformedToken},

			{"alg none", b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", ReasonTokenAlgorithm},
			{"alg none with a signature", b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + "." + parts[2], ReasonTokenAlgorithm},
			{"HS256", sign(t, jose.HS256, []byte(strings.Repeat("s", 32)), "secret", "JWT", goodClaims()), ReasonTokenAlgorithm},
			{"HS256 with the public key as secret", sign(t, jose.HS256, publicPEM, "r", "JWT", goodClaims()), ReasonTokenAlgorithm},
			{"not a default algorithm", sign(t, jose.ES384, ec384Key(), "e384", "JWT", goodClaims()), ReasonTokenAlgorithm},
			{"RS512", sign(t, jose.RS512, rsaKey(), "r", "JWT", goodClaims()), ReasonTokenAlgorithm},

			{"logout token by type", sign(t, jose.RS256, rsaKey(), "r", "logout+jwt", goodClaims()), ReasonTokenType},
			{"logout token by claim", rs(with("events", obj{"http://schemas.openid.net/event/backchannel-logout": obj{}})), ReasonTokenType},
			{"DPoP proof", sign(t, jose.RS256, rsaKey(), "r", "dpop+jwt", goodClaims()), ReasonTokenType},

			{"another issuer", rs(with("iss", "https://evil.example")), ReasonUnknownIssuer},
			{"issuer with a slash", rs(with("iss", testIssuer+"/")), ReasonUnknownIssuer},
			{"no issuer", rs(with("iss", nil)), ReasonUnknownIssuer},
			{"audience of another", rs(with("aud", "mail")), ReasonWrongAudience},
			{"no audience", rs(with("aud", nil)), ReasonWrongAudience},
			{"expired", rs(with("exp", now.Add(-31*time.Second).Unix())), ReasonExpiredToken},
			{"not yet valid", rs(with("nbf", now.Add(31*time.Second).Unix())), ReasonTokenNotYetValid},
			{"issued in the future", rs(with("iat", now.Add(31*time.Second).Unix())), ReasonTokenNotYetValid},
			{"no exp", rs(with("exp", nil)), ReasonIncompleteToken},
			{"no sub", rs(with("sub", nil)), ReasonIncompleteToken},
			{"empty sub", rs(with("sub", "")), ReasonIncompleteToken},
			{"endless sub", rs(with("sub", strings.Repeat("x", 256))), ReasonIncompleteToken},
			{"act without sub", rs(with("act", obj{"client_id": "x"})), ReasonIncompleteToken},
			{"inner act without sub", rs(with("act", obj{"sub": "x", "act": obj{}})), ReasonIncompleteToken},
			{"act nested 9 deep", rs(with("act", act(9))), ReasonDelegationTooDeep},
			{"act nested 200 deep", rs(with("act", act(200))), ReasonDelegationTooDeep},

			{"signed by another", sign(t, jose.RS256, rsaOther(), "r", "JWT", goodClaims()), ReasonBadSignature},
			{"signed by another, no kid", sign(t, jose.RS256, rsaOther(), "", "JWT", goodClaims()), ReasonBadSignature},
			{"no signature", parts[0] + "." + parts[1] + ".", ReasonBadSignature},
			{"payload exchanged", parts[0] + "." + b64(must(json.Marshal(with("sub", "root")))) + "." + parts[2], ReasonBadSignature},
			{"key of another type", sign(t, jose.ES256, ecKey(), "r", "JWT", goodClaims()), ReasonUnknownTokenKey},
			{"key for encryption", sign(t, jose.RS256, rsaOther(), "enc", "JWT", goodClaims()), ReasonUnknownTokenKey},
			{"weak key", sign(t, jose.RS256, small, "small", "JWT", goodClaims()), ReasonUnknownTokenKey},
			{"unknown kid", sign(t, jose.RS256, rsaKey(), "x", "JWT", goodClaims()), ReasonUnknownTokenKey},
			{"one of our keys as kid", sign(t, jose.RS256, rsaKey(), func() string { s, _ := NewKey(); return s.Reveal() }(), "JWT", goodClaims()), ReasonUnknownTokenKey},
		} {
			tok, err := v.verify(t.Context(), c.token)
			var e *Error
			if c.want == "" {
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
				} else if tok.subject != "alice" || tok.Issuer != testIssuer {
					t.Errorf("%s: %+v", c.name, tok)
				}
				continue
			}
			if !errors.As(err, &e) || e.Reason != c.want {
				t.Errorf("%s: error %v, want reason %s", c.name, err, c.want)
				continue
			}
			if hasKey(err.Error()) || len(c.token) > 40 && strings.Contains(err.Error(), c.token[20:40]) || len(err.Error()) > 500 {
				t.Errorf("%s: the error repeats what it was sent: %v", c.name, err)
			}
		}
	})
}

// TestAlgorithmsPerIssuer shows that what one issuer may use is not open to another.
func TestAlgorithmsPerIssuer(t *testing.T) {
	f := new(fakeIssuer).publish(public(rsaKey(), "r"), public(ecKey(), "e"))
	v, err := newVerifier([]Issuer{
		{URL: testIssuer, Audience: testAudience, JWKSURL: testIssuer + "/keys", Algorithms: []string{"ES256"}},
		{URL: "https://old.example", Audience: testAudience, JWKSURL: "https://old.example/keys", Algorithms: []string{"RS256"}},
	}, &http.Client{Transport: f})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.verify(t.Context(), sign(t, jose.ES256, ecKey(), "e", "JWT", goodClaims())); err != nil {
		t.Error(err)
	}
	if _, err := v.verify(t.Context(), sign(t, jose.RS256, rsaKey(), "r", "JWT", goodClaims())); !errors.Is(err, &Error{Reason: ReasonTokenAlgorithm}) {
		t.Errorf("RS256 from an issuer that was given ES256 only: %v", err)
	}
}

func TestActorChain(t *testing.T) {
	f := new(fakeIssuer).publish(public(ecKey(), "e"))
	tok, err := f.verifier(t).verify(t.Context(), sign(t, jose.ES256, ecKey(), "e", "JWT",
		with("act", obj{"sub": "planner", "iss": "x", "act": obj{"sub": "frontend", "act": nil}}, "jti", "id-1", "email", "a@b.c")))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"planner", "frontend"}, tok.chain); diff != "" {
		t.Errorf("the current actor comes first (-want +got):\n%s", diff)
	}
	if tok.ID != "id-1" || tok.KeyID != "e" || tok.aliases[0] != "a@b.c" {
		t.Errorf("token %+v", tok)
	}
}

// TestUnknownKeyFlood sends thousands of tokens with invented key ids.
func TestUnknownKeyFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeIssuer).publish(public(ecKey(), "e"))
		f.delay = time.Second
		v := f.verifier(t)
		good := sign(t, jose.ES256, ecKey(), "e", "JWT", with("exp", time.Now().Add(2*time.Hour).Unix()))
		var wg sync.WaitGroup
		flood := func() {
			for i := range 2000 {
				wg.Go(func() {
					bad := sign(t, jose.ES256, ecKey(), fmt.Sprint("x", i), "JWT", goodClaims())
					if _, err := v.verify(t.Context(), bad); !errors.Is(err, &Error{Reason: ReasonUnknownTokenKey}) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		flood()
		if n := f.fetches.Load(); n != 1 {
			t.Errorf("%d fetches for the first 2000 tokens, want 1", n)
		}
		flood()
		if _, err := v.verify(t.Context(), good); err != nil {
			t.Error(err)
		}
		if n := f.fetches.Load(); n != 1 {
			t.Errorf("%d fetches within 30 seconds, want 1", n)
		}
		time.Sleep(fetchInterval)
		flood()
		if n := f.fetches.Load(); n != 2 {
			t.Errorf("%d fetches after 30 seconds, want 2", n)
		}
	})
}

func TestKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeIssuer).publish(public(ecKey(), "old"))
		v := f.verifier(t)
		check := func(token string, want Reason) {
			t.Helper()
			_, err := v.verify(t.Context(), token)
			if want == "" && err != nil || want != "" && !errors.Is(err, &Error{Reason: want}) {
				t.Errorf("error %v, want reason %q", err, want)
			}
		}
		old := sign(t, jose.ES256, ecKey(), "old", "JWT", with("exp", time.Now().Add(9*time.Hour).Unix()))
		check(old, "")
		f.publish(public(ed25519Key(), "new"))
		time.Sleep(fetchInterval)
		check(sign(t, jose.EdDSA, ed25519Key(), "new", "JWT", goodClaims()), "")
		check(sign(t, jose.EdDSA, ed25519Key(), "", "JWT", with("jti", "1")), "")
		check(old, "") // from the cache
		time.Sleep(cacheTime)
		check(old, ReasonUnknownTokenKey) // the withdrawn key is gone from the cache too

		// Nobody asks for an unknown key; a withdrawn one must go all the same.
		f.publish(public(ecKey(), "newest"))
		time.Sleep(keysFresh + time.Second)
		check(sign(t, jose.EdDSA, ed25519Key(), "new", "JWT", with("jti", "2")), "") // sets off the fetch
		synctest.Wait()
		check(sign(t, jose.EdDSA, ed25519Key(), "new", "JWT", with("jti", "3")), ReasonUnknownTokenKey)

		// A token that names no key may be signed with one that we do not hold yet, beside one of its kind that we do.
		f.publish(public(ecOther(), ""))
		time.Sleep(fetchInterval)
		check(sign(t, jose.ES256, ecOther(), "", "JWT", goodClaims()), "")

		// An empty set is a fault of the issuer, not an instruction.
		f.publish()
		time.Sleep(keysFresh + time.Second)
		for i := range 2 {
			check(sign(t, jose.ES256, ecOther(), "", "JWT", with("jti", fmt.Sprint("empty", i))), "")
			synctest.Wait()
		}
	})
}

func TestIssuerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeIssuer).publish(public(ecKey(), "e"))
		f.down.Store(true)
		v := f.verifier(t)
		token := func() string {
			return sign(t, jose.ES256, ecKey(), "e", "JWT", with("jti", fmt.Sprint(time.Now()), "n", rand.Text()))
		}
		unavailable := &Error{Reason: ReasonIssuerUnavailable}
		for range 10 {
			_, err := v.verify(t.Context(), token())
			if !errors.Is(err, unavailable) {
				t.Fatalf("error %v", err)
			}
			if strings.Contains(err.Error(), "refused") || !strings.Contains(fmt.Sprint(errors.Unwrap(err)), "refused") {
				t.Errorf("the cause belongs to the operator, not to the caller: %v; %v", err, errors.Unwrap(err))
			}
		}
		if n := f.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		f.down.Store(false)
		time.Sleep(fetchRetry)
		if _, err := v.verify(t.Context(), token()); err != nil {
			t.Fatalf("the issuer is back: %v", err)
		}
		f.down.Store(true)
		time.Sleep(keysStale - time.Minute)
		if _, err := v.verify(t.Context(), token()); err != nil {
			t.Errorf("stale keys are not used: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := v.verify(t.Context(), token()); !errors.Is(err, unavailable) {
			t.Errorf("keys are used for more than a day: %v", err)
		}
	})
}

// TestSlowIssuer shows that a caller who gives up does not spoil the fetch for the others.
func TestSlowIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeIssuer).publish(public(ecKey(), "e"))
		f.delay = 5 * time.Second
		v := f.verifier(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		token := sign(t, jose.ES256, ecKey(), "e", "JWT", goodClaims())
		start := time.Now()
		if _, err := v.verify(ctx, token); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if _, err := v.verify(t.Context(), token); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if n := f.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

func TestTokenCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeIssuer).publish(public(ed25519Key(), "d"))
		v := f.verifier(t)
		first := sign(t, jose.EdDSA, ed25519Key(), "d", "JWT", with("exp", time.Now().Add(time.Minute).Unix()))
		a, err := v.verify(t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := v.verify(t.Context(), first); a != b {
			t.Error("the second time the token is not taken from the cache")
		}
		for i := range cacheTokens + 10 {
			if _, err := v.verify(t.Context(), sign(t, jose.EdDSA, ed25519Key(), "d", "JWT", with("jti", fmt.Sprint(i)))); err != nil {
				t.Fatal(err)
			}
			if i%1000 == 0 {
				v.verify(t.Context(), first)
			}
		}
		if n := v.order.Len(); n != cacheTokens || len(v.cache) != n {
			t.Errorf("the cache holds %d and %d tokens, want %d", n, len(v.cache), cacheTokens)
		}
		if b, _ := v.verify(t.Context(), first); a != b {
			t.Error("a token in use was thrown out before those that are not")
		}
		time.Sleep(time.Minute + leeway + time.Second)
		if _, err := v.verify(t.Context(), first); !errors.Is(err, &Error{Reason: ReasonExpiredToken}) {
			t.Errorf("a cached token after its end: %v", err)
		}
	})
}

// TestDiscovery runs against a real server: discovery, redirects and limits are net/http's business too.
func TestDiscovery(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("a host that is not configured was contacted: %s", r.URL)
	}))
	defer other.Close()
	set := must(json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public(ecKey(), "e")}}))
	// One key of an unknown type and one broken one must not spoil the set.
	set = []byte(strings.Replace(string(set), `{"keys":[`, `{"keys":[{"kty":"AKP","alg":"ML-DSA-44"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},`, 1))

	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	document := func(name, issuer, keys string) {
		mux.HandleFunc("/"+name+"/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(obj{"issuer": issuer, "jwks_uri": keys})
		})
	}
	serve := func(path string, h http.HandlerFunc) { mux.HandleFunc(path, h) }
	serve("/keys", func(w http.ResponseWriter, r *http.Request) { w.Write(set) })
	serve("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) })
	serve("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	serve("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	serve("/html", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") })
	serve("/endless", func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	for _, name := range []string{"keys", "here", "away", "round", "html", "endless", "missing"} {
		document(name, srv.URL+"/"+name, srv.URL+"/"+name)
	}
	document("host", srv.URL+"/host", other.URL+"/keys")
	document("file", srv.URL+"/file", "file:///etc/passwd")
	document("liar", "https://elsewhere.example", srv.URL+"/keys")

	for _, c := range []struct{ name, want string }{
		{"keys", ""},
		{"here", ""},
		{"away", "another host"},
		{"round", "three redirects"},
		{"html", "reading the key set"},
		{"endless", "longer than"},
		{"missing", "status 404"},
		{"host", "set jwks_url"},
		{"file", "set jwks_url"},
		{"liar", "exactly as it names itself"},
		{"undocumented", "status 404"},
	} {
		issuer := srv.URL + "/" + c.name
		r, err := New(Config{Pseudonyms: testPseudos(), Issuers: []Issuer{{URL: issuer, Audience: testAudience}}, Client: srv.Client()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.tokens.verify(t.Context(), sign(t, jose.ES256, ecKey(), "e", "JWT", with("iss", issuer)))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v: %v", c.name, err, errors.Unwrap(err))
			}
			if wrong := r.CheckIssuers(t.Context()); len(wrong) > 0 {
				t.Errorf("%s: CheckIssuers: %v", c.name, wrong)
			}
			continue
		}
		if cause := errors.Unwrap(err); cause == nil || !strings.Contains(cause.Error(), c.want) {
			t.Errorf("%s: %v, because %v; want %q", c.name, err, cause, c.want)
		}
		if wrong := r.CheckIssuers(t.Context()); wrong[issuer] == nil {
			t.Errorf("%s: CheckIssuers finds nothing wrong", c.name)
		}
	}
}

func TestIssuerConfig(t *testing.T) {
	ok := Issuer{URL: testIssuer, Audience: "a"}
	change := func(f func(*Issuer)) []Issuer { i := ok; f(&i); return []Issuer{i} }
	for name, issuers := range map[string][]Issuer{
		"no audience":         change(func(i *Issuer) { i.Audience = "" }),
		"http":                change(func(i *Issuer) { i.URL = "http://idp.example" }),
		"not a URL":           change(func(i *Issuer) { i.URL = "idp.example" }),
		"user name":           change(func(i *Issuer) { i.URL = "https://u:p@idp.example" }),
		"looks like loopback": change(func(i *Issuer) { i.URL = "http://localhost.evil.example" }),
		"keys over http":      change(func(i *Issuer) { i.JWKSURL = "http://idp.example/keys" }),
		"none":                change(func(i *Issuer) { i.Algorithms = []string{"none"} }),
		"HS256":               change(func(i *Issuer) { i.Algorithms = []string{"RS256", "HS256"} }),
		"twice":               {ok, ok},
	} {
		if _, err := New(Config{Pseudonyms: testPseudos(), Issuers: issuers}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, u := range []string{testIssuer, "http://localhost:8080/x", "http://127.0.0.1:1", "http://[::1]:1"} {
		if _, err := New(Config{Pseudonyms: testPseudos(), Issuers: change(func(i *Issuer) { i.URL = u })}); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("accepted without pseudonyms")
	}
}

func FuzzToken(f *testing.F) {
	iss := new(fakeIssuer).publish(public(ecKey(), "e"))
	v := iss.verifier(f)
	good := sign(f, jose.ES256, ecKey(), "e", "JWT", with("act", obj{"sub": "x", "act": obj{"sub": "y"}}))
	f.Add(good)
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Add("eyJhbGciOiJFUzI1NiIsImNyaXQiOlsiYjY0Il0sImI2NCI6ZmFsc2V9.{}.AA")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := v.verify(t.Context(), s)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("error of type %T", err)
		}
		// Whatever is accepted says what the good token says: nothing else was ever signed.
		if err == nil && (tok.subject != "alice" || len(tok.chain) != 2) {
			t.Fatalf("accepted %q", s)
		}
	})
}

func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"iss":"x","aud":["a"],"sub":"s","exp":1e9,"act":{"sub":"a","act":{"sub":"b"}}}`))
	f.Add([]byte(`{"act":null,"exp":1e300,"email":5}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readClaims(b)
		if err != nil {
			return
		}
		if chain, err := actors(c.Act); err == nil && len(chain) > maxDelegation {
			t.Fatalf("%d actors", len(chain))
		}
	})
}
