package kafka_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// The read model of these tests refuses a record that is out of order or a duplicate, which stops its projection with an error.
const (
	makeModel = `create table if not exists heads (id varchar(40) primary key, version bigint not null, position bigint not null)`
	moveHead  = `insert into heads values ($1, 1, $2) on conflict (id) do update set version = heads.version + 1, position = $2 where heads.version + 1 = $3 and heads.position < $2`
	sumHeads  = `select coalesce(sum(version), 0) from heads`
)

func outOfOrder(r es.Record) error { return fmt.Errorf("%s is not the next of its stream", r.ID()) }

func sqliteModel(name string, source projection.Source, log *slog.Logger) sqlite.Projection {
	return sqlite.Projection{
		Name: name, Source: source, Lease: time.Second, Batch: 50, Logger: log,
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, makeModel)
			return err
		},
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				if r.Version == 1 {
					if _, err := tx.ExecContext(ctx, "insert into heads values ($1, 1, $2)", r.Stream.String(), r.Position); err != nil {
						return err
					}
					continue
				}
				result, err := tx.ExecContext(ctx, moveHead, r.Stream.String(), r.Position, r.Version)
				if err != nil {
					return err
				}
				if n, err := result.RowsAffected(); n != 1 || err != nil {
					return errors.Join(err, outOfOrder(r))
				}
			}
			return nil
		},
	}
}

func postgresModel(name string, source projection.Source, log *slog.Logger) postgres.Projection {
	return postgres.Projection{
		Name: name, Source: source, Lease: time.Second, Batch: 50, Logger: log,
		Prepare: func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, makeModel)
			return err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			for _, r := range records {
				if r.Version == 1 {
					if _, err := tx.Exec(ctx, "insert into heads values ($1, 1, $2)", r.Stream.String(), r.Position); err != nil {
						return err
					}
					continue
				}
				tag, err := tx.Exec(ctx, moveHead, r.Stream.String(), r.Position, r.Version)
				if err != nil {
					return err
				}
				if tag.RowsAffected() != 1 {
					return outOfOrder(r)
				}
			}
			return nil
		},
	}
}

// playProjection is a process that feeds a read model. Its arguments are kind and place of the database, broker and topic.
func playProjection(ctx context.Context, args []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	source, err := kafka.SourceConfig{Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": args[2]}}, Topics: []string{args[3]}, Group: args[3] + "-model", Logger: log}.Open(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	if args[0] == "sqlite" {
		s, err := sqlite.Open(args[1])
		if err != nil {
			return err
		}
		return errors.Join(s.Project(ctx, sqliteModel("model", source, log)), s.Close())
	}
	s, err := postgres.Open(ctx, args[1])
	if err != nil {
		return err
	}
	return errors.Join(s.Project(ctx, postgresModel("model", source, log)), s.Close())
}

// model is a database with a read model.
type model struct {
	name, url string
	sum       func(ctx context.Context) (int, error)
	status    func(ctx context.Context) ([]projection.Status, error)
}

// models runs a test with a read model in SQLite and one in Postgres.
func models(t *testing.T, test func(t *testing.T, m model)) {
	t.Run("SQLite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "model.db")
		s, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		test(t, model{"sqlite", path, func(ctx context.Context) (n int, err error) {
			return n, s.DB().QueryRowContext(ctx, sumHeads).Scan(&n)
		}, s.Status})
	})
	t.Run("Postgres", func(t *testing.T) {
		url := testserver.Postgres(t, testserver.Postgres18).Database(t)
		s, err := postgres.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		pool, err := pgxpool.New(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		test(t, model{"postgres", url, func(ctx context.Context) (n int, err error) {
			return n, pool.QueryRow(ctx, sumHeads).Scan(&n)
		}, s.Status})
	})
}

// await waits until the read model has a number of records. It fails when the read model makes no progress.
func (m model) await(t testing.TB, want int) {
	t.Helper()
	for has := -1; has < want; {
		insist(t, fmt.Sprintf("the read model has %d records", want), func() error {
			n, err := m.sum(t.Context())
			if err == nil && n <= has {
				err = fmt.Errorf("it has %d", n)
			}
			has = max(has, n)
			return err
		})
		if has > want {
			t.Fatalf("the read model has %d records, want %d", has, want)
		}
	}
}

func TestKilledReadModelsApplyRecordsOnce(t *testing.T) {
	t.Parallel()
	each(t, 6, func(t *testing.T, b bank) {
		models(t, func(t *testing.T, m model) {
			b := newBank(t, testserver.Broker{Bootstrap: b.Bootstrap, Prefix: b.Prefix + "-" + m.name}, 6)
			p := newPublisher(t, b)
			run := func() *child.Process { return child.Start(t, "project", m.name, m.url, b.Bootstrap, b.topic) }
			processes := []*child.Process{run(), run(), run()}
			published, applied := 0, 0
			for range 12 {
				published += len(p.publish(200, 30))
				insist(t, "the read model grows", func() error {
					n, err := m.sum(t.Context())
					if err == nil && n <= applied {
						err = fmt.Errorf("it has %d records", n)
					}
					applied = max(applied, n)
					return err
				})
				i := rand.N(len(processes))
				processes[i].Stop()
				processes[i] = run()
			}
			m.await(t, published)
			for _, process := range processes {
				process.Stop()
			}
			m.report(t)
		})
	})
}

// report logs the state of the shards and checks that they have no errors.
func (m model) report(t testing.TB) {
	t.Helper()
	status, err := m.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range status {
		t.Logf("%s: cursor %d, %s", s.Shard, s.Cursor, s.Error)
		if strings.Contains(s.Error, "is not the next of its stream") {
			t.Error("a record was out of order")
		}
	}
	if len(status) != 6 || slices.ContainsFunc(status, func(s projection.Status) bool { return s.Lag != nil }) {
		t.Errorf("%+v", status)
	}
}
