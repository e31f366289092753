package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// lists are the read models of the conformance suite, in a table named after the schema. Their statements work with any search_path.
func lists(t *testing.T, url, schema string) conformance.Lists[pgx.Tx] {
	table := pgx.Identifier{"public", "lists of " + schema}.Sanitize()
	conn := connect(t, url)
	return conformance.Lists[pgx.Tx]{
		Empty: func(ctx context.Context, tx pgx.Tx, list string) error {
			// Two that make a table at once get in each other's way, also with "if not exists".
			if _, err := tx.Exec(ctx, "select pg_catalog.pg_advisory_xact_lock(1)", pgx.QueryExecModeExec); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "create table if not exists "+table+" (n bigserial primary key, list pg_catalog.text not null, line pg_catalog.text not null)", pgx.QueryExecModeExec)
			if err == nil {
				_, err = tx.Exec(ctx, "delete from "+table+" where list operator(pg_catalog.=) $1", pgx.QueryExecModeExec, list)
			}
			return err
		},
		Add: func(ctx context.Context, tx pgx.Tx, list, line string) error {
			_, err := tx.Exec(ctx, "insert into "+table+" (list, line) values ($1, $2)", pgx.QueryExecModeExec, list, line)
			return err
		},
		Lines: func(ctx context.Context, list string) ([]string, error) {
			rows, err := conn.Query(ctx, "select line from "+table+" where list operator(pg_catalog.=) $1 order by n", pgx.QueryExecModeExec, list)
			if err != nil {
				return nil, err
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			var e *pgconn.PgError
			if errors.As(err, &e) && e.Code == "42P01" {
				return nil, nil
			}
			return lines, err
		},
	}
}

// projects runs the suite of projections on a database, with one schema for each clause.
func projects(t *testing.T, url, reading string) {
	clause := 0
	conformance.TestProjections(t, func(t *testing.T) (func() conformance.ReadSide[pgx.Tx], conformance.Lists[pgx.Tx]) {
		clause++
		c := postgres.Config{Schema: fmt.Sprint("read ", clause)}
		return func() conformance.ReadSide[pgx.Tx] { return openWith(t, c, url) }, lists(t, reading, c.Schema)
	})
}

// TestHostileSearchPath runs the suite on Postgres 14.
func TestProjections(t *testing.T) {
	t.Run("18", func(t *testing.T) {
		t.Parallel()
		url := testserver.Postgres(t, testserver.Postgres18).Database(t)
		projects(t, with(url, "pool_max_conns=6"), url)
	})
	t.Run("through pgbouncer, which the store detects", func(t *testing.T) {
		t.Parallel()
		server := testserver.Postgres(t, testserver.Postgres18)
		pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 6})
		url := server.Database(t)
		projects(t, pooler.Through(url), url)
	})
}
