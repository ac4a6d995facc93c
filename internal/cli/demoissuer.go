package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// A demoIssuer is a small OpenID Connect issuer on loopback, so that the demo has people who are verified and not merely
// named.
type demoIssuer struct {
	url    string
	server *http.Server
	signer jose.Signer
}

func newDemoIssuer() (*demoIssuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serving the demo's token issuer: %w", err)
	}
	i := &demoIssuer{url: "http://" + ln.Addr().String()}
	jwk := jose.JSONWebKey{Key: key, KeyID: "demo", Algorithm: string(jose.ES256)}
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk}, nil)
	if err != nil {
		ln.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	serve := func(path string, v any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v) // the gateway reads it, or asks again
		})
	}
	serve("/.well-known/openid-configuration", map[string]any{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	serve("/keys", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk.Public()}})
	i.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go i.server.Serve(ln)
	return i, nil
}

// token says that subject is signed in, and, if agent is not empty, that the agent acts for them.
func (i *demoIssuer) token(subject, agent string) (string, error) {
	claims := map[string]any{"iss": i.url, "aud": "fairlead", "sub": subject, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	if agent != "" {
		claims["act"] = map[string]any{"sub": agent}
	}
	return jwt.Signed(i.signer).Claims(claims).Serialize()
}

func (i *demoIssuer) close() { i.server.Close() }
