package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/internal/qualify"
	"github.com/thalo-go/es/projection"
)

// Projection is a projection whose read model is in a PostgreSQL database; see [projection.Projection]. Its transactions have isolation level read committed.
type Projection = projection.Projection[pgx.Tx]

// A backend is the store as the engine of projections knows it.
type backend struct{ store *Store }

// Dialect implements engine.Database.
func (b backend) Dialect() engine.Dialect {
	return engine.Dialect{
		Prefix: b.store.schema + ".", Now: "(extract(epoch from clock_timestamp()) * 1000000)::bigint",
		Holding: holding, Lock: "for update", Skip: "for update skip locked", Parameter: "$", Arrays: true,
		Finish: qualify.SQL,
	}
}

// holding finds the transaction that has updated the row of a shard, as each does before it calls Handle. What lasts less than a second is normal.
const holding = `select l.pid, coalesce((left(a.state, 19) = 'idle in transaction') and a.still, false), coalesce((a.wait_event_type = 'Lock') and a.still, false),
		coalesce(a.query, ''), coalesce(a.since, 0), coalesce(b.pid, 0), coalesce(b.query, '')
	from {es}shards s join pg_catalog.pg_locks l on l.locktype = 'transactionid' and l.transactionid = s.xmax and l.granted
	left join lateral (select pid, state, wait_event_type, query, ((clock_timestamp() - state_change) > interval '1 second') as still,
			(extract(epoch from state_change) * 1000000)::bigint as since from pg_catalog.pg_stat_activity) a on a.pid = l.pid
	left join pg_catalog.pg_stat_activity b on b.pid = (pg_catalog.pg_blocking_pids(l.pid))[1]
	where s.name = $1 and s.version = $2 and s.shard = $3`

// Transact implements engine.Database.
func (b backend) Transact(ctx context.Context, o engine.Options, work func(ctx context.Context, tx pgx.Tx) error) error {
	return b.prepared(func() error { return b.transact(ctx, o, work) })
}

// prepared does something once more if a pooler has lost a prepared statement: from then on the store does without.
func (b backend) prepared(do func() error) error {
	before := b.store.unprepared.Load()
	err := do()
	if !before && b.store.giveUpPrepared(err) {
		return do()
	}
	return err
}

// transact does it once. Beginning, and what is set for the transaction, is one round trip.
func (b backend) transact(ctx context.Context, o engine.Options, work func(ctx context.Context, tx pgx.Tx) error) error {
	s := b.store
	switch {
	case s.closed():
		return errClosed
	case s.config.ReadOnly:
		return fmt.Errorf("postgres: %w", errReadOnly)
	}
	lent, err := s.borrowFor(ctx, o.Handler)
	if err != nil {
		return b.broken(err)
	}
	conn, release := lent.Conn(), sync.OnceFunc(lent.Release)
	defer release()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: beginning(o)})
	if err != nil {
		return b.broken(err)
	}
	defer func() {
		if conn.IsClosed() || conn.PgConn().TxStatus() == idle {
			return
		}
		brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookLimit)
		defer cancel()
		_ = tx.Rollback(brief) // the first error says what is wrong
	}()
	if o.Handler != nil {
		err = b.handled(ctx, conn, tx, o, release, work)
	} else {
		err = work(ctx, tx)
	}
	if err == nil {
		if err = tx.Commit(ctx); err != nil {
			err = b.of(fmt.Errorf("commit: %w", err))
		}
	}
	if err != nil && conn.IsClosed() {
		return b.broken(err)
	}
	return err
}

// handled lets a handler work in a transaction that is watched. A session that the server has ended is given back at once, because the
// handler may be waiting for a connection. It may also be waiting for an append that waits for the handler.
func (b backend) handled(ctx context.Context, conn *pgx.Conn, tx pgx.Tx, o engine.Options, release func(), work func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hold := o.Handler.Hold(o.Idle)
	h := handle(conn, o.Idle, func(cause error) {
		cancel(cause)
		release()
		overdue := hold.Overdue()
		if o.Handler.Inline {
			b.store.queue.Block(overdue)
		}
	})
	if o.Handler.Inline {
		h.whenLate(func() { b.store.queue.Block(hold.Overdue()) })
		defer b.store.queue.Unblock()
	}
	defer h.stop() // also if the handler panics
	err := work(ctx, handlerTx{tx, h, false})
	if verdict := h.verdict(err); !engine.IsHeld(err) {
		err = verdict
	}
	if err == nil && h.abort != nil {
		err = fmt.Errorf("postgres: a statement of the handler failed, but the handler returned no error: %w", h.abort)
	}
	return err
}

