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

// Aggregate defines the behavior of one kind of entity, such as an account, by two pure functions
// over a state S, commands C and events E. The zero S is the state before any event.
//
// Both functions must be pure: deterministic, and free of side effects. They must not read a clock, draw a random
// number or do I/O, and they must not modify their arguments. Facts from outside arrive in the command.
//
// A [Repo] calls both functions from arbitrary goroutines, calls Decide again after a conflict, and shares one state
// between callers. Impure rules give different answers on a retry and corrupt states that other callers hold.
// Package estest checks rules for purity.
type Aggregate[S, C, E any] interface {
	// Decide returns the events that a command causes in a state.
	// Returning no events and no error is a no-op. An error refuses the command; see [Invariant].
	Decide(state S, command C) ([]E, error)

	// Evolve returns the state after an event. An event is a fact, so Evolve cannot refuse it.
	//
	// Evolve must not modify state, including maps and slices that it contains and their unused capacity.
	// Append to a clipped slice: append(slices.Clip(s), x).
	Evolve(state S, event E) S
}

// Stream names the events of one aggregate: a kind, such as "account", and an id within it.
type Stream struct {
	Kind string // valid UTF-8 without NUL and "/", at most [MaxKind] bytes
	ID   string // valid UTF-8 without NUL, at most [MaxID] bytes
}

// String returns kind/id, such as account/42.
func (s Stream) String() string { return s.Kind + "/" + s.ID }

// ParseStream parses kind/id, the form that [Stream.String] returns. The kind ends at the first "/".
// The error wraps [ErrInvalid].
func ParseStream(name string) (Stream, error) {
	kind, id, found := strings.Cut(name, "/")
	s := Stream{kind, id}
	if !found {
		return Stream{}, invalid("stream name %q has no \"/\": use kind/id, such as account/42", name)
	}
	return s, s.Check()
}

// Version counts the events of one stream: 1, 2, 3 and so on without gaps. 0 is the version of an empty stream.
type Version int64

// AnyVersion as [Append.Expected] disables the version check.
const AnyVersion Version = -1

// Position counts the events of one store in commit order: 1, 2, 3 and so on without gaps. 0 is before the first event.
type Position int64

// Record is a stored event.
type Record struct {
	// The store sets Stream, Version, Position and Time. Append ignores them.
	Stream   Stream
	Version  Version
	Position Position
	Time     time.Time // UTC, whole microseconds; never decreases along positions

	Type string            // stored name of the event; see [Codec]
	Data []byte            // encoded event; nil and empty are equal
	Meta map[string]string // correlation, causation and the program's own; nil if there is none

	// Tags are what the event concerns besides its stream, such as "course:42"; see [Filter.Tags] and [Condition]. They are
	// given by [Codec.Tag], sorted and without duplicates; nil if there are none.
	Tags []string

	// Part numbers the messages that kafka.Relay.Transform made of one record, from 1. It is 0 in every store.
	Part int
}

// ID returns the permanent identity of the event, its stream and version, such as account/42/7.
// It is the same in every store, topic and read model. If Part is not 0, it follows, as in account/42/7.1.
func (r Record) ID() string {
	id := r.Stream.String() + "/" + strconv.FormatInt(int64(r.Version), 10)
	if r.Part != 0 {
		id += "." + strconv.Itoa(r.Part)
	}
	return id
}

// Append is one stream's part of a call of [Store.Append].
type Append struct {
	Stream Stream

	// Expected is the version that the stream must have, or [AnyVersion].
	// It counts events that earlier values of the same call append to the stream.
	Expected Version

	// Unless fails the append if a record matches. Records of the same call do not count.
	Unless Condition

	// Events are the records to write. Only Type, Data, Meta and Tags are used.
	// With no events, Append only checks Expected, Unless and Command. Use this to require a version of another stream.
	Events []Record

	// Command, if not empty, identifies the command that caused the events.
	// A store accepts it at most once per stream. It is recorded only if there are events.
	Command string
}

// Condition fails an [Append] with a [*ConflictError] if a record after a position matches one of the filters.
// The zero value never fails.
//
// To decide on records of several streams, take the [Head] of the log, read the records that match, decide, and append with
// the same filters and the head as After. Positions are dense and in commit order, so this condition is exact: it fails if and
// only if a matching record was written since the head was taken.
type Condition struct {
	Match []Filter // at most [MaxConditions]; each needs a tag, because it would read the whole log otherwise
	After Position // 0 means that no such record may exist at all
}

