package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"

	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/sqltx"
	"github.com/thalo-go/es/projection"
)

// SQL returns the store without its driver, for projections that run on SQLite and Postgres. It is the same store: closing one closes
// the other.
func (s *Store) SQL() projection.Database { return database{s} }

// FromSQL returns a projection that runs on SQLite and Postgres as one of this package, such as for [Config.Inline].
func FromSQL(p projection.SQLProjection) Projection {
	return sqltx.Convert(p, func(tx *sql.Tx) *sqltx.Tx { return sqltx.New(sqlDriver{tx}, sqltx.SQLite, false) })
}

// database implements [projection.Database].
type database struct{ *Store }

// Project implements [projection.Projections].
func (d database) Project(ctx context.Context, p projection.SQLProjection) error {
	return d.Store.Project(ctx, FromSQL(p))
}

// Query implements [projection.Querier].
func (d database) Query(ctx context.Context, query string, args ...any) iter.Seq2[projection.Row, error] {
	return sqltx.All(d.each, ctx, query, args)
}

// QueryRow implements [projection.Querier].
func (d database) QueryRow(ctx context.Context, query string, args ...any) projection.Row {
	return sqltx.First(d.each, ctx, query, args)
}

func (d database) each(ctx context.Context, query string, args []any, do func(projection.Row) bool) error {
	rows, err := d.query(ctx, query, args)
	if err == nil {
		err = sqltx.Each(rows, do)
	}
	if err != nil {
		return cause.Of(ctx, fmt.Errorf("sqlite: query: %w", d.explain(err)))
	}
	return nil
}

// query runs a query. A database in memory has one connection, which other calls need while a loop reads the rows. So they are copied.
func (d database) query(ctx context.Context, query string, args []any) (sqltx.Rows, error) {
	s, err := sqltx.ParseQuery(sqltx.SQLite, query, len(args))
	if err != nil {
		return nil, err
	}
	if args, err = bindable(args); err != nil {
		return nil, err
	}
	conn, err := d.reader(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := conn.QueryContext(ctx, s.Text, args...)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if d.read != d.write || d.readOnly {
		return &queryRows{Rows: rows, conn: conn}, nil
	}
	defer conn.Close()
	return d.copyRows(ctx, rows)
}

// queryRows is the result of a query that has a connection.
type queryRows struct {
	*sql.Rows
	conn *sql.Conn
}

// Scan implements [sqltx.Rows].
func (r *queryRows) Scan(dest ...any) error { return scanRow(r.Rows, dest) }

// Close implements [sqltx.Rows].
func (r *queryRows) Close() error {
	err := r.Rows.Close()
	if closing := r.conn.Close(); !errors.Is(closing, sql.ErrConnDone) {
		err = errors.Join(err, closing)
	}
	return err
}

// sqlDriver implements [sqltx.Driver].
type sqlDriver struct{ tx *sql.Tx }

// Exec implements [sqltx.Driver].
func (d sqlDriver) Exec(ctx context.Context, s *sqltx.Statement, args []any) (int64, error) {
	args, err := bindable(args)
	if err != nil {
		return 0, err
	}
	result, err := d.tx.ExecContext(ctx, s.Text, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Query implements [sqltx.Driver].
func (d sqlDriver) Query(ctx context.Context, s *sqltx.Statement, args []any) (sqltx.Rows, error) {
	args, err := bindable(args)
	if err != nil {
		return nil, err
	}
	rows, err := d.tx.QueryContext(ctx, s.Text, args...)
	if err != nil {
		return nil, err
	}
	return convertedRows{rows}, rows.Err()
}

// convertedRows is the result of a query in a transaction.
type convertedRows struct{ *sql.Rows }

// Scan implements [sqltx.Rows].
func (r convertedRows) Scan(dest ...any) error { return scanRow(r.Rows, dest) }
