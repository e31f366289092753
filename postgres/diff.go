package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/internal/diff"
	"github.com/thalo-go/es/projection"
)

// Diff returns the rows in which two read models differ, ordered by their key. Both are read in one snapshot, in which both projections are at
// one position: Diff waits for that until ctx is done. OnCaughtUp of the new version can so refuse to switch. Columns of type json are
// compared as jsonb.
//
// The error comes last, at most once. It wraps [es.ErrInvalid] if a table, a column or a projection does not exist.
func (s *Store) Diff(ctx context.Context, before, after projection.Table) iter.Seq2[projection.Difference, error] {
	return func(yield func(projection.Difference, error) bool) {
		begin := func(ctx context.Context) (diff.Snapshot, error) { return s.snapshotOf(ctx) }
		for d, err := range diff.Tables(ctx, begin, before, after) {
			switch {
			case err == nil:
			case ctx.Err() != nil: // it says where the projections are
				err = fmt.Errorf("postgres: %w", err)
			default:
				err = within(ctx, "diff", err)
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

// invalidName is the code of the error for what is not the name of a table.
const invalidName = "42602"

type snapshot struct {
	store *Store
	loan  loan
	tx    pgx.Tx
}

func (s *Store) snapshotOf(ctx context.Context) (*snapshot, error) {
	l, err := s.borrow(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := l.Conn().BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		l.Release()
		return nil, err
	}
	return &snapshot{s, l, tx}, nil
}

// Close implements diff.Snapshot.
func (n *snapshot) Close() {
	brief, cancel := context.WithTimeout(context.Background(), lookLimit)
	defer cancel()
	_ = n.tx.Rollback(brief) // nothing was written
	n.loan.Release()
}

// Events implements diff.Snapshot.
func (n *snapshot) Events() string { return n.store.schema + ".events" }

// Distinct implements diff.Snapshot.
func (*snapshot) Distinct() string { return "is distinct from" }

// Columns implements diff.Snapshot.
func (n *snapshot) Columns(ctx context.Context, table string) (quoted string, columns []diff.Column, err error) {
	rows, err := n.tx.Query(ctx, n.store.text(`select s.nspname::text, c.relname::text, a.attname::text, a.atttypid = 'pg_catalog.json'::pg_catalog.regtype
		from pg_catalog.pg_class c join pg_catalog.pg_namespace s on s.oid = c.relnamespace join pg_catalog.pg_attribute a on a.attrelid = c.oid
		where c.oid = to_regclass($1) and a.attnum > 0 and not a.attisdropped order by a.attnum`), table)
	if err != nil {
		return "", nil, err
	}
	var schema, name string
	var c diff.Column
	isJSON := false
	_, err = pgx.ForEachRow(rows, []any{&schema, &name, &c.Name, &isJSON}, func() error {
		if c.Cast = ""; isJSON {
			c.Cast = "jsonb"
		}
		columns = append(columns, c)
		return nil
	})
	if refused, is := errors.AsType[*pgconn.PgError](err); is && refused.Code == invalidName {
		err = fmt.Errorf("%w: there is no table %.80q", es.ErrInvalid, table)
	}
	return pgx.Identifier{schema, name}.Sanitize(), columns, err
}

// Shards implements diff.Snapshot.
func (n *snapshot) Shards(ctx context.Context, name string, version int) (cursors []projection.Cursor, filter es.Filter, err error) {
	rows, err := n.tx.Query(ctx, n.store.text(`select case when s.past_end > 0 then s.past else s.cursor end, coalesce(p.filter, '')
		from {schema}.shards s join {schema}.projections p on p.name = s.name and p.version = s.version where s.name = $1 and s.version = $2`), name, version)
	if err != nil {
		return nil, filter, err
	}
	var cursor projection.Cursor
	text := ""
	_, err = pgx.ForEachRow(rows, []any{&cursor, &text}, func() error {
		cursors = append(cursors, cursor)
		return nil
	})
	if err == nil && text != "" {
		filter, err = canon.Parse(text)
	}
	return cursors, filter, err
}

// Rows implements diff.Snapshot. The names of tables have a schema, so only what is built in is looked up.
func (n *snapshot) Rows(ctx context.Context, query string, args []any, yield func(values []any) bool) error {
	if _, err := n.tx.Exec(ctx, "set local search_path = pg_catalog, pg_temp"); err != nil {
		return err
	}
	rows, err := n.tx.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		if !yield(values) {
			return nil
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	return nil
}
