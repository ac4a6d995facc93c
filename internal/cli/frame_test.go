package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An outcome is what a command line led to.
type outcome struct {
	code           int
	stdout, stderr string
}

func runTable(ctx context.Context, table []*Command, getenv func(string) string, args ...string) outcome {
	var out, errs bytes.Buffer
	code := dispatch(ctx, &Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: getenv}, args, table)
	return outcome{code, out.String(), errs.String()}
}

func noEnv(string) string { return "" }

// echo prints its flags and arguments, so that a test sees what a command got.
func echo() []*Command {
	fail := func(err error) func(*flag.FlagSet) Run {
		return func(*flag.FlagSet) Run { return func(context.Context, *Env, []string) error { return err } }
	}
	return []*Command{
		{Name: "echo", Usage: "[flags] TEXT", Short: "repeat", Long: "Repeats.", Setup: func(fs *flag.FlagSet) Run {
			loud, times := fs.Bool("loud", false, "shout"), fs.Int("times", 1, "repeat `N` times")
			return func(_ context.Context, env *Env, args []string) error {
				fmt.Fprintf(env.Stdout, "%v %d %q\n", *loud, *times, args)
				return nil
			}
		}},
		{Name: "group", Short: "several", Long: "Several.", Sub: []*Command{{Name: "one", Short: "first", Long: "First.", Setup: fail(nil)}}},
		{Name: "broken", Short: "fail", Setup: fail(errors.New("bad \x1b[31mthing\u202e"))},
		{Name: "unusable", Short: "fail", Setup: fail(fmt.Errorf("opening: %w", unusable(errors.New("in use"), "stop the other one")))},
		{Name: "canceled", Short: "fail", Setup: fail(fmt.Errorf("reading: %w", context.Canceled))},
		{Name: "topic", Short: "about", Long: "All about it."},
	}
}

