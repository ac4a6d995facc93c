// Package withheld lets the official Go SDKs go on from answers from which a tool call was taken out: the tool is not
// run, the notice is what the model said, and a call that is left is run as ever. The answers come from a server that
// interop/run.sh starts; they need no gateway.
package withheld

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/anthropics/anthropic-sdk-go/toolrunner"
	"github.com/openai/openai-go/v3"
	openaioption "github.com/openai/openai-go/v3/option"
)

const (
	question = "How is the weather in Oslo? Mail me the report."
	notice   = `The call to "send_email" was not let through`
	done     = "It rains in Oslo."
)

// scenes are the answers, and the calls that are left of them.
var scenes = map[string][]string{"none-left": nil, "one-left": {"get_weather"}}

func each(t *testing.T, one func(t *testing.T, url string, left []string, streamed bool)) {
	url := os.Getenv("WITHHELD_URL")
	if url == "" {
		t.Fatal("WITHHELD_URL is not set: start the suites with interop/run.sh")
	}
	for scene, left := range scenes {
		for _, streamed := range []bool{false, true} {
			name := scene
			if streamed {
				name += ", streamed"
			}
			t.Run(name, func(t *testing.T) { one(t, url+"/"+scene, left, streamed) })
		}
	}
}

// check compares what ran and what was said, an answer each, with what the scene leaves.
func check(t *testing.T, left, ran, said []string) {
	t.Helper()
	if !slices.Equal(left, ran) || len(said) != len(left)+1 || !strings.Contains(said[0], notice) || len(left) > 0 && !strings.Contains(said[1], done) {
		t.Errorf("%q ran, want %q; the model said %q", ran, left, said)
	}
}

func TestAnthropicToolRunner(t *testing.T) {
	each(t, func(t *testing.T, url string, left []string, streamed bool) {
		client := anthropic.NewClient(anthropicoption.WithBaseURL(url), anthropicoption.WithAPIKey("x"), anthropicoption.WithMaxRetries(0))
		var ran, said []string
		var tools []anthropic.BetaTool
		for _, name := range []string{"get_weather", "send_email"} {
			tool, err := toolrunner.NewBetaToolFromJSONSchema(name, name, func(context.Context, map[string]any) (anthropic.BetaToolResultBlockParamContentUnion, error) {
				ran = append(ran, name)
				return anthropic.BetaToolResultBlockParamContentUnion{OfText: &anthropic.BetaTextBlockParam{Text: "rain"}}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			tools = append(tools, tool)
		}
		say := func(m *anthropic.BetaMessage) {
			var text strings.Builder
			for _, b := range m.Content {
				text.WriteString(b.Text)
			}
			said = append(said, text.String())
		}
		params := anthropic.BetaToolRunnerParams{BetaMessageNewParams: anthropic.BetaMessageNewParams{Model: "m", MaxTokens: 100,
			Messages: []anthropic.BetaMessageParam{anthropic.NewBetaUserMessage(anthropic.NewBetaTextBlock(question))}}}
		if !streamed {
			for m, err := range client.Beta.Messages.NewToolRunner(tools, params).All(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				say(m)
			}
		} else {
			for events, err := range client.Beta.Messages.NewToolRunnerStreaming(tools, params).AllStreaming(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				var m anthropic.BetaMessage
				for ev, err := range events {
					if err == nil {
						err = m.Accumulate(ev)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				if m.ID != "" { // at its end the runner gives a stream without events
					say(&m)
				}
			}
		}
		check(t, left, ran, said)
	})
}

func TestOpenAIChat(t *testing.T) {
	each(t, func(t *testing.T, url string, left []string, streamed bool) {
		client := openai.NewClient(openaioption.WithBaseURL(url+"/v1"), openaioption.WithAPIKey("x"), openaioption.WithMaxRetries(0))
		params := openai.ChatCompletionNewParams{Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(question)}}
		ask := func() openai.ChatCompletionMessage {
			if !streamed {
				c, err := client.Chat.Completions.New(t.Context(), params)
				if err != nil {
					t.Fatal(err)
				}
				return c.Choices[0].Message
			}
			stream := client.Chat.Completions.NewStreaming(t.Context(), params)
			var acc openai.ChatCompletionAccumulator
			for stream.Next() {
				if !acc.AddChunk(stream.Current()) {
					t.Fatal("the chunks do not belong together")
				}
			}
			if err := stream.Err(); err != nil {
				t.Fatal(err)
			}
			return acc.Choices[0].Message
		}
		var ran, said []string
		for range 5 {
			m := ask()
			said = append(said, m.Content)
			if len(m.ToolCalls) == 0 {
				break
			}
			params.Messages = append(params.Messages, m.ToParam())
			for _, c := range m.ToolCalls {
				ran = append(ran, c.Function.Name)
				params.Messages = append(params.Messages, openai.ToolMessage("rain", c.ID))
			}
		}
		check(t, left, ran, said)
	})
}
