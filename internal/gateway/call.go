package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/flow"
	"github.com/fairleadhq/fairlead/internal/identity"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/provenance"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// A call is one call on its way through the gateway.
type call struct {
	g      *Gateway
	s      *Settings
	w      http.ResponseWriter
	r      *http.Request
	start  time.Time
	target target

	body     []byte
	sent     []byte // what goes to the provider, where that is not body
	exchange *fairlead.Exchange
	unread   string // why the body was not read, where it was let through all the same
	query    url.Values
	queryErr error
	who      identity.Identity
	would    []string // what enforce mode would have refused

	link     provenance.Request
	linked   provenance.Linked
	flow     *flow.Context
	frozen   []uint64          // hashes of the tools that were on offer before anything untrusted came in
	foreign  []int             // the messages that nobody here returned or asked for, in order
	earlier  fairlead.Label    // of the known part of the conversation, where its parts are labelled anew
	began    string            // names the conversation, once somebody asked for it
	request  *string           // the user's newest message, likewise
	texts    map[[2]int]string // of parts that an approver is shown
	policies *Policies
	rulings  []ruling
	reserved *budget.Reservation
	scope    *ledger.Scope
	intent   fairlead.Fact
	gapped   bool // the intent could not be recorded, and the route lets such calls pass
}

// refusal is why a call is not let through.
type refusal struct {
	status  int
	code    string
	message string
	retry   bool
	after   time.Duration   // with retry: when it may help; a second if zero
	resend  bool            // the conversation has to be sent whole
	rules   []string        // the rules that stand in its way
	reason  identity.Reason // set when a credential did not hold
}

func (e *refusal) Error() string { return e.message }

// ServeHTTP takes a call through the gateway.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := g.settings.Load()
	if !g.admit(s, w, r) {
		return
	}
	t, err := s.locate(r)
	if err != nil {
		g.notFound(s, w, r, err)
		return
	}
	g.underWay.Add(1)
	defer g.underWay.Done()
	g.conf.Metrics.inFlight.Inc()
	defer g.conf.Metrics.inFlight.Dec()
	c := &call{g: g, s: s, w: w, r: r, start: g.now(), target: t, policies: g.policies.Load()}
	if err := c.run(); err != nil {
		c.refuse(err)
	}
}

// run is the straight line. An error is a call that was refused before it went upstream; every way out of upstream
// records an outcome.
func (c *call) run() error {
	// What is wrong with a body is for those to know, and to have on record, who may call at all.
	if err := c.identify(); err != nil {
		return err
	}
	if err := c.decode(); err != nil {
		return err
	}
	if err := c.claims(); err != nil {
		return err
	}
	if err := c.observe(); err != nil {
		return err
	}
	declared, err := declaredLabels(c.r.Header)
	if err != nil {
		return err
	}
	c.label(declared)
	if err := c.reserve(); err != nil {
		return err
	}
	defer c.giveBack()
	if err := c.judge(); err != nil {
		return err
	}
	if err := c.record(); err != nil {
		return err
	}
	c.w.Header().Set("Fairlead-Decision-Id", c.intent.ID.String())
	c.w.Header().Set(labelHeader, c.bound().String()) // an answer inherits the join of what it is made from
	c.upstream()
	return nil
}

// decode reads the body and what it asks.
func (c *call) decode() error {
	var err error
	c.exchange = &opaque
	if c.body, err = readBody(c.w, c.r, c.s.MaxRequest); err != nil {
		return err
	}
	if c.strayKey(c.queryErr != nil) { // before anything of the request is repeated or kept
		return &refusal{status: http.StatusBadRequest, code: "key_in_content",
			message: "the request holds a Fairlead key in a place where it would reach the provider: take it out, and have it revoked if others have seen it"}
	}
	p := c.target.provider
	var unread error
	switch enc := c.r.Header.Get("Content-Encoding"); {
	case !c.target.known:
		unread = fmt.Errorf("it is not known here what %.20s %.100q does, and this route lets through only what can be read: ask the operator to put the provider %s in observe mode, or use one of its known paths",
			c.r.Method, c.r.URL.Path, p.Name)
		c.unread = "unmapped"
	case enc != "" && enc != "identity":
		unread = fmt.Errorf("the request's Content-Encoding %.40q is not read: send the body uncompressed", enc)
		c.unread = "content_encoding"
	default:
		x, err := p.dialect.Read(c.target.route, c.body)
		if err == nil {
			c.exchange = &x
			return nil
		}
		unread = fmt.Errorf("the request cannot be read: %w", err)
		c.unread = "unreadable"
		var syntax *wire.SyntaxError
		if errors.As(err, &syntax) {
			c.unread = "malformed"
		}
	}
	if p.Enforce {
		status := http.StatusBadRequest
		if c.unread == "unmapped" {
			status = http.StatusForbidden
		}
		return &refusal{status: status, code: c.unread, message: unread.Error()}
	}
	c.would = append(c.would, c.unread)
	return nil
}

