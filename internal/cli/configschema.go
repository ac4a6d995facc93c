package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// An object is a JSON object that keeps the order of its members.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON writes the members in order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		for _, part := range []any{m.name, m.value} {
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(part); err != nil {
				return nil, err
			}
			b.Truncate(b.Len() - 1) // the encoder's line end
			b.WriteByte(':')
		}
		b.Truncate(b.Len() - 1)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// writeSchema prints the JSON Schema (draft 2020-12) of a configuration file, for editors. What depends on more than one
// key is left to the reader.
func writeSchema(w io.Writer) error {
	s := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "Configuration of Fairlead"},
	}
	s = append(s, schemaOf(reflect.TypeFor[Config]())...)
	provider := schemaOf(reflect.TypeFor[Provider]())
	s = append(s, member{"$defs", object{{"Provider", slices.DeleteFunc(provider, func(m member) bool { return m.name == "required" })}}})
	return writeJSON(w, s)
}

func schemaOf(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[Size]():
		return object{{"type", []string{"string", "integer"}}, {"pattern", "^[0-9]+ *([KMG]iB)?$"}}
	case reflect.TypeFor[Duration]():
		return object{{"type", "string"}, {"pattern", `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`}}
	}
	switch t {
	case reflect.TypeFor[Count]():
		return object{{"type", "integer"}}
	case reflect.TypeFor[Money]():
		return object{{"type", []string{"number", "string"}}, {"minimum", 0}}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{{"type", "boolean"}}
	case reflect.Int:
		return object{{"type", "integer"}}
	case reflect.String:
		return object{{"type", "string"}, {"minLength", 1}}
	case reflect.Slice:
		return object{{"type", "array"}, {"maxItems", maxEntries}, {"items", schemaOf(t.Elem())}}
	case reflect.Map: // of providers: those that are built in have nothing that is required
		var props object
		for _, name := range slices.Sorted(maps.Keys(builtin())) {
			props = append(props, member{name, object{{"$ref", "#/$defs/Provider"}}})
		}
		return object{
			{"type", "object"}, {"maxProperties", maxEntries},
			{"propertyNames", object{{"pattern", "^[a-z0-9][a-z0-9-]{0,31}$"}, {"not", object{{"enum", reserved}}}}},
			{"properties", props},
			{"additionalProperties", object{{"$ref", "#/$defs/Provider"}, {"required", required(t.Elem())}}},
		}
	}
	var props object
	for _, f := range fieldsOf(t) {
		props = append(props, member{f.name, fieldSchema(f)})
	}
	s := object{{"type", "object"}, {"additionalProperties", false}, {"properties", props}}
	if names := required(t); names != nil {
		s = append(s, member{"required", names})
	}
	return s
}

func fieldSchema(f field) object {
	s := object{{"description", f.tag.Get("doc")}}
	if enum := f.tag.Get("enum"); enum != "" {
		s = append(s, member{"enum", strings.Split(enum, ",")})
	} else {
		value := schemaOf(f.typ)
		switch f.typ.Kind() {
		case reflect.Struct, reflect.Map, reflect.Slice: // all that is below may be a comment
			value[0].value = []any{value[0].value, "null"}
		}
		s = append(s, value...)
	}
	number := f.typ.Kind() == reflect.Int
	for _, m := range []member{{"min", "minimum"}, {"max", "maximum"}} {
		if text := f.tag.Get(m.name); number && text != "" {
			s = append(s, member{m.value.(string), json.Number(text)})
		}
	}
	switch text := f.tag.Get("default"); {
	case text == "":
	case number || f.typ.Kind() == reflect.Bool:
		s = append(s, member{"default", json.RawMessage(text)})
	default:
		s = append(s, member{"default", text})
	}
	return s
}

func required(t reflect.Type) []string {
	var names []string
	for _, f := range fieldsOf(t) {
		if f.tag.Get("required") != "" {
			names = append(names, f.name)
		}
	}
	return names
}

// writeExample prints a configuration file in which every key stands with its meaning and its default. What has no
// default is written as "#key: value", with an example of a value.
func writeExample(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Configuration of Fairlead. Every key may be left out, and so may the file. Lines that begin\n" +
		"# with \"# \" explain; other lines with # are keys to choose, with an example of a value.\n")
	exampleOf(&b, reflect.TypeFor[Config](), "", "")
	_, err := io.WriteString(w, b.String())
	return err
}

// exampleOf writes the keys of a struct. off is "#" where none of them is to be in effect, and otherwise "".
func exampleOf(b *strings.Builder, t reflect.Type, indent, off string) {
	for _, f := range fieldsOf(t) {
		if indent == "" {
			b.WriteByte('\n')
		}
		comment(b, f, indent)
		value, on := f.tag.Get("default"), off
		if value == "" {
			value, on = f.tag.Get("example"), "#"
		}
		switch kind := f.typ.Kind(); {
		case kind == reflect.Struct:
			fmt.Fprintf(b, "%s%s%s:\n", indent, off, f.name)
			exampleOf(b, f.typ, indent+"  ", off)
		case kind == reflect.Map:
			fmt.Fprintf(b, "%s%s%s:\n%s  #%s:\n", indent, off, f.name, indent, value)
			exampleOf(b, f.typ.Elem(), indent+"    ", "#")
		case kind == reflect.Slice && f.typ.Elem().Kind() == reflect.Struct:
			var item strings.Builder
			exampleOf(&item, f.typ.Elem(), indent+"    ", "#")
			first := fieldsOf(f.typ.Elem())[0].name
			fmt.Fprintf(b, "%s%s%s:\n%s", indent, off, f.name, strings.Replace(item.String(), "  #"+first, "#- "+first, 1))
		case kind == reflect.Slice:
			fmt.Fprintf(b, "%s%s%s: [%s]\n", indent, on, f.name, value)
		default:
			fmt.Fprintf(b, "%s%s%s: %s\n", indent, on, f.name, value)
		}
	}
}

// comment writes what there is to know about a key.
func comment(b *strings.Builder, f field, indent string) {
	for _, line := range wrap(explain(f), 98-len(indent)) {
		fmt.Fprintf(b, "%s# %s\n", indent, line)
	}
}

// explain is the comment of a key: its meaning, the values to choose from and the bounds.
func explain(f field) string {
	text := f.tag.Get("doc")
	if enum := f.tag.Get("enum"); enum != "" {
		text += " One of " + strings.ReplaceAll(enum, ",", ", ") + "."
	}
	if low := f.tag.Get("min"); low != "" {
		text += " From " + low + " to " + f.tag.Get("max") + "."
	}
	return text
}

// wrap divides text into lines of at most width characters, where words allow.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