func TestDispatch(t *testing.T) {
	tests := []struct {
		args           string
		code           int
		stdout, stderr string // must be contained; "" means that nothing is printed
	}{
		{"echo", 0, "false 1 []\n", ""},
		{"echo --loud a -times 3 b", 0, `true 3 ["a" "b"]`, ""},
		{"echo a -- --loud", 0, `false 1 ["a" "--loud"]`, ""},
		{"echo -", 0, `["-"]`, ""},
		{"group one", 0, "", ""},
		{"broken", 1, "", "fairlead: bad \\x1b[31mthing\\u202e\n"},
		{"unusable", 3, "", "fairlead: opening: in use\nhint: stop the other one\n"},
		{"canceled", 1, "", "fairlead: reading: context canceled\n"},
		{"", 2, "", "what to do is missing"},
		{"group", 2, "", "usage: fairlead group COMMAND"},
		{"ehco", 2, "", "fairlead: there is no command \"ehco\"\nhint: did you mean \"fairlead echo\"?\n"},
		{"group onr", 2, "", "there is no command \"group onr\"\nhint: did you mean \"fairlead group one\"?\nhint: run \"fairlead help group\""},
		{"completely-different", 2, "", "there is no command \"completely-different\"\nhint: run \"fairlead help\""},
		{"--loud echo", 2, "", "a command has to come before --loud"},
		{"echo --luod", 2, "", "echo has no flag --luod\nhint: did you mean --loud?\nhint: run \"fairlead help echo\""},
		{"echo --times", 2, "", "echo: --times needs a value"},
		{"echo --times x", 2, "", `echo: invalid value "x" for flag --times`},
		{"topic", 2, "", "\"topic\" is a help topic, not a command\nhint: run \"fairlead help topic\""},
		{"-h", 0, "usage: fairlead COMMAND", ""},
		{"help", 0, "topics:\n  topic   about", ""},
		{"help topic", 0, "All about it.\n", ""},
		{"help echo", 0, "usage: fairlead echo [flags] TEXT\n\nRepeats.\n\nflags:\n  --loud      shout\n  --times N   repeat N times (default 1)\n", ""},
		{"echo x --help", 0, "usage: fairlead echo", ""},
		{"help group one", 0, "usage: fairlead group one\n\nFirst.\n", ""},
		{"help grop", 2, "", "did you mean \"fairlead group\"?"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			got := runTable(t.Context(), echo(), noEnv, strings.Fields(tt.args)...)
			if got.code != tt.code {
				t.Errorf("exit code %d, expected %d", got.code, tt.code)
			}
			for what, s := range map[string][2]string{"stdout": {got.stdout, tt.stdout}, "stderr": {got.stderr, tt.stderr}} {
				if !strings.Contains(s[0], s[1]) || s[1] == "" && s[0] != "" {
					t.Errorf("%s is %q, expected %q", what, s[0], s[1])
				}
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := runTable(ctx, echo(), noEnv, "canceled"); got.code != exitInterrupted || got.stderr != "fairlead: interrupted\n" {
		t.Errorf("an interrupted command gave %+v", got)
	}
}

// TestCommandTable holds every command of the program to what help needs.
func TestCommandTable(t *testing.T) {
	var walk func(path string, cmds []*Command)
	walk = func(path string, cmds []*Command) {
		seen := map[string]bool{"help": true}
		for _, c := range cmds {
			name := path + c.Name
			if seen[c.Name] {
				t.Errorf("%s: there are two of that name", name)
			}
			seen[c.Name] = true
			if c.Short == "" || c.Long == "" {
				t.Errorf("%s: Short or Long is missing", name)
			}
			if c.Setup != nil && c.Sub != nil {
				t.Errorf("%s: has both Setup and Sub", name)
			}
			args := append([]string{"help"}, strings.Fields(name)...)
			if got := runTable(t.Context(), commands(), noEnv, args...); got.code != 0 || got.stdout == "" {
				t.Errorf("%v gave %+v", args, got)
			}
			walk(name+" ", c.Sub)
		}
	}
	walk("", commands())
}

func TestExitCodesAreDocumented(t *testing.T) {
	for _, code := range []int{exitOK, exitFailed, exitUsage, exitUnusable, exitInterrupted} {
		if !strings.Contains("\n"+exitCodes().Long, fmt.Sprintf("\n%-5d", code)) {
			t.Errorf("exit code %d is not in \"fairlead help exit-codes\"", code)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}} {
		if got := runTable(t.Context(), commands(), noEnv, args...); got.code != 0 || !strings.HasPrefix(got.stdout, "fairlead ") {
			t.Errorf("%v gave %+v", args, got)
		}
	}
	got := runTable(t.Context(), commands(), noEnv, "version", "--json")
	var v version
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || v.Version == "" || !strings.HasPrefix(v.Go, "go") {
		t.Errorf("version --json gave %+v: %v", got, err)
	}
	if got := runTable(t.Context(), commands(), noEnv, "version", "x"); got.code != 2 {
		t.Errorf("version x gave %+v", got)
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"listen", "limits", "log", "mode", "base_url", "api_key"}
	for name, want := range map[string]string{
		"lsiten": "listen", "base_ulr": "base_url", "baseurl": "base_url", "APIKey": "api_key", "lgo": "log", "modes": "mode",
		"x": "", "": "", "something_else": "", strings.Repeat("listen", 1000): "",
	} {
		if got := nearest(name, keys); got != want {
			t.Errorf("nearest(%.20q) = %q, expected %q", name, got, want)
		}
	}
}

func TestUsualFolder(t *testing.T) {
	vars := map[string]string{
		"HOME": "/home/u", "XDG_DATA_HOME": "", "AppData": "/roaming", "LocalAppData": "/local",
	}
	tests := []struct {
		what, goos, xdg, want string
	}{
		{"data", "linux", "", "/home/u/.local/share/fairlead"},
		{"keys", "linux", "", "/home/u/.config/fairlead/keys"},
		{"data", "freebsd", "/x", "/x/fairlead"},
		{"keys", "linux", "/x", "/x/fairlead/keys"},
		{"keys", "linux", "relative", "/home/u/.config/fairlead/keys"},
		{"data", "darwin", "/x", "/home/u/Library/Application Support/fairlead/data"},
		{"keys", "darwin", "", "/home/u/Library/Application Support/fairlead/keys"},
		{"data", "windows", "", "/local/fairlead/data"},
		{"keys", "windows", "", "/roaming/fairlead/keys"},
	}
	for _, tt := range tests {
		env := &Env{Getenv: func(name string) string {
			if strings.HasPrefix(name, "XDG_") {
				return filepath.FromSlash(tt.xdg)
			}
			return vars[name]
		}}
		if got, err := env.usualFolder(tt.what, tt.goos); err != nil || filepath.ToSlash(got) != tt.want {
			if filepath.Separator == '/' || tt.xdg != "/x" { // on Windows /x is not absolute
				t.Errorf("%s folder on %s is %q, %v; expected %q", tt.what, tt.goos, got, err, tt.want)
			}
		}
	}
	if _, err := (&Env{Getenv: noEnv}).usualFolder("data", "linux"); err == nil || !strings.Contains(err.Error(), "no home folder") {
		t.Errorf("without a home folder: %v", err)
	}
}

func TestFolderOrder(t *testing.T) {
	dir := t.TempDir()
	env := &Env{Getenv: func(name string) string {
		return map[string]string{"FAIRLEAD_DATA": filepath.Join(dir, "env"), "HOME": dir}[name]
	}}
	if got, err := env.dataDir(""); err != nil || got != filepath.Join(dir, "env") {
		t.Errorf("from the environment: %q, %v", got, err)
	}
	if got, err := env.dataDir(filepath.Join(dir, "flag")); err != nil || got != filepath.Join(dir, "flag") {
		t.Errorf("from the flag: %q, %v", got, err)
	}
	if got, err := env.dataDir("relative"); err != nil || !filepath.IsAbs(got) {
		t.Errorf("relative: %q, %v", got, err)
	}
}

func TestKeysInsideData(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(filepath.Join(data, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	linkErr := os.Symlink(filepath.Join(data, "sub"), link)
	nowhere := filepath.Join(dir, "nowhere")
	if linkErr == nil {
		linkErr = os.Symlink(filepath.Join(dir, "gone"), nowhere)
	}
	// On a file system without regard to case, DATA is the same folder.
	upper := filepath.Join(dir, "DATA")
	a, errA := os.Stat(data)
	b, errB := os.Stat(upper)
	same := errA == nil && errB == nil && os.SameFile(a, b)
	env := &Env{Getenv: noEnv}
	tests := []struct {
		keys, data string
		refused    bool
		link       bool
	}{
		{keys: data, data: data, refused: true},
		{keys: filepath.Join(data, "keys"), data: data, refused: true},
		{keys: filepath.Join(data, "..", "data", "a", "b"), data: data, refused: true},
		{keys: filepath.Join(dir, "new", "keys"), data: filepath.Join(dir, "new"), refused: true},
		{keys: filepath.Join(link, "keys"), data: data, refused: true, link: true},
		{keys: filepath.Join(nowhere, "keys"), data: data, refused: true, link: true},
		{keys: filepath.Join(dir, "keys"), data: data},
		{keys: filepath.Join(dir, "data-keys"), data: data},
		{keys: filepath.Join(dir, "..keys"), data: data},
		{keys: dir, data: data},
		{keys: filepath.Join(upper, "keys"), data: data, refused: same},
	}
	for _, tt := range tests {
		if tt.link && linkErr != nil {
			continue // a system where an ordinary user cannot make links
		}
		_, err := env.keysDir(tt.keys, tt.data)
		if (err != nil) != tt.refused {
			t.Errorf("keys %s, data %s: %v", tt.keys, tt.data, err)
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Code != exitUnusable) {
			t.Errorf("keys %s: %v does not end with exit code 3", tt.keys, err)
		}
	}
	if _, err := env.keysDir(filepath.Join(dir, "keys"), "x\x00"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that cannot be looked at: %v", err)
	}
}

func TestWantArgs(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{{nil, "ID is missing"}, {[]string{"a"}, ""}, {[]string{"a", "b"}, `unexpected argument "b"`}} {
		got := ""
		if err := wantArgs(tt.args, "ID"); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("wantArgs(%q) = %q, expected %q", tt.args, got, tt.want)
		}
	}
}
