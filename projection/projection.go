package projection

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/thalo-go/es"
)

// Defaults of a [Projection] and a [Reaction].
const (
	DefaultBatch   = 1000 // records in a transaction
	DefaultRetries = 5
)

// A Projection builds a read model from records, applying each exactly once and in order: what Handle writes and the checkpoint, which
// says how far the projection has come, are committed in one transaction. Tx is the transaction of the database that has the read model:
// [*database/sql.Tx] for package sqlite, pgx.Tx for package postgres. Each of them has an alias, as in postgres.Projection.
//
// A store's Project runs it. Any number of processes may run the same one: each shard of it has one worker at a time, and another
// takes over when that one dies.
type Projection[Tx any] struct {
	// Name identifies the projection in its database. At most [es.MaxKind] bytes of UTF-8 without NUL.
	Name string

	// Version numbers the read model. Raise it to build a new one beside the old, from the beginning: Handle then writes to other
	// tables, and OnCaughtUp tells when they can be used. The old one stays as it is, and goes on if a program still runs it,
	// until Forget removes its checkpoints.
	Version int

	// Source is where the records come from. nil means the log of the store that runs the projection.
	// The log of another store is FromLog; topics are kafka.Source.
	Source Source

	// Filter selects the records that Handle is given.
	Filter es.Filter

	// Partitions is into how many shards the streams of a log are divided, which work at the same time. All records of a stream are in one.
	// 0 means 1. The number may be changed at any time: the last program to start decides. Sources other than logs have shards of their own.
	Partitions int

	// Prepare makes the read model empty, and makes its tables if there are none. It is called before the first record, and by a rebuild,
	// in the transaction that sets the checkpoints to the beginning. It may be nil.
	Prepare func(ctx context.Context, tx Tx) error

	// Handle applies records to the read model, through tx alone: what it does elsewhere may happen again. It gets at least one record
	// and at most Batch, of one shard, in order. An error or a panic rolls everything back; see OnError. It must neither change the records
	// nor end the transaction.
	Handle func(ctx context.Context, tx Tx, records []es.Record) error

	// OnError says what becomes of a record that Handle fails on, when it was tried alone and Retries times more. The zero value is [es.Stop].
	OnError es.OnError

	// Retries is how often a batch that failed is tried again, with a growing jittered pause in between, before it is divided until the record
	// that fails stands alone; and then how often that one is. 0 means [DefaultRetries], a negative number none.
	// What is the database's fault, such as a lost connection or a deadlock, is tried again for ever, and does not count. Nor does what wraps
	// [es.ErrUnavailable]: another store that is away is waited for.
	Retries int

	// Batch is how many records one transaction has at most. 0 means [DefaultBatch].
	Batch int

	// Lease is how long a worker that is not heard of keeps its shards. 0 means 10s. A transaction that stands still
	// for so long is ended by a database that can.
	Lease time.Duration

	// OnProgress, if set, is called after each transaction, from one goroutine at a time. Its panic ends the run.
	OnProgress func(Progress)

	// OnCaughtUp, if set, is called once in each run, when every shard, whoever works on it, has come to what was the end of its source.
	// It is the place to let the program use the read model. Its error or panic ends the run.
	OnCaughtUp func(ctx context.Context) error

	// Logger hears of retries, takeovers and parked records. nil means nobody does.
	Logger *slog.Logger
}

// A Reaction does something in the world for each record, and remembers how far it has come: it is a [Projection] whose effect is outside
// the database. So it is at least once: a record may come again after a crash. Run commands with [es.CommandID] and [es.CausedBy] of the record,
// and the effect is exactly once.
//
// The commands may go to another store than the one that runs the reaction, of another kind. While that is away they fail with an error that
// wraps [es.ErrUnavailable], and the reaction waits for it with growing pauses; Status has the error. A service that is not a store gets the
// same if Handle wraps ErrUnavailable beside its client's error. Nothing else is waited for: not an error of the network as such, for the
// record may be what names a host that is not there, and not a deadline that Handle has set, for the record may be what takes so long.
type Reaction struct {
	Name       string // as in Projection, whose names it shares
	Source     Source // as in Projection
	Filter     es.Filter
	Partitions int

	// Handle reacts to one record.
	Handle func(ctx context.Context, r es.Record) error

	OnError es.OnError    // as in Projection, and the fields below
	Retries int           // what wraps ErrUnavailable does not count
	Batch   int           // how many records are handled before the checkpoint is moved, if there are so many
	Lease   time.Duration //
	Logger  *slog.Logger  //
}

// An Error says where and why a projection stopped.
type Error struct {
	Name    string
	Version int
	Record  es.Record // the one that failed
	Err     error     // of Handle; a [*es.PanicError] if it panicked
}

func (e *Error) Error() string {
	return fmt.Sprintf("projection %s stopped before %s, a %q at position %d: %v; mend the handler and run it again, or let it park such records",
		projectionName(e.Name, e.Version), e.Record.ID(), e.Record.Type, e.Record.Position, e.Err)
}

// Unwrap returns the error of Handle.
func (e *Error) Unwrap() error { return e.Err }

// projectionName names a read model as people write it: balances, and balances@2 if it has a version.
func projectionName(name string, version int) string {
	if version == 0 {
		return name
	}
	return fmt.Sprintf("%s@%d", name, version)
}

// Progress tells how far one shard of a projection has come.
type Progress struct {
	Shard   string
	Records int         // in the transaction just committed
	Cursor  Cursor      // the checkpoint
	End     Cursor      // the end of the shard when it was last looked at
	At      es.Position // of the last record; 0 if the transaction had none
}

