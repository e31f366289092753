package chaos

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/sqlite"
)

func (a *actor) cluster() kafka.ConfigMap {
	config := kafka.ConfigMap{"bootstrap.servers": a.Kafka}
	for name, value := range a.Login {
		config[name] = value
	}
	return config
}

// logger writes the logs of the components to standard error, which is a file.
func (a *actor) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// runRelay publishes the log. Several processes run it; one is active at a time.
func runRelay(ctx context.Context, a *actor) error {
	store, err := a.open(ctx)
	if err != nil {
		return err
	}
	r := &kafka.Relay{
		Log: store, Prefix: a.Prefix, Cluster: kafka.Cluster{Config: a.cluster()}, Topics: kafka.Topics{Partitions: partitionsOfTopic},
		Leases: store, Lease: a.Lease, Batch: 200, Logger: a.logger(),
	}
	if a.Seed%2 == 1 {
		r.Encoding = kafka.Compact
	}
	return errors.Join(a.went(ctx, "the relay", r.Run(ctx)), store.Close())
}

const (
	// The ledger of an at-least-once consumer. Each record must follow the previous one of its stream, or be a
	// repetition.
	createLedger = "create table if not exists {models}.ledger (kind text, id text, version bigint, content text not null, primary key (kind, id, version))"
	insertLedger = `insert into {models}.ledger (kind, id, version, content) select $1, $2, $3::bigint, $4
		where $3::bigint = 1 or exists (select from {models}.ledger where kind = $1 and id = $2 and version = $3::bigint - 1) on conflict do nothing`
	existsLedger = "select exists (select from {models}.ledger where kind = $1 and id = $2 and version = $3::bigint)"
	selectLedger = "select kind || '/' || id || '/' || version, content from {models}.ledger"
	countLedger  = "select count(*) from {models}.ledger"
)

// runConsumer records what it receives in a database. Several processes share the partitions.
func runConsumer(ctx context.Context, a *actor) error {
	pool, err := pgxpool.New(ctx, a.Postgres)
	if err != nil {
		return err
	}
	defer pool.Close()
	for ctx.Err() == nil {
		c := &kafka.Consumer{Cluster: kafka.Cluster{Config: a.cluster()}, Group: a.Prefix + ".ledger", Topics: topicsOf(a.Prefix), Workers: 2, Logger: a.logger(), Drain: 5 * time.Second}
		var called atomic.Bool
		err = c.Run(ctx, func(ctx context.Context, r es.Record) error {
			called.Store(true)
			return a.enter(ctx, pool, r)
		})
		if called.Load() || ctx.Err() != nil || errors.Is(err, es.ErrInvalid) {
			break
		}
		a.history.note(Entry{Kind: Retried, Text: fmt.Sprint(err)}) // the cluster was unavailable at the start
		rest(ctx, 200*time.Millisecond)
	}
	return a.went(ctx, "the consumer", err)
}

// enter adds a record to the ledger. While the database is unavailable it retries, until the consumer loses the
// partition.
func (a *actor) enter(ctx context.Context, pool *pgxpool.Pool, r es.Record) error {
	for {
		tag, err := pool.Exec(ctx, modelled(insertLedger, a.Schema), r.Stream.Kind, r.Stream.ID, int64(r.Version), content(r))
		if err == nil && tag.RowsAffected() == 0 {
			there := false
			err = pool.QueryRow(ctx, modelled(existsLedger, a.Schema), r.Stream.Kind, r.Stream.ID, int64(r.Version)).Scan(&there)
			if err == nil && !there {
				a.violated("the consumer received %s at position %d before its predecessor", r.ID(), r.Position)
				return nil
			}
		}
		if err == nil {
			return nil
		}
		if rest(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// fedModel returns the file of the read model that is built from the topics.
func fedModel(folder string) string { return filepath.Join(folder, "fed.db") }

const (
	createFed = "create table if not exists fed (kind text, id text, version integer, content text not null, primary key (kind, id, version)) strict"
	emptyFed  = "delete from fed"
	insertFed = "insert into fed (kind, id, version, content) select ?1, ?2, ?3, ?4 where ?3 = 1 or exists (select 1 from fed where kind = ?1 and id = ?2 and version = ?3 - 1)"
	selectFed = "select kind || '/' || id || '/' || version, content from fed"
	countFed  = "select count(*) from fed"
)

// runFed builds a read model in a SQLite file from the topics. Several processes share the file.
func runFed(ctx context.Context, a *actor) error {
	store, err := sqlite.Open(fedModel(a.Folder))
	if err != nil {
		return err
	}
	defer store.Close()
	var source *kafka.Source
	for source == nil {
		source, err = kafka.SourceConfig{Cluster: kafka.Cluster{Config: a.cluster()}, Topics: topicsOf(a.Prefix), Group: a.Prefix + ".fed", Logger: a.logger()}.Open(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, es.ErrInvalid) {
			return err
		}
		if err != nil {
			a.history.note(Entry{Kind: Retried, Text: err.Error()})
			rest(ctx, 200*time.Millisecond)
		}
	}
	err = store.Project(ctx, sqlite.Projection{
		Name: "fed", Source: source, Lease: a.Lease, Batch: 50, Logger: a.logger(),
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, createFed); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, emptyFed)
			return err
		},
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				result, err := tx.ExecContext(ctx, insertFed, r.Stream.Kind, r.Stream.ID, int64(r.Version), content(r))
				if err != nil {
					return err
				}
				if n, err := result.RowsAffected(); err != nil || n != 1 {
					return errors.Join(err, fmt.Errorf("%s does not follow the applied records", r.ID()))
				}
			}
			return nil
		},
	})
	return errors.Join(a.went(ctx, "the read model built from topics", err), source.Close())
}

// published returns the log as consumers of the topics must have received it.
func published(name string, log []es.Record) Model {
	m := Model{Name: name, Want: make(map[string]string, len(log))}
	for _, r := range log {
		m.Want[r.ID()] = content(r)
	}
	return m
}
