package identity

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestParseBaggage(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []string
		want string // key=value, joined by |
		bad  string // part of the error
	}{
		{"none", nil, "", ""},
		{"one", []string{"user.id=alice"}, "user.id=alice", ""},
		{"spaces and properties", []string{"a = 1 ; p ; q = 2 ,\tb=2"}, "a=1|b=2", ""},
		{"two lines", []string{"a=1", "b=2"}, "a=1|b=2", ""},
		{"empty members", []string{",a=1,, ,b=2,"}, "a=1|b=2", ""},
		{"empty value", []string{"a="}, "a=", ""},
		{"equals in the value", []string{"a=b=c"}, "a=b=c", ""},
		{"percent", []string{"a=%C3%84%20%2c"}, "a=Ä ,", ""},
		{"not UTF-8", []string{"a=%FFx"}, "a=\uFFFDx", ""},
		{"half a percent", []string{"a=%4"}, "", "two hex digits"},
		{"odd percent", []string{"a=%zz"}, "", "two hex digits"},
		{"no equals", []string{"a"}, "", "no name"},
		{"no name", []string{"=1"}, "", "no name"},
		{"name with a space", []string{"a b=1"}, "", "no name"},
		{"quote", []string{`a="x"`}, "", "percent-encoded"},
		{"space within", []string{"a=x y"}, "", "percent-encoded"},
		{"raw UTF-8", []string{"a=Ä"}, "", "percent-encoded"},
		{"bad property", []string{"a=1;=2"}, "", "property"},
		{"64 members", []string{strings.Repeat("a=1,", 64)}, strings.Repeat("a=1|", 63) + "a=1", ""},
		{"65 members", []string{strings.Repeat("a=1,", 65)}, "", "64 members"},
		{"8 KiB", []string{"a=" + strings.Repeat("x", 8190)}, "a=" + strings.Repeat("x", 8190), ""},
		{"over 8 KiB", []string{"a=" + strings.Repeat("x", 8191)}, "", "8192 bytes"},
		{"over 8 KiB in lines", []string{"a=" + strings.Repeat("x", 5000), "b=" + strings.Repeat("x", 5000)}, "", "8192 bytes"},
	} {
		var got []string
		err := parseBaggage(c.in, func(k, v string) { got = append(got, k+"="+v) })
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s: error %v, want one with %q", c.name, err, c.bad)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if diff := cmp.Diff(c.want, strings.Join(got, "|")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestParseTraceParent(t *testing.T) {
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, c := range []struct {
		in      string
		ok      bool
		sampled bool
	}{
		{"00-" + trace + "-" + parent + "-01", true, true},
		{"00-" + trace + "-" + parent + "-00", true, false},
		{"00-" + trace + "-" + parent + "-02", true, false},
		{"01-" + trace + "-" + parent + "-01", true, true},
		{"cc-" + trace + "-" + parent + "-01-what-the-future-brings", true, true},
		{"cc-" + trace + "-" + parent + "-01.what", false, false},
		{"00-" + trace + "-" + parent + "-01-x", false, false},
		{"ff-" + trace + "-" + parent + "-01", false, false},
		{"00-" + strings.ToUpper(trace) + "-" + parent + "-01", false, false},
		{"00-" + strings.Repeat("0", 32) + "-" + parent + "-01", false, false},
		{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01", false, false},
		{"00-" + trace + "-" + parent + "-0", false, false},
		{"00-" + trace + "-" + parent + "-0g", false, false},
		{"00_" + trace + "-" + parent + "-01", false, false},
		{" 00-" + trace + "-" + parent + "-01", false, false},
		{"", false, false},
	} {
		got, err := ParseTraceParent(c.in)
		if (err == nil) != c.ok {
			t.Errorf("%q: error %v", c.in, err)
		}
		want := TraceParent{}
		if c.ok {
			want = TraceParent{trace, parent, c.sampled}
		}
		if got != want {
			t.Errorf("%q: %+v, want %+v", c.in, got, want)
		}
	}
}

func FuzzBaggage(f *testing.F) {
	f.Add("user.id=alice,gen_ai.agent.id=a;p=1")
	f.Add("a=%C3%84,b=%zz")
	f.Add(",,;=,=")
	f.Fuzz(func(t *testing.T, s string) {
		n := 0
		err := parseBaggage([]string{s}, func(k, v string) {
			n++
			if !isToken(k) || !utf8.ValidString(v) || len(v) > 3*len(s) {
				t.Fatalf("%q = %q", k, v)
			}
		})
		if n > maxBaggageMembers || err == nil && len(s) > maxBaggage {
			t.Fatalf("%d members of %d bytes", n, len(s))
		}
		if d, _ := readBaggage([]string{s, s}); strings.Contains(d.user+d.agent+d.conversation, twice) {
			t.Fatal("the mark for a doubled field got out")
		}
	})
}

func FuzzTraceParent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Add("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParseTraceParent(s); err == nil && !strings.HasPrefix(s[3:], p.TraceID+"-"+p.ParentID+"-") {
			t.Fatalf("%q: %+v", s, p)
		}
	})
}