// readBody reads the whole body within the limit.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		// A length is a promise, not memory: a client that announces much and sends little must not cost much.
		buf.Grow(int(min(r.ContentLength, 1<<20)) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		var max *http.MaxBytesError
		if errors.As(err, &max) {
			return nil, tooLarge(limit)
		}
		return nil, &refusal{status: http.StatusBadRequest, code: "incomplete_body", message: "the request's body ended early: " + err.Error()}
	}
	return buf.Bytes(), nil
}

func tooLarge(limit int64) error {
	return &refusal{status: http.StatusRequestEntityTooLarge, code: "request_too_large",
		message: fmt.Sprintf("the request is larger than %d bytes: send less, or raise limits.request_bytes", limit)}
}

// identify says who calls, before anything is read of the body: whoever has no business here costs no memory.
func (c *call) identify() error {
	// What of a query does not parse is forwarded all the same; strayKey looks at its raw form.
	c.query, c.queryErr = url.ParseQuery(c.r.URL.RawQuery)
	if err := c.resolve(nil); err != nil {
		return err
	}
	if c.who.Key == nil && (c.s.RequireKey || c.who.Credential.Slot == "" && !c.target.provider.APIKey.IsZero()) {
		return &refusal{status: http.StatusUnauthorized, code: string(identity.ReasonNoCredential), reason: identity.ReasonNoCredential,
			message: "this gateway asks for a Fairlead key: put one where the SDK takes its api_key (the operator makes it with fairlead key create)"}
	}
	return nil
}

// resolve refuses credentials that do not hold.
func (c *call) resolve(x *fairlead.Exchange) error {
	who, err := c.s.Resolver.Resolve(c.r.Context(), c.r.Header, c.query, x)
	if err == nil {
		c.who = who
		return nil
	}
	var bad *identity.Error
	if !errors.As(err, &bad) {
		return err
	}
	status := http.StatusUnauthorized
	if bad.Reason == identity.ReasonIssuerUnavailable {
		status = http.StatusServiceUnavailable
	}
	return &refusal{status: status, code: string(bad.Reason), message: bad.Error(), reason: bad.Reason, retry: status == http.StatusServiceUnavailable}
}

// claims takes in what the body says of its sender.
func (c *call) claims() error {
	if x := c.exchange; x.User != "" || x.Conversation != "" {
		return c.resolve(x)
	}
	return nil
}

// strayKey reports whether something shaped like our keys stands where it would be forwarded. Slots and Fairlead
// headers are stripped later; the body never is.
func (c *call) strayKey(rawQuery bool) bool {
	_, found := identity.Find(c.body)
	if !found {
		_, found = identity.Find([]byte(c.r.URL.Path)) // unescaped
	}
	if rawQuery && !found {
		_, found = identity.Find([]byte(c.r.URL.RawQuery))
	}
	return found
}

// observe links the call to what it follows from.
func (c *call) observe() error {
	actor := &c.who.Actor
	d := provenance.Domain{Tenant: c.who.Tenant(), App: actor.App.Value}
	if c.who.Subject != "" {
		d.User = actor.User.Value
	}
	c.link = provenance.Request{Domain: d, Body: c.body, Exchange: c.exchange, Chain: ledger.ChainOf(c.body, c.exchange.Messages),
		Conversation: c.who.Conversation, Trace: c.who.Trace.TraceID}
	c.linked = c.g.conf.Linker.Link(&c.link)
	return c.mend()
}

// record makes the intent durable: no fact, no call.
func (c *call) record() error {
	p := c.target.provider
	id := c.intent.ID
	if id.IsZero() {
		id = c.g.conf.Ledger.NewID()
	}
	c.intent = fairlead.Fact{Kind: fairlead.KindCallIntent, ID: id, Tenant: c.who.Tenant(), Actor: c.who.Actor, Links: c.linked.Links,
		Attrs: c.intentAttrs()}
	if c.reserved != nil {
		for _, a := range c.reserved.Attrs() {
			if c.intent.Attr(a.Name) == nil { // the run may be named already
				c.intent.Attrs = append(c.intent.Attrs, a)
			}
		}
	}
	if c.r.Context().Err() != nil {
		return &refusal{status: statusClientGone, code: "client_gone", message: "the client went away"}
	}
	// From here on a client that goes away changes nothing: an intent that may be durable needs its outcome.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), recordTimeout)
	defer cancel()
	err := c.keep(ctx, &c.intent, content{"request", c.body, &ledger.Layout{Chain: c.link.Chain, Units: c.exchange.Units}, c.names()},
		content{name: "sent", body: c.sent})
	if err == nil {
		return nil
	}
	c.g.conf.Log.Error("a call could not be recorded", "err", err, "open", p.FailOpen)
	if !p.FailOpen {
		return &refusal{status: http.StatusServiceUnavailable, code: "ledger_unavailable", retry: true,
			message: "the call cannot be recorded at the moment, and this route lets through only what it can record; try again shortly"}
	}
	c.gapped = true
	c.g.gaps.add(c.g.now())
	return nil
}

// statusClientGone is what nginx logs when nobody is left to answer; it never reaches a wire.
const statusClientGone = 499

