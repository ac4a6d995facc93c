package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

const (
	maxDepth   = 32     // of nesting in a configuration file
	maxEntries = 10_000 // of a list or of a map
)

// A reader fills structs from YAML nodes and collects what is wrong.
type reader struct {
	getenv func(string) string
	pos    positions
	err    *ConfigError
}

// read fills c, which holds the defaults. Package yaml only parses: what the values mean is decided here.
func (r *reader) read(data []byte, c *Config) {
	if len(data) > maxConfig {
		r.err.add(position{}, "", "larger than 1 MiB")
		return
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithV4Defaults(),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		r.syntax(err)
		return
	}
	var doc, next yaml.Node
	if err := loader.Load(&doc); err == io.EOF {
		return // nothing but comments
	} else if err != nil {
		r.syntax(err)
		return
	}
	if err := loader.Load(&next); err == nil {
		r.err.add(position{line: next.Line}, "", "a configuration is one document: remove what follows the line ---")
		return
	} else if err != io.EOF {
		r.syntax(err)
		return
	}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	r.value(root, reflect.ValueOf(c).Elem(), "", "")
}

// syntax reports that the file is not YAML.
func (r *reader) syntax(err error) {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		r.err.add(position{}, "", "not YAML: %v", err)
		return
	}
	text := "not YAML: " + load.Message
	if strings.HasPrefix(load.Message, "unknown anchor") { // the rest of the message may be a secret that begins with *
		text = "anchors and aliases are not supported; put text that begins with * in quotes"
	}
	r.err.add(position{line: load.Mark.Line}, "", "%s", text)
}

// value stores the value of n in v. key is its dotted name; tag holds the rules of the struct field that v stands in.
func (r *reader) value(n *yaml.Node, v reflect.Value, key string, tag reflect.StructTag) {
	at := position{line: n.Line}
	r.pos[key] = at
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.err.add(at, key, "anchors and aliases are not supported")
		return
	case n.Style&yaml.TaggedStyle != 0:
		r.err.add(at, key, "tags are not supported")
		return
	}
	null := n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
	switch v.Kind() {
	case reflect.Struct:
		if null || r.kind(n, yaml.MappingNode, key) {
			r.structure(n, v, key) // also without keys: some may be required
		}
	case reflect.Map:
		if !null && r.kind(n, yaml.MappingNode, key) {
			r.mapping(n, v, key)
		}
	case reflect.Slice:
		if !null && r.kind(n, yaml.SequenceNode, key) {
			r.list(n, v, key)
		}
	default:
		switch {
		case null:
			r.err.add(at, key, "has no value: give one or remove the key")
		case r.kind(n, yaml.ScalarNode, key):
			if err := r.scalar(n, v, tag); err != nil {
				r.err.add(at, key, "%v", err)
			}
		}
	}
}

var kindNames = map[yaml.Kind]string{yaml.MappingNode: "keys with values", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}

func (r *reader) kind(n *yaml.Node, want yaml.Kind, key string) bool {
	if n.Kind == want {
		return true
	}
	r.err.add(position{line: n.Line}, key, "expected %s, not %s", kindNames[want], kindNames[n.Kind])
	return false
}

// entries calls f for each key of a mapping that can be used and was not there before.
func (r *reader) entries(n *yaml.Node, key string, f func(k, value *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		at := position{line: k.Line}
		if k.Kind != yaml.ScalarNode || k.Anchor != "" || k.Style&yaml.TaggedStyle != 0 {
			r.err.add(at, key, "a key has to be plain text")
			continue
		}
		if line, twice := seen[k.Value]; twice {
			r.err.add(at, join(key, k.Value), "duplicate key, it is already on line %d", line)
			continue
		}
		seen[k.Value] = k.Line
		f(k, value)
	}
}

func (r *reader) structure(n *yaml.Node, v reflect.Value, key string) {
	fields := fieldsOf(v.Type())
	r.entries(n, key, func(k, value *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == k.Value })
		if i >= 0 {
			r.value(value, v.Field(fields[i].index), join(key, k.Value), fields[i].tag)
			return
		}
		if r.err.full() {
			r.err.More++
			return
		}
		var names []string
		for _, f := range fields {
			names = append(names, f.name)
		}
		text := "unknown key, the keys here are " + strings.Join(names, ", ")
		if near := nearest(k.Value, names); near != "" {
			text = fmt.Sprintf("unknown key, did you mean %q?", near)
		}
		r.err.add(position{line: k.Line}, join(key, k.Value), "%s", text)
	})
	for _, f := range fields {
		if fv := v.Field(f.index); f.tag.Get("required") != "" && fv.IsZero() {
			if _, given := r.pos[join(key, f.name)]; !given {
				r.err.add(position{line: n.Line}, key, "%s is missing", f.name)
			}
		}
	}
}

