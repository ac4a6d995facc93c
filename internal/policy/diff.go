package policy

import (
	"fmt"
	"slices"
	"strings"
)

// A ChangeKind says how two sets differ in one policy.
type ChangeKind string

// The kinds of change.
const (
	Added     ChangeKind = "added"
	Removed   ChangeKind = "removed"
	Changed   ChangeKind = "changed"     // effect, scope, conditions or number of approvers: decisions can differ
	Annotated ChangeKind = "annotations" // only what it says about itself
)

// A Change is a policy in which two sets differ. Comments, layout and the order of policies are no difference.
type Change struct {
	ID   string     `json:"id"`
	Kind ChangeKind `json:"kind"`
	Old  string     `json:"old,omitempty"` // the policy as it stands in its source; "" if it was added
	New  string     `json:"new,omitempty"` // "" if it was removed
}

// Diff lists the policies in which b differs from a, sorted by id.
func Diff(a, b *Set) []Change {
	var out []Change
	for _, r := range a.rules {
		if _, ok := b.byID[r.id()]; !ok {
			out = append(out, Change{ID: r.info.ID, Kind: Removed, Old: r.text})
		}
	}
	for _, r := range b.rules {
		old, ok := a.byID[r.id()]
		switch {
		case !ok:
			out = append(out, Change{ID: r.info.ID, Kind: Added, New: r.text})
		case old.substance() != r.substance():
			out = append(out, Change{ID: r.info.ID, Kind: Changed, Old: old.text, New: r.text})
		case old.info.Reason != r.info.Reason || old.info.Remedy != r.info.Remedy || !slices.Equal(old.info.Controls, r.info.Controls):
			out = append(out, Change{ID: r.info.ID, Kind: Annotated, Old: old.text, New: r.text})
		}
	}
	slices.SortFunc(out, func(x, y Change) int { return strings.Compare(x.ID, y.ID) })
	return out
}

// substance is what decides, in a form that layout does not change.
func (r *rule) substance() string {
	return fmt.Sprintf("%s %d\n%s", r.info.Effect, r.approvers, plain(r.tree))
}