// content is what a fact refers to in the vault.
type content struct {
	name   string
	body   []byte
	layout *ledger.Layout
	names  []string
}

// keep seals content and records the fact that refers to it.
func (c *call) keep(ctx context.Context, f *fairlead.Fact, contents ...content) error {
	if c.scope == nil {
		if err := c.findScope(ctx); err != nil {
			return err
		}
	}
	var blobs []*ledger.Blob
	for _, b := range contents {
		if len(b.body) > 0 || len(b.names) > 0 {
			blobs = append(blobs, c.g.conf.Ledger.Vault().Seal(c.scope, b.name, b.body, b.layout, b.names)...)
		}
	}
	pending, err := c.g.conf.Ledger.Send(ctx, f, blobs...)
	if err != nil || c.target.provider.Async {
		return err
	}
	_, err = pending.Wait(ctx)
	return err
}

// findScope finds the key scope of the call: that of the verified subject, else of the conversation that it provably
// continues, else a new one.
func (c *call) findScope(ctx context.Context) error {
	v := c.g.conf.Ledger.Vault()
	app, err := v.AppScope(ctx, c.who.Tenant(), c.who.Actor.App.Value)
	if err != nil {
		return err
	}
	switch {
	case c.who.Subject != "":
		c.scope, err = v.SubjectScope(ctx, app, c.who.Subject)
	case c.linked.Scope != 0:
		if c.scope, err = v.Scope(ctx, c.linked.Scope); err != nil {
			// The conversation was erased: what comes now is a new one.
			c.scope, err = v.NewScope(app)
		}
	default:
		c.scope, err = v.NewScope(app)
	}
	return err
}

// refuse answers a call that is not let through, and records that.
func (c *call) refuse(err error) {
	var r *refusal
	if !errors.As(err, &r) {
		c.g.conf.Log.Error("a call failed inside the gateway", "err", err)
		r = &refusal{status: http.StatusInternalServerError, code: "internal", message: "something went wrong inside the gateway; its log says what", retry: true}
	}
	c.g.conf.Metrics.refused(r.code)
	id := c.intent.ID
	if r.reason != "" {
		// Wrong credentials by the thousand become one fact per minute.
		c.g.conf.Failures.Add(r.reason, remoteIP(c.r))
	} else if r.status != statusClientGone {
		id = c.recordRefusal(r)
	}
	if r.status == statusClientGone {
		return
	}
	c.answerRefusal(r, id)
}

// recordRefusal records a refusal, with what was refused if its sender is known.
func (c *call) recordRefusal(r *refusal) fairlead.ID {
	if c.exchange == nil {
		c.exchange = &opaque
	}
	id := c.intent.ID
	if id.IsZero() {
		id = c.g.conf.Ledger.NewID()
	}
	f := &fairlead.Fact{Kind: fairlead.KindCallRefused, ID: id, Tenant: c.who.Tenant(), Actor: c.who.Actor, Links: c.linked.Links}
	f.Attrs = append(c.intentAttrs(), fairlead.Attr{Name: "fairlead.refusal", Value: r.code}, fairlead.Attr{Name: "http.response.status_code", Value: int64(r.status)})
	if len(r.rules) > 0 {
		f.Attrs = append(f.Attrs, fairlead.Attr{Name: "fairlead.refusal.rules", Value: r.rules[:min(len(r.rules), 16)]})
	}
	var body []byte
	if c.who.Key != nil && r.code != "key_in_content" {
		body = c.body
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), recordTimeout)
	defer cancel()
	if err := c.keep(ctx, f, content{"request", body, nil, c.names()}); err != nil {
		// The call was refused: nothing happened that the record would have to show. The log says it.
		c.g.conf.Log.Error("a refusal could not be recorded", "code", r.code, "err", err)
	}
	return f.ID
}

// recordTimeout bounds the wait for the ledger once the client's own context does not.
const recordTimeout = 30 * time.Second

func (c *call) answerRefusal(r *refusal, id fairlead.ID) {
	ref := dialect.Refusal{Status: r.status, Code: r.code, Message: "Fairlead: " + r.message, DecisionID: id.String(), Retry: r.retry, Resend: r.resend}
	if r.retry {
		ref.RetryAfter = max(r.after, time.Second)
	}
	status, h, body := c.target.provider.dialect.Refuse(ref)
	if !id.IsZero() {
		h.Set("Fairlead-Decision-Id", id.String())
	}
	if r.status == http.StatusRequestEntityTooLarge || r.code == "incomplete_body" {
		h.Set("Connection", "close")
	}
	_ = writeAll(c.w, status, h, body) // the client is told or gone; the refusal is recorded either way
}

func remoteIP(r *http.Request) string {
	host, _, ok := strings.Cut(r.RemoteAddr, ":")
	if strings.HasPrefix(r.RemoteAddr, "[") {
		host, _, ok = strings.Cut(r.RemoteAddr[1:], "]")
	}
	if !ok {
		return r.RemoteAddr
	}
	return host
}

// discard reads away what is left of a body, within reason, so that its connection can be used again.
func discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	body.Close()
}
