package interop

import (
	"errors"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

func openaiAt(a *app, provider string) openai.Client {
	return openai.NewClient(option.WithBaseURL(gateway+"/"+provider+"/v1"), option.WithAPIKey(a.Secret))
}

func chatParams(messages ...openai.ChatCompletionMessageParamUnion) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: model, Messages: messages, Tools: []openai.ChatCompletionToolUnionParam{
		openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{Name: toolName, Description: openai.String(toolPurpose), Parameters: schema})}}
}

func TestOpenAIChat(t *testing.T) {
	for _, streamed := range []bool{false, true} {
		a := newApp(t)
		client := openaiAt(a, "watched")
		ask := func(p openai.ChatCompletionNewParams) openai.ChatCompletionMessage {
			t.Helper()
			if !streamed {
				res, err := client.Chat.Completions.New(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				return res.Choices[0].Message
			}
			stream := client.Chat.Completions.NewStreaming(t.Context(), p)
			acc := openai.ChatCompletionAccumulator{}
			for stream.Next() {
				acc.AddChunk(stream.Current())
			}
			if err := stream.Err(); err != nil {
				t.Fatal(err)
			}
			return acc.Choices[0].Message
		}
		p := chatParams(openai.SystemMessage("You are the support agent."), openai.UserMessage(question))
		first := ask(p)
		if len(first.ToolCalls) != 1 || first.ToolCalls[0].Function.Arguments != `{"id":"4711"}` {
			t.Fatalf("the model calls %+v", first.ToolCalls)
		}
		p.Messages = append(p.Messages, first.ToParam(), openai.ToolMessage(ticket, first.ToolCalls[0].ID))
		second := ask(p)
		if !strings.Contains(second.Content, "arrived damaged") {
			t.Errorf("the model says %q", second.Content)
		}
		p.Messages = append(p.Messages, second.ToParam(), openai.UserMessage("Thank you."))
		ask(p)
		calls := a.ends(t, "completed", 3)
		calls[1].follows(t, calls[0], "continues", "tool_result")
		calls[2].follows(t, calls[1], "continues")
	}
}

func TestOpenAIResponses(t *testing.T) {
	a := newApp(t)
	client := openaiAt(a, "watched")
	p := responses.ResponseNewParams{Model: model, Input: responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{
		responses.ResponseInputItemParamOfMessage(question, responses.EasyInputMessageRoleUser)}},
		Tools: []responses.ToolUnionParam{{OfFunction: &responses.FunctionToolParam{Name: toolName, Description: openai.String(toolPurpose), Parameters: schema}}}}
	first, err := client.Responses.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	use := first.Output[len(first.Output)-1].AsFunctionCall()
	result := functionResult(use.CallID, ticket)
	p.Input.OfInputItemList = append(p.Input.OfInputItemList, responses.ResponseInputItemParamOfFunctionCall(use.Arguments, use.CallID, use.Name), result)
	stream := client.Responses.NewStreaming(t.Context(), p)
	var text string
	for stream.Next() {
		if e := stream.Current(); e.Type == "response.completed" {
			text = e.Response.OutputText()
		}
	}
	if err := stream.Err(); err != nil || !strings.Contains(text, "arrived damaged") {
		t.Fatalf("the model says %q, %v", text, err)
	}
	if _, err := client.Responses.New(t.Context(), responses.ResponseNewParams{Model: model, PreviousResponseID: openai.String(first.ID),
		Input: responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{result}}}); err != nil {
		t.Fatal(err)
	}
	calls := a.ends(t, "completed", 3)
	calls[1].follows(t, calls[0], "continues", "tool_result")
	calls[2].follows(t, calls[0], "refers", "tool_result")
}

func TestOpenAIEmbeddingsAndModels(t *testing.T) {
	a := newApp(t)
	client := openaiAt(a, "watched")
	res, err := client.Embeddings.New(t.Context(), openai.EmbeddingNewParams{Model: "practice-embed", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"one", "two"}}})
	if err != nil || len(res.Data) != 2 {
		t.Fatal(res, err)
	}
	if page, err := client.Models.List(t.Context()); err != nil || len(page.Data) == 0 {
		t.Fatal(page, err)
	}
	if m, err := client.Models.Get(t.Context(), model); err != nil || m.ID != model {
		t.Fatal(m, err)
	}
	a.ends(t, "completed", 3)
}

