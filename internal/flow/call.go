package flow

import (
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/policy"
	"github.com/fairleadhq/fairlead/internal/text"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// A Provenance is what is known of one tool call.
type Provenance struct {
	Tool    string
	Classes []policy.Class
	// Known: somebody vouches for the classes. Inferred: they are a guess from the tool's name.
	Known, Inferred bool
	Profile         policy.Profile
	New             bool // was not on offer before the first untrusted content came in
	// Arguments in their order. The path "()" stands for the call itself, where it is the call as such that an
	// instruction asks for.
	Arguments []Argument
	values    map[string]any
}

// Call is the path of the pseudo-argument that stands for the call itself.
const Call = "()"

// An Argument is one value among a call's arguments.
type Argument struct {
	Path  string // with dots; the elements of an array have the path of the array
	Value string // cut to 400 bytes
	// Authority: it says to whom, where to or on what the tool acts. Sink: it matters if somebody else chose it.
	Authority, Sink bool
	Bound           fairlead.Label
	// Evidence are at most 8 places, the most trusted first and the least trusted last; none if it was found nowhere.
	Evidence   []Evidence
	Instructed bool // somebody without authority asked for it: see docs/flow.md
	short      bool // too short to say where it is from
}

// Evidence is one place that a value was taken from. Message counts from 0 in the request that the part came in with.
type Evidence struct {
	Message, Part int
	From          string // "operator", "user", "tool:read_file", "assistant"
	// Kind is "exact", "identifier" (in another spelling, or what it leads to), "decoded", "shingle" (a passage in
	// common) or "demand" (the instruction that asks for the call, where the value itself stands elsewhere or nowhere).
	Kind        string
	Label       fairlead.Label
	Span        fairlead.Span  // in the part's text
	Instruction *fairlead.Span // the instruction-like span around it, in the part's text
}

const maxEvidence = 8

// ToolCall traces the arguments of a call that the model makes after this conversation. offeredBefore says whether the
// tool was on offer before the first untrusted content came in.
func (c *Context) ToolCall(call fairlead.ToolCall, offeredBefore bool) *Provenance {
	c.prepare()
	p := &Provenance{Tool: call.Name, New: !offeredBefore && c.bound.Integrity == fairlead.Untrusted}
	p.Classes, p.Known, p.Inferred = c.rules.classify(call.Name)
	p.Profile = c.rules.profile(p.Classes)
	tool, _ := c.rules.tool(call.Name)
	t := tracer{Context: c, tool: tool, changes: !reads(p.Classes)}
	t.named = splitName(call.Name)
	for _, w := range t.named {
		if _, a := base(w); a != noAction {
			t.acts |= a.set()
		}
	}
	p.values = typed(tool.Arguments, call.Arguments)
	vals := leaves(call.Arguments)
	finds := make([]finding, len(vals))
	for i := range vals {
		finds[i] = t.trace(&vals[i])
	}
	t.judge(call.Name, vals, finds)
	for i := range vals {
		p.Arguments = append(p.Arguments, finds[i].argument)
	}
	if t.itself != nil {
		p.Arguments = append(p.Arguments, *t.itself)
	}
	return p
}

// reads reports whether a tool only looks something up, perhaps outside: what it is told matters where it is a link.
func reads(classes []policy.Class) bool {
	return slices.Contains(classes, policy.Read) && !slices.Contains(classes, policy.Write) && !slices.Contains(classes, policy.Irreversible)
}

// A tracer looks for the values of one call.
type tracer struct {
	*Context
	tool     Tool
	changes  bool // the tool does more than look something up
	named    []string
	acts     actions
	compared int
	itself   *Argument
	heard    map[string]bool // what said found
}

// said reports whether somebody with authority used a word.
func (t *tracer) said(w string) bool {
	hit, ok := t.heard[w]
	if !ok {
		if t.heard == nil {
			t.heard = map[string]bool{}
		}
		hit = t.asked(w)
		t.heard[w] = hit
	}
	return hit
}

// A spot is a region of a part, or of a view of it.
type spot struct {
	part, view, region int
}

// A finding is what was found of one value.
type finding struct {
	argument Argument
	trusted  bool   // somebody with authority wrote it, or a vetted source
	plain    []int  // untrusted parts that have it outside of what reads like an instruction
	spots    []spot // regions that have it
}

func (t *tracer) trace(v *value) finding {
	f := finding{argument: Argument{Path: v.path, Value: v.raw[:min(len(v.raw), keptValue)], Bound: t.bound}}
	a := &f.argument
	if v.rest {
		a.Authority, a.Sink = true, true
		t.beyond(&f)
		return f
	}
	a.Authority = !v.within && t.authority(v)
	a.Sink = a.Authority || t.changes
	if v.shape == shapeProse {
		t.prose(v, &f)
	} else {
		t.exact(v, &f)
		if len(f.argument.Evidence) == 0 && len(v.hosts) > 0 {
			t.host(v, &f)
		}
	}
	t.settle(v, &f)
	return f
}

// beyond notes that a value was not compared with all untrusted content, and so counts as coming from it.
func (t *tracer) beyond(f *finding) {
	label := fairlead.Label{Integrity: fairlead.Untrusted, Data: t.bound.Data}
	f.argument.Evidence = []Evidence{{Message: -1, Part: -1, From: "not compared", Kind: "exact", Label: label}}
	f.argument.Instructed = t.bound.Integrity == fairlead.Untrusted
}

func (t *tracer) authority(v *value) bool {
	if t.tool.Authority != nil {
		return slices.ContainsFunc(t.tool.Authority, func(name string) bool {
			return v.path == name || strings.HasPrefix(v.path, name+".")
		})
	}
	if !t.changes {
		return v.shape == shapeID && isLink(v.folded)
	}
	return v.shape == shapeID && looksOutside(v.folded) || authorityName(v.path) && v.shape != shapeProse
}

// exact looks for a value as such.
func (t *tracer) exact(v *value, f *finding) {
	for k := range t.parts {
		p := t.parts[k]
		if p.own || p.folded.Text == "" {
			continue
		}
		for n, form := range v.forms {
			kind := "exact"
			if n > 0 {
				kind = "identifier"
			}
			if t.in(k, -1, form, v.shape == shapeID, kind, f) {
				break
			}
		}
		for _, d := range v.decoded {
			t.in(k, -1, d, len(d) < proseLen, "decoded", f)
		}
		for n := range p.views {
			t.in(k, n, v.folded, v.shape == shapeID, "decoded", f)
		}
	}
}

// host looks in untrusted content for where a link leads that stands nowhere as such: whoever names the host chose where
// to, even if the model adds what to say. That somebody with authority names it says nothing for the rest of the link.
func (t *tracer) host(v *value, f *finding) {
	for _, h := range v.hosts {
		if t.said(h) {
			return
		}
		for k, p := range t.parts {
			if p.label.Integrity != fairlead.Untrusted || p.own {
				continue
			}
			find(p.folded.Text, h, false, func(i, j int) bool {
				start, end := p.folded.Origin(i, j)
				r := slices.IndexFunc(p.regions, func(r region) bool { return r.at.Start < end && start < r.at.End })
				ev := Evidence{Message: p.message, Part: p.index, From: p.from, Kind: "identifier", Label: p.label,
					Span: fairlead.Span{Start: p.offset + start, End: p.offset + end}}
				if r >= 0 {
					ev.Instruction = &fairlead.Span{Start: p.offset + p.regions[r].at.Start, End: p.offset + p.regions[r].at.End}
					f.spots = append(f.spots, spot{k, -1, r})
				} else {
					f.plain = append(f.plain, k)
				}
				f.argument.Evidence = append(f.argument.Evidence, ev)
				return len(f.argument.Evidence) < maxEvidence
			})
		}
		if len(f.argument.Evidence) > 0 {
			return
		}
	}
}

// sieving is what a text costs that need not be searched, in bytes that could have been compared.
const sieving = 32

// in looks for needle in a part, or in a view of it, and notes where it stands.
func (t *tracer) in(k, view int, needle string, id bool, kind string, f *finding) bool {
	p := t.parts[k]
	folded, regs := &p.folded, p.regions
	if t.compared += sieving; t.compared > MaxCompared || view < 0 && !p.sieve.may(needle) {
		return false
	}
	if view >= 0 {
		folded, regs = &p.views[view].folded, p.views[view].regions
	}
	if t.compared += len(folded.Text); t.compared > MaxCompared {
		return false
	}
	found, plain, last := false, false, -1
	untrusted := p.label.Integrity == fairlead.Untrusted
	n := 0
	find(folded.Text, needle, id, func(i, j int) bool {
		n++
		start, end := folded.Origin(i, j)
		r := -1
		if untrusted {
			r = slices.IndexFunc(regs, func(r region) bool { return r.at.Start < end && start < r.at.End })
		}
		if !found || r >= 0 && r != last {
			ev := Evidence{Message: p.message, Part: p.index, From: p.from, Kind: kind, Label: p.label}
			ev.Span = fairlead.Span{Start: p.offset + start, End: p.offset + end}
			if view >= 0 {
				at := p.views[view].at
				ev.Span = fairlead.Span{Start: p.offset + at.Start, End: p.offset + at.End}
			}
			if r >= 0 {
				sp := fairlead.Span{Start: p.offset + regs[r].at.Start, End: p.offset + regs[r].at.End}
				if view >= 0 {
					sp = ev.Span
				}
				ev.Instruction = &sp
				f.spots = append(f.spots, spot{k, view, r})
			}
			f.argument.Evidence = append(f.argument.Evidence, ev)
		}
		found, last = true, r
		plain = plain || untrusted && r < 0
		return untrusted && n < 50
	})
	if plain {
		f.plain = append(f.plain, k)
	}
	return found
}

// prose looks for free text: as a whole, by the passages that it shares, and by what it names.
func (t *tracer) prose(v *value, f *finding) {
	ms := marks(v.folded)
	for k, p := range t.parts {
		if p.own || p.folded.Text == "" {
			continue
		}
		if !t.in(k, -1, v.folded, false, "exact", f) {
			t.shared(k, v.folded, ms, f)
		}
	}
}

// settle sorts the evidence and says whether somebody with authority wrote the value.
func (t *tracer) settle(v *value, f *finding) {
	ev := f.argument.Evidence
	slices.SortStableFunc(ev, func(a, b Evidence) int { return int(a.Label.Integrity) - int(b.Label.Integrity) })
	if len(ev) == 0 {
		return
	}
	best, worst := ev[0].Label.Integrity, ev[len(ev)-1].Label.Integrity
	f.argument.short = v.shape == shapeShort
	if n := len(ev) - 1; n >= maxEvidence { // keep the worst, and an instruction
		k := slices.IndexFunc(ev, func(e Evidence) bool { return e.Instruction != nil })
		if k >= maxEvidence {
			ev[maxEvidence-2] = ev[k]
		}
		ev[maxEvidence-1] = ev[n]
		f.argument.Evidence = slices.Clone(ev[:maxEvidence])
	}
	switch {
	case v.shape == shapeShort && best < worst:
		// Too short to say which of the two it is.
		f.trusted = false
	case v.shape == shapeProse && ev[0].Kind == "shingle":
		f.trusted = false
	default:
		f.trusted = best < fairlead.Untrusted
	}
}

// shared looks for passages that free text has in common with a part.
func (t *tracer) shared(k int, folded string, ms []mark, f *finding) {
	p := t.parts[k]
	if t.compared += len(ms) * spread; t.compared > MaxCompared {
		return
	}
	for _, m := range ms {
		at, ok := lookup(p.marks, m.hash)
		if !ok || p.folded.Text[at.at:at.at+window] != folded[m.at:m.at+window] {
			continue
		}
		start, end := p.folded.Origin(int(at.at), int(at.at)+window)
		ev := Evidence{Message: p.message, Part: p.index, From: p.from, Kind: "shingle", Label: p.label,
			Span: fairlead.Span{Start: p.offset + start, End: p.offset + end}}
		f.argument.Evidence = append(f.argument.Evidence, ev)
		return
	}
}

// judge decides which arguments somebody instructed who has no authority. That is so for a value that matters if
//   - it names something, and stands only in what reads like an instruction, or elsewhere in the same document;
//   - or untrusted content asks for a deed of this kind while nobody with authority does, and the value stands in that
//     instruction, if only in other words; an address may also stand apart from it, or nowhere as it is.
//
// Where no value tells, an instruction that asks for the very call does.
func (t *tracer) judge(name string, vals []value, finds []finding) {
	wanted := t.wanted(t.acts)
	where, asked := Evidence{}, false
	if t.changes && !wanted {
		where, asked = t.asksFor()
	}
	hit := false
	for i := range vals {
		f, v := &finds[i], &vals[i]
		if !f.argument.Sink || f.trusted || v.rest {
			hit = hit || f.argument.Instructed
			continue
		}
		named := v.shape == shapeID || f.argument.Authority && v.shape != shapeShort && v.shape != shapeDate
		switch {
		case named && len(f.spots) > 0 && !t.independent(f):
			f.argument.Instructed = true
		case asked && v.address() && len(f.plain) > 0:
			f.argument.Instructed = true
			f.argument.Evidence = append(f.argument.Evidence, where)
		case asked && slices.ContainsFunc(f.spots, func(s spot) bool { return t.region(s).acts&t.acts != 0 }):
			f.argument.Instructed = true
		case named && len(f.argument.Evidence) == 0 && (t.missed != nil || t.compared > MaxCompared):
			t.beyond(f)
		case asked && f.argument.Authority && v.address() && len(f.argument.Evidence) == 0:
			// Nobody wrote it as it is: it may have been put together from pieces.
			f.argument.Instructed = true
			f.argument.Evidence = []Evidence{where}
		case asked:
			t.paraphrased(v, f)
		}
		hit = hit || f.argument.Instructed
	}
	// A call that carries what stands elsewhere has more behind it than the instruction.
	if t.changes && !hit && !slices.ContainsFunc(finds, func(f finding) bool { return f.trusted || len(f.plain) > 0 }) {
		t.demanded(name, wanted)
	}
}

// asksFor looks for untrusted content that asks for a deed like the call.
func (t *tracer) asksFor() (where Evidence, ok bool) {
	for _, p := range t.parts {
		for n := range p.regions {
			if r := &p.regions[n]; r.acts&t.acts != 0 {
				return p.instruction(r.at), true
			}
		}
		for n := range p.views {
			if slices.ContainsFunc(p.views[n].regions, func(r region) bool { return r.acts&t.acts != 0 }) {
				return p.instruction(p.views[n].at), true
			}
		}
	}
	return Evidence{}, false
}

// instruction is the evidence that an instruction of a part asks for something.
func (p *part) instruction(at fairlead.Span) Evidence {
	sp := fairlead.Span{Start: p.offset + at.Start, End: p.offset + at.End}
	return Evidence{Message: p.message, Part: p.index, From: p.from, Kind: "demand", Label: p.label, Span: sp, Instruction: &sp}
}

// paraphrased looks for a region that asks for what the call does and has all words of a value, though not in a row.
func (t *tracer) paraphrased(v *value, f *finding) {
	if len(f.argument.Evidence) > 0 || v.shape != shapeWord && v.shape != shapeProse || len(v.folded) > 400 {
		return
	}
	heavy := 0
	for w := range words(v.folded) {
		if len(w) >= 4 && !common[w] {
			heavy++
		}
	}
	if heavy == 0 {
		return
	}
	for _, p := range t.parts {
		for n := range p.regions {
			r := &p.regions[n]
			if t.compared += len(r.folded); r.acts&t.acts == 0 || t.compared > MaxCompared {
				continue
			}
			all := true
			for w := range words(strings.ReplaceAll(v.folded, "-", " ")) {
				if all = r.has(w); !all {
					break
				}
			}
			if !all {
				continue
			}
			f.argument.Instructed = true
			f.argument.Evidence = []Evidence{p.instruction(r.at)}
			return
		}
	}
}

func (t *tracer) region(s spot) *region {
	if s.view >= 0 {
		return &t.parts[s.part].views[s.view].regions[s.region]
	}
	return &t.parts[s.part].regions[s.region]
}

// independent reports whether an untrusted part that has no instruction with the value has it, too. Both lists are in the
// order of the parts.
func (t *tracer) independent(f *finding) bool {
	spots := f.spots
	for _, k := range f.plain {
		for len(spots) > 0 && spots[0].part < k {
			spots = spots[1:]
		}
		if len(spots) == 0 || spots[0].part != k {
			return true
		}
	}
	return false
}

// demanded looks for an instruction that asks for the call itself, which nobody with authority did.
func (t *tracer) demanded(name string, wanted bool) {
	folded := string(text.AppendFold(nil, name))
	long := len(folded) >= 6 && len(t.named) > 1 // a name, and no mere word
	for _, p := range t.parts {
		for n := range p.regions {
			r := &p.regions[n]
			explicit := false
			if long && !t.said(folded) {
				explicit = r.has(folded)
			}
			if !explicit && (wanted || r.acts&t.acts == 0 || !t.nouns(r)) {
				continue
			}
			t.itself = &Argument{Path: Call, Value: name, Sink: true, Instructed: true, Bound: t.bound, Evidence: []Evidence{p.instruction(r.at)}}
			return
		}
	}
}

// nouns reports whether a region names what the tool is about, and nobody with authority does: at least half of the
// nouns in its name.
func (t *tracer) nouns(r *region) bool {
	all, hit := 0, 0
	for _, w := range t.named {
		if _, a := base(w); a != noAction || len(w) < 4 || weakNouns[w] {
			continue
		}
		if t.said(w) || t.said(w+"s") {
			return false
		}
		all++
		for x := range words(r.folded) {
			if x == w || x == w+"s" || x+"s" == w {
				hit++
				break
			}
		}
	}
	return hit > 0 && 2*hit >= all
}

var weakNouns = set(`tool tools manager user users data info information item items system service api file files name current all`)

// Args is what policies see of the arguments.
func (p *Provenance) Args() policy.Args {
	out := policy.Args{Authority: policy.AuthorityNone, New: p.New, Values: p.values}
	worst := -1
	unknown := false
	var data fairlead.Label
	for i := range p.Arguments {
		a := &p.Arguments[i]
		for _, ev := range a.Evidence {
			data = data.Join(fairlead.Label{Data: ev.Label.Data})
		}
		if a.Instructed && !slices.Contains(out.Instructed, a.Path) {
			out.Instructed = append(out.Instructed, a.Path)
		}
		if !a.Authority {
			continue
		}
		if len(a.Evidence) == 0 {
			unknown = true
			continue
		}
		best := int(a.Evidence[0].Label.Integrity)
		if a.short {
			best = int(a.Evidence[len(a.Evidence)-1].Label.Integrity)
		}
		worst = max(worst, best)
	}
	switch {
	case worst == int(fairlead.Untrusted) || worst >= 0 && !unknown:
		out.Authority = fairlead.Integrity(worst).String()
	case unknown:
		out.Authority = policy.AuthorityUnknown
	}
	out.Data = data.Data
	return out
}

// Request fills in what a tool.call request says about the call: action, resource, profile, label, forbidden and
// arguments. The caller adds who asks and the circumstances.
func (c *Context) Request(p *Provenance) policy.Request {
	reader := []string{"tool:" + p.Tool}
	for _, class := range p.Classes {
		reader = append(reader, "class:"+string(class))
	}
	args := p.Args()
	args.Forbidden = c.rules.forbidden(args.Data, reader)
	return policy.Request{
		Action:   policy.ToolCall,
		Resource: policy.Resource{Name: p.Tool, Classes: p.Classes, Known: p.Known},
		Context: policy.Context{Profile: p.Profile, Label: c.bound, Args: args,
			Forbidden: c.rules.forbidden(c.bound.Data, reader)},
	}
}

// typed reads the top-level arguments that the operator gave a type. What has another type is left out, so that a policy
// that needs it sees that it is not there.
func typed(kinds map[string]string, arguments string) map[string]any {
	src := []byte(arguments)
	if len(kinds) == 0 || wire.Check(src, wire.Limits{}) != nil {
		return nil
	}
	out := map[string]any{}
	for n, v := range wire.Root(src).Members() {
		name := n.String()
		switch kind := v.Kind(); kinds[name] {
		case "string":
			if kind == '"' {
				out[name] = v.Text()
			}
		case "long":
			if i, ok := v.Int(); ok {
				out[name] = i
			}
		case "bool":
			if kind == 't' || kind == 'f' {
				out[name] = v.Bool()
			}
		case "set":
			if set, ok := texts(v); ok {
				out[name] = set
			}
		}
	}
	return out
}

// texts gives the strings of an array of at most [MaxValues] strings; one string counts as such an array.
func texts(v wire.Value) ([]string, bool) {
	if v.Kind() == '"' {
		return []string{v.Text()}, true
	}
	out := []string{}
	for e := range v.Elements() {
		if e.Kind() != '"' || len(out) == MaxValues {
			return nil, false
		}
		out = append(out, e.Text())
	}
	return out, v.Kind() == '['
}
