package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/identity"
)

// outcome is how a call ended.
type outcome struct {
	kind     string
	status   int
	errType  string
	answer   *fairlead.Answer
	released int64 // bytes of the answer that the client may have; -1 when it is all of it
	attempts int
	provider string
	// What was decided about the answer's tool calls, and the provider's own bytes if the client gets others.
	tools    []toolRuling
	original []byte
}

// upstream makes the call and answers the client. Every way out of it records an outcome.
func (c *call) upstream() {
	ctx, cancel := context.WithCancelCause(c.r.Context())
	defer cancel(nil)
	o := outcome{released: -1, provider: c.target.provider.Name}
	res, err := c.attempts(ctx, cancel, &o)
	if err != nil {
		c.fail(&o, err)
		return
	}
	if isEventStream(res.Header) {
		c.stream(ctx, cancel, res, &o)
		return
	}
	c.whole(res, &o)
}

func isEventStream(h http.Header) bool {
	if len(h["Content-Type"]) != 1 {
		return false // a client may go by another one than we do
	}
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(t), "text/event-stream") && plainEncoding(h)
}

func plainEncoding(h http.Header) bool {
	for _, e := range h["Content-Encoding"] {
		if e != "" && !strings.EqualFold(e, "identity") {
			return false
		}
	}
	return true
}

// A reply is a provider's response, with the body of a whole one already read.
type reply struct {
	*http.Response
	whole []byte
}

// attempts asks the provider, and as configured again or another one, until there is an answer to pass on. A whole
// answer is read to its end here, so that one that breaks off can be asked for again.
func (c *call) attempts(ctx context.Context, cancel context.CancelCauseFunc, o *outcome) (*reply, error) {
	p := c.target.provider
	left := p.Retries
	seen := map[string]bool{p.Name: true}
	for {
		o.attempts++
		o.provider = p.Name
		res, err := c.attempt(ctx, cancel, p)
		if ctx.Err() != nil || err == nil && !retryable(res.StatusCode) {
			return res, err
		}
		next := p
		switch {
		case left > 0:
			left--
		case p.Fallback != "" && c.who.Key != nil && c.target.known && !seen[p.Fallback]:
			// Only for those who may use the operator's credentials: a client's own key is for one provider.
			fallback, ok := c.s.Providers[p.Fallback]
			if !ok || !c.mayAsk(&fallback) {
				return res, err
			}
			next, left = &fallback, fallback.Retries
			seen[next.Name] = true
		default:
			return res, err
		}
		why := "unreachable"
		if err == nil {
			why = fmt.Sprintf("status_%d", res.StatusCode)
			res.Body.Close()
		}
		if rerr := c.recordAttempt(ctx, o.attempts+1, next, why); rerr != nil {
			return nil, rerr
		}
		if next == p {
			select {
			case <-time.After(min(100*time.Millisecond<<(o.attempts-1), 2*time.Second)):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		p = next
	}
}

// mayAsk reports whether policy lets the call go to another provider than the one that was asked for.
func (c *call) mayAsk(p *Provider) bool {
	r := c.decide(c.modelRequest(p))
	return r.Verdict.Effect == fairlead.Allow || !c.target.provider.Enforce
}

func retryable(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable,
		http.StatusGatewayTimeout, 529: // 529: Anthropic is overloaded
		return true
	}
	return false
}

// recordAttempt makes a further attempt a fact before it is made.
func (c *call) recordAttempt(ctx context.Context, n int, p *Provider, why string) error {
	if c.gapped {
		return nil
	}
	f := &fairlead.Fact{Kind: fairlead.KindCallAttempt, Tenant: c.intent.Tenant,
		Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: c.intent.ID, Assurance: fairlead.Derived}},
		Attrs: []fairlead.Attr{{Name: "fairlead.attempt", Value: int64(n)}, {Name: "gen_ai.provider.name", Value: p.Name}, {Name: "error.type", Value: why}}}
	err := c.keep(ctx, f)
	if err == nil || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.g.conf.Log.Error("a further attempt could not be recorded", "call", c.intent.ID.String(), "err", err, "open", c.target.provider.FailOpen)
	if c.target.provider.FailOpen {
		return nil // the outcome says how many there were
	}
	return unrecorded
}

// errTimeout is the cause of an attempt that took too long.
var errTimeout = errors.New("the provider took too long")

// errAnswerSize is the error for an answer beyond the limit.
var errAnswerSize = errors.New("the provider's answer is larger than this gateway lets through")

