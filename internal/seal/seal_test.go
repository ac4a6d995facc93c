package seal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/verify"
	"golang.org/x/mod/sumdb/note"
)

func TestKeysComeBack(t *testing.T) {
	dir := t.TempDir()
	k, err := Create(dir, "example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, "example.com/log"); err == nil {
		t.Error("keys were overwritten")
	}
	again, err := Load(dir, "example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	wrapped := k.Wrap(7, []byte("secret"))
	if got, err := again.Unwrap(7, wrapped); err != nil || string(got) != "secret" {
		t.Errorf("unwrapped %q, %v", got, err)
	}
	if _, err := again.Unwrap(8, wrapped); err == nil {
		t.Error("the key of one scope opened as another's")
	}
	if !bytes.Equal(k.Derive("a"), again.Derive("a")) || bytes.Equal(k.Derive("a"), k.Derive("b")) {
		t.Error("derived keys do not depend on key and purpose alone")
	}
	if _, err := Load(dir, "example.com/other"); !errors.Is(err, ErrNoKeys) {
		t.Errorf("keys of another log: %v", err)
	}
}

func TestSignaturesVerify(t *testing.T) {
	k, err := Create(t.TempDir(), "example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	signers, err := k.Signers(func() int64 { return 1_800_000_000 })
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.VerifierKeys()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := verify.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	c := verify.Checkpoint{Origin: "example.com/log", Size: 5}
	for n := range 3 {
		use := [][]note.Signer{signers, signers[:1], signers[1:]}[n]
		signed, err := note.Sign(&note.Note{Text: c.Text()}, use...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := keys.OpenCheckpoint(signed)
		if ok := n == 0; ok != (err == nil) {
			t.Errorf("signed by %d: %v", n, err)
		} else if ok && got.Size != 5 {
			t.Errorf("size %d", got.Size)
		}
	}
}

func TestSecretsStayPut(t *testing.T) {
	dir := t.TempDir()
	k, err := Create(dir, "example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", k, k, k, k); strings.Count(s, "[keys of example.com/log]") != 4 {
		t.Errorf("keys print as %s", s)
	}
	if runtime.GOOS == "windows" {
		return // no permission bits there
	}
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && path != dir && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", path, info.Mode())
		}
		return err
	})
}

func TestDamagedKeyFiles(t *testing.T) {
	for _, content := range []string{"", "x\ny\n", strings.Repeat("A", 5000), "AAAA\nAAAA\n"} {
		dir := t.TempDir()
		if _, err := Create(dir, "l"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "l", "log.key"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, "l"); err == nil || errors.Is(err, ErrNoKeys) {
			t.Errorf("log.key %.20q: %v", content, err)
		}
	}
}

func TestHead(t *testing.T) {
	k, err := Create(t.TempDir(), "l")
	if err != nil {
		t.Fatal(err)
	}
	if h, err := k.Head(); h != nil || err != nil {
		t.Errorf("head of a new log: %q, %v", h, err)
	}
	for _, s := range []string{"one", "two"} {
		if err := k.SetHead([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if h, err := k.Head(); string(h) != s || err != nil {
			t.Errorf("head %q, %v; want %q", h, err, s)
		}
	}
}
