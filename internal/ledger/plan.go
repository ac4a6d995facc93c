package ledger

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"sync"

	"github.com/fairleadhq/fairlead"
)

// A Layout says which parts of a body are likely to have been recorded before.
type Layout struct {
	Chain Chain
	Units []fairlead.Span // spans that clients send again and again: tool definitions, system prompts
}

// A Chain is the conversation in a request: its messages and, for each, what stands for it and for everything up to it.
type Chain struct {
	Messages []fairlead.Message
	Items    []fairlead.Digest // SHA-256 of the message with the separator before it
	States   []fairlead.Digest // SHA-256 of the state before and the item
}

// ChainOf hashes the messages of body.
func ChainOf(body []byte, messages []fairlead.Message) Chain {
	c := Chain{Messages: messages, Items: make([]fairlead.Digest, len(messages)), States: make([]fairlead.Digest, len(messages))}
	var link [64]byte
	for i, m := range messages {
		c.Items[i] = sha256.Sum256(body[m.Lead:m.Span.End])
		copy(link[32:], c.Items[i][:])
		c.States[i] = sha256.Sum256(link[:])
		copy(link[:], c.States[i][:])
	}
	return c
}

// What an index key stands for.
const (
	keyChain = 'c' // a conversation up to a message
	keyUnit  = 'u' // a message, a unit or a long string
)

type indexKey struct {
	scope int64
	kind  byte
	hash  fairlead.Digest
}

// A ref is where bytes were recorded. depth is how many blobs have to be opened to rebuild them.
type ref struct {
	blob   int64
	off, n int64
	depth  int
}

type learned struct {
	key indexKey
	ref ref
}

// indexSize bounds each of the two generations of an index: about 10 MB.
const indexSize = 1 << 16

// sharedAfter is in how many scopes a text must be seen before it counts as the application's own, not a person's.
const sharedAfter = 20

// index remembers, in memory only, where parts of content were recorded. What is forgotten is stored again: that costs
// bytes, never truth. It learns only from what is durable.
type index struct {
	mu       sync.Mutex
	new, old map[indexKey]ref
	seen     map[indexKey][]int64 // candidates for the shared scope, and the scopes that sent them
}

func newIndex() *index {
	return &index{new: map[indexKey]ref{}, old: map[indexKey]ref{}, seen: map[indexKey][]int64{}}
}

func (x *index) get(k indexKey) (ref, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r, ok := x.new[k]
	if !ok {
		if r, ok = x.old[k]; ok {
			x.put(k, r)
		}
	}
	return r, ok
}

func (x *index) put(k indexKey, r ref) {
	if len(x.new) >= indexSize {
		x.old, x.new = x.new, make(map[indexKey]ref, indexSize)
	}
	x.new[k] = r
}

// learn takes in what is now durable.
func (x *index) learn(list []learned) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, l := range list {
		x.put(l.key, l.ref)
	}
}

// common notes that a scope has sent a text, and reports whether it has now been seen in enough scopes to be shared.
func (x *index) common(app, scope int64, hash fairlead.Digest) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := indexKey{app, keyUnit, hash}
	scopes := x.seen[k]
	if slices.Contains(scopes, scope) {
		return false
	}
	if len(scopes)+1 >= sharedAfter {
		delete(x.seen, k)
		return true
	}
	if len(x.seen) >= 1<<13 {
		clear(x.seen) // rare, and costs only a later start of sharing
	}
	x.seen[k] = append(scopes, scope)
	return false
}

// minString is the length from which a JSON string is worth finding again.
const minString = 32

// maxDepth is how deep references may go before the messages are referred to one by one again.
const maxDepth = 32

// A planner decides how a body is recorded: which bytes literally, which by reference.
type planner struct {
	v      *Vault
	scope  *Scope
	body   []byte
	ops    []op
	at     int64 // how much of the body the ops cover
	shared []*Blob
	again  bool      // only learn: nothing is stored
	found  []learned // with blob 0: to be filled in with the blob's number
}

// item is a span that may have been recorded before.
type item struct {
	span   fairlead.Span
	hash   fairlead.Digest
	common bool // may go to the shared scope
}

func (p *planner) plan(l *Layout) {
	if l != nil {
		depth, prefix := p.prefix(&l.Chain)
		items := make([]item, 0, len(l.Units)+len(l.Chain.Messages)-prefix)
		for i, m := range l.Chain.Messages[prefix:] {
			items = append(items, item{fairlead.Span{Start: m.Lead, End: m.Span.End}, l.Chain.Items[prefix+i], m.Role == fairlead.RoleSystem})
		}
		for _, u := range l.Units {
			items = append(items, item{u, sha256.Sum256(p.body[u.Start:u.End]), true})
		}
		slices.SortFunc(items, func(a, b item) int { return a.span.Start - b.span.Start })
		p.items(items, l, prefix)
		if n := len(l.Chain.Messages); n > 0 {
			first := l.Chain.Messages[0].Lead
			p.found = append(p.found, learned{indexKey{p.scope.ID, keyChain, l.Chain.States[n-1]},
				ref{off: int64(first), n: int64(l.Chain.Messages[n-1].Span.End - first), depth: depth + 1}})
		}
	}
	p.literal(int64(len(p.body)))
}

