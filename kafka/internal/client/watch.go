package client

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"
)

const (
	watchEvery  = 30 * time.Second // between two descriptions of the topics
	watchMisses = 3                // in a row, a second apart, before a topic counts as gone
)

// Watch checks now and then whether topics are still the same. Changed and Gone are called from the goroutine that runs it.
type Watch struct {
	Reader  *Reader
	Topics  map[string]Topic // as they were at first
	Log     *slog.Logger
	Changed func(Change)
	Gone    func(error) // called with a *NoTopicError. A topic may be missing for a moment when a broker has just started.
	Soon    <-chan struct{}
}

// Change is a topic that is not what it was.
type Change struct {
	Topic   string
	Was, Is Topic
}

// Recreated reports whether the topic was deleted and created again. Otherwise it has another number of partitions.
func (c Change) Recreated() bool { return c.Was.ID != c.Is.ID }

// Run checks the topics periodically, and when Soon receives, until ctx is done.
func (w *Watch) Run(ctx context.Context) {
	for missed := 0; ; {
		wait := watchEvery
		if missed > 0 {
			wait = time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-w.Soon:
			timer.Stop()
		}
		switch err := w.Check(ctx); {
		case err == nil:
			missed = 0
		case errors.As(err, new(*NoTopicError)):
			if missed++; missed >= watchMisses {
				w.Gone(err)
				missed = 0
			}
		case ctx.Err() == nil:
			w.Log.Warn("kafka: topics not described", "err", err)
		}
	}
}

// Check describes the topics at once, and calls Changed for each that is not what it was.
func (w *Watch) Check(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(w.Topics))
	now, err := w.Reader.Describe(ctx, names...)
	if err != nil {
		return err
	}
	for _, name := range names {
		if was, is := w.Topics[name], now[name]; was != is {
			w.Changed(Change{name, was, is})
		}
	}
	return nil
}
