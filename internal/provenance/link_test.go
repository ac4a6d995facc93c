package provenance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/ledger"
)

// request reads a chat body as the gateway does.
func request(t testing.TB, d Domain, messages ...string) *Request {
	t.Helper()
	body := []byte(`{"model":"m","messages":[` + strings.Join(messages, ",") + `]}`)
	openai, _ := dialect.Lookup("openai")
	rt, ok := dialect.Match(openai, "POST", "/v1/chat/completions")
	if !ok {
		t.Fatal("no such route")
	}
	x, err := openai.Read(rt, body)
	if err != nil {
		t.Fatal(err)
	}
	return &Request{Domain: d, Body: body, Exchange: &x, Chain: ledger.ChainOf(body, x.Messages)}
}

func say(role, text string) string { return fmt.Sprintf(`{"role":%q,"content":%q}`, role, text) }

func id(n int) fairlead.ID { return fairlead.ID{Boot: "aaaaaaaaaaaaa", N: uint64(n)} }

func show(l Linked) string {
	var out []string
	for _, k := range l.Links {
		out = append(out, fmt.Sprintf("%s %d %s", k.Rel, k.To.N, k.Assurance))
	}
	return strings.Join(out, ", ")
}

var app = Domain{Tenant: "t", App: "a"}

func TestLinkerKeepsDomainsApart(t *testing.T) {
	l := NewLinker()
	l.Learn(request(t, Domain{"t", "a", "u"}, say("user", "hi")), id(1), 7, &fairlead.Answer{ID: "r", Text: "yes", ToolCalls: []fairlead.ToolCall{{ID: "c", Name: "f", Arguments: "{}"}}})
	next := []string{say("user", "hi"), `{"role":"assistant","content":"yes","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}`,
		`{"role":"tool","tool_call_id":"c","content":"x"}`}
	for _, c := range []struct {
		d    Domain
		want string
	}{
		{Domain{"t", "a", "u"}, "continues 1 derived, tool_result 1 derived"},
		{Domain{"t", "a", ""}, ""}, {Domain{"t", "a", "v"}, ""}, {Domain{"t", "b", "u"}, ""}, {Domain{"s", "a", "u"}, ""},
		// Names that run into each other are different names.
		{Domain{"t", "a\x00u", ""}, ""}, {Domain{"ta", "", "u"}, ""},
	} {
		got := l.Link(request(t, c.d, next...))
		if show(got) != c.want {
			t.Errorf("%q: %s, want %s", c.d, show(got), c.want)
		}
		if c.want == "" && (got.Scope != 0 || got.Declared != 2) {
			t.Errorf("%q: scope %d, %d declared", c.d, got.Scope, got.Declared)
		}
	}
}

// TestManyParents: a prompt that was sent again and again names some of its possible parents and chooses no scope.
func TestManyParents(t *testing.T) {
	l := NewLinker()
	for i := range 100 {
		l.Learn(request(t, app, say("user", "hi")), id(i+1), int64(i+1), &fairlead.Answer{Text: "yes"})
	}
	got := l.Link(request(t, app, say("user", "hi"), say("assistant", "yes"), say("user", "go on")))
	if len(got.Links) != maxSame || got.Links[0].Rel != fairlead.RelPossible || got.Links[maxSame-1].To != id(100) || got.Scope != 0 {
		t.Errorf("scope %d: %s", got.Scope, show(got))
	}
	// If they are all of one scope, that is the scope.
	l = NewLinker()
	for i := range 3 {
		l.Learn(request(t, app, say("user", "hi")), id(i+1), 7, &fairlead.Answer{Text: "yes"})
	}
	if got := l.Link(request(t, app, say("user", "hi"), say("assistant", "yes"), say("user", "go on"))); got.Scope != 7 || len(got.Links) != 3 {
		t.Errorf("scope %d: %s", got.Scope, show(got))
	}
}

// TestOtherSpellingsContinue: what a message says counts, not how a client writes it.
func TestOtherSpellingsContinue(t *testing.T) {
	first := `{"role":"user","content":[{"type":"text","text":"h\u0069","cache_control":{"type":"ephemeral"}}]}`
	for name, c := range map[string]struct{ again, want string }{
		"same":            {first, "continues 1 derived"},
		"string":          {say("user", "hi"), "continues 1 derived"},
		"without a mark":  {`{"role":"user","content":[{"type":"text","text":"hi"}]}`, "continues 1 derived"},
		"another text":    {say("user", "hi!"), ""},
		"another role":    {say("system", "hi"), ""},
		"an image beside": {`{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"data:,"}}]}`, ""},
	} {
		l := NewLinker()
		l.Learn(request(t, app, first), id(1), 7, &fairlead.Answer{Text: "yes"})
		got := l.Link(request(t, app, c.again, say("assistant", "yes"), say("user", "go on")))
		if show(got) != c.want || (got.Scope == 7) != (c.want != "") {
			t.Errorf("%s: scope %d: %q, want %q", name, got.Scope, show(got), c.want)
		}
	}
}

