package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead"
)

func TestCanonical(t *testing.T) {
	same := [][]string{
		{`{"b":[1,2],"a":{"d":0,"c":"x"}}`, "{ \"a\" : {\"c\":\"\\u0078\",\n\"d\":0.0},\t\"b\":[1.0,20e-1] }"},
		{`"é/\n"`, `"\u00e9\/\u000A"`},
		{`"😀"`, `"\ud83d\ude00"`},
		{`"\ud83d"`, `"\uD83D"`},
		{`[0]`, `[-0]`, `[0.000]`, `[0e9]`, `[-0.0E-5]`},
		{`[100]`, `[1e2]`, `[1E+02]`, `[100.00]`, `[0.1e3]`},
		{`[0.001]`, `[1e-3]`, `[10e-4]`},
		{`[1e400]`, `[10e399]`},
		{`[123456789012345678901234567890]`, `[123456789012345678901234567890.0]`, `[1.2345678901234567890123456789e29]`},
		{`{}`, ` { } `}, {`[]`, `[ ]`}, {`{"":{}}`, `{ "" : { } }`},
		{`{"a":1,"b":{"a":[],"z":2},"c":3}`, `{"c":3,"b":{"z":2,"a":[]},"\u0061":1}`},
	}
	seen := map[string]string{}
	for _, group := range same {
		var first string
		for i, s := range group {
			if err := Check([]byte(s), Limits{}); err != nil {
				t.Fatal(err)
			}
			got := string(AppendCanonical([]byte("x"), Root([]byte(s))))[1:]
			if i == 0 {
				first = got
				if other, ok := seen[got]; ok {
					t.Errorf("%s and %s are different but have the same form", other, s)
				}
				seen[got] = s
			}
			if got != first {
				t.Errorf("%s becomes %s, but %s becomes %s", s, got, group[0], first)
			}
		}
	}
	different := []string{`[9007199254740993]`, `[9007199254740992]`, `[-1]`, `[1]`, `["1"]`, `[true]`, `[null]`, `["\ud800"]`,
		`["\ud801"]`, `["\ufffd"]`, `[[]]`, `[{}]`, `[1,2]`, `[2,1]`, `[12]`, `[1e99999999999]`, `[1e99999999998]`, `[10]`, `[0.1]`}
	forms := map[string]string{}
	for _, s := range different {
		got := string(AppendCanonical(nil, Root([]byte(s))))
		if other, ok := forms[got]; ok {
			t.Errorf("%s and %s have the same form %s", s, other, got)
		}
		forms[got] = s
	}
}

func TestAppendQuote(t *testing.T) {
	for _, s := range []string{"", "plain", "a\"b\\c/d", "\x00\x1f\b\f\n\r\t\x7f", "é日😀\u2028", "bad \xff\xc0 bytes", "end\xe2"} {
		got := AppendQuote(nil, s)
		var back string
		if err := json.Unmarshal(got, &back); err != nil || !utf8.Valid(got) {
			t.Errorf("%q is quoted as %s: %v", s, got, err)
		}
		if want := strings.ToValidUTF8(s, "\uFFFD"); len(back) != len(string([]rune(s))) || utf8.ValidString(s) && back != want {
			t.Errorf("%q comes back as %q", s, back)
		}
	}
}

func TestApply(t *testing.T) {
	at := func(start, end int, with string) Splice {
		return Splice{fairlead.Span{Start: start, End: end}, []byte(with)}
	}
	tests := []struct {
		name, want string
		edits      []Splice
	}{
		{"none", "0123456789", nil},
		{"replace and insert", "0ab3456<>789", []Splice{at(1, 3, "ab"), at(7, 7, "<>")}},
		{"any order", "0ab3456<>789", []Splice{at(7, 7, "<>"), at(1, 3, "ab")}},
		{"both ends", "A12345678Z", []Splice{at(0, 1, "A"), at(9, 10, "Z")}},
		{"overlapping", "0XY89", []Splice{at(1, 6, "X"), at(4, 8, "Y")}},
		{"one within another", "0XY789", []Splice{at(1, 7, "X"), at(3, 4, "Y")}},
		{"two insertions", "01ab23456789", []Splice{at(2, 2, "a"), at(2, 2, "b")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Apply([]byte(">"), []byte("0123456789"), tt.edits...); string(got) != ">"+tt.want {
				t.Errorf("got %s, want >%s", got, tt.want)
			}
		})
	}
}
