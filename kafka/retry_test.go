package kafka_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

// Requests for several keys that wait read the dead-letter partition once, not once for each key: what they find is in the order of the partition.
func TestKeysAreRetriedTogether(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		const keys = 10
		p := newPublisher(t, b)
		all := p.publish(600, keys)
		c, got := parking(t, b), newCollector()
		var broken atomic.Bool
		broken.Store(true)
		release := make(chan struct{})
		got.fail = func(es.Record) error {
			if broken.Load() {
				return errBroken
			}
			<-release
			return nil
		}
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		eventually(t, "a record is parked", func() bool { stats := c.Stats(); return len(stats) > 0 && stats[0].Parked > 0 })
		letters := awaitParked(t, b, len(all))
		broken.Store(false)
		requested := make(map[string]bool)
		for _, l := range letters {
			if requested[l.Key] {
				continue
			}
			requested[l.Key] = true
			if err := deadLetters(b).Retry(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}
		close(release)
		got.await(t, "all letters", got.has(all))
		awaitLetters(t, b, "none is parked", func(l []kafka.DeadLetter) bool { return len(l) == 0 })
		_ = stop()
		got.inOrder(t)
		switches := 0
		got.mu.Lock()
		defer got.mu.Unlock()
		handled := got.records[len(got.records)-len(all):]
		for i := range handled[1:] {
			if handled[i].Stream != handled[i+1].Stream {
				switches++
			}
		}
		if switches < 100 || slices.ContainsFunc(handled, func(r es.Record) bool { return r.Type == "" }) {
			t.Errorf("the key changes %d times while %d letters of %d keys are retried: each key was read for itself", switches, len(all), keys)
		}
	})
}
