package projection

import (
	"context"
	"log/slog"
	"time"

	"github.com/thalo-go/es"
)

// Reaction runs a side effect for each record, at least once. It is a [Projection] whose effect is outside the database,
// so a record may come again after a crash. Execute commands with [es.Step] to make their effect exactly once.
//
// The commands may go to another store than the one that runs the reaction. While that store is unavailable they fail with an error
// that wraps [es.ErrUnavailable]. The reaction retries them with growing pauses, and Status has the error. For a service that is not
// a store, wrap ErrUnavailable around its client's error to get the same. No other error is retried indefinitely. In particular,
// a network error may be caused by the record itself, such as by a bad host name, and so may a deadline set by Handle.
type Reaction struct {
	Name       string // as in Projection, whose names it shares
	Source     Source // as in Projection
	Filter     es.Filter
	Partitions int

	// From says where the reaction begins if it has no checkpoint: [Beginning] does everything in the log now, [Head] only what comes.
	// On a log that is not empty it is required; without it React returns an error that wraps [es.ErrInvalid]. With a checkpoint it
	// has no effect: see Replay of [Admin]. Topics have only Beginning and Head.
	From Start

	// Due, if set, says when a record is handled; the zero time means now. The record is stored as a timer in the transaction that
	// moves the checkpoint, and later records do not wait for it. When it is due, it is read again and handled. It is never handled before
	// its time, by the clock of the database that has the checkpoint. A time in the past is due at once, and one after the year 9999
	// is an error of the record, like an error of Due. A record keeps the time that it was enrolled with, also if Due changes or is
	// removed. If the record is gone from the log by then, it is dropped with a warning. Due may be called several times for a
	// record. It needs a log as source: topics cannot be read again at a place, so they are refused.
	//
	// A timer cannot be canceled. If the matter is settled by then, let Decide return no events.
	Due func(r es.Record) (time.Time, error)

	// Once has React return nil when all shards have reached the end of the source and nothing is due; timers that are not due stay.
	Once bool

	// Now replaces the clock of the database for Due, for tests. nil means the clock of the database.
	Now func() time.Time

	// Handle reacts to one record. Its context has the identity that [es.Step] requires.
	Handle func(ctx context.Context, r es.Record) error

	// Carry are the keys of Record.Meta that commands with [es.Step] take over, such as "user". Do not carry
	// the context of a trace: link the new trace to the old one.
	Carry []string

	OnError es.OnError    // as in Projection, like the fields below
	Retries int           // errors that wrap es.ErrUnavailable do not count
	Batch   int           // the most records handled before the checkpoint moves; 0 means 1000
	Lease   time.Duration // 0 means 10s
	Logger  *slog.Logger  // nil discards
}
