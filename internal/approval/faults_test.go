package approval

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead"
	"github.com/fairleadhq/fairlead/verify"
)

var errInjected = errors.New("injected")

// lost makes the next commit fail: nothing of it is on disk.
func (d *desk) lost(do func(ctx context.Context) error) error {
	d.t.Helper()
	once := sync.Once{}
	fault := func(point string) (err error) {
		if point == "before" {
			once.Do(func() { err = errInjected })
		}
		return err
	}
	d.fault.Store(&fault)
	defer d.fault.Store(nil)
	return do(context.Background())
}

// kept lets the next commit take so long that whoever waits gives up, and lets it succeed then.
func (d *desk) kept(do func(ctx context.Context) error) error {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	gaveUp, reached := make(chan struct{}), make(chan struct{})
	once := sync.Once{}
	fault := func(point string) error {
		if point == "before" {
			once.Do(func() { close(reached); <-gaveUp })
		}
		return nil
	}
	d.fault.Store(&fault)
	defer d.fault.Store(nil)
	go func() { <-reached; cancel() }()
	d.book.patience = 10 * time.Millisecond
	err := do(ctx)
	d.book.patience = time.Minute
	close(gaveUp)
	if err := d.ledger.Probe(context.Background()); err != nil { // until the commit is done
		d.t.Fatal(err)
	}
	return err
}

