package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/identity"
	"github.com/go-jose/go-jose/v4"
)

// An issuer signs subject tokens and publishes its key.
type issuer struct {
	url string
	key *ecdsa.PrivateKey
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Use: "sig", Algorithm: "ES256"}}})
	}))
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

func (i *issuer) config() identity.Issuer {
	return identity.Issuer{URL: i.url, Audience: "fairlead", JWKSURL: i.url + "/keys"}
}

// token signs the claims of a good token, changed by change.
func (i *issuer) token(t testing.TB, sub string, change func(map[string]any)) string {
	t.Helper()
	claims := map[string]any{"iss": i.url, "aud": "fairlead", "sub": sub, "exp": time.Now().Add(time.Hour).Unix()}
	if change != nil {
		change(claims)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// newHarnessWith starts a gateway that believes an issuer.
func newHarnessWith(t testing.TB, i *issuer, upstream string, s Settings) *harness {
	t.Helper()
	h := &harness{t: t, settings: s, issuers: []identity.Issuer{i.config()}}
	h.prepare(upstream)
	h.open()
	return h
}

// TestWrongKeysByTheThousand: they cost no memory and no disk, and are one fact.
func TestWrongKeysByTheThousand(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	h := newHarness(t, up.URL, Settings{})
	revoked := h.key("old")
	k, err := h.ring.Lookup(identity.NewSecret(revoked))
	if err != nil {
		t.Fatal(err)
	}
	f := fairlead.Fact{Kind: fairlead.KindKeyRevoked, Attrs: k.RevokedAttrs(), Links: []fairlead.Link{{Rel: fairlead.RelRevokes, To: k.Fact, Assurance: fairlead.Verified}}}
	if _, err := h.ledger.Append(t.Context(), &f); err != nil {
		t.Fatal(err)
	}
	if err := h.ring.Apply(f); err != nil {
		t.Fatal(err)
	}
	a := h.post(chatPath, chat("hi"), "Authorization: Bearer "+revoked)
	wantRefusal(t, a, "openai", http.StatusUnauthorized, "revoked_key", false)
	size := h.ledger.Size()
	const n = 2000
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				ep := endpoints[i%2]
				a := h.post(ep.path, ep.body, ep.key+otherKey())
				if a.status != http.StatusUnauthorized || a.header.Get("X-Should-Retry") != "false" {
					t.Errorf("status %d: %s", a.status, a.body)
				}
			}
		})
	}
	wg.Wait()
	if got := h.ledger.Size(); got != size {
		t.Errorf("%d wrong keys made %d facts before they were summed up", n, got-size)
	}
	h.gateway.recordSums(context.Background(), true)
	sums := h.facts(fairlead.KindAuthFailed)
	if len(sums) != 1 {
		t.Fatalf("%d sums, want one", len(sums))
	}
	s := sums[0]
	if s.Int(identity.AttrFailures) != n+1 || s.Int(identity.AttrFailures+".unknown_key") != n || s.Int(identity.AttrFailures+".revoked_key") != 1 || s.Int(identity.AttrSources) != 1 {
		t.Errorf("the sum says %v", s.Attrs)
	}
	if got := len(up.requests()); got != 0 {
		t.Errorf("%d calls with wrong keys reached the provider", got)
	}
	families, err := h.gateway.Metrics().Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if len(f.Metric) > 8 {
			t.Errorf("%s has %d series: callers can make them", f.GetName(), len(f.Metric))
		}
	}
	runtime.KeepAlive(h)
}

func TestRequireKey(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	h := newHarness(t, up.URL, Settings{RequireKey: true})
	for _, ep := range endpoints {
		for _, key := range []string{"sk-client", ""} {
			a := h.post(ep.path, ep.body, ep.key+key)
			wantRefusal(t, a, ep.dialect, http.StatusUnauthorized, "no_credential", false)
		}
		if a := h.post(ep.path, ep.body, ep.key+h.key("app")); a.status != http.StatusOK {
			t.Errorf("a virtual key is answered with %d: %s", a.status, a.body)
		}
	}
}

