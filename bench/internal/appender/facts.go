// Package appender drives a ledger, and what it is compared with, through the same closed loop: a number of writers of
// which each appends its next event as soon as the last is durable. What differs between two runs is then only who makes
// the events durable.
//
// A run is bounded by its duration; latencies are kept in memory, 8 bytes an event.
package appender

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead"
)

// A source makes the facts that a gateway records for one client: an intent and then its outcome, again and again, with
// the actor, links, attributes and content references of a conversation. An envelope of one has about 750 bytes. Making
// a fact is cheap, for it is no part of what is measured.
type source struct {
	writer int
	n      int
	newID  func() fairlead.ID
	random *rand.PCG
	user   string
	intent fairlead.ID // the last one
}

func newSource(writer int, newID func() fairlead.ID) *source {
	s := &source{writer: writer, newID: newID, random: rand.NewPCG(uint64(writer), 1)}
	s.user = "u:" + s.hex()
	return s
}

func (s *source) next() *fairlead.Fact {
	s.n++
	if s.n%2 == 1 {
		return s.makeIntent()
	}
	return s.makeOutcome()
}

func (s *source) makeIntent() *fairlead.Fact {
	before := s.intent
	s.intent = s.newID()
	f := &fairlead.Fact{
		ID:   s.intent,
		Kind: fairlead.KindCallIntent,
		Actor: fairlead.Actor{
			App:  fairlead.Facet{Value: "claims", Assurance: fairlead.Verified, Method: "virtual-key"},
			User: fairlead.Facet{Value: s.user, Assurance: fairlead.Declared, Method: "body"},
		},
		Attrs: []fairlead.Attr{
			{Name: "gen_ai.operation.name", Value: "chat"},
			{Name: "gen_ai.provider.name", Value: "openai"},
			{Name: "gen_ai.request.model", Value: "gpt-4o"},
			{Name: "fairlead.route", Value: "POST /v1/chat/completions"},
			{Name: "fairlead.mode", Value: "observe"},
			{Name: "fairlead.messages", Value: int64(s.n + 3)},
			{Name: "fairlead.messages.known", Value: int64(s.n)},
		},
		Content: []fairlead.Content{s.content("request", 20_000)},
	}
	if !before.IsZero() {
		f.Links = []fairlead.Link{{Rel: fairlead.RelContinues, To: before, Assurance: fairlead.Derived}}
	}
	return f
}

func (s *source) makeOutcome() *fairlead.Fact {
	return &fairlead.Fact{
		ID:    s.newID(),
		Kind:  fairlead.KindCallOutcome,
		Links: []fairlead.Link{{Rel: fairlead.RelCompletes, To: s.intent, Assurance: fairlead.Derived}},
		Attrs: []fairlead.Attr{
			{Name: "fairlead.outcome", Value: "completed"},
			{Name: "http.response.status_code", Value: int64(200)},
			{Name: "gen_ai.response.id", Value: "chatcmpl-" + s.hex() + s.hex()[:13]},
			{Name: "gen_ai.response.model", Value: "gpt-4o-2024-08-06"},
			{Name: "gen_ai.response.finish_reasons", Value: []string{"stop"}},
			{Name: "gen_ai.usage.input_tokens", Value: int64(4000 + s.n)},
			{Name: "gen_ai.usage.output_tokens", Value: int64(100 + s.n%97)},
			{Name: "fairlead.duration_us", Value: int64(1_800_000 + s.n)},
		},
		Content: []fairlead.Content{s.content("response", 900)},
	}
}

// content refers to a blob that nobody stored: appending is measured here, not sealing. Digests are as random as real
// ones, so that they compress as badly.
func (s *source) content(name string, size int64) fairlead.Content {
	return fairlead.Content{
		Name: name, Blob: int64(s.writer)<<24 + int64(s.n), Scope: int64(s.writer) + 2, Bytes: size + int64(s.n%500),
		Address: s.digest(), Sealed: s.digest(),
	}
}

func (s *source) digest() (d fairlead.Digest) {
	for i := 0; i < len(d); i += 8 {
		binary.LittleEndian.PutUint64(d[i:], s.random.Uint64())
	}
	return d
}

func (s *source) hex() string { return strconv.FormatUint(s.random.Uint64()|1<<63, 16) }

// counter gives ids where there is no ledger that does.
func counter() func() fairlead.ID {
	var n atomic.Uint64
	return func() fairlead.ID { return fairlead.ID{Boot: "benchbenchben", N: n.Add(1)} }
}

// stamp is the time of a fact, as the ledger sets it.
func stamp() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
