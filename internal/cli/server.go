package cli

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/approval"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/flow"
	"github.com/fairleadhq/fairlead/internal/gateway"
	"github.com/fairleadhq/fairlead/internal/identity"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/policy"
	"github.com/fairleadhq/fairlead/internal/provenance"
	"github.com/fairleadhq/fairlead/verify"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A server is the whole of Fairlead running in one process: ledger, views, gateway and both listeners.
type server struct {
	data, keys string
	configPath string
	getenv     func(string) string
	over       Overrides
	extra      map[string]Provider // providers beside the configured ones: the practice model's

	log      *slog.Logger
	level    *slog.LevelVar
	config   atomic.Pointer[Config]
	ledger   *ledger.Ledger
	views    *ledger.Views
	ring     *identity.Ring
	failures *identity.Failures
	resolver atomic.Pointer[identity.Resolver]
	book     *approval.Book
	limits   *budget.Book
	gateway  *gateway.Gateway
	changing sync.Mutex // held while policies or configuration change
	ready    atomic.Bool
	tls      *certificate

	dataAddr, controlAddr string // where the listeners are, once they are
	background            sync.WaitGroup
}

// twoProcs lets a commit wait for the disk while calls go on: with one P, whatever blocks in the kernel stops them all
// until the scheduler notices.
func twoProcs() {
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
}

// open opens the ledger and everything that reads it.
func (s *server) open(ctx context.Context, c *Config) error {
	twoProcs()
	s.config.Store(c)
	l, err := ledger.Open(ctx, ledger.Config{Dir: s.data, Keys: s.keys, Tenant: c.Tenant,
		Checkpoint: time.Duration(c.Checkpoint.Interval), Program: readVersion().Version, Log: s.log})
	if err != nil {
		return ledgerError(err)
	}
	s.ledger = l
	if s.views, err = ledger.OpenViews(l.Reader, budget.Projection); err != nil {
		return unusable(err, "views.db can be removed: it is made again from the ledger")
	}
	if err := s.views.CatchUp(ctx, nil); err != nil {
		return unusable(err)
	}
	if s.ring, err = ringOf(ctx, s.views); err != nil {
		return unusable(err)
	}
	linker := provenance.NewLinker()
	resolver, err := s.newResolver(c)
	if err != nil {
		return err
	}
	s.failures = new(identity.Failures)
	metrics := gateway.NewMetrics()
	metrics.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fairlead_ledger_events", Help: "Durable events."}, func() float64 { return float64(l.Size()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fairlead_ledger_queue", Help: "Facts waiting for the disk."}, func() float64 { return float64(l.Queued()) }))
	policies, err := loadPolicies(ctx, l.Reader, s.views, policy.Options{Arguments: c.argumentTypes()})
	if err != nil {
		return err
	}
	if err := s.openBooks(ctx, c); err != nil {
		return err
	}
	settings, err := s.settings(c, resolver)
	if err != nil {
		return err
	}
	s.gateway, err = gateway.New(gateway.Config{Ledger: l, Resolver: resolver, Linker: linker, Failures: s.failures, Metrics: metrics,
		Approvals: s.book, Budget: s.limits, Policies: policies, Log: s.log, Settings: settings})
	if err != nil {
		return err
	}
	start := time.Now()
	calls, err := linker.Warm(ctx, l.Reader, s.gateway.Relearn)
	if err != nil {
		return unusable(err)
	}
	s.log.Debug("conversations can go on", "calls", calls, "took", time.Since(start))
	return nil
}

