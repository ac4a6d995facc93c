package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/approval"
)

// approvals is what commands can ask of a running server about approvals.
type approvals struct {
	book *approval.Book
	// verify says who a token is. Without it tokens are refused.
	verify func(ctx context.Context, token string) (approval.Approver, error)
}

// routes adds the paths under /approvals to those of the control socket, whose server must have [withPeer] as its
// ConnContext.
func (a *approvals) routes(handle func(pattern string, fn func(r *http.Request) (any, error))) {
	handle("GET /approvals", func(r *http.Request) (any, error) {
		all := a.book.List(r.URL.Query().Has("all"))
		out := approvalList{Approvals: []approvalInfo{}}
		if n := len(all) - maxListed; n > 0 {
			all, out.More = all[n:], n // the newest: the others expire first
		}
		for _, x := range all {
			out.Approvals = append(out.Approvals, approvalOf(x))
		}
		return out, nil
	})
	handle("GET /approvals/{ref}", func(r *http.Request) (any, error) {
		x, err := a.book.Find(r.PathValue("ref"))
		if err != nil {
			return nil, err
		}
		body, err := a.book.Show(r.Context(), x.ID)
		if err != nil {
			return nil, err
		}
		return approvalShown{approvalOf(x), body}, nil
	})
	answer := func(do func(context.Context, fairlead.ID, approval.Decision) (approval.Approval, error)) func(*http.Request) (any, error) {
		return func(r *http.Request) (any, error) {
			var want approvalAnswer
			if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 4<<20)).Decode(&want); err != nil {
				return nil, fmt.Errorf("the request cannot be read: %w", err)
			}
			x, err := a.book.Find(r.PathValue("ref"))
			if err != nil {
				return nil, err
			}
			by, err := a.approver(r.Context(), want.Token)
			if err != nil {
				return nil, err
			}
			x, err = do(r.Context(), x.ID, approval.Decision{By: by, Shown: want.Shown, Arguments: want.Args, For: want.For, Why: want.Why})
			if err != nil {
				return nil, err
			}
			return approvalOf(x), nil
		}
	}
	handle("POST /approvals/{ref}/grant", answer(a.book.Grant))
	handle("POST /approvals/{ref}/deny", answer(a.book.Deny))
}

// maxListed keeps a list within what a command reads.
const maxListed = 1000

// approver says who answers: whom the token names, else who is at the other end of the socket. Nothing that is merely
// claimed counts.
func (a *approvals) approver(ctx context.Context, token string) (approval.Approver, error) {
	if token != "" {
		if a.verify == nil {
			return approval.Approver{}, errors.New("no issuer is configured whose tokens could be checked: see identity.issuers")
		}
		return a.verify(ctx, token)
	}
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok {
		return approval.Approver{}, errors.New("who is at the other end of the socket is not known")
	}
	return approval.Approver{Actor: fairlead.Actor{User: p.facet}}, p.err
}

// A peer is who opened a connection to the control socket.
type peer struct {
	facet fairlead.Facet
	err   error
}

type peerKey struct{}

// withPeer notes who opened a connection: for http.Server.ConnContext of the control socket.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	f, err := peerOf(c)
	return context.WithValue(ctx, peerKey{}, peer{f, err})
}

// approvalInfo is an approval as it is listed.
type approvalInfo struct {
	ID        string         `json:"id"`
	Number    int64          `json:"number"`
	Kind      approval.Kind  `json:"kind"`
	State     approval.State `json:"state"`
	Tenant    string         `json:"tenant"`
	App       string         `json:"app,omitempty"`
	Tool      string         `json:"tool"`
	Label     string         `json:"label,omitempty"`
	Rules     []string       `json:"rules,omitempty"`
	Approvers int            `json:"approvers"`
	Grants    []grantInfo    `json:"grants,omitempty"`
	Call      string         `json:"call"`
	Requested time.Time      `json:"requested"`
	Expires   time.Time      `json:"expires"`
	Decided   string         `json:"decided,omitempty"` // the fact that ended it
}

type grantInfo struct {
	By        string             `json:"by"`
	Assurance fairlead.Assurance `json:"assurance"`
	Method    string             `json:"method"`
	Fact      string             `json:"fact"`
	Time      time.Time          `json:"time"`
	Expires   time.Time          `json:"expires"`
}

type approvalList struct {
	Approvals []approvalInfo `json:"approvals"`
	More      int            `json:"more,omitempty"` // how many older ones are left out
}

// approvalShown is an approval with the exact bytes that its digest is taken over.
type approvalShown struct {
	Approval approvalInfo `json:"approval"`
	Shown    []byte       `json:"shown"`
}

// approvalAnswer is what a person answers.
type approvalAnswer struct {
	Shown string        `json:"shown,omitempty"`
	Args  *string       `json:"args,omitempty"`
	For   time.Duration `json:"for,omitempty"`
	Why   string        `json:"why,omitempty"`
	Token string        `json:"token,omitempty"`
}

func approvalOf(a approval.Approval) approvalInfo {
	i := approvalInfo{ID: a.ID.String(), Number: a.Seq, Kind: a.Kind, State: a.State, Tenant: a.Tenant, App: a.App, Tool: a.Tool, Label: a.Label,
		Rules: a.Rules, Approvers: a.Approvers, Call: a.Intent.String(), Requested: a.Requested, Expires: a.Expires, Decided: a.Decided.String()}
	for _, g := range a.Grants {
		i.Grants = append(i.Grants, grantInfo{By: g.By.Value, Assurance: g.By.Assurance, Method: g.By.Method, Fact: g.Fact.String(), Time: g.Time, Expires: g.Expires})
	}
	return i
}
