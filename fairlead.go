// Package fairlead is the vocabulary of the control plane: what a fact is, who acted, what an exchange with a model
// is made of and how its parts are addressed. It imports the standard library only, and nothing in it does I/O.
//
// Everything that matters is a [Fact] in one ledger; every view is a projection of it. Names follow the OpenTelemetry
// GenAI conventions, MCP and W3C PROV where those have a word, and are prefixed "fairlead." where they have none.
package fairlead

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SchemaVersion names the attribute vocabulary that a fact is written in. It travels in every envelope, so that a
// reader can translate when the conventions rename something.
const SchemaVersion = "gen-ai/1.42"

// DefaultTenant is the tenant of a single-team installation.
const DefaultTenant = "default"

// An ID names a fact: the boot that recorded it and its place among that boot's facts, counted from 1. A gap in the
// counter of a boot is therefore evidence of loss. The text form is BOOT-N, N in decimal.
type ID struct {
	Boot string // 13 characters of base32 (RFC 4648, lower case): 64 random bits
	N    uint64
}

// String gives the text form, or "" for the zero ID.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return id.Boot + "-" + strconv.FormatUint(id.N, 10)
}

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText gives the text form, for encoders.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the text form, for decoders; no text is the zero ID.
func (id *ID) UnmarshalText(b []byte) (err error) {
	if *id = (ID{}); len(b) > 0 {
		*id, err = ParseID(string(b))
	}
	return err
}

// bootLen is the length of the base32 form of 64 bits.
const bootLen = 13

// ParseID reads the text form of an ID. It accepts exactly what [ID.String] prints.
func ParseID(s string) (ID, error) {
	boot, n, ok := strings.Cut(s, "-")
	if !ok || len(boot) != bootLen || strings.Trim(boot, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return ID{}, fmt.Errorf("%q is not a fact id: expected 13 characters of base32, a dash and a number", s)
	}
	v, err := strconv.ParseUint(n, 10, 63)
	if err != nil || v == 0 || strconv.FormatUint(v, 10) != n {
		return ID{}, fmt.Errorf("%q is not a fact id: %q is not a positive number", s, n)
	}
	return ID{boot, v}, nil
}

// A Fact is one thing that happened, as it is put into the ledger. Its envelope is pseudonymous: free text, names and
// content live in the vault and are only referred to.
type Fact struct {
	ID     ID
	Tenant string
	Kind   Kind
	Time   time.Time // UTC, microseconds
	// Actor is the zero value on a fact that completes another: the actor is then that of the fact it completes.
	Actor   Actor
	Links   []Link
	Attrs   []Attr // names are unique within one fact
	Content []Content
}

// Attr returns the value of the attribute called name, or nil.
func (f *Fact) Attr(name string) any {
	for i := range f.Attrs {
		if f.Attrs[i].Name == name {
			return f.Attrs[i].Value
		}
	}
	return nil
}

// Text returns the attribute called name if it is a string, and "" otherwise.
func (f *Fact) Text(name string) string { s, _ := f.Attr(name).(string); return s }

// Int returns the attribute called name if it is a number, and 0 otherwise.
func (f *Fact) Int(name string) int64 { n, _ := f.Attr(name).(int64); return n }

// Link returns the target of the first link with relation rel, or the zero ID.
func (f *Fact) Link(rel Relation) ID {
	for _, l := range f.Links {
		if l.Rel == rel {
			return l.To
		}
	}
	return ID{}
}

// A Kind says what sort of fact it is, with the version of its meaning: "call.intent/1".
type Kind string

// The kinds of fact.
const (
	KindOpened            Kind = "ledger.opened/1"      // a process opened the ledger: the first fact of a boot
	KindGap               Kind = "ledger.gap/1"         // calls were answered that could not be recorded
	KindClock             Kind = "clock.stepped/1"      // the wall clock went backwards
	KindConfig            Kind = "config.loaded/1"      // configuration was loaded or replaced
	KindKeyCreated        Kind = "key.created/1"        // a virtual key was made
	KindKeyRevoked        Kind = "key.revoked/1"        // a virtual key was withdrawn
	KindPolicy            Kind = "policy.activated/1"   // a policy set decides from here on
	KindShadow            Kind = "policy.shadowed/1"    // a policy set is asked beside the live one from here on, or none is
	KindApprovalRequested Kind = "approval.requested/1" // a held call, or a release of labelled data, waits for a person
	KindApprovalGranted   Kind = "approval.granted/1"   // a person endorsed exactly what was shown
	KindApprovalDenied    Kind = "approval.denied/1"    // a person said no, or nobody answered in time
	KindApprovalUsed      Kind = "approval.used/1"      // what was endorsed is about to be released, once
	KindAuthFailed        Kind = "auth.failed/1"        // credentials that did not hold, aggregated over a period
	KindCallIntent        Kind = "call.intent/1"        // a call is about to go upstream
	KindCallAttempt       Kind = "call.attempt/1"       // a further attempt of the same call is about to go upstream
	KindCallPartial       Kind = "call.progress/1"      // part of a long answer has been released
	KindCallOutcome       Kind = "call.outcome/1"       // how a call ended
	KindCallRefused       Kind = "call.refused/1"       // a call was not let through
	KindDelivery          Kind = "call.delivery/1"      // the answer was recorded, but the client did not take all of it
)

