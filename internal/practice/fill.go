package practice

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead"
)

const (
	maxDepth  = 6   // of a filled value
	maxValues = 256 // of one filled value, so that references cannot multiply
)

// A node is one level of a JSON Schema, read leniently: what is not understood is as if absent.
type node struct {
	types      []string
	properties []property
	required   []string
	items      json.RawMessage
	enum       list[json.RawMessage]
	constant   json.RawMessage
	first      json.RawMessage // of anyOf, oneOf or allOf: the first that is not null
	format     string
	minimum    string
	ref        string
}

type property struct {
	name   string
	schema json.RawMessage
}

func parse(schema json.RawMessage) node {
	var raw struct {
		Type, Properties, Items, Const json.RawMessage
		Required                       list[string]
		Enum, AnyOf, OneOf, AllOf      list[json.RawMessage]
		Format                         string
		Minimum                        json.Number
		Ref                            string `json:"$ref"`
	}
	json.Unmarshal(schema, &raw) // wrong types leave their field empty
	n := node{required: raw.Required, items: raw.Items, enum: raw.Enum, constant: raw.Const, format: raw.Format,
		minimum: raw.Minimum.String(), ref: raw.Ref}
	var one string
	if json.Unmarshal(raw.Type, &one) == nil {
		n.types = []string{one}
	} else {
		json.Unmarshal(raw.Type, (*list[string])(&n.types))
	}
	for _, alternatives := range []list[json.RawMessage]{raw.AllOf, raw.OneOf, raw.AnyOf} {
		for _, a := range alternatives {
			if kind := typeOf(a); kind != "null" {
				n.first = a
				break
			}
		}
	}
	d := json.NewDecoder(bytes.NewReader(raw.Properties))
	if t, _ := d.Token(); t == json.Delim('{') {
		for d.More() && len(n.properties) < maxValues {
			name, _ := d.Token()
			p := property{}
			p.name, _ = name.(string)
			if d.Decode(&p.schema) != nil {
				break
			}
			n.properties = append(n.properties, p)
		}
	}
	return n
}

// typeOf reads only the type.
func typeOf(schema json.RawMessage) string {
	var raw struct{ Type string }
	json.Unmarshal(schema, &raw)
	return raw.Type
}

// kind is the type to fill, "null" only where there is no other.
func (n *node) kind() string {
	for _, t := range n.types {
		if t != "null" {
			return t
		}
	}
	switch {
	case len(n.types) > 0:
		return "null"
	case len(n.properties) > 0:
		return "object"
	case len(n.items) > 0:
		return "array"
	}
	return "string"
}

// A paramKind is what a parameter's name lets one expect.
type paramKind int

const (
	kindOther paramKind = iota
	kindID
	kindEmail
	kindURL
	kindBody
	kindTitle
)

var kindWords = []struct {
	kind  paramKind
	words map[string]bool
}{
	{kindEmail, setOf("to email mail recipient recipients address receiver cc")},
	{kindURL, setOf("url uri link endpoint webhook href website destination target host")},
	{kindTitle, setOf("subject title headline")},
	{kindBody, setOf("body content message text data payload html note comment description reason query question prompt input q")},
}

func kindOf(name string) paramKind {
	parts := words(name)
	if len(parts) > 0 {
		switch parts[len(parts)-1] {
		case "id", "number", "no", "ref", "reference", "key", "code":
			return kindID
		}
	}
	for _, k := range kindWords {
		for _, w := range parts {
			if k.words[w] {
				return k.kind
			}
		}
	}
	return kindOther
}

// recipient returns the parameter that takes an address, "" if the tool has none, and how well it fits: an e-mail
// address into an e-mail parameter, or a URL into a URL parameter, counts 2, the other way round 1.
func recipient(schema json.RawMessage, email bool) (name string, fits int) {
	n := parse(schema)
	kinds := []paramKind{kindURL, kindEmail}
	if email {
		kinds = []paramKind{kindEmail, kindURL}
	}
	for i, k := range kinds {
		if p := n.textParam(k); p != "" {
			return p, 2 - i
		}
	}
	return "", 0
}

// textParam returns the first parameter of a kind that takes text.
func (n *node) textParam(k paramKind) string {
	for _, p := range n.properties {
		if kindOf(p.name) == k && takesText(p.schema, 0) {
			return p.name
		}
	}
	return ""
}

// verbatimParam returns the parameter for a sentence of any content: a body, another text, or one that the tool does
// not have.
func (n *node) verbatimParam() string {
	if p := n.textParam(kindBody); p != "" {
		return p
	}
	if p := n.textParam(kindTitle); p != "" {
		return p
	}
	for _, required := range []bool{true, false} {
		for _, p := range n.properties {
			if takesText(p.schema, 0) && (!required || slices.Contains(n.required, p.name)) {
				return p.name
			}
		}
	}
	return "note"
}

func takesText(schema json.RawMessage, depth int) bool {
	n := parse(schema)
	if k := n.kind(); len(n.enum) > 0 || len(n.constant) > 0 || n.ref != "" || k != "string" && k != "array" {
		return false
	} else if k == "array" {
		items := parse(n.items)
		return items.kind() == "string" && len(items.enum) == 0
	}
	return len(n.first) == 0 || depth < maxDepth && takesText(n.first, depth+1)
}

// A filler makes values for a schema out of what a text mentions, and failing that the whole conversation.
type filler struct {
	root   json.RawMessage
	found  facts
	rest   facts
	budget int
}

