// Package identity turns the credentials and the claims of a request into an actor chain: which app, for which user,
// through which agents, and how each of these is known.
//
// It withstands a caller who wants to pass for another one: who guesses, mistypes or replays keys, forges, alters or
// borrows tokens, names other people in headers, or floods us with any of these. What is verified (a virtual key, a
// signed subject token) may widen what is permitted; what is merely declared never widens anything and never chooses a
// key. A credential that does not hold is an error and is never silently ignored. It does not withstand somebody who
// holds a live key or token of another: both are bearer credentials.
//
// Keys and tokens are never recorded, printed or passed on; names of people appear in facts as pseudonyms only.
//
// All work is linear in the request's headers, which net/http bounds; tokens are read up to 16 KiB, baggage up to
// 8 KiB and 64 members. An issuer is contacted at most every 30 seconds (5 while we hold none of its keys), whatever
// is sent. Memory is bounded by the number of keys made, the issuers configured and a cache of 4096 tokens.
package identity

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead"
)

// The methods by which a facet is established.
const (
	MethodVirtualKey  = "virtual-key"
	MethodProviderKey = "provider-key"
	MethodOIDC        = "oidc"
	MethodBaggage     = "baggage"
	MethodBody        = "body"
)

// A Config says whom to believe.
type Config struct {
	// Pseudonyms is required.
	Pseudonyms *Pseudonyms
	// Keys are the live virtual keys. Nil: there are none, and every key of ours is unknown.
	Keys *Ring
	// Tenant is that of requests without a virtual key. Empty: fairlead.DefaultTenant.
	Tenant string
	// Issuers are those whose subject tokens are believed. Empty: a request that carries one is refused.
	Issuers []Issuer
	// Client fetches the issuers' keys; of it, the transport and the timeout are used. Nil: the default transport and
	// 10 seconds.
	Client *http.Client
}

// A Resolver says who stands behind a request. It is safe for concurrent use.
type Resolver struct {
	pseudonyms *Pseudonyms
	keys       *Ring
	tokens     *verifier
	tenant     string
}

// New checks the configuration. It contacts nobody.
func New(c Config) (*Resolver, error) {
	if c.Pseudonyms == nil {
		return nil, errNoPseudonyms
	}
	if c.Keys == nil {
		c.Keys = new(Ring)
	}
	v, err := newVerifier(c.Issuers, c.Client)
	if err != nil {
		return nil, err
	}
	if c.Tenant == "" {
		c.Tenant = fairlead.DefaultTenant
	}
	return &Resolver{pseudonyms: c.Pseudonyms, keys: c.Keys, tokens: v, tenant: c.Tenant}, nil
}

// CheckIssuers fetches the keys of every issuer, unless that was done within the last 30 seconds, and gives what went
// wrong with the last fetch, by issuer URL. It is for start-up and diagnosis.
func (r *Resolver) CheckIssuers(ctx context.Context) map[string]error {
	wrong := make(map[string]error)
	for at, s := range r.tokens.issuers {
		s.refresh(ctx)
		s.mu.Lock()
		err := s.lastErr
		if err == nil && len(s.keys) == 0 {
			err = ctx.Err()
		}
		s.mu.Unlock()
		if err != nil {
			wrong[at] = err
		}
	}
	return wrong
}

// An Identity is who stands behind a request.
type Identity struct {
	// Actor is pseudonymous: people, conversations and provider keys appear as pseudonyms, apps and harmless agent ids
	// in clear. A facet about which nothing is said has assurance Absent.
	//
	// An app facet with method "provider-key" is Declared: the gateway makes it Derived once the provider has accepted
	// the key.
	Actor fairlead.Actor
	// Names are what the pseudonyms in this Identity stand for, except that of a provider key.
	Names []Name
	// Key is the virtual key that verified the app, or nil. It is shared: do not change it.
	Key *Key
	// Credential is the api_key that the request carries and where.
	Credential Credential
	// Token is the evidence for a verified user, or nil.
	Token *Token
	// Subject is the issuer, a zero byte and the sub of a verified token; otherwise empty. Nothing else may choose a
	// content key or a scope for links.
	Subject string
	// Conversation is the pseudonym of the declared conversation, or empty.
	Conversation string
	// AgentVersion is what the caller declares, if it is Safe.
	AgentVersion string
	// Trace is the declared parent step.
	Trace TraceParent
	// Conflict says, in pseudonyms, where the caller's declarations contradict a verified token or each other. The
	// verified one stands. Empty: nowhere.
	Conflict string
	// Ignored are declarations that could not be read, as sentences without content. They may stand in an envelope.
	Ignored []string

	tenant string // of requests without a virtual key
}

// Tenant gives the tenant of the virtual key, or that of requests without one.
func (id *Identity) Tenant() string {
	if id.Key != nil && id.Key.Tenant != "" {
		return id.Key.Tenant
	}
	return id.tenant
}

// Resolve reads h (names in canonical form), q and x, which may be nil, and changes none of them. Every error is an
// [*Error]; the request must then be refused. Only an unknown signing key of an issuer makes it wait, at most 10
// seconds and no longer than ctx.
func (r *Resolver) Resolve(ctx context.Context, h http.Header, q url.Values, x *fairlead.Exchange) (Identity, error) {
	id := Identity{tenant: r.tenant}
	id.Credential = FindCredential(h, q)
	if err := r.app(&id); err != nil {
		return Identity{}, err
	}
	token, err := r.tokens.header(ctx, h)
	if err != nil {
		return Identity{}, err
	}
	d := readDeclared(h, x)
	id.Token, id.Trace, id.Ignored = token, d.trace, d.problems
	r.user(&id, &d)
	r.agent(&id, &d)
	if d.conversation != "" {
		id.Conversation = r.pseudonyms.Conversation(id.Tenant(), d.conversation)
		id.name(id.Conversation, d.conversation, "")
	}
	return id, nil
}

