package fairlead

// An Effect is what a verdict does with a call.
type Effect string

// The effects, from the mildest to the strictest.
const (
	Allow Effect = "allow"
	Hold  Effect = "hold" // not before somebody endorses exactly this
	Deny  Effect = "deny"
)

// Stricter gives the stricter of two effects.
func (e Effect) Stricter(f Effect) Effect {
	if f.rank() > e.rank() {
		return f
	}
	return e
}

func (e Effect) rank() int {
	switch e {
	case Allow:
		return 1
	case Hold:
		return 2
	case Deny:
		return 3
	}
	return 0
}

// A Verdict is what policy says of one request, with every rule that decided it.
type Verdict struct {
	Effect Effect `json:"effect"`
	// Rules are all rules that decided, sorted by id. There is at least one on hold and deny.
	Rules []Rule `json:"rules,omitempty"`
	// Approvers is how many people must endorse what is held. It is 0 unless Effect is Hold.
	Approvers int `json:"approvers,omitempty"`
}

// A Rule is a policy that took part in a decision, in the words of its annotations.
type Rule struct {
	ID       string   `json:"id"`
	Effect   Effect   `json:"effect"`
	Reason   string   `json:"reason,omitempty"`   // @reason: why, for the caller
	Remedy   string   `json:"remedy,omitempty"`   // @remedy: what the caller can do
	Controls []string `json:"controls,omitempty"` // @controls: what it is evidence for, as "OWASP-LLM01 NIST-AI-RMF-MS-2.7"
	Error    string   `json:"error,omitempty"`    // what went wrong while it was evaluated: reason enough to deny
}

// IDs lists the ids of the rules.
func (v *Verdict) IDs() []string {
	ids := make([]string, len(v.Rules))
	for i := range v.Rules {
		ids[i] = v.Rules[i].ID
	}
	return ids
}
