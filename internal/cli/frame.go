// Package cli is the command line: it reads arguments and configuration, composes the other packages and turns what
// they return into text, JSON and exit codes.
//
// What it prints may come from an attacker (a path, a key of a configuration file, an upstream's error), so errors are
// printed with control characters escaped, and never hold the value of a [Secret] or of an environment variable. A
// configuration file is at most 1 MiB and is read in time linear in its size.
package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// The exit codes, explained to the user by "fairlead help exit-codes".
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnusable    = 3
	exitInterrupted = 130
)

// Env is what a command has of the outside world besides the file system and the network.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
}

// A Run carries a command out. args are the arguments that are left when the flags are taken out. When ctx ends, a
// command that serves finishes what it has begun and returns nil; any other returns ctx's error.
type Run func(ctx context.Context, env *Env, args []string) error

// A Command is one line of the command table. With Setup it can be run, with Sub it is a group of commands, and with
// neither it is a help topic that consists of Long.
type Command struct {
	Name  string // one word
	Usage string // what may follow the name: "[--json] ID"
	Short string // what it does, in a few words
	Long  string // the whole manual, as paragraphs without indentation
	// Setup declares the flags of one invocation and returns what to run when they are set. Flags may stand before and
	// after other arguments; "--" ends them.
	Setup func(fs *flag.FlagSet) Run
	Sub   []*Command
}

// An Error is an error that ends the program with a certain exit code, or that has something to add about what to try.
type Error struct {
	Err   error
	Hints []string // each a line; printed after the error
	Code  int      // 0 is taken as 1
}

// Error gives the sentence without the hints.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that e is about.
func (e *Error) Unwrap() error { return e.Err }

// usagef is an error about the command line: exit code 2.
func usagef(format string, args ...any) *Error {
	return &Error{Err: fmt.Errorf(format, args...), Code: exitUsage}
}

// unusable is an error about the data or keys folder, or the ledger in it: exit code 3.
func unusable(err error, hints ...string) *Error {
	return &Error{Err: err, Hints: hints, Code: exitUnusable}
}

// Main runs the command that args name, without the program's own name in front, and returns the exit code.
func Main(ctx context.Context, env *Env, args []string) int {
	return dispatch(ctx, env, args, commands())
}

func dispatch(ctx context.Context, env *Env, args []string, table []*Command) int {
	err := invoke(ctx, env, args, &Command{Name: "fairlead", Sub: table})
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(env.Stderr, "fairlead: interrupted")
		return exitInterrupted
	}
	e := &Error{Err: err}
	if inner := (*Error)(nil); errors.As(err, &inner) {
		e.Hints, e.Code = inner.Hints, inner.Code
	}
	fmt.Fprintf(env.Stderr, "fairlead: %s\n", printable(err.Error()))
	for _, h := range e.Hints {
		fmt.Fprintf(env.Stderr, "hint: %s\n", printable(h))
	}
	return max(e.Code, exitFailed)
}

// invoke runs cmd, or the command below it that args name. cmd.Name is the full name, from "fairlead" down.
func invoke(ctx context.Context, env *Env, args []string, cmd *Command) error {
	if cmd.Setup != nil {
		fs := newFlags(cmd)
		run := cmd.Setup(fs)
		rest, err := parseFlags(fs, args)
		switch {
		case errors.Is(err, flag.ErrHelp):
			return writeHelp(env.Stdout, cmd)
		case err != nil:
			return flagError(cmd.Name, fs, err)
		}
		return run(ctx, env, rest)
	}
	if len(args) == 0 {
		if err := writeHelp(env.Stderr, cmd); err != nil {
			return err
		}
		return usagef("what to do is missing: name one of the commands above")
	}
	top := cmd.Name == "fairlead"
	switch name := args[0]; {
	case name == "-h" || name == "-help" || name == "--help":
		return writeHelp(env.Stdout, cmd)
	case top && name == "help":
		return help(env, args[1:], cmd)
	case top && (name == "-version" || name == "--version"):
		args = append([]string{"version"}, args[1:]...)
	}
	sub, err := child(cmd, args[0])
	if err != nil {
		return err
	}
	if sub.Setup == nil && sub.Sub == nil {
		return &Error{
			Err:   fmt.Errorf("%q is a help topic, not a command", args[0]),
			Hints: []string{"run \"fairlead help " + args[0] + "\""}, Code: exitUsage,
		}
	}
	return invoke(ctx, env, args[1:], sub)
}

