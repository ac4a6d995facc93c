package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/approval"
)

func approveCommand() *Command {
	return &Command{
		Name:  "approve",
		Short: "look at the calls that are held, and grant or deny them",
		Long: `A call that policy holds waits for a person. What is granted is exactly the call that was shown: the same tool with the
same arguments in the same conversation, once, within minutes. What nobody answers is denied. All of it is recorded.

ID is the approval's id, the start of it, or the number of its event. These commands talk to the server that runs on the
data folder.`,
		Sub: []*Command{
			{Name: "list", Usage: "[--all] [--json]", Short: "list what waits",
				Long: `Lists the approvals that wait for an answer or for the use of a grant; with --all also those that ended within the last hour.`, Setup: setupApproveList},
			{Name: "show", Usage: "[--json] ID", Short: "show what is asked, and where each argument comes from",
				Long: `Shows what would happen if it is granted, why it is held, and the words that each argument was taken from. Whatever
comes from outside stands behind a bar, with everything escaped that a terminal would obey or not show.`, Setup: setupApproveShow},
			{Name: "grant", Usage: "[--yes] [--args JSON] [--for DURATION] [--token-file FILE] [--json] ID", Short: "let exactly this happen, once",
				Long: `Shows the approval, asks, and grants what was shown. With --args the grant is refused unless these are the arguments that
are held. With --token-file the server checks the OIDC token in FILE and records whom it names; without it, the account
that you run this under. Nobody can approve a call made for themselves, and an agent cannot approve.`, Setup: setupApproveGrant},
			{Name: "deny", Usage: "[--why TEXT] [--token-file FILE] [--json] ID", Short: "refuse it, or take a grant back",
				Long: `Refuses what waits, or takes back a grant that was not used yet. Whoever asks for the same again within the time of the
request is answered by this denial.`, Setup: setupApproveDeny},
		},
	}
}

// approvalPath is the socket's path for what a person types.
func approvalPath(ref string) (string, error) {
	ref = strings.TrimPrefix(ref, "#")
	if ref == "" || strings.Trim(ref, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", &Error{Err: fmt.Errorf("%q is not the id of an approval", ref), Code: exitUsage, Hints: []string{`run "fairlead approve list"`}}
	}
	return "/approvals/" + ref, nil
}

// askApprovals sends a request to the running server, and says what to do if there is none.
func askApprovals(ctx context.Context, env *Env, data, method, path string, in, out any) error {
	dir, err := env.dataDir(data)
	if err != nil {
		return err
	}
	err = askServer(ctx, dir, method, path, in, out)
	if errors.Is(err, errNoServer) {
		return unusable(err, "calls wait in a running server: start \"fairlead serve\", or name its folder with --data DIR")
	}
	return err
}

func setupApproveList(fs *flag.FlagSet) Run {
	data, asJSON := dataFlag(fs), jsonFlag(fs)
	all := fs.Bool("all", false, "also those that ended within the last hour")
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args); err != nil {
			return err
		}
		path := "/approvals"
		if *all {
			path += "?all"
		}
		var list approvalList
		if err := askApprovals(ctx, env, *data, "GET", path, nil, &list); err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, list)
		}
		if list.More > 0 {
			fmt.Fprintf(env.Stderr, "%d older ones are not listed\n", list.More)
		}
		if len(list.Approvals) == 0 {
			fmt.Fprintln(env.Stderr, "nothing waits for an approval")
		}
		for _, a := range list.Approvals {
			fmt.Fprintf(env.Stdout, "#%-6d %-8s %-24s %-16s %d of %d  until %s  %s\n", a.Number, a.State, visible(a.what()), visible(a.App), len(a.Grants), a.Approvers,
				a.Expires.Local().Format(time.DateTime), a.ID)
		}
		return nil
	}
}

// what names the thing that is held in a few words.
func (a *approvalInfo) what() string {
	if a.Kind == approval.Declassify {
		return a.Label + " to " + a.Tool
	}
	return a.Tool
}

// fetched is an approval with what there is to see of it.
type fetched struct {
	approvalInfo
	shown  approval.Shown
	raw    []byte
	digest string // of raw, as it came: what a grant answers for
}

func fetchApproval(ctx context.Context, env *Env, data, ref string) (*fetched, error) {
	path, err := approvalPath(ref)
	if err != nil {
		return nil, err
	}
	var got approvalShown
	if err := askApprovals(ctx, env, data, "GET", path, nil, &got); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(got.Shown)
	f := &fetched{approvalInfo: got.Approval, raw: got.Shown, digest: hex.EncodeToString(sum[:])}
	if err := json.Unmarshal(got.Shown, &f.shown); err != nil {
		return nil, fmt.Errorf("what is to be shown cannot be read: %w", err)
	}
	if f.shown.ID != f.ID {
		return nil, errors.New("what is to be shown belongs to another approval")
	}
	return f, nil
}

