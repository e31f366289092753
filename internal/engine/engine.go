// Package engine runs projections and reactions for packages sqlite and postgres.
//
// A run has a worker: a name with a heartbeat in the database. Each shard of a projection has a row with its checkpoint, the name of
// its holder and a claim, a random number that is replaced whenever a worker takes the shard. Leases and heartbeats only decide who
// works; correctness does not depend on them.
//
// Records are applied exactly once because of how the checkpoint moves. The transaction of the read model begins with a compare-and-set
// of the row's cursor, under the worker's claim. If no row changes, another worker has the shard: the transaction is rolled back
// and the worker gives the shard up. A process paused at any point does no harm when it resumes.
//
// The statements differ between databases only in the fragments of [Dialect].
package engine

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

// Backend is a database that has read models. Tx is the transaction that handlers get.
type Backend[Tx any] interface {
	// Dialect returns the fragments of statements.
	Dialect() Dialect

	// Transact runs work in a transaction that may write, and commits. An error of work rolls back, and so does a panic.
	Transact(ctx context.Context, o Options, work func(ctx context.Context, tx Tx) error) error

	// Exec runs a statement in a transaction and returns the number of rows changed.
	Exec(ctx context.Context, tx Tx, sql string, args ...any) (int64, error)

	// Query runs a query in a transaction and calls row for each row with the function that scans it.
	Query(ctx context.Context, tx Tx, row func(scan func(into ...any) error) error, sql string, args ...any) error

	// View is Query outside a transaction.
	View(ctx context.Context, row func(scan func(into ...any) error) error, sql string, args ...any) error

	// Passing reports whether an error is a transient fault of the database, such as a lost connection, a deadlock or a full disk.
	// It must return false for errors of anything else, which a handler may return.
	Passing(err error) bool

	// Hold is how long a transaction should last, because it blocks other writers. 0 means that it does not.
	Hold() time.Duration

	// Log is the log of the database.
	Log() es.Log
}

// Dialect has the fragments in which statements differ between databases.
type Dialect struct {
	Prefix    string // before the name of a table
	Now       string // the time of the database, in microseconds since 1970
	Lock      string // after a select: locks the rows, and waits for other transactions
	Skip      string // after a select: locks the rows that are not locked, and omits the others
	Parameter string // before the number of a parameter
}

// SQL replaces the placeholders in text by the fragments.
func (d Dialect) SQL(text string) string {
	return strings.NewReplacer("{es}", d.Prefix, "{now}", d.Now, "{lock}", d.Lock, "{skip}", d.Skip, "$", d.Parameter).Replace(text)
}

// Options configure a transaction.
type Options struct {
	Idle  time.Duration // the longest idle time before the database aborts it, if it can
	Quiet bool          // a crash may undo it after the commit
}

// Engine runs the projections of one store. It implements [projection.Projections].
type Engine[Tx any] struct {
	db      Backend[Tx]
	stmts   statements
	moved   broadcast // a checkpoint has moved in this process
	awaited broadcast // a caller in this process waits for a checkpoint to move
	changed broadcast // the workers of this process must read their projection's state
}

// New returns an engine.
func New[Tx any](db Backend[Tx]) *Engine[Tx] {
	return &Engine[Tx]{db: db, stmts: prepare(db.Dialect())}
}

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
