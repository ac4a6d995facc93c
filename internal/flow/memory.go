package flow

import (
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/text"
)

// A Memory remembers which answers were returned with which label, by fingerprints of their long passages, so that an
// answer that comes back from storage, from another conversation or from another agent keeps its label. Passages of 64
// folded bytes and more are recognised. It holds no text. It is safe for concurrent use.
//
// Bounds: 2 × 131,072 fingerprints (about 10 MB), the oldest forgotten first; 2,048 of one answer.
type Memory struct {
	base     uint64 // of the fingerprints: nobody outside can make texts that collide
	mu       sync.Mutex
	new, old *generation
	labelled bool // some answer ever had a data label
}

// passages gives the fingerprints of what somebody with authority wrote, which an answer may repeat.
func (p *part) passages(base uint64) []uint64 {
	var out []uint64
	winnow(string(text.AppendFold(nil, p.text)), passageWindow, passageSpread, base, func(h uint64, _ int) { out = append(out, h) })
	return out
}

// worthwhile reports whether to look something up can lead to anything. Of what is untrusted already, only a data label
// could be new.
func (m *Memory) worthwhile(untrusted bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.labelled || !untrusted && len(m.new.marks)+len(m.old.marks) > 0
}

// passage is how many bytes of folded text a passage has that is recognised for certain.
const passage = 64

const (
	passageWindow = 48
	passageSpread = passage - passageWindow + 1
	maxMarks      = 2048
	generationLen = 1 << 17
)

type generation struct {
	marks   map[uint64]int32 // index into answers
	answers []remembered
}

type remembered struct {
	label fairlead.Label
	id    fairlead.ID
}

// NewMemory gives an empty memory.
func NewMemory() *Memory {
	return &Memory{base: rand.Uint64()<<8 | 0xb3, new: newGeneration(), old: newGeneration()}
}

func newGeneration() *generation { return &generation{marks: map[uint64]int32{}} }

// Learn remembers an answer. One that is no less trusted than what a user writes, and carries no data label, is not
// worth remembering.
func (m *Memory) Learn(text string, label fairlead.Label, id fairlead.ID) {
	m.learn(text, label, id, nil)
}

// Remember has m learn an answer that was made from this conversation, with the label of the conversation. Passages
// that somebody with authority wrote in it are left out: that a model repeats them makes them no less theirs.
func (c *Context) Remember(m *Memory, answer string, id fairlead.ID) {
	m.learn(answer, c.bound, id, c)
}

func (m *Memory) learn(s string, label fairlead.Label, id fairlead.ID, c *Context) {
	if label.Integrity <= fairlead.User && len(label.Data) == 0 {
		return
	}
	if len(s) < passageWindow {
		return
	}
	folded := string(text.AppendFold(nil, s[:min(len(s), MaxText)]))
	known := map[uint64]bool{}
	if c != nil && len(folded) >= passage {
		for _, p := range c.parts {
			if !p.own && p.label.Integrity <= fairlead.User && len(p.label.Data) == 0 {
				for _, h := range p.passages(m.base) {
					known[h] = true
				}
			}
		}
	}
	var hashes []uint64
	winnow(folded, passageWindow, passageSpread, m.base, func(h uint64, _ int) {
		if len(hashes) < maxMarks && !known[h] {
			hashes = append(hashes, h)
		}
	})
	if len(hashes) == 0 {
		return
	}
	label.Data = slices.Clone(label.Data)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.new.marks)+len(hashes) > generationLen {
		m.old, m.new = m.new, newGeneration()
	}
	m.labelled = m.labelled || len(label.Data) > 0
	g := m.new
	g.answers = append(g.answers, remembered{label, id})
	for _, h := range hashes {
		g.marks[h] = int32(len(g.answers) - 1)
	}
}

// Lookup gives the join of the labels of the answers that text holds a long passage of, and the id of one of them.
func (m *Memory) Lookup(s string) (label fairlead.Label, id fairlead.ID, ok bool) {
	if len(s) < passageWindow {
		return label, id, false
	}
	var hashes []uint64
	winnow(string(text.AppendFold(nil, s[:min(len(s), MaxText)])), passageWindow, passageSpread, m.base, func(h uint64, _ int) { hashes = append(hashes, h) })
	m.mu.Lock()
	defer m.mu.Unlock()
	last := remembered{}
	for _, h := range hashes {
		for _, g := range [...]*generation{m.new, m.old} {
			k, found := g.marks[h]
			if !found {
				continue
			}
			if r := g.answers[k]; !ok || r.id != last.id {
				label, last, ok = label.Join(r.label), r, true
			}
			break
		}
	}
	return label, last.id, ok
}
