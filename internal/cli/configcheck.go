package cli

import (
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// reserved are names below which the gateway may serve something of its own.
var reserved = []string{"v1", "fairlead", "healthz", "livez", "readyz", "metrics", "checkpoint", "tile"}

// minToken is the length below which a control token can be guessed.
const minToken = 16

// check reports what is well formed and yet cannot be used. Values are not quoted: they may hold what came from the
// environment. An empty value was reported when it was read, or is a default.
func (c *Config) check(e *ConfigError) {
	bad := func(key, format string, args ...any) { e.add(c.pos.of(key), key, format, args...) }
	if !isName(c.Tenant) {
		bad("tenant", nameRule)
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		bad("tls", "cert and key are needed together")
	}
	if c.TLS.Cert != "" && c.BehindTLS {
		bad("behind_tls", "contradicts tls: a proxy in front ends TLS, or this process does")
	}
	for i, h := range c.Hosts {
		if h != "" && !isHost(h) {
			bad("hosts["+strconv.Itoa(i)+"]", "expected NAME or NAME:PORT, without a scheme or path")
		}
	}
	for i, o := range c.Origins {
		key := "origins[" + strconv.Itoa(i) + "]"
		if msg := urlFault(o, "http", "https"); o != "" && msg != "" {
			bad(key, "%s", msg)
		} else if u, err := url.Parse(o); err != nil || u.Path != "" {
			bad(key, "an origin has no path, also no / at its end")
		}
	}
	c.checkListeners(bad)
	c.checkProviders(bad)
	c.checkRules(bad)
	seen := map[string]bool{}
	for i, is := range c.Identity.Issuers {
		key := "identity.issuers[" + strconv.Itoa(i) + "]"
		for name, text := range map[string]string{"issuer": is.Issuer, "jwks_url": is.JWKSURL} {
			if msg := secureFault(text); text != "" && msg != "" {
				bad(key+"."+name, "%s", msg)
			}
		}
		if is.Issuer != "" && seen[is.Issuer] {
			bad(key+".issuer", "is listed twice")
		}
		seen[is.Issuer] = true
	}
}

func (c *Config) checkListeners(bad func(key, format string, args ...any)) {
	tls := c.BehindTLS || c.TLS.Cert != ""
	listen, ok := isLoopback(c.Listen)
	switch {
	case !ok:
		bad("listen", addressRule)
	case !listen && !tls:
		bad("listen", "other than on loopback plain HTTP is refused: set tls, or behind_tls if a proxy ends TLS")
	}
	if ok && !listen && !c.RequireKey {
		bad("listen", "other than on loopback calls without a key are refused: set require_key: true")
	}
	control, ok := isLoopback(c.Control)
	switch {
	case !ok:
		bad("control", addressRule)
	case !control && !tls:
		bad("control", "other than on loopback plain HTTP is refused: set tls, or behind_tls if a proxy ends TLS")
	}
	if ok && !control && c.ControlToken == "" {
		bad("control", "other than on loopback a token is needed: set control_token: ${NAME}")
	}
	if c.Listen == c.Control && !strings.HasSuffix(c.Listen, ":0") {
		bad("control", "is the same address as listen")
	}
	if c.ControlToken != "" && len(c.ControlToken) < minToken {
		bad("control_token", "is shorter than %d characters", minToken)
	}
}

func (c *Config) checkProviders(bad func(key, format string, args ...any)) {
	for _, name := range slices.Sorted(maps.Keys(c.Providers)) {
		p, key := c.Providers[name], join("providers", name)
		if !isName(name) {
			bad(key, nameRule)
		} else if slices.Contains(reserved, name) {
			bad(key, "the name is reserved, choose another one")
		}
		if msg := urlFault(p.BaseURL, "http", "https"); p.BaseURL != "" && msg != "" {
			bad(key+".base_url", "%s", msg)
		}
		if p.Fallback == "" {
			continue
		}
		switch other, ok := c.Providers[p.Fallback]; {
		case !ok:
			bad(key+".fallback", "there is no provider of that name")
		case other.Dialect != p.Dialect && other.Dialect != "" && p.Dialect != "":
			bad(key+".fallback", "speaks %s, but this provider speaks %s", other.Dialect, p.Dialect)
		case c.inCycle(name):
			bad(key+".fallback", "leads back to %s", name)
		}
	}
}

// inCycle reports whether the fallbacks of a provider lead back to it.
func (c *Config) inCycle(name string) bool {
	next := name
	for range c.Providers {
		if next = c.Providers[next].Fallback; next == name {
			return true
		}
	}
	return false
}

const (
	nameRule    = "a name has 1 to 32 characters out of a-z, 0-9 and -, and does not begin with -"
	addressRule = "expected HOST:PORT, for example 127.0.0.1:4180"
)

// isName checks nameRule. A name becomes part of a path and of metrics.
func isName(s string) bool {
	return s != "" && len(s) <= 32 && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// isLoopback reports whether a listening address can be reached from this machine only, and whether it is one at all.
// No host stands for every interface; of names only localhost is known.
func isLoopback(addr string) (loopback, ok bool) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || !isPort(port) {
		return false, false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback(), true
	}
	return host == "localhost", host == "" || isDomain(host)
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func isDomain(s string) bool {
	return s != "" && len(s) <= 253 && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-._") == ""
}

// isHost checks a value of the Host header.
func isHost(s string) bool {
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if !isPort(port) {
			return false
		}
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || isDomain(host)
}

// urlFault says what is wrong with a URL that is used as a base, or "".
func urlFault(text string, schemes ...string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || !slices.Contains(schemes, u.Scheme) || u.Opaque != "" || u.Hostname() == "":
		return "expected a URL that begins with " + strings.Join(schemes, ":// or ") + ":// and a host"
	case u.User != nil:
		return "a URL with a name or password in it is refused"
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "a URL with ? or # in it is refused"
	case !isHost(u.Host):
		return "the host of the URL is not one"
	}
	return ""
}

// secureFault is urlFault for what is only as good as the way to it: plain HTTP is accepted on loopback only.
func secureFault(text string) string {
	msg := urlFault(text, "https", "http")
	if msg != "" || strings.HasPrefix(text, "https:") {
		return msg
	}
	u, err := url.Parse(text)
	if err != nil {
		return err.Error()
	}
	if loopback, _ := isLoopback(net.JoinHostPort(u.Hostname(), "80")); !loopback {
		return "plain HTTP is refused, other than to loopback"
	}
	return ""
}
