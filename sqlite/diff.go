package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/internal/diff"
	"github.com/thalo-go/es/internal/qualify"
	"github.com/thalo-go/es/projection"
)

// Diff returns the rows in which two read models differ, ordered by their key. Both are read in one snapshot, in which both projections are at
// one position: Diff waits for that until ctx is done. OnCaughtUp of the new version can so refuse to switch.
//
// The error comes last, at most once. It wraps [es.ErrInvalid] if a table, a column or a projection does not exist.
func (s *Store) Diff(ctx context.Context, before, after projection.Table) iter.Seq2[projection.Difference, error] {
	return func(yield func(projection.Difference, error) bool) {
		begin := func(ctx context.Context) (diff.Snapshot, error) { return s.snapshotOf(ctx) }
		for d, err := range diff.Tables(ctx, begin, before, after) {
			if err != nil {
				err = fmt.Errorf("sqlite: %w", s.explain(err))
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

type snapshot struct{ conn *sql.Conn }

func (s *Store) snapshotOf(ctx context.Context) (snapshot, error) {
	conn, err := s.reader(ctx)
	if err != nil {
		return snapshot{}, err
	}
	if _, err := conn.ExecContext(ctx, "begin"); err != nil {
		return snapshot{}, errors.Join(err, conn.Close())
	}
	return snapshot{conn}, nil
}

// Close implements diff.Snapshot.
func (n snapshot) Close() {
	_, _ = n.conn.ExecContext(context.Background(), "rollback") // nothing was written
	_ = n.conn.Close()
}

// Events implements diff.Snapshot.
func (snapshot) Events() string { return "es_events" }

// Distinct implements diff.Snapshot.
func (snapshot) Distinct() string { return "is not" }

// Columns implements diff.Snapshot.
func (n snapshot) Columns(ctx context.Context, table string) (string, []diff.Column, error) {
	var columns []diff.Column
	err := n.Rows(ctx, "select name from pragma_table_info($1) order by cid", []any{table}, func(values []any) bool {
		columns = append(columns, diff.Column{Name: fmt.Sprint(values[0])})
		return true
	})
	return qualify.Name(table), columns, err
}

// Shards implements diff.Snapshot.
func (n snapshot) Shards(ctx context.Context, name string, version int) (cursors []projection.Cursor, filter es.Filter, err error) {
	text := ""
	err = n.Rows(ctx, `select case when s.past_end > 0 then s.past else s.cursor end, coalesce(p.filter, '')
		from es_shards s join es_projections p using (name, version) where name = $1 and version = $2`, []any{name, version}, func(values []any) bool {
		cursor, _ := values[0].(int64)
		cursors, text = append(cursors, projection.Cursor(cursor)), fmt.Sprint(values[1])
		return true
	})
	if err == nil && text != "" {
		filter, err = canon.Parse(text)
	}
	return cursors, filter, err
}

// Rows implements diff.Snapshot.
func (n snapshot) Rows(ctx context.Context, query string, args []any, yield func(values []any) bool) error {
	rows, err := n.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		values, dest := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		if !yield(values) {
			return nil
		}
	}
	return rows.Err()
}
