package cli

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/ledger"
	"github.com/fairleadhq/fairlead/verify"
)

// TestStopFinishesStreams interrupts the server in the middle of a streamed answer: the client gets all of it, and it is
// recorded.
func TestStopFinishesStreams(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent an interrupt there")
	}
	bin, config := buildServer(t)
	c := &crashes{t: t, bin: bin, config: config, data: filepath.Join(t.TempDir(), "data"), keys: filepath.Join(t.TempDir(), "keys")}
	c.makeKey()
	p := c.start()
	select {
	case <-p.up:
	case <-p.read:
		t.Fatalf("the server does not start:\n%s", p.said)
	}
	req, err := http.NewRequest(http.MethodPost, p.data+"/chat/v1/chat/completions",
		strings.NewReader(`{"model":"practice-long-64","stream":true,"messages":[{"role":"user","content":"talk"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 100)
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(res.Body)
	if err != nil || !bytes.HasSuffix(rest, []byte("data: [DONE]\n\n")) {
		t.Fatalf("the stream was cut off after %d bytes: %v", len(rest), err)
	}
	<-p.read
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("the server ended with %v and said:\n%s", err, p.said)
	}
	r, err := ledger.OpenReader(c.data, c.keys)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	recorded := false
	err = r.Events(t.Context(), 0, func(_ int64, b []byte) error {
		e, err := verify.ParseEnvelope(b)
		if err != nil || e.Kind != fairlead.KindCallOutcome {
			return err
		}
		o, err := r.Vault().Open(t.Context(), e.Content[0])
		recorded = e.Text("fairlead.outcome") == "completed" && bytes.Equal(o.Body, append(first, rest...))
		return err
	})
	if err != nil || !recorded {
		t.Fatalf("the answer is not on record as the client got it (%v)", err)
	}
}
