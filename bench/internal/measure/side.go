// Package measure compares the speed of two implementations on a machine with other load.
//
// Other load changes from second to second, so numbers from different minutes cannot be compared. Therefore the two sides run alternately,
// for a fraction of a second each. Each turn of one side is divided by the neighbouring turn of the other. The result is the median of
// those ratios.
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

// A Side is one of the implementations that are compared. Its callers repeat an operation without pauses.
type Side struct {
	Name    string
	Callers int
	Units   int // the number of units, such as events, that one Op counts as; 0 means 1
	Op      Op

	// Before, if not nil, is called before each turn and is not measured.
	Before func(ctx context.Context) error
}

// A Sample is the result of one turn of a side.
type Sample struct {
	Units     int
	Elapsed   time.Duration // until the last caller has finished
	Latencies []time.Duration
}

// Rate returns the units per second.
func (s Sample) Rate() float64 { return float64(s.Units) / s.Elapsed.Seconds() }

// For runs the callers for a duration. Each runs at least one operation. Operations that have begun in time are finished, and they and
// their time count.
func (s Side) For(ctx context.Context, d time.Duration) (Sample, error) {
	var end time.Time
	return s.run(ctx, func(now time.Time) { end = now.Add(d) }, func(now time.Time, done int) bool {
		return done == 0 || now.Before(end)
	})
}

// Times runs n operations of all callers together.
func (s Side) Times(ctx context.Context, n int) (Sample, error) {
	var left atomic.Int64
	left.Store(int64(n))
	s.Callers = min(s.Callers, max(n, 1))
	return s.run(ctx, func(time.Time) {}, func(time.Time, int) bool { return left.Add(-1) >= 0 })
}

// run runs all callers. Each calls more before each operation, with the time and the number of operations that it has finished.
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
		err = errors.New("measure: " + s.Name + ": no operation was run")
	}
	return sample, err
}