// child returns the command called name below cmd, under its full name.
func child(cmd *Command, name string) (*Command, error) {
	var names []string
	for _, c := range cmd.Sub {
		if c.Name == name {
			full := *c
			full.Name = cmd.Name + " " + name
			return &full, nil
		}
		names = append(names, c.Name)
	}
	err := usagef("there is no command %q", strings.TrimPrefix(cmd.Name+" "+name, "fairlead "))
	if strings.HasPrefix(name, "-") {
		err = usagef("a command has to come before %s", name)
	} else if near := nearest(name, names); near != "" {
		err.Hints = append(err.Hints, fmt.Sprintf("did you mean \"%s %s\"?", cmd.Name, near))
	}
	err.Hints = append(err.Hints, fmt.Sprintf("run \"%s\" to see what there is", helpLine(cmd.Name)))
	return nil, err
}

func newFlags(cmd *Command) *flag.FlagSet {
	fs := flag.NewFlagSet(cmd.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// parseFlags sets the flags wherever they stand and returns the other arguments.
func parseFlags(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		left := fs.Args()
		if n := len(args) - len(left); n > 0 && args[n-1] == "--" {
			return append(rest, left...), nil
		}
		if len(left) == 0 {
			return rest, nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

// flagError puts an error of package flag into our words.
func flagError(cmd string, fs *flag.FlagSet, err error) error {
	var names []string
	cmd = strings.TrimPrefix(cmd, "fairlead ")
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	msg := err.Error()
	var e *Error
	if name, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
		e = usagef("%s has no flag --%s", cmd, name)
		if near := nearest(name, names); near != "" {
			e.Hints = append(e.Hints, fmt.Sprintf("did you mean --%s?", near))
		}
	} else if name, ok := strings.CutPrefix(msg, "flag needs an argument: -"); ok {
		e = usagef("%s: --%s needs a value", cmd, name)
	} else {
		e = usagef("%s: %s", cmd, strings.ReplaceAll(msg, "flag -", "flag --"))
	}
	e.Hints = append(e.Hints, fmt.Sprintf("run %q to see its flags", helpLine("fairlead "+cmd)))
	return e
}

// wantArgs checks the number of arguments of cmd, whose names stand in the message when it is wrong.
func wantArgs(args []string, names ...string) error {
	switch {
	case len(args) > len(names):
		return usagef("unexpected argument %q", args[len(names)])
	case len(args) < len(names):
		return usagef("%s is missing", names[len(args)])
	}
	return nil
}

// jsonFlag declares --json.
func jsonFlag(fs *flag.FlagSet) *bool {
	return fs.Bool("json", false, "print JSON")
}

// writeJSON prints v for a program to read: indented, without HTML escapes.
func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(printableJSON(b.Bytes()))
	return err
}

// printableJSON returns JSON that says the same and can be shown by a terminal: what [printable] escapes stands in
// strings only, where JSON has an escape for it too.
func printableJSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		if r != '\n' && unprintable(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
			continue
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}

// printable returns s with everything escaped that could move a terminal's cursor, change its colours or reorder its
// text. Line ends stay.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t' || !unprintable(r):
			b.WriteRune(r)
		case r < 0xa0:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// unprintable reports whether a terminal may obey r instead of showing it.
func unprintable(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e ||
		r >= 0x2060 && r <= 0x206f || r == 0xfeff
}

// nearest returns the candidate that name was most likely meant to be, or "". Its time is bounded by the number of
// candidates: a name longer than any sensible one is not looked at.
func nearest(name string, candidates []string) string {
	const longest = 40
	if len(name) > longest {
		return ""
	}
	best, fewest := "", 2+len(name)/4 // this many mistakes are another word
	for _, c := range candidates {
		if d := distance(strings.ToLower(name), c); d < fewest && d < len(c) {
			best, fewest = c, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that make b of a.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
