package kafka

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff returns how long to wait before another attempt: a random time of up to 50 ms, doubled with each further one up to 25 s ("full jitter").
func backoff(attempt int) time.Duration {
	return 1 + rand.N(50*time.Millisecond<<min(attempt, 9))
}

// sleep waits, and returns the context's error if that ends before.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func orElse[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
