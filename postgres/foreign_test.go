package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// Events in Postgres with a read model in SQLite, and the reverse.
func TestReadModelInAnotherDatabase(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	p := open(t, url)
	l, err := sqlite.Open(filepath.Join(t.TempDir(), "es.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	mustAppend(t, p, add(account("a"), 700), add(account("b"), 20))
	mustAppend(t, l, add(account("c"), 600), add(account("d"), 30))

	inSQLite := sqlite.Projection{
		Name: "there", Source: projection.FromLog(p), Batch: 100,
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "create table there (position integer primary key, id text not null unique)")
			return err
		},
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				if _, err := tx.ExecContext(ctx, "insert into there values (?, ?)", r.Position, r.ID()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	inPostgres := postgres.Projection{
		Name: "there", Source: projection.FromLog(l), Batch: 100, Partitions: 2,
		Prepare: func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "create table there (position bigint primary key, id text not null unique)")
			return err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			for _, r := range records {
				if _, err := tx.Exec(ctx, "insert into there values ($1, $2)", int64(r.Position), r.ID()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	// Twice, so that each goes on from its checkpoint.
	for round := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		ends := make(chan error, 2)
		ready := make(chan bool, 2)
		inSQLite.OnCaughtUp = func(context.Context) error { ready <- true; return nil }
		inPostgres.OnCaughtUp = inSQLite.OnCaughtUp
		go func() { ends <- l.Project(ctx, inSQLite) }()
		go func() { ends <- p.Project(ctx, inPostgres) }()
		<-ready
		<-ready
		ofPostgres, ofSQLite := mustAppend(t, p, add(account("e"), 5)), mustAppend(t, l, add(account("e"), 5))
		if err := errors.Join(l.WaitFor(ctx, "there", ofPostgres), p.WaitFor(ctx, "there", ofSQLite)); err != nil {
			t.Fatal(err)
		}
		cancel()
		for range 2 {
			if err := <-ends; !errors.Is(err, context.Canceled) {
				t.Errorf("a run ended with %v", err)
			}
		}
		var n int
		if err := l.DB().QueryRowContext(t.Context(), "select count(*) from there").Scan(&n); err != nil || n != int(ofPostgres) {
			t.Errorf("round %d: SQLite has %d records of %d in Postgres, %v", round, n, ofPostgres, err)
		}
		if n := scalar[int](t, url, "select count(*) from there"); n != int(ofSQLite) {
			t.Errorf("round %d: Postgres has %d records of %d in SQLite", round, n, ofSQLite)
		}
	}
}
