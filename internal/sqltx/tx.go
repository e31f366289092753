// Package sqltx gives handlers of projections a transaction that is the same on every SQL database.
package sqltx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// Driver runs statements in a transaction of a database.
type Driver interface {
	// Exec runs a statement.
	Exec(ctx context.Context, s *Statement, args []any) (affected int64, err error)
	// Query begins a query.
	Query(ctx context.Context, s *Statement, args []any) (Rows, error)
}

// Rows is the result of a query.
type Rows interface {
	// Next goes to the next row, and reports whether there is one.
	Next() bool
	// Scan copies the columns of the row.
	Scan(dest ...any) error
	// Err returns the error that ended the rows.
	Err() error
	// Close ends the query. It may be called again.
	Close() error
}

// Tx implements [projection.SQL] on a driver, for one call of a handler.
type Tx struct {
	driver  Driver
	dialect Dialect
	arrays  bool

	mu      sync.Mutex
	ended   bool
	running bool
	failed  error // the first error since the last savepoint
}

// Convert returns a projection of a database. open returns the transaction of a handler.
func Convert[T any](p projection.SQLProjection, open func(tx T) *Tx) projection.Projection[T] {
	return Retype(p, func(tx T, do func(projection.SQL) error) error { return open(tx).run(do) })
}

// Retype returns a projection with transactions of another type. call calls a handler with the transaction that it understands.
func Retype[From, To any](p projection.Projection[From], call func(tx To, do func(From) error) error) projection.Projection[To] {
	c := projection.Projection[To]{
		Name: p.Name, Version: p.Version, Source: p.Source, Filter: p.Filter, Partitions: p.Partitions, OnError: p.OnError, Retries: p.Retries,
		Batch: p.Batch, Lease: p.Lease, Once: p.Once, OnProgress: p.OnProgress, OnCaughtUp: p.OnCaughtUp, Logger: p.Logger,
	}
	if p.Prepare != nil {
		c.Prepare = func(ctx context.Context, tx To) error {
			return call(tx, func(tx From) error { return p.Prepare(ctx, tx) })
		}
	}
	if p.Handle != nil {
		c.Handle = func(ctx context.Context, tx To, records []es.Record) error {
			return call(tx, func(tx From) error { return p.Handle(ctx, tx, records) })
		}
	}
	return c
}

// New returns a transaction. arrays reports whether the driver takes slices as arrays.
func New(d Driver, dialect Dialect, arrays bool) *Tx {
	return &Tx{driver: d, dialect: dialect, arrays: arrays}
}

// Arrays reports whether slices can be arguments, as arrays.
func (t *Tx) Arrays() bool { return t.arrays }

// run calls a handler. It returns an error if a statement has failed, although the handler returned none.
func (t *Tx) run(handle func(tx projection.SQL) error) error {
	defer t.close() // also if it panics
	err := handle(t)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
		return err
	case t.failed != nil:
		return fmt.Errorf("a statement of the handler failed, but the handler returned no error: %w", t.failed)
	case t.running:
		return fmt.Errorf("%w: a query is still open after the handler: end the loop over its rows before Handle returns", es.ErrInvalid)
	}
	return nil
}

func (t *Tx) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}

var (
	errEnded = fmt.Errorf("%w: the handler that had this transaction has returned: use the transaction only in the call that gets it", es.ErrInvalid)
	errBusy  = fmt.Errorf("%w: another query of the transaction is open: end the loop over its rows first", es.ErrInvalid)
)

// begin checks a statement and notes that it runs.
func (t *Tx) begin(ctx context.Context, query string, args []any, single bool) (*Statement, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil, errEnded
	}
	s, err := Parse(t.dialect, query, len(args), single)
	switch {
	case err != nil:
	case t.running:
		err = errBusy
	case t.failed != nil && !s.restores:
		return nil, fmt.Errorf("a statement of the transaction has failed: return its error: %w", t.failed)
	default:
		err = ctx.Err()
	}
	if err != nil {
		t.fail(err)
		return nil, err
	}
	t.running = true
	return s, nil
}

