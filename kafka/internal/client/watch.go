package client

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

const (
	watchEvery  = 30 * time.Second // between two descriptions of the topics
	watchMisses = 3                // in a row, a second apart, before a topic counts as gone
	lookEvery   = 2 * time.Second  // between two looks for topics that do not exist yet
)

// Watch checks now and then whether topics are still the same. Its functions are called from the goroutine that runs it, or from Check.
type Watch struct {
	Reader   *Reader
	Topics   map[string]Topic // as they are known
	Missing  []string         // topics that do not exist yet
	Log      *slog.Logger
	Changed  func(Change)                    // called once for each change
	Gone     func(error)                     // called with a *NoTopicError. A topic may be missing for a moment when a broker has just started.
	Appeared func(name string, t Topic)      // called once for each of Missing; nil if there are none
	Fit      func(ctx context.Context) error // checks the settings of the topics; see Fitness. nil checks nothing
	Unfit    func(error)                     // called with an error of Fit that wraps es.ErrInvalid
	Soon     <-chan struct{}

	fit time.Time // when Fit was called last

	mu sync.Mutex // guards Topics and Missing while Run runs
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
		switch {
		case missed > 0:
			wait = time.Second
		case w.looks():
			wait = lookEvery
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
			w.checkFit(ctx)
		case errors.As(err, new(*NoTopicError)):
			if missed++; missed >= watchMisses {
				w.Gone(err)
				missed = 0
			}
		case ctx.Err() == nil:
			w.Log.Warn("kafka: topics not described", "err", w.Reader.Trouble.Explain(err))
		}
	}
}

func (w *Watch) checkFit(ctx context.Context) {
	if w.Fit == nil || w.looks() && time.Since(w.fit) < watchEvery {
		return
	}
	w.fit = time.Now()
	switch err := w.Fit(ctx); {
	case errors.Is(err, es.ErrInvalid):
		w.Unfit(err)
	case err != nil && ctx.Err() == nil:
		w.Log.Warn("kafka: settings of topics not described", "err", err)
	}
}

func (w *Watch) looks() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.Missing) > 0
}

// Check describes the topics at once, and calls Changed for each that is not what it was, and Appeared for each that is new.
func (w *Watch) Check(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := slices.Sorted(maps.Keys(w.Topics))
	now, err := DescribeTopics(ctx, w.Reader.Admin, slices.Concat(names, w.Missing)...)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := now[name]; !ok {
			return &NoTopicError{name}
		}
	}
	for _, name := range names {
		if was, is := w.Topics[name], now[name]; was != is {
			w.Topics[name] = is
			w.Changed(Change{name, was, is})
		}
	}
	w.Missing = slices.DeleteFunc(w.Missing, func(name string) bool {
		t, exists := now[name]
		if exists {
			w.Topics[name] = t
			w.Appeared(name, t)
		}
		return exists
	})
	return nil
}
