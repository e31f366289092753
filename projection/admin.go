package projection

import (
	"context"
	"iter"

	"github.com/thalo-go/es"
)

// Projections runs projections and reactions in a database. The stores of packages sqlite, postgres and projection/memory implement it.
// It is not for users to implement: it may gain methods.
//
// All methods may be called from several goroutines.
type Projections[Tx any] interface {
	// Project runs a projection until ctx is done, and then returns the context's error. It returns an [*Error] if a record cannot be
	// handled, and the error of OnCaughtUp if there is one. A projection that cannot be run, or whose checkpoint is of another source,
	// is refused at once with an error that wraps [es.ErrInvalid].
	Project(ctx context.Context, p Projection[Tx]) error

	// React runs a reaction, as Project runs a projection.
	React(ctx context.Context, r Reaction) error

	Admin
}

// Admin manages projections and reactions, from any process that has their database. Reactions have version 0.
// It is not for users to implement: it may gain methods.
type Admin interface {
	// WaitFor waits until a projection has applied everything up to a position of its log. Use the Position of an [es.Result]
	// to read your own writes. If several versions exist, WaitFor uses the highest that has caught up, or the highest if none has.
	// WaitFor also waits for a projection that has never run, because it may be about to start, so pass a context with a deadline.
	// If ctx is done first, the error wraps the context's and says where the projection is. A projection whose source is not a log
	// is refused with an error that wraps [es.ErrInvalid].
	WaitFor(ctx context.Context, name string, position es.Position) error

	// Status returns the state of every shard of every projection and reaction, sorted by name, version and shard.
	Status(ctx context.Context) ([]Status, error)

	// Why returns why a projection or reaction is behind, and what to do: the first of the causes of [CauseCode] that holds, or
	// [CauseNone]. It takes up to a second to see whether checkpoints move. One that has never run is an error that wraps [es.ErrInvalid].
	Why(ctx context.Context, name string, version int) (Cause, error)

	// Parked returns the parked records, ordered by name, version and position. The sequence can be used like that of [es.Store.Read].
	Parked(ctx context.Context) iter.Seq2[Parked, error]

	// Timers returns the records that a reaction will handle later, the earliest first. The sequence can be used like that of
	// [es.Store.Read].
	Timers(ctx context.Context, name string) iter.Seq2[Timer, error]

	// Retry asks the worker to try the parked records of a stream again, in order, until one fails. It returns once the request is stored.
	Retry(ctx context.Context, name string, version int, stream es.Stream) error

	// Drop asks the worker to give up on the first parked record of a stream, and then does the same as Retry.
	Drop(ctx context.Context, name string, version int, stream es.Stream) error

	// Rebuild asks the worker to restart from the beginning: in one transaction it calls Prepare, sets the checkpoints to the
	// beginning and removes the parked records. Rebuild returns once the request is stored. If no worker is running, the next run
	// starts with it. A reaction and a projection without Prepare are refused with an error that wraps [es.ErrInvalid], because what they
	// have done would be done twice; see Replay.
	Rebuild(ctx context.Context, name string, version int) error

	// Replay sets the checkpoints of a projection or reaction to a position. Records after it are handled, again if they were before.
	// Prepare is not called. The read model gets these records twice unless Handle can apply a record again, and a reaction has its
	// effects again. A position after the checkpoint skips records. Parked records and timers after the position are removed.
	// If the source is not a log, only [Beginning] is possible; if it is a log of another store, also [After].
	Replay(ctx context.Context, name string, version int, from Start) error

	// Refilter accepts a changed filter for a projection or reaction, whose runs with any other filter then end with an error. Past says
	// what happens to the records before the checkpoint that the new filter adds.
	Refilter(ctx context.Context, name string, version int, filter es.Filter, past Past) error

	// Rename moves all versions of a projection or reaction, with checkpoints, parked records and timers, to another name that is not in use.
	// Stop the workers first. A worker that starts under the old name afterwards begins from the beginning.
	Rename(ctx context.Context, old, name string) error

	// Forget removes the checkpoints, parked records and timers of a version that is not running. It does not drop the read model's tables.
	Forget(ctx context.Context, name string, version int) error
}

// Past says what Refilter does about past records: those before the checkpoint that only the new filter lets through.
type Past int

const (
	// SkipPast never handles past records.
	SkipPast Past = iota

	// ReplayPast handles past records first, in their order. So an added record of a stream may be handled after later records of the
	// stream that the old filter let through.
	ReplayPast
)
