package approval

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// hooked gives a desk whose webhook is h.
func hooked(t *testing.T, h http.HandlerFunc) *desk {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	d := newDesk(t, Config{Hook: &Webhook{URL: srv.URL + "/hook?token=hidden", Secret: []byte("0123456789abcdef")}})
	d.book.hook.pause = func(int) time.Duration { return time.Millisecond }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.book.Background(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return d
}

func TestWebhook(t *testing.T) {
	type told struct {
		m    message
		body string
	}
	got := make(chan told, 10)
	var tries atomic.Int64
	d := hooked(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		stamp, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Fairlead-Signature"), "t="), ",")
		sec, _ := strconv.ParseInt(stamp, 10, 64)
		if at := time.Unix(sec, 0); r.Header.Get("Fairlead-Signature") != sign([]byte("0123456789abcdef"), at, body) || time.Since(at).Abs() > time.Minute {
			t.Errorf("signature %q", r.Header.Get("Fairlead-Signature"))
		}
		if tries.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		var m message
		if err := json.Unmarshal(body, &m); err != nil {
			t.Error(err)
		}
		got <- told{m, string(body)}
	})
	a := d.request(d.ask(held))
	first := <-got
	if m := first.m; m.Event != "approval.requested" || m.ID != a.ID.String() || m.Tool != "send_email" || len(m.Rules) != 1 || m.Rules[0].Reason == "" ||
		m.How != "fairlead approve show "+m.ID || m.State != Pending {
		t.Errorf("told %s", first.body)
	}
	for _, secret := range []string{"evil.example", "Summarise", "anna", "read_email"} {
		if strings.Contains(first.body, secret) {
			t.Errorf("the webhook is told %q: %s", secret, first.body)
		}
	}
	d.grant(a.ID, person("boss"))
	if m := (<-got).m; m.Event != "approval.granted" || m.State != Granted || m.Grants != 1 {
		t.Errorf("told %+v", m)
	}
	if err := d.use(d.ask(held)); err != nil {
		t.Fatal(err)
	}
	if m := (<-got).m; m.Event != "approval.used" {
		t.Errorf("told %+v", m)
	}
	d.request(d.ask(`{"n":2}`))
	<-got
	d.pass(time.Hour)
	if m := (<-got).m; m.Event != "approval.expired" || m.State != Expired {
		t.Errorf("told %+v", m)
	}
}

func TestWebhookFollowsNothing(t *testing.T) {
	var led atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { led.Store(true) }))
	t.Cleanup(elsewhere.Close)
	asked := make(chan struct{}, 10)
	d := hooked(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	again, err := d.book.hook.post(t.Context(), []byte("{}"))
	if err == nil || again || led.Load() {
		t.Errorf("a redirect: again %v, %v, followed %v", again, err, led.Load())
	}
}

func TestWebhookAddresses(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://hooks.example.com/x": true, "http://127.0.0.1:99/x": true, "http://[::1]/x": true, "http://localhost:1/": true,
		"http://hooks.example.com/x": false, "http://10.0.0.1/": false, "ftp://127.0.0.1/": false, "https://u:p@example.com/": false, "": false, "https://": false,
	} {
		if _, err := newHook(Webhook{URL: url, Secret: make([]byte, 16)}, quiet); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		} else if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("the error tells the URL's secret: %v", err)
		}
	}
	for address, plain := range map[string]bool{"169.254.169.254:443": false, "[fe80::1]:443": false, "[::ffff:169.254.169.254]:443": false, "0.0.0.0:443": false, "10.0.0.1:80": true} {
		if mayCall(address, plain) == nil {
			t.Errorf("%s is called", address)
		}
	}
	for address, plain := range map[string]bool{"10.0.0.1:443": false, "93.184.216.34:443": false, "127.0.0.1:80": true} {
		if err := mayCall(address, plain); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	// A name that leads there is refused when it is called.
	h, err := newHook(Webhook{URL: "https://169.254.169.254/x?token=hidden", Secret: make([]byte, 16)}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.post(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "never called") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("the metadata service: %v", err)
	}
}

func TestASlowWebhookHoldsNothing(t *testing.T) {
	stop := make(chan struct{})
	d := hooked(t, func(http.ResponseWriter, *http.Request) { <-stop })
	defer close(stop)
	for range hookQueue + 10 {
		d.book.mu.Lock()
		d.book.tell(&entry{state: Pending}, "approval.requested", nil)
		d.book.mu.Unlock()
	}
	d.request(d.ask(held))
}