func TestOpenAIIdentity(t *testing.T) {
	a := newApp(t)
	client := openaiAt(a, "watched")
	if _, err := client.Chat.Completions.New(t.Context(), chatParams(openai.UserMessage("Hello")), option.WithHeader("baggage", "user.id=dana,gen_ai.agent.id=desk")); err != nil {
		t.Fatal(err)
	}
	checkActor(t, a, a.settle(t, 1)[0])
}

func checkActor(t *testing.T, a *app, c *call) {
	t.Helper()
	if want := (who{a.App, "verified", "virtual-key"}); c.Actor.App != want {
		t.Errorf("app is %v, want %v", c.Actor.App, want)
	}
	if want := (who{"desk", "declared", "baggage"}); c.Actor.Agent != want {
		t.Errorf("agent is %v, want %v", c.Actor.Agent, want)
	}
	if u := c.Actor.User; u.A != "declared" || !strings.HasPrefix(u.V, "u:") {
		t.Errorf("user is %v, want a declared pseudonym", u)
	}
}

func openaiStatus(t *testing.T, err error, status int, code string) {
	t.Helper()
	var e *openai.Error
	if !errors.As(err, &e) || e.StatusCode != status || code != "" && e.Code != code {
		t.Errorf("error is %v, want status %d and code %q", err, status, code)
	}
}

func TestOpenAIRefusals(t *testing.T) {
	a := newApp(t)
	guarded, client := openaiAt(a, "guarded"), openaiAt(a, "watched")
	hosted := responses.ResponseNewParams{Model: model, Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Hello")},
		Tools: []responses.ToolUnionParam{{OfWebSearch: &responses.WebSearchToolParam{Type: "web_search"}}}}
	_, err := guarded.Responses.New(t.Context(), hosted)
	openaiStatus(t, err, 403, "policy_denied")
	stream := guarded.Responses.NewStreaming(t.Context(), hosted)
	for stream.Next() {
		t.Errorf("event %q", stream.Current().Type)
	}
	openaiStatus(t, stream.Err(), 403, "policy_denied")
	for _, c := range a.ends(t, "policy_denied", 2) {
		if c.retry != "false" {
			t.Errorf("x-should-retry is %q", c.retry)
		}
	}
	_, err = guarded.Completions.New(t.Context(), openai.CompletionNewParams{Model: model, Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("Hello")}})
	openaiStatus(t, err, 403, "unmapped")
	a.ends(t, "unmapped", 1)

	fairlead(t, "key", "revoke", a.ID)
	_, err = client.Models.List(t.Context())
	openaiStatus(t, err, 401, "revoked_key")
	if seen := watched.take(); len(seen) != 1 || seen[0].retry != "false" {
		t.Errorf("%d calls, want 1 that says x-should-retry: false", len(seen))
	}
}

func TestOpenAIErrors(t *testing.T) {
	a := newApp(t)
	client := openaiAt(a, "watched")
	for _, tt := range []struct {
		model            string
		status, attempts int
	}{{"practice-error-429", 429, 3}, {"practice-error-500", 500, 3}, {"practice-error-404", 404, 1}} {
		p := chatParams(openai.UserMessage("Hello"))
		p.Model = tt.model
		_, err := client.Chat.Completions.New(t.Context(), p)
		openaiStatus(t, err, tt.status, "")
		a.ends(t, "upstream_status", tt.attempts)
	}
	gone := openaiAt(a, "gone")
	_, err := gone.Models.List(t.Context(), option.WithMaxRetries(1))
	openaiStatus(t, err, 502, "upstream_unreachable")
	a.ends(t, "upstream_error", 2)
}

func functionResult(id, text string) responses.ResponseInputItemUnionParam {
	return responses.ResponseInputItemUnionParam{OfFunctionCallOutput: &responses.ResponseInputItemFunctionCallOutputParam{
		CallID: openai.String(id), Output: responses.ResponseInputItemFunctionCallOutputOutputUnionParam{OfString: openai.String(text)}}}
}
