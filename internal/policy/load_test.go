package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"
)

const allowAll = "@id(\"all\") permit (principal, action, resource);\n"

func TestLoadRejects(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no id", "\n  permit (principal, action, resource);", `a.cedar:2:3: a policy needs an id: put @id("NAME") in front of it`},
		{"empty id", `@id permit (principal, action, resource);`, "a policy needs an id"},
		{"odd id", `@id("a b") permit (principal, action, resource);`, `a.cedar:1:1: the id "a b" is not one`},
		{"reserved id", `@id("default-deny") permit (principal, action, resource);`, "the id is reserved"},
		{"id twice", allowAll + allowAll, `a.cedar:2:1: policy "all": the id is already that of a policy at a.cedar:1`},
		{"mistyped annotation", `@id("x") @efect("hold") forbid (principal, action, resource);`, `policy "x": @efect is not an annotation: there are`},
		{"unknown effect", `@id("x") @effect("warn") forbid (principal, action, resource);`, `@effect("warn") means nothing`},
		{"permit that holds", `@id("x") @effect("hold") permit (principal, action, resource);`, "is for forbid"},
		{"approvers of a deny", `@id("x") @approvers("2") forbid (principal, action, resource);`, "@approvers is for policies that hold"},
		{"no approvers", `@id("x") @effect("hold") @approvers("0") forbid (principal, action, resource);`, "not a number from 1 to 5"},
		{"too many approvers", `@id("x") @effect("hold") @approvers("6") forbid (principal, action, resource);`, "not a number from 1 to 5"},
		{"approvers in odd digits", `@id("x") @effect("hold") @approvers("+2") forbid (principal, action, resource);`, "not a number from 1 to 5"},
		{"empty reason", `@id("x") @reason("") forbid (principal, action, resource);`, "@reason is empty"},
		{"long remedy", `@id("x") @remedy("` + strings.Repeat("a", 501) + `") forbid (principal, action, resource);`, "@remedy is longer than 500 bytes"},
		{"control characters", `@id("x") @reason("a\nb") forbid (principal, action, resource);`, "control characters"},
		{"misspelt attribute", "@id(\"x\")\nforbid (principal, action, resource) when { context.label.integrety == \"untrusted\" };", `a.cedar:1:1: policy "x": attribute`},
		{"wrong type", `@id("x") forbid (principal, action, resource) when { context.approvals > "1" };`, `policy "x": unexpected type`},
		{"unknown class", `@id("x") forbid (principal, action, resource in ToolClass::"egres");`, `policy "x": there is no tool class "egres"`},
		{"unknown class in a condition", `@id("x") forbid (principal, action == Action::"tool.call", resource) when { resource in [ToolClass::"egres"] };`, `there is no tool class "egres"`},
		{"has what is not", `@id("x") forbid (principal, action, resource) when { context.label has integrety };`, "attribute `label.integrety` not found"},
		{"has what no resource has", `@id("x") forbid (principal, action, resource) when { resource has owner };`, "attribute `owner` not found"},
		{"unknown action", `@id("x") forbid (principal, action == Action::"tool.cal", resource);`, `policy "x"`},
		{"unknown type", `@id("x") forbid (principal in Team::"a", action, resource);`, `policy "x"`},
		{"undeclared argument", `@id("x") forbid (principal, action, resource) when { context.arg has amount && context.arg.amount > 3 };`, "attribute `arg.amount` not found"},
		{"scope that cannot be", `@id("x") forbid (principal, action == Action::"model.call", resource in ToolClass::"read");`, `policy "x"`},
		{"template", "@id(\"x\")\npermit (principal == ?principal, action, resource);", "a.cedar:2:22: templates are not supported"},
		{"no semicolon", `@id("x") permit (principal, action, resource)`, "a.cedar:1:1: the policy that begins here has no end: add a semicolon"},
		{"not Cedar", allowAll + "  @id(\"x\") allow (principal, action, resource);", `a.cedar:2:18: policy "x": not Cedar: unexpected effect: allow`},
		{"semicolon too many", allowAll + ";", "a.cedar:2:2: not Cedar"},
		{"open text", allowAll + "@id(\"x) permit (principal, action, resource);", "a.cedar:2:5: the text that begins here has no end"},
		{"not UTF-8", "\xff", "a.cedar: not UTF-8 text"},
		{"too large", strings.Repeat("//\n", 400_000), "a.cedar: larger than 1 MiB"},
		{"nested", nested("(", ")", 65), "a.cedar:1:117: brackets are nested deeper than 64 levels"},
		{"many operators", `@id("x") permit (principal, action, resource) when { true` + strings.Repeat(" && true", 1001) + "};", "more than 1000 operators"},
		{"many ifs", `@id("x") permit (principal, action, resource) when { ` + strings.Repeat("if true then true else ", 1001) + "true};", "more than 1000 operators"},
		{"long list", `@id("x") permit (principal, action, resource) when { [` + strings.Repeat(`"a",`, 20_001) + `"a"].contains("a") };`, "lists more than 20000 values"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load([]Source{{"a.cedar", []byte(tt.text)}}, Options{})
			var le *LoadError
			if !errors.As(err, &le) {
				t.Fatalf("got %v, expected a LoadError", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got\n%s\nexpected it to contain\n%s", err, tt.want)
			}
			if len(le.Problems) != 1 {
				t.Errorf("%d problems, expected one:\n%s", len(le.Problems), err)
			}
		})
	}
}

