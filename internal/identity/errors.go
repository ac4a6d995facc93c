package identity

import "strconv"

// A Reason says in one fixed word why a credential did not hold. The words stand in auth.failed/1 facts, so they never
// change.
type Reason string

// The reasons. All but ReasonIssuerUnavailable are the caller's to mend (HTTP 401); that one is ours (HTTP 503).
const (
	ReasonMalformedKey       Reason = "malformed_key"        // not in the form of a key, or its checksum fails: a typo
	ReasonUnknownKey         Reason = "unknown_key"          // well formed, but no such key was made here
	ReasonRevokedKey         Reason = "revoked_key"          // withdrawn
	ReasonExpiredKey         Reason = "expired_key"          // past its date
	ReasonSeveralKeys        Reason = "several_keys"         // two different keys in one request
	ReasonMalformedToken     Reason = "malformed_token"      // not one compact JWT of at most 16 KiB with readable claims
	ReasonTokenAlgorithm     Reason = "token_algorithm"      // "none", HS*, or an algorithm that the issuer was not given
	ReasonTokenType          Reason = "token_type"           // a JWT for another purpose: a logout token, a DPoP proof
	ReasonUnknownIssuer      Reason = "unknown_issuer"       // no such issuer is configured
	ReasonIssuerUnavailable  Reason = "issuer_unavailable"   // the issuer's keys cannot be had
	ReasonUnknownTokenKey    Reason = "unknown_token_key"    // the issuer publishes no such signing key
	ReasonBadSignature       Reason = "bad_signature"        // the signature does not hold
	ReasonWrongAudience      Reason = "wrong_audience"       // made for somebody else
	ReasonExpiredToken       Reason = "expired_token"        // past its exp
	ReasonTokenNotYetValid   Reason = "token_not_yet_valid"  // before its nbf or iat
	ReasonIncompleteToken    Reason = "incomplete_token"     // without sub or exp, or with an act that lacks sub
	ReasonDelegationTooDeep  Reason = "delegation_too_deep"  // act nested deeper than 8
	ReasonNoCredential       Reason = "no_credential"        // for the gateway: a route that demands one got none
	ReasonProviderRejectedIt Reason = "provider_rejected_it" // for the gateway: the provider refused the client's own key
	reasonOther              Reason = "other"
)

// reasons lists them all; Failures counts by the place in this list.
var reasons = [...]Reason{
	ReasonMalformedKey, ReasonUnknownKey, ReasonRevokedKey, ReasonExpiredKey, ReasonSeveralKeys, ReasonMalformedToken,
	ReasonTokenAlgorithm, ReasonTokenType, ReasonUnknownIssuer, ReasonIssuerUnavailable, ReasonUnknownTokenKey,
	ReasonBadSignature, ReasonWrongAudience, ReasonExpiredToken, ReasonTokenNotYetValid, ReasonIncompleteToken,
	ReasonDelegationTooDeep, ReasonNoCredential, ReasonProviderRejectedIt, reasonOther,
}

// An Error says that a credential did not hold, in a sentence that may be shown to the caller: it says what to do and
// repeats nothing of the credential. Two Errors match under errors.Is when their reasons are the same.
type Error struct {
	Reason Reason
	text   string
	cause  error // for our own log only: it may name inner addresses
}

// Error gives the sentence.
func (e *Error) Error() string { return e.text }

// Unwrap gives the cause, which is for the operator's log and not for the caller.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an Error with the same reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// The errors of [Ring.Lookup].
var (
	ErrMalformedKey = &Error{Reason: ReasonMalformedKey,
		text: "this is not a whole Fairlead key: copy it again, all 64 characters from flk_ on"}
	ErrUnknownKey = &Error{Reason: ReasonUnknownKey,
		text: "this Fairlead key is not known here: check that it was made for this gateway, or ask for a new one"}
	ErrRevokedKey = &Error{Reason: ReasonRevokedKey,
		text: "this Fairlead key has been revoked: ask the operator for a new one"}
	ErrExpiredKey = &Error{Reason: ReasonExpiredKey,
		text: "this Fairlead key has expired: ask the operator for a new one"}
)

var errSeveralKeys = &Error{Reason: ReasonSeveralKeys,
	text: "the request carries two different Fairlead keys: send one, in the place where the SDK puts its api_key"}

// tokenError makes the Error for a subject token.
func tokenError(r Reason, text string) error {
	return &Error{Reason: r, text: "the Fairlead-Subject-Token " + text}
}

// quoted prepares text that a stranger chose for an error message: short, printable and never one of our keys.
func quoted(s string) string {
	if hasKey(s) {
		return redacted
	}
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return strconv.Quote(s)
}
