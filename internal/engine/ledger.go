package engine

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/projection"
)

// Ledger keeps what a store knows about its projections: their checkpoints, workers and parked records. The algorithms of this package
// depend on it alone. The SQL databases share one; package projection/memory has another.
//
// Times are those of the ledger's clock, which all processes that share it have in common. The interval of a heartbeat counts from it.
type Ledger[Tx any] interface {
	Store[Tx]

	// Overview reads what a worker acts on. There are no shards if the projection does not exist.
	Overview(ctx context.Context, k Key) (Overview, error)
	// Checkpoints returns the place of each version of a projection, the highest version first.
	Checkpoints(ctx context.Context, name string) ([]Checkpoint, error)
	// Lacks returns the event types that each worker with a recent heartbeat does not know.
	Lacks(ctx context.Context, k Key) (map[string][]string, error)
	// Status returns every shard of every projection, without its lag. In place of it Lag.Age is how long ago the checkpoint moved, by
	// the clock of the ledger; Lag is nil if that is not known. The worker of a shard is "" unless it has a recent heartbeat.
	// NeedsType is the type last stored by Need, unless the checkpoint has moved since or a worker with a recent heartbeat knows it.
	Status(ctx context.Context) ([]projection.Status, error)
	// Holding returns the session whose transaction holds a shard, if the database tells.
	Holding(ctx context.Context, k Key, shard string) (s Session, found bool, err error)
	// Last returns the last sign of life of a shard.
	Last(ctx context.Context, k Key, shard string) (Last, error)

	// Blocked returns the streams of a shard that have parked records.
	Blocked(ctx context.Context, k Key, shard string) ([]es.Stream, error)
	// Requests returns the requests for parked records, each once, the lowest position first.
	Requests(ctx context.Context, k Key) ([]Request, error)
	// FirstParked returns the first parked record of a stream and the request that is stored with it.
	FirstParked(ctx context.Context, k Key, stream es.Stream) (p projection.Parked, request string, found bool, err error)
	// Due returns the first timers of a part of the streams that are due, at most limit. The caller knows that there are none before from: a
	// database would look for them among what was removed. now replaces the clock of the ledger unless it is 0.
	Due(ctx context.Context, k Key, p part.Part, from Timer, now int64, limit int) (Due, error)
	// Timers returns at most limit timers behind the given one, in their order.
	Timers(ctx context.Context, k Key, after Timer, limit int) ([]Timer, error)
	// Now returns the time of the ledger's clock, in microseconds since 1970.
	Now(ctx context.Context) (int64, error)
	// Parked returns at most limit records in the order of projection, version, position and stream, after the given one.
	Parked(ctx context.Context, after projection.Parked, limit int) ([]projection.Parked, error)

	// Each of the following has a transaction of its own.

	// Heartbeat extends the life of a worker, and stores the event types that it does not know. It need not survive a crash, like those
	// of Leave, Release, Fail and Need.
	Heartbeat(ctx context.Context, k Key, worker string, lease time.Duration, lacks []string) error
	// Leave removes a worker, and with it its hold on all its shards.
	Leave(ctx context.Context, k Key, worker string) error
	// Take makes a worker the holder of a shard, with a new claim, and returns the shard. It takes nothing if the claim is not the one in
	// seen, another live worker is the holder, a transaction in flight has locked the shard, or the shard has another filter than in seen.
	Take(ctx context.Context, k Key, seen Shard, worker string) (s Shard, taken bool, err error)
	// Release removes the holder of a shard, if the claim is still the same.
	Release(ctx context.Context, k Key, s Shard) error
	// Fail stores an error with a shard, if the claim is still the same. A claim of 0 is that of any holder.
	Fail(ctx context.Context, k Key, s Shard, message string) error
	// Need stores the event type of the record after a shard's checkpoint, which its holder does not know, if the claim is still the same.
	// An empty type clears it.
	Need(ctx context.Context, k Key, s Shard, eventType string) error
	// Request stores a request with the first parked record of a stream, and reports whether there is one.
	Request(ctx context.Context, k Key, stream es.Stream, want string) (found bool, err error)

	// The following are part of a transaction.

	// Insert adds a projection, and reports whether it did not exist.
	Insert(ctx context.Context, tx Tx, k Key, h Header) (inserted bool, err error)
	// Lock reads and locks the header of a projection, which serializes changes to its set of shards.
	Lock(ctx context.Context, tx Tx, k Key) (Header, error)
	// Describe changes the kind, the filter and whether there is a Prepare, and notes if there may be timers from now on. It changes the filter of shards whose filter is not known.
	Describe(ctx context.Context, tx Tx, k Key, h Header) error
	// SetRebuild stores or removes the request for a rebuild.
	SetRebuild(ctx context.Context, tx Tx, k Key, requested bool) error
	// Refilter changes the filter of a projection and its shards, and notes the filter before. The shards have new claims and no holders.
	// If past is true, each shard notes its cursor as the end of the past that it must replay.
	Refilter(ctx context.Context, tx Tx, k Key, filter string, past bool) error
	// Rewind moves all shards to a cursor, with new claims and without holders, and removes the parked records and timers behind it. It limits
	// the past that the shards must replay to the cursor.
	Rewind(ctx context.Context, tx Tx, k Key, to projection.Cursor) error
	// Rename changes the name of all versions of a projection and of all that belongs to them.
	Rename(ctx context.Context, tx Tx, old, name string) error
	// SetIdentity changes the identity of a reaction.
	SetIdentity(ctx context.Context, tx Tx, k Key, identity string) error
	// SetPartitions changes the requested number of shards.
	SetPartitions(ctx context.Context, tx Tx, k Key, partitions int) error
	// SetBarrier changes the cursor at which shards stop; -1 means that they do not.
	SetBarrier(ctx context.Context, tx Tx, k Key, barrier projection.Cursor) error
	// Restart waits for transactions in flight of the shards, removes the shards and the parked records, and replaces the header, without
	// a barrier and a request for a rebuild.
	Restart(ctx context.Context, tx Tx, k Key, h Header) error
	// InsertShards adds the shards that do not exist, each with a new claim and the checkpoint of a shard.
	InsertShards(ctx context.Context, tx Tx, k Key, names []string, like Shard) error
	// IdleShards locks and returns the shards that no transaction in flight has locked, in the order of their names,
	// and the number of all shards.
	IdleShards(ctx context.Context, tx Tx, k Key) (idle []Shard, all int, err error)
	// Replace replaces the shards by others, which have new claims and the checkpoint of a shard, moves parked records to the shards of
	// their streams, and clears the barrier.
	Replace(ctx context.Context, tx Tx, k Key, names []string, like Shard, shardOf func(es.Stream) string) error
	// Move moves the checkpoint of a shard from the cursor and the claim in s, and clears its error. It reports whether both were still
	// the same. It locks the shard until the end of the transaction. While the shard must replay the past, the cursor is a place in
	// the past, and so is what is moved: the checkpoint stays. At the end of the past the shard notes that there is none.
	Move(ctx context.Context, tx Tx, k Key, s Shard, to Target) (moved bool, err error)
	// MoveInline is Move for the only shard of an inline projection. It ignores claims. A time of 0 leaves the time as it is.
	MoveInline(ctx context.Context, tx Tx, k Key, from projection.Cursor, to Target) (moved bool, err error)
	// Park adds a parked record to a shard.
	Park(ctx context.Context, tx Tx, k Key, shard string, r *es.Record, message string, attempts int) error
	// Unpark removes the first parked record of a stream, and asks to retry the next one, if there is one. A worker that ends between two
	// records would forget the request otherwise.
	Unpark(ctx context.Context, tx Tx, k Key, r es.Record) error
	// FailParked stores the error of one more attempt with a parked record, and clears its request.
	FailParked(ctx context.Context, tx Tx, k Key, r es.Record, message string) error
	// Enrol adds timers. One that is there already stays.
	Enrol(ctx context.Context, tx Tx, k Key, timers []Timer) error
	// Settle removes the timers of a part of the streams from one to another, both included, in their order.
	Settle(ctx context.Context, tx Tx, k Key, p part.Part, first, last Timer) error
	// Workers returns the number of workers with a recent heartbeat.
	Workers(ctx context.Context, tx Tx, k Key) (int, error)
	// Forget removes a projection and all that belongs to it.
	Forget(ctx context.Context, tx Tx, k Key) error
}

