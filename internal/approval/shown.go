package approval

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
)

// Shown is what an approver sees, as JSON: what would happen, why it is held, and where each argument comes from. All of
// its text may be an attacker's; whoever shows it escapes it.
type Shown struct {
	ID        string    `json:"id"`
	Kind      Kind      `json:"kind"`
	Tool      string    `json:"tool"`
	Label     string    `json:"label,omitempty"`
	Arguments string    `json:"arguments"` // exactly as the model wrote them
	Approvers int       `json:"approvers"`
	Expires   time.Time `json:"expires"`
	// Actors are who is behind the call, as sentences or names, the person first.
	Actors []string `json:"actors,omitempty"`
	// Request is what the user asked for last.
	Request string          `json:"request,omitempty"`
	Rules   []fairlead.Rule `json:"rules,omitempty"`
	Sources []Source        `json:"sources,omitempty"`
	// Omitted is how many sources are left out; those given come first in the order of the caller.
	Omitted int `json:"omitted,omitempty"`
}

// A Source says where a value within the arguments was found.
type Source struct {
	Argument string `json:"argument"`       // the path of the value, as "to" or "items[0].url"
	Value    string `json:"value"`          // the value
	Origin   string `json:"origin"`         // in words: "result of read_email", "user", "nowhere"
	Label    string `json:"label"`          // as [fairlead.Label.String]
	Call     string `json:"call,omitempty"` // id of the call that brought it in
	// Before, Span and After are the text around it. Instruction marks a span that reads like an instruction.
	Before      string `json:"before,omitempty"`
	Span        string `json:"span,omitempty"`
	After       string `json:"after,omitempty"`
	Instruction bool   `json:"instruction,omitempty"`
}

// Bounds on what is shown. A person judges no more than this, and what is cut says so.
const (
	maxSources = 32
	maxRules   = 16
	maxActors  = 16
	maxValue   = 2 << 10
	maxAround  = 512
	maxRequest = 4 << 10
	maxWhy     = 4 << 10
)

// marshal gives the bytes that are sealed, shown and answered for.
func (s Shown) marshal() ([]byte, error) {
	s.Request = clip(s.Request, maxRequest)
	s.Actors = clipAll(s.Actors, maxActors, maxAround)
	if n := len(s.Sources) - maxSources; n > 0 {
		s.Omitted += n
		s.Sources = s.Sources[:maxSources]
	}
	sources := make([]Source, len(s.Sources))
	for i, x := range s.Sources {
		x.Argument, x.Value, x.Origin = clip(x.Argument, maxAround), clip(x.Value, maxValue), clip(x.Origin, maxAround)
		x.Label, x.Call = clip(x.Label, maxAround), clip(x.Call, 64)
		x.Before, x.Span, x.After = clipFront(x.Before, maxAround), clip(x.Span, maxValue), clip(x.After, maxAround)
		sources[i] = x
	}
	s.Sources = sources
	rules := make([]fairlead.Rule, 0, maxRules)
	for _, r := range s.Rules[:min(len(s.Rules), maxRules)] {
		r.ID, r.Reason, r.Remedy, r.Error = clip(r.ID, maxAround), clip(r.Reason, maxValue), clip(r.Remedy, maxValue), clip(r.Error, maxAround)
		r.Controls = clipAll(r.Controls, maxRules, maxAround)
		rules = append(rules, r)
	}
	s.Rules = rules
	return json.Marshal(s)
}

// clip cuts s to about n bytes and says so.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprintf("%s… (%d bytes more)", s[:n], len(s)-n)
}

// clipFront is clip for text whose end matters.
func clipFront(s string, n int) string {
	if len(s) <= n {
		return s
	}
	from := len(s) - n
	for from < len(s) && !utf8.RuneStart(s[from]) {
		from++
	}
	return fmt.Sprintf("(%d bytes more) …%s", from, s[from:])
}

func clipAll(list []string, n, each int) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, 0, min(len(list), n))
	for _, s := range list[:min(len(list), n)] {
		out = append(out, clip(s, each))
	}
	return out
}

// safe gives a name from outside if it is plain enough for an envelope; what is shown has the truth.
func safe(s string) string {
	if len(s) > 64 {
		return "unprintable"
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("._:/@-", c) < 0 {
			return "unprintable"
		}
	}
	return s
}
