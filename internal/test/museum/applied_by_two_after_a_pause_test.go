package museum_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thalo-go/es"
)

// The failure: one of two workers is paused beyond the end of its lease, for example by garbage collection. The other
// takes over. Then the first continues and applies the same events again.
//
// Not here: a lease only saves work. The checkpoint is compared in the transaction that moves it, and a worker that
// finds another value rolls back.
func TestAppliedByTwoAfterAPause(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: waits for leases; the tests of sqlite cover replaced workers")
	}
	projectors(t, appliesTwice)
	control(t, "a worker that holds a lease and trusts it", func(t *testing.T) error {
		h := newHomemade(t)
		leases := h.log.(es.Leases)
		var workers atomic.Int64
		return appliesTwice(t, h.projector(func(ctx context.Context, handle func(context.Context, string) error) error {
			me := fmt.Sprint("worker ", workers.Add(1)) // each run is another process
			for {
				l, err := leases.AcquireLease(ctx, "texts", me, lease, "")
				if err != nil {
					return err
				}
				if l.Holder == me {
					break
				}
				select {
				case <-time.After(lease / 10):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			at, err := h.checkpoint(ctx)
			if err != nil {
				return err
			}
			for r, err := range h.log.All(ctx, at, es.Filter{}) {
				if err == nil {
					err = handle(ctx, string(r.Data))
				}
				if err == nil {
					err = h.apply(ctx, string(r.Data))
				}
				if err == nil {
					err = h.move(ctx, r.Position)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}))
	})
}

// appliesTwice looks for events that are applied twice because a worker was paused for longer than its lease.
func appliesTwice(t *testing.T, p *projector) error {
	p.appends(t, "one", "two", "three")
	paused, second := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	first := make(chan error, 1)
	go func() {
		first <- p.run(t.Context(), func(_ context.Context, text string) error {
			if text == "two" {
				once.Do(func() {
					close(paused)
					select {
					case err := <-second: // it has taken over and reached the end
						second <- err
					case <-time.After(10 * lease): // it cannot take over while this one has the transaction
					}
				})
			}
			return nil
		})
	}()
	<-paused
	go func() { second <- p.run(t.Context(), fine) }()
	// The paused worker may lose its transaction; it then continues with the rest, or ends.
	if err := <-first; err != nil {
		t.Logf("the first, after the pause: %v", err)
	}
	must(t, <-second)
	must(t, p.run(t.Context(), fine))
	return p.misapplied(t)
}
