package conformance_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/internal/test/recorder"
)

func TestAClauseReports(t *testing.T) {
	report := func(name string, timeout time.Duration, store func(*es.Mem) *faulty) func(t testing.TB) {
		return func(t testing.TB) {
			t.Helper()
			log := store(new(es.Mem))
			for _, clause := range conformance.LogClauses() {
				if clause.Name == name {
					clause.ReportLog(t, func() es.Log { return log }, timeout)
				}
			}
		}
	}
	t.Run("nothing for a correct store", func(t *testing.T) {
		recorder.Fails(t, report(versionsDense, time.Minute, func(m *es.Mem) *faulty { return &faulty{Mem: m} }))
	})
	t.Run("the line, the finding and the rule", func(t *testing.T) {
		recorder.Fails(t, report(times, time.Minute, recording(func(r es.Record) es.Record { r.Time = r.Time.Add(1); return r })),
			"append.go:", "position 1 has the time", "whole microseconds", "The rule: Record.Time is equal")
	})
	t.Run("a panic of the store, and continues with the next clause", func(t *testing.T) {
		recorder.Fails(t, report(commandOnce, time.Minute, appending(func(context.Context, *es.Mem, []es.Append) (es.Position, error) {
			panic("index out of range")
		})), "panic: index out of range", "suite_test.go:", "The rule: A repeated command returns")
	})
	t.Run("a panic of the store in a race", func(t *testing.T) {
		recorder.Fails(t, report(updates, time.Minute, reading(func(context.Context, *es.Mem, es.Stream, es.Version) records {
			panic("index out of range")
		})), "panic: index out of range")
	})
	t.Run("a store that blocks and ignores its context", func(t *testing.T) {
		recorder.Fails(t, report(versionsDense, 50*time.Millisecond, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				mu.Lock() // never unlocked
				return m.Append(ctx, appends...)
			}}
		}), "a call is blocked")
	})
}

func TestClauseNamesCanBeTyped(t *testing.T) {
	all := slices.Concat(conformance.LogClauses(), conformance.ConditionClauses(), conformance.SnapshotClauses(), conformance.LeaseClauses(), conformance.CheckpointClauses(),
		conformance.ProjectionClauses(), conformance.SourceClauses())
	for _, clause := range all {
		if len(clause.Name) >= 70 {
			t.Errorf("the clause name %q has %d bytes: want fewer than 70", clause.Name, len(clause.Name))
		}
	}
}
