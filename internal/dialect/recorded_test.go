package dialect

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

var update = flag.Bool("update", false, "rewrite what the recorded exchanges are expected to read as")

// TestRecorded reads the recorded exchanges that every dialect must bring: for each of its routes at least one.
func TestRecorded(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			d, _ := Lookup(name)
			file := filepath.Join("testdata", name+".txtar")
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatalf("a dialect needs recorded exchanges: %v", err)
			}
			files, order := map[string][]byte{}, []string{}
			for _, f := range archive.Files {
				files[f.Name] = f.Data
				if exchange, ok := strings.CutSuffix(f.Name, "/route"); ok {
					order = append(order, exchange)
				}
			}
			covered := map[string]bool{}
			out := &txtar.Archive{Comment: archive.Comment}
			for _, exchange := range order {
				method, path, _ := strings.Cut(strings.TrimSpace(string(files[exchange+"/route"])), " ")
				rt, ok := Match(d, method, path)
				if !ok {
					t.Fatalf("%s: %s %s is no route", exchange, method, path)
				}
				covered[rt.Method+rt.Path] = true
				got := read(t, d, rt, exchange, files)
				if diff := cmp.Diff(string(files[exchange+"/want"]), got); diff != "" && !*update {
					t.Errorf("%s differs (-want +got):\n%s", exchange, diff)
				}
				files[exchange+"/want"] = []byte(got)
				for _, part := range []string{"/route", "/request", "/response", "/stream", "/want"} {
					if data, ok := files[exchange+part]; ok {
						out.Files = append(out.Files, txtar.File{Name: exchange + part, Data: data})
					}
				}
			}
			for _, rt := range d.Routes() {
				if !covered[rt.Method+rt.Path] {
					t.Errorf("no exchange is recorded for %s %s", rt.Method, rt.Path)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// read describes what a dialect makes of an exchange.
func read(t *testing.T, d Dialect, rt Route, exchange string, files map[string][]byte) string {
	t.Helper()
	var w strings.Builder
	if body, ok := files[exchange+"/request"]; ok {
		ex, err := d.Read(rt, body)
		if err != nil {
			t.Fatalf("%s: %v", exchange, err)
		}
		tile(t, body, ex)
		describe(&w, body, ex)
	} else if ex, err := d.Read(rt, nil); rt.Method == "GET" && (err != nil || ex.Model != rt.Model) {
		t.Errorf("%s: read %v, %v", exchange, ex, err)
	}
	if body, ok := files[exchange+"/response"]; ok {
		a, err := d.Answer(rt, body)
		if err != nil {
			t.Fatalf("%s: %v", exchange, err)
		}
		describeAnswer(&w, a)
	}
	if stream, ok := files[exchange+"/stream"]; ok {
		s, f := d.Stream(rt), &wire.Framer{}
		n, held := 0, 0
		emit := func(ev wire.Event) error {
			n++
			if hold := s.Event(ev); hold && held == 0 {
				held = n
			} else if !hold && held > 0 {
				t.Errorf("%s: event %d is not held, but one before it is", exchange, n)
			}
			return nil
		}
		if err := f.Push(stream, emit); err != nil || len(f.Rest()) > 0 {
			t.Fatalf("%s: rest %q, error %v", exchange, f.Rest(), err)
		}
		fmt.Fprintf(&w, "held from event %d of %d\n", held, n)
		describeAnswer(&w, s.Answer())
	}
	return w.String()
}

// tile demands that the messages tile their array, and that parts lie in their messages.
func tile(t *testing.T, body []byte, ex fairlead.Exchange) {
	t.Helper()
	for i, m := range ex.Messages {
		if i > 0 && m.Lead != ex.Messages[i-1].Span.End {
			t.Errorf("message %d starts at %d, but the one before it ends at %d", i, m.Lead, ex.Messages[i-1].Span.End)
		}
		if i == 0 && m.Lead != m.Span.Start && body[m.Lead-1] != '[' || m.Lead > m.Span.Start || m.Span.Len() <= 0 {
			t.Errorf("message %d has lead %d and span %v", i, m.Lead, m.Span)
		}
		for _, p := range m.Parts {
			if p.Span.Start < m.Span.Start || p.Span.End > m.Span.End || p.Span.Len() <= 0 {
				t.Errorf("message %d at %v has a part at %v", i, m.Span, p.Span)
			}
			if err := wire.Check(body[p.Span.Start:p.Span.End], wire.Limits{}); err != nil {
				t.Errorf("a part is no JSON value: %v", err)
			}
		}
	}
}

func describe(w *strings.Builder, body []byte, ex fairlead.Exchange) {
	fmt.Fprintf(w, "%s %s stream=%v user=%q conversation=%q\n", ex.Operation, ex.Model, ex.Stream, ex.User, ex.Conversation)
	for _, m := range ex.Messages {
		fmt.Fprintf(w, "%s\n", m.Role)
		for _, p := range m.Parts {
			fmt.Fprintf(w, "\t%s id=%q name=%q %q\n", p.Kind, p.CallID, p.Name, PartText(body, p))
		}
	}
	for _, u := range ex.Units {
		fmt.Fprintf(w, "unit %s\n", bytes.ReplaceAll(body[u.Start:u.End], []byte("\n"), nil))
	}
	fmt.Fprintf(w, "tools %q hosted %q state %q\n", ex.Tools, ex.HostedTools, ex.State)
}

func describeAnswer(w *strings.Builder, a fairlead.Answer) {
	fmt.Fprintf(w, "answer %q of %q complete=%v finish %q error %q\n", a.ID, a.Model, a.Complete, a.FinishReasons, a.ErrorType)
	fmt.Fprintf(w, "\ttext %q reasoning %q refusal %q\n", a.Text, a.Reasoning, a.Refusal)
	for _, c := range a.ToolCalls {
		fmt.Fprintf(w, "\tcall id=%q name=%q %s\n", c.ID, c.Name, c.Arguments)
	}
	fmt.Fprintf(w, "\tusage %+v\n", a.Usage)
}
