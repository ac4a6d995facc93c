package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/identity"
	"github.com/fairleadhq/fairlead/internal/ledger"
)

func serveCommand() *Command {
	return &Command{
		Name: "serve", Usage: "[--config FILE] [--data DIR] [--keys DIR] [--listen ADDR] [--control ADDR] [--practice]",
		Short: "run the gateway",
		Long: `Runs the gateway until it is interrupted. Without a configuration it observes: calls to /openai/... and /anthropic/... go
to those providers with the client's own key, unchanged, and are recorded. Set a client's base URL to
http://127.0.0.1:4180/openai/v1 or http://127.0.0.1:4180/anthropic.

On SIGHUP, or "fairlead config reload", the configuration is read again: all of it is put to use, or, if it has a mistake,
nothing. On SIGINT or SIGTERM calls under way are finished and recorded; a second signal ends at once.

With --practice a scripted, gullible model is reachable as /practice/..., for trying things out.`,
		Setup: setupServe,
	}
}

func setupServe(fs *flag.FlagSet) Run {
	config, data, keys := configFlag(fs), dataFlag(fs), keysFlag(fs)
	listen := fs.String("listen", "", "take calls at `ADDR` (default 127.0.0.1:4180)")
	control := fs.String("control", "", "serve health, metrics and tiles at `ADDR` (default 127.0.0.1:4181)")
	practice := fs.Bool("practice", false, "also serve the practice model, in a data folder of its own")
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args); err != nil {
			return err
		}
		s := &server{configPath: *config, getenv: env.Getenv, over: Overrides{Listen: *listen, Control: *control}, level: new(slog.LevelVar)}
		c, err := LoadConfig(s.configPath, s.getenv, s.over)
		if err != nil {
			return err
		}
		if s.data, err = env.dataDir(*data); err != nil {
			return err
		}
		if *practice {
			if *data == "" {
				s.data += "-practice"
			}
			stop, err := s.startPractice(ctx)
			if err != nil {
				return err
			}
			defer stop()
		}
		if s.keys, err = env.keysDir(*keys, s.data); err != nil {
			return err
		}
		s.log = newLog(env.Stderr, c, s.level)
		if err := s.open(ctx, c); err != nil {
			return errors.Join(err, s.close())
		}
		stopSignals := s.onHangup(ctx)
		defer stopSignals()
		return s.run(ctx, func() {
			fmt.Fprintf(env.Stderr, "fairlead serves calls at http://%s and control at http://%s; data in %s\n", s.dataAddr, s.controlAddr, s.data)
			for _, name := range sorted(append(mapKeys(c.Providers), mapKeys(s.extra)...)) {
				fmt.Fprintf(env.Stderr, "  base URL for %-18s http://%s/%s\n", name, s.dataAddr, name)
			}
		})
	}
}

