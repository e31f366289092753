package conformance

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
)

// patience is how long one clause may take. On a quiet machine each takes well under a second; what takes this long is blocked.
const patience = time.Minute

// TestStore tests whether a backend keeps the promises of [es.Store].
//
// For each clause it calls database, which makes a fresh database and returns a function that opens a store on it.
// The clauses about several processes open it more than once: each call of open is to return another store on the same database,
// as another process would have it. A backend that cannot do this returns the same store each time, and those clauses say less.
// What open opens it closes by t.Cleanup.
//
// What it cannot test: that records outlive a power cut, that a broken connection is resolved, that time stands still when the clock is set back.
func TestStore(t *testing.T, database func(t *testing.T) (open func() es.Store)) {
	t.Helper()
	run(t, storeClauses(), func(t *testing.T) *trial { return &trial{store: database(t)} })
}

// TestLog tests whether a backend keeps the promises of [es.Log], those of [es.Store] among them. It calls database as [TestStore] does.
func TestLog(t *testing.T, database func(t *testing.T) (open func() es.Log)) {
	t.Helper()
	run(t, slices.Concat(storeClauses(), logClauses()), func(t *testing.T) *trial { return logTrial(database(t)) })
}

// TestSnapshots tests whether a backend keeps the promises of [es.Snapshots]. It calls database as [TestStore] does.
func TestSnapshots(t *testing.T, database func(t *testing.T) (open func() es.Snapshots)) {
	t.Helper()
	run(t, snapshotClauses(), func(t *testing.T) *trial { return &trial{snapshots: database(t)} })
}

// TestLeases tests whether a backend keeps the promises of [es.Leases]. It calls database as [TestStore] does.
func TestLeases(t *testing.T, database func(t *testing.T) (open func() es.Leases)) {
	t.Helper()
	run(t, leaseClauses(), func(t *testing.T) *trial { return &trial{leases: database(t)} })
}

// TestCheckpoints tests whether a backend keeps the promises of [es.Checkpoints]. It calls database as [TestStore] does.
func TestCheckpoints(t *testing.T, database func(t *testing.T) (open func() es.Checkpoints)) {
	t.Helper()
	run(t, checkpointClauses(), func(t *testing.T) *trial { return &trial{checkpoints: database(t)} })
}

func storeClauses() []clause {
	return slices.Concat(appendClauses(), raceClauses(), commandClauses(), contentClauses(), memoryClauses(), limitClauses(), readClauses())
}

func logClauses() []clause { return slices.Concat(allClauses(), changedClauses()) }

func logTrial(open func() es.Log) *trial {
	return &trial{log: open, store: func() es.Store { return open() }}
}

func run(t *testing.T, clauses []clause, begin func(*testing.T) *trial) {
	t.Helper()
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			trial := begin(t)
			trial.patience, trial.many, trial.large = patience, 10_000, !testing.Short()
			c.report(t, trial)
		})
	}
}

// report tries the clause and tells what it found, and which rule that breaks.
func (c clause) report(t testing.TB, trial *trial) {
	t.Helper()
	if found := c.try(t.Context(), trial); len(found) > 0 {
		t.Errorf("%s\n\nThe rule: %s", strings.Join(found, "\n"), c.why)
	}
}