func setupApproveShow(fs *flag.FlagSet) Run {
	data, asJSON := dataFlag(fs), jsonFlag(fs)
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args, "ID"); err != nil {
			return err
		}
		f, err := fetchApproval(ctx, env, *data, args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, struct {
				Approval approvalInfo    `json:"approval"`
				Shown    json.RawMessage `json:"shown"`
				Digest   string          `json:"digest"`
			}{f.approvalInfo, f.raw, f.digest})
		}
		return writeApproval(env.Stdout, f)
	}
}

// tokenFlag declares --token-file; the result reads it.
func tokenFlag(fs *flag.FlagSet) func() (string, error) {
	file := fs.String("token-file", "", "answer as the person whom the OIDC token in `FILE` names")
	return func() (string, error) {
		if *file == "" {
			return "", nil
		}
		f, err := os.Open(*file)
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 64<<10))
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		if b = bytes.TrimSpace(b); len(b) == 0 {
			return "", fmt.Errorf("%s holds no token", *file)
		}
		return string(b), nil
	}
}

func setupApproveGrant(fs *flag.FlagSet) Run {
	data, asJSON, token := dataFlag(fs), jsonFlag(fs), tokenFlag(fs)
	yes := fs.Bool("yes", false, "do not ask: you have looked at it with \"fairlead approve show\"")
	want := fs.String("args", "", "refuse unless these are the arguments: `JSON`")
	life := fs.Duration("for", 0, "let the grant be used within `DURATION`, at most 24h (default 10m, or what the server says)")
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args, "ID"); err != nil {
			return err
		}
		answer := approvalAnswer{For: *life}
		if *want != "" {
			answer.Args = want
		}
		var err error
		if answer.Token, err = token(); err != nil {
			return err
		}
		f, err := fetchApproval(ctx, env, *data, args[0])
		if err != nil {
			return err
		}
		answer.Shown = f.digest
		out := env.Stdout
		if *asJSON {
			out = env.Stderr
		}
		if !*yes {
			if err := writeApproval(out, f); err != nil {
				return err
			}
			if err := confirm(ctx, env, f); err != nil {
				return err
			}
		}
		// By its full id: what was typed may by now fit another one.
		var now approvalInfo
		if err := askApprovals(ctx, env, *data, "POST", "/approvals/"+f.ID+"/grant", answer, &now); err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, now)
		}
		if now.State != approval.Granted {
			_, err = fmt.Fprintf(env.Stdout, "endorsed %s; it takes %d people, %d have endorsed it\n", now.ID, now.Approvers, len(now.Grants))
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "granted %s: exactly this, once, until %s\n", now.ID, now.Expires.Local().Format(time.DateTime))
		return err
	}
}

// confirm asks at a terminal.
func confirm(ctx context.Context, env *Env, f *fetched) error {
	stdin, ok := env.Stdin.(*os.File)
	if ok {
		info, err := stdin.Stat()
		ok = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if !ok {
		return &Error{Err: errors.New("nothing was granted: there is no terminal to ask at"), Code: exitUsage,
			Hints: []string{"look at it with \"fairlead approve show " + f.ID + "\", then grant it with --yes"}}
	}
	fmt.Fprintf(env.Stderr, "\nGrant exactly this (%s), once? Type yes: ", visible(f.what()))
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(io.LimitReader(stdin, 1<<10)).ReadString('\n') // what cannot be read is no yes
		answer <- strings.TrimSpace(line)
	}()
	select {
	case a := <-answer:
		if a != "yes" {
			return errors.New("nothing was granted")
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func setupApproveDeny(fs *flag.FlagSet) Run {
	data, asJSON, token := dataFlag(fs), jsonFlag(fs), tokenFlag(fs)
	why := fs.String("why", "", "record `TEXT` as the reason")
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args, "ID"); err != nil {
			return err
		}
		path, err := approvalPath(args[0])
		if err != nil {
			return err
		}
		answer := approvalAnswer{Why: *why}
		if answer.Token, err = token(); err != nil {
			return err
		}
		var now approvalInfo
		if err := askApprovals(ctx, env, *data, "POST", path+"/deny", answer, &now); err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, now)
		}
		_, err = fmt.Fprintf(env.Stdout, "denied %s (%s)\n", now.ID, visible(now.what()))
		return err
	}
}
