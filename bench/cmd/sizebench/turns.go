package main

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// toolsJSON is the list of tools that every request offers: the recordings do not have it. It is our own.
//
//go:embed tools.json
var toolsJSON string

// offer gives our tools the names of those that the recordings call, so that a call is one of a tool on offer.
func offer(called []string) string {
	s := strings.TrimSpace(toolsJSON)
	const mark = `"function":{"name":"`
	at := 0
	for _, name := range called {
		i := strings.Index(s[at:], mark)
		if i < 0 {
			break
		}
		at += i + len(mark)
		end := at + strings.IndexByte(s[at:], '"')
		s = s[:at] + name + s[end:]
	}
	return s
}

// A turn is one inference: what the client sends and what the provider answers.
type turn struct {
	request, response []byte
}

// turns gives the inferences of a conversation: one for each message of the assistant, whose request resends all that
// came before. The recording's own strings are sent as the recording has them.
func (c conversation) turns() []turn {
	var out []turn
	var history bytes.Buffer
	for i, m := range c.messages {
		if m.assistant && i > 0 {
			request := fmt.Appendf(nil, `{"model":"gpt-4o","messages":[%s],"tools":%s,"temperature":0.0}`, history.Bytes(), c.offered)
			out = append(out, turn{request, answer(c.id, i, m, history.Len())})
		}
		if i > 0 {
			history.WriteByte(',')
		}
		history.Write(m.raw)
	}
	return out
}

// answer is a chat completion in the shape of OpenAI's. Ids are as random as theirs, and the same in every run.
func answer(id string, i int, m message, before int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", id, i))
	name := strings.NewReplacer("-", "A", "_", "B").Replace(base64.RawURLEncoding.EncodeToString(sum[:22]))[:29]
	finish := "stop"
	if m.tools {
		finish = "tool_calls"
	}
	prompt, completion := (before+len(toolsJSON))/4, max(len(m.raw)/4, 1)
	return fmt.Appendf(nil, `{"id":"chatcmpl-%s","object":"chat.completion","created":%d,"model":"gpt-4o-2024-08-06","choices":[{"index":0,`+
		`"message":%s,"logprobs":null,"finish_reason":"%s"}],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,`+
		`"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,`+
		`"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_%x"}`,
		name, 1_715_000_000+int(sum[0])<<8+i*7, m.raw, finish, prompt, completion, prompt+completion, prompt/128*128, sum[27:32])
}

func compact(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	err := json.Compact(&b, raw)
	return b.Bytes(), err
}
