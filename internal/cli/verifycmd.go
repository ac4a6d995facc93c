package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/tlog"
)

func verifyCommand() *Command {
	return &Command{
		Name: "verify", Short: "check a log, a proof or two checkpoints",
		Long: `Checks what Fairlead recorded. None of these needs a secret key. The log's public keys are taken from --key FILE, else from
the keys folder, else from the data folder itself; in the last case whoever can write to the data folder could have
replaced them, and the result says so.`,
		Sub: []*Command{
			{Name: "log", Usage: "[--since FILE] [--key FILE] [--json]", Short: "check the whole log in a data folder",
				Long: `Reads every event, blob, tile and checkpoint and reports what was altered, dropped, swapped or inserted, and where. With
--since it also checks that the log extends the checkpoint in FILE, which you kept; without one, whoever holds the
signing key and the disk could have rewritten the whole.`, Setup: setupVerifyLog},
			{Name: "event", Usage: "[--key FILE] [--json] FILE", Short: "check a proof made by fairlead prove",
				Long: `Checks that the fact in the proof FILE is in the log, offline. Without --key it takes the public keys from the data folder.`, Setup: setupVerifyEvent},
			{Name: "consistency", Usage: "[--key FILE] [--json] OLDER NEWER", Short: "check that one checkpoint extends another",
				Long: `Checks that the log of the checkpoint in NEWER extends that of OLDER, by the tiles in the data folder.`, Setup: setupVerifyConsistency},
		},
	}
}

// publicKeys finds the log's public keys and says how far they can be trusted.
func publicKeys(r *ledger.Reader, file string) (keys verify.Keys, source string, err error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return keys, "", &Error{Err: err, Code: exitUsage}
		}
		keys, err = verify.ParseKeys(string(text))
		return keys, "given", err
	}
	text, trusted, err := r.VerifierKeys()
	if err != nil {
		return keys, "", unusable(fmt.Errorf("reading the log's public keys: %w", err), "give them with --key FILE")
	}
	source = "data folder"
	if trusted {
		source = "keys folder"
	}
	keys, err = verify.ParseKeys(text)
	return keys, source, err
}

// logReport is the result of verify log for programs.
type logReport struct {
	OK          bool         `json:"ok"`
	Origin      string       `json:"origin"`
	Size        int64        `json:"size"`
	Root        string       `json:"root"`
	Signed      int64        `json:"signed"`
	Events      int64        `json:"events"`
	Blobs       int64        `json:"blobs"`
	Tiles       int64        `json:"tiles"`
	Checkpoints int64        `json:"checkpoints"`
	Erased      int64        `json:"erased,omitempty"`
	Keys        string       `json:"keys"`
	Problems    []logProblem `json:"problems"`
	More        int64        `json:"more_problems,omitempty"`
	Notes       []string     `json:"notes,omitempty"`
}

func setupVerifyLog(fs *flag.FlagSet) Run {
	data, keysDir, asJSON := dataFlag(fs), keysFlag(fs), jsonFlag(fs)
	keyFile := fs.String("key", "", "take the log's public keys from `FILE`")
	since := fs.String("since", "", "check that the log extends the checkpoint in `FILE`")
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args); err != nil {
			return err
		}
		dir, err := env.dataDir(*data)
		if err != nil {
			return err
		}
		keys, err := env.keysDir(*keysDir, dir)
		if err != nil {
			keys = "" // only the public halves are wanted, and the data folder has those too
		}
		r, err := ledger.OpenReader(dir, keys)
		if err != nil {
			return readerError(err)
		}
		defer r.Close()
		var opts verify.LogOptions
		if *since != "" {
			if opts.Since, err = os.ReadFile(*since); err != nil {
				return &Error{Err: err, Code: exitUsage}
			}
		}
		opts.Progress = progressLine(env.Stderr)
		rep, err := verifyLog(ctx, r, *keyFile, opts)
		if err != nil {
			return err
		}
		if *asJSON {
			err = writeJSON(env.Stdout, rep)
		} else {
			err = printLogReport(env.Stdout, rep)
		}
		if err == nil && !rep.OK {
			err = fmt.Errorf("the log is not as it was recorded: %d problems", int64(len(rep.Problems))+rep.More)
		}
		return err
	}
}

// logProblem is a [verify.Problem] for programs.
type logProblem struct {
	Where string `json:"where"`
	What  string `json:"what"`
}

// progressLine shows progress on a terminal, overwriting itself.
func progressLine(w io.Writer) func(done, size int64) {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return func(done, size int64) { fmt.Fprintf(w, "\r%d of %d events\r", done, size) }
}

func verifyLog(ctx context.Context, r *ledger.Reader, keyFile string, opts verify.LogOptions) (logReport, error) {
	keys, source, err := publicKeys(r, keyFile)
	if err != nil {
		return logReport{}, err
	}
	if opts.Since == nil {
		// What the keys folder keeps shows a removed checkpoint, and a log that was cut off.
		if opts.Since, err = keptHead(ctx, r, keys); err != nil {
			return logReport{}, unusable(err)
		}
	}
	v, err := verify.Log(ctx, r.Inspect(), keys, opts)
	if err != nil {
		return logReport{}, err
	}
	rep := logReport{OK: v.OK(), Origin: keys.Origin, Size: v.Size, Root: v.Root.String(), Events: v.Events, Blobs: v.Blobs, Tiles: v.Tiles,
		Checkpoints: v.Checkpoints, Erased: v.Erased, Keys: source, Problems: []logProblem{}, More: v.More, Notes: v.Notes}
	for _, p := range v.Problems {
		rep.Problems = append(rep.Problems, logProblem(p))
	}
	if v.Checkpoint != nil {
		rep.Signed = v.Checkpoint.Size
	}
	return rep, nil
}

