package projection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/thalo-go/es"
)

// Projection builds a read model from records. Each record is applied exactly once and in order, because what Handle writes is
// committed in the same transaction as the checkpoint. Tx is the transaction of the database that has the read model:
// [*database/sql.Tx] for package sqlite, pgx.Tx for package postgres. Each of them has an alias, such as postgres.Projection.
//
// The Project method of a store runs it. Any number of processes may run the same projection. Each shard has one active worker;
// another takes over if it dies.
type Projection[Tx any] struct {
	// Name identifies the projection among the projections and reactions of its database. It is UTF-8 of at most [es.MaxKind] bytes,
	// without NUL. A new name is a new projection, which starts over: Rename of [Admin] keeps the checkpoints.
	Name string

	// Version numbers the read model. Raise it to build a new read model beside the old one, from the beginning: Handle then writes
	// to other tables, and OnCaughtUp reports when they can be used. The old version keeps running in the programs that run it,
	// until Forget removes its checkpoints.
	Version int

	// Source is where the records come from. nil means the log of the store that runs the projection.
	// Use [FromLog] for the log of another store, and kafka.Source for topics.
	Source Source

	// Filter selects the records that Handle gets. It is kept with the checkpoint, and a changed one is refused: raise Version, or
	// use Refilter.
	Filter es.Filter

	// Partitions is the number of shards processed concurrently. All records of a stream are in the same shard. 0 means 1.
	// The number may be changed at any time; the last program to start decides. Sources other than logs have their own shards.
	Partitions int

	// Prepare creates the read model's tables and leaves them empty: drop a table if it exists, and create it. It is called before the
	// first record, and by a rebuild, in the transaction that sets the checkpoints to the beginning. If it keeps rows, a rebuild applies
	// records to them a second time. It may be nil.
	Prepare func(ctx context.Context, tx Tx) error

	// Handle applies records to the read model. It must write through tx only, because it may be called again for the same records.
	// It must return every error of tx: if it ignores one, SQLite commits the rest. It gets at least one record and at most Batch, of one
	// shard, in order. An error or a panic rolls everything back; see OnError. Handle must not change the records or end the transaction.
	Handle func(ctx context.Context, tx Tx, records []es.Record) error

	// OnError says what happens to a record that Handle fails on. It takes effect after the record has been tried alone and
	// Retries more times. The zero value is [es.Stop].
	//
	// An error that wraps [*es.UnknownEventError] is neither retried nor parked, because another process may run a newer release: the
	// worker releases the shard to one that knows the event type. With Stop or Once, the run ends if no other worker may know it.
	OnError es.OnError

	// Retries is the number of attempts after the first, with growing pauses, before a failed batch is divided to find the record
	// that fails. That record alone is then retried as often. 0 means 5, a negative value none.
	// Faults of the database and errors that wrap [es.ErrUnavailable] are retried indefinitely and do not count. Faults of the database
	// do not depend on the statement: a timeout, a lock, a full disk, a shutdown. Wrap the database's errors with %w, so that they are
	// recognized.
	Retries int

	// Batch is the largest number of records in one transaction. 0 means 1000. A negative value is refused.
	Batch int

	// Lease is how long a silent worker keeps its shards. 0 means 10s. A negative value is refused.
	// Postgres also aborts transactions that are idle for this long.
	Lease time.Duration

	// Once has Project return nil when all shards, in any process, have reached the end of the source, instead of waiting for more. Use it in
	// tests, jobs and first deployments. Parked records do not prevent it.
	Once bool

	// OnProgress, if set, is called after each transaction, from one goroutine at a time. Its panic ends the run.
	OnProgress func(Progress)

	// OnCaughtUp, if set, is called once in each run, when all shards, in any process, have reached the end of the source.
	// Use it to switch the program over to the read model. Its error or panic ends the run.
	OnCaughtUp func(ctx context.Context) error

	// Logger receives retries, takeovers and parked records. nil discards them.
	Logger *slog.Logger
}

// Error reports where and why a projection or a reaction stopped.
type Error struct {
	Name    string
	Version int
	Record  es.Record // the one that failed
	Err     error     // of Handle; an [*es.PanicError] if it panicked
}

func (e *Error) Error() string {
	remedy := "; fix the handler and restart, or use es.Park"
	if _, has := errors.AsType[remedyError](e.Err); has {
		remedy = "" // beside its own
	} else if _, unknown := errors.AsType[*es.UnknownEventError](e.Err); unknown {
		remedy = ", or exclude it by Filter" // it is never parked
	}
	return fmt.Sprintf("projection %s stopped before %s, a %q at position %d: %v%s",
		displayName(e.Name, e.Version), e.Record.ID(), e.Record.Type, e.Record.Position, e.Err, remedy)
}

// remedyError is an error whose text says what to do about it.
type remedyError interface {
	error
	Remedy() string
}

// Unwrap returns the error of Handle.
func (e *Error) Unwrap() error { return e.Err }

// displayName returns balances, or balances@2 if there is a version.
func displayName(name string, version int) string {
	if version == 0 {
		return name
	}
	return fmt.Sprintf("%s@%d", name, version)
}
