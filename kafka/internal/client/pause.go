package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff returns how long to wait before another attempt: a random time of up to 50 ms, doubled with each further attempt up to 25 s ("full jitter").
func Backoff(attempt int) time.Duration {
	return 1 + rand.N(50*time.Millisecond<<min(attempt, 9))
}

// Sleep waits. It returns the context's error if the context ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
