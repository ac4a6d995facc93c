package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/approval"
	"github.com/fairleadhq/fairlead/internal/identity"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/policy"
)

// A running server is reached by commands through a unix socket in its data folder: whoever may write to the folder may
// command the server. There is no other way in.

func socketPath(data string) string { return filepath.Join(data, "control.sock") }

// listenLocal opens the socket. The folder's lock is held, so a socket that is there is left over.
func (s *server) listenLocal() (net.Listener, error) {
	path := socketPath(s.data)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return ln, os.Chmod(path, 0o600)
}

// localError is what the socket answers when something is wrong.
type localError struct {
	Error string `json:"error"`
}

// localHandler is what commands can ask of a running server.
func (s *server) localHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, fn func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			out, err := fn(r)
			w.Header().Set("Content-Type", "application/json")
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				out = localError{err.Error()}
			}
			_ = json.NewEncoder(w).Encode(out) // the command is gone, or has read it
		})
	}
	handle("POST /keys", func(r *http.Request) (any, error) {
		var want newKey
		if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 64<<10)).Decode(&want); err != nil {
			return nil, err
		}
		return createKey(r.Context(), s.ledger, s.ring, want)
	})
	handle("DELETE /keys/{id}", func(r *http.Request) (any, error) {
		return revokeKey(r.Context(), s.ledger, s.ring, r.PathValue("id"))
	})
	(&approvals{book: s.book, verify: s.verifyApprover}).routes(handle)
	handle("POST /policies", func(r *http.Request) (any, error) {
		if err := s.mayAdmin(r.Context(), "policy.activate"); err != nil {
			return nil, err
		}
		return s.changePolicies(r.Context(), http.MaxBytesReader(nil, r.Body, maxPolicies))
	})
	handle("GET /limits", func(r *http.Request) (any, error) { return s.limits.Status(maxStatus), nil })
	handle("POST /reload", func(r *http.Request) (any, error) { return struct{}{}, s.reload(r.Context()) })
	handle("PUT /log/{level}", func(r *http.Request) (any, error) {
		var l slog.Level
		if err := l.UnmarshalText([]byte(r.PathValue("level"))); err != nil {
			return nil, fmt.Errorf("%q is not a log level: debug, info, warn or error", r.PathValue("level"))
		}
		s.level.Set(l)
		s.log.Info("log level set", "level", l)
		return struct{}{}, nil
	})
	handle("GET /status", func(r *http.Request) (any, error) {
		st := serverStatus{PID: os.Getpid(), Listen: s.dataAddr, Control: s.controlAddr, Events: s.ledger.Size(), Ready: true}
		if err := s.isReady(r.Context()); err != nil {
			st.Ready, st.Problem = false, err.Error()
		}
		return st, nil
	})
	return mux
}

// verifyApprover says whom a token names, and asks the live policies whether they may answer for held calls.
func (s *server) verifyApprover(ctx context.Context, token string) (approval.Approver, error) {
	id, err := s.resolver.Load().Person(ctx, token)
	if err != nil {
		return approval.Approver{}, err
	}
	q := adminRequest("approval.grant")
	party := func(f fairlead.Facet) policy.Party { return policy.Party{ID: f.Value, Assurance: f.Assurance} }
	q.Principal = policy.Principal{User: party(id.Actor.User), Agent: party(id.Actor.Agent), Groups: id.Token.Groups, Chain: id.Actor.Chain}
	if v := s.gateway.Policies().Live.Decide(q); v.Effect != fairlead.Allow {
		return approval.Approver{}, fmt.Errorf("the active policies do not let %s answer for held calls: the starter set asks for the group fairlead-approvers", id.Actor.User.Value)
	}
	by := approval.Approver{Actor: id.Actor}
	for _, n := range id.Names {
		by.Names = append(by.Names, n.Pseudonym, n.Clear)
	}
	return by, nil
}

// maxPolicies bounds the policies that a command sends, in bytes.
const maxPolicies = 64 << 20

// maxStatus is how many counters are listed, the fullest first.
const maxStatus = 200

