package bench_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/sqlite"
)

// payload is the size of an event where it does not matter what is in it.
const payload = 120

// A log is what a backend brings into the benchmarks.
type log interface {
	es.Log
	es.Snapshots
}

// A backend is one value of store= in the names.
type backend struct {
	name string

	// open makes an empty log, and the baseline for it or nil.
	open func(b *testing.B) (log, *baseline.SQLite)

	// again opens the log once more, as another process does. nil if there is no such thing.
	again func(b *testing.B, first log) log
}

func backends() []backend {
	return []backend{
		{name: "mem", open: func(*testing.B) (log, *baseline.SQLite) { return new(es.Mem), nil }},
		sqliteBackend(),
	}
}

func sqliteBackend() backend {
	paths := make(map[log]string)
	open := func(b *testing.B, path string) log {
		store, err := sqlite.Open(path)
		check(b, err)
		b.Cleanup(func() { check(b, store.Close()) })
		paths[store] = path
		return store
	}
	return backend{
		name: "sqlite",
		open: func(b *testing.B) (log, *baseline.SQLite) {
			dir := b.TempDir()
			plain, err := baseline.OpenSQLite(filepath.Join(dir, "plain.db"))
			check(b, err)
			b.Cleanup(func() { check(b, plain.Close()) })
			return open(b, filepath.Join(dir, "store.db")), plain
		},
		again: func(b *testing.B, first log) log { return open(b, paths[first]) },
	}
}

// eachStore runs a benchmark for each backend, as store=name.
func eachStore(b *testing.B, run func(b *testing.B, s backend)) {
	for _, s := range backends() {
		b.Run("store="+s.name, func(b *testing.B) { run(b, s) })
	}
}

// callers runs a benchmark for each number of callers.
func callers(b *testing.B, what string, numbers []int, run func(b *testing.B, callers int)) {
	for _, n := range numbers {
		b.Run(fmt.Sprintf("%s=%d", what, n), func(b *testing.B) { run(b, n) })
	}
}

// compare does b.N operations of ours, in turns with theirs for about the same time, and reports the metrics.
// There is at most one of theirs, and none if there is nothing to compare with.
//
// The timer runs for ours alone, so that ns/op, B/op and allocs/op are ours.
func compare(b *testing.B, ours measure.Side, theirs ...measure.Side) {
	b.Helper()
	const turns = 10
	ctx, cancel := context.WithCancel(b.Context()) // a context that can end, as callers have
	defer cancel()
	var pairs measure.Pairs
	var all []measure.Sample
	b.ReportAllocs()
	b.ResetTimer()
	b.StopTimer()
	for done, turn := 0, 0; done < b.N; turn++ {
		n := min(max(b.N/turns, ours.Callers, 1), b.N-done)
		done += n
		own := func() measure.Sample {
			return take(b, func() (measure.Sample, error) { return timed(b, ctx, ours, n) })
		}
		if len(theirs) == 0 {
			all = append(all, own())
			continue
		}
		var a, t measure.Sample
		if turn%2 == 0 {
			a = own()
			t = take(b, func() (measure.Sample, error) { return theirs[0].For(ctx, a.Elapsed) })
		} else {
			t = take(b, func() (measure.Sample, error) { return theirs[0].For(ctx, all[turn-1].Elapsed) })
			a = own()
		}
		all = append(all, a)
		pairs.Add(a, t)
	}
	sum := measure.Together(all)
	b.ReportMetric(sum.Rate(), "events/s")
	b.ReportMetric(ms(measure.Percentile(sum.Latencies, 50)), "p50-ms")
	b.ReportMetric(ms(measure.Percentile(sum.Latencies, 99)), "p99-ms")
	if len(theirs) > 0 {
		b.ReportMetric(pairs.Ratio(), "x-textbook")
	}
}

// timed runs n operations of a side with the timer on.
func timed(b *testing.B, ctx context.Context, s measure.Side, n int) (measure.Sample, error) {
	if s.Before != nil {
		if err := s.Before(ctx); err != nil {
			return measure.Sample{}, err
		}
		s.Before = nil
	}
	b.StartTimer()
	defer b.StopTimer()
	return s.Times(ctx, n)
}

func take(b *testing.B, turn func() (measure.Sample, error)) measure.Sample {
	b.Helper()
	s, err := turn()
	check(b, err)
	return s
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
