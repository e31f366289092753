package conformance

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/thalo-go/es"
)

// A Clause is a clause that can be tried on a backend without a *testing.T, to see what it finds.
type Clause struct {
	Name string
	test clause
}

func exported(clauses []clause) []Clause {
	var all []Clause
	for _, c := range clauses {
		all = append(all, Clause{c.name, c})
	}
	return all
}

// LogClauses returns the clauses of TestLog, SnapshotClauses those of TestSnapshots.
func LogClauses() []Clause      { return exported(slices.Concat(storeClauses(), logClauses())) }
func SnapshotClauses() []Clause { return exported(snapshotClauses()) }

// LeaseClauses returns the clauses of TestLeases, CheckpointClauses those of TestCheckpoints.
func LeaseClauses() []Clause      { return exported(leaseClauses()) }
func CheckpointClauses() []Clause { return exported(checkpointClauses()) }

// ProjectionClauses returns the clauses of TestProjections.
func ProjectionClauses() []Clause { return exported(projectionClauses()) }

// SourceClauses returns the clauses of TestSource.
func SourceClauses() []Clause { return exported(fedClauses()) }

// TrySource returns what a clause of SourceClauses finds.
func (c Clause) TrySource(ctx context.Context, fresh func() SourceUnderTest[*sql.Tx], patience time.Duration) []string {
	t := fedTrial(fresh())
	t.patience = patience
	return c.test.try(ctx, t)
}

// A Listed is a store with projections that has the lists of the clauses too.
type Listed interface {
	ReadSide[*sql.Tx]
	Lists() Lists[*sql.Tx]
}

// TryProjections returns what a clause of ProjectionClauses finds.
func (c Clause) TryProjections(ctx context.Context, open func() Listed, patience time.Duration) []string {
	t := projectionTrial(func() ReadSide[*sql.Tx] { return open() }, open().Lists())
	t.patience = patience
	return c.test.try(ctx, t)
}

// TryLog returns what a clause of LogClauses finds.
func (c Clause) TryLog(ctx context.Context, open func() es.Log, patience time.Duration) []string {
	t := logTrial(open)
	t.patience, t.many = patience, 1500
	return c.test.try(ctx, t)
}

// ReportLog tells t what a clause of LogClauses finds.
func (c Clause) ReportLog(t testing.TB, open func() es.Log) {
	trial := logTrial(open)
	trial.patience, trial.many = time.Second, 1500
	c.test.report(t, trial)
}

// TrySnapshots returns what a clause of SnapshotClauses finds.
func (c Clause) TrySnapshots(ctx context.Context, open func() es.Snapshots, patience time.Duration) []string {
	return c.test.try(ctx, &trial{snapshots: open, patience: patience})
}

// TryLeases returns what a clause of LeaseClauses finds.
func (c Clause) TryLeases(ctx context.Context, open func() es.Leases, patience time.Duration) []string {
	return c.test.try(ctx, &trial{leases: open, patience: patience})
}

// TryCheckpoints returns what a clause of CheckpointClauses finds.
func (c Clause) TryCheckpoints(ctx context.Context, open func() es.Checkpoints, patience time.Duration) []string {
	return c.test.try(ctx, &trial{checkpoints: open, patience: patience})
}
