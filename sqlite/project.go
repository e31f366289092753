package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/projection"
)

// Projection is a projection whose read model is in a SQLite database; see [projection.Projection].
//
// It shares the only connection of the store that writes: while Handle runs, appends to the same file wait. The store makes
// batches smaller until a transaction takes some 50 ms at most, and lets others have the lock in between; it cannot do more about a Handle
// that is slow with one record. Handle must not call the store, because the call would wait for the transaction that Handle is in: it is
// refused, or, if it has another context than that of Handle, the run ends with an error after [Config.BusyTimeout]. After that time
// calls of others fail too while they wait for Handle, with an error that names the projection and wraps [es.ErrUnavailable].
//
// The driver starts a goroutine for each statement whose context can end, which costs about 3 µs. A Handle of many small statements avoids
// that with stmt.Exec, which has no context: when the run ends, the transaction is rolled back all the same.
type Projection = projection.Projection[*sql.Tx]

// A backend is the store as the engine of projections knows it.
type backend struct {
	store *Store

	mu   sync.Mutex
	held time.Duration // how long transactions have held the lock since the last pause
}

const (
	hold = 50 * time.Millisecond // a transaction, about

	// Other processes poll for the lock once a millisecond. Without a pause they would never acquire it.
	restAfter = 2 * hold
	rest      = 2 * time.Millisecond
)

// Dialect implements engine.Database. All processes that share the file have the machine's clock in common.
func (b *backend) Dialect() engine.Dialect {
	return engine.Dialect{Prefix: "es_", Now: "cast(unixepoch('subsec') * 1000000 as integer)", Parameter: "?"}
}

// Transact implements engine.Database.
func (b *backend) Transact(ctx context.Context, o engine.Options, work func(ctx context.Context, tx *sql.Tx) error) error {
	if o.Handler != nil {
		b.store.holder.known.Store(true)
	}
	b.store.trimLarge(ctx) // only the size of the file shows how much handlers write
	conn, tx, err := b.store.beginTx(ctx)
	if err != nil {
		return fmt.Errorf("sqlite: %w", b.store.explain(err))
	}
	began := time.Now()
	defer b.rest(began)
	defer conn.Close()
	defer tx.Rollback()
	if o.Handler != nil {
		returned := b.store.held(o.Handler)
		defer returned()
	}
	ctx = context.WithValue(ctx, inside{}, b.store)
	if o.Handler == nil {
		err = work(ctx, tx)
	} else {
		err = b.store.whole(conn, tx, func() error { return work(ctx, tx) })
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		if !errors.Is(err, engine.ErrEndsTransaction) && undone(conn, tx) {
			err = fmt.Errorf("%w: %w", errUndone, err)
		}
		return err
	}
	wasUndone := undone(conn, tx)
	if err := b.store.commit(tx.Commit); wasUndone {
		return errUndone
	} else if err != nil {
		return fmt.Errorf("sqlite: commit: %w", b.store.explain(err))
	}
	return nil
}

// errUndone reports a transaction that SQLite has rolled back. It does that after errors such as a full disk, which a handler may hide.
var errUndone = fmt.Errorf("sqlite: %w: SQLite rolled the transaction back: see the system's log for the disk and its memory", es.ErrUnavailable)

// undone reports whether SQLite has rolled a transaction back that the handler has not ended.
func undone(conn *sql.Conn, tx *sql.Tx) bool {
	none := false // no transaction is open
	_ = conn.Raw(func(driver any) error {
		none = driver.(*sqlite3.SQLiteConn).AutoCommit()
		return nil
	})
	return none && !ended(tx)
}

// rest lets other processes have the lock now and then.
func (b *backend) rest(began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held += time.Since(began); b.held >= restAfter && b.store.read != b.store.write {
		b.held = 0
		time.Sleep(rest)
	}
}

// Exec implements engine.Database.
func (b *backend) Exec(_ context.Context, tx *sql.Tx, query string, args ...any) (int64, error) {
	result, err := tx.ExecContext(background, query, args...)
	if err != nil {
		return 0, fmt.Errorf("sqlite: %w", b.store.explain(err))
	}
	return result.RowsAffected()
}

// Query implements engine.Database.
func (b *backend) Query(_ context.Context, tx *sql.Tx, row func(scan func(into ...any) error) error, query string, args ...any) error {
	rows, err := tx.QueryContext(background, query, args...)
	if err != nil {
		return fmt.Errorf("sqlite: %w", b.store.explain(err))
	}
	return b.store.each(rows, row)
}

func (s *Store) each(rows *sql.Rows, row func(scan func(into ...any) error) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("sqlite: %w", s.explain(err))
	}
	return nil
}

// View implements engine.Database.
func (b *backend) View(ctx context.Context, row func(scan func(into ...any) error) error, query string, args ...any) error {
	conn, err := b.store.reader(ctx)
	if err != nil {
		return fmt.Errorf("sqlite: %w", b.store.explain(err))
	}
	defer conn.Close()
	b.store.log.reading.RLock()
	defer b.store.log.reading.RUnlock()
	rows, err := conn.QueryContext(background, query, args...)
	if err != nil {
		return fmt.Errorf("sqlite: %w", b.store.explain(err))
	}
	return b.store.each(rows, row)
}

// Passing implements engine.Database.
func (b *backend) Passing(err error) bool { return isPassing(err) || errors.Is(err, errUndone) }

// Missing implements engine.Database.
func (b *backend) Missing(err error) bool { return isMissing(err) }

// Hold implements engine.Database.
func (b *backend) Hold() time.Duration { return hold }

// Log implements engine.Database.
func (b *backend) Log() es.Log { return b.store }

// Recall implements engine.Database.
func (b *backend) Recall(ctx context.Context, positions []es.Position) iter.Seq2[es.Record, error] {
	return b.store.recall(ctx, positions)
}

// beginTx begins a transaction and returns it as a [sql.Tx].
func (s *Store) beginTx(ctx context.Context) (conn *sql.Conn, tx *sql.Tx, err error) {
	err = s.beginWith(ctx, func(c *sql.Conn) (err error) {
		conn = c
		tx, err = c.BeginTx(background, nil) // immediate, by the connection's setting
		return err
	})
	return conn, tx, err
}

// inside is the context key for the store that runs a handler.
type inside struct{}

// outside returns an error if ctx belongs to a handler of this store: the call would deadlock with the handler's transaction.
func (s *Store) outside(ctx context.Context) error {
	if ctx.Value(inside{}) == s {
		return fmt.Errorf("%w: the handler of a projection has the only connection for it: use the transaction, or do it in a reaction", es.ErrInvalid)
	}
	return nil
}
