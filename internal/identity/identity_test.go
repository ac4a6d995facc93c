package identity

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/fairleadhq/fairlead"
)

// A fixture is a resolver with one live key and one issuer.
type fixture struct {
	*Resolver
	ring *Ring
	key  string
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	var ring Ring
	s, _, f := newTestKey("billing", time.Time{})
	mustApply(t, &ring, f)
	r, err := New(Config{Pseudonyms: testPseudos(), Keys: &ring,
		Issuers: []Issuer{{URL: testIssuer, Audience: testAudience, JWKSURL: testIssuer + "/keys"}},
		Client:  &http.Client{Transport: new(fakeIssuer).publish(public(ecKey(), "e"))}})
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{r, &ring, s.Reveal()}
}

func subjectToken(t testing.TB, pairs ...any) string {
	return sign(t, jose.ES256, ecKey(), "e", "JWT", with(pairs...))
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// The pseudonyms are pinned: they are in ledgers, and must never come out otherwise for the same key. The
// values were computed with Python's hmac.
func TestPseudonymVector(t *testing.T) {
	p := testPseudos()
	for _, c := range [][2]string{
		{p.DeclaredUser("default", "alice"), "u:cm5o3blyb62z6whf"},
		{p.VerifiedUser("default", "https://idp.example", "alice"), "u:tdj6ysinca7uivfd"},
		{p.Conversation("default", "alice"), "c:2xft66p3tar22zhl"},
		{p.providerKey("default", "alice"), "pk:n3g2ubojvgni45pr"},
		{p.DeclaredUser("other", "alice"), "u:7kih47j77yaeo7jf"},
	} {
		if c[0] != c[1] {
			t.Errorf("pseudonym %s, want %s", c[0], c[1])
		}
	}
}

func TestResolve(t *testing.T) {
	fx := newFixture(t)
	p := testPseudos()
	const tenant = fairlead.DefaultTenant
	var (
		absent   = fairlead.Facet{Assurance: fairlead.Absent}
		app      = fairlead.Facet{Value: "billing", Assurance: fairlead.Verified, Method: "virtual-key"}
		verified = fairlead.Facet{Value: p.VerifiedUser(tenant, testIssuer, "alice"), Assurance: fairlead.Verified, Method: "oidc", Issuer: testIssuer}
		byHeader = func(u string) fairlead.Facet {
			return fairlead.Facet{Value: p.DeclaredUser(tenant, u), Assurance: fairlead.Declared, Method: "baggage"}
		}
		byBody = func(u string) fairlead.Facet {
			return fairlead.Facet{Value: p.DeclaredUser(tenant, u), Assurance: fairlead.Declared, Method: "body"}
		}
		declaredAgent = func(v string) fairlead.Facet {
			return fairlead.Facet{Value: v, Assurance: fairlead.Declared, Method: "baggage"}
		}
		hidden = func(v string) string { s, _ := p.agent(tenant, v); return s }
		conv   = func(v string) string { return p.Conversation(tenant, v) }
	)
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	type want struct {
		Actor        fairlead.Actor
		Names        string // PSEUDONYM=CLEAR(LABEL), …
		Subject      string
		Conversation string
		Version      string
		Trace        TraceParent
		Conflict     string
		Ignored      int
	}
	names := func(pairs ...string) string { return strings.Join(pairs, ", ") }
	for _, c := range []struct {
		name string
		h    http.Header
		q    url.Values
		x    *fairlead.Exchange
		want want
	}{
		{"nobody", nil, nil, nil, want{Actor: fairlead.Actor{App: absent, User: absent, Agent: absent}}},
		{"a virtual key", headers("Authorization", "Bearer "+fx.key), nil, nil,
			want{Actor: fairlead.Actor{App: app, User: absent, Agent: absent}}},
		{"a virtual key in the URL", nil, url.Values{"key": {fx.key}}, nil,
			want{Actor: fairlead.Actor{App: app, User: absent, Agent: absent}}},
		{"the client's own key", headers("X-Api-Key", "sk-abc"), nil, nil,
			want{Actor: fairlead.Actor{App: fairlead.Facet{Value: p.providerKey(tenant, "sk-abc"), Assurance: fairlead.Declared, Method: "provider-key"}, User: absent, Agent: absent}}},
		{"declared in the baggage", headers("X-Api-Key", fx.key, "Traceparent", trace, "Baggage",
			"user.id=bob%20b,gen_ai.agent.id=planner,gen_ai.agent.name=The%20Planner,gen_ai.agent.version=1.2,gen_ai.conversation.id=c1,session.id=s1"), nil, nil,
			want{Actor: fairlead.Actor{App: app, User: byHeader("bob b"), Agent: declaredAgent("planner")},
				Names:        names(p.DeclaredUser(tenant, "bob b")+"=bob b()", "planner=planner(The Planner)", conv("c1")+"=c1()"),
				Conversation: conv("c1"), Version: "1.2", Trace: TraceParent{"4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", true}}},
		{"declared in the body", nil, nil, &fairlead.Exchange{User: "bob", Conversation: "c2"},
			want{Actor: fairlead.Actor{App: absent, User: byBody("bob"), Agent: absent},
				Names: names(p.DeclaredUser(tenant, "bob")+"=bob()", conv("c2")+"=c2()"), Conversation: conv("c2")}},
		{"baggage before body, and a contradiction", headers("Baggage", "user.id=bob,session.id=s1"), nil, &fairlead.Exchange{User: "eve", Conversation: "c2"},
			want{Actor: fairlead.Actor{App: absent, User: byHeader("bob"), Agent: absent},
				Names:        names(p.DeclaredUser(tenant, "bob")+"=bob()", p.DeclaredUser(tenant, "eve")+"=eve()", conv("s1")+"=s1()"),
				Conversation: conv("s1"),
				Conflict:     "user: the baggage declares " + p.DeclaredUser(tenant, "bob") + ", the body " + p.DeclaredUser(tenant, "eve")}},
		{"a token without an app", headers(SubjectTokenHeader, subjectToken(t)), nil, nil,
			want{Actor: fairlead.Actor{App: absent, User: verified, Agent: absent}, Names: verified.Value + "=alice()", Subject: testIssuer + "\x00alice"}},
		{"a token with an app and agents", headers("Authorization", "Bearer "+fx.key, SubjectTokenHeader,
			subjectToken(t, "act", obj{"sub": "planner", "act": obj{"sub": "carol@example.com"}}, "preferred_username", "Alice A")), nil, nil,
			want{Actor: fairlead.Actor{App: app, User: verified, Agent: fairlead.Facet{Value: "planner", Assurance: fairlead.Verified, Method: "oidc", Issuer: testIssuer},
				Chain: []string{"planner", hidden("carol@example.com")}},
				Names:   names(verified.Value+"=alice(Alice A)", hidden("carol@example.com")+"=carol@example.com()"),
				Subject: testIssuer + "\x00alice"}},
		{"the token stands against what is declared", headers(SubjectTokenHeader, subjectToken(t, "act", obj{"sub": "planner"}), "Baggage", "user.id=eve,gen_ai.agent.id=root"), nil, nil,
			want{Actor: fairlead.Actor{App: absent, User: verified, Agent: fairlead.Facet{Value: "planner", Assurance: fairlead.Verified, Method: "oidc", Issuer: testIssuer}, Chain: []string{"planner"}},
				Names:    names(verified.Value+"=alice()", p.DeclaredUser(tenant, "eve")+"=eve()"),
				Subject:  testIssuer + "\x00alice",
				Conflict: "user: the token verifies " + verified.Value + ", the caller declares " + p.DeclaredUser(tenant, "eve") + "; agent: the token verifies planner, the caller declares root"}},
		{"the same person by mail address", headers(SubjectTokenHeader, subjectToken(t, "email", "a@b.c"), "Baggage", "user.id=a@b.c"), nil, &fairlead.Exchange{User: "alice"},
			want{Actor: fairlead.Actor{App: absent, User: verified, Agent: absent}, Names: verified.Value + "=alice(a@b.c)", Subject: testIssuer + "\x00alice"}},
		{"agent names that must not stand in clear", headers("Baggage", "gen_ai.agent.id=u:aaaaaaaaaaaaaaaa,gen_ai.agent.version="+fx.key), nil, nil,
			want{Actor: fairlead.Actor{App: absent, User: absent, Agent: declaredAgent(hidden("u:aaaaaaaaaaaaaaaa"))},
				Names: hidden("u:aaaaaaaaaaaaaaaa") + "=u:aaaaaaaaaaaaaaaa()", Ignored: 1}},
		{"one of our keys as a user", headers("Baggage", "user.id="+fx.key), nil, nil,
			want{Actor: fairlead.Actor{App: absent, User: byHeader(fx.key), Agent: absent}, Names: p.DeclaredUser(tenant, fx.key) + "=[secret]()"}},
		{"broken declarations are reported", headers("Baggage", "user.id=bob,x", "Traceparent", "00-x"), nil, nil,
			want{Actor: fairlead.Actor{App: absent, User: absent, Agent: absent}, Ignored: 2}},
		{"two traceparents, three users", headers("Baggage", "user.id=bob,user.id=bob,user.id=joe", "Baggage", "user.id=eve", "Traceparent", trace, "Traceparent", trace), nil, nil,
			want{Actor: fairlead.Actor{App: absent, User: absent, Agent: absent}, Ignored: 2}},
	} {
		before := c.h.Clone()
		id, err := fx.Resolve(t.Context(), c.h, c.q, c.x)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var all []string
		for _, n := range id.Names {
			all = append(all, fmt.Sprintf("%s=%s(%s)", n.Pseudonym, n.Clear, n.Label))
		}
		got := want{id.Actor, names(all...), id.Subject, id.Conversation, id.AgentVersion, id.Trace, id.Conflict, len(id.Ignored)}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if (id.Subject != "") != (id.Actor.User.Assurance == fairlead.Verified) || (id.Key != nil) != (id.Actor.App.Assurance == fairlead.Verified) {
			t.Errorf("%s: subject or key without verification, or the reverse", c.name)
		}
		if diff := cmp.Diff(before, c.h); diff != "" {
			t.Errorf("%s: the headers were changed:\n%s", c.name, diff)
		}
		envelope := fmt.Sprint(id.Actor, id.Conversation, id.Conflict, id.Ignored, id.AgentVersion)
		for _, clear := range []string{"alice", "bob", "eve", "carol", "a@b.c", "sk-abc", fx.key} {
			if strings.Contains(envelope, clear) {
				t.Errorf("%s: %q stands in clear in %s", c.name, clear, envelope)
			}
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	fx := newFixture(t)
	revoked, k, f := newTestKey("search", time.Time{})
	mustApply(t, fx.ring, f, revocation(k))
	unknown, _ := NewKey()
	good := subjectToken(t)
	for _, c := range []struct {
		name string
		h    http.Header
		want Reason
	}{
		{"revoked key", headers("X-Api-Key", revoked.Reveal()), ReasonRevokedKey},
		{"unknown key", headers("X-Api-Key", unknown.Reveal()), ReasonUnknownKey},
		{"damaged key", headers("X-Api-Key", fx.key[:50]), ReasonMalformedKey},
		{"revoked key beside a provider's", headers("X-Api-Key", revoked.Reveal(), "Authorization", "Bearer sk-abc"), ReasonRevokedKey},
		{"two keys, one live", headers("X-Api-Key", revoked.Reveal(), "Authorization", "Bearer "+fx.key), ReasonSeveralKeys},
		{"live key, broken token", headers("X-Api-Key", fx.key, SubjectTokenHeader, good[:len(good)-20]), ReasonBadSignature},
		{"empty token", headers(SubjectTokenHeader, ""), ReasonMalformedToken},
		{"two tokens", headers(SubjectTokenHeader, good, SubjectTokenHeader, good), ReasonMalformedToken},
		{"expired token, declared user", headers(SubjectTokenHeader, subjectToken(t, "exp", 1), "Baggage", "user.id=alice"), ReasonExpiredToken},
	} {
		id, err := fx.Resolve(t.Context(), c.h, nil, nil)
		var e *Error
		if !errors.As(err, &e) || e.Reason != c.want {
			t.Errorf("%s: error %v, want reason %s", c.name, err, c.want)
		}
		if !id.Actor.IsZero() || id.Key != nil || id.Subject != "" {
			t.Errorf("%s: an identity came with the error: %+v", c.name, id)
		}
	}
	// Without issuers a token cannot be checked, and must not be passed over.
	r, err := New(Config{Pseudonyms: testPseudos()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(t.Context(), headers(SubjectTokenHeader, good), nil, nil); !errors.Is(err, &Error{Reason: ReasonUnknownIssuer}) {
		t.Errorf("no issuers: %v", err)
	}
}

func TestSafe(t *testing.T) {
	key, _ := NewKey()
	for s, want := range map[string]bool{
		"gpt-4o": true, "org/agent:v1.2@prod_x-y": true, strings.Repeat("a", 64): true,
		"": false, "a b": false, "Ä": false, "a\x00": false, "a=b": false, strings.Repeat("a", 65): false, key.Reveal(): false,
	} {
		if Safe(s) != want {
			t.Errorf("Safe(%q) = %v", s, !want)
		}
	}
}

func TestClearNamesAreNotPrinted(t *testing.T) {
	fx := newFixture(t)
	id, err := fx.Resolve(t.Context(), headers("Baggage", "user.id=bob"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v", id, id, id.Names); strings.Contains(s, "bob") || !strings.Contains(s, "u:") {
		t.Errorf("printed: %s", s)
	}
}

func BenchmarkResolve(b *testing.B) {
	fx := newFixture(b)
	key := headers("Authorization", "Bearer "+fx.key, "Content-Type", "application/json", "User-Agent", "x")
	declaring := key.Clone()
	declaring.Set("Baggage", "user.id=bob,gen_ai.agent.id=planner,gen_ai.conversation.id=c1")
	declaring.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	token := key.Clone()
	token.Set(SubjectTokenHeader, subjectToken(b, "act", obj{"sub": "planner"}, "pad", strings.Repeat("x", 500)))
	for _, c := range []struct {
		name string
		h    http.Header
	}{{"key", key}, {"key+declared", declaring}, {"key+token", token}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := fx.Resolve(b.Context(), c.h, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTokenCached(b *testing.B) {
	v := new(fakeIssuer).publish(public(rsaKey(), "r")).verifier(b)
	token := sign(b, jose.RS256, rsaKey(), "r", "JWT", with("pad", strings.Repeat("x", 300)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTokenFirstSeen(b *testing.B) {
	v := new(fakeIssuer).publish(public(rsaKey(), "r")).verifier(b)
	token := sign(b, jose.RS256, rsaKey(), "r", "JWT", goodClaims())
	if _, err := v.verify(b.Context(), token); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := v.check(b.Context(), token, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
