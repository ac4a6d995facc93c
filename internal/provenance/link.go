package provenance

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/ledger"
)

// A Domain is within what calls are linked.
type Domain struct {
	Tenant, App string
	User        string // the pseudonym of a verified user; empty if nobody was verified
}

// A Request is what the linker looks at.
type Request struct {
	Domain   Domain
	Body     []byte
	Exchange *fairlead.Exchange
	Chain    ledger.Chain
	// Conversation and Trace are declared by the caller. They decide between calls that fit equally well.
	Conversation, Trace string
	// Proven and Run are those of what the request was linked to. They matter to Learn only.
	Proven bool
	Run    Run
	// Label is that of the whole conversation. It matters to Learn only.
	Label fairlead.Label

	// canon are the states of the conversation by what its messages say, as far as they were needed.
	canon []fairlead.Digest
}

// State gives the state of the conversation after its first n messages, by what they say; n is at least that of the
// messages which were known, and at least 1. It can be asked for once the request was linked.
func (r *Request) State(n int) fairlead.Digest { return r.canon[n-1] }

// canonical gives the states of the conversation by what the messages say. The first known of them say what an earlier
// prompt of the state base said.
func (r *Request) canonical(known int, base fairlead.Digest) []fairlead.Digest {
	if r.canon != nil {
		return r.canon
	}
	msgs := r.Exchange.Messages
	r.canon = make([]fairlead.Digest, len(msgs))
	if known > 0 {
		r.canon[known-1] = base
	}
	var buf []byte
	var link [64]byte
	copy(link[:], base[:])
	for i := known; i < len(msgs); i++ {
		buf = dialect.Canonical(buf[:0], r.Body, msgs[i])
		h := sha256.Sum256(buf)
		copy(link[32:], h[:])
		r.canon[i] = sha256.Sum256(link[:])
		copy(link[:], r.canon[i][:])
	}
	return r.canon
}

// A Run is an agent's work on one matter: calls that provably continue each other.
type Run struct {
	Root  fairlead.ID // its first call; zero for a call that follows from none
	Steps int         // calls of it so far
	Began time.Time
	// Messages is how many messages its first prompt had: what the runs of one conversation have in common.
	Messages int
}

// Next is the run that a call with this id, time and number of messages makes of what it was linked to.
func (r Run) Next(id fairlead.ID, at time.Time, messages int) Run {
	if r.Root.IsZero() {
		r.Root, r.Began = id, at
		if r.Messages == 0 {
			r.Messages = messages
		}
	}
	r.Steps++
	return r
}

// Linked is what a request was found to follow from.
type Linked struct {
	Links []fairlead.Link
	Run   Run // the run that is continued
	// Label is the join of the labels of the calls it is linked to, and Referred is the label of those whose content is
	// kept at the provider and not sent again.
	Label, Referred fairlead.Label
	// Kept is the newest of these; zero if there is none.
	Kept fairlead.ID
	// Known messages at the start were part of an earlier call's prompt. Returned messages after them are the answer
	// that we returned to it.
	Known, Returned int
	// Declared counts the other assistant turns and tool results: ones that we neither returned nor saw asked for.
	// Foreign are the messages that they stand in, in order.
	Declared int
	Foreign  []int
	// Scope is the key scope of the conversation that is continued, or 0.
	Scope int64
	// Proven says that the known part of the prompt holds an answer that we returned.
	Proven bool
	// Unresolved are references to state at the provider that no answer of ours explains.
	Unresolved []fairlead.StateRef
}

// Bounds: calls kept per state, links per fact, entries per generation (about 200 bytes each).
const (
	maxSame   = 8
	maxLinks  = 12
	indexSize = 1 << 15
)

// call is an earlier call, as far as later ones may follow from it.
type call struct {
	id                  fairlead.ID
	scope               int64
	turn                fairlead.Digest // SHA-256 of the answer's canonical turn; zero when there was none
	canon               fairlead.Digest // state of its prompt by what the messages say
	proven              bool            // its prompt held an answer of ours, which only its own client could know
	run                 Run
	label               fairlead.Label // of the whole conversation
	conversation, trace string
}

type key struct {
	domain [16]byte
	kind   byte
	hash   fairlead.Digest
}

// Kinds of key.
const (
	byState    = 's' // calls whose whole prompt has this state
	bySaying   = 'c' // calls whose whole prompt says the same
	byToolCall = 't' // calls whose answer asked for a tool under this call id
	byResponse = 'r' // calls whose answer has this provider id
)

// A Linker remembers calls. It is safe for concurrent use.
type Linker struct {
	mu       sync.Mutex
	new, old map[key][]call
}

// NewLinker gives an empty linker.
func NewLinker() *Linker { return &Linker{new: map[key][]call{}, old: map[key][]call{}} }

