// Package background runs projections in the background of a test.
package background

import (
	"context"
	"errors"
	"testing"

	"github.com/thalo-go/es/projection"
)

// Project runs a projection until the test ends. It fails the test if the projection ends before.
func Project[Tx any](t testing.TB, s projection.Projections[Tx], p projection.Projection[Tx]) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Project(ctx, p) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("projection %s ended: %v", p.Name, err)
		}
	})
}
