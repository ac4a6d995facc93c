package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const trace = `{"id":"a/1","messages":[{"role": "system", "content": "Rules."},{"role": "user", "content": "Hello <b> \u00e9"},` +
	`{"role": "assistant", "content": null, "tool_calls": [{"id": "c1"}]},{"role": "tool", "tool_call_id": "c1", "content": "42"},` +
	`{"role": "assistant", "content": "It is 42."}]}` + "\n"

// TestTurns shows that each turn resends the whole history, byte for byte as the turns before had it.
func TestTurns(t *testing.T) {
	cs, err := parseTraces(strings.NewReader(trace))
	if err != nil || len(cs) != 1 {
		t.Fatal(cs, err)
	}
	turns := cs[0].turns()
	if len(turns) != 2 {
		t.Fatalf("%d turns, want 2", len(turns))
	}
	for _, turn := range turns {
		if !json.Valid(turn.request) || !json.Valid(turn.response) {
			t.Fatalf("no JSON: %s\n%s", turn.request, turn.response)
		}
	}
	first, rest, _ := bytes.Cut(turns[0].request, []byte(`],"tools"`))
	if !bytes.HasPrefix(turns[1].request, first) {
		t.Error("the second request does not start with the first one's history")
	}
	if !bytes.HasSuffix(turns[1].request, rest) {
		t.Error("the requests offer different tools")
	}
	if want := `Hello <b> \u00e9`; !bytes.Contains(turns[1].request, []byte(want)) {
		t.Errorf("the recording's escapes were changed: %s", turns[1].request)
	}
	var a struct {
		Choices []struct {
			Message      json.RawMessage
			FinishReason string `json:"finish_reason"`
		}
	}
	if err := json.Unmarshal(turns[0].response, &a); err != nil {
		t.Fatal(err)
	}
	if a.Choices[0].FinishReason != "tool_calls" || !bytes.Contains(turns[1].request, a.Choices[0].Message) {
		t.Errorf("the answer %s is not what the next request resends", turns[0].response)
	}
	if again := cs[0].turns(); !bytes.Equal(again[1].response, turns[1].response) {
		t.Error("two runs would answer differently")
	}
}

func TestTools(t *testing.T) {
	if n := len(toolsJSON); n < 8000 || n > 9500 || !json.Valid([]byte(toolsJSON)) {
		t.Errorf("the tools have %d bytes, not about 8.7 KB of JSON", n)
	}
}

func TestNoData(t *testing.T) {
	if _, err := readTraces(filepath.Join(t.TempDir(), "none.tar.zst"), "tau-bench"); !errors.Is(err, errNoData) {
		t.Errorf("a missing archive is %v", err)
	}
}

// TestStored shows that the breakdown of a database adds up to its file.
func TestStored(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.db")
	c, err := sqlite.OpenConn(file, sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	err = sqlitex.ExecuteScript(c, "create table a(x); create table b(y); insert into a values(randomblob(100000)); insert into b values(1);", nil)
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	files, total, err := folder(dir)
	if err != nil || len(files) != 1 || files[0].Bytes != total {
		t.Fatal(files, total, err)
	}
	parts, err := tables(file)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, p := range parts {
		sum += p.Bytes
	}
	if sum != total || parts[0].Name != "x.db: a" {
		t.Errorf("%v add up to %d of %d bytes", parts, sum, total)
	}
}
