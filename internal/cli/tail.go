package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/provenance"
	"github.com/fairleadhq/fairlead/verify"
)

func tailCommand() *Command {
	return &Command{
		Name: "tail", Usage: "[-f] [-n N] [--all] [--json]", Short: "print calls as they are recorded",
		Long: `Prints the newest calls, one a line: when, how it ended, who, which model, the tools it asked for, and its id. With -f it
goes on. With --all it prints every fact, not only calls. With --json a line is the recorded envelope with its number.`,
		Setup: func(fs *flag.FlagSet) Run {
			data, keys, asJSON := dataFlag(fs), keysFlag(fs), jsonFlag(fs)
			follow := fs.Bool("f", false, "go on as new ones come")
			n := fs.Int64("n", 20, "begin with the newest `N`")
			all := fs.Bool("all", false, "print every fact")
			return func(ctx context.Context, env *Env, args []string) error {
				if err := wantArgs(args); err != nil {
					return err
				}
				f, err := openFolder(ctx, env, *data, *keys, false)
				if err != nil {
					return err
				}
				defer f.close()
				return tail(ctx, f, env.Stdout, *n, *all, *asJSON, *follow)
			}
		},
	}
}

func tail(ctx context.Context, f *folder, w io.Writer, n int64, all, asJSON, follow bool) error {
	next, err := tailStart(ctx, f, n, all)
	if err != nil {
		return err
	}
	for {
		// What was found is printed after the read has ended: a slow terminal must not hold the database.
		type found struct {
			seq      int64
			envelope []byte
		}
		var batch []found
		err := f.Events(ctx, next, func(seq int64, b []byte) error {
			next = seq + 1
			batch = append(batch, found{seq, append([]byte(nil), b...)})
			if len(batch) == 1000 {
				return io.EOF
			}
			return nil
		})
		more := errors.Is(err, io.EOF)
		if err != nil && !more {
			return err
		}
		if len(batch) > 0 {
			if err := f.views.CatchUp(ctx, nil); err != nil {
				return err
			}
		}
		for _, b := range batch {
			if err := tailLine(ctx, f, w, b.seq, b.envelope, all, asJSON); err != nil {
				return err
			}
		}
		if more {
			continue
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil // a follower is stopped; that is no failure
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// tailStart finds the event from which there are n of those that are printed.
func tailStart(ctx context.Context, f *folder, n int64, all bool) (int64, error) {
	size, _, err := f.Head(ctx)
	if err != nil || all {
		return max(0, size-n), err
	}
	from := max(0, size-3*n-100)
	for {
		var starts []int64
		err := f.Events(ctx, from, func(seq int64, b []byte) error {
			if isTailed(b) {
				starts = append(starts, seq)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		if int64(len(starts)) >= n && n > 0 {
			return starts[int64(len(starts))-n], nil
		}
		if from == 0 || n <= 0 {
			return from, nil
		}
		from = max(0, from-4*(size-from))
	}
}

// isTailed reports, without reading all of it, whether an envelope ends a call.
func isTailed(b []byte) bool {
	head := string(b[:min(len(b), 160)])
	return strings.Contains(head, `"kind":"`+string(fairlead.KindCallOutcome)+`"`) || strings.Contains(head, `"kind":"`+string(fairlead.KindCallRefused)+`"`)
}

func tailLine(ctx context.Context, f *folder, w io.Writer, seq int64, b []byte, all, asJSON bool) error {
	if !all && !isTailed(b) {
		return nil
	}
	if asJSON {
		line, err := json.Marshal(struct {
			Seq      int64           `json:"seq"`
			Envelope json.RawMessage `json:"envelope"`
		}{seq, b})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", printableJSON(line))
		return err
	}
	e, err := verify.ParseEnvelope(b)
	if err != nil {
		return fmt.Errorf("event %d: %w", seq, err)
	}
	if !isTailed(b) {
		_, err = fmt.Fprintf(w, "%s  #%-7d %-16s %s\n", clock(e.Time), seq, e.Kind, e.ID)
		return err
	}
	intentSeq, intent := seq, e
	if to := e.Link(fairlead.RelCompletes); !to.IsZero() {
		if intentSeq, err = f.views.Find(ctx, to); err == nil {
			intent, err = f.Fact(ctx, intentSeq)
		}
		if err != nil {
			return err
		}
	}
	c, err := provenance.LoadCall(ctx, f.source(), intentSeq, intent)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, callLine(c))
	return err
}

// callLine is a call in one line.
func callLine(c *provenance.Call) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-11s %s", clock(c.Time), c.Outcome, whoLine(c))
	if c.Model != "" {
		fmt.Fprintf(&b, "  %s/%s", c.Provider, c.Model)
	} else {
		fmt.Fprintf(&b, "  %s %s", c.Provider, c.Operation)
	}
	if t := c.Tools(); len(t) > 0 {
		fmt.Fprintf(&b, "  calls %s", strings.Join(t, ", "))
	}
	rules, withheld := c.Rules()
	switch {
	case len(withheld) > 0:
		fmt.Fprintf(&b, "  WITHHELD %s (%s)", strings.Join(withheld, ", "), strings.Join(rules, ", "))
	case len(rules) > 0:
		fmt.Fprintf(&b, "  objections: %s", strings.Join(rules, ", "))
	}
	fmt.Fprintf(&b, "  %s", c.ID)
	return printable(b.String())
}

// whoLine names the actor briefly: app, user and agent, each with a mark for how well it is known.
func whoLine(c *provenance.Call) string {
	var parts []string
	for _, w := range []provenance.Who{c.App, c.User, c.Agent} {
		if w.Value == "" {
			continue
		}
		parts = append(parts, nameOf(w)+mark(w.Assurance))
	}
	if len(parts) == 0 {
		return "nobody"
	}
	return strings.Join(parts, " ")
}

func nameOf(w provenance.Who) string {
	if w.Name != "" {
		return w.Name
	}
	return w.Value
}

// mark is a short sign for an assurance: ! verified, ~ derived, ? merely declared.
func mark(assurance string) string {
	switch fairlead.Assurance(assurance) {
	case fairlead.Verified, fairlead.Attested:
		return "!"
	case fairlead.Derived:
		return "~"
	}
	return "?"
}
