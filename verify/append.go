package verify

import (
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/wire"
)

// AppendEnvelope writes f as an envelope. It fails if the result would break a rule, so that nothing can be recorded
// that no reader would accept.
func AppendEnvelope(dst []byte, f *fairlead.Fact, schema string, nonce [16]byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, `{"v":1,"id":"`...)
	dst = append(dst, f.ID.String()...)
	dst = append(dst, `","tenant":"`...)
	dst = append(dst, f.Tenant...)
	dst = append(dst, `","kind":"`...)
	dst = append(dst, f.Kind...)
	dst = append(dst, `","time":"`...)
	dst = f.Time.UTC().AppendFormat(dst, timeLayout)
	dst = append(dst, `","nonce":"`...)
	dst = base64.RawURLEncoding.AppendEncode(dst, nonce[:])
	dst = append(dst, `","schema":"`...)
	dst = append(dst, schema...)
	dst = append(dst, '"')
	if !f.Actor.IsZero() {
		dst = appendActor(append(dst, `,"actor":`...), &f.Actor)
	}
	for i, l := range f.Links {
		dst = append(dst, [...]string{`,"links":[`, `,`}[min(i, 1)]...)
		dst = wire.AppendQuote(append(dst, `{"rel":`...), string(l.Rel))
		dst = append(append(dst, `,"to":"`...), l.To.String()...)
		dst = append(append(dst, `","a":"`...), l.Assurance...)
		dst = append(dst, `"}`...)
	}
	if len(f.Links) > 0 {
		dst = append(dst, ']')
	}
	for i := range f.Attrs {
		dst = append(dst, [...]string{`,"attrs":{`, `,`}[min(i, 1)]...)
		dst = append(wire.AppendQuote(dst, f.Attrs[i].Name), ':')
		var err error
		if dst, err = appendAttr(dst, f.Attrs[i].Value); err != nil {
			return dst[:start], fmt.Errorf("attribute %s: %w", f.Attrs[i].Name, err)
		}
	}
	if len(f.Attrs) > 0 {
		dst = append(dst, '}')
	}
	for i := range f.Content {
		dst = append(dst, [...]string{`,"content":[`, `,`}[min(i, 1)]...)
		dst = appendContent(dst, &f.Content[i])
	}
	if len(f.Content) > 0 {
		dst = append(dst, ']')
	}
	dst = append(dst, '}')
	var p reader
	if err := p.read(dst[start:]); err != nil {
		return dst[:start], fmt.Errorf("fact %s of kind %s cannot be written: %w", f.ID, f.Kind, err)
	}
	return dst, nil
}

func appendActor(dst []byte, a *fairlead.Actor) []byte {
	dst = append(dst, '{')
	sep := ""
	for _, f := range [...]struct {
		name  string
		facet *fairlead.Facet
	}{{"app", &a.App}, {"user", &a.User}, {"agent", &a.Agent}} {
		if *f.facet == (fairlead.Facet{}) {
			continue
		}
		dst = append(append(append(dst, sep...), '"'), f.name...)
		dst = append(dst, `":{`...)
		sep = ""
		for _, m := range [...]struct{ name, value string }{{"v", f.facet.Value}, {"a", string(f.facet.Assurance)},
			{"m", f.facet.Method}, {"i", f.facet.Issuer}} {
			if m.value == "" {
				continue
			}
			dst = append(append(append(append(dst, sep...), '"'), m.name...), `":`...)
			dst = wire.AppendQuote(dst, m.value)
			sep = ","
		}
		dst = append(dst, '}')
		sep = ","
	}
	for i, s := range a.Chain {
		if i == 0 {
			dst = append(append(dst, sep...), `"chain":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = wire.AppendQuote(dst, s)
	}
	if len(a.Chain) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func appendAttr(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return wire.AppendQuote(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case []string:
		dst = append(dst, '[')
		for i, s := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = wire.AppendQuote(dst, s)
		}
		return append(dst, ']'), nil
	}
	return dst, fmt.Errorf("a value of type %T has no form in an envelope", v)
}

func appendContent(dst []byte, c *fairlead.Content) []byte {
	dst = wire.AppendQuote(append(dst, `{"name":`...), c.Name)
	dst = strconv.AppendInt(append(dst, `,"blob":`...), c.Blob, 10)
	dst = strconv.AppendInt(append(dst, `,"scope":`...), c.Scope, 10)
	dst = strconv.AppendInt(append(dst, `,"bytes":`...), c.Bytes, 10)
	dst = base64.RawURLEncoding.AppendEncode(append(dst, `,"address":"`...), c.Address[:])
	dst = base64.RawURLEncoding.AppendEncode(append(dst, `","sealed":"`...), c.Sealed[:])
	return append(dst, `"}`...)
}
