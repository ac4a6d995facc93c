package verify_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// python runs the reader in a second language and gives what it says and its exit code.
func python(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{"-X", "utf8", filepath.Join("second", "verify.py")}, args...)...)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Error(err)
		return err.Error(), -1
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// TestSecondReader shows that a reader in another language accepts and refuses the same vectors.
func TestSecondReader(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed: the second reader cannot run here")
	}
	dir := filepath.FromSlash("testdata/format/")
	keys := filepath.Join(dir, "keys")
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, 4)
	expect := func(want int, args ...string) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out, code := python(t, args...)
			if code != want || want < 2 && !strings.Contains(out, "OK: ") {
				t.Errorf("%v: exit code %d, expected %d: %s", args, code, want, out)
			}
		})
	}
	if out, code := python(t, "envelopes", filepath.Join(dir, "accept")); code != 0 {
		t.Error(out)
	}
	out, _ := python(t, "envelopes", filepath.Join(dir, "reject"))
	if strings.Contains(out, "accepted ") || strings.Count(out, "refused ") < 100 {
		t.Error(out)
	}
	for _, kind := range []string{"proof", "checkpoint"} {
		for want, verdict := range []string{"accept", "reject"} {
			list, err := filepath.Glob(filepath.Join(dir, kind+"s", verdict, "*"))
			if err != nil || len(list) < 5 {
				t.Fatal(list, err)
			}
			for _, name := range list {
				if !strings.Contains(name, "ml-dsa") { // it says that it does not check these
					expect(want, kind, keys, name)
				}
			}
		}
	}
	log, empty, whole := filepath.Join(dir, "log"), filepath.Join(dir, "checkpoints", "accept", "empty"), filepath.Join(dir, "log", "checkpoint")
	expect(0, "log", keys, log)
	expect(0, "log", keys, log, empty)
	expect(0, "consistency", keys, log, empty, whole)
	expect(1, "consistency", keys, log, whole, empty)
	expect(2, "log", keys, filepath.Join(dir, "none"))
	expect(2)
	expect(2, "other", keys, log)
}
