package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Gateway is a running "fairlead serve" on a fresh data folder, with one virtual key and one provider called mock.
type Gateway struct {
	*Process
	Base    string // URL of the provider's root, to which the provider's own paths are appended
	Key     string // the virtual key
	Control string // URL of the control plane
	Data    string // the data folder
}

// StartGateway makes a configuration, folders and a key below dir and starts the program with them. upstream is the
// URL of an OpenAI-compatible server. Everything is left as it is by default: strict durability, content recorded.
func StartGateway(ctx context.Context, core int, env []string, program, dir, upstream string) (*Gateway, error) {
	listen, err := FreePort()
	if err != nil {
		return nil, err
	}
	control, err := FreePort()
	if err != nil {
		return nil, err
	}
	g := &Gateway{Base: "http://" + listen + "/mock", Control: "http://" + control, Data: filepath.Join(dir, "data")}
	keys, config := filepath.Join(dir, "keys"), filepath.Join(dir, "fairlead.yaml")
	text := fmt.Sprintf("providers:\n  mock:\n    dialect: openai\n    base_url: %s\n    api_key: upstream-key-of-the-bench\nlog:\n  level: warn\n", upstream)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, program, "key", "create", "--data", g.Data, "--keys", keys, "--app", "bench").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("making a virtual key: %w", err)
	}
	if g.Key, err = secretIn(string(out)); err != nil {
		return nil, err
	}
	g.Process, err = Start(ctx, core, env, program, "serve", "--config", config, "--data", g.Data, "--keys", keys, "--listen", listen, "--control", control)
	if err != nil {
		return nil, err
	}
	for _, addr := range []string{control, listen} {
		if err := g.WaitListening(ctx, addr); err != nil {
			g.Stop()
			return nil, err
		}
	}
	return g, nil
}

// secretIn finds the key in what "fairlead key create" printed: a JSON object's member "secret" when it is piped, and
// the last line otherwise.
func secretIn(out string) (string, error) {
	var object struct {
		Secret string `json:"secret"`
	}
	if json.Unmarshal([]byte(out), &object) == nil && object.Secret != "" {
		return object.Secret, nil
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if last == "" || strings.ContainsAny(last, " \t{}\"") {
		return "", errors.New("fairlead key create printed no key as its last line, and none as the member \"secret\"")
	}
	return last, nil
}
