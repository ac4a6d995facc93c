package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/internal/budget"
)

func limitsCommand() *Command {
	return &Command{
		Name: "limits", Usage: "[--data DIR] [--json]", Short: "show how much of the limits is used",
		Long: `Lists the counters of the limits under quotas in the configuration, the fullest first: how much is used, how much calls
under way hold, and when the counter starts again. With --json money is in thousandths of a millionth. It asks the server
that runs on the data folder.`,
		Setup: func(fs *flag.FlagSet) Run {
			data, asJSON := dataFlag(fs), jsonFlag(fs)
			return func(ctx context.Context, env *Env, args []string) error {
				if err := wantArgs(args); err != nil {
					return err
				}
				dir, err := env.dataDir(*data)
				if err != nil {
					return err
				}
				list := []budget.Status{}
				err = askServer(ctx, dir, "GET", "/limits", nil, &list)
				if errors.Is(err, errNoServer) {
					return unusable(err, "limits are counted by a running server: start \"fairlead serve\", or name its folder with --data DIR")
				}
				if err != nil {
					return err
				}
				if *asJSON {
					return writeJSON(env.Stdout, list)
				}
				if len(list) == 0 {
					fmt.Fprintln(env.Stderr, "nothing of any limit is used; quotas in the configuration sets limits")
				}
				for i := range list {
					s := &list[i]
					resets := ""
					if !s.Resets.IsZero() {
						resets = "  until " + s.Resets.Local().Format(time.DateTime)
					}
					if _, err := fmt.Fprintf(env.Stdout, "%4.0f %%  %-20s %-12s %s of %s used, %s held  %s%s\n", 100*s.Share(), s.Limit, s.What,
						amount(s, s.Used), amount(s, s.Max), amount(s, s.Held), printable(s.Scope), resets); err != nil {
						return err
					}
				}
				return nil
			}
		},
	}
}

// amount writes a number of a status in its unit.
func amount(s *budget.Status, n int64) string {
	if s.What == budget.WhatMoney {
		return budget.Money(n / 1000).String()
	}
	return fmt.Sprint(n)
}
