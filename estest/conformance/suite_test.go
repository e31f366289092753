package conformance_test

import (
	"context"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/internal/test/recorder"
)

func TestAClauseReports(t *testing.T) {
	report := func(name string, store func(*es.Mem) *faulty) func(t testing.TB) {
		return func(t testing.TB) {
			t.Helper()
			log := store(new(es.Mem))
			for _, clause := range conformance.LogClauses() {
				if clause.Name == name {
					clause.ReportLog(t, func() es.Log { return log })
				}
			}
		}
	}
	t.Run("nothing about a store that keeps its promises", func(t *testing.T) {
		recorder.Fails(t, report(versionsDense, func(m *es.Mem) *faulty { return &faulty{Mem: m} }))
	})
	t.Run("where it found what, and the rule", func(t *testing.T) {
		recorder.Fails(t, report(times, recording(func(r es.Record) es.Record { r.Time = r.Time.Add(1); return r })),
			"append.go:", "position 1 has the time", "whole microseconds", "The rule: Record.Time is the same")
	})
	t.Run("a panic of the store, and goes on to the next clause", func(t *testing.T) {
		recorder.Fails(t, report(commandOnce, appending(func(context.Context, *es.Mem, []es.Append) (es.Position, error) {
			panic("index out of range")
		})), "panic: index out of range", "suite_test.go:", "The rule: A command that is there already")
	})
	t.Run("a panic of the store in a race", func(t *testing.T) {
		recorder.Fails(t, report(updates, reading(func(context.Context, *es.Mem, es.Stream, es.Version) records {
			panic("index out of range")
		})), "panic: index out of range")
	})
	t.Run("a store that blocks and does not look at its context", func(t *testing.T) {
		recorder.Fails(t, report(versionsDense, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				mu.Lock() // and never unlocks
				return m.Append(ctx, appends...)
			}}
		}), "a call is blocked")
	})
}
