package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/rogpeppe/go-internal/testscript"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fairlead": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop)
		os.Exit(Main(ctx, &Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}, os.Args[1:]))
	}})
}

// TestScripts types what a person types. Every script has its own data and keys folder, $WORK/data and $WORK/keys.
//
// Commands beside testscript's own:
//
//	exits CODE COMMAND...     run a command that exits with CODE
//	take NAME PATTERN         set $NAME to what the first group of PATTERN matches in stdout
//	ready [DIR]               wait for the server on DIR; sets $LISTEN and $CONTROL
//	post [-s STATUS] PATH FILE [HEADER...]
//	                          send FILE as a JSON body to the server, its answer to stdout; sets $ID
//	get URL                   get URL, to stdout
//	json                      stdout is JSON, or a line of JSON each, that cannot move a terminal
//	plain                     stdout cannot move a terminal
//	sql DB STATEMENT          change a database behind everybody's back
//	flip FILE N               flip a bit of byte N; counted from the end if negative
//	copy FROM TO              copy a folder
//	head DIR FILE             write the newest stored checkpoint of the folder DIR to FILE
//	damage KEYS               cut the signed head in the keys folder short
//	sleep DURATION            wait
//	unescape FILE             replace the \x escapes in a file by what they stand for
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("FAIRLEAD_DATA", filepath.Join(e.WorkDir, "data"))
			e.Setenv("FAIRLEAD_KEYS", filepath.Join(e.WorkDir, "keys"))
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "take": take, "ready": ready, "post": post, "get": get, "json": isJSON, "plain": plain,
			"sql": sql, "flip": flip, "copy": copyFolder, "head": head, "damage": damage, "sleep": sleep, "unescape": unescape,
		},
		RequireUniqueNames: true,
	})
}

// want stops a script that is wrong itself.
func want(ts *testscript.TestScript, neg, ok bool, usage string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) >= 2, "exits CODE COMMAND...")
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != code {
		ts.Fatalf("exit code %d, expected %d\n[stdout]\n%s[stderr]\n%s", got, code, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func take(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "take NAME PATTERN")
	m := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("%q finds nothing in:\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], m[1])
}

func ready(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) <= 1, "ready [DIR]")
	dir := append(args, "data")[0]
	var st serverStatus
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = askServer(context.Background(), ts.MkAbs(dir), "GET", "/status", nil, &st); err == nil && st.Ready {
			ts.Setenv("LISTEN", st.Listen)
			ts.Setenv("CONTROL", st.Control)
			return
		}
	}
	ts.Fatalf("no server came up: %v %s", err, st.Problem)
}

func post(ts *testscript.TestScript, neg bool, args []string) {
	status := http.StatusOK
	if len(args) > 2 && args[0] == "-s" {
		var err error
		status, err = strconv.Atoi(args[1])
		ts.Check(err)
		args = args[2:]
	}
	want(ts, neg, len(args) >= 2, "post [-s STATUS] PATH FILE [HEADER...]")
	req, err := http.NewRequest(http.MethodPost, "http://"+ts.Getenv("LISTEN")+args[0], strings.NewReader(ts.ReadFile(args[1])))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	for _, h := range args[2:] {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ts.Check(err)
	if res.StatusCode != status {
		ts.Fatalf("%s: %s, expected %d\n%s", args[0], res.Status, status, body)
	}
	ts.Setenv("ID", res.Header.Get("Fairlead-Decision-Id"))
	ts.Stdout().Write(body)
}

func get(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "get URL")
	res, err := http.Get(args[0])
	ts.Check(err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", args[0], res.Status)
	}
	_, err = io.Copy(ts.Stdout(), res.Body)
	ts.Check(err)
}

func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 0, "json")
	text := ts.ReadFile("stdout")
	if text == "" {
		ts.Fatalf("stdout is empty")
	}
	dec := json.NewDecoder(strings.NewReader(text))
	for {
		var v any
		if err := dec.Decode(&v); err == io.EOF {
			break
		} else if err != nil {
			ts.Fatalf("stdout is not JSON: %v\n%s", err, text)
		}
	}
	harmless(ts, text)
}

func plain(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 0, "plain")
	harmless(ts, ts.ReadFile("stdout"))
}

// moves matches what a terminal obeys: controls, and what turns the direction of writing.
var moves = regexp.MustCompile(`[\x00-\x08\x0b-\x1f\x7f\x{80}-\x{9f}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]`)

func harmless(ts *testscript.TestScript, text string) {
	if at := moves.FindStringIndex(text); at != nil {
		ts.Fatalf("a terminal would obey what is printed: %q", text[max(0, at[0]-40):min(len(text), at[1]+40)])
	}
}

func sql(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "sql DB STATEMENT")
	conn, err := sqlite.OpenConn(ts.MkAbs(args[0]), sqlite.OpenReadWrite)
	ts.Check(err)
	defer conn.Close()
	ts.Check(sqlitex.ExecuteScript(conn, args[1], nil))
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "flip FILE N")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := []byte(ts.ReadFile(args[0]))
	if n < 0 {
		n += len(text)
	}
	text[n] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
}

func copyFolder(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "copy FROM TO")
	from, to := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(to, 0o700))
	entries, err := os.ReadDir(from)
	ts.Check(err)
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue // the server's socket
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(to, e.Name()), b, 0o600))
	}
}

func head(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "head DIR FILE")
	r, err := ledger.OpenReader(ts.MkAbs(args[0]), "")
	ts.Check(err)
	defer r.Close()
	signed, err := r.Checkpoint(context.Background(), 0)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), signed, 0o600))
}

func damage(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "damage KEYS")
	heads, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*", "head"))
	ts.Check(err)
	for _, name := range heads {
		ts.Check(os.Truncate(name, 50))
	}
}

func sleep(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "sleep DURATION")
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(d)
}

func unescape(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "unescape FILE")
	var out bytes.Buffer
	rest := ts.ReadFile(args[0])
	for {
		before, after, ok := strings.Cut(rest, `\x`)
		out.WriteString(before)
		if !ok {
			break
		}
		b, err := strconv.ParseUint(after[:2], 16, 8)
		if err != nil {
			ts.Fatalf("%s: %v", args[0], fmt.Errorf("%q is not a byte", after[:2]))
		}
		out.WriteByte(byte(b))
		rest = after[2:]
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o600))
}
