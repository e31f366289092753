package measure

import (
	"context"
	"math"
	"slices"
	"time"
)

// Pairs has the turns of two sides. A[i] and B[i] were measured one after the other.
type Pairs struct{ A, B []Sample }

// Add adds a turn of each side.
func (p *Pairs) Add(a, b Sample) {
	p.A = append(p.A, a)
	p.B = append(p.B, b)
}

// InTurns runs two sides alternately, n turns of a duration each, and adds the pairs. In every other pair b goes first, so that the state
// of the disk favours neither side.
func (p *Pairs) InTurns(ctx context.Context, n int, d time.Duration, a, b Side) error {
	for i := range n {
		first, second := a, b
		if i%2 == 1 {
			first, second = b, a
		}
		x, err := first.For(ctx, d)
		if err != nil {
			return err
		}
		y, err := second.For(ctx, d)
		if err != nil {
			return err
		}
		if i%2 == 1 {
			x, y = y, x
		}
		p.Add(x, y)
	}
	return nil
}

// Ratios returns the rates of A divided by those of B, pair by pair.
func (p *Pairs) Ratios() []float64 {
	ratios := make([]float64, len(p.A))
	for i := range p.A {
		ratios[i] = p.A[i].Rate() / p.B[i].Rate()
	}
	return ratios
}

// Ratio returns the median of the ratios, so a single disturbed turn has no effect.
func (p *Pairs) Ratio() float64 { return Median(p.Ratios()) }

// Together adds up samples.
func Together(samples []Sample) Sample {
	var sum Sample
	for _, s := range samples {
		sum.Units += s.Units
		sum.Elapsed += s.Elapsed
		sum.Latencies = append(sum.Latencies, s.Latencies...)
	}
	return sum
}

// Median returns the middle value, or the mean of the two in the middle. It returns NaN without values. It does not change values.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Percentile returns the smallest latency that at least p percent of the latencies do not exceed ("nearest rank"). It returns 0 without
// latencies.
func Percentile(latencies []time.Duration, p float64) time.Duration {
	if len(latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(latencies))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}