func (c *call) attempt(ctx context.Context, cancel context.CancelCauseFunc, p *Provider) (*reply, error) {
	timer := time.AfterFunc(p.Timeout, func() { cancel(errTimeout) })
	defer timer.Stop()
	res, err := c.g.transport.RoundTrip(c.outgoing(ctx, p))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	if res.StatusCode < 200 || res.StatusCode > 999 {
		res.Body.Close()
		return nil, &upstreamError{fmt.Sprintf("it answered with status %d, which ends no call", res.StatusCode)}
	}
	if isEventStream(res.Header) {
		return &reply{Response: res}, nil
	}
	defer discard(res.Body)
	var buf bytes.Buffer
	if res.ContentLength > 0 {
		buf.Grow(int(min(res.ContentLength, 1<<20)) + bytes.MinRead)
	}
	_, err = buf.ReadFrom(io.LimitReader(res.Body, c.s.MaxResponse+1))
	switch {
	case err == nil && int64(buf.Len()) > c.s.MaxResponse:
		res.Body.Close() // now: what follows may take for ever
		return nil, errAnswerSize
	case err != nil && context.Cause(ctx) != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, &upstreamError{fmt.Sprintf("its answer broke off after %d bytes: %s", buf.Len(), plain(err))}
	}
	return &reply{Response: res, whole: buf.Bytes()}, nil
}