// openBooks folds what was asked, granted and spent from the ledger.
func (s *server) openBooks(ctx context.Context, c *Config) (err error) {
	conf := approval.Config{Ledger: s.ledger, Expiry: time.Duration(c.Approval.Expiry), GrantExpiry: time.Duration(c.Approval.Grant),
		VerifiedOnly: c.Approval.VerifiedOnly, Log: s.log}
	if url := c.Approval.Webhook.URL; url != "" {
		conf.Hook = &approval.Webhook{URL: url, Secret: []byte(c.Approval.Webhook.Secret)}
	}
	if s.book, err = approval.New(ctx, conf); err != nil {
		return unusable(err)
	}
	if err := s.views.Others(ctx, "approval.", func(seq int64, e *verify.Envelope) error { return s.book.Apply(seq, e.Fact) }); err != nil {
		return unusable(err)
	}
	limits, prices := c.quotas()
	if s.limits, err = budget.New(budget.Config{Limits: limits, Prices: prices, Now: s.ledger.Now}); err != nil {
		return err
	}
	if err := s.limits.Seed(ctx, s.views.Read); err != nil {
		// What counts in a period is then refused or let pass, as each route declares.
		s.log.Error("what was used of the limits cannot be read", "err", err)
	}
	return nil
}

// close releases what open opened.
func (s *server) close() error {
	var errs []error
	if s.views != nil {
		errs = append(errs, s.views.Close())
	}
	if s.ledger != nil {
		errs = append(errs, s.ledger.Close())
	}
	return errors.Join(errs...)
}

// ledgerError adds to an error of ledger.Open what to do about it.
func ledgerError(err error) error {
	switch {
	case errors.Is(err, ledger.ErrInUse):
		return unusable(err, "stop the other process, or give another folder with --data DIR")
	case errors.Is(err, ledger.ErrFork):
		return unusable(err, "if this is a restored backup, keep it for reading (tail, show, verify) and start a new log with --data DIR")
	}
	return unusable(err)
}

// ringOf folds the keys from their facts.
func ringOf(ctx context.Context, v *ledger.Views) (*identity.Ring, error) {
	ring := new(identity.Ring)
	return ring, v.Others(ctx, "key.", func(_ int64, e *verify.Envelope) error { return ring.Apply(e.Fact) })
}

func (s *server) newResolver(c *Config) (*identity.Resolver, error) {
	p, err := identity.NewPseudonyms(s.ledger.DeriveKey("pseudonyms"))
	if err != nil {
		return nil, err
	}
	conf := identity.Config{Pseudonyms: p, Keys: s.ring, Tenant: c.Tenant}
	for _, i := range c.Identity.Issuers {
		conf.Issuers = append(conf.Issuers, identity.Issuer{URL: i.Issuer, Audience: i.Audience, JWKSURL: i.JWKSURL})
	}
	return identity.New(conf)
}

// settings puts the configuration into the gateway's words.
func (s *server) settings(c *Config, r *identity.Resolver) (gateway.Settings, error) {
	rules, err := flow.Compile(c.flowConfig())
	if err != nil {
		return gateway.Settings{}, err
	}
	out := gateway.Settings{Flow: rules, Providers: map[string]gateway.Provider{}, RequireKey: c.RequireKey, Hosts: c.Hosts, Origins: c.Origins,
		MaxRequest: int64(c.Limits.RequestBytes), MaxResponse: int64(c.Limits.ResponseBytes), StreamIdle: time.Duration(c.Limits.StreamIdle), Resolver: r}
	add := func(name string, p Provider) {
		out.Providers[name] = gateway.Provider{Dialect: p.Dialect, BaseURL: p.BaseURL, APIKey: identity.NewSecret(string(p.APIKey)),
			Enforce: p.Mode == "enforce", Async: p.Durability == "async", FailOpen: p.OnFailure == "open",
			Hold: time.Duration(p.Hold), Retries: p.Retries, Fallback: p.Fallback, Timeout: time.Duration(p.Timeout)}
	}
	for name, p := range c.Providers {
		add(name, p)
	}
	for name, p := range s.extra {
		if p.Mode == "" {
			p.Mode = c.Mode
		}
		add(name, p)
	}
	return out, nil
}

