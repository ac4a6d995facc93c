package policy

import (
	"time"

	"github.com/fairleadhq/fairlead"
)

// A Request asks whether somebody may do something.
type Request struct {
	Principal Principal
	Action    Action
	Resource  Resource
	Context   Context
}

// An Action is what somebody wants to do, and the id of the Cedar entity Action::"…".
type Action string

// The actions.
const (
	ModelCall  Action = "model.call"  // have a model answer
	ToolCall   Action = "tool.call"   // have the application carry out a call that a model asked for
	HostedTool Action = "tool.hosted" // have the provider run a tool of its own
	Embedding  Action = "embedding"   // have a model embed
	Admin      Action = "admin"       // change Fairlead itself: Resource.Name says what, as "approval.grant"
)

// A Principal is the actor chain. The Cedar principal is its most specific verified member (User, else Agent, else
// App), as User::"ID", Agent::"ID" or App::"ID"; a user and an agent are in their App, and a user is in its groups,
// Group::"NAME". The others are in context.app, context.user and context.agent with their assurance. Service::"ID" is
// an app that acts for nobody.
type Principal struct {
	App, User, Agent Party
	Groups           []string // of the verified user
	Chain            []string // delegation chain, outermost actor first
	Service          bool
}

// A Party is one member of an actor chain.
type Party struct {
	ID        string
	Assurance fairlead.Assurance
}

// A Resource is what the action is about.
type Resource struct {
	// Name of the model or the tool. Models are Model::"Name" in Provider::"Server"; tools are Tool::"Name" in
	// ToolClass::"…" for each of Classes and, if Server is set, in Server::"Server". Of an Admin request it is the
	// System::"…" entity.
	Name    string  `json:"name"`
	Server  string  `json:"server,omitempty"`
	Classes []Class `json:"classes,omitempty"`
	// Known says that the operator classified the tool. A tool that nobody classified is an egress tool.
	Known bool `json:"known,omitempty"`
}

// A Class is what a tool can do to the world.
type Class string

// The classes, from the most harmless. Egress is also the class of tools that nobody classified.
const (
	Read         Class = "read"         // looks something up
	Write        Class = "write"        // changes state that can be changed back
	Egress       Class = "egress"       // sends data to where it was not before
	Irreversible Class = "irreversible" // cannot be taken back: payments, deletions, access granted
)

// A Profile says which kind of rule decides about a tool call.
type Profile string

// The profiles. Every figure that is published names its profile.
const (
	Balanced   Profile = "balanced"   // heuristic evidence about each argument
	Guaranteed Profile = "guaranteed" // deterministic rules only
)

// A Context is what is known about the circumstances. In Cedar it is context, with the names given here.
type Context struct {
	Enforce  bool    // context.mode: "enforce" or "observe"
	Profile  Profile // context.profile
	Provider string  // context.provider, the configured name
	Route    string  // context.route, as "POST /v1/chat/completions"
	Time     time.Time
	// Label is the join over everything that the model has seen: context.label.{integrity, instructional, data}.
	Label fairlead.Label
	// Forbidden are the data labels of Label whose permitted readers do not include the resource:
	// context.label.forbidden.
	Forbidden []string
	Conversation
	Args     Args
	Findings []string // context.findings: what detectors found, by rule id
	Tier     string   // context.budget.tier: green, amber, red or spent
	Approved int      // context.approvals: how many people endorsed exactly this; context.approved is Approved > 0
}

// A Conversation is what is known of where a call stands: context.conversation.
type Conversation struct {
	Known      bool // .known: the call continues one of ours
	Declared   int  // .declared: turns that nobody here returned
	Unresolved int  // .unresolved: references to content at the provider that did not pass here
	Steps      int  // .steps: calls of this run so far
}

// Args is what is known of a tool call's arguments: context.args.
type Args struct {
	// Authority is the least trusted source of any authority argument: .authority is "none" when there is none of
	// these, "unknown" when one of them was found nowhere (the model made it), else an integrity.
	Authority string `json:"authority"`
	// Instructed: an argument that matters occurs only within untrusted content that reads like an instruction.
	// .instructed; .instructed_by names the arguments.
	Instructed []string `json:"instructed,omitempty"`
	// Data are the data labels of the content that arguments were found in; Forbidden those of them whose permitted
	// readers do not include the tool. .data, .forbidden
	Data      []string `json:"data,omitempty"`
	Forbidden []string `json:"forbidden,omitempty"`
	// New: the tool was not on offer before the first untrusted content came in. .new_tool
	New bool `json:"new,omitempty"`
	// Values are the top-level arguments that the operator declared with a type: string, int64, bool or []string. They
	// are in context.arg, which policies test with "context.arg has NAME".
	Values map[string]any `json:"values,omitempty"`
}

// Values of Args.Authority besides the integrities.
const (
	AuthorityNone    = "none"
	AuthorityUnknown = "unknown"
)
