package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead"
)

// newTestKey makes a key and the fact that created it.
func newTestKey(app string, expires time.Time) (Secret, Key, fairlead.Fact) {
	s, k := NewKey()
	k.App, k.Expires = app, expires
	return s, k, fairlead.Fact{ID: fairlead.ID{Boot: "aaaaaaaaaaaaa", N: 7}, Tenant: fairlead.DefaultTenant,
		Kind: fairlead.KindKeyCreated, Time: time.Now().UTC(), Attrs: k.CreatedAttrs()}
}

func revocation(k Key) fairlead.Fact {
	return fairlead.Fact{ID: fairlead.ID{Boot: "aaaaaaaaaaaaa", N: 8}, Kind: fairlead.KindKeyRevoked, Time: time.Now().UTC(),
		Attrs: k.RevokedAttrs()}
}

func mustApply(t testing.TB, r *Ring, facts ...fairlead.Fact) {
	t.Helper()
	for _, f := range facts {
		if err := r.Apply(f); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeyForm(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		s, k := NewKey()
		text := s.Reveal()
		if len(text) != 64 || !strings.HasPrefix(text, "flk_"+k.ID+"_") || !Looks(text) {
			t.Fatalf("key %q with id %q has the wrong form", text, k.ID)
		}
		if strings.Trim(text[15:], base62) != "" {
			t.Fatalf("key %q holds something outside base62", text)
		}
		if seen[text] {
			t.Fatal("the same key twice")
		}
		seen[text] = true
	}
}

// TestKeyVector pins the text form: keys handed out once have to work for ever. The values were computed with Python's
// zlib and hashlib.
func TestKeyVector(t *testing.T) {
	const text = "flk_abcdefghij_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg"
	sum := checksum([]byte(text))
	if got, want := string(sum[:]), "3jBKDB"; got != want {
		t.Errorf("checksum = %q, want %q", got, want)
	}
	id, hash, err := parseKey(text + string(sum[:]))
	if err != nil || id != "abcdefghij" {
		t.Fatalf("parseKey: id %q, %v", id, err)
	}
	if got, want := fmt.Sprintf("%x", hash), "9713ef36d8aa8632e7e057a182b171cc4731badf81cab65f74d372bb8eba1633"; got != want {
		t.Errorf("hash = %s, want %s", got, want)
	}
}

func TestLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Ring
		live, _, f1 := newTestKey("billing", time.Time{})
		brief, _, f2 := newTestKey("billing", time.Now().Add(time.Hour))
		gone, gk, f3 := newTestKey("search", time.Time{})
		other, _ := NewKey()
		mustApply(t, &r, f1, f2, f3, revocation(gk), f1 /* again */)

		typo := []byte(live.Reveal())
		if typo[30]++; !isBase62(typo[30]) {
			typo[30] = 'a'
		}
		// The right id with another secret, and a checksum that fits: a guess.
		guess := []byte(live.Reveal()[:15] + other.Reveal()[15:58])
		sum := checksum(guess)
		guess = append(guess, sum[:]...)

		for _, c := range []struct {
			name, secret string
			want         error
		}{
			{"live", live.Reveal(), nil},
			{"not yet expired", brief.Reveal(), nil},
			{"revoked", gone.Reveal(), ErrRevokedKey},
			{"never made", other.Reveal(), ErrUnknownKey},
			{"guessed secret of a known id", string(guess), ErrUnknownKey},
			{"typo", string(typo), ErrMalformedKey},
			{"cut short", live.Reveal()[:63], ErrMalformedKey},
			{"too long", live.Reveal() + "x", ErrMalformedKey},
			{"empty", "", ErrMalformedKey},
			{"prefix only", "flk_", ErrMalformedKey},
		} {
			k, err := r.Lookup(NewSecret(c.secret))
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%s: error %v, want %v", c.name, err, c.want)
			}
			if err == nil && (k.App != "billing" || k.Tenant != fairlead.DefaultTenant) {
				t.Errorf("%s: key %+v", c.name, k)
			}
			if err != nil && len(c.secret) > 20 && strings.Contains(err.Error(), c.secret[15:30]) {
				t.Errorf("%s: the error repeats the secret: %v", c.name, err)
			}
		}

		time.Sleep(time.Hour)
		if _, err := r.Lookup(brief); !errors.Is(err, ErrExpiredKey) {
			t.Errorf("after its date: %v, want %v", err, ErrExpiredKey)
		}
		if _, err := r.Lookup(live); err != nil {
			t.Errorf("a key without a date after an hour: %v", err)
		}
		if l := r.List(); len(l) != 3 || l[2].App != "search" || l[2].Revoked.IsZero() {
			t.Errorf("List = %+v", l)
		}
	})
}

func TestRevocationBeforeCreation(t *testing.T) {
	var r Ring
	s, k, f := newTestKey("a", time.Time{})
	mustApply(t, &r, revocation(k))
	if len(r.List()) != 0 {
		t.Error("a key that was never made is listed")
	}
	if _, err := r.Lookup(s); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("before it is made: %v", err)
	}
	mustApply(t, &r, f)
	if _, err := r.Lookup(s); !errors.Is(err, ErrRevokedKey) {
		t.Errorf("made after its revocation: %v, want revoked", err)
	}
}