func (c *conversation) filler(root json.RawMessage, text string) *filler {
	var all strings.Builder
	for i := len(c.turns) - 1; i >= 0 && all.Len() < maxRead; i-- {
		if t := c.turns[i]; t.role == fairlead.RoleUser || t.role == fairlead.RoleTool {
			all.WriteString(flatten(t.text[:min(len(t.text), maxRead)]) + "\n")
		}
	}
	return &filler{root: root, found: find(text), rest: find(all.String()), budget: maxValues}
}

// object fills the required parameters of an object and those in set, in the schema's order. Where nothing is
// required, it fills the first.
func (f *filler) object(schema json.RawMessage, set map[string]string, depth int) []byte {
	n := parse(schema)
	var b bytes.Buffer
	b.WriteByte('{')
	put := func(name string, value []byte) {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.Write(encode(name))
		b.WriteByte(':')
		b.Write(value)
	}
	required := map[string]bool{}
	for _, name := range n.required {
		required[name] = true
	}
	known := map[string]bool{}
	for i, p := range n.properties {
		if known[p.name] {
			continue
		}
		known[p.name] = true
		p1 := parse(p.schema)
		if text, ok := set[p.name]; ok && p1.kind() == "array" {
			put(p.name, encode([]string{text}))
		} else if ok {
			put(p.name, encode(text))
		} else if required[p.name] || len(required) == 0 && len(set) == 0 && i == 0 {
			put(p.name, f.value(p.name, p.schema, depth+1))
		}
	}
	for _, name := range n.required {
		if !known[name] && set[name] == "" {
			known[name] = true
			put(name, f.value(name, nil, depth+1))
		}
	}
	if text, ok := set["note"]; ok && !known["note"] {
		put("note", encode(text))
	}
	b.WriteByte('}')
	return b.Bytes()
}

// value fills any schema.
func (f *filler) value(name string, schema json.RawMessage, depth int) []byte {
	if f.budget--; depth > maxDepth || f.budget < 0 {
		return []byte("null")
	}
	n := parse(schema)
	for hops := 0; n.ref != "" && hops < maxDepth; hops++ {
		schema = resolve(f.root, n.ref)
		n = parse(schema)
	}
	switch {
	case len(n.constant) > 0:
		return n.constant
	case len(n.enum) > 0:
		return f.pick(n.enum)
	case len(n.first) > 0 && len(n.properties) == 0:
		return f.value(name, n.first, depth+1)
	}
	switch n.kind() {
	case "object":
		return f.object(schema, nil, depth)
	case "array":
		return append(append([]byte{'['}, f.value(name, n.items, depth+1)...), ']')
	case "integer", "number":
		return f.number(n.kind() == "integer", n.minimum)
	case "boolean":
		return []byte("true")
	case "null":
		return []byte("null")
	}
	return encode(f.text(name, n.format))
}

// resolve follows a reference into the same schema: "#" or "#/$defs/Name".
func resolve(root json.RawMessage, ref string) json.RawMessage {
	if ref == "#" {
		return root
	}
	path, ok := strings.CutPrefix(ref, "#/")
	for _, step := range strings.SplitN(path, "/", maxDepth) {
		var level map[string]json.RawMessage
		if !ok || json.Unmarshal(root, &level) != nil {
			return nil
		}
		root = level[step]
	}
	return root
}

// pick takes the first value that the text mentions, or else the first.
func (f *filler) pick(values []json.RawMessage) []byte {
	low := strings.ToLower(f.found.text)
	for _, v := range values[:min(len(values), maxValues)] {
		var s string
		if json.Unmarshal(v, &s) == nil && s != "" && strings.Contains(low, strings.ToLower(s)) {
			return v
		}
	}
	return values[0]
}

func (f *filler) number(whole bool, minimum string) []byte {
	for i, id := range f.found.ids {
		v, err := strconv.ParseFloat(id, 64)
		if err == nil && (!whole || v == float64(int64(v))) {
			f.found.ids = slices.Delete(f.found.ids, i, i+1)
			return encode(v)
		}
	}
	if minimum != "" {
		return []byte(minimum)
	}
	return []byte("1")
}

// take removes the first fact of the first list that has one.
func take(lists ...*[]string) (string, bool) {
	for _, l := range lists {
		if len(*l) > 0 {
			s := (*l)[0]
			*l = (*l)[1:]
			return s, true
		}
	}
	return "", false
}

func (f *filler) text(name, format string) string {
	t, r := &f.found, &f.rest
	lists, fallback := []*[]string{&t.quotes, &t.names, &t.ids, &t.urls, &t.emails}, t.text
	switch k := kindOf(name); {
	case format == "email" || format == "" && k == kindEmail:
		lists, fallback = []*[]string{&t.emails, &r.emails}, "someone@example.com"
	case format == "uri" || format == "url" || format == "" && k == kindURL:
		lists, fallback = []*[]string{&t.urls, &r.urls}, "https://example.com/"
	case format == "date":
		return "2026-01-01"
	case format == "date-time":
		return "2026-01-01T00:00:00Z"
	case format == "time":
		return "00:00:00Z"
	case format == "uuid":
		return "00000000-0000-4000-8000-000000000000"
	case k == kindID:
		lists, fallback = []*[]string{&t.ids, &t.quotes, &r.ids, &t.names}, firstRunes(t.text, 64)
	case k == kindBody:
		lists = []*[]string{&t.quotes}
	case k == kindTitle:
		lists, fallback = []*[]string{&t.quotes}, firstRunes(t.text, 60)
	}
	if s, ok := take(lists...); ok {
		return s
	}
	return fallback
}
