package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/fairleadhq/fairlead/bench/internal/appender"
	"github.com/fairleadhq/fairlead/bench/internal/measure"
	"github.com/fairleadhq/fairlead/bench/internal/rig"
)

// The contenders' names.
const (
	nameLedger  = "fairlead ledger"
	nameRaw     = "raw append"
	nameReady   = "raw append, envelopes made beforehand"
	nameTessera = "tessera posix, batch of one"
)

// A contender is run in a fresh folder.
type contender struct {
	name string
	run  func(ctx context.Context, dir string, writers int) (appender.Result, error)
}

// contenders lists who runs with so many writers. Tessera only commits single events here: that is what a strict call
// waits for.
func (p *plan) contenders(writers int) []contender {
	own := func(open func(dir string) (appender.Contender, error)) func(context.Context, string, int) (appender.Result, error) {
		return func(ctx context.Context, dir string, writers int) (appender.Result, error) {
			c, err := open(dir)
			if err != nil {
				return appender.Result{}, err
			}
			r, err := appender.Run(ctx, c, writers, p.warm, p.d)
			return r, errors.Join(err, c.Close())
		}
	}
	cs := []contender{
		{nameLedger, own(func(dir string) (appender.Contender, error) { return appender.OpenLedger(dir) })},
		{nameRaw, own(func(dir string) (appender.Contender, error) { return appender.OpenRaw(dir, false) })},
		{nameReady, own(func(dir string) (appender.Contender, error) { return appender.OpenRaw(dir, true) })},
	}
	if writers == 1 && p.tessera != "" {
		cs = append(cs, contender{nameTessera, p.runTessera})
	}
	return cs
}

// once runs one contender in a new folder and removes it. What earlier runs left to be written is written first.
func (p *plan) once(ctx context.Context, c contender, writers int) (appender.Result, error) {
	if err := ctx.Err(); err != nil {
		return appender.Result{}, context.Cause(ctx)
	}
	dir, err := os.MkdirTemp(p.dir, "run-")
	if err != nil {
		return appender.Result{}, err
	}
	defer os.RemoveAll(dir)
	measure.SyncAll()
	return c.run(ctx, dir, writers)
}

func (p *plan) runTessera(ctx context.Context, dir string, writers int) (r appender.Result, err error) {
	cmd := rig.Command(ctx, rig.Unpinned, p.tessera, "-dir", filepath.Join(dir, "log"), "-writers", strconv.Itoa(writers),
		"-warmup", p.warm.String(), "-d", p.d.String())
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("%w; it said: %s", err, said.Bytes())
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

// tesseraProgram finds or builds the peer. Building may fetch Tessera through the module proxy.
func tesseraProgram(ctx context.Context, how, dir string) (string, error) {
	switch how {
	case "skip":
		return "", errors.New("as -tessera says")
	case "build":
		root, err := rig.Module(ctx)
		if err != nil {
			return "", err
		}
		return filepath.Join(dir, "tessera"), rig.Build(ctx, filepath.Join(root, "bench", "peers"), dir, "./tessera")
	default:
		return exec.LookPath(how)
	}
}
