package bench_test

import (
	"testing"

	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
)

// BenchmarkExecute is commands on bank accounts.
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
	})
}

func warm(b *testing.B, s backend, callers int) {
	store, plain := s.open(b)
	side := func(name string, execute work.Execute) measure.Side {
		side, err := work.Warm(b.Context(), name, execute, callers)
		check(b, err)
		return side
	}
	ours := side("Execute", work.On(work.NewRepo(store)))
	if plain == nil {
		compare(b, ours)
		return
	}
	theirs := side("load, decide, append", work.OnPlain(baseline.Accounts{Store: plain}))
	compare(b, ours, theirs)
}

func cold(b *testing.B, s backend, callers int) {
	store, plain := s.open(b)
	accounts := min(max(b.N, callers), 10_000)
	side := func(name string, to work.Append, execute work.Execute) measure.Side {
		side, err := work.Cold(b.Context(), name, to, execute, callers, accounts, 10)
		check(b, err)
		return side
	}
	repo := work.NewRepo(store)
	repo.CacheSize = -1
	ours := side("Execute", work.To(store), work.On(repo))
	if plain == nil {
		compare(b, ours)
		return
	}
	theirs := side("load, decide, append", plain.Append, work.OnPlain(baseline.Accounts{Store: plain}))
	compare(b, ours, theirs)
}

func hot(b *testing.B, s backend, callers int) {
	store, plain := s.open(b)
	ours := work.Hot("Execute", work.On(work.NewRepo(store)), callers)
	if plain == nil {
		compare(b, ours)
		return
	}
	theirs := work.Hot("load, decide, append", work.OnPlain(baseline.Accounts{Store: plain}), callers)
	compare(b, ours, theirs)
}
