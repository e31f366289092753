package conformance

import (
	"context"
	"slices"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/sqltx"
	"github.com/thalo-go/es/projection"
)

// ReadSide is a store with its projections, as [TestProjections] and [TestSource] use it.
type ReadSide[Tx any] interface {
	es.Log
	projection.Projections[Tx]

	// Close closes the store and may be called again. A clause closes a store while a worker runs on it, so that the worker cannot release its lease.
	Close() error
}

// Lists are the read models of the suites: named lists of lines, which are tables in the database.
type Lists[Tx any] struct {
	// Empty creates an empty list, or removes the lines of an existing one.
	Empty func(ctx context.Context, tx Tx, list string) error

	// Add adds a line at the end of a list.
	Add func(ctx context.Context, tx Tx, list, line string) error

	// Lines returns the committed lines of a list in the order in which they were added. A list that does not exist has none.
	Lines func(ctx context.Context, list string) ([]string, error)
}

// TestProjections tests an implementation of [projection.Projections]. It calls database as [TestStore] does; the lists are in that database.
//
// TestProjections cannot test that a process that is killed or paused in the middle of a transaction applies nothing, nor that one which
// continues after another process has taken its place applies nothing. That needs several processes.
func TestProjections[Tx any](t *testing.T, database func(t *testing.T) (open func() ReadSide[Tx], lists Lists[Tx])) {
	t.Helper()
	test(t, projectionClauses(), func(t *testing.T) *trial {
		open, lists := database(t)
		return projectionTrial(open, lists)
	})
}

func projectionTrial[Tx any](open func() ReadSide[Tx], lists Lists[Tx]) *trial {
	return &trial{
		side: func() ReadSide[any] { return untypedSide[Tx]{open()} },
		lists: Lists[any]{
			Empty: func(ctx context.Context, tx any, list string) error { return lists.Empty(ctx, tx.(Tx), list) },
			Add:   func(ctx context.Context, tx any, list, line string) error { return lists.Add(ctx, tx.(Tx), list, line) },
			Lines: lists.Lines,
		},
	}
}

// untypedSide runs projections with transactions of type any, so that clauses need no type argument.
type untypedSide[Tx any] struct{ ReadSide[Tx] }

// Project implements [projection.Projections].
func (u untypedSide[Tx]) Project(ctx context.Context, p projection.Projection[any]) error {
	return u.ReadSide.Project(ctx, sqltx.Retype(p, func(tx Tx, do func(any) error) error { return do(tx) }))
}

func projectionClauses() []clause {
	return endingRuns(slices.Concat(applyClauses(), workerClauses(), errorClauses(), unknownClauses(), parkingClauses(), rebuildClauses(), identityClauses(),
		foreignClauses(), statusClauses(), reactionClauses(), stepClauses(), timerClauses(), whyClauses()))
}

// endingRuns makes clauses end their runs before they return.
func endingRuns(clauses []clause) []clause {
	for i, c := range clauses {
		clauses[i].test = func(t *trial) {
			defer t.endRuns()
			c.test(t)
		}
	}
	return clauses
}