// Store is the part of a ledger that has the read models too. Tx is the transaction that handlers get.
type Store[Tx any] interface {
	// Transact runs work in a transaction that may write, and commits. An error of work rolls back, and so does a panic.
	Transact(ctx context.Context, o Options, work func(ctx context.Context, tx Tx) error) error

	// Passing reports whether an error is a transient fault of the database, such as a lost connection, a deadlock or a full disk.
	// It must return false for errors of anything else, which a handler may return.
	Passing(err error) bool

	// Missing reports whether an error is that of a table or column that does not exist.
	Missing(err error) bool

	// Hold is how long a transaction should last, because it blocks other writers. 0 means that it does not.
	Hold() time.Duration

	// Log is the log of the database.
	Log() es.Log

	// Recall returns the records of that log at positions, which are in order. It omits a position at which there is no record. It needs
	// one statement for each page of records, however far they are apart.
	Recall(ctx context.Context, positions []es.Position) iter.Seq2[es.Record, error]
}

// Options configure a transaction.
type Options struct {
	Idle    time.Duration // the longest idle time before the database aborts it, if it can
	Quiet   bool          // a crash may undo it after the commit
	Handler *Handler      // that is called in the transaction, so that it may take long; nil if there is none
}

// Key identifies a projection.
type Key struct {
	Name    string
	Version int
}