// mayAdmin asks the live policies whether somebody who reached the socket may change something.
func (s *server) mayAdmin(_ context.Context, what string) error {
	v := s.gateway.Policies().Live.Decide(adminRequest(what))
	if v.Effect != fairlead.Allow {
		return fmt.Errorf("the active policies do not permit %s: %s", what, strings.Join(v.IDs(), ", "))
	}
	return nil
}

// serverStatus is what a running server says of itself.
type serverStatus struct {
	PID     int    `json:"pid"`
	Listen  string `json:"listen"`
	Control string `json:"control"`
	Events  int64  `json:"events"`
	Ready   bool   `json:"ready"`
	Problem string `json:"problem,omitempty"`
}

// errNoServer is returned when no server runs on the folder.
var errNoServer = errors.New("no server runs on this data folder")

// askServer sends a request to the server that runs on the folder.
func askServer(ctx context.Context, data, method, path string, in, out any) error {
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", socketPath(data))
		}}}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://fairlead"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return errNoServer
		}
		return fmt.Errorf("asking the running server: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("asking the running server: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var e localError
		if json.Unmarshal(text, &e) != nil || e.Error == "" {
			e.Error = res.Status
		}
		return errors.New(e.Error)
	}
	return json.Unmarshal(text, out)
}

// newKey is a request for a key.
type newKey struct {
	App     string        `json:"app"`
	Name    string        `json:"name,omitempty"`
	Expires time.Duration `json:"expires,omitempty"`
}

// keyInfo is what is shown of a key. Secret is there once, when the key is made.
type keyInfo struct {
	ID      string     `json:"id"`
	App     string     `json:"app"`
	Name    string     `json:"name,omitempty"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	Revoked *time.Time `json:"revoked,omitempty"`
	Secret  string     `json:"secret,omitempty"`
}

func infoOf(k identity.Key) keyInfo {
	i := keyInfo{ID: k.ID, App: k.App, Name: k.Name, Created: k.Created}
	if !k.Expires.IsZero() {
		i.Expires = &k.Expires
	}
	if !k.Revoked.IsZero() {
		i.Revoked = &k.Revoked
	}
	return i
}

func createKey(ctx context.Context, l *ledger.Ledger, ring *identity.Ring, want newKey) (keyInfo, error) {
	if want.App == "" || !identity.Safe(want.App) {
		return keyInfo{}, fmt.Errorf("an app's name has 1 to 64 of the characters A-Z a-z 0-9 . _ : / @ -, which %q has not", want.App)
	}
	if want.Name != "" && !identity.Safe(want.Name) {
		return keyInfo{}, fmt.Errorf("a key's name has 1 to 64 of the characters A-Z a-z 0-9 . _ : / @ -, which %q has not", want.Name)
	}
	secret, k := identity.NewKey()
	k.App, k.Name = want.App, want.Name
	if want.Expires > 0 {
		k.Expires = l.Now().Add(want.Expires).UTC().Truncate(time.Second)
	}
	f := &fairlead.Fact{Kind: fairlead.KindKeyCreated, Attrs: k.CreatedAttrs()}
	if _, err := l.Append(ctx, f); err != nil {
		return keyInfo{}, err
	}
	if err := ring.Apply(*f); err != nil {
		return keyInfo{}, err
	}
	k.Created = f.Time
	info := infoOf(k)
	info.Secret = secret.Reveal()
	return info, nil
}

func revokeKey(ctx context.Context, l *ledger.Ledger, ring *identity.Ring, id string) (keyInfo, error) {
	k, ok := ring.Get(id)
	if !ok {
		return keyInfo{}, fmt.Errorf("there is no key %q", id)
	}
	if k.Revoked.IsZero() {
		f := &fairlead.Fact{Kind: fairlead.KindKeyRevoked, Attrs: k.RevokedAttrs(),
			Links: []fairlead.Link{{Rel: fairlead.RelRevokes, To: k.Fact, Assurance: fairlead.Derived}}}
		if _, err := l.Append(ctx, f); err != nil {
			return keyInfo{}, err
		}
		if err := ring.Apply(*f); err != nil {
			return keyInfo{}, err
		}
		k, _ = ring.Get(id)
	}
	return infoOf(k), nil
}
