package practice

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
)

const (
	defaultDimensions = 256
	maxDimensions     = 3072
	maxInputs         = 2048
)

// embeddings answers POST /v1/embeddings. A vector counts hashed words, so texts that share words are near each other.
func (s *server) embeddings(q *request) error {
	var r struct {
		Model          string
		Input          json.RawMessage
		Dimensions     int
		EncodingFormat string `json:"encoding_format"`
	}
	if err := json.Unmarshal(q.body, &r); err != nil {
		return err
	}
	inputs, err := embeddingInputs(r.Input)
	if err != nil {
		return err
	}
	if r.Dimensions == 0 {
		r.Dimensions = defaultDimensions
	}
	if r.Dimensions < 1 || r.Dimensions > maxDimensions {
		return &apiError{Message: fmt.Sprintf("dimensions must be 1 to %d", maxDimensions), Param: "dimensions"}
	}
	data := []any{}
	used := 0
	for i, input := range inputs {
		used += tokens(len(input))
		v := any(embed(input, r.Dimensions))
		if r.EncodingFormat == "base64" {
			b, _ := binary.Append(nil, binary.LittleEndian, v) // a slice of float32 has a size
			v = base64.StdEncoding.EncodeToString(b)
		}
		data = append(data, map[string]any{"object": "embedding", "index": i, "embedding": v})
	}
	s.sink(q, r.Model).whole(map[string]any{"object": "list", "data": data, "model": r.Model,
		"usage": map[string]int{"prompt_tokens": used, "total_tokens": used}})
	return nil
}

// embeddingInputs reads a string, an array of strings, an array of tokens or an array of those.
func embeddingInputs(raw json.RawMessage) ([]string, error) {
	var one string
	if len(raw) > 0 && raw[0] == '"' {
		err := json.Unmarshal(raw, &one)
		return []string{one}, err
	}
	var many list[json.RawMessage]
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &many); err != nil {
			return nil, fmt.Errorf("input: %w", err)
		}
	}
	if len(many) == 0 {
		return nil, &apiError{Message: "input is empty: send a string or an array", Param: "input"}
	}
	if c := many[0][0]; c != '"' && c != '[' {
		return []string{string(raw)}, nil // one array of tokens
	}
	if len(many) > maxInputs {
		return nil, &apiError{Message: fmt.Sprintf("input has more than %d elements", maxInputs), Param: "input"}
	}
	var out []string
	for _, m := range many {
		one = string(m)
		if m[0] == '"' {
			json.Unmarshal(m, &one) // valid: it was read once already
		}
		out = append(out, one)
	}
	return out, nil
}

func embed(text string, dimensions int) []float32 {
	v := make([]float32, dimensions)
	v[0] = 1
	for _, w := range words(text) {
		h := fnv.New64a()
		h.Write([]byte(w))
		sum := h.Sum64()
		v[sum%uint64(dimensions)] += 1 - 2*float32(sum>>63)
	}
	norm := 0.0
	for _, x := range v {
		norm += float64(x) * float64(x)
	}
	if norm == 0 {
		v[0], norm = 1, 1
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(norm))
	}
	return v
}

var listed = []string{"practice-1", "practice-echo", "practice-refuse", "practice-slow", "practice-long-64",
	"practice-error-429", "practice-error-500", "practice-stall", "practice-reset", "practice-html", "practice-short"}

// models answers GET /v1/models and /v1/models/{id}. Every id exists.
func (s *server) models(w http.ResponseWriter, r *http.Request) {
	api := apiOf(r)
	one := func(id string) any {
		if api == anthropic {
			return map[string]any{"type": "model", "id": id, "display_name": id,
				"created_at": s.Clock().UTC().Format("2006-01-02T15:04:05Z")}
		}
		return map[string]any{"id": id, "object": "model", "created": s.Clock().Unix(), "owned_by": "fairlead"}
	}
	w.Header().Set("Content-Type", "application/json")
	if id := r.PathValue("id"); id != "" {
		w.Write(encode(one(id)))
		return
	}
	data := []any{}
	for _, id := range listed {
		data = append(data, one(id))
	}
	if api == anthropic {
		w.Write(encode(map[string]any{"data": data, "has_more": false, "first_id": listed[0], "last_id": listed[len(listed)-1]}))
		return
	}
	w.Write(encode(map[string]any{"object": "list", "data": data}))
}
