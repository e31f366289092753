// Package eventually waits in tests for conditions that nothing announces.
package eventually

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// limit is how long to wait. It is long because the machine may be busy; a condition that holds is noticed within milliseconds.
const limit = time.Minute

// True waits until a condition holds, and fails the test if it does not within a minute.
// what says what is waited for, as in "two workers have two shards each".
func True(t testing.TB, what string, is func() bool) {
	t.Helper()
	if err := Wait(t.Context(), what, is); err != nil {
		t.Fatal(err)
	}
}

// Wait is like True for goroutines that cannot end the test. It returns an error if the condition does not hold within a minute,
// or before ctx is done.
func Wait(ctx context.Context, what string, is func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !is(); {
		if time.Now().After(end) {
			return fmt.Errorf("timeout after %v waiting until %s", limit, what)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		}
	}
	return nil
}
