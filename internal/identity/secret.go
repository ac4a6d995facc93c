package identity

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// redacted is what every attempt to print a secret gives.
const redacted = "[secret]"

// A Secret holds a credential in clear: a virtual key, a provider's key, a subject token. Printing, logging or
// marshalling it, alone or as part of something else, gives "[secret]"; only [Secret.Reveal] gives the text. The zero
// Secret is the empty text.
type Secret struct {
	// A pointer, because package fmt prints unexported fields of a surrounding struct without calling their methods:
	// it then finds an address here, not the text.
	text *string
}

// NewSecret wraps s.
func NewSecret(s string) Secret { return Secret{&s} }

// Reveal gives the text. Whoever calls it answers for where the text goes.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String gives "[secret]".
func (s Secret) String() string { return redacted }

// GoString gives "[secret]".
func (s Secret) GoString() string { return redacted }

// Format writes "[secret]", whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalJSON gives "[secret]" as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalText gives "[secret]".
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue gives "[secret]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