// TestOurKeysAreNeverForwarded puts a key wherever a request has room for one.
func TestOurKeysAreNeverForwarded(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	h := newHarness(t, up.URL, Settings{})
	key, other := h.key("app"), h.key("other")
	auth := "Authorization: Bearer " + key
	torn := key[:len(key)-8]
	for _, c := range []struct {
		name, path, body string
		headers          []string
		status           int
	}{
		{"bearer", chatPath, chat("hi"), []string{auth}, 200},
		{"bare", chatPath, chat("hi"), []string{"Authorization: " + key}, 200},
		{"lower-case scheme", chatPath, chat("hi"), []string{"Authorization: bearer " + key}, 200},
		{"x-api-key", chatPath, chat("hi"), []string{"X-Api-Key: " + key}, 200},
		{"api-key", chatPath, chat("hi"), []string{"Api-Key: " + key}, 200},
		{"x-goog-api-key", chatPath, chat("hi"), []string{"X-Goog-Api-Key: " + key}, 200},
		{"query", chatPath + "?a=1&key=" + key, chat("hi"), nil, 200},
		{"every slot", chatPath + "?key=" + key, chat("hi"), []string{auth, "X-Api-Key: " + key, "Api-Key: " + key, "X-Goog-Api-Key: " + key}, 200},
		{"twice in a slot", chatPath, chat("hi"), []string{auth, auth}, 200},
		{"beside the client's own", chatPath, chat("hi"), []string{"X-Api-Key: sk-client", auth}, 200},
		{"two of ours", chatPath, chat("hi"), []string{auth, "X-Api-Key: " + other}, 401},
		{"damaged", chatPath, chat("hi"), []string{"Authorization: Bearer " + torn}, 401},
		{"in another header", chatPath, chat("hi"), []string{auth, "X-Debug: my key is " + other + "!"}, 200},
		{"torn, in another header", chatPath, chat("hi"), []string{auth, "X-Debug: " + torn}, 200},
		{"in a cookie", chatPath, chat("hi"), []string{auth, "Cookie: a=b; k=" + other}, 200},
		{"in another query value", chatPath + "?x=" + other + "&y=1", chat("hi"), []string{auth}, 200},
		{"in a query name", chatPath + "?" + other + "=1", chat("hi"), []string{auth}, 200},
		{"in a query that does not parse", chatPath + "?a;b=" + other, chat("hi"), []string{auth}, 400},
		{"escaped in a query", chatPath + "?key=" + strings.Replace(key, "_", "%5F", 1), chat("hi"), nil, 200},
		{"in the body", chatPath, chat("my key is " + other), []string{auth}, 400},
		{"torn, in the body", chatPath, chat("my key is " + torn), []string{auth}, 400},
		{"in a body that is not JSON", chatPath, "key=" + other, []string{auth}, 400},
		{"in the body, with the client's own key", chatPath, chat(other), []string{"Authorization: Bearer sk-client"}, 400},
		{"in the path", "/openai/v1/models/" + other, "", []string{auth}, 400},
		{"in a path that is not mapped", "/openai/v1/x/" + other + "/y", "{}", []string{auth}, 400},
		{"escaped in the path", "/openai/v1/x/" + strings.Replace(other, "_", "%5F", -1), "{}", []string{auth}, 400},
		{"in a Fairlead header", chatPath, chat("hi"), []string{auth, "Fairlead-Anything: " + other}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.t = t
			before := len(up.requests())
			a := h.post(c.path, c.body, append(c.headers, "Fairlead-Note: for us alone")...)
			if a.status != c.status {
				t.Errorf("status %d, want %d: %s", a.status, c.status, a.body)
			}
			if strings.Contains(string(a.body), key) || strings.Contains(string(a.body), other) || strings.Contains(string(a.body), torn) {
				t.Errorf("the key comes back in the answer: %s", a.body)
			}
			for _, got := range up.requests()[before:] {
				uri, _ := url.QueryUnescape(got.uri)
				got.uri += uri
				for _, k := range []string{key, other, torn} {
					if holds(got, k) {
						t.Errorf("a key of ours was forwarded: %s %v %.200s", got.uri, got.header, got.body)
					}
				}
				for name := range got.header {
					if strings.HasPrefix(name, "Fairlead-") {
						t.Errorf("%s was forwarded", name)
					}
				}
			}
			if forwarded := len(up.requests()) > before; forwarded != (c.status == 200) {
				t.Errorf("forwarded: %v", forwarded)
			}
		})
	}
	h.t = t
	for _, e := range h.facts(fairlead.KindCallRefused) {
		if body := h.content(e); strings.Contains(string(body), other) || strings.Contains(string(body), torn) {
			t.Errorf("the refusal %s keeps the key", e.ID)
		}
	}
}

