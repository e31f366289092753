package bench_test

import (
	"testing"

	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
)

// BenchmarkExecute measures commands on bank accounts. An operation is one command, or with mode=mixed one command or one load.
func BenchmarkExecute(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		b.Run("mode=warm", func(b *testing.B) {
			callers(b, "callers", []int{1, 128}, func(b *testing.B, n int) { warm(b, s, n) })
		})
		b.Run("mode=cold", func(b *testing.B) {
			callers(b, "callers", []int{1, 128}, func(b *testing.B, n int) { cold(b, s, n) })
		})
		b.Run("mode=hot", func(b *testing.B) {
			callers(b, "callers", []int{64, 1000}, func(b *testing.B, n int) { hot(b, s, n) })
		})
		b.Run("mode=mixed", func(b *testing.B) {
			callers(b, "callers", []int{1, 128}, func(b *testing.B, n int) { mixed(b, s, n) })
		})
	})
}

// retries returns a rival that loads, decides, appends and retries on a conflict.
func retries(b *testing.B, s bed, side func(work.Append, work.Accounts) (measure.Side, error)) []rival {
	b.Helper()
	if s.plain == nil {
		return nil
	}
	theirs, err := side(s.fill, work.OnPlain(baseline.Accounts{Store: s.plain}))
	check(b, err)
	return []rival{{"retry", theirs}}
}

func warm(b *testing.B, s backend, callers int) {
	bed := s.open(b)
	side := func(_ work.Append, on work.Accounts) (measure.Side, error) {
		return work.Warm(b.Context(), "Execute", on.Execute, callers)
	}
	ours, err := side(nil, work.OnRepo(work.NewRepo(bed)))
	check(b, err)
	compare(b, bed.server, ours, retries(b, bed, side)...)
}

func cold(b *testing.B, s backend, callers int) {
	const accounts, events = 10_000, 10
	bed := s.open(b)
	side := func(to work.Append, on work.Accounts) (measure.Side, error) {
		return work.Cold(b.Context(), "Execute", to, on.Execute, callers, few(accounts, callers), events)
	}
	repo := work.NewRepo(bed)
	repo.CacheSize = -1
	ours, err := side(work.To(bed), work.OnRepo(repo))
	check(b, err)
	compare(b, bed.server, ours, retries(b, bed, side)...)
}

func hot(b *testing.B, s backend, callers int) {
	bed := s.open(b)
	side := func(_ work.Append, on work.Accounts) (measure.Side, error) {
		return work.Hot("Execute", on.Execute, callers), nil
	}
	ours, err := side(nil, work.OnRepo(work.NewRepo(bed)))
	check(b, err)
	if callers > 64 {
		compare(b, bed.server, ours) // with 1,000 callers that conflict, one command of each takes the baseline many seconds
		return
	}
	compare(b, bed.server, ours, retries(b, bed, side)...)
}

func mixed(b *testing.B, s backend, callers int) {
	const accounts, events = 1_000, 10
	bed := s.open(b)
	side := func(to work.Append, on work.Accounts) (measure.Side, error) {
		return work.Mixed(b.Context(), "Execute and Load", to, on, callers, few(accounts, callers), events)
	}
	ours, err := side(work.To(bed), work.OnRepo(work.NewRepo(bed)))
	check(b, err)
	compare(b, bed.server, ours, retries(b, bed, side)...)
}

// few returns a smaller number if nothing is measured, so that a run of all benchmarks takes little time.
func few(n, least int) int {
	if turn() > 0 {
		return n
	}
	return max(n/100, least)
}