// fail notes an error.
func (t *Tx) fail(err error) {
	if t.failed == nil {
		t.failed = err
	}
}

// end notes the end of a statement.
func (t *Tx) end(s *Statement, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = false
	if err != nil {
		t.fail(err)
	} else if s.restores {
		t.failed = nil
	}
}

// Exec implements [projection.SQL].
func (t *Tx) Exec(ctx context.Context, query string, args ...any) (affected int64, err error) {
	s, err := t.begin(ctx, query, args, false)
	if err != nil {
		return 0, err
	}
	defer func() { t.end(s, err) }()
	affected, err = t.driver.Exec(ctx, s, args)
	if err != nil || !s.Changes {
		return 0, err
	}
	return affected, nil
}

// Query implements [projection.Querier].
func (t *Tx) Query(ctx context.Context, query string, args ...any) iter.Seq2[projection.Row, error] {
	return All(t.each, ctx, query, args)
}

// QueryRow implements [projection.Querier].
func (t *Tx) QueryRow(ctx context.Context, query string, args ...any) projection.Row {
	return First(t.each, ctx, query, args)
}

func (t *Tx) each(ctx context.Context, query string, args []any, do func(projection.Row) bool) (err error) {
	s, err := t.begin(ctx, query, args, true)
	if err != nil {
		return err
	}
	err = errLeft // if do panics
	defer func() { t.end(s, err) }()
	rows, failed := t.driver.Query(ctx, s, args)
	if err = failed; err != nil {
		return err
	}
	err = errLeft
	err = Each(rows, do)
	return err
}

var errLeft = errors.New("the loop over the rows of a query panicked")

// Each calls do with each row until it returns false, and closes the rows. A row that cannot be scanned ends it.
func Each(rows Rows, do func(projection.Row) bool) error {
	defer rows.Close()
	for rows.Next() {
		r := &row{rows: rows}
		more := do(r)
		r.rows = nil
		if r.err != nil {
			return r.err
		}
		if !more {
			break
		}
	}
	return errors.Join(rows.Close(), rows.Err())
}

// row is the current row of a result.
type row struct {
	rows Rows // nil after the loop has gone on
	err  error
}

var errGone = fmt.Errorf("%w: the loop has gone on to another row: scan a row in its turn", es.ErrInvalid)

// Scan implements [projection.Row].
func (r *row) Scan(dest ...any) error {
	if r.rows == nil {
		return errGone
	}
	err := r.rows.Scan(dest...)
	if r.err == nil {
		r.err = err
	}
	return err
}

// Query calls do with the rows of a query until it returns false.
type Query func(ctx context.Context, query string, args []any, do func(projection.Row) bool) error

// All returns the rows of a query.
func All(q Query, ctx context.Context, query string, args []any) iter.Seq2[projection.Row, error] { //nolint:revive // the context is that of the query
	return func(yield func(projection.Row, error) bool) {
		more := true
		err := q(ctx, query, args, func(r projection.Row) bool {
			more = yield(r, nil)
			return more
		})
		if err != nil && more {
			yield(nil, err)
		}
	}
}

// First returns the first row of a query, which runs when the row is scanned.
func First(q Query, ctx context.Context, query string, args []any) projection.Row { //nolint:revive // the context is that of the query
	return scanner(func(dest []any) error {
		found := false
		var scanned error
		err := q(ctx, query, args, func(r projection.Row) bool {
			found = true
			scanned = r.Scan(dest...)
			return false
		})
		switch {
		case scanned != nil:
			return scanned
		case err == nil && !found:
			return sql.ErrNoRows
		}
		return err
	})
}

type scanner func(dest []any) error

// Scan implements [projection.Row].
func (s scanner) Scan(dest ...any) error { return s(dest) }