// apply records a configuration and puts it to use, in that order.
func (s *server) apply(ctx context.Context, c *Config, how string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	resolver, err := s.newResolver(c)
	if err != nil {
		return err
	}
	settings, err := s.settings(c, resolver)
	if err != nil {
		return err
	}
	policies, err := loadPolicies(ctx, s.ledger.Reader, s.views, policy.Options{Arguments: c.argumentTypes()})
	if err != nil {
		return err
	}
	var names []string
	for name, p := range c.Providers {
		names = append(names, name+"="+p.Dialect+","+p.Mode+","+p.Durability+","+p.OnFailure)
	}
	f := &fairlead.Fact{Kind: fairlead.KindConfig, Attrs: []fairlead.Attr{{Name: "fairlead.config.how", Value: how},
		{Name: "fairlead.config.digest", Value: c.digest()}, {Name: "fairlead.mode", Value: c.Mode}, {Name: "fairlead.require_key", Value: c.RequireKey},
		{Name: "fairlead.providers", Value: sorted(names)}}}
	if _, err := s.ledger.Append(ctx, f); err != nil {
		return err
	}
	if how != "start" { // the books start with it
		limits, prices := c.quotas()
		if err := s.views.CatchUp(ctx, nil); err != nil {
			return err
		}
		if err := s.limits.Set(ctx, limits, prices, s.views.Read); err != nil {
			return err
		}
	}
	if err := s.gateway.Set(settings); err != nil {
		return err
	}
	s.gateway.SetPolicies(policies)
	s.resolver.Store(resolver)
	s.level.Set(logLevel(c.Log.Level))
	s.config.Store(c)
	return nil
}

// reload reads the configuration again. Listeners, limits on connections and the tenant stay as they are.
func (s *server) reload(ctx context.Context) error {
	c, err := LoadConfig(s.configPath, s.getenv, s.over)
	if err != nil {
		return err
	}
	old := s.config.Load()
	if c.Listen != old.Listen || c.Control != old.Control || c.Tenant != old.Tenant {
		return errors.New("listen, control and tenant cannot change while the server runs: restart it")
	}
	if err := s.apply(ctx, c, "reload"); err != nil {
		return err
	}
	s.log.Info("configuration reloaded")
	return nil
}

func logLevel(name string) slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(name)) // the configuration has been checked; the zero level is info
	return l
}

// newLog makes the process's own log.
func newLog(w io.Writer, c *Config, level *slog.LevelVar) *slog.Logger {
	level.Set(logLevel(c.Log.Level))
	opts := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// run serves until ctx ends, then finishes what is under way. started is called when both listeners are open.
func (s *server) run(ctx context.Context, started func()) (err error) {
	c := s.config.Load()
	defer func() { err = errors.Join(err, s.close()) }()
	if s.tls, err = loadCertificate(c.TLS); err != nil {
		return err
	}
	dataLn, err := s.listen(c.Listen)
	if err != nil {
		return err
	}
	defer dataLn.Close()
	controlLn, err := s.listen(c.Control)
	if err != nil {
		return err
	}
	defer controlLn.Close()
	local, err := s.listenLocal()
	if err != nil {
		// Everything but commands from beside works without it.
		s.log.Warn("commands on this folder cannot reach this server", "err", err)
	}
	s.dataAddr, s.controlAddr = dataLn.Addr().String(), controlLn.Addr().String()
	if err := s.apply(ctx, c, "start"); err != nil {
		return err
	}
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	s.goBackground(work)

	errs := make(chan error, 3)
	servers := []*http.Server{s.httpServer(s.gateway, c), s.httpServer(s.control(), c)}
	listeners := []net.Listener{limitListener(dataLn, c.Limits.Connections), controlLn}
	if local != nil {
		servers, listeners = append(servers, &http.Server{Handler: s.localHandler(), ReadHeaderTimeout: 10 * time.Second, ConnContext: withPeer}), append(listeners, local)
	}
	for i, srv := range servers {
		go func() {
			ln := listeners[i]
			if s.tls != nil && i < 2 {
				ln = tls.NewListener(ln, s.tls.config())
			}
			errs <- srv.Serve(ln)
		}()
	}
	s.ready.Store(true)
	if started != nil {
		started()
	}
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	s.ready.Store(false)
	s.shutdown(servers)
	stopWork()
	s.background.Wait()
	return err
}

// shutdownTime is how long calls under way may take to end once the server is asked to stop.
const shutdownTime = 30 * time.Second

func (s *server) shutdown(servers []*http.Server) {
	s.log.Info("stopping: calls under way are finished first")
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	for i, srv := range servers {
		if err := srv.Shutdown(ctx); err != nil {
			if i == 0 {
				s.log.Warn("calls that did not end in time are cut off; their outcome is recorded", "err", err)
			}
			srv.Close()
		}
	}
	// The handlers of calls that were cut off record what they released.
	last, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	if err := s.gateway.Wait(last); err != nil {
		s.log.Error("calls are still under way; their outcome will be unknown", "err", err)
	}
}

// goBackground starts what runs beside the calls.
func (s *server) goBackground(ctx context.Context) {
	s.background.Go(func() { s.gateway.Background(ctx) })
	s.background.Go(func() { s.followViews(ctx) })
	s.background.Go(func() { s.book.Background(ctx) })
}

// Views are brought up to date in quiet moments, or when they lag far behind: whoever reads them catches up first.
const (
	quietEvents = 200     // a second with fewer is quiet
	maxLag      = 250_000 // events
)

func (s *server) followViews(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last, done int64
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		size := s.ledger.Size()
		if size-last > quietEvents && size-done < maxLag {
			last = size
			continue
		}
		last, done = size, size
		if err := s.views.CatchUp(ctx, nil); err != nil && ctx.Err() == nil {
			s.log.Warn("views lag behind the ledger", "err", err)
		}
	}
}

