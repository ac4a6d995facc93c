package interop

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
	"github.com/anthropics/anthropic-sdk-go/toolrunner"
)

func anthropicAt(a *app, provider string) anthropic.Client {
	return anthropic.NewClient(option.WithBaseURL(gateway+"/"+provider), option.WithAPIKey(a.Secret))
}

func messageParams(messages ...anthropic.MessageParam) anthropic.MessageNewParams {
	tool := anthropic.ToolParam{Name: toolName, Description: anthropic.String(toolPurpose),
		InputSchema: anthropic.ToolInputSchemaParam{Properties: schema["properties"], Required: []string{"id"}}}
	return anthropic.MessageNewParams{Model: model, MaxTokens: 1024, Messages: messages, Tools: []anthropic.ToolUnionParam{{OfTool: &tool}}}
}

func userText(s string) anthropic.MessageParam {
	return anthropic.NewUserMessage(anthropic.NewTextBlock(s))
}

func TestAnthropicMessages(t *testing.T) {
	for _, streamed := range []bool{false, true} {
		a := newApp(t)
		client := anthropicAt(a, "watched-anthropic")
		ask := func(p anthropic.MessageNewParams) *anthropic.Message {
			t.Helper()
			if !streamed {
				m, err := client.Messages.New(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				return m
			}
			stream := client.Messages.NewStreaming(t.Context(), p)
			m := new(anthropic.Message)
			for stream.Next() {
				if err := m.Accumulate(stream.Current()); err != nil {
					t.Fatal(err)
				}
			}
			if err := stream.Err(); err != nil {
				t.Fatal(err)
			}
			return m
		}
		p := messageParams(userText(question))
		p.System = []anthropic.TextBlockParam{{Text: "You are the support agent."}}
		first := ask(p)
		use := first.Content[len(first.Content)-1].AsToolUse()
		if use.Name != toolName || string(use.Input) != `{"id":"4711"}` {
			t.Fatalf("the model calls %s(%s)", use.Name, use.Input)
		}
		p.Messages = append(p.Messages, first.ToParam(), anthropic.NewUserMessage(anthropic.NewToolResultBlock(use.ID, ticket, false)))
		second := ask(p)
		if !strings.Contains(second.Content[0].Text, "arrived damaged") {
			t.Errorf("the model says %q", second.Content[0].Text)
		}
		p.Messages = append(p.Messages, second.ToParam(), userText("Thank you."))
		ask(p)
		calls := a.ends(t, "completed", 3)
		calls[1].follows(t, calls[0], "continues", "tool_result")
		calls[2].follows(t, calls[1], "continues")
	}
}

func TestAnthropicToolRunner(t *testing.T) {
	a := newApp(t)
	client := anthropicAt(a, "watched-anthropic")
	type input struct {
		ID string `json:"id" jsonschema:"required"`
	}
	tool, err := toolrunner.NewBetaToolFromJSONSchema(toolName, toolPurpose, func(_ context.Context, in input) (anthropic.BetaToolResultBlockParamContentUnion, error) {
		return anthropic.BetaToolResultBlockParamContentUnion{OfText: &anthropic.BetaTextBlockParam{Text: ticket}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	runner := client.Beta.Messages.NewToolRunner([]anthropic.BetaTool{tool}, anthropic.BetaToolRunnerParams{BetaMessageNewParams: anthropic.BetaMessageNewParams{
		Model: model, MaxTokens: 1024, Messages: []anthropic.BetaMessageParam{anthropic.NewBetaUserMessage(anthropic.NewBetaTextBlock(question))}}})
	last, err := runner.RunToCompletion(t.Context())
	if err != nil || !strings.Contains(last.Content[0].Text, "arrived damaged") {
		t.Fatal(last, err)
	}
	calls := a.ends(t, "completed", 2)
	var relations []string
	for _, l := range calls[1].Links {
		if l.To == calls[0].ID && l.A == "derived" {
			relations = append(relations, l.Rel)
		}
	}
	// The runner may send the id of a thread and the result alone.
	if !slices.Contains(relations, "tool_result") || !slices.Contains(relations, "continues") && !slices.Contains(relations, "refers") {
		t.Errorf("%s has links %v", calls[1].ID, calls[1].Links)
	}
}

func TestAnthropicTokensAndModels(t *testing.T) {
	a := newApp(t)
	client := anthropicAt(a, "watched-anthropic")
	n, err := client.Messages.CountTokens(t.Context(), anthropic.MessageCountTokensParams{Model: model, Messages: []anthropic.MessageParam{userText("Hello")}})
	if err != nil || n.InputTokens == 0 {
		t.Fatal(n, err)
	}
	if page, err := client.Models.List(t.Context(), anthropic.ModelListParams{}); err != nil || len(page.Data) == 0 {
		t.Fatal(page, err)
	}
	if m, err := client.Models.Get(t.Context(), model, anthropic.ModelGetParams{}); err != nil || m.ID != model {
		t.Fatal(m, err)
	}
	a.ends(t, "completed", 3)
}

func TestAnthropicIdentity(t *testing.T) {
	a := newApp(t)
	client := anthropicAt(a, "watched-anthropic")
	if _, err := client.Messages.New(t.Context(), messageParams(userText("Hello")), option.WithHeader("baggage", "user.id=dana,gen_ai.agent.id=desk")); err != nil {
		t.Fatal(err)
	}
	checkActor(t, a, a.settle(t, 1)[0])
}

func anthropicStatus(t *testing.T, err error, status int, code string) {
	t.Helper()
	var e *anthropic.Error
	if !errors.As(err, &e) || e.StatusCode != status {
		t.Errorf("error is %v, want status %d", err, status)
		return
	}
	var body struct{ Error struct{ Code string } }
	if err := json.Unmarshal([]byte(e.RawJSON()), &body); err != nil || body.Error.Code != code {
		t.Errorf("error is %s, want code %q", e.RawJSON(), code)
	}
}

func TestAnthropicRefusals(t *testing.T) {
	a := newApp(t)
	guarded, client := anthropicAt(a, "guarded-anthropic"), anthropicAt(a, "watched-anthropic")
	hosted := anthropic.MessageNewParams{Model: model, MaxTokens: 1024, Messages: []anthropic.MessageParam{userText("Hello")},
		Tools: []anthropic.ToolUnionParam{{OfWebSearchTool20250305: &anthropic.WebSearchTool20250305Param{}}}}
	_, err := guarded.Messages.New(t.Context(), hosted)
	anthropicStatus(t, err, 403, "policy_denied")
	stream := guarded.Messages.NewStreaming(t.Context(), hosted)
	for stream.Next() {
		t.Errorf("event %q", stream.Current().Type)
	}
	anthropicStatus(t, stream.Err(), 403, "policy_denied")
	a.ends(t, "policy_denied", 2)
	_, err = guarded.Messages.Batches.List(t.Context(), anthropic.MessageBatchListParams{})
	anthropicStatus(t, err, 403, "unmapped")
	a.ends(t, "unmapped", 1)

	fairlead(t, "key", "revoke", a.ID)
	_, err = client.Messages.New(t.Context(), messageParams(userText("Hello")))
	anthropicStatus(t, err, 401, "revoked_key")
	if seen := watched.take(); len(seen) != 1 || seen[0].retry != "false" {
		t.Errorf("%d calls, want 1 that says x-should-retry: false", len(seen))
	}
}

func TestAnthropicErrors(t *testing.T) {
	a := newApp(t)
	client := anthropicAt(a, "watched-anthropic")
	for _, tt := range []struct {
		model            anthropic.Model
		status, attempts int
	}{{"practice-error-429", 429, 3}, {"practice-error-529", 529, 3}, {"practice-error-404", 404, 1}} {
		p := messageParams(userText("Hello"))
		p.Model = tt.model
		_, err := client.Messages.New(t.Context(), p)
		anthropicStatus(t, err, tt.status, "")
		a.ends(t, "upstream_status", tt.attempts)
	}
}
