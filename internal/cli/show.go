package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/verify"
)

func showCommand() *Command {
	return &Command{
		Name: "show", Usage: "[--content] [--raw request|response] [--json] ID", Short: "print a fact, and what it refers to",
		Long: `Prints the recorded envelope of the fact ID, and for a call the one that completes it. With --content it also prints the
content, escaped so that a terminal cannot be moved by it. With --raw request or --raw response it prints exactly the
original bytes and nothing else; look before you let a terminal show them.`,
		Setup: func(fs *flag.FlagSet) Run {
			data, keys, asJSON := dataFlag(fs), keysFlag(fs), jsonFlag(fs)
			content := fs.Bool("content", false, "print the content too")
			raw := fs.String("raw", "", "print the exact bytes of `request or response` only")
			return func(ctx context.Context, env *Env, args []string) error {
				if err := wantArgs(args, "ID"); err != nil {
					return err
				}
				if *raw != "" && *raw != "request" && *raw != "response" {
					return usagef("--raw is request or response, not %q", *raw)
				}
				f, err := openFolder(ctx, env, *data, *keys, *content || *raw != "")
				if err != nil {
					return err
				}
				defer f.close()
				facts, err := factsOf(ctx, f, args[0])
				if err != nil {
					return err
				}
				if *raw != "" {
					return showRaw(ctx, env, f, facts, *raw)
				}
				return showFacts(ctx, env, f, facts, *content, *asJSON)
			}
		},
	}
}

// numbered is a fact with its place.
type numbered struct {
	seq int64
	env *verify.Envelope
	raw []byte
}

// factsOf gives the fact, and the one that completes it if it is a call.
func factsOf(ctx context.Context, f *folder, ref string) ([]numbered, error) {
	seq, err := f.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	load := func(seq int64) (numbered, error) {
		raw, err := f.Envelope(ctx, seq)
		if err != nil {
			return numbered{}, err
		}
		env, err := verify.ParseEnvelope(raw)
		return numbered{seq, env, raw}, err
	}
	first, err := load(seq)
	if err != nil {
		return nil, err
	}
	out := []numbered{first}
	if first.env.Kind == fairlead.KindCallIntent {
		end, err := f.views.Outcome(ctx, first.env.ID)
		if err != nil {
			return nil, err
		}
		if end >= 0 {
			last, err := load(end)
			if err != nil {
				return nil, err
			}
			out = append(out, last)
		}
	}
	return out, nil
}

func showRaw(ctx context.Context, env *Env, f *folder, facts []numbered, which string) error {
	for _, n := range facts {
		for _, c := range n.env.Content {
			if c.Name != which {
				continue
			}
			o, err := f.Vault().Open(ctx, c)
			if err != nil {
				return &Error{Err: err, Code: exitFailed}
			}
			_, err = env.Stdout.Write(o.Body)
			return err
		}
	}
	return fmt.Errorf("%s has no %s content", facts[0].env.ID, which)
}

func showFacts(ctx context.Context, env *Env, f *folder, facts []numbered, content, asJSON bool) error {
	type opened struct {
		Name  string   `json:"name"`
		Text  string   `json:"text,omitempty"`
		Names []string `json:"names,omitempty"`
		Error string   `json:"error,omitempty"`
	}
	type shown struct {
		Seq      int64           `json:"seq"`
		Envelope json.RawMessage `json:"envelope"`
		Content  []opened        `json:"content,omitempty"`
	}
	var list []shown
	for _, n := range facts {
		s := shown{Seq: n.seq, Envelope: n.raw}
		for _, c := range n.env.Content {
			if !content {
				break
			}
			o, err := f.Vault().Open(ctx, c)
			if err != nil {
				s.Content = append(s.Content, opened{Name: c.Name, Error: err.Error()})
				continue
			}
			s.Content = append(s.Content, opened{Name: c.Name, Text: string(o.Body), Names: o.Names})
		}
		list = append(list, s)
	}
	if asJSON {
		return writeJSON(env.Stdout, list)
	}
	for _, s := range list {
		fmt.Fprintf(env.Stdout, "event %d\n%s\n", s.Seq, printable(string(s.Envelope)))
		for _, c := range s.Content {
			if c.Error != "" {
				fmt.Fprintf(env.Stdout, "\n%s: %s\n", c.Name, printable(c.Error))
				continue
			}
			for i := 0; i+1 < len(c.Names); i += 2 {
				fmt.Fprintf(env.Stdout, "\n%s is %s\n", printable(c.Names[i]), printable(c.Names[i+1]))
			}
			fmt.Fprintf(env.Stdout, "\n%s, %d bytes:\n%s\n", c.Name, len(c.Text), printable(c.Text))
		}
		fmt.Fprintln(env.Stdout)
	}
	return nil
}

func proveCommand() *Command {
	return &Command{
		Name: "prove", Usage: "[-o FILE] ID", Short: "make a proof that a fact is in the log",
		Long: `Writes a c2sp.org/tlog-proof file for the fact ID: its envelope, its place, the hashes up to the root, and the newest signed
checkpoint. Whoever has the log's public keys checks it without us: fairlead verify event FILE, or any other reader of
that format.`,
		Setup: func(fs *flag.FlagSet) Run {
			data := dataFlag(fs)
			out := fs.String("o", "", "write to `FILE` instead of standard output")
			return func(ctx context.Context, env *Env, args []string) error {
				if err := wantArgs(args, "ID"); err != nil {
					return err
				}
				f, err := openFolder(ctx, env, *data, "", false)
				if err != nil {
					return err
				}
				defer f.close()
				seq, err := f.find(ctx, args[0])
				if err != nil {
					return err
				}
				p, err := f.Prove(ctx, seq)
				if err != nil {
					return err
				}
				if *out == "" {
					_, err = env.Stdout.Write(p.Format())
					return err
				}
				return os.WriteFile(*out, p.Format(), 0o644)
			}
		},
	}
}