func (s *server) listen(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, &Error{Err: fmt.Errorf("listening on %s: %w", addr, err), Hints: []string{"is another fairlead running? choose other ports with --listen and --control"}, Code: exitFailed}
	}
	return ln, nil
}

func (s *server) httpServer(h http.Handler, c *Config) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: time.Duration(c.Limits.HeaderTimeout),
		IdleTimeout:       time.Duration(c.Limits.IdleTimeout),
		MaxHeaderBytes:    256 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// control is the handler of the control plane.
func (s *server) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.isReady(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /metrics", s.authorized(promhttp.HandlerFor(s.gateway.Metrics().Registry, promhttp.HandlerOpts{})))
	tiles := s.authorized(s.ledger.TilesHandler())
	mux.Handle("GET /checkpoint", tiles)
	mux.Handle("GET /tile/", tiles)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := s.config.Load()
		if err := gateway.CheckBrowser(r, c.Hosts, nil); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		mux.ServeHTTP(w, r)
	})
}

// authorized asks for the control token where one is configured.
func (s *server) authorized(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := string(s.config.Load().ControlToken)
		got, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "the control plane asks for its token: Authorization: Bearer TOKEN", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// isReady means it: a fact sent now would be recorded. It waits for the writer, so a full disk or a stuck one shows.
func (s *server) isReady(ctx context.Context) error {
	if !s.ready.Load() {
		return errors.New("not ready: starting or stopping")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := s.ledger.Probe(ctx); err != nil {
		return fmt.Errorf("not ready: the ledger cannot be written: %w", err)
	}
	return nil
}

// certificate is a TLS certificate that is read again when its files change.
type certificate struct {
	conf TLS
	mu   sync.Mutex
	cert *tls.Certificate
	seen time.Time
}

func loadCertificate(c TLS) (*certificate, error) {
	if c.Cert == "" {
		return nil, nil
	}
	cert := &certificate{conf: c}
	_, err := cert.get(nil)
	return cert, err
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.conf.Cert)
	if c.cert != nil && (err != nil || !info.ModTime().After(c.seen)) {
		return c.cert, nil
	}
	cert, loadErr := tls.LoadX509KeyPair(c.conf.Cert, c.conf.Key)
	if loadErr != nil {
		if c.cert != nil {
			return c.cert, nil // half-written files: the old certificate is better than none
		}
		return nil, fmt.Errorf("reading the TLS certificate: %w", loadErr)
	}
	c.cert, c.seen = &cert, info.ModTime()
	return c.cert, nil
}

// limitListener lets at most n connections be open at a time.
func limitListener(ln net.Listener, n int) net.Listener {
	return &limited{Listener: ln, slots: make(chan struct{}, n)}
}

type limited struct {
	net.Listener
	slots chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

type limitedConn struct {
	net.Conn
	free func()
}

func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
