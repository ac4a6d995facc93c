package wire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// frames pushes the chunks and describes each event as RAW|NAME|DATA, and the rest as RAW.
func frames(t *testing.T, max int, chunks ...string) (events []string, rest string, err error) {
	t.Helper()
	f := &Framer{Max: max}
	for _, c := range chunks {
		b := []byte(c)
		err = f.Push(b, func(ev Event) error {
			events = append(events, fmt.Sprintf("%q|%s|%q", ev.Raw, ev.Name, ev.Data))
			return nil
		})
		clear(b) // the Framer must not hold on to the chunk
		if err != nil {
			break
		}
	}
	return events, string(f.Rest()), err
}

func TestFramer(t *testing.T) {
	tests := []struct {
		name, stream string
		want         []string
		rest         string
	}{
		{"line feeds", "data: a\n\ndata:b\n\n", []string{`"data: a\n\n"||"a"`, `"data:b\n\n"||"b"`}, ""},
		{"CRLF", "event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n",
			[]string{`"event: x\r\ndata: a\r\n\r\n"|x|"a"`, `"data: b\r\n\r\n"||"b"`}, ""},
		{"CR", "data: a\r\rdata: b\r\r", []string{`"data: a\r\r"||"a"`, `"data: b\r\r"||"b"`}, ""},
		{"CR, then LF after all", "data: a\r\r\ndata: b\r\r", []string{`"data: a\r\r"||"a"`, `"\ndata: b\r\r"||"b"`}, ""},
		{"LF, then a blank CRLF", "data: a\n\r\ndata: b\n\n", []string{`"data: a\n\r\n"||"a"`, `"data: b\n\n"||"b"`}, ""},
		{"CR at the end may be half", "data: a\r\n\r", nil, "data: a\r\n\r"},
		{"CR was whole", "data: a\r\n\rdata: b\n\n", []string{`"data: a\r\n\r"||"a"`, `"data: b\n\n"||"b"`}, ""},
		{"several data lines", "data: a\ndata\ndata:  b\ndata:c\n\n", []string{`"data: a\ndata\ndata:  b\ndata:c\n\n"||"a\n\n b\nc"`}, ""},
		{"comments", ": ping\n\n:\n\n", []string{`": ping\n\n"||""`, `":\n\n"||""`}, ""},
		{"blank lines", "\n\n", []string{`"\n"||""`, `"\n"||""`}, ""},
		{"byte order mark", "\xEF\xBB\xBFdata: a\n\n", []string{`"\ufeffdata: a\n\n"||"a"`}, ""},
		{"byte order mark alone", "\xEF\xBB\xBF\ndata: a\n\n", []string{`"\ufeff\n"||""`, `"data: a\n\n"||"a"`}, ""},
		{"byte order mark later", "\n\xEF\xBB\xBFdata: a\n\n", []string{`"\n"||""`, `"\ufeffdata: a\n\n"||""`}, ""},
		{"other fields", "id: 7\nretry: 9\ndatax: n\ndata: a\n\n", []string{`"id: 7\nretry: 9\ndatax: n\ndata: a\n\n"||"a"`}, ""},
		{"unfinished", "data: a\n\ndata: b\n", []string{`"data: a\n\n"||"a"`}, "data: b\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, chunks := range [][]string{{tt.stream}, strings.Split(tt.stream, "")} {
				got, rest, err := frames(t, 0, chunks...)
				if err != nil || !slices.Equal(got, tt.want) || rest != tt.rest {
					t.Errorf("in %d chunks: got %s, rest %q, error %v; want %s, rest %q", len(chunks), got, rest, err, tt.want, tt.rest)
				}
			}
		})
	}
}

// TestFramerDelay demands that an event is handed over as soon as its last byte is there, for each kind of line end.
func TestFramerDelay(t *testing.T) {
	for _, nl := range []string{"\n", "\r\n", "\r"} {
		stream := strings.Repeat("event: e"+nl+"data: a"+nl+nl, 3)
		for i := range len(stream) {
			got, _, _ := frames(t, 0, stream[:i+1])
			if want := (i + 1) / (len(stream) / 3); len(got) != want {
				t.Errorf("with %q, %d events after %d bytes, want %d", nl, len(got), i+1, want)
			}
		}
	}
}

