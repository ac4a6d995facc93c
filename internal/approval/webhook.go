package approval

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/fairleadhq/fairlead"
)

// A Webhook is where requests and decisions are told, as a POST of JSON without any content: no arguments, no user's
// words, no names. Each carries
//
//	Fairlead-Signature: t=UNIX SECONDS,v1=HEX
//
// where HEX is the HMAC-SHA-256 under Secret of the text "t.body". The receiver checks it, refuses a t that is more than a
// few minutes off, and ignores a repeated "delivery" member: an answer that got lost is sent again.
//
// It is told at most six times over half a minute, more if it is slow, and not again once it has answered with a 2xx; 1,000 messages wait at
// most, and what comes beyond is dropped with a line in the log. Redirects are not followed and proxies not used.
type Webhook struct {
	// URL is https, or http to a loopback address. Link-local addresses are never called, whatever its name leads to.
	URL    string
	Secret []byte // at least 16 bytes
}

const (
	hookQueue   = 1000
	hookTries   = 6
	hookTimeout = 10 * time.Second
)

// message is the body of a webhook.
type message struct {
	Event     string          `json:"event"` // approval.requested, .granted, .denied, .used or .expired
	Delivery  string          `json:"delivery"`
	ID        string          `json:"id"`
	Number    int64           `json:"number"` // of the event in the ledger
	Tenant    string          `json:"tenant"`
	App       string          `json:"app,omitempty"`
	Kind      Kind            `json:"kind"`
	Tool      string          `json:"tool"`
	Label     string          `json:"label,omitempty"`
	State     State           `json:"state"`
	Rules     []fairlead.Rule `json:"rules,omitempty"` // with reasons on approval.requested, their ids only later
	Approvers int             `json:"approvers"`
	Grants    int             `json:"grants"`
	Expires   time.Time       `json:"expires"`
	How       string          `json:"how,omitempty"`
}

// A hook sends messages.
type hook struct {
	conf   Webhook
	client *http.Client
	host   string // for the log: the URL may hold a secret
	log    *slog.Logger
	queue  chan []byte
	pause  func(try int) time.Duration
}

func newHook(c Webhook, log *slog.Logger) (*hook, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, errors.New("the approval webhook's URL cannot be used: https://HOST/PATH is expected, without a user")
	}
	if len(c.Secret) < 16 {
		return nil, errors.New("the approval webhook's secret is shorter than 16 bytes")
	}
	plain := u.Scheme == "http"
	if ip, err := netip.ParseAddr(u.Hostname()); plain && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) || !plain && u.Scheme != "https" {
		return nil, errors.New("the approval webhook's URL is https, or http to a loopback address")
	}
	dialer := &net.Dialer{Timeout: hookTimeout, Control: func(_, address string, _ syscall.RawConn) error { return mayCall(address, plain) }}
	h := &hook{conf: c, host: u.Host, log: log, queue: make(chan []byte, hookQueue), pause: func(try int) time.Duration { return time.Second << try }}
	h.client = &http.Client{
		Timeout:       hookTimeout,
		Transport:     &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: hookTimeout, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h, nil
}

// mayCall refuses the addresses that a webhook's name must not lead to: the machine's metadata service, and anything but
// this machine without encryption.
func mayCall(address string, plain bool) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	a := ap.Addr().Unmap()
	if a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || plain && !a.IsLoopback() {
		return fmt.Errorf("the webhook's name leads to %s, which is never called", a)
	}
	return nil
}

// tell queues a message about an approval. b.mu is held.
func (b *Book) tell(e *entry, event string, rules []fairlead.Rule) {
	if b.hook == nil {
		return
	}
	a := e.view()
	m := message{Event: event, Delivery: a.ID.String() + "/" + event + "/" + strconv.Itoa(len(a.Grants)), ID: a.ID.String(), Number: a.Seq,
		Tenant: a.Tenant, App: a.App, Kind: a.Kind, Tool: a.Tool, Label: a.Label, State: a.State, Approvers: a.Approvers, Grants: len(a.Grants), Expires: a.Expires}
	for _, r := range rules[:min(len(rules), maxRules)] {
		m.Rules = append(m.Rules, fairlead.Rule{ID: clip(r.ID, maxAround), Effect: r.Effect, Reason: clip(r.Reason, maxValue), Remedy: clip(r.Remedy, maxValue)})
	}
	if rules == nil {
		for _, id := range a.Rules {
			m.Rules = append(m.Rules, fairlead.Rule{ID: id, Effect: fairlead.Hold})
		}
	}
	if a.State == Pending {
		m.How = "fairlead approve show " + m.ID
	}
	body, err := json.Marshal(m)
	if err != nil {
		b.conf.Log.Error("writing a webhook's message", "err", err)
		return
	}
	select {
	case b.hook.queue <- body:
	default:
		b.conf.Log.Warn("the approval webhook is too slow: a message is dropped", "event", event, "approval", m.ID)
	}
}

// run sends what is queued until ctx ends.
func (h *hook) run(ctx context.Context) {
	for {
		select {
		case body := <-h.queue:
			h.deliver(ctx, body)
		case <-ctx.Done():
			return
		}
	}
}

// deliver sends one message, several times if need be.
func (h *hook) deliver(ctx context.Context, body []byte) {
	for try := 0; ; try++ {
		again, err := h.post(ctx, body)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !again || try+1 == hookTries {
			h.log.Warn("the approval webhook could not be told", "host", h.host, "tries", try+1, "err", err)
			return
		}
		select {
		case <-time.After(h.pause(try)):
		case <-ctx.Done():
			return
		}
	}
}

// post sends a message once. again says whether it is worth another try.
func (h *hook) post(ctx context.Context, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.conf.URL, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the request cannot be made") // err would quote the URL
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "fairlead")
	req.Header.Set("Fairlead-Signature", sign(h.conf.Secret, time.Now(), body))
	res, err := h.client.Do(req)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // without the URL
		}
		return true, err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // so that the connection can be used again
	switch s := res.StatusCode; {
	case s >= 200 && s < 300:
		return false, nil
	case s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout:
		return true, fmt.Errorf("it answered with status %d", s)
	default:
		return false, fmt.Errorf("it answered with status %d, which is not tried again", s)
	}
}

// sign gives the value of Fairlead-Signature.
func sign(secret []byte, now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