// TestItemsOfAnAnswerAreReferredTo: a request may name parts of an answer instead of resending them.
func TestItemsOfAnAnswerAreReferredTo(t *testing.T) {
	l := NewLinker()
	l.Learn(request(t, app, say("user", "hi")), id(1), 7, &fairlead.Answer{ID: "resp_1", Text: "yes", Items: []string{"msg_1", "msg_2"}})
	for ref, want := range map[string]string{"resp_1": "refers 1 derived", "msg_2": "refers 1 derived", "msg_3": ""} {
		r := request(t, app, say("user", "go on"))
		r.Exchange.State = []fairlead.StateRef{{Field: "item_reference", Value: ref}}
		if got := l.Link(r); show(got) != want || (len(got.Unresolved) == 0) != (want != "") {
			t.Errorf("%s: %q, want %q; unresolved %v", ref, show(got), want, got.Unresolved)
		}
	}
}

// TestAPromptWithOurAnswerInItIsTheSameConversation, and one without is not: anybody may ask the same first question.
func TestAPromptWithOurAnswerInItIsTheSameConversation(t *testing.T) {
	l := NewLinker()
	one := request(t, app, say("user", "hi"))
	l.Learn(one, id(1), 7, &fairlead.Answer{Text: "yes"})
	if got := l.Link(request(t, app, say("user", "hi"))); got.Scope != 0 || show(got) != "resends 1 derived" {
		t.Errorf("a stranger's same question: scope %d: %s", got.Scope, show(got))
	}
	two := request(t, app, say("user", "hi"), say("assistant", "yes"), say("user", "go on"))
	two.Proven = l.Link(two).Proven
	l.Learn(two, id(2), 7, &fairlead.Answer{Text: "no"})
	edited := l.Link(request(t, app, say("user", "hi"), say("assistant", "yes"), say("user", "go on"), say("assistant", "NO"), say("user", "so?")))
	if edited.Scope != 7 || show(edited) != "resends 2 derived" || edited.Declared != 1 {
		t.Errorf("an edited last answer: scope %d, %d declared: %s", edited.Scope, edited.Declared, show(edited))
	}
}

func TestManyToolResultsAreBounded(t *testing.T) {
	l := NewLinker()
	messages := []string{say("user", "hi")}
	for i := range 100 {
		call := fmt.Sprint("c", i)
		l.Learn(request(t, app, say("user", call)), id(i+1), 1, &fairlead.Answer{ToolCalls: []fairlead.ToolCall{{ID: call}}})
		messages = append(messages, `{"role":"tool","tool_call_id":"`+call+`","content":"x"}`)
	}
	if got := l.Link(request(t, app, messages...)); len(got.Links) != maxLinks || got.Declared != 0 {
		t.Errorf("%d declared: %s", got.Declared, show(got))
	}
}

// TestTheLinkerForgets: its memory is bounded, what is in use stays, and what is forgotten is linked no more.
func TestTheLinkerForgets(t *testing.T) {
	l := NewLinker()
	learn := func(n int) {
		var state fairlead.Digest
		copy(state[:], fmt.Sprintf("%032d", n))
		l.Learn(&Request{Domain: app, Chain: ledger.Chain{States: []fairlead.Digest{state}}}, id(n), 1, nil)
	}
	hi := request(t, app, say("user", "hi"))
	old := request(t, app, say("user", "long ago"))
	l.Learn(hi, id(1), 1, nil)
	l.Learn(old, id(2), 1, nil)
	for i := range 2*indexSize + 10 {
		learn(i + 10)
		if i%(indexSize/2) == 0 {
			if got := show(l.Link(hi)); got != "resends 1 derived" {
				t.Fatalf("after %d calls what is in use is forgotten: %q", i, got)
			}
		}
	}
	if n := len(l.new) + len(l.old); n > 2*indexSize {
		t.Errorf("it remembers %d", n)
	}
	if got := show(l.Link(old)); got != "" {
		t.Errorf("what nobody asked for is still there: %s", got)
	}
}
