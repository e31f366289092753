package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
)

const (
	// A lease that was renewed more than its duration from now was renewed before the clock was set back. Its holder renews it soon, if there is one.
	upsertLease = `insert into es_leases (name, holder, until, note, renewed) values (?1, ?2, ?3, ?4, ?5)
		on conflict (name) do update set holder = excluded.holder, until = excluded.until, note = excluded.note, renewed = excluded.renewed
		where es_leases.holder = excluded.holder or es_leases.until <= ?5 or 2 * es_leases.renewed - es_leases.until > ?5`
	selectLease  = "select holder, until, note from es_leases where name = ?"
	deleteLease  = "delete from es_leases where name = ? and holder = ?"
	selectLeases = "select name, holder, until, note from es_leases order by name"

	selectCheckpoint = "select position from es_checkpoints where name = ?"
	insertCheckpoint = `insert into es_checkpoints (name, position) values (?, ?2)
		on conflict (name) do update set position = excluded.position where es_checkpoints.position = 0`
	updateCheckpoint = "update es_checkpoints set position = ?2 where name = ?1 and position = ?3"
)

// AcquireLease implements [es.Leases]. It uses the clock of the machine, which all processes that use the file share.
func (s *Store) AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
	if err := es.CheckLease(name, holder, d, note); err != nil {
		return es.Lease{}, err
	}
	l := es.Lease{Name: name}
	var until int64
	err := s.transact(ctx, func(conn *sql.Conn) error {
		now := time.Now()
		if _, err := conn.ExecContext(background, upsertLease, name, holder, now.Add(d).UnixMicro(), note, now.UnixMicro()); err != nil {
			return err
		}
		return conn.QueryRowContext(background, selectLease, name).Scan(&l.Holder, &until, &l.Note)
	})
	if err != nil {
		return es.Lease{}, s.within(ctx, "lease "+name, err)
	}
	l.Until = time.UnixMicro(until).UTC()
	return l, nil
}

// ReleaseLease implements [es.Leases].
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	return s.within(ctx, "lease "+name, s.transact(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(background, deleteLease, name, holder)
		return err
	}))
}

// ListLeases implements [es.Leases].
func (s *Store) ListLeases(ctx context.Context) ([]es.Lease, error) {
	leases, err := s.listLeases(ctx)
	return leases, s.within(ctx, "leases", err)
}

func (s *Store) listLeases(ctx context.Context) (leases []es.Lease, err error) {
	conn, err := s.reader(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	s.log.reading.RLock()
	defer s.log.reading.RUnlock()
	rows, err := conn.QueryContext(ctx, selectLeases)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var l es.Lease
		var until int64
		if err := rows.Scan(&l.Name, &l.Holder, &until, &l.Note); err != nil {
			return nil, err
		}
		l.Until = time.UnixMicro(until).UTC()
		leases = append(leases, l)
	}
	return leases, rows.Err()
}

// LoadCheckpoint implements [es.Checkpoints].
func (s *Store) LoadCheckpoint(ctx context.Context, name string) (position es.Position, err error) {
	err = s.row(ctx, selectCheckpoint, []any{name}, &position)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return position, s.within(ctx, "checkpoint "+name, err)
}

// MoveCheckpoint implements [es.Checkpoints].
func (s *Store) MoveCheckpoint(ctx context.Context, name string, from, to es.Position) (moved bool, err error) {
	if err := es.CheckCheckpoint(name, from, to); err != nil {
		return false, err
	}
	query, args := updateCheckpoint, []any{name, to, from}
	if from == 0 {
		query, args = insertCheckpoint, args[:2]
	}
	err = s.transact(ctx, func(conn *sql.Conn) error {
		result, err := conn.ExecContext(background, query, args...)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		moved = n > 0
		return err
	})
	return moved && err == nil, s.within(ctx, "checkpoint "+name, err)
}

// transact runs f in a transaction of its own that may write. The context can end only the wait for the lock, not the transaction.
func (s *Store) transact(ctx context.Context, f func(conn *sql.Conn) error) error {
	conn, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err = f(conn); err == nil {
		err = s.commit(func() error {
			_, err := conn.ExecContext(background, "commit")
			return err
		})
	}
	if err != nil {
		_, _ = conn.ExecContext(background, "rollback") // the first error is the cause
	}
	return err
}

// within adds the operation to an error. It returns the error of the context unchanged.
func (s *Store) within(ctx context.Context, what string, err error) error {
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return cause.Of(ctx, err)
	}
	return cause.Of(ctx, fmt.Errorf("sqlite: %s: %w", what, s.explain(err)))
}
