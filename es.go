package es

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An Aggregate is the rules of one kind of thing, such as an account: two pure functions over a state S, commands C and events E.
// The zero S is the state before any event.
//
// Pure means that the result depends on the arguments alone and that the arguments stay as they are: no clock, no random number, no I/O.
// What the rules need to know of the world comes in with the command. A [Repo] calls both functions from goroutines of its own,
// runs Decide again when another writer was faster, and shares one state among many callers; rules that are not pure give
// different answers on a retry and corrupt states that others hold. Package estest checks for that.
type Aggregate[S, C, E any] interface {
	// Decide says which events a command causes in a state.
	// No events and no error mean that there is nothing to do. An error refuses the command; see [Invariant].
	Decide(state S, command C) ([]E, error)

	// Evolve returns the state after an event. An event is a fact: Evolve cannot refuse it.
	// It must not change the state it is given, nor a map or slice within it, nor the spare room behind a slice's end, which several
	// states share: append to a copy, as in append(slices.Clip(s), x).
	Evolve(state S, event E) S
}

// A Stream names the events of one aggregate: a kind, such as "account", and an id within it.
type Stream struct {
	Kind string // valid UTF-8 without NUL and without "/", at most [MaxKind] bytes
	ID   string // valid UTF-8 without NUL, at most [MaxID] bytes
}

// String returns kind/id, such as account/42.
func (s Stream) String() string { return s.Kind + "/" + s.ID }

// ParseStream is the inverse of [Stream.String]: what stands before the first "/" is the kind.
func ParseStream(name string) (Stream, error) {
	kind, id, found := strings.Cut(name, "/")
	s := Stream{kind, id}
	if !found {
		return Stream{}, invalid("stream name %q has no \"/\": write kind/id, such as account/42", name)
	}
	return s, s.Check()
}

// A Version counts the events of one stream: 1, 2, 3 and so on without a gap. 0 is the version of a stream without events.
type Version int64

// AnyVersion as [Append.Expected] appends behind whatever is there.
const AnyVersion Version = -1

// A Position counts the events of one store: 1, 2, 3 and so on without a gap, in the order in which they were committed. 0 stands before everything.
type Position int64

// A Record is an event as it is stored.
type Record struct {
	// Stream, Version, Position and Time are the store's to set. Append ignores them.
	Stream   Stream
	Version  Version
	Position Position
	Time     time.Time // UTC, in whole microseconds; never runs backwards along positions

	Type string            // the stored name of the event, as the [Codec] gives it
	Data []byte            // the event itself; nil and empty are the same
	Meta map[string]string // correlation, causation and the like; nil when there is none
}

// ID returns the identity of the event, such as account/42/7: its stream and its version.
// It is the same in every store, topic and read model, for ever.
func (r Record) ID() string {
	return r.Stream.String() + "/" + strconv.FormatInt(int64(r.Version), 10)
}

// An Append is what a [Store] is asked to write: events at the end of one stream.
type Append struct {
	Stream Stream

	// Expected is the version the stream must have: that of the state on which the events were decided, or [AnyVersion].
	// Within one call of [Store.Append] it counts what the values before it append to the same stream.
	Expected Version

	// Events are the records to write, of which Type, Data and Meta count.
	// An Append without events writes nothing: it only asks whether Expected and Command hold.
	Events []Record

	// Command, if not empty, is the identity of the command behind the events. A store takes it at most once on each stream,
	// and remembers it if there are events.
	Command string
}

// A Store keeps streams of events. [Mem] is the reference; packages sqlite and postgres keep events durably.
// All methods may be called from many goroutines, and several Store values, also in several processes, may share one database.
type Store interface {
	// Append writes all that it is given or nothing, over any number of streams, and returns the position of the last
	// record written, or 0 if there was nothing to write. When it returns without an error the records are durable.
	// The records of one call stand next to each other, in the order given: a caller finds the position of each by counting back.
	//
	// A stream that is not at the version expected makes a [*ConflictError], and so does every lost race.
	// A command that is there already makes a [*DuplicateError], also when the version is not the one expected.
	// An Append that breaks a limit (see [CheckAppends]) makes an error that wraps [ErrInvalid].
	// If the store cannot tell whether the records were written, the error wraps [ErrUnknownOutcome]; any other error means that nothing was.
	//
	// A store keeps no memory of the caller's, and changes none.
	//
	// For implementers: assign positions while holding the lock under which the records become visible. A store that takes positions
	// first and commits later lets a reader see 8 before 7, go on from there, and never see 7.
	Append(ctx context.Context, appends ...Append) (Position, error)

	// Read returns the records of one stream after a version, in order: all that are there when it begins, and perhaps some that come meanwhile.
	// A stream that does not exist has no records. A name that no stream can have (see [Stream.Check]) makes an error.
	//
	// The error comes at most once, last, beside a zero Record. Ranging again reads again; break releases everything.
	// The records are the caller's to keep.
	//
	// For implementers: hold no lock, connection or transaction while the loop body runs. The body may call the store,
	// and a slow one would stall every writer.
	Read(ctx context.Context, stream Stream, after Version) iter.Seq2[Record, error]
}

// A Log is a [Store] whose records can also be read in the order in which they were committed, over all streams.
//
// Positions are dense and in commit order. So once a reader has seen position P, nothing ever appears at or below P:
// it may stop anywhere and go on from there, skips nothing, needs no gap detection, and never waits for somebody else's open transaction.
type Log interface {
	Store

	// ID identifies the log for ever: it is made with the database, goes along with copies of it, and differs from that of any other.
	// It is at most [MaxKind] bytes of letters, digits and hyphens. Who keeps a position keeps the ID with it.
	ID() string

	// All returns the records after a position that the filter lets through, in order, and ends at the last record.
	// It is read like [Store.Read]. Names in the filter that nothing stored can have match nothing.
	All(ctx context.Context, after Position, filter Filter) iter.Seq2[Record, error]

	// Changed waits until a record after the given position exists and returns the position of the last record.
	// With an after of -1 it returns at once, also from an empty log; see [Head].
	//
	// A position beyond the last record makes a [*AheadError], at once: it belongs to another log, or this one was restored from
	// an older copy. Waiting there would skip all that is written until the log has grown past it.
	Changed(ctx context.Context, after Position) (Position, error)
}

// Head returns the position of the last record of a log, 0 if it is empty.
func Head(ctx context.Context, log Log) (Position, error) {
	return log.Changed(ctx, -1)
}

// A Filter selects records. Its zero value lets all through.
type Filter struct {
	Kinds []string // kinds of stream; empty means all
	Types []string // types of event; empty means all
}

// Match tells whether the filter lets a record through.
func (f Filter) Match(r Record) bool {
	return (len(f.Kinds) == 0 || slices.Contains(f.Kinds, r.Stream.Kind)) &&
		(len(f.Types) == 0 || slices.Contains(f.Types, r.Type))
}

// String describes the filter for messages and logs.
func (f Filter) String() string {
	if len(f.Kinds) == 0 && len(f.Types) == 0 {
		return "everything"
	}
	return fmt.Sprintf("kinds %q, types %q", f.Kinds, f.Types)
}
