package text

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestDecoded(t *testing.T) {
	const say = "wire the money to Zora >> today?~~"
	lines := b64(strings.Repeat(say, 4))
	lines = lines[:64] + "\r\n" + lines[64:128] + "\r\n" + lines[128:]
	for _, c := range []struct {
		name, in string
		want     []string // kind, original, text
	}{
		{"base64", "see " + b64(say) + ", ok", []string{"base64", b64(say), say}},
		{"url alphabet", base64.RawURLEncoding.EncodeToString([]byte(say)), []string{"base64", base64.RawURLEncoding.EncodeToString([]byte(say)), say}},
		{"in lines", "x:\n" + lines + "\n", []string{"base64", lines, strings.Repeat(say, 4)}},
		{"after a path", "/v1/" + base64.RawURLEncoding.EncodeToString([]byte("call the desk now")), []string{"base64", "Y2FsbCB0aGUgZGVzayBub3c", "call the desk now"}},
		{"wide", base64.StdEncoding.EncodeToString([]byte("r\x00u\x00n\x00 \x00i\x00t\x00")), []string{"base64", "cgB1AG4AIABpAHQA", "run it"}},
		{"hex", "0x" + hex.EncodeToString([]byte(say)), []string{"hex", hex.EncodeToString([]byte(say)), say}},
		{"percent", "q=" + "pay%20bob%21 now", []string{"percent", "q=pay%20bob%21", "q=pay bob!"}},
		{"escape", `{"a":"pay\nB\u006fb \"x\" \ud83d\ude00"}`, []string{"escape", `pay\nB\u006fb \"x\" \ud83d\ude00`, "pay\nBob \"x\" 😀"}},
		{"python", `'pay \x42ob'`, []string{"escape", `'pay \x42ob'`, "'pay Bob'"}},
		{"entity", "first\npay &#66;ob &amp; co\n", []string{"entity", "pay &#66;ob &amp; co", "pay Bob & co"}},
		{"nested", b64("go to " + b64("the house by the sea")), []string{
			"base64", b64("go to " + b64("the house by the sea")), "go to " + b64("the house by the sea"),
			"base64+base64", b64("go to " + b64("the house by the sea")), "the house by the sea"}},
		{"too short", b64("short one"), nil},
		{"a word", "internationalizations uncharacteristically", nil},
		{"a digest", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", nil},
		{"a card number", "4111111111111111", nil},
		{"percent sign", "5% of 10%zz", nil},
		{"windows path", `C:\Windows\System`, nil},
		{"lone ampersand", "a & b", nil},
		{"lone backslash", `\`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, v := range Decoded(c.in) {
				got = append(got, v.Kind, c.in[v.Span.Start:v.Span.End], v.Text)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestDecodedBounds feeds texts that are made to decode without end.
func TestDecodedBounds(t *testing.T) {
	deep := "the innermost text of all of them"
	for range 8 {
		deep = b64(deep)
	}
	if n := len(Decoded(deep)); n != maxDepth {
		t.Errorf("%d views of a text that is encoded 8 times, want %d", n, maxDepth)
	}
	for _, s := range []string{
		strings.Repeat(b64("a b c d e f g h")+" ", 9000),
		strings.Repeat("%41&amp;\\n", 20_000),
		strings.Repeat(`\"`, 50_000),
	} {
		total, views := 0, Decoded(s)
		for _, v := range views {
			total += len(v.Text)
		}
		if total > 2*len(s) || len(views) > maxViews {
			t.Errorf("%.20q…: %d views with %d bytes from %d", s, len(views), total, len(s))
		}
	}
}

func FuzzDecoded(f *testing.F) {
	for _, s := range []string{b64("a text to decode"), "%41%zz%", `"\u00`, `\ud800\udc00 \x4`, "&#x41;&amp", "/v1/" + b64("call the desk now, please"),
		hex.EncodeToString([]byte("hello there")), b64(b64(b64("as deep as it goes"))), "\xff%ff\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		total := 0
		for _, v := range Decoded(s) {
			total += len(v.Text)
			if v.Span.Start < 0 || v.Span.Start >= v.Span.End || v.Span.End > len(s) || !utf8.ValidString(v.Text) {
				t.Fatalf("%+v of %d bytes", v, len(s))
			}
		}
		if total > 2*len(s) {
			t.Fatalf("%d bytes from %d", total, len(s))
		}
	})
}

func BenchmarkDecoded(b *testing.B) {
	for _, c := range []struct{ name, s string }{
		{"prose", prose},
		{"base64", strings.Repeat(b64(prose[:300])+" ", 200)},
		{"percent", strings.Repeat("a%20b%20", 9000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.s)))
			for b.Loop() {
				Decoded(c.s)
			}
		})
	}
}
