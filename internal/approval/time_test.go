package approval

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
)

func TestUnansweredMeansDenied(t *testing.T) {
	d := newDesk(t, Config{})
	a := d.request(d.ask(held))
	d.pass(59 * time.Minute)
	d.wantState(a.ID, Pending)
	d.pass(time.Minute)
	d.wantState(a.ID, Expired)
	if _, err := d.book.Grant(t.Context(), a.ID, d.looked(a.ID, account("1000"))); !errors.Is(err, ErrRefused) {
		t.Errorf("granted too late: %v", err)
	}
	d.restart()
	wantNoGrant(t, d.use(d.ask(held)))
	// Looked up for an hour more, and then forgotten.
	d.wantState(a.ID, Expired)
	d.pass(time.Hour)
	if _, ok := d.book.Get(a.ID); ok {
		t.Error("it is remembered for ever")
	}
}

func TestAGrantExpires(t *testing.T) {
	for name, again := range map[string]bool{"at once": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, Config{})
			a := d.request(d.ask(held))
			d.pass(55 * time.Minute) // the grant outlives the request, by its own time
			d.grant(a.ID, account("1000"))
			d.pass(9 * time.Minute)
			if again {
				d.restart()
			}
			d.wantState(a.ID, Granted)
			d.pass(time.Minute)
			d.wantState(a.ID, Expired)
			wantNoGrant(t, d.use(d.ask(held)))
		})
	}
	d := newDesk(t, Config{})
	a := d.request(d.ask(held))
	dec := d.looked(a.ID, account("1000"))
	dec.For = 25 * time.Hour
	if _, err := d.book.Grant(t.Context(), a.ID, dec); !errors.Is(err, ErrRefused) {
		t.Errorf("a grant for 25 hours: %v", err)
	}
	dec.For = 24 * time.Hour
	if _, err := d.book.Grant(t.Context(), a.ID, dec); err != nil {
		t.Error(err)
	}
	d.pass(23 * time.Hour)
	d.restart()
	if err := d.use(d.ask(held)); err != nil {
		t.Errorf("within the 24 hours: %v", err)
	}
}

// TestTheClockMayStep turns the clock back over the end of a grant, in one process and over a restart.
func TestTheClockMayStep(t *testing.T) {
	d := newDesk(t, Config{})
	a := d.request(d.ask(held))
	d.grant(a.ID, account("1000"))
	d.pass(11 * time.Minute)
	d.wantState(a.ID, Expired)
	d.pass(-11 * time.Minute)
	d.wantState(a.ID, Expired)
	wantNoGrant(t, d.use(d.ask(held)))

	// Time goes on from where it was: what is asked now neither has ended nor lasts until the clock has caught up.
	b := d.request(d.ask(`{"n":2}`))
	d.pass(30 * time.Minute)
	d.wantState(b.ID, Pending)
	d.pass(31 * time.Minute)
	d.wantState(b.ID, Expired)

	// Over a restart the ledger says how late it has been: here with what it says of the expiry.
	c := d.request(d.ask(`{"n":3}`))
	d.grant(c.ID, account("1000"))
	d.pass(11 * time.Minute)
	d.book.lapse(t.Context())
	d.pass(-11 * time.Minute)
	d.restart()
	d.wantState(c.ID, Expired)
	wantNoGrant(t, d.use(d.ask(`{"n":3}`)))
}

func TestTheLedgerSaysHowLateItIs(t *testing.T) {
	d := newDesk(t, Config{})
	a := d.request(d.ask(held))
	d.grant(a.ID, account("1000"))
	d.pass(11 * time.Minute)
	if _, err := d.ledger.Append(t.Context(), &fairlead.Fact{Kind: fairlead.KindConfig}); err != nil {
		t.Fatal(err)
	}
	d.pass(-11 * time.Minute)
	d.restart()
	d.wantState(a.ID, Expired)
}