// A Cursor is a place in a shard of a [Source]: what stands at or before it has been read. In a log it is a [es.Position], in a topic an offset.
// 0 is the beginning.
type Cursor int64

// A Source is where projections take records from: [FromLog] makes one of a log, package kafka has one for topics.
//
// It divides the records into shards, of which each can be read from any cursor on, again and again, with the same result: nothing new ever
// appears at or before a cursor that was read. A stream is in one shard, in order. Who reads which shard is not the source's to decide:
// the database with the read model does that, by leases and by comparing the cursor in the transaction that moves it.
type Source interface {
	// ID identifies the source for ever. A checkpoint of another source is refused. The ID of a log is that of its source.
	ID() string

	// Shards returns the names of the shards. A source that can be divided at will divides itself into so many partitions, of which the first
	// of four is called 0/4, and counts the same cursors in all: what all of them have read is the same in any other division.
	// Other sources call theirs otherwise.
	Shards(ctx context.Context, partitions int) ([]string, error)

	// Feed begins to read a shard behind a cursor. One that is beyond the end makes an error that wraps [*es.AheadError].
	// The context is that of the call; the feed goes on until Close.
	Feed(ctx context.Context, shard string, after Cursor, filter es.Filter) (Feed, error)
}

// A Feed reads one shard of a [Source], from one goroutine.
type Feed interface {
	// Next returns what comes next, at most so many records. It waits until there is something, or the context ends.
	// That the end is where the feed began is something too, the first time: who reads an empty shard must learn that he has caught up.
	// So is a piece of which the filter held all back: it moves the checkpoint, for which others may wait.
	// The records and what they have are the caller's to keep. After an error the feed is good for Close alone.
	Next(ctx context.Context, most int) (Batch, error)

	// Applied tells that everything up to a cursor is in the read model. It only matters to those who watch the source from outside, and must not wait.
	Applied(upTo Cursor)

	// Close releases what the feed has. It is called when no other call is under way.
	Close() error
}

// A Batch is what a [Feed] returns: a piece of a shard.
type Batch struct {
	Records []es.Record // those that the filter lets through; there may be none
	Cursors []Cursor    // of each record, the place with it read and the next one not; nil means its Position
	Next    Cursor      // where the piece ends, also behind records that the filter held back
	End     Cursor      // the end of the shard, as far as is known: the feed has caught up when Next reaches it
}

// Projections runs projections in a database and tells about them. The stores of packages sqlite and postgres implement it.
// All methods may be called from many goroutines, and from other processes than those that run the projections.
type Projections[Tx any] interface {
	// Project runs a projection until the context ends, and returns the context's error then; or a [*Error]; or what OnCaughtUp
	// returned; or at once an error that wraps [es.ErrInvalid] for a projection that cannot be run, or whose checkpoint is of another source.
	Project(ctx context.Context, p Projection[Tx]) error

	// React runs a reaction, as Project runs a projection.
	React(ctx context.Context, r Reaction) error

	// WaitFor waits until a projection has applied everything up to a position of its log: with [es.Result.Position] a caller reads what he
	// has written. Of several versions it waits for the highest that has once caught up, or if none has for the highest.
	// A projection that nobody has run makes an error that wraps [es.ErrInvalid], and so does one whose source is no log.
	WaitFor(ctx context.Context, name string, position es.Position) error

	// Status returns how all projections and reactions stand, sorted by name, version and shard.
	Status(ctx context.Context) ([]Status, error)

	// Rebuild has a projection begin again: whoever runs it calls Prepare and sets the checkpoints to the beginning, in one transaction,
	// and drops what is parked. It returns when that is asked for. If nobody runs the projection, the next to do so begins with it.
	Rebuild(ctx context.Context, name string, version int) error

	// Forget removes the checkpoints and parked records of a version, which must not be running. The read model is the program's to remove.
	Forget(ctx context.Context, name string, version int) error

	// Parked returns the records that are parked, by name, version and position. It is read like [es.Store.Read].
	Parked(ctx context.Context) iter.Seq2[Parked, error]

	// Retry has whoever runs the projection try the parked records of a stream again, in order, until one fails. It returns when that is asked for.
	Retry(ctx context.Context, name string, version int, stream es.Stream) error

	// Drop gives up on the first of the parked records of a stream, and then does as Retry.
	Drop(ctx context.Context, name string, version int, stream es.Stream) error
}

// Parked is a record that a projection has put aside.
type Parked struct {
	Name     string
	Version  int
	Record   es.Record
	Error    string    // "" for a record that only waits behind another of its stream
	Attempts int       // of a record with an error
	At       time.Time // when it was parked, or last tried
}

// Status is how one shard of a projection or reaction stands. It is made for encoding/json, and so for expvar: see the example.
type Status struct {
	Name     string
	Version  int
	Shard    string
	Source   string      // its ID
	Cursor   Cursor      // the checkpoint
	Time     time.Time   // of the last record applied; zero if there is none
	Head     es.Position // the end of the log; -1 if the source is not a log of this store
	Lag      int64       // positions between checkpoint and Head, those that the filter holds back among them; -1 if Head is
	Behind   float64     // seconds since the first record beyond the checkpoint was written; 0 if there is none, -1 if Head is
	CaughtUp bool        // it has come to the end of its source once
	Worker   string      // who works on it: host, process and something random; "" if nobody does
	Parked   int         // records
	Error    string      // of the last attempt, if it failed
	ErrorAt  time.Time
}