// beginning is the statement that begins a transaction. A process that stands still, because it is paused, say, must not keep others waiting
// for its locks for longer than its lease.
func beginning(o engine.Options) string {
	text := "begin isolation level read committed read write"
	if o.Idle > 0 {
		text += "; set local idle_in_transaction_session_timeout = " + strconv.FormatInt(max(o.Idle.Milliseconds(), 1), 10)
	}
	if o.Quiet {
		text += "; set local synchronous_commit = off"
	}
	return text
}

// broken sorts out an error of a connection.
func (b backend) broken(err error) error {
	switch {
	case b.store.closed():
		return b.store.orClosed(err)
	case classify(err).has(permanent), errors.Is(err, context.Canceled):
		return fmt.Errorf("postgres: %w", explain(err))
	}
	return &brokenError{fmt.Errorf("postgres: %w", explain(err))}
}

// mode goes before the arguments of a statement: behind a pooler that does not know prepared statements it does without.
func (b backend) mode(args []any) []any {
	if b.store.unprepared.Load() {
		return append([]any{pgx.QueryExecModeExec}, args...)
	}
	return args
}

// Exec implements engine.Database.
func (b backend) Exec(ctx context.Context, tx pgx.Tx, sql string, args ...any) (int64, error) {
	tag, err := tx.Exec(ctx, sql, b.mode(args)...)
	return tag.RowsAffected(), b.of(err)
}

func (b backend) of(err error) error {
	if err == nil {
		return nil
	}
	b.store.giveUpPrepared(err)
	err = fmt.Errorf("postgres: %w", explain(err))
	if classify(err).has(imposed) {
		return &brokenError{err}
	}
	return err
}

// Query implements engine.Database.
func (b backend) Query(ctx context.Context, tx pgx.Tx, row func(scan func(into ...any) error) error, sql string, args ...any) error {
	rows, err := tx.Query(ctx, sql, b.mode(args)...)
	if err != nil {
		return b.of(err)
	}
	return b.each(rows, row)
}

func (b backend) each(rows pgx.Rows, row func(scan func(into ...any) error) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := row(func(into ...any) error { return scan(rows, into) }); err != nil {
			return err
		}
	}
	return b.of(rows.Err())
}

// scan is rows.Scan, also for data in a text format that pgx does not read. Without prepared statements values come as text, and that of
// data depends on the session's bytea_output.
func scan(rows pgx.Rows, into []any) error {
	for i, field := range rows.FieldDescriptions() {
		p, is := into[i].(*[]byte)
		if !is || field.Format != pgx.TextFormatCode || field.DataTypeOID != pgtype.ByteaOID {
			continue
		}
		raw := rows.RawValues()[i]
		if *p = nil; raw != nil {
			var err error
			if *p, err = byteaText(raw); err != nil {
				return err
			}
		}
		into[i] = nil // pgx skips the column
	}
	return rows.Scan(into...)
}

// View implements engine.Database. What a pooler has lost fails before there is any row.
func (b backend) View(ctx context.Context, row func(scan func(into ...any) error) error, sql string, args ...any) error {
	return b.prepared(func() error { return b.view(ctx, row, sql, args...) })
}

func (b backend) view(ctx context.Context, row func(scan func(into ...any) error) error, sql string, args ...any) error {
	if b.store.closed() {
		return errClosed
	}
	conn, err := b.store.borrow(ctx)
	if err != nil {
		return b.broken(err)
	}
	defer conn.Release()
	rows, err := conn.Query(ctx, sql, b.mode(args)...)
	if err == nil {
		err = b.each(rows, row)
	} else {
		err = b.of(err)
	}
	if err != nil && conn.Conn().IsClosed() {
		return b.broken(err)
	}
	return err
}

// Passing implements engine.Database.
func (b backend) Passing(err error) bool { return classify(err).passing() }

// Missing implements engine.Database.
func (b backend) Missing(err error) bool {
	switch classify(err).code {
	case undefinedTable, undefinedColumn, invalidSchemaName:
		return true
	}
	return false
}

// Hold implements engine.Database. A transaction does not block other writers, so its length has no limit.
func (b backend) Hold() time.Duration { return 0 }

// Log implements engine.Database.
func (b backend) Log() es.Log { return b.store }

// Recall implements engine.Database.
func (b backend) Recall(ctx context.Context, positions []es.Position) iter.Seq2[es.Record, error] {
	return b.store.recall(ctx, positions)
}
