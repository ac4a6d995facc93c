package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
)

// chat builds a request body and says where its messages and tools stand.
func chat(tools string, messages ...string) ([]byte, *Layout) {
	body := []byte(`{"model":"m","tools":`)
	l := &Layout{Units: []fairlead.Span{{Start: len(body), End: len(body) + len(tools)}}}
	body = append(append(body, tools...), `,"messages":[`...)
	var list []fairlead.Message
	for i, m := range messages {
		lead := len(body)
		if i > 0 {
			body = append(body, ',')
		}
		start := len(body)
		body = append(body, m...)
		role := fairlead.RoleUser
		if i == 0 {
			role = fairlead.RoleSystem
		}
		list = append(list, fairlead.Message{Role: role, Lead: lead, Span: fairlead.Span{Start: start, End: len(body)}})
	}
	body = append(body, `]}`...)
	l.Chain = ChainOf(body, list)
	return body, l
}

func message(role string, n int, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%s ", []string{"alpha", "beta", "gamma", "delta", "eta", "theta"}[r.IntN(6)])
	}
	text, _ := json.Marshal(b.String())
	return fmt.Sprintf(`{"role":"%s","content":%s}`, role, text)
}

func TestConversationIsStoredOnce(t *testing.T) {
	c := config(t)
	l := open(t, c)
	v := l.Vault()
	app, err := v.AppScope(t.Context(), "default", "support")
	if err != nil {
		t.Fatal(err)
	}
	scope, err := v.SubjectScope(t.Context(), app, "https://issuer\x00alice")
	if err != nil {
		t.Fatal(err)
	}
	tools := `[{"type":"function","function":{"name":"read","description":"` + strings.Repeat("reads a document; ", 100) + `"}}]`
	messages := []string{message("system", 3000, 1), message("user", 200, 2)}
	type kept struct {
		body []byte
		c    fairlead.Content
	}
	var all []kept
	stored, raw := 0, 0
	for turn := range 80 { // more than maxDepth, so that references start anew on the way
		body, layout := chat(tools, messages...)
		blobs := v.Seal(scope, "request", body, layout, []string{"user", "alice@example.com"})
		answer := message("assistant", 300, uint64(1000+turn))
		reply := []byte(`{"id":"x","choices":[{"message":` + answer + `}]}`)
		back := v.Seal(scope, "response", reply, nil, nil)
		if _, err := l.Append(t.Context(), fact(turn), append(blobs, back...)...); err != nil {
			t.Fatal(err)
		}
		all = append(all, kept{body, blobs[0].Content}, kept{reply, back[0].Content})
		raw += len(body) + len(reply)
		stored += len(blobs[0].data) + len(back[0].data)
		messages = append(messages, answer, message("user", 200, uint64(2000+turn)))
	}
	if stored*40 > raw {
		t.Errorf("%d bytes of requests and answers take %d: parts are stored again", raw, stored)
	}
	l.Close()
	r, err := OpenReader(c.Dir, c.Keys)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i, k := range all {
		got, err := r.Vault().Open(t.Context(), k.c)
		if err != nil || !bytes.Equal(got.Body, k.body) {
			t.Fatalf("content %d is not given back as it was: %v", i, err)
		}
		if i%2 == 0 && fmt.Sprint(got.Names) != "[user alice@example.com]" {
			t.Fatalf("names %q", got.Names)
		}
	}
	sealed, err := OpenReader(c.Dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	if _, err := sealed.Vault().Open(t.Context(), all[0].c); !errors.Is(err, ErrSealed) {
		t.Fatalf("content opened without keys: %v", err)
	}
}

func TestTextIsSharedOnlyWhenMany(t *testing.T) {
	l := open(t, config(t))
	v := l.Vault()
	app, _ := v.AppScope(t.Context(), "default", "support")
	system := message("system", 2000, 7)
	shared := 0
	for i := range sharedAfter + 5 {
		scope, err := v.NewScope(app)
		if err != nil {
			t.Fatal(err)
		}
		body, layout := chat(`[]`, system, message("user", 100, uint64(i)))
		blobs := v.Seal(scope, "request", body, layout, nil)
		if len(blobs) > 1 {
			shared++
			if i+1 != sharedAfter {
				t.Errorf("the system prompt became shared after %d scopes, not %d", i+1, sharedAfter)
			}
		}
		if _, err := l.Append(t.Context(), fact(i), blobs...); err != nil {
			t.Fatal(err)
		}
		if got, err := v.Open(t.Context(), blobs[0].Content); err != nil || !bytes.Equal(got.Body, body) {
			t.Fatalf("request %d: %v", i, err)
		}
		if i >= sharedAfter && len(blobs[0].data) > 400 {
			t.Errorf("request %d takes %d bytes, although its prompt is shared", i, len(blobs[0].data))
		}
	}
	if shared != 1 {
		t.Errorf("the prompt was shared %d times", shared)
	}
}

// TestSealedBlobsDoNotMove checks that a blob opens only in its own place.
func TestSealedBlobsDoNotMove(t *testing.T) {
	l := open(t, config(t))
	v := l.Vault()
	app, _ := v.AppScope(t.Context(), "default", "a")
	other, _ := v.AppScope(t.Context(), "default", "b")
	b := v.Seal(app, "request", []byte(`{"x":1}`), nil, nil)[0]
	if _, err := openSealed(app, b.Content.Blob, b.data); err != nil {
		t.Fatal(err)
	}
	if _, err := openSealed(app, b.Content.Blob+1, b.data); err == nil {
		t.Error("a blob opened under another number")
	}
	if _, err := openSealed(other, b.Content.Blob, b.data); err == nil {
		t.Error("a blob opened in another scope")
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(appendRecord(nil, []byte("hello"), []op{{0, 0, 3}, {4, 0, 2}}, []string{"user", "a"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(9, b)
		if err != nil {
			return
		}
		n := int64(0)
		for _, s := range r.steps {
			if s.at != n || s.blob >= 9 {
				t.Fatalf("step %+v", s)
			}
			n += s.n
		}
		if n != r.size {
			t.Fatalf("steps give %d bytes of %d", n, r.size)
		}
	})
}

// TestUnrecordedScopesLeaveNothing: while nothing can be recorded, calls must not fill memory with keys.
func TestUnrecordedScopesLeaveNothing(t *testing.T) {
	l := open(t, config(t))
	v := l.Vault()
	app, err := v.AppScope(t.Context(), "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * maxScopes {
		if _, err := v.NewScope(app); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(v.byID); n > 1 {
		t.Errorf("%d scopes that were never recorded are remembered", n)
	}
	for i := range maxScopes + 10 {
		_, err = v.AppScope(t.Context(), "default", fmt.Sprint("app", i))
	}
	if err == nil || len(v.byName) > maxScopes {
		t.Errorf("%d named scopes wait to be recorded (%v)", len(v.byName), err)
	}
}
