package gateway

import (
	"bytes"
	"net/http"
	"strings"
	"sync"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
)

// rewritten remembers, in two generations, the answers that tool calls were taken out of: by the ids under which a later
// request may refer to what the provider keeps, which is not what the client got. It gives the notices.
type rewritten struct {
	mu       sync.Mutex
	new, old map[string]string
}

const maxRewritten = 1 << 14

// learn remembers an answer as the client gets it.
func (m *rewritten) learn(a *fairlead.Answer, refused []dialect.Withheld) {
	notices := make([]string, len(refused))
	for i := range refused {
		notices[i] = refused[i].Notice
	}
	text := strings.Join(notices, "\n\n")
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.new == nil || len(m.new) > maxRewritten {
		m.old, m.new = m.new, map[string]string{}
	}
	for _, id := range append([]string{a.ID}, a.Items...) {
		if id != "" {
			m.new[id] = text
		}
	}
}

func (m *rewritten) get(id string) (notice string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if notice, ok = m.new[id]; !ok {
		notice, ok = m.old[id]
	}
	return notice, ok
}

// mend sees to requests that build on an answer which the provider remembers otherwise than the client got it. Where
// they name an item that stands for a withheld call, the item itself goes to the provider; where they build on the whole
// answer, the conversation has to be sent.
func (c *call) mend() error {
	if len(c.exchange.State) == 0 {
		return nil
	}
	d, rt := c.target.provider.dialect, c.target.route
	for _, s := range c.exchange.State {
		if _, ok := c.g.rewritten.get(s.Value); ok && s.Field != "item_reference" {
			return &refusal{status: http.StatusBadRequest, code: "withheld_state", resend: true,
				message: s.Field + " refers to an answer from which Fairlead took a tool call, but the provider still has that call: send the whole conversation instead"}
		}
	}
	notice := func(id string) string { text, _ := c.g.rewritten.get(id); return text }
	if sent := d.Mend(rt, c.body, notice); !bytes.Equal(sent, c.body) {
		c.sent = sent
	}
	return nil
}
