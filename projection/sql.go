package projection

import (
	"context"
	"iter"

	"github.com/thalo-go/es"
)

// SQLProjection is a projection that runs on SQLite and on Postgres. [Database] has its Project method.
type SQLProjection = Projection[SQL]

// SQL is the transaction of a [SQLProjection]. It is the same on SQLite and Postgres:
//
//   - Placeholders are $1, $2 and so on. The statement uses each of them, in any order and as often as it needs. Other placeholders are refused.
//   - A statement with arguments is alone. Exec without arguments may have several, separated by semicolons.
//   - A statement that begins, commits or rolls back the transaction is refused. Savepoints are allowed.
//   - After an error every further call fails, except "rollback to" a savepoint. If Handle or Prepare returns nil all the same, nothing is
//     committed. [database/sql.ErrNoRows] is no such error.
//   - One statement runs at a time: a call in the loop over the rows of another is an error. Read the rows first.
//   - After Handle or Prepare has returned, every call fails.
//
// The SQL itself must be one that both databases understand. Columns for these types are alike on both:
//
//	int64, Position, Version   bigint
//	bool                       boolean
//	float64                    double precision; NaN is refused
//	string                     text; valid UTF-8 without NUL
//	[]byte                     bytea
//	json.RawMessage            json, which must not be a bare number
//	time.Time                  timestamptz; it is read back in UTC, with microseconds
//	nil                        any; scan into a pointer, such as **string, or into a type such as sql.NullString
//
// Types that are based on these, such as a string type, are stored like them. SQLite does not check types, so test on Postgres too: it refuses
// what does not fit the column. Scan into one of these types and not into any, for which the databases have different types.
type SQL interface {
	Querier

	// Exec runs a statement and returns how many rows it inserted, updated or deleted.
	Exec(ctx context.Context, query string, args ...any) (affected int64, err error)
}

// Querier reads from SQLite or Postgres. For arguments and results see [SQL].
type Querier interface {
	// Query runs a query and returns its rows. An error ends the sequence. A row is valid until the loop goes on. Query of a [Database]
	// holds a connection while the loop runs. Each loop runs the query again.
	Query(ctx context.Context, query string, args ...any) iter.Seq2[Row, error]

	// QueryRow runs a query when Scan is called, and scans its first row. Without a row, Scan returns [database/sql.ErrNoRows].
	QueryRow(ctx context.Context, query string, args ...any) Row
}

// Row is a row of a result.
type Row interface {
	// Scan copies the columns to the values that dest points to. NULL needs a destination that can hold it.
	Scan(dest ...any) error
}

// Database is a store of package sqlite or postgres without its driver: SQL of those stores returns it, and stores.Open.
// It is not for users to implement: it may gain methods.
//
// Its queries read what is committed. A statement that is not a query is refused with an error that wraps [es.ErrInvalid].
type Database interface {
	es.Log
	es.Snapshots
	es.Leases
	es.Checkpoints
	Projections[SQL]
	Querier

	// Stats returns the counters since the store was opened.
	Stats() es.Stats

	// Close closes the store.
	Close() error
}
