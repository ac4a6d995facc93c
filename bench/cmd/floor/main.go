// Command floor is a pass-through gateway that does nothing that it could leave out: what any Go gateway on net/http
// costs before it does its work.
//
//	-mode handler   an own handler: reads the body whole, hashes it, forwards the same bytes, hashes the answer
//	-mode proxy     httputil.ReverseProxy with a sized transport, pooled buffers and immediate flushing; reads nothing
//
// It keeps nothing. A request body may have 64 MiB.
package main

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9100", "`address` to listen on")
	up := flag.String("up", "http://127.0.0.1:9000", "`URL` of the upstream")
	mode := flag.String("mode", "handler", "handler or proxy")
	flag.Parse()
	u, err := url.Parse(*up)
	if err == nil {
		switch *mode {
		case "handler":
			err = serve(*addr, newHandler(u))
		case "proxy":
			err = serve(*addr, newProxy(u))
		default:
			err = fmt.Errorf("-mode %s is neither handler nor proxy", *mode)
		}
	}
	fmt.Fprintln(os.Stderr, "floor:", err)
	os.Exit(1)
}

func serve(addr string, h http.Handler) error {
	return (&http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 10 * time.Second}).ListenAndServe()
}

func transport() *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConns:        1024,
		MaxIdleConnsPerHost: 1024, // the default of 2 doubles the CPU time at 64 connections
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
		WriteBufferSize:     16 << 10,
		ReadBufferSize:      16 << 10,
	}
}

// pages are copy buffers.
type pages struct{ sync.Pool }

func newPages() *pages {
	return &pages{sync.Pool{New: func() any { return new([32 << 10]byte) }}}
}

func (p *pages) Get() []byte  { return p.Pool.Get().(*[32 << 10]byte)[:] }
func (p *pages) Put(b []byte) { p.Pool.Put((*[32 << 10]byte)(b)) }

func newProxy(u *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport:     transport(),
		FlushInterval: -1,
		BufferPool:    newPages(),
	}
}

// A handler forwards and hashes.
type handler struct {
	up     *url.URL
	rt     http.RoundTripper
	bodies sync.Pool
	pages  *pages
}

func newHandler(u *url.URL) http.Handler {
	return &handler{up: u, rt: transport(), bodies: sync.Pool{New: func() any { return new(bytes.Buffer) }}, pages: newPages()}
}

// hopByHop are the headers that concern one connection only (RFC 9110 section 7.6.1).
var hopByHop = map[string]bool{"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Proxy-Authenticate": true, "Proxy-Authorization": true}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := h.bodies.Get().(*bytes.Buffer)
	defer h.bodies.Put(body)
	body.Reset()
	if _, err := io.Copy(body, http.MaxBytesReader(w, r.Body, 64<<20)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	sha256.Sum256(body.Bytes())
	out := (&http.Request{
		Method: r.Method, Host: h.up.Host, Header: make(http.Header, len(r.Header)),
		URL:  &url.URL{Scheme: h.up.Scheme, Host: h.up.Host, Path: r.URL.Path, RawQuery: r.URL.RawQuery},
		Body: io.NopCloser(bytes.NewReader(body.Bytes())), ContentLength: int64(body.Len()),
	}).WithContext(r.Context())
	copyHeader(out.Header, r.Header)
	res, err := h.rt.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	copyHeader(w.Header(), res.Header)
	w.WriteHeader(res.StatusCode)
	h.relay(w, res)
}

func copyHeader(dst, src http.Header) {
	for k, v := range src {
		if !hopByHop[k] {
			dst[k] = v
		}
	}
}

// relay copies the answer, and flushes each piece when nobody knows how long it will be.
func (h *handler) relay(w http.ResponseWriter, res *http.Response) {
	sum := sha256.New()
	page := h.pages.Get()
	defer h.pages.Put(page)
	flush := http.NewResponseController(w)
	for {
		n, err := res.Body.Read(page)
		sum.Write(page[:n])
		if _, err := w.Write(page[:n]); err != nil {
			return
		}
		if res.ContentLength < 0 && flush.Flush() != nil || err != nil {
			return
		}
	}
}
