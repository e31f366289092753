package open

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// ReadSide is a database for read models. For a store on SQLite or Postgres it is the same database. For a store in memory it is
// a separate SQLite database in memory, with the store as its source.
type ReadSide interface {
	// Project builds a read model until the context ends.
	Project(ctx context.Context, m Model) error

	// React runs a reaction until the context ends.
	React(ctx context.Context, r projection.Reaction) error

	// WaitFor waits until a read model or a reaction has applied the records up to a position.
	WaitFor(ctx context.Context, name string, position es.Position) error

	// Status returns the state of the read models and reactions.
	Status(ctx context.Context) ([]projection.Status, error)

	// Query queries a read model and calls row with every row.
	Query(ctx context.Context, row func(scan func(into ...any) error) error, sql string, args ...any) error
}

// Model is a projection with SQL that both SQLite and Postgres understand. Parameters are $1, $2 and so on, in order of appearance.
type Model struct {
	Name       string
	Filter     es.Filter
	Prepare    []string // statements
	Handle     func(ctx context.Context, exec Exec, records []es.Record) error
	OnProgress func(projection.Progress)
	OnCaughtUp func(ctx context.Context) error
}

// Lease is the lease duration of the examples. It is short because they are often interrupted and started again.
const Lease = 2 * time.Second

// Exec runs a statement in the transaction of the read model.
type Exec func(ctx context.Context, sql string, args ...any) error

// Store opens a store like [Log], and its read side.
func Store(ctx context.Context, where string) (log es.Log, read ReadSide, closeAll func() error, err error) {
	log, closeLog, err := Log(ctx, where)
	if err != nil {
		return nil, nil, nil, err
	}
	switch log := log.(type) {
	case *sqlite.Store:
		return log, onSQLite{log, nil}, closeLog, nil
	case *postgres.Store:
		pool, err := pgxpool.New(ctx, where)
		if err != nil {
			return nil, nil, nil, errors.Join(err, closeLog())
		}
		return log, onPostgres{log, pool}, func() error { pool.Close(); return closeLog() }, nil
	}
	read, closeAll, err = Beside(log)
	return log, read, closeAll, err
}

// Beside opens a separate read side in memory for a log.
func Beside(log es.Log) (ReadSide, func() error, error) {
	beside, err := sqlite.Open(":memory:")
	if err != nil {
		return nil, nil, err
	}
	return onSQLite{beside, projection.FromLog(log)}, beside.Close, nil
}

// asProjection converts a model to a projection of a backend.
func asProjection[Tx any](m Model, source projection.Source, exec func(ctx context.Context, tx Tx, sql string, args ...any) error) projection.Projection[Tx] {
	return projection.Projection[Tx]{
		Name: m.Name, Source: source, Lease: Lease, Filter: m.Filter, OnProgress: m.OnProgress, OnCaughtUp: m.OnCaughtUp,
		Prepare: func(ctx context.Context, tx Tx) error {
			for _, sql := range m.Prepare {
				if err := exec(ctx, tx, sql); err != nil {
					return err
				}
			}
			return nil
		},
		Handle: func(ctx context.Context, tx Tx, records []es.Record) error {
			return m.Handle(ctx, func(ctx context.Context, sql string, args ...any) error { return exec(ctx, tx, sql, args...) }, records)
		},
	}
}

type onSQLite struct {
	*sqlite.Store
	source projection.Source // nil for the store's own log
}

// Project implements ReadSide.
func (s onSQLite) Project(ctx context.Context, m Model) error {
	return s.Store.Project(ctx, asProjection(m, s.source, func(ctx context.Context, tx *sql.Tx, sql string, args ...any) error {
		_, err := tx.ExecContext(ctx, sql, args...)
		return err
	}))
}

// React implements ReadSide.
func (s onSQLite) React(ctx context.Context, r projection.Reaction) error {
	r.Source = s.source
	return s.Store.React(ctx, r)
}

// Query implements ReadSide.
func (s onSQLite) Query(ctx context.Context, row func(scan func(into ...any) error) error, sql string, args ...any) error {
	rows, err := s.DB().QueryContext(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

type onPostgres struct {
	*postgres.Store
	pool *pgxpool.Pool
}

// Project implements ReadSide.
func (s onPostgres) Project(ctx context.Context, m Model) error {
	return s.Store.Project(ctx, asProjection(m, nil, func(ctx context.Context, tx pgx.Tx, sql string, args ...any) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	}))
}

// Query implements ReadSide.
func (s onPostgres) Query(ctx context.Context, row func(scan func(into ...any) error) error, sql string, args ...any) error {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