func TestHeadersForOneConnectionOnly(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	h := newHarness(t, up.URL, Settings{})
	a := h.post(chatPath, chat("hi"), "Authorization: Bearer sk-client", "Connection: X-Hop, close", "X-Hop: 1", "Keep-Alive: 5", "Proxy-Authorization: Basic x",
		"Proxy-Connection: keep-alive", "Te: trailers", "Trailer: X-Checksum", "Upgrade: h2c", "Accept-Encoding: gzip, br", "X-Stainless-Lang: go", "OpenAI-Beta: x=v2", "X-Twice: 1", "X-Twice: 2")
	if a.status != http.StatusOK {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	got := up.last(t).header
	for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Connection"} {
		if v, ok := got[name]; ok {
			t.Errorf("%s was forwarded: %q", name, v)
		}
	}
	if got.Get("X-Stainless-Lang") != "go" || got.Get("Openai-Beta") != "x=v2" || len(got["X-Twice"]) != 2 || got.Get("Authorization") != "Bearer sk-client" {
		t.Errorf("headers were lost: %v", got)
	}
	if enc := got["Accept-Encoding"]; len(enc) != 1 || enc[0] != "identity" {
		t.Errorf("the provider was asked for %q: what is compressed cannot be read", enc)
	}
	if host := up.last(t).host; host != strings.TrimPrefix(up.URL, "http://") {
		t.Errorf("the provider was called as %q", host)
	}
}

// TestSubjectTokens: one that does not hold is refused in the caller's dialect and nothing goes upstream.
func TestSubjectTokens(t *testing.T) {
	iss, stranger := newIssuer(t), newIssuer(t)
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	h := newHarnessWith(t, iss, up.URL, Settings{})
	key := h.key("app")
	good := iss.token(t, "alice", nil)
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	change := func(name string, v any) string {
		return iss.token(t, "alice", func(c map[string]any) { c[name] = v })
	}
	forged := (&issuer{url: iss.url, key: stranger.key}).token(t, "alice", nil)
	for _, c := range []struct{ name, token, code string }{
		{"expired", change("exp", time.Now().Add(-time.Hour).Unix()), "expired_token"},
		{"not yet valid", change("nbf", time.Now().Add(time.Hour).Unix()), "token_not_yet_valid"},
		{"for another audience", change("aud", "somebody-else"), "wrong_audience"},
		{"without a subject", change("sub", ""), "incomplete_token"},
		{"without an end", iss.token(t, "alice", func(c map[string]any) { delete(c, "exp") }), "incomplete_token"},
		{"of another issuer", stranger.token(t, "alice", nil), "unknown_issuer"},
		{"signed by another", forged, "bad_signature"},
		{"unsigned", parts[0] + "." + parts[1] + ".", "bad_signature"},
		{"alg none", b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + ".", "token_algorithm"},
		{"alg none, with a signature", b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + "." + parts[2], "token_algorithm"},
		{"altered", parts[0] + "." + b64([]byte(strings.Replace(decode64(t, parts[1]), "alice", "mallo", 1))) + "." + parts[2], "bad_signature"},
		{"no token at all", "alice", "malformed_token"},
		{"empty", "", "malformed_token"},
		{"20 KB", strings.Repeat("a", 20<<10), "malformed_token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, ep := range endpoints {
				a := h.post(ep.path, ep.body, ep.key+key, identity.SubjectTokenHeader+": "+c.token)
				wantRefusal(t, a, ep.dialect, http.StatusUnauthorized, c.code, false)
				if len(c.token) > 20 && strings.Contains(string(a.body), c.token) {
					t.Error("the token comes back in the answer")
				}
			}
		})
	}
	if n := len(up.requests()); n != 0 {
		t.Errorf("%d of them reached the provider", n)
	}
	a := h.post(chatPath, chat("hi"), "Authorization: Bearer "+key, identity.SubjectTokenHeader+": "+good)
	if a.status != http.StatusOK {
		t.Fatalf("a good token is answered with %d: %s", a.status, a.body)
	}
	if got := up.last(t); holds(got, good) || holds(got, parts[1]) {
		t.Error("the token was forwarded")
	}
	c, _ := h.only(0)
	if u := c.intent.Actor.User; u.Assurance != fairlead.Verified || u.Method != identity.MethodOIDC || u.Issuer != iss.url || strings.Contains(u.Value, "alice") {
		t.Errorf("the user is recorded as %+v", u)
	}
	h.gateway.recordSums(context.Background(), true)
	if sums := h.facts(fairlead.KindAuthFailed); len(sums) != 1 || sums[0].Int(identity.AttrFailures) != 28 {
		t.Errorf("tokens that did not hold were not summed up: %v", sums)
	}
}