// mapping fills a map whose elements are structs. An entry that is there already keeps what n does not mention.
func (r *reader) mapping(n *yaml.Node, v reflect.Value, key string) {
	if r.tooMany(n, len(n.Content)/2, key) {
		return
	}
	r.entries(n, key, func(k, value *yaml.Node) {
		elem := reflect.New(v.Type().Elem()).Elem()
		if old := v.MapIndex(reflect.ValueOf(k.Value)); old.IsValid() {
			elem.Set(old)
		} else {
			setDefaults(elem)
		}
		name := join(key, k.Value)
		r.value(value, elem, name, "")
		r.pos[name] = position{line: k.Line}
		v.SetMapIndex(reflect.ValueOf(k.Value), elem)
	})
}

func (r *reader) tooMany(n *yaml.Node, entries int, key string) bool {
	if entries > maxEntries {
		r.err.add(position{line: n.Line}, key, "%d entries, more than the %d that are supported", entries, maxEntries)
	}
	return entries > maxEntries
}

func (r *reader) list(n *yaml.Node, v reflect.Value, key string) {
	if r.tooMany(n, len(n.Content), key) {
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		if list.Index(i).Kind() == reflect.Struct {
			setDefaults(list.Index(i))
		}
		r.value(item, list.Index(i), fmt.Sprintf("%s[%d]", key, i), "")
	}
	v.Set(list)
}

// scalar stores a single value. Its errors do not quote a value that may come from the environment or be a secret.
func (r *reader) scalar(n *yaml.Node, v reflect.Value, tag reflect.StructTag) error {
	is := n.ShortTag()
	switch v.Interface().(type) {
	case bool:
		if is != "!!bool" || n.Value != "true" && n.Value != "false" {
			return errors.New("expected true or false")
		}
		v.SetBool(n.Value == "true")
		return nil
	case string, Secret:
		if is != "!!str" {
			return errors.New("expected text: put the value in quotes")
		}
		text := n.Value
		if enum := tag.Get("enum"); enum != "" {
			if err := oneOf(text, strings.Split(enum, ",")); err != nil {
				return err
			}
		} else {
			var err error
			if text, err = expand(text, r.getenv); err != nil {
				return err
			}
		}
		if text == "" {
			return errors.New("is empty: give a value or remove the key")
		}
		v.SetString(text)
		return nil
	}
	if _, money := v.Interface().(Money); is != "!!str" && is != "!!int" && !(money && is == "!!float") {
		return errors.New("expected " + expected(v))
	}
	return setNumber(v, n.Value, tag)
}

// join appends a key of the file to a dotted name. A key that is not plain is quoted, so that it cannot pass for more
// than one; a long one is cut.
func join(above, key string) string {
	if key == "" || strings.Trim(strings.ToLower(key), "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		key = clip(key)
	} else if len(key) > 64 {
		key = key[:64] + "…"
	}
	if above == "" {
		return key
	}
	return above + "." + key
}

// clip quotes the beginning of s.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// A field is a key of the file: an exported field of a configuration struct.
type field struct {
	name  string
	index int
	typ   reflect.Type
	tag   reflect.StructTag
}

func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			fields = append(fields, field{f.Tag.Get("yaml"), i, f.Type, f.Tag})
		}
	}
	return fields
}

// setDefaults sets every field of a struct to what its default tag says. A default that does not fit its field is a
// mistake of ours and panics, in every run.
func setDefaults(v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		fv, text := v.Field(f.index), f.tag.Get("default")
		var err error
		switch {
		case fv.Kind() == reflect.Struct:
			setDefaults(fv)
		case text == "":
		case fv.Kind() == reflect.String:
			fv.SetString(text)
		case fv.Kind() == reflect.Bool:
			fv.SetBool(text == "true")
		default:
			err = setNumber(fv, text, f.tag)
		}
		if err != nil {
			panic(fmt.Sprintf("default of %s: %v", f.name, err))
		}
	}
}
