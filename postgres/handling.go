package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A handling is a transaction while a handler has it. It knows what the server did to the transaction, even if the handler hides the error,
// and even if the handler waits for something else while the server ends the session.
type handling struct {
	conn  *pgx.Conn
	lease time.Duration // the longest time without a statement
	end   func(cause error)
	late  func() // called once if a shared connection is idle for longer than the lease; nil for nothing

	mu      sync.Mutex
	running int       // statements
	shared  bool      // the handler may use the connection without this type
	last    time.Time // when the last statement ended
	abort   error     // the error that aborted the transaction, until a savepoint undoes it
	ended   error     // why the transaction was ended from outside
	timer   *time.Timer
}

const watchEvery = time.Second // of the connection, while the handler runs no statement

// handle starts watching a transaction. end is called once if the server ends it, or if it is idle for longer than the lease.
func handle(conn *pgx.Conn, lease time.Duration, end func(cause error)) *handling {
	h := &handling{conn: conn, lease: lease, end: end, last: time.Now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(min(watchEvery, lease), h.watch)
	return h
}

// watch looks whether the session has ended.
func (h *handling) watch() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer == nil || h.ended != nil {
		return
	}
	if h.running == 0 && !h.shared {
		err := h.conn.PgConn().CheckConn() //nolint:staticcheck // Ping would wait for the server; this takes a millisecond
		if idle := time.Since(h.last); err == nil && idle > h.lease+watchEvery {
			// The server should have ended it; a pooler may hide that.
			err = fmt.Errorf("no statement for %v", idle.Round(time.Second))
			ctx, cancel := context.WithTimeout(context.Background(), watchEvery)
			_ = h.conn.Close(ctx) // it is given up
			cancel()
		}
		if err != nil {
			h.ended = fmt.Errorf("the transaction ended while the handler had it: %w", err)
			h.end(h.ended)
			return
		}
	}
	if h.shared && h.late != nil && time.Since(h.last) > h.lease+watchEvery {
		h.late()
		h.late = nil
	}
	h.timer.Reset(min(watchEvery, h.lease))
}

// whenLate sets what is called if the connection may be idle for longer than the lease, but cannot be looked at.
func (h *handling) whenLate(late func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.late = late
}

// stop ends the watch.
func (h *handling) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
}

// verdict ends the watch, and returns the error of a handler, or else what the server did to its transaction.
func (h *handling) verdict(err error) error {
	h.stop()
	cause := h.ended
	if cause == nil && classify(h.abort).passing() {
		cause = h.abort
	}
	if cause == nil {
		return err
	}
	broken := &brokenError{fmt.Errorf("postgres: %w", explain(cause))}
	if err == nil || errors.Is(err, cause) {
		return broken
	}
	return fmt.Errorf("%w; the handler returned: %v", broken, err) //nolint:errorlint // its error is not to be acted on
}

// begin notes that a statement starts. It returns an error if the transaction has ended.
func (h *handling) begin() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		return h.ended
	}
	h.running++
	return nil
}

// done notes that a statement has ended, and returns its error.
func (h *handling) done(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running--
	h.last = time.Now()
	switch status := h.conn.PgConn().TxStatus(); {
	case h.conn.IsClosed(), status == aborted:
		if h.abort == nil {
			h.abort = err
		}
	case h.running == 0:
		h.abort = nil
	}
	return err
}

// A handlerTx is the transaction that a handler gets. Only those that the handler itself has begun within it can be ended.
type handlerTx struct {
	pgx.Tx
	handling *handling
	nested   bool
}

var errNotYours = errors.New("postgres: only the store ends this transaction: return nil to commit it, or an error to roll it back")

// Commit implements pgx.Tx.
func (t handlerTx) Commit(ctx context.Context) error { return t.finish(ctx, t.Tx.Commit) }

// Rollback implements pgx.Tx.
func (t handlerTx) Rollback(ctx context.Context) error { return t.finish(ctx, t.Tx.Rollback) }

