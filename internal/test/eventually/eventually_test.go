package eventually_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es/internal/test/eventually"
)

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		after := func(d time.Duration) func() bool { return func() bool { return time.Since(start) >= d } }
		if err := eventually.Wait(t.Context(), "it holds", after(time.Second)); err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("Wait returned %v after %v: want nil after a second", err, time.Since(start))
		}
		err := eventually.Wait(t.Context(), "it holds", after(time.Hour))
		if err == nil || !strings.Contains(err.Error(), "it holds") {
			t.Errorf("Wait returned %v: want a timeout with the condition", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := eventually.Wait(ctx, "it holds", after(time.Hour)); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait returned %v: want the context's error", err)
		}
	})
}
