package identity

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFindCredential(t *testing.T) {
	s1, _ := NewKey()
	s2, _ := NewKey()
	k1, k2 := s1.Reveal(), s2.Reveal()
	type found struct {
		Slot    Slot
		Secret  string
		Ours    bool
		Others  []Slot
		Several bool
	}
	for _, c := range []struct {
		name string
		h    http.Header
		q    url.Values
		want found
	}{
		{name: "nothing"},
		{name: "bearer", h: http.Header{"Authorization": {"Bearer " + k1}}, want: found{SlotBearer, k1, true, nil, false}},
		{name: "scheme in any case", h: http.Header{"Authorization": {"bEARER  " + k1 + " "}}, want: found{SlotBearer, k1, true, nil, false}},
		{name: "no scheme", h: http.Header{"Authorization": {k1}}, want: found{SlotBearer, k1, true, nil, false}},
		{name: "anthropic", h: http.Header{"X-Api-Key": {k1}}, want: found{SlotXAPI, k1, true, nil, false}},
		{name: "azure", h: http.Header{"Api-Key": {k1}}, want: found{SlotAPI, k1, true, nil, false}},
		{name: "google", h: http.Header{"X-Goog-Api-Key": {k1}}, want: found{SlotGoogle, k1, true, nil, false}},
		{name: "google in the URL", q: url.Values{"key": {k1}}, want: found{SlotQuery, k1, true, nil, false}},
		{name: "the provider's", h: http.Header{"Authorization": {"Bearer sk-abc"}}, want: found{SlotBearer, "sk-abc", false, nil, false}},
		{name: "another scheme stays whole", h: http.Header{"Authorization": {"Basic dTpw"}}, want: found{SlotBearer, "Basic dTpw", false, nil, false}},
		{name: "a damaged key is still ours", h: http.Header{"X-Api-Key": {k1[:20]}}, want: found{SlotXAPI, k1[:20], true, nil, false}},
		{name: "the same twice", h: http.Header{"X-Goog-Api-Key": {k1}}, q: url.Values{"key": {k1}}, want: found{SlotGoogle, k1, true, nil, false}},
		{name: "ours and the provider's", h: http.Header{"Authorization": {"Bearer sk-abc"}, "X-Api-Key": {k1}},
			want: found{SlotXAPI, k1, true, []Slot{SlotBearer}, false}},
		{name: "ours first", h: http.Header{"Authorization": {"Bearer " + k1}, "X-Api-Key": {"sk-abc"}},
			want: found{SlotBearer, k1, true, []Slot{SlotXAPI}, false}},
		{name: "two of ours", h: http.Header{"Authorization": {"Bearer " + k1}, "X-Api-Key": {k2}}, want: found{SlotBearer, k1, true, nil, true}},
		{name: "two of ours in one slot", h: http.Header{"X-Api-Key": {k1, k2}}, want: found{SlotXAPI, k1, true, nil, true}},
		{name: "two of the provider's", h: http.Header{"Authorization": {"Bearer sk-abc"}, "Api-Key": {"def"}},
			want: found{SlotBearer, "sk-abc", false, []Slot{SlotAPI}, false}},
	} {
		got := FindCredential(c.h, c.q)
		if diff := cmp.Diff(c.want, found{got.Slot, got.Secret.Reveal(), got.Ours, got.Others, got.Several}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestStrip(t *testing.T) {
	s, _ := NewKey()
	key := s.Reveal()
	h := http.Header{
		"Authorization":          {"Bearer " + key},
		"X-Api-Key":              {key[:20], "sk-abc"}, // a stump is ours in a slot
		"Cookie":                 {"a=" + key},
		"X-Note":                 {"see flk_ in the manual"}, // and harmless elsewhere
		"Fairlead-Subject-Token": {"a.b.c"},
		"Content-Type":           {"application/json"},
	}
	q := url.Values{"key": {key}, "alt": {"sse"}, "state": {"x" + key, "y"}, key: {""}}
	if !Strip(h, q) {
		t.Error("Strip does not report that the query changed")
	}
	if diff := cmp.Diff(http.Header{"X-Api-Key": {"sk-abc"}, "X-Note": {"see flk_ in the manual"}, "Content-Type": {"application/json"}}, h); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(url.Values{"alt": {"sse"}, "state": {"y"}}, q); diff != "" {
		t.Errorf("query (-want +got):\n%s", diff)
	}
	if c := FindCredential(h, q); c.Ours {
		t.Error("a key of ours is left")
	}
	if Strip(h, q) || strings.Join(h["X-Api-Key"], "") != "sk-abc" {
		t.Error("a second Strip changed something")
	}
}