// hopByHop are headers for one connection only (RFC 9110 section 7.6.1).
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func dropHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// outgoing makes the request for a provider: the client's bytes and headers, less what is for us alone.
func (c *call) outgoing(ctx context.Context, p *Provider) *http.Request {
	u := *p.base
	u.RawPath = p.base.EscapedPath() + c.target.path
	u.Path, _ = url.PathUnescape(u.RawPath) // plainPath has seen that it unescapes
	query := url.Values{}
	for k, v := range c.query {
		query[k] = v
	}
	h := c.r.Header.Clone()
	dropHopByHop(h)
	u.RawQuery = c.r.URL.RawQuery
	changed := identity.Strip(h, query)
	inject := c.who.Key != nil && !p.APIKey.IsZero() && c.target.known
	switch cred := &c.who.Credential; {
	case p.Name != c.target.provider.Name:
		// What the client brought for one provider is nothing for another.
		keepSlot(h, query, "")
		h.Del("Cookie")
		changed = true
	case inject:
		changed = keepSlot(h, query, "") || changed
	case c.who.Key == nil && len(cred.Others) > 0:
		// Several keys for the provider: forward the one that the record names, not one that nobody looked at.
		changed = keepSlot(h, query, cred.Slot) || changed
	}
	if changed {
		u.RawQuery = query.Encode()
	}
	// Bytes that we cannot read we could not record in a way that anybody could check: ask for them plain.
	h.Set("Accept-Encoding", "identity")
	if inject {
		if p.Dialect == "anthropic" {
			h.Set("X-Api-Key", p.APIKey.Reveal())
		} else {
			h.Set("Authorization", "Bearer "+p.APIKey.Reveal())
		}
	}
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if v, ok := h[name]; ok {
			// Under its canonical name net/http would take it as leave to send the request again, unrecorded.
			delete(h, name)
			h[strings.ToLower(name)] = v
		}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // net/http would add its own
	}
	body := c.body
	if c.sent != nil {
		body = c.sent
	}
	req := &http.Request{Method: c.r.Method, URL: &u, Host: p.base.Host, Header: h, ContentLength: int64(len(body)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if len(body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	return req.WithContext(ctx)
}

// keepSlot removes credentials from every slot but one, and reports whether the query changed.
func keepSlot(h http.Header, q url.Values, keep identity.Slot) (queryChanged bool) {
	for _, s := range []identity.Slot{identity.SlotBearer, identity.SlotXAPI, identity.SlotAPI, identity.SlotGoogle} {
		if s != keep {
			h.Del(string(s))
		}
	}
	if keep == identity.SlotQuery || !q.Has("key") {
		return false
	}
	q.Del("key")
	return true
}

// fail answers a call that got no answer from its provider.
func (c *call) fail(o *outcome, err error) {
	r := c.classify(o, err)
	o.status = 0
	if r == nil {
		o.released = 0
		_ = c.close(o, nil) // nobody is left to be told
		return
	}
	ref := dialect.Refusal{Status: r.status, Code: r.code, Message: "Fairlead: " + r.message, DecisionID: c.intent.ID.String(), Retry: r.retry}
	status, h, body := c.target.provider.dialect.Refuse(ref)
	if err := c.close(o, body); err != nil {
		c.answerRefusal(unrecorded, c.intent.ID)
		return
	}
	c.deliver(o, writeAll(c.w, status, h, body), int64(len(body)))
}

// unrecorded is the refusal when an answer is there but cannot be recorded.
var unrecorded = &refusal{status: http.StatusServiceUnavailable, code: "ledger_unavailable", retry: true,
	message: "the answer cannot be recorded at the moment, and this route gives out only what it has recorded; try again shortly"}

// classify says what an error from upstream means; nil when the client went away.
func (c *call) classify(o *outcome, err error) *refusal {
	switch {
	case err == unrecorded:
		o.kind, o.errType = outcomeUpstream, "ledger_unavailable"
		return unrecorded
	case errors.Is(err, errUnjudged):
		o.kind, o.errType = outcomeWithheld, "unreadable_answer"
		return &refusal{status: http.StatusBadGateway, code: "unreadable_answer", message: errUnjudged.Error() + ", and this route is enforced: ask the operator for observe mode"}
	case errors.Is(err, errTimeout):
		o.kind, o.errType = outcomeTimeout, "timeout"
		return &refusal{status: http.StatusGatewayTimeout, code: "upstream_timeout", message: "the provider did not answer in time", retry: true}
	case errors.Is(err, errAnswerSize):
		o.kind, o.errType = outcomeTooLarge, "response_too_large"
		return &refusal{status: http.StatusBadGateway, code: "response_too_large", message: errAnswerSize.Error() + ": raise limits.response_bytes"}
	case c.r.Context().Err() != nil:
		o.kind, o.errType = outcomeAborted, "client_gone"
		return nil
	}
	o.kind, o.errType = outcomeUpstream, "unreachable"
	c.g.conf.Log.Warn("a provider failed", "provider", o.provider, "call", c.intent.ID.String(), "err", plain(err))
	return &refusal{status: http.StatusBadGateway, code: "upstream_unreachable", retry: true,
		message: fmt.Sprintf("the provider %s could not be reached or broke off: see the gateway's log for call %s", o.provider, c.intent.ID)}
}

// plain says what went wrong with a provider in words that hold nothing of what it sent: net/http quotes what it cannot
// read, and a provider may well send back the key that it was sent.
func plain(err error) string {
	var (
		network *net.OpError
		name    *net.DNSError
		cert    *tls.CertificateVerificationError
		tls     tls.RecordHeaderError
		ours    *upstreamError
	)
	switch {
	case errors.As(err, &ours):
		return ours.Error()
	case errors.As(err, &network):
		return network.Error()
	case errors.As(err, &name):
		return name.Error()
	case errors.As(err, &cert):
		return cert.Error()
	case errors.As(err, &tls):
		return tls.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection before its answer was whole"
	}
	return "it did not answer in proper HTTP"
}

// An upstreamError is a failure of a provider in our own words.
type upstreamError struct{ text string }

func (e *upstreamError) Error() string { return e.text }

// close records the outcome with the exact bytes that the client gets.
func (c *call) close(o *outcome, body []byte) error {
	c.g.conf.Metrics.finished(c, o)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), recordTimeout)
	defer cancel()
	if c.gapped {
		c.settle(o)
		return nil // noted when its intent could not be recorded
	}
	f := &fairlead.Fact{Kind: fairlead.KindCallOutcome, Tenant: c.intent.Tenant, Actor: c.appAccepted(o.status),
		Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: c.intent.ID, Assurance: fairlead.Derived}}, Attrs: c.outcomeAttrs(o)}
	err := c.keep(ctx, f, content{name: "response", body: body}, content{name: "upstream", body: o.original}, content{name: "verdict", body: verdictJSON(o.tools)})
	c.settle(o) // what was used was used, whether or not it is on record
	if err == nil {
		c.link.Proven, c.link.Label = c.linked.Proven, c.bound()
		c.link.Run = c.linked.Run.Next(c.intent.ID, c.start.UTC(), len(c.exchange.Messages))
		answer := learnable(o)
		c.g.conf.Linker.Learn(&c.link, c.intent.ID, c.scope.ID, answer)
		c.remember(answer)
		return nil
	}
	c.g.conf.Log.Error("an outcome could not be recorded", "call", c.intent.ID.String(), "err", err, "open", c.target.provider.FailOpen)
	if !c.target.provider.FailOpen {
		c.g.gaps.later(c.intent.ID, c.intent.Tenant, outcomeWithheld)
		return err
	}
	c.g.gaps.later(c.intent.ID, c.intent.Tenant, outcomeUnrecorded)
	c.g.gaps.add(c.g.now())
	return nil
}

