package approval

import (
	"context"
	"time"

	"github.com/fairleadhq/fairlead"
)

// Background ends what expires, records that it did, and tells the webhook, until ctx ends. Without it everything else
// works all the same, but the ledger does not say what nobody answered, and the webhook is not told.
func (b *Book) Background(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if b.hook != nil {
			b.hook.run(ctx)
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			b.lapse(ctx)
		case <-ctx.Done():
		}
	}
	<-done
}

// lapse records what has expired. What cannot be recorded is tried again the next time.
func (b *Book) lapse(ctx context.Context) {
	b.mu.Lock()
	b.now()
	list := b.lapsed
	b.lapsed = nil
	b.mu.Unlock()
	for i, e := range list {
		b.mu.Lock()
		known := !e.decided.IsZero()
		b.mu.Unlock()
		if known {
			continue // an earlier process has recorded it
		}
		f := &fairlead.Fact{Kind: fairlead.KindApprovalDenied, Tenant: e.tenant, Attrs: []fairlead.Attr{{Name: attrExpired, Value: true}},
			Links: []fairlead.Link{{Rel: fairlead.RelApproves, To: e.id, Assurance: fairlead.Derived}}}
		b.stamp(f)
		_, err := b.conf.Ledger.Append(ctx, f)
		b.mu.Lock()
		if err != nil {
			b.lapsed = append(list[i:], b.lapsed...)
			b.mu.Unlock()
			if ctx.Err() == nil {
				b.conf.Log.Warn("an approval expired, which cannot be recorded yet", "approval", e.id, "err", err)
			}
			return
		}
		e.decided = f.ID
		b.tell(e, "approval.expired", nil)
		b.mu.Unlock()
	}
}
