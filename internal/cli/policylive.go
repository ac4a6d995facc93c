package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/flow"
	"github.com/fairleadhq/fairlead/internal/gateway"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/internal/policy"
	"github.com/fairleadhq/fairlead/verify"
)

// policyGroup is the command policy with all below it.
func policyGroup() *Command {
	c := policyCommand()
	c.Short = "check, test, activate and replay the policies that decide"
	c.Long += `

What is active is a fact in the ledger. Before the first activation the starter set decides.`
	c.Sub = append(c.Sub, policyLiveCommands()...)
	return c
}

// policySources reads the policies that a command names.
func policySources(args []string) ([]policy.Source, error) {
	files, err := readSources(args, policyExt)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, usagef("there are no policies: name files, or a folder with *.cedar in it")
	}
	out := make([]policy.Source, len(files))
	for i := range files {
		out[i] = files[i].Source
	}
	return out, nil
}

// policyLiveCommands are the subcommands of policy that read or change what decides.
func policyLiveCommands() []*Command {
	return []*Command{
		{Name: "activate", Usage: "[--shadow] [--config FILE] [--data DIR] [--json] FILE|DIR...", Short: "let these policies decide from now on",
			Long: `Checks the policies and lets them decide every call that begins from now on, in place of those that did. The activation is a
fact with the policies sealed beside it; calls under way are finished by the set that they began with. If a server runs on
the data folder it changes at once, and otherwise when it starts.

With --shadow the policies are asked beside the live ones and never obeyed: where they differ, the calls' facts say so
(fairlead.shadow.effect). --shadow without policies ends that.`, Setup: setupPolicyActivate},
		{Name: "rollback", Usage: "[--to ID|DIGEST|starter] [--data DIR] [--json]", Short: "let earlier policies decide again",
			Long: `Activates again the policies before the present ones, or those of the activation ID or DIGEST as fairlead policy log shows them,
or the starter set.`, Setup: setupPolicyRollback},
		{Name: "log", Usage: "[--data DIR] [--json]", Short: "list what was activated", Long: `Lists every activation and shadowing of policies, the newest first.`, Setup: setupPolicyLog},
		{Name: "replay", Usage: "[--since DURATION] [--config FILE] [--limit N] [--exit-code] [--data DIR] [--json] FILE|DIR...", Short: "see which recorded calls other policies would have decided otherwise",
			Long: `Asks the policies in FILE or DIR, and those that are active, what policy was asked about every recorded call, and lists where
they differ: counts, the rules behind them, and the newest examples with reasons. Tool calls are asked about exactly as
they were recorded; nothing is changed and no model is asked. With --exit-code it exits with 1 if anything would flip.`, Setup: setupPolicyReplay},
	}
}

func setupPolicyActivate(fs *flag.FlagSet) Run {
	data, keys, asJSON, config := dataFlag(fs), keysFlag(fs), jsonFlag(fs), configFlag(fs)
	shadow := fs.Bool("shadow", false, "ask them beside the live policies, and do not obey them")
	return func(ctx context.Context, env *Env, args []string) error {
		want := policyChange{Shadow: *shadow}
		if len(args) > 0 || !*shadow {
			var err error
			if want.Sources, err = policySources(args); err != nil {
				return err
			}
		}
		return sendPolicyChange(ctx, env, *data, *keys, *config, *asJSON, want)
	}
}

func setupPolicyRollback(fs *flag.FlagSet) Run {
	data, keys, asJSON, config := dataFlag(fs), keysFlag(fs), jsonFlag(fs), configFlag(fs)
	to := fs.String("to", "previous", "the `ID` or digest of an activation, or starter")
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args); err != nil {
			return err
		}
		return sendPolicyChange(ctx, env, *data, *keys, *config, *asJSON, policyChange{To: *to})
	}
}

// sendPolicyChange asks the running server, or changes the folder itself.
func sendPolicyChange(ctx context.Context, env *Env, data, keys, config string, asJSON bool, want policyChange) error {
	var done activation
	err := withLedger(ctx, env, data, keys,
		func(dir string) error { return askServer(ctx, dir, "POST", "/policies", want, &done) },
		func(l *ledger.Ledger, v *ledger.Views) error {
			c, err := LoadConfig(config, env.Getenv, Overrides{})
			if err != nil {
				return err
			}
			done, _, err = changePolicies(ctx, l, v, policy.Options{Arguments: c.argumentTypes()}, want)
			return err
		})
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(env.Stdout, done)
	}
	switch {
	case done.Shadow && done.Digest == "":
		_, err = fmt.Fprintln(env.Stdout, "no policies are asked beside the live ones any more")
	case done.Shadow:
		_, err = fmt.Fprintf(env.Stdout, "%d policies (%.12s) are asked beside the live ones and not obeyed\n", done.Rules, done.Digest)
	default:
		_, err = fmt.Fprintf(env.Stdout, "%d policies (%.12s) decide from here on; undo it with fairlead policy rollback\n", done.Rules, done.Digest)
	}
	return err
}

