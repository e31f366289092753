package es

import (
	"errors"
	"fmt"
	"strings"
)

// Errors to match with errors.Is. Errors that carry more are types, for errors.As.
var (
	// ErrInvalid indicates input that every store rejects, such as an empty id, a name with a NUL byte, or data above
	// a limit. Nothing was written. Retrying will not help.
	ErrInvalid = errors.New("invalid")

	// ErrUnknownOutcome indicates that the store could not determine whether an append was written before the context
	// was done. Retry with the same [CommandID], or load and compare.
	ErrUnknownOutcome = errors.New("outcome unknown: retry with the same command id")

	// ErrRewound indicates that the database lost the end of its history since the caller read it: it was restored from
	// an older copy, or failed over to a replica that lagged. Earlier reads may be invalid. Reload and retry.
	// It is wrapped together with a [*ConflictError], and [Repo.Execute] handles both.
	ErrRewound = errors.New("history was lost: load from the beginning")

	// ErrUnavailable indicates a temporary failure that is not the fault of the call: server unreachable, connection
	// lost, disk full, or lock held. The same call is likely to succeed later.
	//
	// The handler of a projection, reaction or consumer that returns it is retried indefinitely, and the record is not
	// parked. Wrap it in errors of other clients for the same effect: fmt.Errorf("mail: %w: %w", es.ErrUnavailable, err).
	ErrUnavailable = errors.New("unavailable")

	// ErrExpired indicates a command that came after its [NotAfter]. Nothing was written. Retrying will not help.
	ErrExpired = errors.New("expired")

	// ErrClosed indicates a call on a store or Repo that was closed. Nothing was written.
	ErrClosed = errors.New("closed")

	// ErrRetired is returned by [Codec.Decode] for a retired or redacted event: skip the record.
	ErrRetired = errors.New("retired event type")
)

// ConflictError reports that a stream was not at the version that an [Append] or [ExpectVersion] expected, or that the
// [Condition] of an Append failed. Nothing was written. [Repo.Execute] reloads and decides again up to [Config.Retries] times
// before it returns the error.
type ConflictError struct {
	Stream   Stream
	Expected Version
	Unless   Condition // the condition that failed; zero if it was the version
}

func (e *ConflictError) Error() string {
	if len(e.Unless.Match) > 0 {
		return fmt.Sprintf("conflict: append to %s: a record after position %d matches its condition", e.Stream, e.Unless.After)
	}
	if e.Expected == 0 {
		return fmt.Sprintf("conflict: stream %s already exists", e.Stream)
	}
	return fmt.Sprintf("conflict: stream %s is not at version %d", e.Stream, e.Expected)
}

// DuplicateError reports that a stream has the command already. Nothing was written. The command's events have the
// versions First to Last. [Repo.Execute] handles it and returns the outcome of the first time.
type DuplicateError struct {
	Stream      Stream
	Command     string
	First, Last Version
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("duplicate: stream %s has command %q already, as versions %d to %d", e.Stream, e.Command, e.First, e.Last)
}

// InvariantError is a refusal by the rules: the command would violate the invariant that Code names.
// Execute returns that of Decide as it is. A refusal by an inline projection is wrapped: use [errors.As].
type InvariantError struct {
	Code    string // for programs; stable, such as ACCOUNT_ALREADY_OPENED
	Message string // for people
}

func (e *InvariantError) Error() string { return e.Code + ": " + e.Message }

// Invariant returns an [*InvariantError]. Decide returns it to refuse a command:
//
//	return nil, es.Invariant("ACCOUNT_ALREADY_OPENED", "account %s is already open", id)
func Invariant(code, format string, args ...any) error {
	return &InvariantError{Code: code, Message: fmt.Sprintf(format, args...)}
}

// UnknownEventError reports an event that the [Codec] has no entry for.
type UnknownEventError struct {
	Type string // the stored name, or when encoding the Go type
}

func (e *UnknownEventError) Error() string {
	return fmt.Sprintf("unknown event %q: add it to the codec, or Rename, Upcast or Retire it", e.Type)
}

// AheadError reports a position after the end of the log. The position belongs to another store, or the store was
// restored from an older copy. Continuing from there would skip records: find the cause, then reset the reader.
type AheadError struct {
	After, Head Position
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("position %d is past the end of the log (%d): it belongs to another store, or this one was restored from a backup", e.After, e.Head)
}

// PanicError reports a panic in a function of the program, such as Decide, which may have run in another goroutine.
// [Repo.Execute] panics with it; projections and reactions return it.
type PanicError struct {
	Value any    // the argument of panic
	Stack []byte // as runtime/debug.Stack returns it; not part of Error
}

// Error returns one line. The stack is in Stack.
func (e *PanicError) Error() string {
	return "panic: " + strings.Join(strings.Fields(fmt.Sprint(e.Value)), " ")
}

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// OnError says what happens to a record that cannot be handled.
type OnError int

const (
	// Stop ends the run before the record.
	Stop OnError = iota

	// Park sets the record and later ones of its stream aside, in order, and continues with other streams.
	// Parked records can be listed, retried and dropped.
	Park
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("es: %w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
