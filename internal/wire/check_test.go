package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestCheck(t *testing.T) {
	many := func(n int, last string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"n%d":0,`, i)
		}
		return "{" + b.String() + last + ":0}"
	}
	tests := []struct {
		name, src, fault string // fault is part of the message; "" if the document is fine
	}{
		{"scalars", ` [0,-0,1.5e-7,1E+9,true,false,null,""] `, ""},
		{"escapes", `"\"\\\/\b\f\n\r\t\u00e9\uD83d\uDE00"`, ""},
		{"half a surrogate pair", `"\ud83d"`, ""},
		{"not ASCII", `{"é":"日本語 😀 and more text to pass eight bytes"}`, ""},
		{"same name in two objects", `[{"a":1},{"a":{"a":2}}]`, ""},
		{"large object after a nested large one", `{"x":` + many(40, `"y"`) + `,"y":` + many(40, `"x"`) + `}`, ""},
		{"nothing", " ", "ends where a value"},
		{"two values", `1 2`, "more after"},
		{"rubbish after", `{}x`, "more after"},
		{"unclosed", `{"a":[1`, "ends inside"},
		{"comma at the end", `[1,]`, "value is expected"},
		{"comma at the end of an object", `{"a":1,}`, "quotation marks"},
		{"no comma", `[1 2]`, "comma or closing bracket"},
		{"wrong bracket", `{"a":1]`, "comma or closing brace"},
		{"bare name", `{a:1}`, "quotation marks"},
		{"no colon", `{"a" 1}`, "colon"},
		{"literal", `nul`, "value is expected"},
		{"NaN", `NaN`, "value is expected"},
		{"leading zero", `01`, "zero"},
		{"plus", `+1`, "value is expected"},
		{"bare minus", `-`, "digit"},
		{"bare point", `1.`, "decimal point"},
		{"bare exponent", `1e+`, "exponent"},
		{"comment", `/*x*/1`, "value is expected"},
		{"byte order mark", "\xEF\xBB\xBF{}", "value is expected"},
		{"unclosed string", `"abcdefghijklmnop`, "no end"},
		{"raw line feed", "\"abcdefgh\n\"", "control character"},
		{"NUL", "\"\x00\"", "control character"},
		{"unknown escape", `"\x41"`, "escape"},
		{"short unicode escape", `"\u12"`, "escape"},
		{"invalid UTF-8", "\"abc\xff\"", "UTF-8"},
		{"overlong UTF-8", "\"\xc0\xaf\"", "UTF-8"},
		{"surrogate in UTF-8", "\"\xed\xa0\x80\"", "UTF-8"},
		{"twice", `{"model":"cheap","x":[{}],"model":"dear"}`, "same name"},
		{"twice, escaped", `{"model":1,"\u006dodel":2}`, "same name"},
		{"twice, escaped slash", `{"a/b":1,"a\/b":2}`, "same name"},
		{"twice by a reader that replaces halves", `{"\ud800":1,"\ufffd":2}`, "same name"},
		{"twice in a large object", many(500, `"n77"`), "same name"},
		{"twice at the edge", many(16, `"n15"`), "same name"},
		{"twice behind a nested object", `{"a":` + many(40, `"z"`) + `,"b":1,"a":2}`, "same name"},
		{"twice in a large object behind small ones", `[{},{"a":{}},` + many(40, `"n7"`) + `]`, "same name"},
		{"twice around a large object in a large one", many(40, `"x":`+many(40, `"y"`)+`,"n3"`), "same name"},
		{"twice, empty", `{"":1,"":2}`, "same name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check([]byte(tt.src), Limits{})
			var syntax *SyntaxError
			switch {
			case tt.fault == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.fault != "" && !errors.As(err, &syntax):
				t.Errorf("got %v, want an error that mentions %q", err, tt.fault)
			case tt.fault != "" && !strings.Contains(syntax.Msg, tt.fault):
				t.Errorf("got %q, want something that mentions %q", syntax.Msg, tt.fault)
			}
		})
	}
}

func TestCheckLimits(t *testing.T) {
	deep := strings.Repeat(`{"a":[`, 5000) + strings.Repeat(`]}`, 5000)
	if err := Check([]byte(deep), Limits{}); err == nil {
		t.Error("10,000 levels were accepted by default")
	}
	if err := Check([]byte(deep), Limits{Depth: 10_000}); err != nil {
		t.Errorf("10,000 levels were refused with a limit of 10,000: %v", err)
	}
	if got := AppendCanonical(nil, Root([]byte(deep))); string(got) != deep {
		t.Error("a deep document changed in canonical form")
	}
	if err := Check([]byte(`[{"a":1,"b":2},{"a":1,"b":2,"c":3}]`), Limits{Members: 2}); err == nil {
		t.Error("three members were accepted with a limit of two")
	}
	if err := Check([]byte(`[{"a":1,"b":2},{"c":1,"d":2}]`), Limits{Members: 2}); err != nil {
		t.Errorf("two members were refused with a limit of two: %v", err)
	}
}

// TestLinear gives documents that make a careless reader quadratic. Each is many MiB long and must be read within a
// time that only linear work can keep, on a slow machine too.
func TestLinear(t *testing.T) {
	const size = 8 << 20
	var names, afterLarge strings.Builder
	for i := range 99_000 {
		fmt.Fprintf(&names, `"k%d":0,`, i)
	}
	for range 100_000 {
		afterLarge.WriteString(`{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,"j":0,"k":0,"l":0,"m":0,"n":0,"o":0,"p":0,"q":0,"r":0},`)
	}
	tests := map[string]string{
		"brackets":         "[" + strings.Repeat("[],", size/3) + "0]",
		"backslashes":      `"` + strings.Repeat(`\\`, size/2) + `"`,
		"escaped quotes":   `"` + strings.Repeat(`\"`, size/2) + `"`,
		"deep with a tail": strings.Repeat(`{"b":0,"a":`, 999) + `"` + strings.Repeat("x", size) + `"` + strings.Repeat("}", 999),
		"many names":       "{" + names.String() + `"z":0}`,
		"large then small": "[{" + names.String() + `"z":0},` + afterLarge.String() + "0]",
		"long names":       `{"` + strings.Repeat(`\n`, size/4) + `a":0,"` + strings.Repeat(`\n`, size/4) + `b":0}`,
		"text":             `"` + strings.Repeat("日本", size/6) + `"`,
	}
	for name, src := range tests {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			b := []byte(src)
			if err := Check(b, Limits{}); err != nil {
				t.Fatal(err)
			}
			v := Root(b)
			for range v.Members() {
			}
			for range v.Elements() {
			}
			v.Text()
			AppendCanonical(nil, v)
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func TestCheckAllocations(t *testing.T) {
	src := chatRequest(30 << 10)
	v := Root(src)
	if n := testing.AllocsPerRun(100, func() {
		if Check(src, Limits{}) != nil {
			t.Error("refused")
		}
		for n, m := range v.Members() {
			if n.Equal("messages") {
				for e := range m.Elements() {
					e.Get("role")
				}
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// duplicates is a slow second opinion: whether an object of a valid document has a name twice.
func duplicates(src []byte) bool {
	d := json.NewDecoder(bytes.NewReader(src))
	type level struct {
		names map[string]bool // nil for an array
		value bool            // a value comes next, not a name
	}
	var stack []level
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return false
		}
		if err != nil {
			return false
		}
		if tok == json.Delim('}') || tok == json.Delim(']') {
			stack = stack[:len(stack)-1]
			continue
		}
		if n := len(stack); n > 0 && stack[n-1].names != nil {
			if s, ok := tok.(string); ok && !stack[n-1].value {
				if stack[n-1].names[s] {
					return true
				}
				stack[n-1].names[s] = true
				stack[n-1].value = true
				continue
			}
			stack[n-1].value = false
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{names: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, level{})
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.50e3,true,null,"\u00e9\ud83d\ude00\\"],"b":{"":{}}}`, `{"a":1,"\u0061":2}`,
		`{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,"j":0,"k":0,"l":0,"m":0,"n":0,"o":0,"p":0,"q":0,"a":0}`,
		"\"\xff\"", `"\ud800"`, `[1.0,1e0,-0.0,100,1e2,0.001]`, `[[[[]]]]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		want := json.Valid(src) && utf8.Valid(src) && !duplicates(src)
		err := Check(src, Limits{})
		if (err == nil) != want {
			if err == nil || !strings.Contains(err.Error(), "deeply") {
				t.Fatalf("got %v, want accepted=%v", err, want)
			}
		}
		if err != nil {
			return
		}
		v := Root(src)
		var plain any
		d := json.NewDecoder(bytes.NewReader(src))
		d.UseNumber()
		if err := d.Decode(&plain); err != nil {
			t.Fatal(err)
		}
		agree(t, v, plain)
		canonical := AppendCanonical(nil, v)
		if err := Check(canonical, Limits{}); err != nil {
			t.Fatalf("the canonical form %q is not accepted: %v", canonical, err)
		}
		if again := AppendCanonical(nil, Root(canonical)); !bytes.Equal(again, canonical) {
			t.Fatalf("the canonical form %q becomes %q", canonical, again)
		}
		if !bytes.Contains(bytes.ToLower(src), []byte(`\ud`)) { // encoding/json replaces surrogate halves
			other, err := json.Marshal(plain)
			if err != nil {
				t.Fatal(err)
			}
			if got := AppendCanonical(nil, Root(other)); !bytes.Equal(got, canonical) {
				t.Fatalf("%q and %q have different canonical forms %q and %q", src, other, canonical, got)
			}
		}
	})
}

// agree compares what a Value says with what encoding/json read.
func agree(t *testing.T, v Value, plain any) {
	t.Helper()
	switch p := plain.(type) {
	case map[string]any:
		n := 0
		for name, m := range v.Members() {
			n++
			if !name.Equal(name.String()) {
				t.Fatalf("name %q is not equal to itself", name)
			}
			agree(t, m, p[name.String()])
		}
		if n != len(p) || v.Kind() != '{' {
			t.Fatalf("%q has %d members, want %d", v.Raw(), n, len(p))
		}
	case []any:
		n := 0
		for e := range v.Elements() {
			agree(t, e, p[n])
			n++
		}
		if n != len(p) || v.Kind() != '[' {
			t.Fatalf("%q has %d elements, want %d", v.Raw(), n, len(p))
		}
	case string:
		if v.Text() != p || string(v.AppendText(nil)) != p {
			t.Fatalf("%q reads %q, want %q", v.Raw(), v.Text(), p)
		}
	case json.Number:
		n, ok := v.Int()
		if want, err := p.Int64(); ok != (err == nil) || ok && n != want || string(v.Raw()) != p.String() {
			t.Fatalf("%q reads %d %v, want %v", v.Raw(), n, ok, p)
		}
	case bool:
		if v.Bool() != p || v.Kind() != 't' && v.Kind() != 'f' {
			t.Fatalf("%q is not %v", v.Raw(), p)
		}
	case nil:
		if v.Kind() != 'n' {
			t.Fatalf("%q is not null", v.Raw())
		}
	}
}

// chatRequest makes a request of about size bytes: tools, a few messages and long text with escapes.
func chatRequest(size int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"model":"gpt-4.1","stream":true,"temperature":0.2,"tools":[`)
	for i := range 12 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"type":"function","function":{"name":"tool_%d","description":"Looks something up, by its name.","parameters":{"type":"object","properties":{"path":{"type":"string"},"depth":{"type":"integer","minimum":0}},"required":["path"]}}}`, i)
	}
	b.WriteString(`],"messages":[{"role":"system","content":"You are helpful."}`)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `,{"role":"user","content":%q}`, strings.Repeat(fmt.Sprintf("Line %d of the \"document\".\nSome more text that goes on for a while, with a naïve word.\n", i), 12))
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func BenchmarkCheck(b *testing.B) {
	for _, size := range []int{1 << 10, 30 << 10, 300 << 10} {
		src := chatRequest(size)
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				if err := Check(src, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSkip(b *testing.B) {
	src := chatRequest(30 << 10)
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		for range Root(src).Members() {
		}
	}
}
