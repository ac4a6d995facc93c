package main

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// A conversation is a recorded run: the messages as the recording has them, white space between tokens left out.
type conversation struct {
	offered  string // the tools of every request, as JSON
	id       string
	messages []message
}

type message struct {
	raw       json.RawMessage
	assistant bool
	tools     bool // it calls tools
}

// errNoData is wrapped in the error for an archive that is not there.
var errNoData = errors.New("the recorded conversations are not here")

// maxLine bounds one conversation.
const maxLine = 16 << 20

// readTraces reads the conversations of one source from the archive. Nothing is written to disk.
func readTraces(archive, source string) ([]conversation, error) {
	f, err := os.Open(archive)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no %s", errNoData, archive)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderMaxWindow(1<<28))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	t := tar.NewReader(z)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("%w: %s holds no source %s", errNoData, archive, source)
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", archive, err)
		}
		if path.Base(path.Dir(h.Name)) == source && path.Base(h.Name) == "traces.jsonl" {
			return parseTraces(t)
		}
	}
}

func parseTraces(r io.Reader) (out []conversation, err error) {
	var called []string // tools, in the order of their first call
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var line struct {
			ID       string
			Messages []json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("conversation %d: %w", len(out)+1, err)
		}
		c := conversation{id: line.ID}
		for _, raw := range line.Messages {
			var m struct {
				Role  string
				Tools []struct {
					Function struct{ Name string }
				} `json:"tool_calls"`
			}
			if err := json.Unmarshal(raw, &m); err != nil {
				return nil, fmt.Errorf("conversation %s: %w", line.ID, err)
			}
			if raw, err = compact(raw); err != nil {
				return nil, err
			}
			for _, t := range m.Tools {
				if n := t.Function.Name; n != "" && !slices.Contains(called, n) {
					called = append(called, n)
				}
			}
			c.messages = append(c.messages, message{raw, m.Role == "assistant", len(m.Tools) > 0})
		}
		out = append(out, c)
	}
	tools := offer(called)
	for i := range out {
		out[i].offered = tools
	}
	return out, lines.Err()
}