// prefix finds the longest part of the conversation that was recorded as such. prefixRef is covered by items.
func (p *planner) prefix(c *Chain) (depth, n int) {
	for n := len(c.Messages); n > 0; n-- {
		r, ok := p.v.index.get(indexKey{p.scope.ID, keyChain, c.States[n-1]})
		if !ok {
			continue
		}
		span := fairlead.Span{Start: c.Messages[0].Lead, End: c.Messages[n-1].Span.End}
		if r.depth >= maxDepth || r.n != int64(span.Len()) {
			break
		}
		return r.depth, n
	}
	return 0, 0
}

// items covers the body up to the end of the last item.
func (p *planner) items(items []item, l *Layout, prefix int) {
	if prefix > 0 {
		c := &l.Chain
		r, _ := p.v.index.get(indexKey{p.scope.ID, keyChain, c.States[prefix-1]})
		whole := item{span: fairlead.Span{Start: c.Messages[0].Lead, End: c.Messages[prefix-1].Span.End}}
		i, _ := slices.BinarySearchFunc(items, whole.span.Start, func(it item, at int) int { return it.span.Start - at })
		for _, it := range items[:i] {
			p.item(it)
		}
		if r.n == int64(whole.span.Len()) && int64(whole.span.Start) >= p.at {
			p.literal(int64(whole.span.Start))
			p.copy(r)
		}
		items = items[i:]
	}
	for _, it := range items {
		p.item(it)
	}
}

func (p *planner) item(it item) {
	if int64(it.span.Start) < p.at {
		return // overlaps what came before: it is covered
	}
	p.literal(int64(it.span.Start))
	n := int64(it.span.Len())
	key := indexKey{p.scope.ID, keyUnit, it.hash}
	if r, ok := p.v.index.get(key); ok && r.n == n {
		p.copy(r)
		return
	}
	if p.scope.App != nil && it.common && n >= minString && !p.again {
		shared := indexKey{p.scope.App.ID, keyUnit, it.hash}
		r, ok := p.v.index.get(shared)
		if !ok && p.v.index.common(p.scope.App.ID, p.scope.ID, it.hash) {
			b := p.v.seal(p.scope.App, "shared", p.body[it.span.Start:it.span.End], []op{{0, 0, n}}, nil)
			r, ok = ref{blob: b.Content.Blob, n: n}, true
			b.learned = []learned{{shared, r}}
			p.shared = append(p.shared, b)
		}
		if ok && r.n == n {
			p.copy(r)
			return
		}
	}
	p.literal(int64(it.span.End))
	if n >= minString {
		p.found = append(p.found, learned{key, ref{off: int64(it.span.Start), n: n, depth: 1}})
	}
}

func (p *planner) copy(r ref) {
	p.ops = append(p.ops, op{r.blob, r.off, r.n})
	p.at += r.n
}

// literal covers the body up to end with its own bytes, but for long strings that were recorded before.
func (p *planner) literal(end int64) {
	start := p.at
	flush := func(to int64) {
		if to > start {
			p.ops = append(p.ops, op{0, start, to - start})
		}
	}
	for i := start; i < end; {
		q := bytes.IndexByte(p.body[i:end], '"')
		if q < 0 {
			break
		}
		open := i + int64(q) + 1
		n := stringLen(p.body[open:end])
		if n < 0 {
			break
		}
		i = open + n + 1
		if n < minString {
			continue
		}
		key := indexKey{p.scope.ID, keyUnit, sha256.Sum256(p.body[open : open+n])}
		if r, ok := p.v.index.get(key); ok && r.n == n && r.depth < maxDepth {
			flush(open)
			p.ops = append(p.ops, op{r.blob, r.off, n})
			start = open + n
			continue
		}
		p.found = append(p.found, learned{key, ref{off: open, n: n}})
	}
	flush(end)
	p.at = end
}

// stringLen is the length of the JSON string content that b starts with, or -1.
func stringLen(b []byte) int64 {
	for i := 0; ; {
		q := bytes.IndexByte(b[i:], '"')
		if q < 0 {
			return -1
		}
		i += q
		slashes := 0
		for i-slashes > 0 && b[i-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return int64(i)
		}
		i++
	}
}

// learn hands what was found to the blob, to be remembered once it is durable.
func (p *planner) learn(b *Blob) {
	for i := range p.found {
		p.found[i].ref.blob = b.Content.Blob
	}
	b.learned = p.found
}
