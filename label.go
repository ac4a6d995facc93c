package fairlead

import (
	"slices"
	"strings"
)

// An Integrity says who vouches for a piece of content, from the most to the least trusted.
type Integrity uint8

// The levels. The zero value is the one that nothing was joined to yet.
const (
	Operator  Integrity = iota // system prompts, configuration
	User                       // what the user wrote
	Vetted                     // what comes from a source that the operator vouches for
	Untrusted                  // everything else: tool results, documents, turns that nobody returned
)

var integrities = [...]string{"operator", "user", "vetted", "untrusted"}

// String gives the name that policies use.
func (i Integrity) String() string { return integrities[min(int(i), len(integrities)-1)] }

// ParseIntegrity reads the name that policies use.
func ParseIntegrity(s string) (Integrity, bool) {
	i := slices.Index(integrities[:], s)
	return Integrity(max(i, 0)), i >= 0
}

// A Label says how far a piece of content can be trusted and who may have it. It belongs to an occurrence: the same
// bytes in another place have a label of their own.
type Label struct {
	Integrity Integrity
	// Instructional marks content that reads like an instruction although nobody with authority wrote it.
	Instructional bool
	// Data are the names of the data labels on it, sorted, without repeats; at most [MaxData].
	Data []string
}

// MaxData is how many data labels one piece of content can carry. What would carry more carries [AllData] alone.
const MaxData = 32

// AllData is the data label that nobody may read: content with too many labels to tell apart.
const AllData = "*"

// Join gives the label of what is made from content of both labels: as little trusted as the less trusted, and with the
// data labels of both. It is commutative, associative, idempotent and monotone.
func (l Label) Join(m Label) Label {
	l.Integrity = max(l.Integrity, m.Integrity)
	l.Instructional = l.Instructional || m.Instructional
	switch {
	case len(m.Data) == 0:
	case len(l.Data) == 0:
		l.Data = m.Data
	default:
		l.Data = joinData(l.Data, m.Data)
	}
	return l
}

func joinData(a, b []string) []string {
	if slices.Contains(a, AllData) || slices.Contains(b, AllData) {
		return []string{AllData}
	}
	out := slices.Concat(a, b)
	slices.Sort(out)
	if out = slices.Compact(out); len(out) > MaxData {
		return []string{AllData}
	}
	return out
}

// Includes reports whether l is at least as restrictive as m in every respect.
func (l Label) Includes(m Label) bool {
	if l.Integrity < m.Integrity || m.Instructional && !l.Instructional {
		return false
	}
	if slices.Contains(l.Data, AllData) {
		return true
	}
	for _, d := range m.Data {
		if !slices.Contains(l.Data, d) {
			return false
		}
	}
	return true
}

// String gives the form of the Fairlead-Label header: "untrusted; instructional; data=a,b".
func (l Label) String() string {
	var b strings.Builder
	b.WriteString(l.Integrity.String())
	if l.Instructional {
		b.WriteString("; instructional")
	}
	if len(l.Data) > 0 {
		b.WriteString("; data=" + strings.Join(l.Data, ","))
	}
	return b.String()
}
