package hist_test

import (
	"testing"
	"time"

	"github.com/thalo-go/es/internal/hist"
)

// Every value is in the first bucket whose bound is not below it, and in the last if there is none.
func TestBuckets(t *testing.T) {
	var seconds, sizes hist.Snapshot
	{
		var h hist.Durations
		seconds = h.Snapshot()
	}
	{
		var h hist.Sizes
		sizes = h.Snapshot()
	}
	for i, bound := range append(seconds.Bounds, 3600) {
		var h hist.Durations
		d := time.Duration(bound * float64(time.Second))
		h.Add(d)
		expectBucket(t, h.Snapshot(), i, d.Seconds())
		if i < len(seconds.Bounds) {
			var above hist.Durations
			above.Add(d + 1)
			expectBucket(t, above.Snapshot(), i+1, (d + 1).Seconds())
		}
	}
	for i, bound := range append(sizes.Bounds, 1e6) {
		var h hist.Sizes
		h.Add(int(bound))
		expectBucket(t, h.Snapshot(), i, bound)
		if i < len(sizes.Bounds) {
			var above hist.Sizes
			above.Add(int(bound) + 1)
			expectBucket(t, above.Snapshot(), i+1, bound+1)
		}
	}
}

func expectBucket(t *testing.T, s hist.Snapshot, bucket int, sum float64) {
	t.Helper()
	if len(s.Counts) != len(s.Bounds)+1 || s.Sum != sum {
		t.Fatalf("%d counts of %d bounds with the sum %v, want one more and %v", len(s.Counts), len(s.Bounds), s.Sum, sum)
	}
	for i, count := range s.Counts {
		if want := int64(0); i == bucket && count != 1 || i != bucket && count != want {
			t.Errorf("%v: bucket %d has %d, want the value in bucket %d", sum, i, count, bucket)
		}
	}
}

func TestAddAllocatesNothing(t *testing.T) {
	var d hist.Durations
	var n hist.Sizes
	if allocs := testing.AllocsPerRun(100, func() { d.Add(time.Millisecond); n.Add(7) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
