package gateway

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/provenance"
	"github.com/fairleadhq/fairlead/verify"
)

// unendorsed audits a ledger: it lists the calls whose released answers ask for the irreversible tool after the model
// has seen anything that no system prompt, user or vetted tool said, without an endorsement that was used for exactly
// that call before. It believes nothing that the gateway says of labels or decisions: only bytes and approvals.
func (h *harness) unendorsed(irreversible string, vetted ...string) (out []string) {
	h.t.Helper()
	used := map[fairlead.ID]int{}
	for _, e := range h.facts(fairlead.KindApprovalUsed) {
		used[e.Link(fairlead.RelAbout)]++
	}
	for _, c := range h.calls() {
		if len(c.outcomes) != 1 {
			h.t.Fatal("a call without its outcome")
		}
		open, err := provenance.Open(h.t.Context(), h.ledger.Vault(), c.intent, c.outcomes[0])
		if err != nil {
			h.t.Fatal(err)
		}
		if open.Answer == nil || !untrusted(open, vetted) {
			continue
		}
		for _, t := range open.Answer.ToolCalls {
			if t.Name != irreversible {
				continue
			}
			if used[c.intent.ID]--; used[c.intent.ID] < 0 {
				out = append(out, c.intent.ID.String())
			}
		}
	}
	return out
}

// untrusted reports whether a prompt holds the result of a tool that nobody vouches for.
func untrusted(c *provenance.OpenCall, vetted []string) bool {
	asked := map[string]string{}
	for _, m := range c.Exchange.Messages {
		for _, p := range m.Parts {
			switch p.Kind {
			case fairlead.PartToolCall:
				asked[p.CallID] = p.Name
			case fairlead.PartToolResult:
				ok := false
				for _, name := range vetted {
					ok = ok || asked[p.CallID] == name
				}
				if !ok && dialect.PartText(c.Request.Body, p) != "" {
					return true
				}
			}
		}
	}
	return false
}

// TestRandomAgents: whatever an agent reads and asks for, in whichever order and however often it tries again, nothing
// irreversible is released after untrusted content without an endorsement in the ledger. The audit finds those that
// observe mode lets pass.
func TestRandomAgents(t *testing.T) {
	for _, enforce := range []bool{true, false} {
		rnd := rand.New(rand.NewPCG(7, 11))
		var next []map[string]any // what the model asks for
		up := newProvider(t, func(w http.ResponseWriter, _ *http.Request, got received) {
			if len(next) == 0 {
				answerJSON(w, completion("a", "done"))
				return
			}
			if strings.Contains(string(got.body), `"stream":true`) {
				b, _ := json.Marshal(streamed(next))
				answerStream(w, delta("a", "", "null"), `data: {"id":"a","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"tool_calls":`+string(b)+`},"finish_reason":"tool_calls"}]}`+"\n\n", done)
				return
			}
			answerJSON(w, callsTools(next...))
		})
		h := newHarness(t, up.URL, Settings{Providers: map[string]Provider{"openai": {Enforce: enforce}}, Flow: toolRules(t)})
		key := "Authorization: Bearer " + h.key("agent")
		docs := []string{"", "The parcel came late.", ticket, `{"balance":17}`}
		released := 0
		for agent := range 40 {
			messages := []any{map[string]any{"role": "user", "content": fmt.Sprintf("Task %d: wire 5 to the landlord.", agent)}}
			for step := range 6 {
				next = nil
				for i := range rnd.IntN(3) {
					name := []string{"read_ticket", "send_email", "wire_money"}[rnd.IntN(3)]
					next = append(next, toolJSON(fmt.Sprintf("c%d-%d-%d", agent, step, i), name, fmt.Sprintf(`{"amount":%d,"to":"x%d@y.example"}`, rnd.IntN(2), rnd.IntN(2))))
				}
				body, _ := json.Marshal(map[string]any{"model": "m", "stream": rnd.IntN(3) == 0, "messages": messages, "tools": []any{offered("read_ticket"), offered("send_email"), offered("wire_money")}})
				for try := range 1 + rnd.IntN(3) {
					if try > 0 && rnd.IntN(2) == 0 {
						for _, a := range h.pending() {
							if rnd.IntN(2) == 0 {
								if err := h.endorse(a.ID); err != nil {
									t.Fatal(err)
								}
							}
						}
					}
					a := h.post(chatPath, string(body), key)
					if a.status != http.StatusOK {
						t.Fatalf("%d %s", a.status, a.body)
					}
				}
				calls := h.calls()
				open, err := provenance.Open(t.Context(), h.ledger.Vault(), calls[len(calls)-1].intent, calls[len(calls)-1].outcomes[0])
				if err != nil || open.Answer == nil {
					t.Fatal("no answer", err)
				}
				turn := map[string]any{"role": "assistant", "content": open.Answer.Text}
				var list []any
				for _, c := range open.Answer.ToolCalls {
					list = append(list, toolJSON(c.ID, c.Name, c.Arguments))
				}
				if len(list) > 0 {
					turn["tool_calls"] = list
				}
				messages = append(messages, turn)
				for _, c := range open.Answer.ToolCalls {
					messages = append(messages, map[string]any{"role": "tool", "tool_call_id": c.ID, "content": docs[rnd.IntN(len(docs))]})
				}
				if len(list) == 0 {
					messages = append(messages, map[string]any{"role": "user", "content": "Go on."})
				}
			}
		}
		h.eachFact(func(e *verify.Envelope) {
			if names, _ := e.Attr("fairlead.tools.called").([]string); strings.Contains(strings.Join(names, " "), "wire_money") {
				released++
			}
		})
		bad := h.unendorsed("wire_money")
		if enforce && len(bad) > 0 {
			t.Errorf("released without an endorsement: %v", bad)
		}
		if !enforce && len(bad) == 0 {
			t.Error("the audit finds nothing where nothing is held")
		}
		if n := len(h.facts(fairlead.KindApprovalUsed)); enforce && n == 0 || released == 0 {
			t.Errorf("%d endorsements were used and %d answers asked for money: the agents did not try enough", n, released)
		}
		h.close()
	}
}

// streamed gives tool calls their index.
func streamed(calls []map[string]any) []any {
	out := make([]any, len(calls))
	for i, c := range calls {
		d := map[string]any{"index": i}
		for k, v := range c {
			d[k] = v
		}
		out[i] = d
	}
	return out
}
