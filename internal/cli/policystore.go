package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/gateway"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/policy"
	"github.com/fairleadhq/fairlead/verify"
)

// Policies are facts: what decides is what the newest policy.activated says, with its sources sealed beside it. Before
// the first one the starter set decides.

// An activation is a policy set that was activated, or shadowed.
type activation struct {
	ID      fairlead.ID `json:"id"`
	Time    time.Time   `json:"time"`
	Digest  string      `json:"digest"` // "" of a shadow that was taken away
	How     string      `json:"how"`
	Rules   int64       `json:"rules"`
	Shadow  bool        `json:"shadow,omitempty"`
	content fairlead.Content
}

// policyScope is the key scope of policies: an app's that no key can be made for, because of the space.
const policyScope = "fairlead policies"

// activations lists what was activated and shadowed, the oldest first.
func activations(ctx context.Context, v *ledger.Views) ([]activation, error) {
	var out []activation
	err := v.Others(ctx, "policy.", func(_ int64, e *verify.Envelope) error {
		if e.Kind != fairlead.KindPolicy && e.Kind != fairlead.KindShadow {
			return nil
		}
		a := activation{ID: e.ID, Time: e.Time, Digest: e.Text("fairlead.policy.digest"), How: e.Text("fairlead.policy.how"),
			Rules: e.Int("fairlead.policy.count"), Shadow: e.Kind == fairlead.KindShadow}
		if len(e.Content) > 0 {
			a.content = e.Content[0]
		}
		out = append(out, a)
		return nil
	})
	return out, err
}

// newest gives the newest live activation and the newest shadow; nil where there is none.
func newest(list []activation) (live, shadow *activation) {
	for i := range list {
		if a := &list[i]; !a.Shadow {
			live = a
		} else if shadow = a; a.Digest == "" {
			shadow = nil
		}
	}
	return live, shadow
}

// sourcesOf opens the sources of an activation.
func sourcesOf(ctx context.Context, v *ledger.Vault, a *activation) ([]policy.Source, error) {
	o, err := v.Open(ctx, a.content)
	if err != nil {
		return nil, fmt.Errorf("the policies of activation %s cannot be opened: %w", a.ID, err)
	}
	var out []policy.Source
	if err := json.Unmarshal(o.Body, &out); err != nil {
		return nil, fmt.Errorf("the policies of activation %s cannot be read: %w", a.ID, err)
	}
	return out, nil
}

// loadPolicies gives the sets that the ledger says decide.
func loadPolicies(ctx context.Context, r *ledger.Reader, v *ledger.Views, opts policy.Options) (gateway.Policies, error) {
	list, err := activations(ctx, v)
	if err != nil {
		return gateway.Policies{}, err
	}
	live, shadow := newest(list)
	load := func(a *activation) (*policy.Set, error) {
		sources := policy.Starter()
		if a != nil {
			if sources, err = sourcesOf(ctx, r.Vault(), a); err != nil {
				return nil, err
			}
		}
		set, err := policy.Load(sources, opts)
		if err != nil {
			return nil, &Error{Err: fmt.Errorf("the active policies do not fit this configuration: %w", err), Code: exitUnusable,
				Hints: []string{"restore the tools that they test, or activate others: fairlead policy activate, fairlead policy rollback"}}
		}
		return set, nil
	}
	var out gateway.Policies
	if out.Live, err = load(live); err != nil || shadow == nil {
		return out, err
	}
	if out.Shadow, err = load(shadow); err != nil {
		// What is never obeyed must not keep what is from deciding.
		slog.Warn("the shadow policies do not load any more and are left out", "activation", shadow.ID.String(), "err", err)
		out.Shadow = nil
	}
	return out, nil
}

// A policyChange asks for other policies.
type policyChange struct {
	Sources []policy.Source `json:"sources,omitempty"`
	Shadow  bool            `json:"shadow,omitempty"` // ask them beside the live ones; without sources: no longer
	To      string          `json:"to,omitempty"`     // instead of sources: the id or the digest of an earlier activation, or "previous"
}

