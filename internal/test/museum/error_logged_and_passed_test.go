package museum_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/thalo-go/es"
)

// The failure: an event that a handler cannot handle is logged, and the checkpoint moves past it. The read model is
// wrong from then on, and nothing shows where.
//
// Not here: a projection stops before it with an error that names it, or parks it with its stream, where it is visible
// and can be retried.
func TestErrorLoggedAndPassed(t *testing.T) {
	projectors(t, passesOver)
	control(t, "a loop that logs and goes on", func(t *testing.T) error {
		h := newHomemade(t)
		return passesOver(t, h.projector(func(ctx context.Context, handle func(context.Context, string) error) error {
			at, err := h.checkpoint(ctx)
			if err != nil {
				return err
			}
			for r, err := range h.log.All(ctx, at, es.Filter{}) {
				if err != nil {
					return err
				}
				if err := handle(ctx, string(r.Data)); err != nil {
					t.Logf("event %d: %v", r.Position, err)
				} else if err := h.apply(ctx, string(r.Data)); err != nil {
					return err
				}
				if err := h.move(ctx, r.Position); err != nil {
					return err
				}
			}
			return nil
		}))
	})
}

// passesOver looks for an event that is missing because the handler could not handle it at first.
func passesOver(t *testing.T, p *projector) error {
	p.appends(t, "one", "two", "three", "four", "five")
	err := p.run(t.Context(), func(_ context.Context, text string) error {
		if text == "three" {
			return errWrong
		}
		return nil
	})
	if n := len(p.applied(t)); n > 2 {
		return fmt.Errorf("%d events are in the read model although the third could not be handled: %v", n, p.applied(t))
	}
	if err == nil {
		return errors.New("the failure of the third event was not reported")
	}
	must(t, p.run(t.Context(), fine)) // the bug is fixed
	return p.misapplied(t)
}