// A Relation is a W3C PROV edge from a fact to an earlier one, or one of ours where PROV has no word.
type Relation string

// The relations. The comment gives the PROV term they refine.
const (
	RelCompletes  Relation = "completes"   // outcome -> intent (wasStartedBy)
	RelContinues  Relation = "continues"   // call -> call whose prompt and answer it resends (wasInformedBy)
	RelResends    Relation = "resends"     // call -> call whose prompt it repeats or extends (wasInformedBy)
	RelToolResult Relation = "tool_result" // call -> call whose answer asked for the tool (wasDerivedFrom)
	RelRefers     Relation = "refers"      // call -> call whose answer it names by provider id (wasDerivedFrom)
	RelPossible   Relation = "possible"    // call -> one of several calls that it may continue (wasInfluencedBy)
	RelAbout      Relation = "about"       // approval.requested -> the call that is held, approval.used -> the call that is let go (used)
	RelApproves   Relation = "approves"    // approval.granted, approval.denied -> approval.requested (wasInformedBy)
	RelUses       Relation = "uses"        // approval.used -> approval.requested (used)
	RelRevokes    Relation = "revokes"     // key.revoked -> key.created (wasInvalidatedBy)
	RelReplaces   Relation = "replaces"    // policy.activated -> the activation before it (wasRevisionOf)
)

// A Link says that a fact follows from an earlier one, and how we know.
type Link struct {
	Rel Relation
	To  ID
	// Assurance is Derived when we saw it in the bytes, Declared when the caller said so.
	Assurance Assurance
}

// Assurance says how far a statement about identity or origin can be trusted. Verified and attested statements may
// widen permission; all others may only narrow it.
type Assurance string

// From the strongest to the weakest.
const (
	Verified  Assurance = "verified"  // a credential that we checked
	Attested  Assurance = "attested"  // a third party that we trust says so
	Derived   Assurance = "derived"   // we observed it
	Declared  Assurance = "declared"  // the caller says so
	Ambiguous Assurance = "ambiguous" // several answers fit what we observed
	Absent    Assurance = "absent"    // nobody says
)

// An Actor is who stands behind a fact: three facets, each with its own assurance.
type Actor struct {
	App   Facet
	User  Facet
	Agent Facet
	// Chain is the delegation chain of the subject token, outermost actor first (RFC 8693 "act").
	Chain []string
}

// IsZero reports whether nothing at all is said about the actor.
func (a *Actor) IsZero() bool {
	return a.App == Facet{} && a.User == Facet{} && a.Agent == Facet{} && len(a.Chain) == 0
}

// A Facet is one part of an actor. It never holds the credential itself.
type Facet struct {
	Value     string // a configured name, or a pseudonym ("u:…") for whatever could identify a person
	Assurance Assurance
	Method    string // how it was established: "virtual-key", "oidc", "baggage", "provider-key", …
	Issuer    string // who vouches for it, where somebody does
}

// An Attr is one named attribute of a fact.
type Attr struct {
	Name  string
	Value any // string, int64, bool or []string
}

// Content refers from a fact to bytes in the vault.
type Content struct {
	Name    string // what it is to the fact: "request" or "response"
	Blob    int64  // number of the sealed blob
	Scope   int64  // number of the key scope that it is sealed under
	Bytes   int64  // length of the original bytes
	Address Digest // HMAC-SHA-256 of the original bytes under the scope's address key
	Sealed  Digest // SHA-256 of the sealed blob
}

// A Digest is a SHA-256 or HMAC-SHA-256 value.
type Digest [32]byte

// A Span is a half-open range of byte offsets into the original body.
type Span struct{ Start, End int }

// Len is the number of bytes in s.
func (s Span) Len() int { return s.End - s.Start }
