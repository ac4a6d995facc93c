package rig

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestSecretIn(t *testing.T) {
	tests := []struct{ name, out, want string }{
		{"last line", "Key for bench. It is shown once.\n\nflk_abc123\n", "flk_abc123"},
		{"json", "{\n  \"id\": \"k1\",\n  \"secret\": \"flk_abc123\"\n}\n", "flk_abc123"},
		{"nothing", "\n", ""},
		{"a sentence", "The key was made.\n", ""},
		{"json without it", "{\"id\": \"k1\"}\n", ""},
	}
	for _, tt := range tests {
		got, err := secretIn(tt.out)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: secretIn = %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestTail(t *testing.T) {
	var tl tail
	tl.Write([]byte(strings.Repeat("x", 3*tailLen)))
	tl.Write([]byte("the end\n"))
	if s := tl.String(); len(s) > tailLen || !strings.HasSuffix(s, "xthe end") {
		t.Errorf("%d bytes, ending in %q", len(s), s[max(0, len(s)-20):])
	}
}

// TestProcess starts this test's own program as a child that never ends by itself and sees it go with the context.
func TestProcess(t *testing.T) {
	if os.Getenv("RIG_TEST_CHILD") != "" {
		os.Stdout.WriteString("child is up\n")
		time.Sleep(time.Minute)
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Start(ctx, 0, []string{"RIG_TEST_CHILD=1"}, os.Args[0], "-test.run=^TestProcess$")
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); !strings.Contains(p.Output(), "child is up"); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the child said nothing")
		}
	}
	cancel()
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the child outlived its context")
	}
	addr, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitListening(t.Context(), addr); err == nil || !strings.Contains(err.Error(), "child is up") {
		t.Errorf("waiting for a process that ended: %v, want what it said", err)
	}
}
