// Package rig starts and stops the programs that a benchmark compares: built from this tree, on loopback ports that
// nobody else uses, each pinned to a processor where that can be done, and gone when the benchmark ends.
//
// Whatever it starts ends with the context that it was started under: politely first, and by force ten seconds later.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Build compiles the main packages given by path, such as "./bench/cmd/mock", from the module in dir and gives the
// folder into that holds the programs, each under the last element of its path.
func Build(ctx context.Context, dir, into string, packages ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", into + string(filepath.Separator)}, packages...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", strings.Join(packages, " "), err, out)
	}
	return nil
}

// Module gives the root folder of Fairlead's module, in which the caller has to be.
func Module(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	dir := filepath.Dir(strings.TrimSpace(string(out)))
	if _, err := os.Stat(filepath.Join(dir, "bench", "cmd")); err != nil {
		return "", errors.New("run this inside Fairlead's source folder: the programs are built from it")
	}
	return dir, nil
}

// FreePort gives a loopback address, "127.0.0.1:PORT", that nobody listens on.
func FreePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// A Process is a started program.
type Process struct {
	cmd  *exec.Cmd
	tail *tail
	done chan struct{}
	err  error
}

// Unpinned lets a process run wherever the system likes.
const Unpinned = -1

// Start starts a program, on the given processor if that is not Unpinned and there is a taskset command.
func Start(ctx context.Context, core int, env []string, program string, args ...string) (*Process, error) {
	cmd := Command(ctx, core, program, args...)
	p := &Process{cmd: cmd, tail: &tail{}, done: make(chan struct{})}
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = p.tail, p.tail
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(program), err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Command is exec.CommandContext on a given processor, ending politely.
func Command(ctx context.Context, core int, program string, args ...string) *exec.Cmd {
	if core != Unpinned && CanPin() {
		program, args = "taskset", append([]string{"-c", strconv.Itoa(core), program}, args...)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// CanPin reports whether processes are pinned to processors.
func CanPin() bool {
	_, err := exec.LookPath("taskset")
	return err == nil
}

// PID is the number of the process. (taskset becomes the program that it starts.)
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is the end of what the program said.
func (p *Process) Output() string { return p.tail.String() }

// Stop asks the program to end and waits until it has.
func (p *Process) Stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("the process did not end within 30 seconds of being asked; it said: %s", p.Output())
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.ExitCode() > 0 {
		return fmt.Errorf("the process failed: %w; it said: %s", p.err, p.Output())
	}
	return nil
}

// WaitListening waits until the process answers on addr, or fails when it ends or 30 seconds have passed.
func (p *Process) WaitListening(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("the process ended before it listened on %s: %v; it said: %s", addr, p.err, p.Output())
		case <-ctx.Done():
			return fmt.Errorf("nothing listens on %s: %w; the process said: %s", addr, context.Cause(ctx), p.Output())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tailLen is how much of a program's output is kept.
const tailLen = 4096

// A tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - tailLen; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}

// Get fetches at most 8 MiB from a URL and fails unless the status is 200.
func Get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, res.Status)
	}
	return b, err
}