// keptHead gives the head that the keys folder keeps. A running server writes it there a moment before it stands in the
// data folder, so it is given that moment.
func keptHead(ctx context.Context, r *ledger.Reader, keys verify.Keys) ([]byte, error) {
	signed, err := r.SignedHead()
	if err != nil || signed == nil {
		return nil, err
	}
	c, err := keys.OpenCheckpoint(signed)
	if err != nil {
		return nil, fmt.Errorf("the signed head in the keys folder: %w", err)
	}
	for range 20 {
		if _, err := r.Checkpoint(ctx, c.Size); err == nil || ctx.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return signed, ctx.Err()
}

func printLogReport(w io.Writer, r logReport) error {
	for _, p := range r.Problems {
		fmt.Fprintf(w, "WRONG  %s\n", printable(verify.Problem(p).String()))
	}
	if r.More > 0 {
		fmt.Fprintf(w, "WRONG  and %d more\n", r.More)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note   %s\n", printable(n))
	}
	verdict := "verified"
	if !r.OK {
		verdict = "NOT verified"
	}
	fmt.Fprintf(w, "log %s: %s\n", printable(r.Origin), verdict)
	fmt.Fprintf(w, "  %d events, %d of them under a signed checkpoint, %d blobs, %d tiles, %d checkpoints\n", r.Events, r.Signed, r.Blobs, r.Tiles, r.Checkpoints)
	_, err := fmt.Fprintf(w, "  root %s; public keys from the %s\n", r.Root, r.Keys)
	if r.Keys == "data folder" {
		_, err = fmt.Fprintln(w, "  the keys were not checked against anything outside the folder: give --key FILE to be sure who signed")
	}
	return err
}

func setupVerifyEvent(fs *flag.FlagSet) Run {
	data, asJSON := dataFlag(fs), jsonFlag(fs)
	keyFile := fs.String("key", "", "take the log's public keys from `FILE`")
	return func(_ context.Context, env *Env, args []string) error {
		if err := wantArgs(args, "FILE"); err != nil {
			return err
		}
		text, err := os.ReadFile(args[0])
		if err != nil {
			return &Error{Err: err, Code: exitUsage}
		}
		keys, err := keysForFile(env, *data, *keyFile)
		if err != nil {
			return err
		}
		p, err := verify.ParseProof(text)
		if err != nil {
			return err
		}
		e, c, err := p.Check(keys)
		if err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, map[string]any{"ok": true, "index": p.Index, "id": e.ID.String(), "kind": e.Kind, "time": e.Time,
				"origin": c.Origin, "size": c.Size, "signers": c.Signers})
		}
		_, err = fmt.Fprintf(env.Stdout, "event %d (%s, %s, recorded %s) is in the log %s of %d events, signed by %v\n",
			p.Index, e.ID, e.Kind, e.Time.Format("2006-01-02 15:04:05 MST"), c.Origin, c.Size, c.Signers)
		return err
	}
}

func keysForFile(env *Env, data, keyFile string) (verify.Keys, error) {
	if keyFile != "" {
		keys, _, err := publicKeys(nil, keyFile)
		return keys, err
	}
	dir, err := env.dataDir(data)
	if err != nil {
		return verify.Keys{}, err
	}
	r, err := ledger.OpenReader(dir, "")
	if err != nil {
		return verify.Keys{}, unusable(err, "give the log's public keys with --key FILE")
	}
	defer r.Close()
	keys, _, err := publicKeys(r, "")
	return keys, err
}

func setupVerifyConsistency(fs *flag.FlagSet) Run {
	data, asJSON := dataFlag(fs), jsonFlag(fs)
	keyFile := fs.String("key", "", "take the log's public keys from `FILE`")
	return func(ctx context.Context, env *Env, args []string) error {
		if err := wantArgs(args, "OLDER", "NEWER"); err != nil {
			return err
		}
		dir, err := env.dataDir(*data)
		if err != nil {
			return err
		}
		r, err := ledger.OpenReader(dir, "")
		if err != nil {
			return readerError(err)
		}
		defer r.Close()
		keys, _, err := publicKeys(r, *keyFile)
		if err != nil {
			return err
		}
		var c [2]verify.Checkpoint
		for i, name := range args {
			text, err := os.ReadFile(name)
			if err != nil {
				return &Error{Err: err, Code: exitUsage}
			}
			if c[i], err = keys.OpenCheckpoint(text); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		var proof tlog.TreeProof
		if c[0].Size > 0 && c[0].Size <= c[1].Size {
			if proof, err = tlog.ProveTree(c[1].Size, c[0].Size, verify.TileReader(r.Tile)); err != nil {
				return fmt.Errorf("making the proof from the data folder's tiles: %w", err)
			}
		}
		if err := verify.CheckConsistency(c[0], c[1], proof); err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, map[string]any{"ok": true, "origin": keys.Origin, "older": c[0].Size, "newer": c[1].Size})
		}
		_, err = fmt.Fprintf(env.Stdout, "the log %s of %d events extends that of %d events\n", keys.Origin, c[1].Size, c[0].Size)
		return err
	}
}