func (d Domain) hash() (out [16]byte) {
	h := sha256.Sum256([]byte(d.Tenant + "\x00" + d.App + "\x00" + d.User))
	copy(out[:], h[:])
	return out
}

func (l *Linker) get(k key) []call {
	c, ok := l.new[k]
	if !ok {
		if c, ok = l.old[k]; ok {
			l.put(k, c)
		}
	}
	return c
}

func (l *Linker) put(k key, c []call) {
	if len(l.new) >= indexSize {
		l.old, l.new = l.new, make(map[key][]call, indexSize)
	}
	l.new[k] = c
}

func (l *Linker) add(k key, c call) {
	list := l.get(k)
	if len(list) >= maxSame {
		list = list[1:]
	}
	l.put(k, append(list[:len(list):len(list)], c))
}

func textHash(s string) fairlead.Digest { return sha256.Sum256([]byte(s)) }

// Learn remembers a call once its outcome is durable. answer may be nil when there was none.
func (l *Linker) Learn(r *Request, id fairlead.ID, scope int64, answer *fairlead.Answer) {
	d := r.Domain.hash()
	c := call{id: id, scope: scope, proven: r.Proven, run: r.Run, label: r.Label, conversation: r.Conversation, trace: r.Trace}
	if answer != nil {
		c.turn = sha256.Sum256(dialect.Turn(nil, answer))
	}
	n := len(r.Chain.States)
	if n > 0 && r.Exchange != nil {
		c.canon = r.canonical(0, fairlead.Digest{})[n-1]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > 0 {
		l.add(key{d, byState, r.Chain.States[n-1]}, c)
		l.add(key{d, bySaying, c.canon}, c)
	}
	if answer == nil {
		return
	}
	for _, t := range answer.ToolCalls {
		if t.ID != "" {
			l.add(key{d, byToolCall, textHash(t.ID)}, c)
		}
	}
	if answer.ID != "" {
		l.add(key{d, byResponse, textHash(answer.ID)}, c)
	}
	for _, id := range answer.Items {
		l.add(key{d, byResponse, textHash(id)}, c)
	}
}

// Link says what a request follows from.
func (l *Linker) Link(r *Request) Linked {
	var out Linked
	d := r.Domain.hash()
	l.mu.Lock()
	known, base := 0, fairlead.Digest{}
	if i, list := l.longest(d, byState, r.Chain.States); i > 0 {
		known, base = i, list[0].canon
	}
	l.mu.Unlock()
	r.canonical(known, base) // takes a while for what was never seen; others need not wait
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state(r, d, &out)
	if len(out.Links) == 0 {
		// With state at the provider the messages are only what is new: the same few words prove nothing.
		l.prefix(r, d, &out)
	}
	msgs := r.Exchange.Messages
	l.toolResults(d, msgs, &out)
	// What is left of the assistant's turns came from somewhere else.
	for i := out.Known + out.Returned; i < len(msgs); {
		n := dialect.Run(msgs[i:])
		if n > 0 {
			out.Declared++
		}
		for j := range n {
			out.Foreign = append(out.Foreign, i+j)
		}
		i += max(n, 1)
	}
	slices.Sort(out.Foreign)
	out.Foreign = slices.Compact(out.Foreign)
	return out
}

func (o *Linked) link(rel fairlead.Relation, c call, a fairlead.Assurance) {
	to := c.id
	o.Label = o.Label.Join(c.label)
	for _, l := range o.Links {
		if l.Rel == rel && l.To == to {
			return
		}
	}
	if len(o.Links) < maxLinks {
		o.Links = append(o.Links, fairlead.Link{Rel: rel, To: to, Assurance: a})
	}
}

// state resolves references to what the provider keeps.
func (l *Linker) state(r *Request, d [16]byte, out *Linked) {
	for _, s := range r.Exchange.State {
		list := l.get(key{d, byResponse, textHash(s.Value)})
		if len(list) == 0 {
			out.Unresolved = append(out.Unresolved, s)
			continue
		}
		c := list[len(list)-1]
		out.link(fairlead.RelRefers, c, fairlead.Derived)
		out.Referred, out.Kept = out.Referred.Join(c.label), c.id
		out.Scope, out.Proven, out.Run = c.scope, true, c.run // the id was in our answer, and nowhere else
	}
}

// prefix looks for the longest beginning of the conversation that was the prompt of an earlier call, by what it says:
// clients move cache marks about, and write the same text as a string or as blocks.
func (l *Linker) prefix(r *Request, d [16]byte, out *Linked) {
	if i, list := l.longest(d, bySaying, r.canon); i > 0 {
		l.follow(r, i, list, out)
	}
}

// longest gives the longest beginning with a known state, and the calls that had it: one that leaves something to
// follow, else the whole.
func (l *Linker) longest(d [16]byte, kind byte, states []fairlead.Digest) (int, []call) {
	n := len(states)
	for i := n - 1; i > 0; i-- {
		if list := l.get(key{d, kind, states[i-1]}); len(list) > 0 {
			return i, list
		}
	}
	if n > 0 {
		if list := l.get(key{d, kind, states[n-1]}); len(list) > 0 {
			return n, list
		}
	}
	return 0, nil
}

// follow links a request whose first known messages were the prompt of the calls in list.
func (l *Linker) follow(r *Request, known int, list []call, out *Linked) {
	msgs := r.Exchange.Messages
	out.Known = known
	run := dialect.Run(msgs[known:])
	if run == 0 {
		// The same prompt, or something added to it without its answer.
		l.resends(r, list, out)
		return
	}
	turn := fairlead.Digest(sha256.Sum256(dialect.RequestTurn(nil, r.Body, msgs[known:known+run]...)))
	var fit []call
	for _, c := range list {
		if c.turn == turn {
			fit = append(fit, c)
		}
	}
	if len(fit) == 0 {
		// The prompt is known, but this is not what we answered.
		l.resends(r, list, out)
		return
	}
	out.Returned = run
	l.continues(r, fit, out)
}

// narrow keeps the calls that agree with what the caller declares, if any do.
func narrow(r *Request, list []call) []call {
	for _, same := range []func(call) bool{
		func(c call) bool { return r.Trace != "" && c.trace == r.Trace },
		func(c call) bool { return r.Conversation != "" && c.conversation == r.Conversation },
	} {
		var kept []call
		for _, c := range list {
			if same(c) {
				kept = append(kept, c)
			}
		}
		if len(kept) > 0 {
			return kept
		}
	}
	return list
}

func (l *Linker) continues(r *Request, fit []call, out *Linked) {
	fit = narrow(r, fit)
	if len(fit) == 1 {
		out.link(fairlead.RelContinues, fit[0], fairlead.Derived)
		out.Scope, out.Proven, out.Run = fit[0].scope, true, fit[0].run
		return
	}
	one, same, run := true, true, fit[0].run
	out.Run.Messages = fit[0].run.Messages // whichever it is, it began so
	for _, c := range fit {
		same = same && c.run.Root == run.Root
		if c.run.Steps > run.Steps {
			run = c.run
		}
		if c.run.Messages != out.Run.Messages {
			out.Run.Messages = 0
		}
		out.link(fairlead.RelPossible, c, fairlead.Ambiguous)
		one = one && c.scope == fit[0].scope
	}
	if one {
		out.Scope = fit[0].scope
	}
	if same { // a step that was made again: it goes on from one of them, and all of them are of one run
		out.Run, out.Proven = run, one
	}
}

// resends links to the newest call with the same prompt. That alone proves nothing: two strangers may ask the same first
// question. It is the same conversation only if the prompt that is repeated holds an answer of ours already.
func (l *Linker) resends(r *Request, list []call, out *Linked) {
	list = narrow(r, list)
	a := fairlead.Derived
	if len(list) > 1 {
		a = fairlead.Ambiguous
	}
	last := list[len(list)-1]
	out.link(fairlead.RelResends, last, a)
	for _, c := range list {
		if !c.proven || c.scope != last.scope {
			return
		}
	}
	out.Scope, out.Proven, out.Run = last.scope, true, last.run
}

// toolResults links the results among new messages to the answers that asked for them.
func (l *Linker) toolResults(d [16]byte, msgs []fairlead.Message, out *Linked) {
	for i := out.Known + out.Returned; i < len(msgs); i++ {
		for _, p := range msgs[i].Parts {
			if p.Kind != fairlead.PartToolResult {
				continue
			}
			list := l.get(key{d, byToolCall, textHash(p.CallID)})
			if len(list) == 0 {
				out.Declared++
				out.Foreign = append(out.Foreign, i)
				continue
			}
			if list = l.preferParent(list, out); len(list) == 1 {
				out.link(fairlead.RelToolResult, list[0], fairlead.Derived)
				continue
			}
			for _, c := range list {
				out.link(fairlead.RelPossible, c, fairlead.Ambiguous)
			}
		}
	}
}

// preferParent settles call ids that several answers used: the call that is continued is the one meant.
func (l *Linker) preferParent(list []call, out *Linked) []call {
	for _, c := range list {
		for _, link := range out.Links {
			if link.To == c.id && (link.Rel == fairlead.RelContinues || link.Rel == fairlead.RelRefers) {
				return []call{c}
			}
		}
	}
	return list
}

// Beginning names a conversation by what its first n messages say.
func (r *Request) Beginning(n int) string {
	fresh := Request{Body: r.Body, Exchange: &fairlead.Exchange{Messages: r.Exchange.Messages[:n]}}
	if n == 0 {
		return ""
	}
	state := fresh.canonical(0, fairlead.Digest{})[n-1]
	return hex.EncodeToString(state[:])
}