func (t handlerTx) finish(ctx context.Context, how func(context.Context) error) error {
	if !t.nested {
		return errNotYours
	}
	if err := t.handling.begin(); err != nil {
		return err
	}
	return t.handling.done(how(ctx))
}

// Begin implements pgx.Tx.
func (t handlerTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := t.handling.begin(); err != nil {
		return nil, err
	}
	within, err := t.Tx.Begin(ctx)
	if t.handling.done(err) != nil {
		return nil, err
	}
	return handlerTx{within, t.handling, true}, nil
}

// Exec implements pgx.Tx.
func (t handlerTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := t.handling.begin(); err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := t.Tx.Exec(ctx, sql, args...)
	return tag, t.handling.done(err)
}

// CopyFrom implements pgx.Tx.
func (t handlerTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	if err := t.handling.begin(); err != nil {
		return 0, err
	}
	n, err := t.Tx.CopyFrom(ctx, table, columns, source)
	return n, t.handling.done(err)
}

// Prepare implements pgx.Tx.
func (t handlerTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := t.handling.begin(); err != nil {
		return nil, err
	}
	statement, err := t.Tx.Prepare(ctx, name, sql)
	return statement, t.handling.done(err)
}

// Query implements pgx.Tx.
func (t handlerTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.handling.begin(); err != nil {
		return nil, err
	}
	rows, err := t.Tx.Query(ctx, sql, args...)
	if err != nil {
		return rows, t.handling.done(err)
	}
	return &handlerRows{Rows: rows, handling: t.handling}, nil
}

// QueryRow implements pgx.Tx.
func (t handlerTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := t.handling.begin(); err != nil {
		return handlerRow{nil, nil, err}
	}
	return handlerRow{t.Tx.QueryRow(ctx, sql, args...), t.handling, nil}
}

// SendBatch implements pgx.Tx.
func (t handlerTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := t.handling.begin(); err != nil {
		return t.Tx.SendBatch(ctx, b) // returns the error of the closed connection
	}
	return &handlerBatch{BatchResults: t.Tx.SendBatch(ctx, b), handling: t.handling}
}

// LargeObjects implements pgx.Tx.
func (t handlerTx) LargeObjects() pgx.LargeObjects {
	t.share()
	return t.Tx.LargeObjects()
}

// Conn implements pgx.Tx.
func (t handlerTx) Conn() *pgx.Conn {
	t.share()
	return t.Tx.Conn()
}

// share notes that the handler may run statements that this type does not see, so the connection can no longer be looked at.
func (t handlerTx) share() {
	t.handling.mu.Lock()
	defer t.handling.mu.Unlock()
	t.handling.shared = true
}

// handlerRows are the rows of a handler's query, which runs until they are closed.
type handlerRows struct {
	pgx.Rows
	handling *handling
	closed   bool
}

// Next implements pgx.Rows.
func (r *handlerRows) Next() bool {
	more := r.Rows.Next()
	if !more {
		r.note()
	}
	return more
}

// Close implements pgx.Rows.
func (r *handlerRows) Close() {
	r.Rows.Close()
	r.note()
}

func (r *handlerRows) note() {
	if !r.closed {
		r.closed = true
		_ = r.handling.done(r.Err()) // for the handler to read
	}
}

// A handlerRow is the row of a handler's query, which runs until it is scanned.
type handlerRow struct {
	row      pgx.Row
	handling *handling
	err      error
}

// Scan implements pgx.Row.
func (r handlerRow) Scan(into ...any) error {
	if r.err != nil {
		return r.err
	}
	return r.handling.done(r.row.Scan(into...))
}

// A handlerBatch is a handler's batch, which runs until it is closed.
type handlerBatch struct {
	pgx.BatchResults
	handling *handling
	closed   bool
}

// Close implements pgx.BatchResults.
func (b *handlerBatch) Close() error {
	err := b.BatchResults.Close()
	if !b.closed {
		b.closed = true
		return b.handling.done(err)
	}
	return err
}
