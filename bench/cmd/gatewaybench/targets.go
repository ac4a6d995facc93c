package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/bench/internal/rig"
)

// The targets' names.
const (
	nameDirect   = "direct"
	nameFloor    = "floor"
	nameFairlead = "fairlead"
	namePortkey  = "portkey"
)

// portkeyVersion is what is compared with.
const portkeyVersion = "1.15.2"

// A target is something that takes the calls.
type target struct {
	name    string
	url     string
	pid     int // 0 for the upstream itself
	headers []string
}

// A field is everything that runs during a measurement.
type field struct {
	mock      string // the upstream's URL
	targets   []target
	processes []*rig.Process
}

// stop ends all processes that are still there.
func (f *field) stop() {
	for _, p := range f.processes {
		p.Stop()
	}
}

// start builds and starts mock, floor, Fairlead and Portkey. The field is never nil.
func (p *plan) start(ctx context.Context, rep *report) (*field, error) {
	f := &field{}
	root, err := rig.Module(ctx)
	if err != nil {
		return f, err
	}
	packages := []string{"./bench/cmd/mock", "./bench/cmd/floor", "./bench/cmd/load"}
	if p.program == "" {
		packages = append(packages, "./cmd/fairlead")
		p.program = filepath.Join(p.dir, "fairlead")
	}
	if err := rig.Build(ctx, root, p.dir, packages...); err != nil {
		return f, err
	}
	rep.Pinned = rig.CanPin() && p.core != rig.Unpinned && p.gatewayCore != rig.Unpinned
	addr, _, err := f.listen(ctx, p.core, nil, func(addr string) []string { return []string{filepath.Join(p.dir, "mock"), "-addr", addr} })
	if err != nil {
		return f, err
	}
	f.mock = "http://" + addr
	f.targets = append(f.targets, target{name: nameDirect, url: f.mock + "/v1/chat/completions"})
	addr, pid, err := f.listen(ctx, p.gatewayCore, p.env(), func(addr string) []string {
		return []string{filepath.Join(p.dir, "floor"), "-addr", addr, "-up", f.mock}
	})
	if err != nil {
		return f, err
	}
	f.targets = append(f.targets, target{name: nameFloor, url: "http://" + addr + "/v1/chat/completions", pid: pid})
	_, t, err := p.fairlead(ctx, f)
	if err != nil {
		return f, err
	}
	f.targets = append(f.targets, t)
	if t, err = p.startPortkey(ctx, f); err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		rep.Notes = append(rep.Notes, "Portkey was left out: "+line)
		return f, nil
	}
	f.targets = append(f.targets, t)
	return f, nil
}

// env is what the gateways written in Go are started with.
func (p *plan) env() []string {
	if p.procs == 0 {
		return nil
	}
	return []string{"GOMAXPROCS=" + strconv.Itoa(p.procs)}
}

// listen starts a program on a free port and waits until it listens.
func (f *field) listen(ctx context.Context, core int, env []string, command func(addr string) []string) (addr string, pid int, err error) {
	if addr, err = rig.FreePort(); err != nil {
		return "", 0, err
	}
	c := command(addr)
	p, err := rig.Start(ctx, core, env, c[0], c[1:]...)
	if err != nil {
		return "", 0, err
	}
	f.processes = append(f.processes, p)
	return addr, p.PID(), p.WaitListening(ctx, addr)
}

// fairlead starts a gateway with a fresh data folder. Calls carry a virtual key, so that the app is verified and the
// provider's key is put in.
func (p *plan) fairlead(ctx context.Context, f *field) (*rig.Gateway, target, error) {
	dir, err := os.MkdirTemp(p.dir, "gateway-")
	if err != nil {
		return nil, target{}, err
	}
	g, err := rig.StartGateway(ctx, p.gatewayCore, p.env(), p.program, dir, f.mock)
	if err != nil {
		return nil, target{}, fmt.Errorf("starting fairlead: %w", err)
	}
	f.processes = append(f.processes, g.Process)
	return g, target{nameFairlead, g.Base + "/v1/chat/completions", g.PID(), []string{"Authorization: Bearer " + g.Key}}, nil
}

// startPortkey starts Portkey's gateway, from npm unless the flag names a folder.
func (p *plan) startPortkey(ctx context.Context, f *field) (t target, err error) {
	folder := p.portkey
	switch folder {
	case "skip":
		return t, errors.New("as -portkey says")
	case "install":
		install := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", p.dir, "@portkey-ai/gateway@"+portkeyVersion)
		if out, err := install.CombinedOutput(); err != nil {
			return t, fmt.Errorf("installing it with npm: %w\n%s", err, out)
		}
		folder = filepath.Join(p.dir, "node_modules", "@portkey-ai", "gateway")
	}
	addr, pid, err := f.listen(ctx, p.gatewayCore, []string{"NODE_ENV=production"}, func(addr string) []string {
		_, port, _ := strings.Cut(addr, ":")
		return []string{"node", filepath.Join(folder, "build", "start-server.js"), "--port=" + port, "--headless"}
	})
	return target{namePortkey, "http://" + addr + "/v1/chat/completions", pid, []string{"Authorization: Bearer upstream-key-of-the-bench",
		"x-portkey-provider: openai", "x-portkey-custom-host: " + f.mock + "/v1"}}, err
}
