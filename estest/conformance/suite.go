package conformance

import (
	"slices"
	"testing"
	"time"

	"github.com/thalo-go/es"
)

// timeout is how long one clause may take. On an idle machine a clause takes well under a second; one that takes this long is blocked.
const timeout = time.Minute

// TestStore tests an implementation of [es.Store].
//
// For each clause it calls database, which creates an empty database and returns a function that opens a store on it.
// Clauses about several processes call open more than once. Each call must return another store on the same database,
// as another process would have it. If a backend cannot do that, open returns the same store each time, and those clauses test less.
// The function open closes what it opens with t.Cleanup.
//
// TestStore cannot test that records survive a power failure, that an append is resolved after a lost connection,
// or that times do not decrease when the clock is set back.
func TestStore(t *testing.T, database func(t *testing.T) (open func() es.Store)) {
	t.Helper()
	test(t, storeClauses(), func(t *testing.T) *trial { return &trial{store: database(t)} })
}

// TestLog tests an implementation of [es.Log], including what [TestStore] tests. It calls database as TestStore does.
func TestLog(t *testing.T, database func(t *testing.T) (open func() es.Log)) {
	t.Helper()
	test(t, slices.Concat(storeClauses(), logClauses()), func(t *testing.T) *trial { return logTrial(database(t)) })
}

// TestConditions tests the tags and conditions of an implementation of [es.Log], and [es.Transact] on it, beyond what [TestLog] tests. It
// calls database as [TestStore] does.
func TestConditions(t *testing.T, database func(t *testing.T) (open func() es.Log)) {
	t.Helper()
	test(t, conditionClauses(), func(t *testing.T) *trial { return logTrial(database(t)) })
}

// TestSnapshots tests an implementation of [es.Snapshots]. It calls database as [TestStore] does.
func TestSnapshots(t *testing.T, database func(t *testing.T) (open func() es.Snapshots)) {
	t.Helper()
	test(t, snapshotClauses(), func(t *testing.T) *trial { return &trial{snapshots: database(t)} })
}

// TestLeases tests an implementation of [es.Leases]. It calls database as [TestStore] does.
func TestLeases(t *testing.T, database func(t *testing.T) (open func() es.Leases)) {
	t.Helper()
	test(t, leaseClauses(), func(t *testing.T) *trial { return &trial{leases: database(t)} })
}

// TestCheckpoints tests an implementation of [es.Checkpoints]. It calls database as [TestStore] does.
func TestCheckpoints(t *testing.T, database func(t *testing.T) (open func() es.Checkpoints)) {
	t.Helper()
	test(t, checkpointClauses(), func(t *testing.T) *trial { return &trial{checkpoints: database(t)} })
}

func storeClauses() []clause {
	return slices.Concat(appendClauses(), raceClauses(), commandClauses(), contentClauses(), ownershipClauses(), limitClauses(), readClauses())
}

func logClauses() []clause { return slices.Concat(allClauses(), changedClauses()) }

func logTrial(open func() es.Log) *trial {
	return &trial{log: open, store: func() es.Store { return open() }}
}

// test runs each clause in a subtest, on a trial of its own.
func test(t *testing.T, clauses []clause, fresh func(*testing.T) *trial) {
	t.Helper()
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			trial := fresh(t)
			trial.timeout, trial.many, trial.large = timeout, 10_000, !testing.Short()
			c.report(t, trial)
		})
	}
}
