package gateway

import (
	"net/http"
	"strings"
	"testing"
)

// TestWebPages: a page in the user's browser can reach the loopback port; it gets nothing, and nothing goes upstream.
func TestWebPages(t *testing.T) {
	up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, _ received) { answerJSON(w, completion("c", "hi")) })
	h := newHarness(t, up.URL, Settings{Hosts: []string{"gateway.internal", "exact.internal:8443"}, Origins: []string{"https://tool.example"}})
	key := "Authorization: Bearer " + h.key("app")
	port := h.server.URL[strings.LastIndex(h.server.URL, ":"):]
	for _, c := range []struct {
		name    string
		headers []string
		allowed bool
	}{
		{"a program", nil, true},
		{"a program, by name", []string{"Host: localhost" + port}, true},
		{"a program, by name in capitals", []string{"Host: LOCALHOST"}, true},
		{"a program, by IPv6", []string{"Host: [::1]" + port}, true},
		{"a program, by another loopback address", []string{"Host: 127.9.9.9"}, true},
		{"a configured name", []string{"Host: gateway.internal" + port}, true},
		{"a configured name with its port", []string{"Host: exact.internal:8443"}, true},
		{"a configured name with another port", []string{"Host: exact.internal:80"}, false},
		{"a rebound name", []string{"Host: evil.example" + port}, false},
		{"a name that begins like loopback", []string{"Host: 127.0.0.1.evil.example"}, false},
		{"a name that ends like localhost", []string{"Host: evil.localhost.example"}, false},
		{"another machine's address", []string{"Host: 192.0.2.1"}, false},
		{"an address in decimal", []string{"Host: 2130706433"}, false},
		{"a page", []string{"Origin: https://evil.example"}, false},
		{"a page without an origin", []string{"Origin: null"}, false},
		{"a page on loopback", []string{"Origin: http://localhost:3000"}, false},
		{"an origin that looks allowed", []string{"Origin: https://tool.example.evil.example"}, false},
		{"a form or an image", []string{"Sec-Fetch-Site: cross-site"}, false},
		{"a page of a sibling", []string{"Sec-Fetch-Site: same-site"}, false},
		{"a word that we do not know", []string{"Sec-Fetch-Site: tomorrow"}, false},
		{"the address bar", []string{"Sec-Fetch-Site: none"}, true},
		{"an allowed page", []string{"Origin: https://tool.example", "Sec-Fetch-Site: cross-site"}, true},
		{"an allowed page by a rebound name", []string{"Host: evil.example", "Origin: https://tool.example"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, size := len(up.requests()), h.ledger.Size()
			a := h.post(chatPath, chat("hi"), append(c.headers, key)...)
			if c.allowed {
				if a.status != http.StatusOK || len(up.requests()) != before+1 {
					t.Errorf("status %d: %s", a.status, a.body)
				}
				return
			}
			if a.status != http.StatusForbidden || len(a.body) == 0 {
				t.Errorf("status %d: %s", a.status, a.body)
			}
			if a.header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("the page may read the refusal")
			}
			if len(up.requests()) != before || h.ledger.Size() != size {
				t.Error("a web page made a call, or filled the ledger")
			}
		})
	}
	// A page that asks first gets no leave.
	a := h.do(h.request(t.Context(), http.MethodOptions, chatPath, nil, "Origin: https://evil.example", "Access-Control-Request-Method: POST"))
	if a.status != http.StatusForbidden || a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a preflight is answered with %d %v", a.status, a.header)
	}
}
