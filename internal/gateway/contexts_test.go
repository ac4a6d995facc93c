package gateway

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/flow"
)

// TestContextsAreBounded: what a conversation goes back to counts again when it is gone on with, so that many long ones
// cannot be kept by saying a little more in each.
func TestContextsAreBounded(t *testing.T) {
	rules, err := flow.Compile(flow.Config{})
	if err != nil {
		t.Fatal(err)
	}
	openai, _ := dialect.Lookup("openai")
	rt, _ := dialect.Match(openai, "POST", "/v1/chat/completions")
	text := said("user", strings.Repeat("All that was said before. ", 1<<20/27))
	body := []byte(turns(text, text, text, text, text, text, text))
	x, err := openai.Read(rt, body)
	if err != nil {
		t.Fatal(err)
	}
	id := func(i int) fairlead.Digest { return sha256.Sum256(fmt.Append(nil, i)) }
	var m contexts
	const made = 40
	size := 0
	for i := range made {
		c := rules.Label(flow.Input{Body: body, Exchange: &x})
		size = c.Size()
		m.put(id(i), known{flow: c}, c.Bytes())
		for j := range i {
			m.get(id(j)) // its client says a word more
		}
	}
	alive := 0
	for i := range made {
		if m.get(id(i)).flow != nil {
			alive++
		}
	}
	if most := 2*maxContext/size + 4; alive == 0 || alive > most {
		t.Errorf("%d of %d conversations of %d bytes are kept, and at most %d should be", alive, made, size, most)
	}
}