// String returns the name, with the version if it is not 0.
func (k Key) String() string {
	if k.Version == 0 {
		return k.Name
	}
	return fmt.Sprintf("%s@%d", k.Name, k.Version)
}

// Header is what the shards of a projection have in common.
type Header struct {
	Kind       projection.Kind // "" if only an older release has run it, like Filter and Prepares
	Source     string
	Filter     string // in the form of [canon.Filter]
	Replaced   string // the filter before, of which the shards may replay the past
	Prepares   string // whether there is a Prepare: [PreparesYes] or [PreparesNo]
	Delays     bool   // whether a reaction has, or had, a Due, so that there may be timers
	Identity   string // of a reaction and its run, for the ids of commands; "" if it has a checkpoint from before there were identities
	Partitions int    // requested number; 0 if the source has its own shards
	Barrier    projection.Cursor
	Rebuild    bool
	Found      bool
}

// Values of Header.Prepares.
const (
	PreparesYes = "yes"
	PreparesNo  = "no"
)

// Shard is a shard with its checkpoint. Most methods fill in or use only some of the fields.
type Shard struct {
	Name     string
	Cursor   projection.Cursor
	Time     int64 // of the last record applied, in microseconds since 1970; 0 if there is none
	Claim    int64
	CaughtUp bool // whether it has ever reached the end of its source
	AtEnd    bool // whether its holder has
	Holder   string
	Live     bool              // whether the holder has a recent heartbeat
	Filter   int64             // as [FilterMark] returns it; 0 if not known
	Past     projection.Cursor // while PastEnd is not 0: how far the past is replayed
	Replaced string            // as in Header, like Identity and Delays
	Delays   bool
	Identity string
	PastEnd  projection.Cursor // the end of the past that must be replayed; 0 if none
	Needs    string            // an event type that a holder did not know; "" if none
}

// Target is where a checkpoint moves to.
type Target struct {
	Cursor projection.Cursor
	Time   int64 // of the last record applied, in microseconds since 1970
	End    bool  // whether that is the end of the source
}

// Overview is what a worker reads of its projection. Its shards are in the order of their names.
type Overview struct {
	Header
	Workers int  // with a recent heartbeat
	Asked   bool // whether there are requests to retry or drop parked records
	Shards  []Shard
}

// Due is what is due at a time.
type Due struct {
	Timers []Timer // in their order
	Now    int64   // the time
	Next   int64   // when the first timer is due that is not due yet; 0 if there is none
}

func (o Overview) names() []string {
	names := make([]string, len(o.Shards))
	for i, s := range o.Shards {
		names[i] = s.Name
	}
	return names
}

// Checkpoint is the lowest cursor of the shards of a projection, with the error of one of them if there is any.
type Checkpoint struct {
	Key
	Kind       projection.Kind
	Cursor     projection.Cursor // in the past, while it is replayed
	Partitions int               // as in Header
	CaughtUp   bool              // whether all shards have ever reached the end of the source
	Error      string
}

// Request asks to retry or drop the parked records of a stream.
type Request struct {
	Shard  string
	Stream es.Stream
}

// Requests that are stored with the first parked record of a stream.
const (
	RequestRetry = "retry"
	RequestDrop  = "drop"
)

// NewClaim returns a random token that is not 0.
func NewClaim() int64 { return 1 + rand.Int64N(1<<62) }

// inlineShard is the name of the only shard of an inline projection.
const inlineShard = "0/1"

// TimeOf returns the time of microseconds since 1970; the zero time for 0.
func TimeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// errorText returns the text of an error as it is stored. Databases take only UTF-8 without NUL.
func errorText(err error) string { return clean(err.Error()) }