// digest identifies a configuration by its content, secrets left out.
func (c *Config) digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%v %v %v %v %v %v %v %v %v %v\n", c.Listen, c.Control, c.Mode, c.Hosts, c.Origins, c.RequireKey, c.BehindTLS, c.Tenant, c.Limits, c.Identity)
	for _, name := range sorted(mapKeys(c.Providers)) {
		p := c.Providers[name]
		fmt.Fprintf(h, "%s %s %s %v %s %s %s %d %s %v\n", name, p.Dialect, p.BaseURL, p.APIKey != "", p.Mode, p.Durability, p.OnFailure, p.Retries, p.Fallback, p.Timeout)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func mapKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

func keyCommand() *Command {
	return &Command{
		Name:  "key",
		Short: "make, list and revoke the virtual keys of applications",
		Long: `A virtual key says which application calls. It stands where the client's SDK puts its api_key; the gateway takes it out
and, where the configuration has one, puts the provider's key in its place.`,
		Sub: []*Command{
			{Name: "create", Usage: "--app NAME [--name NAME] [--expires DURATION] [--json]", Short: "make a key and show it, once",
				Long: `Makes a key for the application NAME and prints it on standard output. It is shown this once: only its hash is kept.`, Setup: setupKeyCreate},
			{Name: "list", Usage: "[--json]", Short: "list keys", Long: `Lists all keys that were ever made.`, Setup: setupKeyList},
			{Name: "revoke", Usage: "[--json] ID", Short: "withdraw a key", Long: `Withdraws the key ID at once and for good.`, Setup: setupKeyRevoke},
		},
	}
}

// withLedger runs a command on the server that runs on the folder, or else on the folder itself.
func withLedger(ctx context.Context, env *Env, data, keys string, ask func(data string) error, do func(*ledger.Ledger, *ledger.Views) error) error {
	dataDir, err := env.dataDir(data)
	if err != nil {
		return err
	}
	keysDir, err := env.keysDir(keys, dataDir)
	if err != nil {
		return err
	}
	if err := ask(dataDir); !errors.Is(err, errNoServer) {
		return err
	}
	l, err := ledger.Open(ctx, ledger.Config{Dir: dataDir, Keys: keysDir, Program: readVersion().Version, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return ledgerError(err)
	}
	defer l.Close()
	v, err := ledger.OpenViews(l.Reader)
	if err != nil {
		return unusable(err)
	}
	defer v.Close()
	if err := v.CatchUp(ctx, nil); err != nil {
		return unusable(err)
	}
	return do(l, v)
}

func setupKeyCreate(fs *flag.FlagSet) Run {
	data, keys, asJSON := dataFlag(fs), keysFlag(fs), jsonFlag(fs)
	app := fs.String("app", "", "the application's `NAME`")
	name := fs.String("name", "", "what to call this key: `NAME`")
	expires := fs.Duration("expires", 0, "let it expire after `DURATION`, such as 720h")
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args); err != nil {
			return err
		}
		if *app == "" {
			return usagef("key create: --app NAME is missing")
		}
		want := newKey{App: *app, Name: *name, Expires: *expires}
		var info keyInfo
		err := withLedger(ctx, env, *data, *keys,
			func(dir string) error { return askServer(ctx, dir, "POST", "/keys", want, &info) },
			func(l *ledger.Ledger, v *ledger.Views) error {
				ring, err := ringOf(ctx, v)
				if err == nil {
					info, err = createKey(ctx, l, ring, want)
				}
				return err
			})
		if err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, info)
		}
		fmt.Fprintf(env.Stderr, "key %s for app %s; it is shown only now:\n", info.ID, info.App)
		_, err = fmt.Fprintln(env.Stdout, info.Secret)
		return err
	}
}

func setupKeyRevoke(fs *flag.FlagSet) Run {
	data, keys, asJSON := dataFlag(fs), keysFlag(fs), jsonFlag(fs)
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args, "ID"); err != nil {
			return err
		}
		if !identity.Safe(args[0]) || strings.Contains(args[0], "/") {
			return usagef("%q is not the id of a key: see fairlead key list", args[0])
		}
		var info keyInfo
		err := withLedger(ctx, env, *data, *keys,
			func(dir string) error { return askServer(ctx, dir, "DELETE", "/keys/"+args[0], nil, &info) },
			func(l *ledger.Ledger, v *ledger.Views) error {
				ring, err := ringOf(ctx, v)
				if err == nil {
					info, err = revokeKey(ctx, l, ring, args[0])
				}
				return err
			})
		if err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, info)
		}
		_, err = fmt.Fprintf(env.Stdout, "key %s of app %s is revoked\n", info.ID, info.App)
		return err
	}
}

func setupKeyList(fs *flag.FlagSet) Run {
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
		ring, err := ringOf(ctx, f.views)
		if err != nil {
			return unusable(err)
		}
		list := []keyInfo{}
		for _, k := range ring.List() {
			list = append(list, infoOf(k))
		}
		if *asJSON {
			return writeJSON(env.Stdout, list)
		}
		for _, k := range list {
			state := "live"
			switch {
			case k.Revoked != nil:
				state = "revoked " + k.Revoked.Format(time.DateTime)
			case k.Expires != nil:
				state = "until " + k.Expires.Format(time.DateTime)
			}
			fmt.Fprintf(env.Stdout, "%s  %-20s %-16s made %s  %s\n", k.ID, k.App, k.Name, k.Created.Format(time.DateTime), state)
		}
		return nil
	}
}
