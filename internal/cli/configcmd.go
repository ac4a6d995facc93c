package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"runtime"
	"runtime/debug"
)

// configFlag declares --config. Pass its value to [LoadConfig].
func configFlag(fs *flag.FlagSet) *string {
	return fs.String("config", "", "read the configuration from `FILE`; without it every key has its default")
}

func configCommand() *Command {
	return &Command{
		Name:  "config",
		Short: "check and explain the configuration file",
		Long: `A configuration file is optional YAML that is given to "fairlead serve --config FILE". ${NAME} in a text value stands
for an environment variable.`,
		Sub: []*Command{
			{
				Name: "reload", Usage: "[--data DIR]",
				Short: "have the running server read its file again",
				Long: `Has the server that runs on the data folder read its configuration file again. All of it is put to use, or, if it has a
mistake, nothing; either way the answer says so.`,
				Setup: func(fs *flag.FlagSet) Run {
					data := dataFlag(fs)
					return func(ctx context.Context, env *Env, args []string) error {
						if err := wantArgs(args); err != nil {
							return err
						}
						return tellServer(ctx, env, *data, "POST", "/reload", "the configuration is reloaded")
					}
				},
			},
			{
				Name: "log-level", Usage: "[--data DIR] LEVEL",
				Short: "change what the running server logs",
				Long:  `Sets the level of the running server's own log to LEVEL (debug, info, warn or error) until it is restarted or reloaded.`,
				Setup: func(fs *flag.FlagSet) Run {
					data := dataFlag(fs)
					return func(ctx context.Context, env *Env, args []string) error {
						if err := wantArgs(args, "LEVEL"); err != nil {
							return err
						}
						return tellServer(ctx, env, *data, "PUT", "/log/"+url.PathEscape(args[0]), "the log level is "+args[0])
					}
				},
			},
			{
				Name: "check", Usage: "[--json] FILE",
				Short: "say everything that is wrong with a file",
				Long: `Reads FILE as "fairlead serve" would and lists every mistake as FILE:LINE: KEY: what is wrong. Environment variables
that the file names have to be set. The certificate files and the providers are not looked at.`,
				Setup: setupConfigCheck,
			},
			{
				Name:  "example",
				Short: "print a file with every key, its meaning and its default",
				Long:  `Prints a file to start from: every key with its meaning and its default.`,
				Setup: func(*flag.FlagSet) Run {
					return func(_ context.Context, env *Env, args []string) error {
						if err := wantArgs(args); err != nil {
							return err
						}
						return writeExample(env.Stdout)
					}
				},
			},
			{
				Name:  "schema",
				Short: "print the JSON Schema of the file, for editors",
				Long:  `Prints the JSON Schema (draft 2020-12) of the configuration file.`,
				Setup: func(*flag.FlagSet) Run {
					return func(_ context.Context, env *Env, args []string) error {
						if err := wantArgs(args); err != nil {
							return err
						}
						return writeSchema(env.Stdout)
					}
				},
			},
		},
	}
}

func setupConfigCheck(fs *flag.FlagSet) Run {
	asJSON := jsonFlag(fs)
	return func(_ context.Context, env *Env, args []string) error {
		if err := wantArgs(args, "FILE"); err != nil {
			return err
		}
		_, err := LoadConfig(args[0], env.Getenv, Overrides{})
		var wrong *ConfigError
		if err != nil && !errors.As(err, &wrong) {
			return err
		}
		if *asJSON {
			out := struct {
				OK       bool      `json:"ok"`
				Mistakes []Mistake `json:"mistakes"`
				More     int       `json:"more,omitempty"`
			}{OK: err == nil, Mistakes: []Mistake{}}
			if wrong != nil {
				out.Mistakes, out.More = wrong.Mistakes, wrong.More
			}
			if err := writeJSON(env.Stdout, out); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if !*asJSON {
			_, err = fmt.Fprintf(env.Stdout, "%s is valid\n", printable(args[0]))
		}
		return err
	}
}

func versionCommand() *Command {
	return &Command{
		Name: "version", Usage: "[--json]",
		Short: "print the version",
		Long:  `Prints the version of this binary, the commit that it was built from, and the Go version and system.`,
		Setup: func(fs *flag.FlagSet) Run {
			asJSON := jsonFlag(fs)
			return func(_ context.Context, env *Env, args []string) error {
				if err := wantArgs(args); err != nil {
					return err
				}
				v := readVersion()
				if *asJSON {
					return writeJSON(env.Stdout, v)
				}
				commit := v.Commit
				if v.Modified {
					commit += ", modified"
				}
				if commit != "" {
					commit = " (" + commit + ")"
				}
				_, err := fmt.Fprintf(env.Stdout, "fairlead %s%s %s %s\n", v.Version, commit, v.Go, v.System)
				return err
			}
		},
	}
}

// version is what the go command has written into the binary.
type version struct {
	Version  string `json:"version"` // "(devel)" for a build outside version control
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree that differed from the commit
	Go       string `json:"go"`
	System   string `json:"system"`
}

func readVersion() version {
	v := version{Version: "(devel)", Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// tellServer asks something of the server that runs on the folder and says that it was done.
func tellServer(ctx context.Context, env *Env, data, method, path, done string) error {
	dir, err := env.dataDir(data)
	if err != nil {
		return err
	}
	if err := askServer(ctx, dir, method, path, nil, &struct{}{}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, printable(done))
	return err
}