// TestFaults lets each record fail in both ways: not on disk, and on disk although nobody could be told.
func TestFaults(t *testing.T) {
	for _, onDisk := range []bool{false, true} {
		t.Run(fmt.Sprintf("on disk %v", onDisk), func(t *testing.T) {
			start := func(t *testing.T) (*desk, func(func(context.Context) error)) {
				d := newDesk(t, Config{})
				return d, func(do func(context.Context) error) {
					t.Helper()
					fail := d.lost
					if onDisk {
						fail = d.kept
					}
					if err := fail(do); err == nil {
						t.Fatal("the failure was not told")
					}
				}
			}
			want := func(t *testing.T, d *desk, k fairlead.Kind, before int) {
				t.Helper()
				if onDisk {
					before++
				}
				if n := d.count(k); n != before {
					t.Fatalf("%d facts %s, want %d", n, k, before)
				}
			}

			t.Run("request", func(t *testing.T) {
				d, fails := start(t)
				ask := d.ask(held)
				fails(func(ctx context.Context) error { _, err := d.book.Request(ctx, ask); return err })
				want(t, d, fairlead.KindApprovalRequested, 0)
				if n := len(d.book.List(true)); n != 0 || d.book.opened != 0 {
					t.Errorf("%d wait, %d are counted", n, d.book.opened)
				}
				// It goes on, here and after a restart.
				a := d.request(d.ask(held))
				d.restart()
				d.grant(a.ID, account("1000"))
				if err := d.use(d.ask(held)); err != nil {
					t.Error(err)
				}
				wantNoGrant(t, d.use(d.ask(held)))
			})
			t.Run("grant", func(t *testing.T) {
				d, fails := start(t)
				a := d.request(d.ask(held))
				dec := d.looked(a.ID, account("1000"))
				fails(func(ctx context.Context) error { _, err := d.book.Grant(ctx, a.ID, dec); return err })
				want(t, d, fairlead.KindApprovalGranted, 0)
				wantNoGrant(t, d.use(d.ask(held)))
				d.restart()
				if onDisk { // the person did say yes
					d.wantState(a.ID, Granted)
				} else {
					d.wantState(a.ID, Pending)
				}
			})
			t.Run("deny", func(t *testing.T) {
				d, fails := start(t)
				a := d.request(d.ask(held))
				d.grant(a.ID, account("1000"))
				fails(func(ctx context.Context) error {
					_, err := d.book.Deny(ctx, a.ID, Decision{By: account("1000")})
					return err
				})
				want(t, d, fairlead.KindApprovalDenied, 0)
				wantNoGrant(t, d.use(d.ask(held))) // it holds at once all the same
			})
			t.Run("use", func(t *testing.T) {
				d, fails := start(t)
				a := d.request(d.ask(held))
				d.grant(a.ID, account("1000"))
				ask := d.ask(held)
				fails(func(ctx context.Context) error { _, err := d.book.Use(ctx, ask); return err })
				want(t, d, fairlead.KindApprovalUsed, 0)
				d.wantState(a.ID, Lost)
				wantNoGrant(t, d.use(d.ask(held)))
				d.restart()
				if onDisk {
					d.wantState(a.ID, Used)
					wantNoGrant(t, d.use(d.ask(held)))
					return
				}
				// Nothing was released and nothing is on record: the grant is what it was.
				if err := d.use(d.ask(held)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestUseThatNeverWentOut: a use that the ledger did not even take costs nothing.
func TestUseThatNeverWentOut(t *testing.T) {
	d := newDesk(t, Config{})
	a := d.request(d.ask(held))
	d.grant(a.ID, account("1000"))
	if err := d.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.use(d.ask(held)); err == nil {
		t.Fatal("used without a record")
	}
	d.wantState(a.ID, Granted)
	d.open()
	if err := d.use(d.ask(held)); err != nil {
		t.Error(err)
	}
}

func TestConcurrentUse(t *testing.T) {
	d := newDesk(t, Config{})
	d.grant(d.request(d.ask(held)).ID, account("1000"))
	var wg sync.WaitGroup
	won := make(chan struct{}, 64)
	for range cap(won) {
		ask := d.ask(held)
		wg.Go(func() {
			switch _, err := d.book.Use(context.Background(), ask); {
			case err == nil:
				won <- struct{}{}
			case !errors.Is(err, ErrNoGrant):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d calls were let go by one grant", len(won))
	}
	if n := d.count(fairlead.KindApprovalUsed); n != 1 {
		t.Errorf("%d uses are on record", n)
	}
}

func TestConcurrentGrants(t *testing.T) {
	d := newDesk(t, Config{})
	two := d.ask(held)
	two.Approvers = 2
	a := d.request(two)
	dec := d.looked(a.ID, person("boss"))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { d.book.Grant(context.Background(), a.ID, dec) })
	}
	wg.Wait()
	d.wantState(a.ID, Pending) // one person, however quick
	d.restart()
	d.wantState(a.ID, Pending)
	wantNoGrant(t, d.use(two))
}

// TestInterleavings runs everything beside everything, with faults, restarts and time that passes, and then holds the
// ledger to the rules by a reading of its own.
func TestInterleavings(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	all := 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := newDesk(t, Config{})
			let := &released{of: map[fairlead.ID]int{}}
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			for range 6 {
				d.storm(rng, let)
				d.fault.Store(nil)
				d.pass(time.Duration(rng.IntN(8)-2) * time.Minute)
				if rng.IntN(2) == 0 {
					d.restart()
				}
			}
			d.audit(let)
			all += len(let.of)
		})
	}
	if all < seeds {
		t.Errorf("%d calls were let go: that tests nothing", all)
	}
}

// released is what was let go, by the call that did it.
type released struct {
	mu sync.Mutex
	of map[fairlead.ID]int
}

// storm lets eight actors do at random what actors do.
func (d *desk) storm(rng *rand.Rand, let *released) {
	var mu sync.Mutex
	faults := rand.New(rand.NewPCG(rng.Uint64(), 1))
	fault := func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if faults.IntN(20) == 0 {
			return errInjected
		}
		return nil
	}
	d.fault.Store(&fault)
	var wg sync.WaitGroup
	for range 8 {
		mine := rand.New(rand.NewPCG(rng.Uint64(), 2))
		wg.Go(func() {
			for range 12 {
				d.act(mine, let)
			}
			d.book.lapse(context.Background())
		})
	}
	wg.Wait()
}

func (d *desk) act(rng *rand.Rand, let *released) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if rng.IntN(6) == 0 {
		time.AfterFunc(time.Duration(rng.IntN(300))*time.Microsecond, cancel)
	}
	ask := d.ask(fmt.Sprintf(`{"n":%d}`, rng.IntN(6)))
	ask.Approvers = 1 + rng.IntN(2)
	switch rng.IntN(5) {
	case 0:
		d.book.Request(ctx, ask)
	case 1, 2:
		for _, a := range d.book.List(false) {
			by := person(fmt.Sprint(rng.IntN(3)))
			if body, err := d.book.Show(ctx, a.ID); err == nil && len(body) > 0 {
				d.book.Grant(ctx, a.ID, d.looked(a.ID, by))
			}
		}
	case 3:
		if list := d.book.List(false); len(list) > 0 && rng.IntN(8) == 0 {
			d.book.Deny(ctx, list[rng.IntN(len(list))].ID, Decision{By: person("0")})
		}
	default:
		a, err := d.book.Use(ctx, ask)
		if err != nil {
			return
		}
		let.mu.Lock()
		let.of[ask.Intent]++
		let.mu.Unlock()
		if a.State != Used || a.Approvers < ask.Approvers {
			d.t.Errorf("let go by %+v, asked for %d", a, ask.Approvers)
		}
	}
}

// audit reads the ledger without the book.
func (d *desk) audit(let *released) {
	d.t.Helper()
	type story struct {
		need    int64
		granted map[string]bool
		denied  bool
		used    int
	}
	stories := map[fairlead.ID]*story{}
	uses := map[fairlead.ID]int{}
	err := d.ledger.Events(context.Background(), 0, func(_ int64, b []byte) error {
		e, err := verify.ParseEnvelope(b)
		if err != nil {
			return err
		}
		s := stories[e.Link(fairlead.RelApproves)]
		switch e.Kind {
		case fairlead.KindApprovalRequested:
			stories[e.ID] = &story{need: e.Int(attrApprovers), granted: map[string]bool{}}
		case fairlead.KindApprovalGranted:
			s.granted[e.Actor.User.Value] = true
		case fairlead.KindApprovalDenied:
			s.denied = true
		case fairlead.KindApprovalUsed:
			s := stories[e.Link(fairlead.RelUses)]
			s.used++
			uses[e.Link(fairlead.RelAbout)]++
			if int64(len(s.granted)) < s.need || s.denied || s.used > 1 {
				d.t.Errorf("%s was used %d times: it takes %d, granted by %v, denied %v", e.Link(fairlead.RelUses), s.used, s.need, s.granted, s.denied)
			}
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	for call, n := range let.of {
		if n != 1 || uses[call] != 1 {
			d.t.Errorf("call %s was let go %d times, on record %d times", call, n, uses[call])
		}
	}
}
