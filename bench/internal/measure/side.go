// Package measure compares two ways of doing the same thing on a machine that does other things as well.
//
// What other programs take away changes from second to second, so that two numbers from different minutes say little about each other.
// The two sides therefore take turns, a fraction of a second each; each turn of one side is divided by the turn of the other next to it;
// and the median of those ratios is the answer.
package measure

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// An Op is one operation of one caller. Callers are numbered from 0.
type Op func(ctx context.Context, caller int) error

// A Side is one of the things that are compared: callers who repeat an operation, each as soon as the one before has returned.
type Side struct {
	Name    string
	Callers int
	Units   int // what one Op counts for, in events, say; 0 means 1
	Op      Op

	// Before, if not nil, is called before each turn and is not measured.
	Before func(ctx context.Context) error
}

// A Sample is what a side did in one turn.
type Sample struct {
	Units     int
	Elapsed   time.Duration // until the last caller was done
	Latencies []time.Duration
}

// Rate is units a second.
func (s Sample) Rate() float64 { return float64(s.Units) / s.Elapsed.Seconds() }

// For lets the callers work for a time. Each does at least one operation, and what has begun in time is finished and counts,
// as does the time that it takes.
func (s Side) For(ctx context.Context, d time.Duration) (Sample, error) {
	var end time.Time
	return s.run(ctx, func(now time.Time) { end = now.Add(d) }, func(now time.Time, done int) bool {
		return done == 0 || now.Before(end)
	})
}

// Times lets the callers do n operations together.
func (s Side) Times(ctx context.Context, n int) (Sample, error) {
	var left atomic.Int64
	left.Store(int64(n))
	s.Callers = min(s.Callers, max(n, 1))
	return s.run(ctx, func(time.Time) {}, func(time.Time, int) bool { return left.Add(-1) >= 0 })
}

// run runs all callers. more is asked before each operation, with the time and the number of those that the caller has done.
func (s Side) run(ctx context.Context, start func(time.Time), more func(now time.Time, done int) bool) (Sample, error) {
	if s.Before != nil {
		if err := s.Before(ctx); err != nil {
			return Sample{}, err
		}
	}
	latencies := make([][]time.Duration, s.Callers)
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	start(begin)
	for caller := range s.Callers {
		group.Go(func() error {
			var own []time.Duration
			defer func() { latencies[caller] = own }()
			for now := time.Now(); more(now, len(own)); {
				if err := s.Op(ctx, caller); err != nil {
					return err
				}
				end := time.Now()
				own = append(own, end.Sub(now))
				now = end
			}
			return nil
		})
	}
	err := group.Wait()
	sample := Sample{Elapsed: max(time.Since(begin), 1)}
	for _, own := range latencies {
		sample.Latencies = append(sample.Latencies, own...)
	}
	sample.Units = len(sample.Latencies) * max(s.Units, 1)
	if err == nil && len(sample.Latencies) == 0 {
		err = errors.New("measure: " + s.Name + ": no operation was done")
	}
	return sample, err
}
