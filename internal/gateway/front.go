package gateway

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
)

// refuseLinkLocal keeps an upstream's name from leading to the machine's own metadata service (169.254.169.254 and the
// like). Private networks are allowed: models are served there.
func refuseLinkLocal(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if a := ap.Addr().Unmap(); a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
		return fmt.Errorf("the provider's name leads to %s, a link-local or multicast address, which is never called", a)
	}
	return nil
}

// admit keeps web pages out: a page in the user's browser can reach loopback, by its address or by a name that was made
// to lead there. It answers the request itself when it refuses.
func (g *Gateway) admit(s *Settings, w http.ResponseWriter, r *http.Request) bool {
	if err := CheckBrowser(r, s.Hosts, s.Origins); err != nil {
		g.conf.Metrics.refused("browser")
		http.Error(w, err.Error(), http.StatusForbidden)
		return false
	}
	return true
}

// CheckBrowser reports why a request should be refused on a listener that is meant for programs: its Host header names
// neither loopback, nor the address that the connection came in on, nor one of hosts (DNS rebinding); or a browser sent
// it for a page of an origin that is not in origins. It serves both listeners.
func CheckBrowser(r *http.Request, hosts, origins []string) error {
	if !hostAllowed(r, hosts) {
		return fmt.Errorf("the Host header %.100q is not one that this listener answers to: add it to hosts in the configuration", r.Host)
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if slices.Contains(origins, origin) {
			return nil
		}
		return fmt.Errorf("requests from web pages of %.100q are not allowed: add the origin to origins in the configuration", origin)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return nil
	}
	return fmt.Errorf("cross-site requests from web pages are not allowed")
}

func hostAllowed(r *http.Request, hosts []string) bool {
	if slices.Contains(hosts, r.Host) {
		return true
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if slices.Contains(hosts, name) || strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	if addr.IsLoopback() {
		return true
	}
	// An address, unlike a name, cannot be made to lead here.
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	ap, err := netip.ParseAddrPort(local.String())
	return err == nil && ap.Addr().Unmap() == addr.Unmap()
}

// A target is where a request goes.
type target struct {
	provider *Provider
	path     string // at the provider, still escaped
	route    dialect.Route
	known    bool // the dialect maps the path
}

// locate finds the provider and the route of a request.
func (s *Settings) locate(r *http.Request) (target, error) {
	path := r.URL.EscapedPath()
	if err := plainPath(path); err != nil {
		return target{}, err
	}
	name, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if p, ok := s.Providers[name]; ok {
		t := target{provider: &p, path: "/" + rest}
		t.route, t.known = match(&p, r.Method, t.path)
		return t, nil
	}
	// Without a provider's name: the dialect whose path it is. Both list models at /v1/models; the headers tell.
	order := []string{"openai", "anthropic"}
	if r.Header.Get("Anthropic-Version") != "" {
		order = []string{"anthropic", "openai"}
	}
	for _, d := range order {
		p := s.byDialect[d]
		if p == nil {
			continue
		}
		if rt, ok := match(p, r.Method, path); ok {
			return target{provider: p, path: path, route: rt, known: true}, nil
		}
	}
	return target{}, errNoProvider
}

var errNoProvider = fmt.Errorf("no provider is named in the path")

func match(p *Provider, method, path string) (dialect.Route, bool) {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return dialect.Route{}, false
	}
	return dialect.Match(p.dialect, method, decoded)
}

// plainPath refuses paths that two readers could understand differently.
func plainPath(path string) error {
	lower := strings.ToLower(path)
	for _, bad := range []string{"//", "/./", "/../", "%2f", "%5c", "%00", "\\", "%2e"} {
		if strings.Contains(lower, bad) {
			return fmt.Errorf("the path holds %q: send it in its plain form", bad)
		}
	}
	if strings.HasSuffix(path, "/..") || strings.HasSuffix(path, "/.") {
		return fmt.Errorf("the path ends in dots: send it in its plain form")
	}
	return nil
}

// notFound answers a path that leads to no provider.
func (g *Gateway) notFound(s *Settings, w http.ResponseWriter, r *http.Request, err error) {
	g.conf.Metrics.refused("no_provider")
	names := make([]string, 0, len(s.Providers))
	for name := range s.Providers {
		names = append(names, "/"+name+"/v1")
	}
	slices.Sort(names)
	d, _ := dialect.Lookup("openai")
	status, h, body := d.Refuse(dialect.Refusal{Status: http.StatusNotFound, Code: "unknown_path",
		Message: fmt.Sprintf("Fairlead: %v. Set the base URL to one of %s.", err, strings.Join(names, ", "))})
	writeAll(w, status, h, body)
}

func writeAll(w http.ResponseWriter, status int, h http.Header, body []byte) error {
	for k, v := range h {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	_, err := w.Write(body)
	return err
}

// opaque is the exchange of a path that no dialect maps or a body that cannot be read.
var opaque = fairlead.Exchange{Operation: fairlead.OpOpaque}
