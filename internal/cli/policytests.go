package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/internal/policy"
)

// testReport is the result of policy test for programs.
type testReport struct {
	OK       bool            `json:"ok"`
	Results  []fixtureResult `json:"results"`
	Untested []string        `json:"untested"` // policies that decided no fixture
}

type fixtureResult struct {
	File string `json:"file"`
	policy.Result
}

func setupPolicyTest(fs *flag.FlagSet) Run {
	options, asJSON := argumentFlag(fs), jsonFlag(fs)
	return func(_ context.Context, env *Env, args []string) error {
		opts, err := options()
		if err != nil {
			return err
		}
		s, fixtures, err := policiesAndFixtures(args, opts)
		if err != nil {
			return err
		}
		rep, err := runFixtures(s, fixtures)
		if err != nil {
			return err
		}
		if *asJSON {
			err = writeJSON(env.Stdout, rep)
		} else {
			_, err = io.WriteString(env.Stdout, printable(rep.text()))
		}
		if err != nil || rep.OK {
			return err
		}
		return &Error{Err: fmt.Errorf("%s not as wanted", plural(rep.failed(), "fixture went", "fixtures went"))}
	}
}

// policiesAndFixtures sorts what is named into both; without any it is what is built in.
func policiesAndFixtures(paths []string, opts policy.Options) (*policy.Set, []policyFile, error) {
	policies, fixtures := []policyFile(nil), builtIn(policy.StarterFixtures())
	if len(paths) > 0 {
		all, err := readSources(paths, policyExt, fixtureExt)
		if err != nil {
			return nil, nil, err
		}
		fixtures = nil
		for _, src := range all {
			if strings.HasSuffix(src.Name, policyExt) {
				policies = append(policies, src)
			} else {
				fixtures = append(fixtures, src)
			}
		}
		if len(fixtures) == 0 {
			return nil, nil, usagef("there are no fixtures: name a file that ends in %s, or a folder with one", fixtureExt)
		}
	}
	if policies == nil {
		policies = builtIn(policy.Starter())
	}
	s, err := loadSet(policies, opts)
	return s, fixtures, err
}

func runFixtures(s *policy.Set, files []policyFile) (*testReport, error) {
	rep := &testReport{OK: true, Results: []fixtureResult{}, Untested: []string{}}
	decided := map[string]bool{}
	for _, src := range files {
		fixtures, err := policy.ReadFixtures(src.Text)
		if err != nil {
			return nil, &Error{Err: fmt.Errorf("%s: %w", src.path, err), Code: exitUsage}
		}
		for _, r := range s.Test(fixtures) {
			rep.Results = append(rep.Results, fixtureResult{src.path, r})
			rep.OK = rep.OK && r.OK
			for _, id := range r.Decided {
				decided[id] = true
			}
		}
	}
	for _, r := range s.Rules() {
		if !decided[r.ID] {
			rep.Untested = append(rep.Untested, r.ID)
		}
	}
	return rep, nil
}

func (rep *testReport) failed() int {
	n := 0
	for _, r := range rep.Results {
		if !r.OK {
			n++
		}
	}
	return n
}

func (rep *testReport) text() string {
	var b strings.Builder
	for _, r := range rep.Results {
		if r.OK {
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n  want %s\n  got  %s\n", r.File, r.Name, decision(string(r.Want), r.Rules), decision(string(r.Got), r.Decided))
		if r.Error != "" {
			fmt.Fprintf(&b, "  error: %s\n", r.Error)
		}
	}
	fmt.Fprintf(&b, "%s, %d as wanted\n", plural(len(rep.Results), "fixture", "fixtures"), len(rep.Results)-rep.failed())
	if len(rep.Untested) > 0 {
		fmt.Fprintf(&b, "no fixture is decided by %s\n", strings.Join(rep.Untested, ", "))
	}
	return b.String()
}

func decision(effect string, rules []string) string {
	if len(rules) == 0 {
		return effect
	}
	return effect + " by " + strings.Join(rules, ", ")
}

func setupPolicyExplain(fs *flag.FlagSet) Run {
	options, principal, asJSON := argumentFlag(fs), principalFlags(fs), jsonFlag(fs)
	action := fs.String("action", "", "the `ACTION`: model.call, embedding, tool.call, tool.hosted or admin")
	tool := fs.String("tool", "", "the tool called `NAME`")
	model := fs.String("model", "", "the model called `NAME`")
	target := fs.String("system", "", "what an admin action is about, as `NAME`: approval.grant")
	classes := wordsFlag(fs, "class", "a `CLASS` of the tool: read, write, egress or irreversible")
	server := fs.String("server", "", "the `NAME` of the tool's server, or of the model's provider")
	given := wordsFlag(fs, "given", "what is known of the context, as `NAME=VALUE`")
	return func(_ context.Context, env *Env, args []string) error {
		opts, err := options()
		if err != nil {
			return err
		}
		q := policy.Query{Action: policy.Action(*action), Principal: principal(), Given: map[string]string{}}
		if *action == "" {
			return usagef("--action is missing")
		}
		names := slices.DeleteFunc([]string{*tool, *model, *target}, func(s string) bool { return s == "" })
		if len(names) > 1 {
			return usagef("--tool, --model and --system exclude each other")
		}
		q.Resource = policy.Resource{Name: strings.Join(names, ""), Server: *server, Known: len(*classes) > 0}
		for _, c := range *classes {
			q.Resource.Classes = append(q.Resource.Classes, policy.Class(c))
		}
		for _, g := range *given {
			name, value, ok := strings.Cut(g, "=")
			if !ok {
				return usagef("--given %q is not NAME=VALUE", g)
			}
			q.Given[name] = value
		}
		s, err := namedPolicies(args, opts)
		if err != nil {
			return err
		}
		answers, err := s.Explain(q)
		if err != nil {
			return &Error{Err: err, Code: exitUsage}
		}
		if *asJSON {
			return writeJSON(env.Stdout, append([]policy.Answer{}, answers...))
		}
		_, err = io.WriteString(env.Stdout, printable(explanation(answers)))
		return err
	}
}

// explanation puts what applies first and only names what does not.
func explanation(answers []policy.Answer) string {
	var b strings.Builder
	var never []string
	for _, is := range []policy.Applies{policy.Always, policy.Sometimes, policy.Errs, policy.Never} {
		for _, a := range answers {
			switch {
			case a.Applies != is:
			case is == policy.Never:
				never = append(never, a.ID)
			default:
				fmt.Fprintf(&b, "%-6s  %-5s  %s\n%s", is, a.Effect, a.ID, marked("                 ", a.Reason))
				b.WriteString(marked("                 ", a.Condition))
			}
		}
	}
	if len(never) > 0 {
		fmt.Fprintf(&b, "never          %s\n", strings.Join(never, ", "))
	}
	return b.String()
}
