// Package gateway is the data plane: it stands between applications and model providers, lets calls through unchanged,
// and makes sure that each is attributed, linked and durably recorded before it goes upstream, and its outcome before
// the client has all of it.
//
// One call is one straight line, in call.go: decode, who, seen, intent, upstream, outcome. The bytes of a body are
// never changed. On a strict route that fails closed, no client receives a completed answer that the ledger does not
// hold, whatever dies at whatever moment.
//
// The adversary is whoever can reach the port: a client with wrong or stolen keys, a web page in the user's browser, a
// body or stream made to confuse two readers, a provider that lies, stalls or resets. Bodies, streams, headers, retries
// and memory are bounded; a client that goes away frees what it held; credentials are forwarded only to whom they are
// for.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/approval"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/flow"
	"github.com/fairleadhq/fairlead/internal/identity"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/policy"
	"github.com/fairleadhq/fairlead/internal/provenance"
)

// Config is what a gateway is made of. Ledger, Resolver and Linker are required.
type Config struct {
	Ledger    *ledger.Ledger
	Resolver  *identity.Resolver
	Linker    *provenance.Linker
	Approvals *approval.Book     // nil: what is held cannot be endorsed
	Budget    *budget.Book       // nil: nothing is limited
	Policies  Policies           // the starter set if there is none
	Failures  *identity.Failures // where credentials that do not hold are counted; its own if nil
	Metrics   *Metrics           // its own if nil
	Log       *slog.Logger       // slog.Default() if nil
	Settings  Settings
}

// Settings are what can change while the gateway runs.
type Settings struct {
	Providers  map[string]Provider
	RequireKey bool     // every call needs a virtual key
	Hosts      []string // Host header values accepted besides loopback names
	Origins    []string // browser origins that may call

	MaxRequest, MaxResponse int64         // bytes; 64 MiB if zero
	StreamIdle              time.Duration // how long a stream may be silent; 5 minutes if zero
	// Flow is how content and tools are labelled; without it every tool is unknown and all that tools return untrusted.
	Flow *flow.Rules
	// Resolver replaces the one of Config.
	Resolver *identity.Resolver

	byDialect map[string]*Provider
}

// A Provider is an upstream, reachable under /NAME/ with its own paths behind it.
type Provider struct {
	Name    string
	Dialect string
	// BaseURL has no trailing slash. The operator vouches for it; nothing in a request can change it.
	BaseURL string
	// APIKey is the operator's own credential. It is used for verified apps only.
	APIKey identity.Secret
	// Enforce refuses what cannot be read or resolved; without it such calls pass, marked.
	Enforce bool
	// Async answers before the record is durable.
	Async bool
	// FailOpen lets calls pass when the ledger cannot record them, and records the gap later.
	FailOpen bool
	// Hold is how long a connection is held for somebody to approve a tool call. With zero the answer goes out at once,
	// without the call, and the same request can be made again once it is approved.
	Hold     time.Duration
	Retries  int
	Fallback string
	Timeout  time.Duration // for one attempt, up to the headers of a stream or the end of a whole answer; 10 minutes if zero

	base    *url.URL
	dialect dialect.Dialect
}

// Gateway is the data plane as an http.Handler.
type Gateway struct {
	conf      Config
	settings  atomic.Pointer[Settings]
	transport http.RoundTripper
	gaps      gaps
	policies  atomic.Pointer[Policies]
	contexts  contexts
	rewritten rewritten
	memories  sync.Map // of *flow.Memory, by tenant
	underWay  sync.WaitGroup
	now       func() time.Time
}

// New makes a gateway.
func New(c Config) (*Gateway, error) {
	if c.Ledger == nil || c.Resolver == nil || c.Linker == nil {
		return nil, errors.New("a gateway needs a ledger, a resolver and a linker")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Failures == nil {
		c.Failures = new(identity.Failures)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	g := &Gateway{conf: c, transport: newTransport(), now: time.Now}
	if c.Settings.Resolver == nil {
		c.Settings.Resolver = c.Resolver
	}
	if c.Policies.Live == nil {
		live, err := policy.Load(policy.Starter(), policy.Options{})
		if err != nil {
			return nil, err
		}
		c.Policies.Live = live
	}
	g.SetPolicies(c.Policies)
	return g, g.Set(c.Settings)
}

// Set replaces the settings for calls that come from now on.
func (g *Gateway) Set(s Settings) error {
	if s.MaxRequest <= 0 {
		s.MaxRequest = 64 << 20
	}
	if s.MaxResponse <= 0 {
		s.MaxResponse = 64 << 20
	}
	if s.StreamIdle <= 0 {
		s.StreamIdle = 5 * time.Minute
	}
	if s.Resolver == nil {
		s.Resolver = g.conf.Resolver
	}
	if s.Flow == nil {
		rules, err := flow.Compile(flow.Config{})
		if err != nil {
			return err
		}
		s.Flow = rules
	}
	providers := make(map[string]Provider, len(s.Providers))
	names := make([]string, 0, len(s.Providers))
	for name, p := range s.Providers {
		d, ok := dialect.Lookup(p.Dialect)
		if !ok {
			return fmt.Errorf("provider %s: there is no dialect %q; there are %s", name, p.Dialect, strings.Join(dialect.Names(), ", "))
		}
		base, err := url.Parse(p.BaseURL)
		if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
			return fmt.Errorf("provider %s: %q is not an http or https URL", name, p.BaseURL)
		}
		if p.Timeout <= 0 {
			p.Timeout = 10 * time.Minute
		}
		p.Name, p.dialect, p.base = name, d, base
		providers[name] = p
		names = append(names, name)
	}
	for name, p := range providers {
		if f, ok := providers[p.Fallback]; p.Fallback != "" && (!ok || f.Dialect != p.Dialect) {
			return fmt.Errorf("provider %s: its fallback %q is not a provider of the dialect %s", name, p.Fallback, p.Dialect)
		}
	}
	// A path without a provider's name goes to the provider that is named like its dialect, else to the first.
	sort.Strings(names)
	s.Providers, s.byDialect = providers, map[string]*Provider{}
	for _, name := range names {
		p := providers[name]
		if s.byDialect[p.Dialect] == nil || name == p.Dialect {
			s.byDialect[p.Dialect] = &p
		}
	}
	g.settings.Store(&s)
	return nil
}

// Wait waits until no call is under way, or until ctx ends. No call may begin meanwhile.
func (g *Gateway) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		g.underWay.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Metrics are the gateway's counters.
func (g *Gateway) Metrics() *Metrics { return g.conf.Metrics }

// newTransport is the way to the providers: connections are kept, nothing is decompressed, nothing is followed.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Control: refuseLinkLocal}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,
		MaxIdleConns:          4096,
		MaxIdleConnsPerHost:   1024,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		WriteBufferSize:       32 << 10,
		ReadBufferSize:        32 << 10,
	}
}