// Store keeps streams of events. [Mem] is the reference implementation; packages sqlite and postgres store events durably.
//
// All methods may be called concurrently. Several Store values, also in several processes, may share one database.
//
// It may gain methods, so applications must not implement it. A backend that does is tested by package estest/conformance.
type Store interface {
	// Append writes everything it is given or nothing, across any number of streams. It returns the position of the
	// last record written, or 0 if there was nothing to write. Records are durable when it returns without an error.
	// The records of one call have consecutive positions, in the order given.
	//
	// Errors:
	//   - a [*ConflictError] if a stream is not at its expected version, or a [Condition] fails, including when the call loses
	//     a race. It is wrapped together with [ErrRewound] if a condition is about records after a position beyond the last one
	//   - a [*DuplicateError] if a stream has the command already, whatever version is expected
	//   - an error that wraps [ErrInvalid] if a limit is exceeded; see [CheckAppends]
	//   - an error that wraps [ErrUnknownOutcome] if the store cannot determine whether the records were written
	//
	// After any other error nothing was written.
	//
	// Implementations must not retain or modify the arguments. They must assign positions while they hold the lock
	// under which records become visible. A store that assigns positions earlier lets a reader see position 8
	// before 7, continue after 8, and miss 7.
	Append(ctx context.Context, appends ...Append) (Position, error)

	// Read returns the records of one stream after a version, in order: all present when iteration starts, and
	// possibly later ones. A stream that does not exist has no records. An invalid stream name is an error.
	//
	// An error, if any, is the last pair and has a zero Record. The sequence is reusable. The caller owns the records.
	//
	// Implementations must hold no lock, connection or transaction while the loop body runs. The body may call the
	// store, and a slow body would stall every writer.
	Read(ctx context.Context, stream Stream, after Version) iter.Seq2[Record, error]
}

// Log is a [Store] whose records can also be read across all streams, in commit order.
//
// Positions are dense and assigned in commit order. Once a reader has seen position P, no record ever appears at or
// below P. A reader can therefore stop anywhere and continue from its last position. It needs no gap detection and
// never waits for another transaction.
type Log interface {
	Store

	// ID identifies the log permanently. It is created with the database, is kept in copies of it, and differs between
	// databases. It consists of at most [MaxKind] letters, digits and hyphens. Store the ID with any saved position.
	ID() string

	// All returns the records after a position that the filter matches, in order, up to the last record of the log.
	// The rules of [Store.Read] apply. Invalid names in the filter match nothing.
	All(ctx context.Context, after Position, filter Filter) iter.Seq2[Record, error]

	// Changed waits for a record after the given position and returns the position of the last record.
	// If after is -1 it returns at once, even for an empty log; see [Head].
	//
	// A position beyond the last record is an [*AheadError]. It belongs to another log, or this log was restored from
	// an older copy. Waiting there would skip new records until the log has grown past it.
	Changed(ctx context.Context, after Position) (Position, error)
}

// Head returns the position of the last record of a log, or 0 if the log is empty.
func Head(ctx context.Context, log Log) (Position, error) {
	return log.Changed(ctx, -1)
}

// Follow is like [Log.All] but waits for new records. It ends only with an error, usually that of the context.
// It holds no resource while the loop body runs, so a slow reader delays no other.
//
// A position beyond the end of the log is an [*AheadError].
func Follow(ctx context.Context, log Log, after Position, filter Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for after := max(after, 0); ; {
			// Read the head first: records up to it that the filter excludes need not be read again.
			head, err := log.Changed(ctx, after)
			if err != nil {
				yield(Record{}, err)
				return
			}
			for r, err := range log.All(ctx, after, filter) {
				if !yield(r, err) || err != nil {
					return
				}
				after = r.Position
			}
			after = max(after, head)
		}
	}
}

// Filter selects records. An empty field matches everything, so the zero Filter matches every record.
type Filter struct {
	Kinds []string `json:"kinds,omitempty"` // kinds of streams: any of these
	Types []string `json:"types,omitempty"` // types of events: any of these
	Tags  []string `json:"tags,omitempty"`  // tags of events: all of these
}

// Match reports whether the filter matches a record.
func (f Filter) Match(r Record) bool {
	return (len(f.Kinds) == 0 || slices.Contains(f.Kinds, r.Stream.Kind)) &&
		(len(f.Types) == 0 || slices.Contains(f.Types, r.Type)) &&
		(len(f.Tags) == 0 || f.matchTags(r.Tags))
}

func (f Filter) matchTags(tags []string) bool {
	for _, tag := range f.Tags {
		if !slices.Contains(tags, tag) {
			return false
		}
	}
	return true
}

// String describes the filter for messages and logs.
func (f Filter) String() string {
	if len(f.Tags) > 0 {
		return fmt.Sprintf("kinds %q, types %q, tags %q", f.Kinds, f.Types, f.Tags)
	}
	if len(f.Kinds) == 0 && len(f.Types) == 0 {
		return "everything"
	}
	return fmt.Sprintf("kinds %q, types %q", f.Kinds, f.Types)
}
