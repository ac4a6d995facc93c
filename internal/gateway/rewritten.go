package gateway

import (
	"bytes"
	"net/http"
	"strings"
	"sync"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/internal/dialect"
	"github.com/fairleadhq/fairlead/internal/provenance"
)

// rewritten remembers, in two generations, the answers that tool calls were taken out of: by the ids under which a later
// request may refer to what the provider keeps, which is not what the client got. It gives the notices.
type rewritten struct {
	mu       sync.Mutex
	new, old map[string]taken
}

// taken is why calls were taken out of an answer, and of which app. The provider may give the same ids to others.
type taken struct{ app, notice string }

// Bounds: answers, more or less, and bytes of notices of each.
const (
	maxRewritten = 1 << 14
	maxNotices   = 8 << 10
)

// learn remembers an answer as the client gets it.
func (m *rewritten) learn(d provenance.Domain, a *fairlead.Answer, refused []dialect.Withheld) {
	notices := make([]string, len(refused))
	for i := range refused {
		notices[i] = refused[i].Notice
	}
	text := taken{d.App, clip(strings.Join(notices, "\n\n"), maxNotices)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.new == nil || len(m.new) > maxRewritten {
		m.old, m.new = m.new, map[string]taken{}
	}
	for _, id := range append([]string{a.ID}, a.Items...) {
		if id != "" {
			m.new[d.Tenant+"\x00"+id] = text
		}
	}
}

func (m *rewritten) get(tenant, id string) (t taken, ok bool) {
	id = tenant + "\x00" + id
	m.mu.Lock()
	defer m.mu.Unlock()
	if t, ok = m.new[id]; !ok {
		t, ok = m.old[id]
	}
	return t, ok
}

// mend sees to requests that build on an answer which the provider remembers otherwise than the client got it. Where
// they name an item that stands for a withheld call, the item itself goes to the provider; where they build on the whole
// answer, the conversation has to be sent.
func (c *call) mend() error {
	if len(c.exchange.State) == 0 {
		return nil
	}
	d, rt, of := c.target.provider.dialect, c.target.route, c.link.Domain
	for _, s := range c.exchange.State {
		if _, ok := c.g.rewritten.get(of.Tenant, s.Value); ok && s.Field != "item_reference" {
			return &refusal{status: http.StatusBadRequest, code: "withheld_state", resend: true,
				message: s.Field + " refers to an answer from which Fairlead took a tool call, but the provider still has that call: send the whole conversation instead"}
		}
	}
	notice := func(id string) string {
		if t, _ := c.g.rewritten.get(of.Tenant, id); t.app == of.App {
			return t.notice
		}
		return ""
	}
	if sent := d.Mend(rt, c.body, notice); !bytes.Equal(sent, c.body) {
		c.sent = sent
	}
	return nil
}
