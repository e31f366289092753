// Package engine runs projections and reactions: it is what packages sqlite and postgres have in common of the read side.
//
// A run has a worker: a name with a heartbeat in the database. Each shard of a projection has a row with its checkpoint, the name of its
// holder and a claim, a random number that each taking of the shard sets anew. Leases and heartbeats decide who works; nothing rests on them.
// What makes it exactly once is the move of the checkpoint: the transaction of the read model begins by setting the row's cursor from where
// the worker believes it to be, under the claim that the worker believes to have. If that changes no row, somebody else has the shard:
// the transaction is rolled back with nothing applied, and the worker steps down. So a process may be paused for an hour between any two of its
// instructions, and does no harm when it wakes.
//
// The statements are the same for both databases but for a few words; see [Dialect].
package engine

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

// A Backend is a database that has read models. Tx is the transaction that handlers are given.
type Backend[Tx any] interface {
	// Dialect returns how statements are to be written.
	Dialect() Dialect

	// Transact runs work in a transaction that may write, and commits. An error of work rolls back, and so does a panic.
	Transact(ctx context.Context, o Options, work func(ctx context.Context, tx Tx) error) error

	// Exec runs a statement in a transaction and returns how many rows it changed.
	Exec(ctx context.Context, tx Tx, sql string, args ...any) (int64, error)

	// Query runs a query in a transaction and calls row for each row with the function that scans it.
	Query(ctx context.Context, tx Tx, row func(scan func(into ...any) error) error, sql string, args ...any) error

	// View is Query outside a transaction.
	View(ctx context.Context, row func(scan func(into ...any) error) error, sql string, args ...any) error

	// Passing tells whether an error is the database's fault rather than the statement's, and likely to pass: a lost connection, a deadlock, a
	// full disk. It must not take an error of something else, which a handler may return, for one.
	Passing(err error) bool

	// Hold is how long a transaction should last at most, because others cannot write meanwhile. 0 means that they can.
	Hold() time.Duration

	// Log is the log of the database.
	Log() es.Log
}

// A Dialect has the words in which the statements differ between databases.
type Dialect struct {
	Prefix    string // before the name of a table
	Now       string // the time of the database, in microseconds since 1970
	Lock      string // behind a select: locks the rows, and waits for those who have them
	Skip      string // behind a select: locks the rows that nobody has, and leaves out the others
	Parameter string // before the number of a parameter
}

// SQL fills in the words.
func (d Dialect) SQL(text string) string {
	return strings.NewReplacer("{es}", d.Prefix, "{now}", d.Now, "{lock}", d.Lock, "{skip}", d.Skip, "$", d.Parameter).Replace(text)
}

// Options are how a transaction is to be.
type Options struct {
	Idle  time.Duration // how long it may stand still before the database ends it, where it can
	Quiet bool          // nothing is lost if a crash takes it back after the commit
}

// An Engine runs the projections of one store. It implements [projection.Projections].
type Engine[Tx any] struct {
	db    Backend[Tx]
	say   statements
	moved bell // a checkpoint of this process has moved
	asked bell // somebody in this process waits for a checkpoint to move
	news  bell // there is something for the workers of this process to look at
}

// New returns an engine.
func New[Tx any](db Backend[Tx]) *Engine[Tx] {
	return &Engine[Tx]{db: db, say: prepare(db.Dialect())}
}

// A bell wakes all who hear it.
type bell struct {
	mu   sync.Mutex
	rung chan struct{} // nil while nobody listens
}

func (b *bell) hear() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

// errLost says that the shard, or the whole projection, is no longer as the worker believed.
var errLost = errors.New("somebody else has the shard")
