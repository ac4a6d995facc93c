package fairlead

// An Operation is what a call asks of a model, in the words of gen_ai.operation.name.
type Operation string

// The operations that the dialects know.
const (
	OpChat        Operation = "chat"
	OpEmbeddings  Operation = "embeddings"
	OpCountTokens Operation = "count_tokens"
	OpListModels  Operation = "list_models"
	OpOpaque      Operation = "opaque" // a path no dialect maps: its content is recorded but not read
)

// An Exchange is the request half of a call as a dialect reads it: what is asked, and where in the original bytes each
// part of it stands. It never holds a copy of the content; the original body stays the only truth.
type Exchange struct {
	Operation Operation
	Model     string
	Stream    bool
	Messages  []Message
	// Units are spans that clients send again and again (tool definitions, system prompts outside the messages). The
	// vault keeps each of them once.
	Units []Span
	// Instructions are the system prompt, where it stands outside the messages.
	Instructions []Part
	Tools        []string // names of the tools offered
	// MaxOutput is the most tokens that the answer may have, or 0 if the request does not say.
	MaxOutput int64
	// User, Conversation and the like are what the body itself claims. They are declared, never verified.
	User         string
	Conversation string
	// State names content that the provider keeps and that this request builds on without resending it.
	State []StateRef
	// HostedTools are tools that the provider runs before we see anything: web search, code, remote MCP.
	HostedTools []string
}

// A Message is one turn of the conversation in the request.
type Message struct {
	Role Role
	// Span covers the message's JSON value; Lead is where the separator before it starts (after the previous message or
	// the opening bracket), so that consecutive [Lead, Span.End) ranges tile the array.
	Span  Span
	Lead  int
	Parts []Part
}

// A Role is who a message speaks for, in the order of their authority.
type Role string

// The roles.
const (
	RoleSystem    Role = "system" // also "developer"
	RoleUser      Role = "user"
	RoleAssistant Role = "assistant"
	RoleTool      Role = "tool"
)

// A Part is a piece of a message or an answer that is addressed on its own.
type Part struct {
	Kind   PartKind
	Span   Span   // the JSON value that holds it: for text, the string literal with its quotes
	CallID string // tool_call and tool_result: the provider's call id
	Name   string // tool_call: the tool's name
}

// A PartKind says what a part is.
type PartKind string

// The kinds of part.
const (
	PartText       PartKind = "text"
	PartToolCall   PartKind = "tool_call"   // Span covers the arguments
	PartToolResult PartKind = "tool_result" // Span covers the result: a string, or a structure holding text
	PartReasoning  PartKind = "reasoning"
	PartRefusal    PartKind = "refusal"
	PartMedia      PartKind = "media" // image, audio, file: inline or by reference
	PartOther      PartKind = "other" // a kind that we do not know; kept, never read
)

// A StateRef names state that lives at the provider.
type StateRef struct {
	Field string // "previous_response_id", "conversation", "file_id", …
	Value string
}

// An Answer is the response half of a call as a dialect reads it, from a whole body or from a stream.
type Answer struct {
	ID            string
	Model         string
	FinishReasons []string
	// Text is all visible text of the first choice, joined; Reasoning likewise. They are bounded by the response limit.
	Text      string
	Reasoning string
	Refusal   string
	// ToolCalls are the calls that a client may act on, of all choices.
	ToolCalls []ToolCall
	// HostedCalls names, once each, the tools that the provider itself ran for this answer as far as it shows them; at
	// most 256.
	HostedCalls []string
	// Items are ids by which a later request may refer to parts of the answer instead of resending them.
	Items []string
	Usage Usage
	// ErrorType is set when the provider answered with an error of its own, in its own words.
	ErrorType string
	// Complete reports that the answer reached its proper end.
	Complete bool
}

// A ToolCall is a tool invocation that a model asks for.
type ToolCall struct {
	ID        string // "" where the provider gives none
	Name      string
	Arguments string // JSON text, or the free text that a custom tool takes
	Choice    int    // which of several alternative answers it belongs to
}

// Usage counts tokens. A negative number means that the provider did not say.
type Usage struct {
	Input, Output, CacheRead, CacheCreation, Reasoning int64
}

// NoUsage is the usage of an answer that does not report any.
var NoUsage = Usage{-1, -1, -1, -1, -1}