func nested(open, end string, n int) string {
	return `@id("x") permit (principal, action, resource) when { ` + strings.Repeat(open, n) + "true" + strings.Repeat(end, n) + " };"
}

func TestLoadListsEveryProblem(t *testing.T) {
	bad := strings.Repeat("permit (principal, action, resource);\n", 130)
	_, err := Load([]Source{{"a.cedar", []byte(bad)}, {"b.cedar", []byte("permit")}, {"a.cedar", nil}}, Options{})
	var le *LoadError
	if !errors.As(err, &le) || len(le.Problems) != 100 || le.More != 32 {
		t.Fatalf("got %v", err)
	}
	if want := "a.cedar:7:1: a policy needs an id"; !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "and 32 more") {
		t.Errorf("got %v", err)
	}
}

func TestLoadOptions(t *testing.T) {
	opts := Options{Arguments: map[string]string{"amount": "long", "to": "string", "cc": "set", "dry run": "bool", `quo"te`: "string"}}
	load(t, opts, `@id("x") forbid (principal, action, resource) when { context.arg has amount && context.arg.amount > 3 };
@id("y") forbid (principal, action, resource) when { context.arg has "dry run" && !context.arg["dry run"] };
@id("z") forbid (principal, action, resource) when { context.arg has cc && context.arg.cc.contains("a") };`)
	for want, args := range map[string]map[string]string{
		`the tool argument "amount" is declared as "number"`: {"amount": "number"},
		`the tool argument "" cannot be declared`:            {"": "long"},
	} {
		if _, err := Load(nil, Options{Arguments: args}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, expected %q", err, want)
		}
	}
	// An argument that a tool may leave out has to be tested for first, or the policy would err.
	_, err := Load([]Source{{"a.cedar", []byte(`@id("x") forbid (principal, action, resource) when { context.arg.amount > 3 };`)}}, opts)
	if err == nil {
		t.Error("an argument is used without asking whether it is there, and that is not found")
	}
}