// TestABookAheadOfTheClock: what was granted while the clock lagged behind does not last for the lag after a restart.
func TestABookAheadOfTheClock(t *testing.T) {
	d := newDesk(t, Config{})
	d.book.List(false)
	d.pass(-10 * time.Hour)
	a := d.request(d.ask(`{"n":2}`))
	d.grant(a.ID, account("1000"))
	for range 300 { // the last events are late ones
		if _, err := d.ledger.Send(t.Context(), &fairlead.Fact{Kind: fairlead.KindConfig}); err != nil {
			t.Fatal(err)
		}
	}
	d.pass(time.Minute)
	d.restart()
	d.wantState(a.ID, Granted)
	d.pass(11 * time.Minute)
	d.wantState(a.ID, Expired)
}

func TestExpiryIsOnRecord(t *testing.T) {
	d := newDesk(t, Config{})
	a := d.request(d.ask(held))
	d.pass(time.Hour)
	fault := func(string) error { return errors.New("no disk") }
	d.fault.Store(&fault)
	d.book.lapse(t.Context())
	d.fault.Store(nil)
	d.book.lapse(t.Context())
	d.book.lapse(t.Context())
	if n := d.count(fairlead.KindApprovalDenied); n != 1 {
		t.Fatalf("%d facts say that it expired", n)
	}
	d.restart()
	d.book.lapse(t.Context())
	d.wantState(a.ID, Expired)
	if n := d.count(fairlead.KindApprovalDenied); n != 1 {
		t.Errorf("%d facts say that it expired, after a restart", n)
	}
}

func TestBounds(t *testing.T) {
	d := newDesk(t, Config{})
	// Entries as they stand after being recorded, without the disk.
	fill := func(app string, n int) {
		for i := range n {
			e := &entry{id: d.ledger.NewID(), tenant: "default", need: 1, expires: d.now().Add(time.Hour), place: -1, answered: make(chan struct{})}
			e.actor.App.Value = app
			e.binding = fairlead.Digest([]byte(fmt.Sprintf("%-20s%12d", app, i)))
			d.book.mu.Lock()
			d.book.bound[e.binding] = append(d.book.bound[e.binding], e)
			d.book.count(e)
			d.book.stand(e)
			d.book.mu.Unlock()
		}
	}
	fill("desk", maxOpenApp)
	if _, err := d.book.Request(t.Context(), d.ask(held)); !errors.Is(err, ErrFull) {
		t.Errorf("beyond what one app may ask: %v", err)
	}
	other := d.ask(held)
	other.Actor.App.Value = "shop"
	d.request(other)
	for i := range (maxOpen - maxOpenApp) / maxOpenApp {
		fill(fmt.Sprint("app", i), maxOpenApp)
	}
	other.Actor.App.Value, other.App = "last", "last"
	if _, err := d.book.Request(t.Context(), other); !errors.Is(err, ErrFull) {
		t.Errorf("beyond what all may ask: %v", err)
	}
	d.pass(time.Hour)
	d.request(other)
	d.pass(3 * time.Hour)
	if n := len(d.book.List(true)); n != 0 {
		t.Errorf("%d are remembered after hours", n)
	}
	b := d.book
	if b.opened != 0 || len(b.open) != 0 || len(b.bound) != 0 || len(b.due) != 0 || len(b.closed) != 0 {
		t.Errorf("left in memory: %d %d %d %d %d", b.opened, len(b.open), len(b.bound), len(b.due), len(b.closed))
	}
}

func TestConfigIsChecked(t *testing.T) {
	d := newDesk(t, Config{})
	for _, c := range []Config{{}, {Ledger: d.ledger, Expiry: 25 * time.Hour}, {Ledger: d.ledger, GrantExpiry: time.Millisecond},
		{Ledger: d.ledger, Hook: &Webhook{URL: "https://example.com/", Secret: []byte("short")}}} {
		if _, err := New(context.Background(), c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
