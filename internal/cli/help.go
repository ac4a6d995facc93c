package cli

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

const intro = `Fairlead stands between applications and models: calls flow through unchanged, and each of them is attributed,
recorded before it is answered, and provable afterwards.`

const manners = `Output is for people; --json makes it JSON, and nothing else does: piping it changes nothing. Errors go to standard
error as "fairlead: what is wrong", with "hint:" lines about what to try.`

// exitCodes is the help topic about exit codes.
func exitCodes() *Command {
	return &Command{
		Name:  "exit-codes",
		Short: "what the exit code of a command says",
		Long: `0    done; of a check: everything is as it should be
1    the command failed, or the check found something wrong
2    the command line or the configuration is wrong; nothing was done
3    the data or keys folder cannot be used: it is missing, belongs to another process, was written by a newer
     version, or does not match the head kept outside of it
130  interrupted before it was done; a server that was asked to stop ends with 0`,
	}
}

// help is the command of that name: args name the command that it is about.
func help(env *Env, args []string, root *Command) error {
	cmd := root
	for _, name := range args {
		if name == "-h" || name == "-help" || name == "--help" {
			break
		}
		var err error
		if cmd, err = child(cmd, name); err != nil {
			return err
		}
	}
	return writeHelp(env.Stdout, cmd)
}

// helpLine is the command line that explains the command with the given full name.
func helpLine(name string) string {
	return strings.Replace(name, "fairlead", "fairlead help", 1)
}

// writeHelp prints the manual of a command with its full name, a group or a topic.
func writeHelp(w io.Writer, cmd *Command) error {
	var b strings.Builder
	switch {
	case cmd.Setup != nil:
		fmt.Fprintf(&b, "usage: %s\n\n%s\n", strings.TrimSpace(cmd.Name+" "+cmd.Usage), strings.TrimSpace(cmd.Long))
		writeFlags(&b, cmd)
	case cmd.Sub == nil:
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(cmd.Long))
	default:
		long := cmd.Long
		if cmd.Name == "fairlead" {
			long = intro
		}
		fmt.Fprintf(&b, "%s\n\nusage: %s COMMAND\n", strings.TrimSpace(long), cmd.Name)
		writeTable(&b, "commands", cmd.Sub, func(c *Command) bool { return c.Setup != nil || c.Sub != nil })
		writeTable(&b, "topics", cmd.Sub, func(c *Command) bool { return c.Setup == nil && c.Sub == nil })
		fmt.Fprintf(&b, "\nRun \"%s NAME\" for more about one of them.\n", helpLine(cmd.Name))
		if cmd.Name == "fairlead" {
			fmt.Fprintf(&b, "%s\n", manners)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeTable(w io.Writer, title string, cmds []*Command, in func(*Command) bool) {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, c := range cmds {
		if !in(c) {
			continue
		}
		if title != "" {
			fmt.Fprintf(tw, "\n%s:\n", title)
			title = ""
		}
		fmt.Fprintf(tw, "  %s\t%s\n", c.Name, c.Short)
	}
	tw.Flush() // w is a strings.Builder, which takes everything
}

func writeFlags(w io.Writer, cmd *Command) {
	fs := newFlags(cmd)
	cmd.Setup(fs)
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	first := true
	fs.VisitAll(func(f *flag.Flag) {
		if first {
			fmt.Fprint(tw, "\nflags:\n")
			first = false
		}
		value, usage := flag.UnquoteUsage(f)
		name := strings.TrimSpace("--" + f.Name + " " + value)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(tw, "  %s\t%s\n", name, usage)
	})
	tw.Flush()
}
