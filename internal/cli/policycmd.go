package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/policy"
)

func policyCommand() *Command {
	return &Command{
		Name: "policy", Short: "check, test, explain and compare policies",
		Long: `Policies say who may let which model and tool do what, with data of which label. They are written in Cedar, in files that
end in .cedar; a folder stands for all of these in it. Fixtures, requests with the verdict that is wanted for them, are in
files that end in .test.yaml. Where no file is named, the starter policies are meant, which are built in.`,
		Sub: policyCommands(),
	}
}

func policyCommands() []*Command {
	return []*Command{
		{
			Name: "check", Usage: "[--argument NAME:TYPE]... [--json] FILE|DIR...", Short: "say everything that is wrong with policies",
			Long: `Parses the policies, checks them against the schema and lists every mistake as FILE:LINE:COL: policy "ID": what is wrong.
Tool arguments that policies test have to be declared with --argument, as in the configuration.`, Setup: setupPolicyCheck,
		},
		{
			Name: "test", Usage: "[--argument NAME:TYPE]... [--json] [FILE|DIR...]", Short: "decide the requests in fixtures and compare",
			Long: `Decides the request of each fixture by the policies and lists those whose verdict is not the one that is wanted. Of a
folder it takes policies and fixtures. When no policies are named, the fixtures are for the starter policies. Policies
that decided no fixture are named at the end.`, Setup: setupPolicyTest,
		},
		{
			Name: "explain", Usage: "--action ACTION [--tool NAME|--model NAME|--class CLASS] [FLAGS] [FILE|DIR...]", Short: "say who could do something, and when",
			Long: `Says for each policy whether it applies always, never, or under which condition, as far as the flags say what is asked.
What is left of a condition is printed in Cedar. --class names the classes of the tool; a tool without any is one that
nobody classified. --user, --app, --agent and --group are a verified principal; without them it is anybody. --given says
what else is known, in the words of the context: --given label.integrity=untrusted.`, Setup: setupPolicyExplain,
		},
		{
			Name: "diff", Usage: "[--argument NAME:TYPE]... [--json] OLD NEW", Short: "list the policies in which two sets differ",
			Long: `Compares the policies of OLD and NEW, each a file or a folder, by their ids. Layout, comments and order do not matter.`, Setup: setupPolicyDiff,
		},
		{
			Name: "show", Usage: "[--schema] [--json] [FILE|DIR...]", Short: "print the starter policies, or the schema",
			Long: `Prints the starter policies, to start one's own from, or those in the files named. --schema prints the Cedar schema that
policies are written against.`, Setup: setupPolicyShow,
		},
	}
}

const (
	policyExt  = ".cedar"
	fixtureExt = ".test.yaml"
)

// wordsFlag collects a flag that can be given several times.
func wordsFlag(fs *flag.FlagSet, name, usage string) *[]string {
	list := &[]string{}
	fs.Func(name, usage, func(s string) error { *list = append(*list, s); return nil })
	return list
}

// argumentFlag declares --argument. Call the result after the flags are parsed.
func argumentFlag(fs *flag.FlagSet) func() (policy.Options, error) {
	list := wordsFlag(fs, "argument", "declare a tool argument as `NAME:TYPE`: string, long, bool or set")
	return func() (policy.Options, error) {
		opts := policy.Options{Arguments: map[string]string{}}
		for _, a := range *list {
			i := strings.LastIndex(a, ":")
			if i < 1 {
				return opts, usagef("--argument %q is not NAME:TYPE", a)
			}
			name, typ := a[:i], a[i+1:]
			if old, ok := opts.Arguments[name]; ok && old != typ {
				return opts, usagef("the argument %q is declared as %s and as %s: choose one", name, old, typ)
			}
			opts.Arguments[name] = typ
		}
		return opts, nil
	}
}

// A policyFile is a source and where it was read.
type policyFile struct {
	policy.Source // its name is that of the file without folders: it is part of the digest
	path          string
}

// readSources reads the named files, and those in the named folders that end in ext, sorted by name.
func readSources(paths []string, ext ...string) ([]policyFile, error) {
	var out []policyFile
	for _, p := range paths {
		names := []string{p}
		info, err := os.Stat(p)
		if err != nil {
			return nil, &Error{Err: err, Code: exitUsage}
		}
		if info.IsDir() {
			entries, err := os.ReadDir(p)
			if err != nil {
				return nil, &Error{Err: err, Code: exitUsage}
			}
			names = nil
			for _, e := range entries {
				if slices.ContainsFunc(ext, func(x string) bool { return strings.HasSuffix(e.Name(), x) }) && !e.IsDir() {
					names = append(names, filepath.Join(p, e.Name()))
				}
			}
			if len(names) == 0 {
				return nil, usagef("%s: there is no file in it that ends in %s", p, strings.Join(ext, " or "))
			}
		} else if !slices.ContainsFunc(ext, func(x string) bool { return strings.HasSuffix(p, x) }) {
			return nil, usagef("%s: expected a file that ends in %s", p, strings.Join(ext, " or "))
		}
		for _, name := range names {
			text, err := readBounded(name)
			if err != nil {
				return nil, &Error{Err: err, Code: exitUsage}
			}
			out = append(out, policyFile{policy.Source{Name: filepath.Base(name), Text: text}, name})
		}
	}
	return out, nil
}

// readBounded reads a file as far as it takes to see that it is too large.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConfig+1))
}

// builtIn makes files of sources that are not read from any.
func builtIn(sources []policy.Source) []policyFile {
	out := make([]policyFile, len(sources))
	for i, s := range sources {
		out[i] = policyFile{s, s.Name}
	}
	return out
}

