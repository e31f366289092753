package es

import (
	"errors"
	"fmt"
)

// Errors that a caller acts on. Match them with errors.Is; those that carry more are types, for errors.As.
var (
	// ErrInvalid is wrapped by the error for input that no store takes: an empty id, a name with a NUL byte, data over a limit.
	// Nothing was written. Sending the same again is of no use.
	ErrInvalid = errors.New("invalid")

	// ErrUnknownOutcome is wrapped by the error for an append of which the store could not find out, before the context ended,
	// whether it was written. Send the command again with the same [CommandID], which takes effect at most once, or load and look.
	ErrUnknownOutcome = errors.New("outcome unknown: it may or may not have been written; send it again with the same command id, or load and look")

	// ErrRewound is wrapped, beside a [*ConflictError], if the store found that the database has lost the end of its history since the
	// caller read it: it was restored from an older copy, or failed over to a replica that was behind. What was read before may never
	// have been. Load from the beginning and decide again; [Repo.Execute] has done that already.
	ErrRewound = errors.New("the database has lost the end of its history: load from the beginning")

	// ErrUnavailable is wrapped by the error for a call that a store could not serve, through no fault of the call: its server is away, the
	// connection broke, the disk is full, somebody else holds a lock. The same call is likely to succeed later. The handler of a projection,
	// of a [Reaction] or of a consumer that returns such an error is called again until it does, and the record is not blamed; wrap it
	// beside the error of a client of your own to have the same: fmt.Errorf("the mail server: %w: %w", es.ErrUnavailable, err).
	ErrUnavailable = errors.New("unavailable")

	// ErrClosed is wrapped by the error for a call on a store or repo that was closed. Nothing was written.
	ErrClosed = errors.New("closed")

	// ErrRetired is returned by a [Codec] for an event that is to be read past: the version counts it and no state changes.
	ErrRetired = errors.New("retired event")
)

// A ConflictError says that a stream was not at the version that an [Append] or [ExpectVersion] expected. Nothing was written.
// Load, decide again and append again; [Repo.Execute] has done that already, [Repo.Retries] times.
type ConflictError struct {
	Stream   Stream
	Expected Version
}

func (e *ConflictError) Error() string {
	if e.Expected == 0 {
		return fmt.Sprintf("conflict: %s exists already: load it and decide again", e.Stream)
	}
	return fmt.Sprintf("conflict: %s is not at version %d: load it and decide again", e.Stream, e.Expected)
}

// A DuplicateError says that a command is on the stream already. Nothing was written.
// The events that the command caused have the versions from First to Last.
// [Repo.Execute] does not return it: it returns what the command returned the first time.
type DuplicateError struct {
	Stream      Stream
	Command     string
	First, Last Version
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("command %q is on %s already, as versions %d to %d: read them for its result", e.Command, e.Stream, e.First, e.Last)
}

// An InvariantError is a refusal by the rules: the command would break the invariant that Code names.
// It reaches the caller of [Repo.Execute] through every layer.
type InvariantError struct {
	Code    string // for programs: stable, such as ACCOUNT_ALREADY_OPENED
	Message string // for people
}

func (e *InvariantError) Error() string { return e.Code + ": " + e.Message }

// Invariant returns an [*InvariantError] for Decide to refuse a command with.
//
//	return nil, es.Invariant("ACCOUNT_ALREADY_OPENED", "account %s is already open", id)
func Invariant(code, format string, args ...any) error {
	return &InvariantError{Code: code, Message: fmt.Sprintf(format, args...)}
}

// An UnknownEventError says that a [Codec] has no entry for an event: register the type, or if it is an old name that is still stored,
// upcast or retire it.
type UnknownEventError struct {
	Type string // the stored name, or the Go type on the way in
}

func (e *UnknownEventError) Error() string {
	return fmt.Sprintf("unknown event %q: add it to the codec (an old name: Rename, Upcast or Retire it)", e.Type)
}

// An AheadError says that a position is beyond the end of the log: it comes from another store,
// or the store was restored from an older copy. Going on from there would skip records; find out which, then reset the reader.
type AheadError struct {
	After, Head Position
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("position %d is beyond the end of the log, %d: it belongs to another store, or this one was restored from an older copy; check, then reset the reader to a position that both have", e.After, e.Head)
}

// A PanicError is what [Repo.Execute] panics with when Decide or Evolve panicked: they run on another goroutine than the caller.
// It is the error of a projection or reaction one of whose functions panicked.
type PanicError struct {
	Value any    // what was given to panic
	Stack []byte // where it was, as runtime/debug.Stack gives it
}

func (e *PanicError) Error() string { return fmt.Sprintf("%v\n\n%s", e.Value, e.Stack) }

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// OnError says what becomes of a record that cannot be handled.
type OnError int

const (
	// Stop ends the run with a [*projection.Error], before the record. Other projections go on.
	Stop OnError = iota

	// Park puts the record aside with its error, and the later records of its stream behind it, in order, and goes on with other streams.
	// They can be listed, retried and dropped; see [projection.Projections].
	Park
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("es: %w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
