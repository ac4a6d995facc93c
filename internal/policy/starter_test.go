package policy

import (
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
)

func load(t testing.TB, opts Options, texts ...string) *Set {
	t.Helper()
	var sources []Source
	for i, text := range texts {
		sources = append(sources, Source{Name: string(rune('a'+i)) + ".cedar", Text: []byte(text)})
	}
	s, err := Load(sources, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func starterSet(t testing.TB) *Set {
	t.Helper()
	s, err := Load(Starter(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func starterFixtures(t testing.TB) []Fixture {
	t.Helper()
	var out []Fixture
	for _, src := range StarterFixtures() {
		fs, err := ReadFixtures(src.Text)
		if err != nil {
			t.Fatalf("%s: %v", src.Name, err)
		}
		out = append(out, fs...)
	}
	return out
}

func TestStarter(t *testing.T) {
	s := starterSet(t)
	decided := map[string]bool{}
	for _, r := range s.Test(starterFixtures(t)) {
		if !r.OK {
			t.Errorf("%s: %s by %v (%s), expected %s by %v", r.Name, r.Got, r.Decided, r.Error, r.Want, r.Rules)
		}
		for _, id := range r.Decided {
			decided[id] = true
		}
	}
	for _, r := range s.Rules() {
		if !decided[r.ID] {
			t.Errorf("%s: no fixture has this policy decide", r.ID)
		}
		if r.Reason == "" || len(r.Controls) == 0 || r.Effect != fairlead.Allow && r.Remedy == "" {
			t.Errorf("%s: reason, remedy or controls are missing", r.ID)
		}
		for _, c := range r.Controls {
			if !strings.HasPrefix(c, "OWASP-LLM") && !strings.HasPrefix(c, "OWASP-ASI") && !strings.HasPrefix(c, "AML.") {
				t.Errorf("%s: %q is not the id of a control", r.ID, c)
			}
		}
	}
}

// TestStarterNeedsEachPolicy takes each policy away in turn: some fixture has to notice.
func TestStarterNeedsEachPolicy(t *testing.T) {
	fixtures := starterFixtures(t)
	whole := starterSet(t)
	for _, gone := range whole.rules {
		var sources []Source
		for _, src := range Starter() {
			src.Text = []byte(strings.Replace(string(src.Text), gone.text, "", 1))
			sources = append(sources, src)
		}
		s, err := Load(sources, Options{})
		if err != nil || len(s.rules) != len(whole.rules)-1 {
			t.Fatalf("without %s: %v", gone.info.ID, err)
		}
		failed := 0
		for _, r := range s.Test(fixtures) {
			if r.Got != r.Want {
				failed++
			}
		}
		if failed == 0 {
			t.Errorf("without %s every fixture still has the effect that it wants", gone.info.ID)
		}
	}
}
