// Package approval lets a person endorse exactly one thing that policy holds: a tool call with these arguments, or the
// release of labelled data to one reader. What is asked, answered and used are facts in the ledger; the [Book] is their
// fold, and nothing else is kept.
//
// It withstands an agent under somebody else's control, which repeats a call until somebody is tired of being asked,
// asks for one thing and does another, replays a grant, has it in one conversation and uses it in the next, runs many
// calls at once to use one grant twice, approves its own call, or passes for a second approver. A grant is bound by
// HMAC-SHA-256 to tenant, app, verified user, conversation, tool and arguments in canonical form, answers for the bytes
// that the approver was shown, is used once (durably recorded before anything is released), and ends by itself. What
// nobody answers is denied. A ledger that fails, and a clock that goes backwards, cost grants and never make any.
//
// It does not withstand an approver who grants without reading, nor a program that runs under an account which may open
// the control socket: see docs/approvals.md.
//
// Bounds: at most 10,000 approvals wait at a time, 1,000 for one app; what is asked beyond that is denied. Closed ones are
// forgotten an hour after they ended, and at most 20,000 of them are kept. An entry takes about a kilobyte; what an
// approver is shown lies in the vault. All work is logarithmic in the number of approvals and linear in the arguments
// asked about, which have at most 256 KiB.
package approval

import (
	"errors"
	"log/slog"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/ledger"
)

// Config says where a Book records and how long things last. Ledger is required; the rest works as zero.
type Config struct {
	Ledger *ledger.Ledger
	// Now is the ledger's clock by default. It may step: see [Book].
	Now func() time.Time
	// Expiry is how long a request waits for an answer: an hour by default, 24 hours at most.
	Expiry time.Duration
	// GrantExpiry is how long a grant is good for when its giver does not say: 10 minutes by default, 24 hours at most.
	GrantExpiry time.Duration
	// VerifiedOnly lets only those approve who show a credential that we checked, and not whoever can open the socket.
	VerifiedOnly bool
	// Hook, if not nil, is told of requests and decisions while [Book.Background] runs.
	Hook *Webhook
	Log  *slog.Logger // slog.Default() by default
}

// Bounds and defaults.
const (
	defaultExpiry = time.Hour
	defaultGrant  = 10 * time.Minute
	longest       = 24 * time.Hour
	remembered    = time.Hour // how long a closed approval can still be looked at
	maxOpen       = 10_000
	maxOpenApp    = 1_000
	maxClosed     = 20_000
	maxArguments  = 256 << 10
	maxApprovers  = 16
)

// A Kind says what is asked for.
type Kind string

// The kinds.
const (
	ToolCall   Kind = "tool.call"  // to let one tool call go
	Declassify Kind = "declassify" // to let data with a label go to one reader
)

// A Binding is what a grant is for, and all that it is for.
type Binding struct {
	Kind         Kind
	Tenant       string
	App          string // the app, as far as it is known
	User         string // the verified subject, or empty: never one that is merely declared
	Conversation string // a key that only this conversation has; required
	Tool         string // the tool, or the reader of the data; required
	// Arguments are the JSON text of the tool call's arguments. Two spellings of the same JSON value are the same; what
	// is not JSON is bound byte for byte. At most 256 KiB of UTF-8.
	Arguments string
	Label     string // the data label that is to be released; required for Declassify, empty otherwise
}

// An Ask is a wish for an approval, or the use of one.
type Ask struct {
	Binding
	Actor     fairlead.Actor // who stands behind the call
	Intent    fairlead.ID    // the call that is held or, in Use, let go
	Rules     []fairlead.Rule
	Approvers int           // how many people it takes; 0 is taken as 1, 16 at most
	Scope     *ledger.Scope // the call's key scope, for what approvers are shown
	Shown     Shown         // its Actors, Request and Sources; the rest is filled in
}

// A State is how an approval stands.
type State string

// The states. All but Pending and Granted are final.
const (
	Pending State = "pending"
	Granted State = "granted" // enough people endorsed it and nobody used it yet
	Denied  State = "denied"
	Used    State = "used"
	Expired State = "expired" // nobody answered in time, or nobody used the grant in time
	Lost    State = "lost"    // its use could not be recorded; nothing was released, and it has to be asked for again
)

// States that are not shown to anybody: a fact is on its way.
const (
	asking State = ""
	using  State = "using"
)

// An Approval is a request with its answers, as it stood when it was looked up.
type Approval struct {
	ID        fairlead.ID // of the approval.requested fact
	Seq       int64       // its number in the ledger
	Kind      Kind
	Tenant    string
	App       string
	Tool      string // "unprintable" where the name has other characters than A-Z a-z 0-9 . _ : / @ -
	Label     string // likewise
	Rules     []string
	State     State
	Approvers int // how many it takes
	Grants    []Grant
	Intent    fairlead.ID // the call that was held
	Requested time.Time
	// Expires is when it ends by itself: the request while it is pending, the grant once it is granted.
	Expires time.Time
	Decided fairlead.ID // the approval.denied or approval.used fact
}

// A Grant is one person's endorsement.
type Grant struct {
	By      fairlead.Facet
	Fact    fairlead.ID
	Time    time.Time
	Expires time.Time
}

// An Approver is whoever answers. User is the person, verified or attested. An actor with an agent or a chain is somebody
// who acts for another and cannot approve.
type Approver struct {
	Actor fairlead.Actor
	// Names are pairs of a pseudonym in Actor and the clear name behind it. They are sealed, not written into the fact.
	Names []string
}

// A Decision is an answer.
type Decision struct {
	By Approver
	// Shown is the SHA-256 of the bytes that [Book.Show] gave, in hexadecimal, computed by whoever showed them to the
	// approver. A grant needs it; a denial does not.
	Shown string
	// Arguments, if not nil, are the arguments that the approver believes to endorse, as JSON. If they are others than
	// those that are held the grant is refused.
	Arguments *string
	// For is how long a grant is good for: Config.GrantExpiry if zero, 24 hours at most.
	For time.Duration
	// Why is a reason in the approver's own words, at most 4 KiB. It is sealed with the request.
	Why string
}

// The errors that callers tell apart. They are wrapped in a sentence that says more.
var (
	ErrNoGrant = errors.New("there is no live grant for exactly this")
	ErrFull    = errors.New("too many approvals are open")
	ErrTooLong = errors.New("the arguments are too long for a person to judge")
	ErrUnknown = errors.New("there is no such approval")
	ErrRefused = errors.New("the answer is refused")
)
