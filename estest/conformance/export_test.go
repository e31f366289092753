package conformance

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/thalo-go/es"
)

// Clause is a clause that tests run on a backend without a *testing.T, to see its findings.
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

// LogClauses returns the clauses of TestLog.
func LogClauses() []Clause { return exported(slices.Concat(storeClauses(), logClauses())) }

// ConditionClauses returns the clauses of TestConditions.
func ConditionClauses() []Clause { return exported(conditionClauses()) }

// SnapshotClauses returns the clauses of TestSnapshots.
func SnapshotClauses() []Clause { return exported(snapshotClauses()) }

// LeaseClauses returns the clauses of TestLeases.
func LeaseClauses() []Clause { return exported(leaseClauses()) }

// CheckpointClauses returns the clauses of TestCheckpoints.
func CheckpointClauses() []Clause { return exported(checkpointClauses()) }

// ProjectionClauses returns the clauses of TestProjections.
func ProjectionClauses() []Clause { return exported(projectionClauses()) }

// SourceClauses returns the clauses of TestSource.
func SourceClauses() []Clause { return exported(sourceClauses()) }

// TrySource returns the findings of a clause of SourceClauses.
func (c Clause) TrySource(ctx context.Context, fresh func() SourceUnderTest[*sql.Tx], timeout time.Duration) []string {
	t := sourceTrial(fresh())
	t.timeout = timeout
	return c.test.try(ctx, t)
}

// Listed is a store with projections that also has the lists of the clauses.
type Listed interface {
	ReadSide[*sql.Tx]
	Lists() Lists[*sql.Tx]
}

// TryProjections returns the findings of a clause of ProjectionClauses.
func (c Clause) TryProjections(ctx context.Context, open func() Listed, timeout time.Duration) []string {
	t := projectionTrial(func() ReadSide[*sql.Tx] { return open() }, open().Lists())
	t.timeout = timeout
	return c.test.try(ctx, t)
}

// TryLog returns the findings of a clause of LogClauses.
func (c Clause) TryLog(ctx context.Context, open func() es.Log, timeout time.Duration) []string {
	t := logTrial(open)
	t.timeout, t.many = timeout, 1500
	return c.test.try(ctx, t)
}

// ReportLog reports the findings of a clause of LogClauses to t.
func (c Clause) ReportLog(t testing.TB, open func() es.Log, timeout time.Duration) {
	trial := logTrial(open)
	trial.timeout, trial.many = timeout, 1500
	c.test.report(t, trial)
}

// TrySnapshots returns the findings of a clause of SnapshotClauses.
func (c Clause) TrySnapshots(ctx context.Context, open func() es.Snapshots, timeout time.Duration) []string {
	return c.test.try(ctx, &trial{snapshots: open, timeout: timeout})
}

// RedactionClauses returns the clauses of TestRedaction.
func RedactionClauses() []Clause { return exported(redactionClauses()) }

// TryRedaction returns the findings of a clause of RedactionClauses.
func (c Clause) TryRedaction(ctx context.Context, open func() Redactable, timeout time.Duration) []string {
	t := redactionTrial(open)
	t.timeout = timeout
	return c.test.try(ctx, t)
}

// TryLeases returns the findings of a clause of LeaseClauses.
func (c Clause) TryLeases(ctx context.Context, open func() es.Leases, timeout time.Duration) []string {
	return c.test.try(ctx, &trial{leases: open, timeout: timeout})
}

// TryCheckpoints returns the findings of a clause of CheckpointClauses.
func (c Clause) TryCheckpoints(ctx context.Context, open func() es.Checkpoints, timeout time.Duration) []string {
	return c.test.try(ctx, &trial{checkpoints: open, timeout: timeout})
}