// TestLoadTime loads the largest policies that the bounds let through.
func TestLoadTime(t *testing.T) {
	values := make([]string, 19_000)
	for i := range values {
		values[i] = fmt.Sprintf("%q", fmt.Sprint(i))
	}
	has := strings.Repeat(`context.arg has a && context.arg.a == "x" && `, 150)
	for name, text := range map[string]string{
		"and":  `@id("x") permit (principal, action, resource) when { true` + strings.Repeat(" && context.approved", 490) + "};",
		"or":   `@id("x") permit (principal, action, resource) when { false` + strings.Repeat(" || context.approved", 490) + "};",
		"not":  `@id("x") permit (principal, action, resource) when { ` + strings.Repeat("!", 990) + "context.approved};",
		"if":   `@id("x") permit (principal, action, resource) when { ` + strings.Repeat("if context.approved then true else ", 490) + "true};",
		"add":  `@id("x") permit (principal, action, resource) when { 0` + strings.Repeat(" + context.approvals", 490) + " > 3};",
		"deep": nested("(", ")", 60),
		"list": `@id("x") permit (principal, action, resource) when { [` + strings.Join(values, ", ") + `].contains(context.provider) };`,
		"has":  `@id("x") permit (principal, action, resource) when { ` + has + "true};",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			s := load(t, Options{Arguments: map[string]string{"a": "string"}}, text)
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("loading %d bytes took %v", len(text), d)
			}
			s.Decide(typical("x"))
			if _, err := s.Explain(Query{Action: ToolCall}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDigest(t *testing.T) {
	a, b := Source{"a.cedar", []byte(allowAll)}, Source{"b.cedar", []byte("// nothing\n")}
	digest := func(sources ...Source) string {
		s, err := Load(sources, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest()
	}
	const want = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of nothing
	if got := digest(); got != want {
		t.Errorf("the digest of nothing is %s, expected %s", got, want)
	}
	if digest(a, b) != digest(b, a) {
		t.Error("the order of sources changes the digest")
	}
	moved := Source{"a.cedar", append([]byte(allowAll), b.Text...)}
	if digest(a, b) == digest(moved, Source{"b.cedar", nil}) || digest(a, b) == digest(a) {
		t.Error("the digest is the same for other sources")
	}
}

// TestSchemaHasLeaves holds the table of leaves to the schema.
func TestSchemaHasLeaves(t *testing.T) {
	c, err := newChecker(map[string]string{"amount": "long"})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range actions {
		r := *typical("x")
		r.Action = a
		w, err := newWorld(&r, map[string]string{"amount": "long"})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.v.Request(w.query(newContext(&r, allUses))); err != nil {
			t.Error(err)
		}
		w.attributed = true
		for _, id := range []types.EntityUID{w.principal, w.resource} {
			e, _ := w.Get(id)
			if err := c.v.Entity(e); err != nil {
				t.Error(err)
			}
		}
	}
	if len(leaves) > 63 {
		t.Error("more leaves than bits")
	}
}

func FuzzLoad(f *testing.F) {
	for _, src := range Starter() {
		f.Add(src.Text)
	}
	for _, s := range []string{
		"", ";", "@id(\"x\")", allowAll, nested("[", "]", 70), `@id("x") permit (principal == ?principal, action, resource);`, "\"", "\\", "/", "//",
		`@id("x") forbid (principal is User in Group::"a", action in [Action::"admin"], resource) unless { decimal("1.0").lessThan(decimal("2.0")) };`,
		`@id("x") forbid (principal, action, resource) when { context has "label" && ip("10.0.0.1").isLoopback() && context.route like "*\*" };`,
		`@id("x") permit (principal, action, resource) when { context == {} };`, `@id("x") permit(principal,action,resource) when {datetime("x")>context.time};`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Load([]Source{{"f.cedar", text}}, Options{})
		if err != nil {
			var le *LoadError
			if !errors.As(err, &le) || len(le.Problems) == 0 {
				t.Fatalf("not a LoadError: %v", err)
			}
			return
		}
		r := typical("x")
		r.Context.Args.Values = nil
		a, b := s.Decide(r), s.decideUnsliced(r)
		if a.Effect != b.Effect {
			t.Errorf("sliced %v, unsliced %v", a, b)
		}
		if _, err := s.Explain(Query{Action: ToolCall}); err != nil {
			t.Error(err)
		}
		if d := Diff(s, s); len(d) != 0 {
			t.Errorf("differs from itself: %v", d)
		}
	})
}