func setupPolicyLog(fs *flag.FlagSet) Run {
	data, asJSON := dataFlag(fs), jsonFlag(fs)
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args); err != nil {
			return err
		}
		f, err := openFolder(ctx, env, *data, "", false)
		if err != nil {
			return err
		}
		defer f.close()
		list, err := activations(ctx, f.views)
		if err != nil {
			return err
		}
		slices.Reverse(list)
		if *asJSON {
			return writeJSON(env.Stdout, list)
		}
		for _, a := range list {
			what := fmt.Sprintf("%d policies %.12s", a.Rules, a.Digest)
			if a.Digest == "" {
				what = "no policies"
			}
			if _, err := fmt.Fprintf(env.Stdout, "%s  %-8s %s  %s\n", a.Time.Local().Format(time.DateTime), a.How, what, a.ID); err != nil {
				return err
			}
		}
		set, err := policy.Load(policy.Starter(), policy.Options{})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "%-19s  %-8s %d policies %.12s\n", "before that", "starter", len(set.Rules()), set.Digest())
		return err
	}
}

// A flipped is a decision that the candidate would have made otherwise.
type flipped struct {
	Call     fairlead.ID     `json:"call"`
	Time     time.Time       `json:"time"`
	Action   policy.Action   `json:"action"`
	Resource string          `json:"resource"`
	From     fairlead.Effect `json:"from"`
	To       fairlead.Effect `json:"to"`
	Rules    []fairlead.Rule `json:"rules"` // those that make the difference
}

// A replayReport is what replaying found.
type replayReport struct {
	Active    string         `json:"active"` // digests
	Candidate string         `json:"candidate"`
	Calls     int            `json:"calls"`
	Decisions int            `json:"decisions"`
	Flips     int            `json:"flips"`
	By        map[string]int `json:"by,omitempty"`       // "allow -> hold: rule"
	Examples  []flipped      `json:"examples,omitempty"` // the newest
	Skipped   int            `json:"skipped,omitempty"`  // calls whose decisions cannot be opened
}

func setupPolicyReplay(fs *flag.FlagSet) Run {
	data, keys, asJSON, config := dataFlag(fs), keysFlag(fs), jsonFlag(fs), configFlag(fs)
	since := fs.Duration("since", 0, "look back `DURATION`, such as 24h; everything if it is left out")
	limit := fs.Int("limit", 20, "print at most `N` examples")
	code := fs.Bool("exit-code", false, "exit with 1 if anything would flip")
	return func(ctx context.Context, env *Env, args []string) error {
		sources, err := policySources(args)
		if err != nil {
			return err
		}
		c, err := LoadConfig(*config, env.Getenv, Overrides{})
		if err != nil {
			return err
		}
		opts := policy.Options{Arguments: c.argumentTypes()}
		candidate, err := policy.Load(sources, opts)
		if err != nil {
			return err
		}
		rules, err := flow.Compile(c.flowConfig())
		if err != nil {
			return err
		}
		f, err := openFolder(ctx, env, *data, *keys, true)
		if err != nil {
			return err
		}
		defer f.close()
		active, err := loadPolicies(ctx, f.Reader, f.views, opts)
		if err != nil {
			return err
		}
		r := replay{f: f, active: active.Live, candidate: candidate, rules: rules, limit: max(*limit, 0), open: map[fairlead.ID]policy.Request{},
			report: replayReport{Active: active.Live.Digest(), Candidate: candidate.Digest(), By: map[string]int{}}}
		if *since > 0 {
			r.since = time.Now().Add(-*since)
		}
		if err := r.run(ctx); err != nil {
			return err
		}
		if *asJSON {
			err = writeJSON(env.Stdout, r.report)
		} else {
			err = r.report.print(env.Stdout)
		}
		if err == nil && *code && r.report.Flips > 0 {
			return &Error{Err: fmt.Errorf("%d decisions would flip", r.report.Flips), Code: exitFailed}
		}
		return err
	}
}

// A replay asks two policy sets the same questions.
type replay struct {
	f                 *folder
	active, candidate *policy.Set
	rules             *flow.Rules
	since             time.Time
	limit             int
	open              map[fairlead.ID]policy.Request // what was asked about calls without an outcome yet
	report            replayReport
}

