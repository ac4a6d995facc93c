package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/fairleadhq/fairlead/internal/ledger"
)

// A finding is one thing that doctor looked at.
type finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Says string `json:"says"`
	Hint string `json:"hint,omitempty"`
}

func doctorCommand() *Command {
	return &Command{
		Name: "doctor", Usage: "[--config FILE] [--json]", Short: "find out what keeps Fairlead from working",
		Long: `Looks at the folders, the configuration, a running server and the way to each provider, and says what is wrong and what
to do. It changes nothing and sends no credentials.`,
		Setup: func(fs *flag.FlagSet) Run {
			config, data, keys, asJSON := configFlag(fs), dataFlag(fs), keysFlag(fs), jsonFlag(fs)
			return func(ctx context.Context, env *Env, args []string) error {
				if err := wantArgs(args); err != nil {
					return err
				}
				list := examine(ctx, env, *config, *data, *keys)
				bad := 0
				for _, f := range list {
					if !f.OK {
						bad++
					}
				}
				if *asJSON {
					if err := writeJSON(env.Stdout, list); err != nil {
						return err
					}
				} else {
					for _, f := range list {
						sign := "ok   "
						if !f.OK {
							sign = "WRONG"
						}
						fmt.Fprintf(env.Stdout, "%s  %-14s %s\n", sign, f.What, printable(f.Says))
						if f.Hint != "" {
							fmt.Fprintf(env.Stdout, "       %-14s hint: %s\n", "", printable(f.Hint))
						}
					}
				}
				if bad > 0 {
					return fmt.Errorf("%d of %d things are wrong", bad, len(list))
				}
				return nil
			}
		},
	}
}

func examine(ctx context.Context, env *Env, config, data, keys string) []finding {
	var out []finding
	add := func(what string, err error, good, hint string) bool {
		f := finding{What: what, OK: err == nil, Says: good}
		if err != nil {
			f.Says, f.Hint = err.Error(), hint
		}
		out = append(out, f)
		return err == nil
	}
	c, err := LoadConfig(config, env.Getenv, Overrides{})
	if !add("configuration", err, "valid", "run fairlead config check FILE") {
		c, _ = ReadConfig("", nil, env.Getenv, Overrides{})
	}
	dir, err := env.dataDir(data)
	if !add("data folder", err, dir, "") {
		return out
	}
	keysDir, err := env.keysDir(keys, dir)
	if !add("keys folder", err, keysDir, "") {
		return out
	}
	add("permissions", privateFolder(keysDir), "only you can read the keys folder", "chmod -R go= "+keysDir)
	r, err := ledger.OpenReader(dir, keysDir)
	if errors.Is(err, ledger.ErrNoLedger) {
		add("ledger", nil, "none yet: the first fairlead serve makes it", "")
	} else if add("ledger", err, "opens", "run fairlead verify log") {
		defer r.Close()
		size, _, err := r.Head(ctx)
		add("log", err, fmt.Sprintf("%s, %d events", r.Origin(), size), "run fairlead verify log")
		if !r.HasKeys() {
			add("keys", fmt.Errorf("the keys of %s are not in the keys folder: content stays sealed and nothing can be recorded", r.Origin()), "", "give the right folder with --keys DIR, or restore it from your backup of keys")
		} else {
			add("keys", nil, "there", "")
		}
	}
	var st serverStatus
	switch err := askServer(ctx, dir, "GET", "/status", nil, &st); {
	case errors.Is(err, errNoServer):
		add("server", nil, "none runs on this folder", "")
	case err != nil:
		add("server", err, "", "restart it")
	case !st.Ready:
		add("server", errors.New(st.Problem), "", "look at its log")
	default:
		add("server", nil, fmt.Sprintf("process %d at %s and %s, %d events", st.PID, st.Listen, st.Control, st.Events), "")
	}
	for _, name := range sorted(mapKeys(c.Providers)) {
		p := c.Providers[name]
		add("provider "+name, reachable(ctx, p.BaseURL), p.BaseURL+" answers", "check the network, a proxy (HTTPS_PROXY) and base_url")
	}
	return out
}

func privateFolder(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		err = fmt.Errorf("others can read %s (%s)", dir, info.Mode().Perm())
	}
	return err
}

// reachable asks for a page of the provider without credentials; any answer will do.
func reachable(ctx context.Context, base string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, base+"/v1/models", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("cannot be reached: %w", err)
	}
	return res.Body.Close()
}
