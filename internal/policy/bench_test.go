package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
)

// realistic returns n policies: half permit a group a tool, half forbid a tool in certain circumstances.
func realistic(n int) []Source {
	var b strings.Builder
	for i := range n / 2 {
		fmt.Fprintf(&b, "@id(\"p%d\") permit (principal in Group::\"team%d\", action == Action::\"tool.call\", resource == Tool::\"tool%d\")\n"+
			"when { context.mode == \"enforce\" && context.provider like \"open*\" && context.chain.contains(\"agent:planner\") };\n", i, i%20, i)
		fmt.Fprintf(&b, "@id(\"f%d\") @reason(\"r\") forbid (principal, action == Action::\"tool.call\", resource == Tool::\"tool%d\")\n"+
			"when { context.label.integrity == \"untrusted\" && resource in ToolClass::\"irreversible\" || context.args.data.contains(\"pii\") || "+
			"context.conversation.steps > 14 };\n", i, i)
	}
	var out []Source
	for text := b.String(); text != ""; {
		at := min(len(text), maxSource)
		if at < len(text) {
			at = strings.LastIndex(text[:at], "@id(\"p")
		}
		out = append(out, Source{fmt.Sprintf("%d.cedar", len(out)), []byte(text[:at])})
		text = text[at:]
	}
	return out
}

// typical is a tool call with everything known.
func typical(tool string) *Request {
	return &Request{
		Principal: Principal{
			App: Party{"crm", fairlead.Verified}, User: Party{"u:4f9a", fairlead.Verified}, Agent: Party{"planner", fairlead.Declared},
			Groups: []string{"team3", "team7", "team9", "team19"}, Chain: []string{"user:alice", "app:crm", "agent:planner", "agent:mailer"},
		},
		Action:   ToolCall,
		Resource: Resource{Name: tool, Server: "mail", Classes: []Class{Write, Egress}, Known: true},
		Context: Context{
			Enforce: true, Profile: Balanced, Provider: "openai", Route: "POST /v1/chat/completions", Time: time.Unix(1790000000, 0),
			Label:        fairlead.Label{Integrity: fairlead.Untrusted, Data: []string{"customer", "internal"}},
			Conversation: Conversation{Known: true, Steps: 4},
			Args:         Args{Authority: "user", Data: []string{"internal"}, Values: map[string]any{"amount": int64(12)}},
			Findings:     []string{"secret.aws"}, Tier: "green",
		},
	}
}

var benchOptions = Options{Arguments: map[string]string{"amount": "long"}}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, err := Load(realistic(n), benchOptions)
			if err != nil {
				b.Fatal(err)
			}
			req := typical(fmt.Sprintf("tool%d", n/2-1))
			b.ReportAllocs()
			for b.Loop() {
				if v := s.Decide(req); v.Effect != fairlead.Allow {
					b.Fatal(v)
				}
			}
		})
	}
	b.Run("starter", func(b *testing.B) {
		s, err := Load(Starter(), benchOptions)
		if err != nil {
			b.Fatal(err)
		}
		req := typical("send_mail")
		b.ReportAllocs()
		for b.Loop() {
			if v := s.Decide(req); v.Effect != fairlead.Allow {
				b.Fatal(v)
			}
		}
	})
}

func BenchmarkLoad1000(b *testing.B) {
	src := realistic(1000)
	for b.Loop() {
		if _, err := Load(src, benchOptions); err != nil {
			b.Fatal(err)
		}
	}
}
