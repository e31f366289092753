package kafka_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

const makeLists = "create table if not exists lists (line_no integer primary key generated always as identity, list varchar(80) not null, line varchar(2000) not null)"

func TestSourceWithSQLite(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: estest/conformance runs the suite on a source of a log")
	}
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	conformance.TestSource(t, func(t *testing.T) conformance.SourceUnderTest[*sql.Tx] {
		path := filepath.Join(t.TempDir(), "model.db")
		open := func() *sqlite.Store {
			s, err := sqlite.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			return s
		}
		log, source := fedByRelay(t, b)
		reader := open().DB()
		return conformance.SourceUnderTest[*sql.Tx]{
			Log: log, Source: source,
			Side: func() conformance.ReadSide[*sql.Tx] { return open() },
			Lists: conformance.Lists[*sql.Tx]{
				Empty: func(ctx context.Context, tx *sql.Tx, list string) error {
					_, err := tx.ExecContext(ctx, "create table if not exists lists (line_no integer primary key, list text not null, line text not null)")
					if err == nil {
						_, err = tx.ExecContext(ctx, "delete from lists where list = $1", list)
					}
					return err
				},
				Add: func(ctx context.Context, tx *sql.Tx, list, line string) error {
					_, err := tx.ExecContext(ctx, "insert into lists (list, line) values ($1, $2)", list, line)
					return err
				},
				Lines: func(ctx context.Context, list string) (lines []string, err error) {
					rows, err := reader.QueryContext(ctx, "select line from lists where list = $1 order by line_no", list)
					if err != nil && strings.Contains(err.Error(), "no such table") {
						return nil, nil // the table does not exist yet
					} else if err != nil {
						return nil, err
					}
					defer rows.Close()
					for rows.Next() {
						var line string
						if err := rows.Scan(&line); err != nil {
							return nil, err
						}
						lines = append(lines, line)
					}
					return lines, rows.Err()
				},
			},
		}
	})
}

func TestSourceWithPostgres(t *testing.T) {
	t.Parallel()
	b := testserver.RealBroker(t)
	server := testserver.Postgres(t, testserver.Postgres18)
	conformance.TestSource(t, func(t *testing.T) conformance.SourceUnderTest[pgx.Tx] {
		url := server.Database(t)
		pool, err := pgxpool.New(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		if _, err := pool.Exec(t.Context(), makeLists); err != nil {
			t.Fatal(err)
		}
		log, source := fedByRelay(t, b)
		return conformance.SourceUnderTest[pgx.Tx]{
			Log: log, Source: source,
			Side: func() conformance.ReadSide[pgx.Tx] {
				s, err := postgres.Open(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				return s
			},
			Lists: conformance.Lists[pgx.Tx]{
				Empty: func(ctx context.Context, tx pgx.Tx, list string) error {
					_, err := tx.Exec(ctx, "delete from lists where list = $1", list)
					return err
				},
				Add: func(ctx context.Context, tx pgx.Tx, list, line string) error {
					_, err := tx.Exec(ctx, "insert into lists (list, line) values ($1, $2)", list, line)
					return err
				},
				Lines: func(ctx context.Context, list string) ([]string, error) {
					rows, err := pool.Query(ctx, "select line from lists where list = $1 order by line_no", list)
					if err != nil {
						return nil, err
					}
					return pgx.CollectRows(rows, pgx.RowTo[string])
				},
			},
		}
	})
}

// fedByRelay returns a log that a relay publishes to a topic with two partitions, and a function that opens a source of it.
func fedByRelay(t *testing.T, broker testserver.Broker) (log *es.Mem, open func() projection.Source) {
	t.Helper()
	broker.Prefix += "-" + strings.ToLower(rand.Text()[:8])
	b := newBank(t, broker, 2)
	log = new(es.Mem)
	r := relay(broker, log)
	r.Route = func(es.Record) string { return b.topic }
	r.Encoding = kafka.Compact
	run := runRelay(t, r)
	t.Cleanup(func() { run.mustStop() })
	return log, func() projection.Source { return source(t, b) }
}