func (r *replay) run(ctx context.Context) error {
	size, _, err := r.f.Head(ctx)
	if err != nil {
		return err
	}
	o := r.f.Vault().Opener()
	return r.f.Events(ctx, 0, func(seq int64, b []byte) error {
		if seq >= size { // what came in meanwhile is for the next time
			return nil
		}
		head := string(b[:min(len(b), 160)])
		if !strings.Contains(head, `"kind":"call.`) {
			return ctx.Err()
		}
		e, err := verify.ParseEnvelope(b)
		if err != nil || e.Time.Before(r.since) {
			return err
		}
		switch e.Kind {
		case fairlead.KindCallIntent, fairlead.KindCallRefused:
			r.report.Calls++
			for i, q := range gateway.RecordedRequests(&e.Fact, r.rules) {
				r.ask(e.ID, e.Time, &q)
				if i == 0 && e.Kind == fairlead.KindCallIntent {
					r.open[e.ID] = q
				}
			}
		case fairlead.KindCallOutcome:
			r.outcome(ctx, o, e)
		}
		return ctx.Err()
	})
}

// outcome asks about the tool calls of an answer.
func (r *replay) outcome(ctx context.Context, o *ledger.Opener, e *verify.Envelope) {
	call := e.Link(fairlead.RelCompletes)
	base, ok := r.open[call]
	delete(r.open, call)
	if ok {
		for _, d := range gateway.DecisionsOf(&e.Fact) {
			q := d.Request(base)
			r.ask(call, e.Time, &q)
		}
	}
	for _, c := range e.Content {
		if c.Name != "verdict" || !ok {
			continue
		}
		opened, err := o.Open(ctx, c)
		var list []gateway.ToolDecision
		if err == nil {
			list, err = gateway.ReadDecisions(opened.Body)
		}
		if err != nil {
			slog.Debug("decisions cannot be opened", "call", e.ID.String(), "err", err)
			r.report.Skipped++ // erased or damaged: verify says which
			return
		}
		for i := range list {
			q := list[i].Request(base)
			r.ask(call, e.Time, &q)
		}
	}
}

func (r *replay) ask(call fairlead.ID, at time.Time, q *policy.Request) {
	r.report.Decisions++
	was, is := r.active.Decide(q), r.candidate.Decide(q)
	if was.Effect == is.Effect {
		return
	}
	r.report.Flips++
	f := flipped{Call: call, Time: at, Action: q.Action, Resource: q.Resource.Name, From: was.Effect, To: is.Effect}
	strict, other := &is, &was
	if was.Effect.Stricter(is.Effect) == was.Effect {
		strict, other = other, strict
	}
	ids := other.IDs()
	for _, rule := range strict.Rules {
		if rule.Effect == strict.Effect || !slices.Contains(ids, rule.ID) {
			f.Rules = append(f.Rules, rule)
		}
	}
	for _, rule := range f.Rules {
		r.report.By[fmt.Sprintf("%s -> %s: %s", f.From, f.To, rule.ID)]++
	}
	if r.report.Examples = append(r.report.Examples, f); len(r.report.Examples) > r.limit {
		r.report.Examples = r.report.Examples[1:]
	}
}

func (r *replayReport) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d decisions of %d calls, %.12s (active) against %.12s: %d would flip\n", r.Decisions, r.Calls, r.Active, r.Candidate, r.Flips)
	for _, k := range sortedKeys(r.By) {
		fmt.Fprintf(&b, "%6d  %s\n", r.By[k], k)
	}
	for i := len(r.Examples) - 1; i >= 0; i-- {
		f := &r.Examples[i]
		fmt.Fprintf(&b, "\n%s  %s  %s %s: %s -> %s\n", clock(f.Time), f.Call, f.Action, f.Resource, f.From, f.To)
		for _, rule := range f.Rules {
			fmt.Fprintf(&b, "    %s: %s\n", rule.ID, rule.Reason)
		}
	}
	if n := r.Flips - len(r.Examples); n > 0 {
		fmt.Fprintf(&b, "\nand %d more: --limit %d shows all, --json gives them to a program\n", n, r.Flips)
	}
	if r.Skipped > 0 {
		fmt.Fprintf(&b, "\nthe decisions of %d answers cannot be opened: fairlead verify log says why\n", r.Skipped)
	}
	_, err := io.WriteString(w, printable(b.String()))
	return err
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if m[a] != m[b] {
			return m[b] - m[a]
		}
		return strings.Compare(a, b)
	})
	return keys
}

// changePolicies records other policies and puts them to use, in that order.
func (s *server) changePolicies(ctx context.Context, body io.Reader) (activation, error) {
	var want policyChange
	if err := json.NewDecoder(body).Decode(&want); err != nil {
		return activation{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	opts := policy.Options{Arguments: s.config.Load().argumentTypes()}
	done, _, err := changePolicies(ctx, s.ledger, s.views, opts, want)
	if err != nil {
		return done, err
	}
	if err := s.views.CatchUp(ctx, nil); err != nil {
		return done, err
	}
	policies, err := loadPolicies(ctx, s.ledger.Reader, s.views, opts)
	if err != nil {
		return done, err
	}
	s.gateway.SetPolicies(policies)
	s.log.Info("policies changed", "how", done.How, "digest", done.Digest)
	return done, nil
}
