package verify

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairleadhq/fairlead"
)

// seedFiles adds the vectors that match pattern to the corpus.
func seedFiles(f *testing.F, pattern string) {
	list, err := filepath.Glob(filepath.Join(vectorDir, pattern))
	if err != nil || len(list) == 0 {
		f.Fatal(pattern, err)
	}
	for _, name := range list {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// FuzzParseEnvelope shows that the two readers agree, and that an accepted envelope has one spelling.
func FuzzParseEnvelope(f *testing.F) {
	seedFiles(f, "accept/*")
	seedFiles(f, "reject/*")
	f.Fuzz(func(t *testing.T, b []byte) {
		full := reader{full: true}
		errFull := full.read(b)
		fast := reader{env: Envelope{Fact: fairlead.Fact{Content: make([]fairlead.Content, 3)}}}
		errFast := fast.read(b)
		if (errFull == nil) != (errFast == nil) {
			t.Fatalf("full: %v, fast: %v", errFull, errFast)
		}
		if errFull != nil {
			return
		}
		e := &full.env
		if fast.env.ID != e.ID || len(fast.env.Content) != len(e.Content) {
			t.Fatalf("%+v and %+v", fast.env, e)
		}
		if id, err := fairlead.ParseID(e.ID.String()); err != nil || id != e.ID {
			t.Fatalf("id %v: %v", e.ID, err)
		}
		again, err := AppendEnvelope(nil, &e.Fact, e.Schema, e.Nonce)
		if err != nil {
			t.Fatalf("%s cannot be written again: %v", b, err)
		}
		// What is unknown stands at the end and is left out.
		if !bytes.Equal(again, b) && !bytes.HasPrefix(b, append(again[:len(again)-1:len(again)-1], ',')) {
			t.Fatalf("%s is written as %s", b, again)
		}
	})
}

func FuzzParseProof(f *testing.F) {
	seedFiles(f, "proofs/accept/*")
	seedFiles(f, "proofs/reject/*")
	_, text := testSigners(f)
	keys, err := ParseKeys(text)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseProof(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Format(), b) {
			t.Fatalf("%q is written as %q", b, p.Format())
		}
		if e, c, err := p.Check(keys); err == nil && (p.Index >= c.Size || e.ID.IsZero()) {
			t.Fatalf("%+v", p)
		}
	})
}

func FuzzOpenCheckpoint(f *testing.F) {
	seedFiles(f, "checkpoints/accept/*")
	seedFiles(f, "checkpoints/reject/*")
	_, text := testSigners(f)
	keys, err := ParseKeys(text)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := keys.OpenCheckpoint(b)
		if err == nil && !bytes.HasPrefix(b, []byte(c.Text()+"\n")) {
			t.Fatalf("%q reads %q", b, c.Text())
		}
		// The body alone, without the signatures that keep a fuzzer out.
		if c, err := parseCheckpointText(string(b)); err == nil && c.Text() != string(b) {
			t.Fatalf("%q reads %q", b, c.Text())
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	seedFiles(f, "keys")
	f.Add([]byte("# none\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseKeys(string(b)); err == nil && (k.Origin == "" || len(k.verifiers) == 0) {
			t.Fatalf("%q gives %+v", b, k)
		}
	})
}

// TestEveryFault alters every event, blob, tile and checkpoint of a log in memory, one at a time, and expects it found.
func TestEveryFault(t *testing.T) {
	m, keys := newMemLog(t, 300, 250, 300)
	ctx := context.Background()
	check := func(what string, i int) {
		t.Helper()
		if r, err := Log(ctx, m, keys, LogOptions{}); err != nil || r.OK() {
			t.Errorf("%s %d is not found (%v)", what, i, err)
		}
	}
	for i := range m.events {
		old := m.events[i]
		m.events[i] = bytes.Replace(old, []byte(`"nonce":"`), []byte(`"nonce":"A`), 1)[:len(old)]
		check("a change of event", i)
		if m.events[i] = nil; i%3 == 0 {
			check("the loss of event", i)
		}
		if m.events[i] = old; i > 0 && i%3 == 1 {
			m.events[i], m.events[i-1] = m.events[i-1], m.events[i]
			check("a swap of event", i)
			m.events[i], m.events[i-1] = m.events[i-1], m.events[i]
		}
	}
	for id, old := range m.blobs {
		m.blobs[id] = memBlob{old.scope, append([]byte("x"), old.sealed...)}
		check("a change of blob", int(id))
		delete(m.blobs, id)
		check("the loss of blob", int(id))
		m.blobs[id] = old
	}
	for p, hashes := range m.tiles {
		for i := range hashes {
			hashes[i][31] ^= 1
			check(tileName(p.level, p.n)+": a change of hash", i)
			hashes[i][31] ^= 1
		}
	}
	for i := range m.checkpoints {
		signed := m.checkpoints[i].signed
		for k := 0; k < len(signed); k += 61 {
			signed[k] ^= 1
			check("a change of the checkpoint at byte", k)
			signed[k] ^= 1
		}
	}
	if r, err := Log(ctx, m, keys, LogOptions{}); err != nil || !r.OK() {
		t.Errorf("the log was not restored: %v %v", r.Problems, err)
	}
}