func decode64(t testing.TB, s string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestScopes: whose key content is sealed under follows from a verified subject, or from the conversation, and never
// from what the caller declares.
func TestScopes(t *testing.T) {
	iss := newIssuer(t)
	n := 0
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) {
		n++
		answerJSON(w, completion(fmt.Sprint("c", n), fmt.Sprint("answer ", n)))
	})
	h := newHarnessWith(t, iss, up.URL, Settings{})
	key := h.key("app")
	alice, bob := iss.token(t, "alice", nil), iss.token(t, "bob", nil)
	scope := func(body string, headers ...string) int64 {
		t.Helper()
		before := len(h.calls())
		if a := h.post(chatPath, body, append(headers, "Authorization: Bearer "+key)...); a.status != http.StatusOK {
			t.Fatalf("status %d: %s", a.status, a.body)
		}
		c, outcome := h.only(before)
		if c.intent.Content[0].Scope != outcome.Content[0].Scope {
			t.Fatal("the answer is sealed under another scope than the request")
		}
		return c.intent.Content[0].Scope
	}
	token := func(s string) string { return identity.SubjectTokenHeader + ": " + s }
	verified := scope(chat("first"), token(alice))
	if again := scope(chat("something else"), token(iss.token(t, "alice", func(c map[string]any) { c["jti"] = "2" }))); again != verified {
		t.Errorf("the verified alice has two scopes, %d and %d", verified, again)
	}
	seen := map[int64]string{verified: "the verified alice"}
	apart := func(what string, s int64) {
		t.Helper()
		if other := seen[s]; other != "" {
			t.Errorf("%s shares the scope of %s", what, other)
		}
		seen[s] = what
	}
	apart("the verified bob", scope(chat("first"), token(bob)))
	apart("the declared alice", scope(chat("first"), "Baggage: user.id=alice"))
	apart("the declared alice again", scope(chat("second"), "Baggage: user.id=alice"))
	apart("the declared bob", scope(chat("first"), "Baggage: user.id=bob"))
	apart("alice in the body", scope(`{"user":"alice",`+chat("first")[1:]))
	apart("nobody", scope(chat("first")))
	if s := scope(chat("third"), token(bob), "Baggage: user.id=alice"); seen[s] != "the verified bob" {
		t.Errorf("bob who says that he is alice is sealed under the scope of %q", seen[s])
	}
	calls := h.calls()
	if got := calls[len(calls)-1].intent.Text("fairlead.identity.conflict"); got == "" {
		t.Error("that he says so is not recorded")
	}
	// The conversation that one declared user began, and that another provably continues, is one scope: who continues it
	// has its answer already.
	begun := scope(chat("a new one"), "Baggage: user.id=carol")
	next := fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"a new one"},{"role":"assistant","content":"answer %d"},{"role":"user","content":"and?"}]}`, n)
	if s := scope(next, "Baggage: user.id=carol"); s != begun {
		t.Error("a conversation goes on under another scope")
	}
	// Whoever merely repeats the question has it not.
	apart("the repeated question", scope(chat("a new one"), "Baggage: user.id=carol"))
	// And a verified subject who continues it brings the own scope.
	if s := scope(next, token(bob)); seen[s] != "the verified bob" {
		t.Errorf("a verified subject is sealed under the scope of %q", seen[s])
	}
	// Another app with the same subject is another scope.
	key = h.key("another app")
	apart("alice in another app", scope(chat("first"), token(alice)))
}
