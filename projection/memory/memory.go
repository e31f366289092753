// Package memory runs projections and reactions without a database, for tests and first steps.
//
// A [Store] is an [es.Mem] with the read side of packages sqlite and postgres: the same engine runs on it, with checkpoints, workers,
// parked records and rebuilds. Read models are Go values, such as maps. A handler changes them through its [Tx], which undoes the changes
// if the transaction is rolled back, so each record is applied exactly once, as in a database.
//
// It keeps every promise of [projection.Projections] but durability. There are no inline projections.
package memory

import (
	"context"
	"maps"
	"sync"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/projection"
)

// Projection is a projection whose read model is in memory; see [projection.Projection].
//
// Transactions run one after the other, those of other projections and shards included. Handle can change Go values without a lock,
// and must not call methods of the store that begin a transaction, because they would wait for the one that it is in.
// They return an error that wraps [es.ErrInvalid]. If such a call has another context than that of Handle, the run ends with an error
// after [projection.Projection.Lease]. After that time calls of others fail too while they wait for Handle, with an error that names the
// projection and wraps [es.ErrUnavailable].
type Projection = projection.Projection[*Tx]

// Store is a log in memory, with the projections of that log. All methods may be called from several goroutines.
type Store struct {
	*es.Mem
	projection.Projections[*Tx]
	ledger *ledger
}

// New returns a store on a log. Use new(es.Mem) for an empty one. The read side is new: it has no projections, even if another store
// has run some on the same log.
func New(log *es.Mem) *Store { return open(log, newTables()) }

// open returns a store that shares the rows of others.
func open(log *es.Mem, t *tables) *Store {
	l := &ledger{tables: t, log: log, closed: make(chan struct{})}
	return &Store{Mem: log, Projections: engine.New[*Tx](l), ledger: l}
}

// View calls f while no transaction is in flight, so that f reads the read models as they were committed, without a lock.
// It returns an error, and does not call f, if ctx is done first or the store is closed.
func (s *Store) View(ctx context.Context, f func()) (err error) {
	defer cause.Set(ctx, &err)
	release, err := s.ledger.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	f()
	return nil
}

// Close ends the runs of projections and reactions. Their methods return an error that wraps [es.ErrClosed] afterwards; the log remains
// usable. Close may be called again.
func (s *Store) Close() error {
	s.ledger.close()
	return nil
}

// Tx is a transaction of a [Store]. Its methods may be called until the transaction ends; afterwards they panic.
type Tx struct {
	rows    map[engine.Key]*rows      // that the transaction has changed; nil if it has deleted them
	renamed map[engine.Key]engine.Key // projections with another key since

	mu    sync.Mutex
	undo  []func()
	ended bool
}

// OnRollback registers a function that undoes a change of a read model. It is called if the transaction is rolled back, because Handle or
// Prepare returned an error or panicked, or because another worker has the shard. The function registered last is called first.
func (t *Tx) OnRollback(undo func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		panic("memory: OnRollback was called after the end of the transaction")
	}
	t.undo = append(t.undo, undo)
}

// end ends the transaction, and undoes its changes unless they are committed. All of them are undone even if one panics.
func (t *Tx) end(committed bool) {
	t.mu.Lock()
	undo := t.undo
	t.undo, t.ended = nil, true
	t.mu.Unlock()
	if !committed {
		for _, f := range undo {
			defer f() //nolint:revive // all run, also if one panics
		}
	}
}

// Set sets m[key] to a value. A rollback restores the previous entry.
func Set[M ~map[K]V, K comparable, V any](tx *Tx, m M, key K, value V) {
	tx.OnRollback(restore(m, key))
	m[key] = value
}

// Delete removes m[key]. A rollback restores it.
func Delete[M ~map[K]V, K comparable, V any](tx *Tx, m M, key K) {
	tx.OnRollback(restore(m, key))
	delete(m, key)
}

func restore[M ~map[K]V, K comparable, V any](m M, key K) func() {
	old, found := m[key]
	return func() {
		if found {
			m[key] = old
		} else {
			delete(m, key)
		}
	}
}

// Clear removes all entries of a map. A rollback restores them. It is for [projection.Projection.Prepare].
func Clear[M ~map[K]V, K comparable, V any](tx *Tx, m M) {
	old := maps.Clone(m)
	tx.OnRollback(func() {
		clear(m)
		maps.Copy(m, old)
	})
	clear(m)
}
