// Package engine runs projections and reactions for packages sqlite, postgres and projection/memory.
//
// A run has a worker: a name with a heartbeat in the database. Each shard of a projection has a row with its checkpoint, the name of
// its holder and a claim, a random number that is replaced whenever a worker takes the shard. Leases and heartbeats only decide who
// works; correctness does not depend on them.
//
// Records are applied exactly once because of how the checkpoint moves. The transaction of the read model begins with a compare-and-set
// of the row's cursor, under the worker's claim. If no row changes, another worker has the shard: the transaction is rolled back
// and the worker gives the shard up. A process paused at any point does no harm when it resumes.
//
// The algorithms name no database: they keep their rows in a [Ledger]. [SQL] is the engine on a database of SQL, whose statements differ
// only in the fragments of [Dialect].
package engine

import (
	"errors"
	"sync"
)

// Engine runs the projections of one store. It implements [projection.Projections].
type Engine[Tx any] struct {
	ledger  Ledger[Tx]
	refused refusals
	moved   broadcast // a checkpoint has moved in this process
	awaited broadcast // a caller in this process waits for a checkpoint to move
	changed broadcast // the workers of this process must read their projection's state
	overdue overdue
	clock   clock
	inline  []Key // projections that run inside appends
}

// New returns an engine that keeps its rows in a ledger.
func New[Tx any](l Ledger[Tx]) *Engine[Tx] {
	return &Engine[Tx]{ledger: l, clock: newClock()}
}

// passing reports whether an error of the ledger is transient.
func (e *Engine[Tx]) passing(err error) bool { return e.ledger.Passing(err) || IsHeld(err) }

// broadcast wakes all waiters.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{} // nil if there are no waiters
}

// wait returns a channel that the next notify closes.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// notify wakes all waiters.
func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// errLost indicates that another worker has the shard, or that the projection has been changed.
var errLost = errors.New("another worker has the shard")