func TestApplyRejects(t *testing.T) {
	_, k, _ := newTestKey("a", time.Time{})
	change := func(name string, v any) fairlead.Fact {
		f := fairlead.Fact{Kind: fairlead.KindKeyCreated}
		for _, a := range k.CreatedAttrs() {
			if a.Name != name {
				f.Attrs = append(f.Attrs, a)
			}
		}
		f.Attrs = append(f.Attrs, fairlead.Attr{Name: name, Value: v})
		return f
	}
	_, k2 := NewKey()
	k2.ID, k2.App = k.ID, "b"
	var r Ring
	mustApply(t, &r, change("x", "y"))
	for name, f := range map[string]fairlead.Fact{
		"id":           change(AttrKeyID, "ABC"),
		"no app":       change(AttrKeyApp, ""),
		"short hash":   change(AttrKeyHash, "00"),
		"long hash":    change(AttrKeyHash, strings.Repeat("0", 66)),
		"hash not hex": change(AttrKeyHash, strings.Repeat("g", 64)),
		"date":         change(AttrKeyExpires, "tomorrow"),
		"date type":    change(AttrKeyExpires, int64(5)),
		"same id":      {Kind: fairlead.KindKeyCreated, Attrs: k2.CreatedAttrs()},
		"revoked what": {Kind: fairlead.KindKeyRevoked},
	} {
		if err := r.Apply(f); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if l := r.List(); len(l) != 1 || l[0].App != "a" || !l[0].Revoked.IsZero() {
		t.Errorf("rejected facts changed the ring: %+v", l)
	}
}

func TestFactRoundTrip(t *testing.T) {
	_, k, _ := newTestKey("a", time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	k.Name = "laptop"
	f := fairlead.Fact{Kind: fairlead.KindKeyCreated, Attrs: k.CreatedAttrs()}
	got, err := keyFromFact(&f)
	if err != nil || *got != k {
		t.Errorf("got %+v, %v; want %+v", got, err, k)
	}
}

func TestRingConcurrency(t *testing.T) {
	var r Ring
	s, k, f := newTestKey("a", time.Time{})
	mustApply(t, &r, f)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			revoked := false
			for range 200 {
				_, err := r.Lookup(s)
				if revoked && err == nil {
					t.Error("a revoked key came back to life")
				}
				revoked = errors.Is(err, ErrRevokedKey)
				r.List()
			}
		})
		wg.Go(func() {
			for range 50 {
				_, _, f := newTestKey("b", time.Time{})
				r.Apply(f)
			}
			r.Apply(revocation(k))
		})
	}
	wg.Wait()
	if n := len(r.List()); n != 401 {
		t.Errorf("%d keys, want 401", n)
	}
}

func TestFind(t *testing.T) {
	s, _ := NewKey()
	key := s.Reveal()
	for _, c := range []struct {
		name, in   string
		start, end int
	}{
		{"whole", key, 0, 64},
		{"in JSON", `{"k":"` + key + `"}`, 6, 70},
		{"after a false start", "flk_flk_" + key, 8, 72},
		{"torn, 22 of the secret left", key[:37] + `"`, 0, 37},
		{"torn, too little left to matter", key[:36] + `"`, 0, 0},
		{"run on", key + "zzz", 0, 64},
		{"prefix in prose", "keys start with flk_ and flk_abcdefghij_", 0, 0},
		{"upper case id", strings.ToUpper(key[:14]) + key[14:], 0, 0},
		{"nothing", "", 0, 0},
	} {
		span, ok := Find([]byte(c.in))
		if ok != (c.end > 0) || span != (fairlead.Span{Start: c.start, End: c.end}) {
			t.Errorf("%s: %v, %v, want [%d,%d)", c.name, span, ok, c.start, c.end)
		}
		if hasKey(c.in) != ok {
			t.Errorf("%s: hasKey differs from Find", c.name)
		}
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	const clear = "flk-top-secret"
	s := NewSecret(clear)
	type hidden struct{ s Secret }
	type shown struct{ S Secret }
	var out strings.Builder
	for _, v := range []any{s, &s, hidden{s}, &hidden{s}, shown{s}, &shown{s}, []Secret{s}, map[string]Secret{"a": s},
		Credential{Secret: s}, hidden{}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
	}
	if p, err := NewPseudonyms([]byte(strings.Repeat("flk-top-secret..", 2))); err != nil {
		t.Fatal(err)
	} else {
		fmt.Fprintf(&out, "%v %+v %#v", p, p, Config{Pseudonyms: p})
	}
	if text := out.String(); strings.Contains(text, clear) || strings.Contains(text, fmt.Sprintf("%x", clear)) ||
		!strings.Contains(text, redacted) {
		t.Errorf("printed: %s", text)
	}
	if s.Reveal() != clear {
		t.Error("Reveal does not give the text")
	}
}

func FuzzFind(f *testing.F) {
	s, _ := NewKey()
	f.Add([]byte(s.Reveal()))
	f.Add([]byte("flk_flk_" + s.Reveal()[:40]))
	f.Add([]byte("x flk_aaaaaaaaaa_0000000000000000000000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		span, ok := Find(b)
		if ok && (span.Start < 0 || span.End > len(b) || span.Len() < 37 || span.Len() > 64) {
			t.Fatalf("span %v of %d bytes", span, len(b))
		}
		if ok != hasKey(string(b)) {
			t.Fatal("Find and hasKey differ")
		}
		// Cutting the findings out comes to an end, and then nothing is left.
		for ; ok; span, ok = Find(b) {
			b = append(b[:span.Start:span.Start], append([]byte{' '}, b[span.End:]...)...)
		}
		if id, _, err := parseKey(string(b)); err == nil {
			t.Fatalf("key %s not found by Find", id)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	for name, in := range map[string]string{
		"prose":   strings.Repeat("The quick brown fox jumps over the lazy dog. ", 1<<20/45),
		"hostile": strings.Repeat("flk_aaaaaaaaaa_000000000000000000000.", 1<<20/37),
	} {
		b.Run(name, func(b *testing.B) {
			data := []byte(in)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				Find(data)
			}
		})
	}
}
