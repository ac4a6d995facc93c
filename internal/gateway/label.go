package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/flow"
	"github.com/fairleadhq/fairlead/internal/identity"
	"github.com/fairleadhq/fairlead/internal/provenance"
	"github.com/fairleadhq/fairlead/verify"
)

// labelHeader says, on a request, which data labels are on what is new in it, and, on an answer, the label of what it
// was made from. The form is that of [fairlead.Label.String]; of a request only data= is read, because a caller may
// narrow what is permitted and not widen it.
const labelHeader = "Fairlead-Label"

// declaredLabels reads the data labels that the caller declares.
func declaredLabels(h http.Header) ([]string, error) {
	var out []string
	for _, line := range h[labelHeader] {
		for field := range strings.SplitSeq(line, ";") {
			list, ok := strings.CutPrefix(strings.TrimSpace(field), "data=")
			if !ok {
				continue
			}
			for name := range strings.SplitSeq(list, ",") {
				if name = strings.TrimSpace(name); name != fairlead.AllData && !identity.Safe(name) {
					return nil, &refusal{status: http.StatusBadRequest, code: "bad_label",
						message: "the header " + labelHeader + " names data labels as data=a,b: each has 1 to 64 of the characters A-Z a-z 0-9 . _ : / @ -"}
				}
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// label gives every part of the request its label. declared are data labels on what is new.
func (c *call) label(declared []string) {
	x := c.exchange
	in := flow.Input{Body: c.body, Exchange: x, Declared: declared, Known: c.linked.Known, Memory: c.g.answers(c.who.Tenant())}
	var before known
	if in.Known > 0 {
		before = c.g.contexts.get(c.contextKey(c.link.State(in.Known)))
	} else if kept := c.linked.Kept; !kept.IsZero() {
		before = c.g.contexts.get(callKey(kept)) // the provider has its messages, and we remember them
	}
	if before.rules == c.s.Flow {
		in.Before = before.flow
	}
	if in.Before == nil {
		// What was known of the conversation is forgotten, or other rules said it: it is read anew, and is no more
		// trusted than it was. The data labels on it are on all of it.
		in.Known = 0
		in.Declared = fairlead.Label{Data: declared}.Join(fairlead.Label{Data: c.linked.Label.Data}).Data
		if c.linked.Known > 0 {
			c.earlier = c.linked.Label
		}
	}
	in.Declared = c.declaredBefore(in.Declared, in.Known)
	c.foreign = c.linked.Foreign
	switch {
	case c.linked.Known > 0 && before.flow != nil:
		c.foreign = slices.Concat(before.foreign, c.foreign)
	case c.linked.Known > 0 && (!c.linked.Proven || c.earlier.Integrity == fairlead.Untrusted):
		// Nobody knows any more which turns of the assistant were ours.
		var turns []int
		for i := range c.linked.Known {
			if x.Messages[i].Role == fairlead.RoleAssistant {
				turns = append(turns, i)
			}
		}
		c.foreign = append(turns, c.foreign...)
	}
	in.Foreign = func(i int) bool {
		_, found := slices.BinarySearch(c.foreign, i)
		return found
	}
	c.flow = c.s.Flow.Label(in)
	switch c.frozen = before.frozen; {
	case c.bound().Integrity < fairlead.Untrusted, c.frozen == nil && c.earlier.Join(c.linked.Referred).Integrity < fairlead.Untrusted:
		c.frozen = hashTools(x.Tools)
	case c.frozen == nil: // what was on offer then is forgotten
		c.frozen = []uint64{}
	}
}

// declaredBefore adds to the declared data labels those that were on this very prompt when it came before: sending it again
// takes no label off it.
func (c *call) declaredBefore(declared []string, knownMessages int) []string {
	n := len(c.exchange.Messages)
	if knownMessages == n || len(c.exchange.State) > 0 {
		return declared
	}
	same := c.g.contexts.get(c.contextKey(c.link.State(n)))
	if same.flow == nil {
		return declared
	}
	return fairlead.Label{Data: declared}.Join(fairlead.Label{Data: same.flow.Bound().Data}).Data
}

// bound is the join over all that the model is about to see, also where the provider keeps it.
func (c *call) bound() fairlead.Label {
	return c.flow.Bound().Join(c.linked.Referred).Join(c.earlier)
}

// maxFrozen is how many tools are remembered of those on offer; further ones count as new.
const maxFrozen = 2048

func hashTools(names []string) []uint64 {
	out := make([]uint64, min(len(names), maxFrozen))
	for i := range out {
		out[i] = hashTool(names[i])
	}
	slices.Sort(out)
	return out
}

func hashTool(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(sum[:])
}

// offeredBefore reports whether a tool was on offer before anything untrusted came in, as far as we saw it.
func (c *call) offeredBefore(tool string) bool {
	_, found := slices.BinarySearch(c.frozen, hashTool(tool))
	return found
}

// remember keeps what is known of the conversation for the call that continues it, and of the answer for whoever
// brings it back from elsewhere.
func (c *call) remember(answer *fairlead.Answer) {
	if n := len(c.exchange.Messages); n > 0 {
		k := known{c.s.Flow, c.flow, c.frozen, c.foreign}
		c.g.contexts.put(callKey(c.intent.ID), k, c.flow.Bytes()+contextCost+400*n+8*len(c.frozen)+8*len(c.foreign))
		if len(c.exchange.State) == 0 { // else the messages are only what is new: others may say the same
			c.g.contexts.put(c.contextKey(c.link.State(n)), k, 0)
		}
	}
	if answer == nil || answer.Text == "" {
		return
	}
	memory := c.g.answers(c.who.Tenant())
	if l := c.bound(); c.flow.Bound().Includes(l) {
		c.flow.Remember(memory, answer.Text, c.intent.ID)
	} else {
		memory.Learn(answer.Text, l, c.intent.ID)
	}
}

func (c *call) contextKey(state fairlead.Digest) fairlead.Digest {
	d := c.link.Domain
	return sha256.Sum256(append(state[:], d.Tenant+"\x00"+d.App+"\x00"+d.User...))
}

// callKey is the key of a context by the call that it is of.
func callKey(id fairlead.ID) fairlead.Digest { return sha256.Sum256([]byte("call " + id.String())) }

// maxContext is how many bytes the contexts of one generation may hold together.
const maxContext = 32 << 20

// contextCost is about what a context takes without its text and its parts.
const contextCost = 1 << 10

// known is what is known of a conversation.
type known struct {
	rules   *flow.Rules // that labelled it
	flow    *flow.Context
	frozen  []uint64
	foreign []int // the messages that nobody here returned or asked for, in order
}

// contexts remembers what is known of conversations, in two generations.
type contexts struct {
	mu       sync.Mutex
	new, old map[fairlead.Digest]known
	held     int
}

func (m *contexts) get(k fairlead.Digest) known {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.new[k]; ok {
		return c
	}
	c, ok := m.old[k]
	if ok && m.held <= maxContext { // what is gone on with stays while there is room, and all that it goes back to
		m.new[k] = c
		m.held += c.flow.Size() + 1<<10
	}
	return c
}

func (m *contexts) put(k fairlead.Digest, c known, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.new == nil || m.held > maxContext {
		m.old, m.new, m.held = m.new, map[fairlead.Digest]known{}, 0
	}
	if _, ok := m.new[k]; !ok {
		m.held += bytes
	}
	m.new[k] = c
}

// answers is what is remembered of the answers of a tenant.
func (g *Gateway) answers(tenant string) *flow.Memory {
	m, ok := g.memories.Load(tenant)
	if !ok {
		m, _ = g.memories.LoadOrStore(tenant, flow.NewMemory())
	}
	return m.(*flow.Memory)
}

// Relearn takes in a call of an earlier process, as it was recorded: what was known of its conversation, its answer, and
// whether that was what the provider remembers. It is for the start, before the first call.
func (g *Gateway) Relearn(r *provenance.Request, linked *provenance.Linked, intent, outcome *verify.Envelope, answer *fairlead.Answer) {
	c := &call{g: g, s: g.settings.Load(), link: *r, linked: *linked, exchange: r.Exchange, body: r.Body, who: identity.ForTenant(r.Domain.Tenant)}
	c.intent.ID = intent.ID
	c.label(r.Label.Data)
	c.remember(answer)
	if answer != nil && outcome != nil && outcome.Attr("fairlead.tools.withheld") != nil {
		g.rewritten.learn(r.Domain, answer, nil)
	}
}