// changePolicies records other policies. Whoever runs a gateway puts them to use when this returned.
func changePolicies(ctx context.Context, l *ledger.Ledger, v *ledger.Views, opts policy.Options, want policyChange) (activation, *policy.Set, error) {
	if err := v.CatchUp(ctx, nil); err != nil {
		return activation{}, nil, err
	}
	list, err := activations(ctx, v)
	if err != nil {
		return activation{}, nil, err
	}
	out := activation{How: "activate", Shadow: want.Shadow}
	if want.Shadow {
		out.How = "shadow"
	}
	if want.To != "" {
		out.How = "rollback"
		if want.Sources, err = earlier(ctx, l.Vault(), list, want.To); err != nil {
			return out, nil, err
		}
	}
	f := &fairlead.Fact{Kind: fairlead.KindPolicy}
	if want.Shadow {
		f.Kind = fairlead.KindShadow
	}
	var set *policy.Set
	var blobs []*ledger.Blob
	if len(want.Sources) > 0 {
		if set, err = policy.Load(want.Sources, opts); err != nil {
			return out, nil, err
		}
		if !want.Shadow {
			if v := set.Decide(adminRequest("policy.activate")); v.Effect != fairlead.Allow {
				return out, nil, errors.New("these policies would let nobody replace them: permit the principal Service::\"local\" the action \"admin\"")
			}
		}
		body, err := json.Marshal(want.Sources)
		if err != nil {
			return out, nil, err
		}
		scope, err := l.Vault().AppScope(ctx, fairlead.DefaultTenant, policyScope)
		if err != nil {
			return out, nil, err
		}
		blobs = l.Vault().Seal(scope, "policies", body, nil, nil)
		out.Digest, out.Rules = set.Digest(), int64(len(set.Rules()))
		f.Attrs = append(f.Attrs, fairlead.Attr{Name: "fairlead.policy.digest", Value: out.Digest}, fairlead.Attr{Name: "fairlead.policy.count", Value: out.Rules})
	} else if !want.Shadow {
		return out, nil, errors.New("there are no policies to activate: name files or a folder with *.cedar in it")
	}
	f.Attrs = append(f.Attrs, fairlead.Attr{Name: "fairlead.policy.how", Value: out.How})
	live, shadow := newest(list)
	for _, old := range []*activation{live, shadow} {
		if old != nil && old.Shadow == want.Shadow {
			f.Links = append(f.Links, fairlead.Link{Rel: fairlead.RelReplaces, To: old.ID, Assurance: fairlead.Derived})
		}
	}
	if _, err := l.Append(ctx, f, blobs...); err != nil {
		return out, nil, err
	}
	out.ID, out.Time = f.ID, f.Time
	return out, set, nil
}

// earlier finds the sources of an earlier activation.
func earlier(ctx context.Context, v *ledger.Vault, list []activation, to string) ([]policy.Source, error) {
	var found *activation
	live, _ := newest(list)
	for i := range list {
		a := &list[i]
		switch {
		case a.Shadow || to == "previous" && a.ID == live.ID:
		case to == "previous", a.ID.String() == to, len(to) >= 8 && strings.HasPrefix(a.Digest, to):
			found = a
		}
	}
	switch {
	case to == "starter", to == "previous" && found == nil && live != nil:
		return policy.Starter(), nil
	case found == nil && to == "previous":
		return nil, errors.New("the starter policies are active and nothing was before them")
	case found == nil:
		return nil, fmt.Errorf("no policies were activated under %q: fairlead policy log lists what was", to)
	}
	return sourcesOf(ctx, v, found)
}

// adminRequest asks whether somebody who reached the control socket may do something.
func adminRequest(what string) *policy.Request {
	return &policy.Request{Action: policy.Admin, Resource: policy.Resource{Name: what},
		Principal: policy.Principal{App: policy.Party{ID: "local", Assurance: fairlead.Attested}, Service: true},
		Context:   policy.Context{Enforce: true, Time: time.Now().UTC(), Profile: policy.Guaranteed, Tier: "green", Args: policy.Args{Authority: policy.AuthorityNone}}}
}
