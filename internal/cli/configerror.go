package cli

import (
	"fmt"
	"slices"
	"strings"
)

// maxMistakes is how many mistakes are listed; further ones are counted.
const maxMistakes = 100

// A ConfigError lists everything that is wrong with a configuration, by line.
type ConfigError struct {
	File     string // as the user named it; "" for none
	Mistakes []Mistake
	More     int // further mistakes that are not listed
}

// A Mistake is one thing that is wrong with a configuration. It never holds a secret.
type Mistake struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"` // counted from 1; 0 when no line is to blame
	Key  string `json:"key,omitempty"`  // dotted, or the flag that gave the value
	Text string `json:"text"`
}

// String is in the form that editors and compilers use: FILE:LINE: KEY: TEXT.
func (m Mistake) String() string {
	var b strings.Builder
	if m.File != "" {
		b.WriteString(m.File)
		if m.Line > 0 {
			fmt.Fprintf(&b, ":%d", m.Line)
		}
		b.WriteString(": ")
	}
	if m.Key != "" {
		b.WriteString(m.Key + ": ")
	}
	b.WriteString(m.Text)
	return b.String()
}

// Error gives each mistake a line.
func (e *ConfigError) Error() string {
	lines := []string{"the configuration is not valid"}
	for _, m := range e.Mistakes {
		lines = append(lines, m.String())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(lines, "\n")
}

// full reports whether further mistakes are only counted.
func (e *ConfigError) full() bool { return len(e.Mistakes) >= maxMistakes }

func (e *ConfigError) add(at position, key, format string, args ...any) {
	if e.full() {
		e.More++
		return
	}
	m := Mistake{File: e.File, Line: at.line, Key: key, Text: fmt.Sprintf(format, args...)}
	if at.flag != "" {
		m.File, m.Key = "", at.flag
	}
	e.Mistakes = append(e.Mistakes, m)
}

func (e *ConfigError) orNil() error {
	if len(e.Mistakes) == 0 {
		return nil
	}
	slices.SortStableFunc(e.Mistakes, func(a, b Mistake) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Key, b.Key)
	})
	return e
}

// A position is where a value comes from.
type position struct {
	line int
	flag string
}

// positions says for each key that a file or a flag gives where it stands.
type positions map[string]position

// of returns the position of key, or of the nearest key above it that has one.
func (p positions) of(key string) position {
	for {
		if at, ok := p[key]; ok {
			return at
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return position{}
		}
		key = key[:i]
	}
}
