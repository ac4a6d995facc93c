package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// The second scene: the same agent on a route that enforces policy.

// guarded is the provider of that route; the model behind it is the same.
const guarded = "guarded"

// demoRules is what the operator of the demo's installation says about its tools.
func demoRules(c *Config) {
	c.Tools = []Tool{
		{Name: "read_ticket", Class: []string{"read"}},
		{Name: "send_email", Class: []string{"egress", "irreversible"}, Authority: []string{"to"}}, // nobody gets an e-mail back
	}
}

// guard plays the scene.
func (d *demo) guard(ctx context.Context, token string) error {
	path := "/" + guarded + "/v1/chat/completions"
	d.say("\nThe same agent on a route that enforces policy (/%s/v1):\n", guarded)
	r, err := d.run(ctx, path, token, d.document())
	if err != nil {
		return err
	}
	if r.tool != "" {
		return fmt.Errorf("the planted call of %s was not held", r.tool)
	}
	d.say("\nThe call was taken out of the answer, and the agent reads instead:\n\n  %s", printable(wrapped(r.text, "  ")))
	waiting, err := d.waiting(ctx)
	if err != nil {
		return err
	}
	if len(waiting) != 1 {
		return fmt.Errorf("%d approvals wait, not one", len(waiting))
	}
	held := waiting[0]
	d.say("\nWhoever is asked to approve it sees what the agent saw (fairlead approve show %s):\n", held)
	f, err := fetchApproval(ctx, d.env, d.s.data, held)
	if err != nil {
		return err
	}
	if err := writeApproval(d.out, f); err != nil {
		return err
	}

	d.say("\nThe document now reads differently, and so the call has other arguments; somebody grants that call. Does it release\nthe first one?\n")
	other := strings.NewReplacer("refunds-desk@", "front-desk@", "4242", "1881").Replace(d.document())
	if _, err := d.again(ctx, path, token, r, other); err != nil {
		return err
	}
	if waiting, err = d.waiting(ctx); err != nil {
		return err
	}
	for _, id := range waiting {
		if id != held {
			if err := d.grant(ctx, id); err != nil {
				return err
			}
		}
	}
	if err := d.released(ctx, path, token, r, false); err != nil {
		return err
	}
	d.say("\nNow somebody grants exactly that call, and the agent sends the same request, twice:\n")
	if err := d.grant(ctx, held); err != nil {
		return err
	}
	if err := d.released(ctx, path, token, r, true); err != nil {
		return err
	}
	return d.released(ctx, path, token, r, false)
}

// A run is what became of the agent's conversation.
type run struct {
	messages []any  // before the last answer
	document int    // which of them is the document
	tool     string // the tool that was called other than for reading
	id       string // of the call that asked for it
	text     string // the last answer's
}

// waiting lists the approvals that wait.
func (d *demo) waiting(ctx context.Context) (ids []string, err error) {
	var list approvalList
	if err := askServer(ctx, d.s.data, "GET", "/approvals", nil, &list); err != nil {
		return nil, err
	}
	for _, a := range list.Approvals {
		if a.State == "pending" {
			ids = append(ids, a.ID)
		}
	}
	return ids, nil
}

// grant does what fairlead approve grant does.
func (d *demo) grant(ctx context.Context, id string) error {
	f, err := fetchApproval(ctx, d.env, d.s.data, id)
	if err != nil {
		return err
	}
	var now approvalInfo
	if err := askServer(ctx, d.s.data, "POST", "/approvals/"+f.ID+"/grant", approvalAnswer{Shown: f.digest}, &now); err != nil {
		return err
	}
	d.say("  granted: %s", printable(f.shown.Arguments[:min(len(f.shown.Arguments), 90)]))
	return nil
}

// again sends the last request of a run again, with another document if one is given.
func (d *demo) again(ctx context.Context, path, token string, r *run, document string) (*run, error) {
	messages := append([]any(nil), r.messages...)
	if document != "" {
		m := map[string]any{}
		for k, v := range messages[r.document].(map[string]any) {
			m[k] = v
		}
		m["content"] = document
		messages[r.document] = m
	}
	out := &run{messages: messages, document: r.document}
	_, _, err := d.step(ctx, path, token, out)
	return out, err
}

// released sends the last request again and fails unless the call is released, or not, as expected.
func (d *demo) released(ctx context.Context, path, token string, r *run, want bool) error {
	got, err := d.again(ctx, path, token, r, "")
	if err != nil {
		return err
	}
	switch {
	case want && got.tool == "":
		return errors.New("the endorsed call was not released")
	case !want && got.tool != "":
		return fmt.Errorf("the call of %s was released without an endorsement of its own", got.tool)
	case want:
		d.say("  -> released, once (fairlead why %s)", got.id)
	default:
		d.say("  -> held")
	}
	return nil
}

// step makes one call of the agent's and says which tools it is asked for.
func (d *demo) step(ctx context.Context, path, token string, r *run) (message json.RawMessage, calls []toolCallJSON, err error) {
	id, answer, err := d.post(ctx, path, token, "", map[string]any{"model": "practice-1", "messages": r.messages, "tools": demoTools})
	if err != nil {
		return nil, nil, err
	}
	var a struct {
		Choices []struct {
			Message json.RawMessage `json:"message"`
		} `json:"choices"`
	}
	var m struct {
		Content   string         `json:"content"`
		ToolCalls []toolCallJSON `json:"tool_calls"`
	}
	if err := json.Unmarshal(answer, &a); err != nil || len(a.Choices) == 0 {
		return nil, nil, fmt.Errorf("the practice model's answer is not what the demo expects: %.200q", answer)
	}
	if err := json.Unmarshal(a.Choices[0].Message, &m); err != nil {
		return nil, nil, err
	}
	r.text = m.Content
	for _, t := range m.ToolCalls {
		if t.Function.Name != "read_ticket" {
			r.tool, r.id = t.Function.Name, id
		}
	}
	return a.Choices[0].Message, m.ToolCalls, nil
}

// toolCallJSON is a tool call in a chat answer.
type toolCallJSON struct {
	ID       string `json:"id"`
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

// wrapped breaks text into lines for a terminal.
func wrapped(s, indent string) string {
	return strings.Join(wrap(s, 110), "\n"+indent)
}