// Person checks a subject token that somebody presents for themself, and gives them as the user facet of a request
// with that token would. The error is an [*Error].
func (r *Resolver) Person(ctx context.Context, token string) (Identity, error) {
	id := Identity{tenant: r.tenant}
	id.Actor.App.Assurance = fairlead.Absent
	t, err := r.tokens.verify(ctx, token)
	if err != nil {
		return id, err
	}
	id.Token = t
	r.user(&id, &declared{})
	r.agent(&id, &declared{})
	return id, nil
}

func (r *Resolver) app(id *Identity) error {
	c := &id.Credential
	switch {
	case c.Several:
		return errSeveralKeys
	case c.Ours:
		k, err := r.keys.Lookup(c.Secret)
		if err != nil {
			return err
		}
		id.Key = k
		id.Actor.App = fairlead.Facet{Value: k.App, Assurance: fairlead.Verified, Method: MethodVirtualKey}
	case c.Slot != "":
		id.Actor.App = fairlead.Facet{Value: r.pseudonyms.providerKey(id.Tenant(), c.Secret.Reveal()),
			Assurance: fairlead.Declared, Method: MethodProviderKey}
	default:
		id.Actor.App.Assurance = fairlead.Absent
	}
	return nil
}

func (r *Resolver) user(id *Identity, d *declared) {
	t, tenant := id.Token, id.Tenant()
	claim := func(name string) string {
		p := r.pseudonyms.DeclaredUser(tenant, name)
		id.name(p, name, "")
		return p
	}
	switch {
	case t != nil:
		value := r.pseudonyms.VerifiedUser(tenant, t.Issuer, t.subject)
		label := ""
		if len(t.aliases) > 0 {
			label = t.aliases[0]
		}
		id.name(value, t.subject, label)
		id.Subject = t.Issuer + "\x00" + t.subject
		id.Actor.User = fairlead.Facet{Value: value, Assurance: fairlead.Verified, Method: MethodOIDC, Issuer: t.Issuer}
		// What names the same person in other words is no contradiction, but only the issuer can say so.
		for _, name := range [...]string{d.user, d.ambiguous} {
			if name != "" && name != t.subject && !slices.Contains(t.aliases, name) {
				id.conflict("user: the token verifies " + value + ", the caller declares " + claim(name))
			}
		}
	case d.user != "":
		value := claim(d.user)
		id.Actor.User = fairlead.Facet{Value: value, Assurance: fairlead.Declared, Method: d.userMethod}
		if d.ambiguous != "" {
			id.conflict("user: the baggage declares " + value + ", the body " + claim(d.ambiguous))
		}
	default:
		id.Actor.User.Assurance = fairlead.Absent
	}
}

func (r *Resolver) agent(id *Identity, d *declared) {
	tenant := id.Tenant()
	value := func(name, label string) string {
		v, hidden := r.pseudonyms.agent(tenant, name)
		if hidden || label != "" && label != name {
			id.name(v, name, label)
		}
		return v
	}
	if d.agentVersion != "" {
		if Safe(d.agentVersion) {
			id.AgentVersion = d.agentVersion
		} else {
			id.Ignored = append(id.Ignored, "gen_ai.agent.version was ignored: expected 1 to 64 characters of A-Z a-z 0-9 . _ : / @ -")
		}
	}
	switch t := id.Token; {
	case t != nil && len(t.chain) > 0:
		id.Actor.Chain = make([]string, len(t.chain))
		for i, a := range t.chain {
			id.Actor.Chain[i] = value(a, "")
		}
		id.Actor.Agent = fairlead.Facet{Value: id.Actor.Chain[0], Assurance: fairlead.Verified, Method: MethodOIDC, Issuer: t.Issuer}
		if d.agent != "" && d.agent != t.chain[0] {
			id.conflict("agent: the token verifies " + id.Actor.Chain[0] + ", the caller declares " + value(d.agent, d.agentName))
		}
	case d.agent != "":
		id.Actor.Agent = fairlead.Facet{Value: value(d.agent, d.agentName), Assurance: fairlead.Declared, Method: MethodBaggage}
	default:
		id.Actor.Agent.Assurance = fairlead.Absent
	}
}

// maxClear bounds a clear name. The pseudonym is always that of the whole name.
const maxClear = 1 << 10

func (id *Identity) name(pseudonym, clear, label string) {
	if slices.ContainsFunc(id.Names, func(n Name) bool { return n.Pseudonym == pseudonym }) {
		return
	}
	id.Names = append(id.Names, Name{pseudonym, clip(clear), clip(label)})
}

func clip(s string) string {
	if hasKey(s) {
		return redacted
	}
	if len(s) > maxClear {
		s = s[:maxClear]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func (id *Identity) conflict(s string) {
	if id.Conflict != "" {
		id.Conflict += "; "
	}
	id.Conflict += s
}

// ForTenant is the identity of a call of that tenant that was recorded earlier.
func ForTenant(tenant string) Identity { return Identity{tenant: tenant} }
