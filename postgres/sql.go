package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/sqltx"
	"github.com/thalo-go/es/projection"
)

// SQL returns the store without its driver, for projections that run on SQLite and Postgres. It is the same store: closing one closes
// the other. Unqualified names of tables are looked up along the search_path of the pool's connections.
func (s *Store) SQL() projection.Database { return database{s} }

// FromSQL returns a projection that runs on SQLite and Postgres as one of this package, such as for [Config.Inline].
// Where prepared statements do not work, its statements need default_query_exec_mode=exec in the URL, as those of other handlers do.
func FromSQL(p projection.SQLProjection) Projection {
	return sqltx.Convert(p, func(tx pgx.Tx) *sqltx.Tx {
		return sqltx.New(sqlDriver{tx, func(args []any) []any { return args }}, sqltx.Postgres, false)
	})
}

// database implements [projection.Database].
type database struct{ *Store }

// Project implements [projection.Projections].
func (d database) Project(ctx context.Context, p projection.SQLProjection) error {
	b := backend{d.Store}
	return d.Store.Project(ctx, sqltx.Convert(p, func(tx pgx.Tx) *sqltx.Tx {
		return sqltx.New(sqlDriver{tx, b.mode}, sqltx.Postgres, !d.unprepared.Load())
	}))
}

// Query implements [projection.Querier].
func (d database) Query(ctx context.Context, query string, args ...any) iter.Seq2[projection.Row, error] {
	return sqltx.All(d.each, ctx, query, args)
}

// QueryRow implements [projection.Querier].
func (d database) QueryRow(ctx context.Context, query string, args ...any) projection.Row {
	return sqltx.First(d.each, ctx, query, args)
}

// each runs a query. A statement that a pooler has lost, or whose table has been created again, fails before there is any row.
func (d database) each(ctx context.Context, query string, args []any, do func(projection.Row) bool) error {
	s, err := sqltx.ParseQuery(sqltx.Postgres, query, len(args))
	if err != nil {
		return fmt.Errorf("postgres: query: %w", err)
	}
	b := backend{d.Store}
	query = s.Text
	err = b.prepared(func() error { return b.query(ctx, query, args, do) })
	if f := classify(err); f.code == featureNotSupported && f.has(repeatable) {
		err = b.query(ctx, query, args, do)
	}
	return cause.Of(ctx, err)
}

// query runs a query of the application on a connection of the pool.
func (b backend) query(ctx context.Context, query string, args []any, do func(projection.Row) bool) error {
	if b.store.closed() {
		return errClosed
	}
	conn, err := b.store.borrow(ctx)
	if err != nil {
		return b.broken(err)
	}
	defer conn.Release()
	rows, err := conn.Query(ctx, query, b.mode(inUTC(args))...)
	if err == nil {
		err = sqltx.Each(queryRows{rows}, do)
	}
	switch {
	case err == nil:
		return nil
	case conn.Conn().IsClosed():
		return b.broken(err)
	}
	return b.of(fmt.Errorf("query: %w", err))
}

// sqlDriver implements [sqltx.Driver].
type sqlDriver struct {
	tx   pgx.Tx
	mode func(args []any) []any // adds how pgx runs a statement
}

// Exec implements [sqltx.Driver].
func (d sqlDriver) Exec(ctx context.Context, s *sqltx.Statement, args []any) (int64, error) {
	if len(args) > 0 { // otherwise pgx sends the text, which may have several statements
		args = d.mode(inUTC(args))
	}
	tag, err := d.tx.Exec(ctx, s.Text, args...)
	return tag.RowsAffected(), err
}

// Query implements [sqltx.Driver].
func (d sqlDriver) Query(ctx context.Context, s *sqltx.Statement, args []any) (sqltx.Rows, error) {
	rows, err := d.tx.Query(ctx, s.Text, d.mode(inUTC(args))...)
	if err != nil {
		return nil, err
	}
	return queryRows{rows}, nil
}

// inUTC returns arguments with all times in UTC: a column without a zone keeps what the clock shows there.
func inUTC(args []any) []any {
	cloned := false
	for i, arg := range args {
		t, is := arg.(time.Time)
		if !is {
			continue
		}
		if !cloned {
			args, cloned = slices.Clone(args), true
		}
		args[i] = t.UTC()
	}
	return args
}

// queryRows is the result of a query of a handler or of the application.
type queryRows struct{ pgx.Rows }

// Scan implements [sqltx.Rows].
func (r queryRows) Scan(dest ...any) error {
	if fields := len(r.FieldDescriptions()); fields != len(dest) {
		return fmt.Errorf("the row has %d columns, and Scan got %d destinations", fields, len(dest))
	}
	if err := scan(r.Rows, slices.Clone(dest)); err != nil {
		return err
	}
	for i, d := range dest {
		switch d := d.(type) {
		case *time.Time:
			if r.RawValues()[i] == nil { // pgx returns no error for a column of another type
				return fmt.Errorf("cannot scan NULL of column %d into a time.Time: give a **time.Time", i+1)
			}
			*d = d.UTC()
		case **time.Time:
			if *d != nil {
				**d = (*d).UTC()
			}
		case *sql.NullTime:
			d.Time = d.Time.UTC()
		case *sql.Null[time.Time]:
			d.V = d.V.UTC()
		}
	}
	return nil
}

// Close implements [sqltx.Rows].
func (r queryRows) Close() error {
	r.Rows.Close()
	return nil
}
