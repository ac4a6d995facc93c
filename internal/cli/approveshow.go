package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/internal/approval"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// writeApproval shows an approval to whoever decides it. Every line of text from outside starts with our own label and a
// bar and is broken by us, so that none of it can pass for a line of ours.
func writeApproval(w io.Writer, f *fetched) error {
	var b bytes.Buffer
	s := &f.shown
	fmt.Fprintf(&b, "approval %s, event %d: %s, %d of %d people, until %s\n", f.ID, f.Number, f.State, len(f.Grants), f.Approvers, f.Expires.Local().Format(time.DateTime))
	fmt.Fprintf(&b, "held call %s; fairlead why %[1]s tells its story\n\n", f.Call)
	if f.Kind == approval.Declassify {
		barred(&b, "would release", s.Label)
		barred(&b, "to", s.Tool)
	} else {
		barred(&b, "would call", s.Tool)
	}
	if s.Arguments != "" || f.Kind == approval.ToolCall {
		writeArguments(&b, s.Arguments)
	}
	for _, a := range s.Actors {
		barred(&b, "on behalf of", a)
	}
	if s.Request != "" {
		barred(&b, "user asked", s.Request)
	}
	for _, r := range s.Rules {
		b.WriteByte('\n')
		barred(&b, "held by", r.ID)
		for _, t := range [][2]string{{"because", r.Reason}, {"remedy", r.Remedy}, {"error", r.Error}} {
			if t[1] != "" {
				barred(&b, t[0], t[1])
			}
		}
	}
	for i := range s.Sources {
		writeSource(&b, &s.Sources[i])
	}
	if s.Omitted > 0 {
		fmt.Fprintf(&b, "\n%d more places are not shown\n", s.Omitted)
	}
	for _, g := range f.Grants {
		fmt.Fprintf(&b, "\nendorsed by %s (%s, %s) until %s\n", visible(g.By), visible(g.Method), g.Assurance, g.Expires.Local().Format(time.DateTime))
	}
	fmt.Fprintf(&b, "\nshown: SHA-256 %s\n", f.digest)
	_, err := w.Write(b.Bytes())
	return err
}

// writeArguments shows arguments as they are, and, where escapes or white space could hide something, as they are read.
func writeArguments(b *bytes.Buffer, args string) {
	barred(b, "with", args)
	src := []byte(args)
	if wire.Check(src, wire.Limits{}) != nil {
		b.WriteString("  (the arguments are not JSON; they are granted byte for byte)\n")
		return
	}
	if read := string(wire.AppendCanonical(nil, wire.Root(src))); read != args && strings.ContainsRune(args, '\\') {
		barred(b, "which reads", read)
	}
}

func writeSource(b *bytes.Buffer, s *approval.Source) {
	b.WriteByte('\n')
	barred(b, "argument", s.Argument)
	barred(b, "value", s.Value)
	barred(b, "found in", s.Origin+" ("+s.Label+")")
	if s.Call != "" {
		barred(b, "brought by", s.Call)
	}
	if s.Before != "" {
		barred(b, "before it", s.Before)
	}
	switch {
	case s.Span == "":
	case s.Instruction:
		barred(b, "INSTRUCTION", s.Span)
	default:
		barred(b, "the words", s.Span)
	}
	if s.After != "" {
		barred(b, "after it", s.After)
	}
}

// barWidth is how many columns of text stand behind a bar: with the label they fit into 80.
const barWidth = 62

// barred writes text from outside behind a label and a bar, in lines that no terminal has to break.
func barred(b *bytes.Buffer, label, text string) {
	for _, line := range strings.Split(visible(text), "\n") {
		for first := true; first || line != ""; first = false {
			n, columns := 0, 0
			for i, r := range line {
				if columns += width(r); columns > barWidth {
					break
				}
				n = i + utf8.RuneLen(r)
			}
			fmt.Fprintf(b, "%13s | %s\n", label, line[:n])
			line, label = line[n:], ""
		}
	}
}

// width is at least the number of columns that r takes.
func width(r rune) int {
	if r >= 0x1100 {
		return 2
	}
	return 1
}

// visible returns s with everything escaped that a terminal may obey, or that cannot be seen: what an approver does not
// see must not be there. Line ends stay.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || unicode.IsPrint(r) && !unprintable(r) && !blank(r):
			b.WriteRune(r)
		case r < 0xa0:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

// blank reports whether r counts as printable and shows nothing: fillers and variation selectors.
func blank(r rune) bool {
	switch r {
	case 0x034f, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x2800, 0x3164, 0xffa0:
		return true
	}
	return r >= 0xfe00 && r <= 0xfe0f || r >= 0xe0100 && r <= 0xe01ef
}
