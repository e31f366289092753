// Package hist counts values in buckets, without a lock.
package hist

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Snapshot is what a histogram has counted. It has the fields of es.Histogram, which this package cannot import.
type Snapshot struct {
	Bounds []float64
	Counts []int64
	Sum    float64
}

// limits are the upper ends of the buckets of Durations, but for the last.
var limits = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Durations is a histogram of durations, from 100 µs to 10 s. Its zero value is ready to use.
type Durations struct {
	counts [len(limits) + 1]atomic.Int64
	sum    atomic.Int64 // nanoseconds
}

// Add counts a duration.
func (h *Durations) Add(d time.Duration) {
	i := 0
	for i < len(limits) && d > limits[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot returns the counts, in seconds. Values added during the call may be in the counts and not in the sum, or the reverse.
func (h *Durations) Snapshot() Snapshot {
	s := Snapshot{Bounds: make([]float64, len(limits)), Counts: make([]int64, len(limits)+1), Sum: time.Duration(h.sum.Load()).Seconds()}
	for i, limit := range limits {
		s.Bounds[i] = limit.Seconds()
	}
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
	}
	return s
}

const powers = 14 // up to 2^13, as no batch has more than some thousand members

// Sizes is a histogram of sizes, from 1 to 8,192, doubled from bucket to bucket. Its zero value is ready to use.
type Sizes struct {
	counts [powers + 1]atomic.Int64
	sum    atomic.Int64
}

// Add counts a size, which is at least 1.
func (h *Sizes) Add(n int) {
	h.counts[min(bits.Len(uint(max(n, 1)-1)), powers)].Add(1)
	h.sum.Add(int64(n))
}

// Snapshot is like that of Durations.
func (h *Sizes) Snapshot() Snapshot {
	s := Snapshot{Bounds: make([]float64, powers), Counts: make([]int64, powers+1), Sum: float64(h.sum.Load())}
	for i := range s.Bounds {
		s.Bounds[i] = float64(int(1) << i)
	}
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
	}
	return s
}
