package text

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFold(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"lower case", "Pay Bob NOW", "pay bob now"},
		{"white space", "a \t\r\n b\n\nc", "a b c"},
		{"other white space", "a\u00a0\u3000b\u2003c\u0085d", "a b c d"},
		{"control bytes", "a\x00b\x1bc\x7f", "abc"},
		{"zero width", "pay\u200bp\u200dal\ufeff", "paypal"},
		{"soft hyphen and bidi", "trans\u00adfer \u202ecod\u202ce", "transfer code"},
		{"variation selector", "a\ufe0fb\U000e0101c", "abc"},
		{"tags", "hi\U000e0073\U000e0065\U000e006e\U000e0064\U000e007f", "hisend"},
		{"full width", "ＰＡＹ　１２", "pay 12"},
		{"mathematical", "𝐏𝐚𝐲 𝒷ℴ𝒷", "pay bob"},
		{"ligature", "ﬁle oﬃce", "file office"},
		{"composes", "cafe\u0301 café", "café café"},
		{"composes over hidden", "cafe\u200d\u0301", "café"},
		{"case folding", "STRASSE straße ΣΑΣ σας İ", "strasse strasse σασ σας i"},
		{"quotes and dashes", "“it’s” — a–b", "\"it's\" - a-b"},
		{"mixed cyrillic", "pаypаl.com Аpple", "paypal.com apple"},
		{"all look-alikes", "сосо СОСО", "coco coco"},
		{"russian stays", "Привет, вера", "привет, вера"},
		{"greek in latin", "Ηello mοney", "hello money"},
		{"small capitals", "sᴇɴᴅ ɪᴛ", "send it"},
		{"squared", "🅰🅱 🇦🇧", "ab ab"},
		{"invalid", "a\xffb\xc3", "a\ufffdb\ufffd"},
		{"ellipsis and fraction", "wait… ½", "wait... 1/2"},
		{"cjk", "你好　世界", "你好 世界"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Fold(c.in)
			want := c.want
			if c.name == "case folding" {
				want = strings.ReplaceAll(want, "ς", "σ")
			}
			if f.Text != want {
				t.Errorf("Fold(%q) = %q, want %q", c.in, f.Text, want)
			}
			if got := string(AppendFold([]byte("x "), c.in)); got != "x "+want {
				t.Errorf("AppendFold(%q) = %q", c.in, got)
			}
			if again := Fold(f.Text).Text; again != f.Text {
				t.Errorf("folding again gives %q from %q", again, f.Text)
			}
			if s, e := f.Origin(0, len(f.Text)); len(f.Text) > 0 && (s > e || e > len(c.in)) {
				t.Errorf("Origin of all = %d, %d of %d", s, e, len(c.in))
			}
		})
	}
}

// shards are what random texts are made of: each folds on a path of its own.
var shards = []string{"a", "B", "z9", " ", "  ", "\n", "é", "e\u0301", "\u0301", "ﬃ", "Ａ", "\u3000", "\u200b", "\u00ad", "\U000e0041",
	"\U000e0001", "½", "а", "вера", "Σ", "ß", "\xff", "\xc3", "你", "…", "\x00", "½ﬁ", "\u1100\u1161", "𝐀", "ﷺ", "“", "ɴ", "İ", "0", "."}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(24) {
		b.WriteString(shards[r.IntN(len(shards))])
	}
	return b.String()
}

// TestOrigin maps spans of folded random texts back and folds what stands there: the folded text must be in it.
func TestOrigin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		checkOrigin(t, randomText(r), r)
	}
}

func checkOrigin(t *testing.T, s string, r *rand.Rand) {
	t.Helper()
	f := Fold(s)
	if !utf8.ValidString(f.Text) {
		t.Fatalf("Fold(%q) = %q is not valid", s, f.Text)
	}
	if got := string(AppendFold(nil, s)); got != f.Text {
		t.Fatalf("AppendFold(%q) = %q, Fold gives %q", s, got, f.Text)
	}
	var starts []int
	for i := range f.Text {
		starts = append(starts, i)
	}
	if starts = append(starts, len(f.Text)); len(starts) < 2 {
		return
	}
	last := 0
	for range 4 {
		a := r.IntN(len(starts) - 1)
		b := a + 1 + r.IntN(len(starts)-a-1)
		i, j := starts[a], starts[b]
		start, end := f.Origin(i, j)
		if start < 0 || end > len(s) || start >= end {
			t.Fatalf("%q: Origin(%d, %d) = %d, %d of %q", f.Text, i, j, start, end, s)
		}
		// Cut off from its word a look-alike can fold otherwise, so that is left to the table.
		got, want := Fold(s[start:end]).Text, f.Text[i:j]
		if !strings.ContainsAny(s, "аверΣ") && !strings.Contains(got, want) {
			t.Fatalf("%q: %q comes from %q, which folds to %q", s, want, s[start:end], got)
		}
	}
	for _, i := range starts[:len(starts)-1] {
		start, end := f.Origin(i, i+1)
		if start < last || end < start {
			t.Fatalf("%q: Origin(%d) = %d, %d after %d", s, i, start, end, last)
		}
		last = start
	}
}

func FuzzFold(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, p := range shards {
		f.Add(p)
	}
	for range 20 {
		f.Add(randomText(r))
	}
	f.Fuzz(func(t *testing.T, s string) {
		f := Fold(s)
		if !utf8.ValidString(f.Text) {
			t.Fatalf("%q is not valid", f.Text)
		}
		if got := string(AppendFold(nil, s)); got != f.Text {
			t.Fatalf("AppendFold gives %q, Fold %q", got, f.Text)
		}
		last := 0
		for i := range f.Text {
			start, end := f.Origin(i, i+1)
			if start < last || end < start || end > len(s) {
				t.Fatalf("Origin(%d) = %d, %d after %d", i, start, end, last)
			}
			last = start
		}
	})
}

var prose = strings.Repeat("The quarterly report is attached; please review it before Friday. Totals came to 1,204 units in the North region.\n", 600)

func BenchmarkFold(b *testing.B) {
	for _, c := range []struct{ name, s string }{
		{"ascii", prose},
		{"blank lines", strings.ReplaceAll(prose, "\n", "\n\n")},
		{"one accent", "é" + prose},
		{"german", strings.Repeat("Bitte prüfen Sie die Überweisung für Müller und schließen Sie sie ab. ", 900)},
		{"russian", strings.Repeat("Отправьте отчёт до пятницы и проверьте итоги. ", 900)},
		{"chinese", strings.Repeat("请在星期五之前审阅附件中的季度报告。", 1200)},
		{"full width", strings.Repeat("Ｔｈｅ　ｒｅｐｏｒｔ　", 900)},
		{"hidden", strings.Repeat("a\u200bb", 16000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.s)))
			b.ReportAllocs()
			for b.Loop() {
				Fold(c.s)
			}
		})
	}
}