func TestFramerLimit(t *testing.T) {
	long := "data: " + strings.Repeat("x", 100)
	for _, chunks := range [][]string{{"data: a\n\n" + long + "\n\n"}, {"data: a\n\n", long, "\n\n"}, strings.Split("data: a\n\n"+long, "")} {
		got, rest, err := frames(t, 50, chunks...)
		if err == nil || len(got) != 1 || !strings.HasPrefix(long+"\n\n", rest) {
			t.Errorf("got %d events, rest %q, error %v; want one event and an error", len(got), rest, err)
		}
	}
}

func TestFramerStops(t *testing.T) {
	f, stop, n := &Framer{}, errors.New("stop"), 0
	emit := func(Event) error {
		if n++; n == 2 {
			return stop
		}
		return nil
	}
	for range 2 {
		if err := f.Push([]byte("data: 1\n\ndata: 2\n\ndata: 3\n\n"), emit); err != stop {
			t.Fatalf("got %v, want the error of emit", err)
		}
	}
	if n != 2 || string(f.Rest()) != "data: 3\n\n" {
		t.Errorf("%d calls, rest %q", n, f.Rest())
	}
}

func TestFramerClose(t *testing.T) {
	for _, stream := range []string{"data: a\n\nevent: end\ndata: b\n", "data: a\n\nevent: end\ndata: b", "data: a\r\n\r\nevent: end\r\ndata: b\r\n\r"} {
		f := &Framer{}
		var got []string
		emit := func(ev Event) error { got = append(got, fmt.Sprintf("%s=%s", ev.Name, ev.Data)); return nil }
		if err := errors.Join(f.Push([]byte(stream), emit), f.Close(emit), f.Close(emit)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, []string{"=a", "end=b"}) || len(f.Rest()) != 0 {
			t.Errorf("%q gives %q and rest %q", stream, got, f.Rest())
		}
	}
}

// TestFramerLinear pushes long events in ways that make a careless framer quadratic.
func TestFramerLinear(t *testing.T) {
	start := time.Now()
	emit := func(Event) error { return nil }
	for _, nl := range []string{"\n", "\r", "\r\n"} {
		f := &Framer{Max: 8 << 20}
		if err := f.Push([]byte(strings.Repeat("data: a"+nl+nl, 500_000)), emit); err != nil {
			t.Fatal(err)
		}
		f = &Framer{Max: 8 << 20}
		for range 2 << 20 {
			if err := f.Push([]byte("x"), emit); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Push([]byte(strings.Repeat("data: a"+nl, 500_000)), emit); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func FuzzFramer(f *testing.F) {
	for _, s := range []string{"data: a\n\ndata: b\r\n\r\n", "\xEF\xBB\xBFevent: x\rdata: a\rdata: b\r\r\n\n", ": ping\n\n\r\r\r\n\n\r", "a\r\r\n\r\r\n"} {
		f.Add(s, uint64(1))
	}
	f.Fuzz(func(t *testing.T, stream string, seed uint64) {
		want, rest, err := frames(t, 0, stream)
		if err != nil {
			return // longer than one event may be
		}
		r := rand.New(rand.NewPCG(seed, 0))
		var chunks []string
		for left := stream; len(left) > 0; {
			n := 1 + r.IntN(min(len(left), 9))
			chunks, left = append(chunks, left[:n]), left[n:]
		}
		got, gotRest, err := frames(t, 0, chunks...)
		if err != nil || !slices.Equal(got, want) || gotRest != rest {
			t.Fatalf("in chunks %q: got %s, rest %q; whole: %s, rest %q (error %v)", chunks, got, gotRest, want, rest, err)
		}
		var joined strings.Builder
		fr := &Framer{}
		if err := fr.Push([]byte(stream), func(ev Event) error { joined.Write(ev.Raw); return nil }); err != nil {
			t.Fatal(err)
		}
		if joined.String()+rest != stream {
			t.Fatalf("%q comes back as %q and %q", stream, joined.String(), rest)
		}
	})
}

func BenchmarkFramer(b *testing.B) {
	stream := []byte(strings.Repeat("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n", 50))
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	f := &Framer{}
	for b.Loop() {
		if err := f.Push(stream, func(Event) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
