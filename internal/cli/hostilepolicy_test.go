package cli

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/policy"
)

// policyFolder is a ledger without any policies.
func policyFolder(t *testing.T) (*ledger.Ledger, *ledger.Views) {
	t.Helper()
	dir := t.TempDir()
	l, err := ledger.Open(t.Context(), ledger.Config{Dir: filepath.Join(dir, "data"), Keys: filepath.Join(dir, "keys"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	v, err := ledger.OpenViews(l.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return l, v
}

func source(text string) []policy.Source {
	return []policy.Source{{Name: "p.cedar", Text: []byte(text)}}
}

const (
	permitAll = `@id("all") @reason("r") permit (principal, action, resource);`
	typedArgs = permitAll + `@id("typed") @reason("r") forbid (principal, action == Action::"tool.call", resource) when { context.arg has amount && context.arg.amount > 5 };`
)

// TestHostileShadow: policies that are never obeyed keep no server from starting, and no others from being activated.
func TestHostileShadow(t *testing.T) {
	l, v := policyFolder(t)
	opts := policy.Options{Arguments: map[string]string{"amount": "long"}}
	if _, _, err := changePolicies(t.Context(), l, v, opts, policyChange{Sources: source(typedArgs), Shadow: true}); err != nil {
		t.Fatal(err)
	}
	if err := v.CatchUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	// The tool with that argument is gone from the configuration.
	if p, err := loadPolicies(t.Context(), l.Reader, v, policy.Options{}); err != nil || p.Live == nil {
		t.Errorf("a shadow that fits no more keeps the live policies from deciding: %v", err)
	}
}

// TestHostileLockOut: policies that let nobody replace them are refused, also when they do so only at times.
func TestHostileLockOut(t *testing.T) {
	for name, text := range map[string]string{
		"never":     `@id("a") @reason("r") permit (principal, action == Action::"model.call", resource);`,
		"forbidden": permitAll + `@id("b") @reason("r") forbid (principal, action == Action::"admin", resource);`,
		"held":      permitAll + `@id("b") @effect("hold") @reason("r") forbid (principal, action == Action::"admin", resource);`,
	} {
		l, v := policyFolder(t)
		if _, _, err := changePolicies(t.Context(), l, v, policy.Options{}, policyChange{Sources: source(text)}); err == nil {
			t.Errorf("%s: policies were activated that nobody may replace", name)
		}
	}
}

// TestHostileRollback: going back goes to what decided before, and what is named wrongly changes nothing.
func TestHostileRollback(t *testing.T) {
	l, v := policyFolder(t)
	change := func(want policyChange) (activation, error) {
		a, _, err := changePolicies(t.Context(), l, v, policy.Options{}, want)
		return a, err
	}
	if _, err := change(policyChange{To: "previous"}); err == nil {
		t.Error("there was something before the first")
	}
	a, err := change(policyChange{Sources: source(permitAll)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := change(policyChange{To: "nosuch00"}); err == nil {
		t.Error("an unknown digest was activated")
	}
	if _, err := change(policyChange{Sources: source(permitAll + `forbid (principal, action, resource in nosuch);`)}); err == nil {
		t.Error("policies that cannot be read were activated")
	}
	b, err := change(policyChange{To: "previous"})
	if err != nil || b.Digest == a.Digest {
		t.Errorf("rollback leads to %s, %v", b.Digest, err)
	}
	if err := v.CatchUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	p, err := loadPolicies(t.Context(), l.Reader, v, policy.Options{})
	if err != nil || p.Live.Digest() != b.Digest {
		t.Errorf("what decides is not what was activated last: %v", err)
	}
}
