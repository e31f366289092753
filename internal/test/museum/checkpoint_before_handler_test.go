package museum_test

import (
	"context"
	"testing"

	"github.com/thalo-go/es"
)

// The failure: the checkpoint moves when events are handed out, not when they have been applied. A process that dies in
// between has skipped them permanently.
//
// Not here: the checkpoint moves in the transaction of the read model.
func TestCheckpointBeforeHandler(t *testing.T) {
	projectors(t, diesWhileHandling)
	control(t, "a loop that notes where it is and then handles", func(t *testing.T) error {
		h := newHomemade(t)
		return diesWhileHandling(t, h.projector(func(ctx context.Context, handle func(context.Context, string) error) error {
			at, err := h.checkpoint(ctx)
			if err != nil {
				return err
			}
			for r, err := range h.log.All(ctx, at, es.Filter{}) {
				if err == nil {
					err = h.move(ctx, r.Position)
				}
				if err == nil {
					err = handle(ctx, string(r.Data))
				}
				if err == nil {
					err = h.apply(ctx, string(r.Data))
				}
				if err != nil {
					return err
				}
			}
			return nil
		}))
	})
}

// diesWhileHandling looks for events that are skipped because a process died while handling them.
func diesWhileHandling(t *testing.T, p *projector) error {
	p.appends(t, "one", "two", "three", "four", "five")
	for _, fatal := range []string{"three", "one", "five"} {
		ctx, die := context.WithCancel(t.Context())
		err := p.run(ctx, func(ctx context.Context, text string) error {
			if text == fatal {
				die()
				return ctx.Err()
			}
			return nil
		})
		die()
		if err == nil && fatal == "three" {
			t.Fatal("the process did not die")
		}
	}
	must(t, p.run(t.Context(), fine))
	return p.misapplied(t)
}
