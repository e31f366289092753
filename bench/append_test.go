package bench_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
)

// BenchmarkAppend measures writers that append one event at a time.
func BenchmarkAppend(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		callers(b, "writers", []int{1, 16, 128, 1000}, func(b *testing.B, writers int) {
			appends(b, s, writers, 1, payload)
		})
	})
}

// BenchmarkAppendBatch measures 16 writers that append many events at a time. An operation is one append.
func BenchmarkAppendBatch(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		for _, batch := range []int{10, 100} {
			b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) { appends(b, s, 16, batch, payload) })
		}
	})
}

// BenchmarkAppendPayload measures 128 writers that append one event at a time, by the size of the event.
func BenchmarkAppendPayload(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		for _, bytes := range []int{100, 1_000, 10_000} {
			b.Run(fmt.Sprintf("bytes=%d", bytes), func(b *testing.B) { appends(b, s, 128, 1, bytes) })
		}
	})
}

func appends(b *testing.B, s backend, writers, batch, bytes int) {
	bed := s.open(b)
	compare(b, bed.server, work.Appends("Append", work.To(bed), writers, batch, bytes), bed.rivals(writers, batch, bytes)...)
}

// BenchmarkAppendLimit measures 1,000 writers that append one event at a time, against the fastest way to insert the same rows.
func BenchmarkAppendLimit(b *testing.B) {
	const writers, rows = 1000, 1000
	eachDurable(b, func(b *testing.B, s backend) {
		bed := s.open(b)
		limit := rival{"limit", measure.Side{}}
		switch plain := bed.plain.(type) {
		case *baseline.SQLite:
			limit.side = work.Inserts("bare loop", plain.Insert, writers, rows, payload)
		case *baseline.Postgres:
			limit.side = work.Inserts("COPY", plain.Copy, writers, rows, payload)
		}
		compare(b, bed.server, work.Appends("Append", work.To(bed), writers, 1, payload), limit)
	})
}

// BenchmarkProcesses measures 64 writers in several processes that share a log, against 64 writers in one process. An operation is one
// event.
func BenchmarkProcesses(b *testing.B) {
	const writers = 64
	eachDurable(b, func(b *testing.B, s backend) {
		for _, n := range []int{1, 2, 4, 8} {
			b.Run(fmt.Sprintf("processes=%d", n), func(b *testing.B) {
				bed := s.open(b)
				var many []*work.Process
				for i := range n {
					many = append(many, startWriter(b, bed, strconv.Itoa(i), writers/n))
				}
				processes(b, many, startWriter(b, bed, "alone", writers))
			})
		}
	})
}

func startWriter(b *testing.B, s bed, name string, writers int) *work.Process {
	b.Helper()
	p, err := work.StartProcess(context.WithoutCancel(b.Context()), writeWord, s.place, name, strconv.Itoa(writers))
	check(b, err)
	b.Cleanup(func() { check(b, p.Close()) })
	return p
}

func processes(b *testing.B, many []*work.Process, one *work.Process) {
	var pairs measure.Pairs
	sides, turn := [][]*work.Process{many, {one}}, turn()
	for i := 0; b.Loop(); i++ {
		var samples [2]measure.Sample
		for k := range sides {
			n := (i + k) % 2
			var err error
			samples[n], err = work.Together(sides[n], turn)
			check(b, err)
		}
		pairs.Add(samples[0], samples[1])
	}
	sum, alone := measure.Together(pairs.A), measure.Together(pairs.B)
	b.ReportMetric(float64(sum.Elapsed)/float64(sum.Units), "ns/op")
	b.ReportMetric(sum.Rate(), "events/s")
	b.ReportMetric(pairs.Ratio(), "x-one")
	b.ReportMetric(alone.Rate(), "one-events/s")
}