// learnable is the answer that later calls may continue: one that the client has all of.
func learnable(o *outcome) *fairlead.Answer {
	if o.kind == outcomeCompleted {
		return o.answer
	}
	return nil
}

// deliver records that a client did not take an answer whose outcome says otherwise.
func (c *call) deliver(o *outcome, err error, size int64) {
	if err == nil || c.gapped {
		return
	}
	f := &fairlead.Fact{Kind: fairlead.KindDelivery, Tenant: c.intent.Tenant,
		Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: c.intent.ID, Assurance: fairlead.Derived}},
		Attrs: []fairlead.Attr{{Name: "error.type", Value: "client_gone"}, {Name: "fairlead.recorded.bytes", Value: size}}}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), recordTimeout)
	defer cancel()
	if err := c.keep(ctx, f); err != nil {
		c.g.conf.Log.Error("a broken delivery could not be recorded", "call", c.intent.ID.String(), "err", err)
	}
}

// whole passes on an answer that was read to its end: recorded first, released after.
func (c *call) whole(res *reply, o *outcome) {
	o.status = res.StatusCode
	o.kind = outcomeCompleted
	if res.StatusCode >= 300 {
		o.kind = outcomeStatus
	}
	if c.target.known && plainEncoding(res.Header) {
		ans, err := c.target.provider.dialect.Answer(c.target.route, res.whole)
		switch {
		case err != nil && o.kind == outcomeCompleted:
			o.kind, o.errType = outcomeUpstream, "unreadable_answer"
		case err == nil:
			o.answer, o.errType = &ans, ans.ErrorType
		}
	}
	if res.StatusCode == http.StatusUnauthorized && c.who.Key == nil {
		c.g.conf.Failures.Add(identity.ReasonProviderRejectedIt, remoteIP(c.r))
	}
	body := res.whole
	if o.status < 300 {
		var err error
		if body, err = c.release(o, res.whole); err != nil {
			c.fail(o, err)
			return
		}
	}
	if err := c.close(o, body); err != nil {
		c.answerRefusal(unrecorded, c.intent.ID)
		return
	}
	copyHeader(c.w.Header(), res.Header)
	if c.r.Method != http.MethodHead {
		c.w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	}
	c.w.WriteHeader(res.StatusCode)
	_, err := c.w.Write(body)
	if err == nil {
		err = c.r.Context().Err()
	}
	c.deliver(o, err, int64(len(body)))
}

// release gives the bytes of a whole answer that may go out: all of them, unless policy takes tool calls out of it.
func (c *call) release(o *outcome, body []byte) ([]byte, error) {
	if o.answer == nil {
		if c.target.provider.Enforce && c.target.known {
			return nil, errUnjudged
		}
		return body, nil
	}
	var err error
	if o.tools, err = c.mediate(c.r.Context(), o.answer, func() {}); err != nil {
		return nil, err
	}
	refused := withheld(o.tools)
	if len(refused) == 0 {
		return body, nil
	}
	d, rt := c.target.provider.dialect, c.target.route
	out, err := d.Withhold(rt, body, refused)
	if err == nil {
		var ans fairlead.Answer
		if ans, err = d.Answer(rt, out); err == nil {
			o.answer, o.original = &ans, body
			c.g.rewritten.learn(c.link.Domain, &ans, refused)
			return out, nil
		}
	}
	c.g.conf.Log.Error("tool calls could not be taken out of an answer: all of it is withheld", "call", c.intent.ID.String(), "err", err)
	o.original = body
	return nil, errUnjudged
}

// errUnjudged is the error for an answer that enforce mode cannot let out, because what it asks for cannot be told.
var errUnjudged = errors.New("the answer cannot be read well enough to decide about what it asks for")

func copyHeader(dst, src http.Header) {
	dropHopByHop(src)
	for k, v := range src {
		if !strings.HasPrefix(k, "Fairlead-") && k != "Content-Length" {
			dst[k] = v
		}
	}
}