// namedPolicies loads the named policies, or the starter policies.
func namedPolicies(paths []string, opts policy.Options) (*policy.Set, error) {
	files, err := builtIn(policy.Starter()), error(nil)
	if len(paths) > 0 {
		files, err = readSources(paths, policyExt)
	}
	if err != nil {
		return nil, err
	}
	return loadSet(files, opts)
}

// loadSet loads files; mistakes in them are named by path.
func loadSet(files []policyFile, opts policy.Options) (*policy.Set, error) {
	sources, paths := make([]policy.Source, len(files)), map[string]string{}
	for i, f := range files {
		sources[i], paths[f.Name] = f.Source, f.path
	}
	s, err := policy.Load(sources, opts)
	if wrong := (*policy.LoadError)(nil); errors.As(err, &wrong) {
		for i := range wrong.Problems {
			wrong.Problems[i].File = paths[wrong.Problems[i].File]
		}
	}
	if err != nil {
		return nil, &Error{Err: err, Code: exitUsage}
	}
	return s, nil
}

func setupPolicyCheck(fs *flag.FlagSet) Run {
	options, asJSON := argumentFlag(fs), jsonFlag(fs)
	return func(_ context.Context, env *Env, args []string) error {
		opts, err := options()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			return usagef("FILE or DIR is missing")
		}
		s, err := namedPolicies(args, opts)
		var wrong *policy.LoadError
		if err != nil && !errors.As(err, &wrong) {
			return err
		}
		if *asJSON {
			out := struct {
				OK       bool             `json:"ok"`
				Policies int              `json:"policies"`
				Digest   string           `json:"digest,omitempty"`
				Problems []policy.Problem `json:"problems"`
				More     int              `json:"more,omitempty"`
			}{OK: err == nil, Problems: []policy.Problem{}}
			if wrong != nil {
				out.Problems, out.More = wrong.Problems, wrong.More
			} else {
				out.Policies, out.Digest = len(s.Rules()), s.Digest()
			}
			if err := writeJSON(env.Stdout, out); err != nil {
				return err
			}
		}
		if err != nil || *asJSON {
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "%s valid; digest %s\n", plural(len(s.Rules()), "policy is", "policies are"), s.Digest())
		return err
	}
}

// plural puts a number before the word that fits it.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func setupPolicyDiff(fs *flag.FlagSet) Run {
	options, asJSON := argumentFlag(fs), jsonFlag(fs)
	return func(_ context.Context, env *Env, args []string) error {
		opts, err := options()
		if err != nil {
			return err
		}
		if err := wantArgs(args, "OLD", "NEW"); err != nil {
			return err
		}
		before, err := namedPolicies(args[:1], opts)
		if err != nil {
			return err
		}
		after, err := namedPolicies(args[1:], opts)
		if err != nil {
			return err
		}
		changes := policy.Diff(before, after)
		if *asJSON {
			return writeJSON(env.Stdout, struct {
				Old     string          `json:"old"`
				New     string          `json:"new"`
				Changes []policy.Change `json:"changes"`
			}{before.Digest(), after.Digest(), append([]policy.Change{}, changes...)})
		}
		var b strings.Builder
		for _, c := range changes {
			fmt.Fprintf(&b, "%s: %s\n%s%s", c.ID, c.Kind, marked("- ", c.Old), marked("+ ", c.New))
		}
		if len(changes) == 0 {
			b.WriteString("no policy differs\n")
		}
		_, err = io.WriteString(env.Stdout, printable(b.String()))
		return err
	}
}

// marked puts mark before each line of a text.
func marked(mark, text string) string {
	if text == "" {
		return ""
	}
	return mark + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+mark) + "\n"
}

func setupPolicyShow(fs *flag.FlagSet) Run {
	schema, asJSON := fs.Bool("schema", false, "print the Cedar schema"), jsonFlag(fs)
	fs.Bool("starter", false, "print the starter policies, as without any file")
	return func(_ context.Context, env *Env, args []string) error {
		sources, err := builtIn(policy.Starter()), error(nil)
		switch {
		case *schema:
			sources = builtIn([]policy.Source{{Name: "schema.cedarschema", Text: policy.Schema()}})
		case len(args) > 0:
			sources, err = readSources(args, policyExt)
		}
		if err != nil {
			return err
		}
		if *asJSON {
			type source struct {
				Name string `json:"name"`
				Text string `json:"text"`
			}
			out := make([]source, len(sources))
			for i, s := range sources {
				out[i] = source{s.Name, strings.ToValidUTF8(string(s.Text), "\ufffd")}
			}
			return writeJSON(env.Stdout, out)
		}
		for i, s := range sources {
			text := string(s.Text)
			if len(sources) > 1 {
				text = fmt.Sprintf("// %s\n\n%s", s.Name, text)
			}
			if i > 0 {
				text = "\n" + text
			}
			if _, err := io.WriteString(env.Stdout, printable(text)); err != nil {
				return err
			}
		}
		return nil
	}
}

// principalFlags declares what names a principal. Call the result after the flags are parsed; it is nil for anybody.
func principalFlags(fs *flag.FlagSet) func() *policy.Principal {
	var ids [3]*string
	for i, name := range []string{"app", "user", "agent"} {
		ids[i] = fs.String(name, "", "the verified `ID` of the principal's "+name)
	}
	groups := wordsFlag(fs, "group", "a `NAME` of a group that the user is in")
	return func() *policy.Principal {
		if *ids[0]+*ids[1]+*ids[2] == "" {
			return nil
		}
		party := func(id string) policy.Party {
			if id == "" {
				return policy.Party{}
			}
			return policy.Party{ID: id, Assurance: fairlead.Verified}
		}
		return &policy.Principal{App: party(*ids[0]), User: party(*ids[1]), Agent: party(*ids[2]), Groups: *groups}
	}
}
