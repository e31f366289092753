package postgres

import (
	"context"
	"crypto/rand"
	"embed"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/migration"
	"github.com/thalo-go/es/internal/qualify"
)

// migrations/001.sql brings an empty schema to version 1, 002.sql from there to 2, and so on. From 004.sql on they are expansions.
//
//go:embed migrations
var files embed.FS

//go:embed migrations/enter.sql
var parts string

// schemaVersion is the version of the schema, which older releases must have as well. Only a migration that they cannot work with raises it.
const schemaVersion = 3

var migrations = migration.Set{Files: files, Folder: "migrations", Version: schemaVersion}

const (
	// This is a query of the catalog instead of to_regclass, which reads a cache. A session refreshes that cache when it locks a table or
	// begins a transaction, but not after it has waited for another session's migration.
	selectTable   = `select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2)`
	selectSpace   = `select exists (select from pg_catalog.pg_namespace where nspname = $1)`
	createSchema  = `create schema {schema}`
	createMeta    = `create table if not exists {schema}.meta (key text primary key, value text not null)`
	pinPath       = `set local search_path = pg_catalog, pg_temp; set local statement_timeout = 0`
	lockMigration = `select pg_advisory_xact_lock($1)`
	selectMeta    = `select key, value from {schema}.meta`
	upsertMeta    = `insert into {schema}.meta (key, value) values ($1, $2) on conflict (key) do update set value = excluded.value`
	insertMeta    = `insert into {schema}.meta (key, value) values ($1, $2) on conflict (key) do nothing`
)

// Migrate creates the schema or updates it to this release. [Open] and [New] do this as well. Migrate is for deployments where the program's
// role may not change the schema: run it as the owner first, and Open then needs no right to change anything.
// Several processes may call it at the same time.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error { return Config{}.Migrate(ctx, pool) }

// Migrate is like the function [Migrate], with settings.
func (c Config) Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	s, err := c.store(pool)
	if err != nil {
		return err
	}
	defer s.Close()
	waits := s.wait(forConnection)
	defer waits.done()
	if err := s.migrate(ctx, waits); err != nil {
		return fmt.Errorf("postgres: migrate: %w", explain(err))
	}
	return nil
}

// lockKey returns the key of one of the schema's advisory locks.
func (s *Store) lockKey(purpose string) int64 {
	h := fnv.New64a()
	h.Write([]byte("es " + purpose + " " + s.config.Schema))
	return int64(h.Sum64())
}

// sql replaces the placeholders in braces: the schema, the keys of its locks, and the parts that functions share.
func (s *Store) sql(text string) string {
	for _, part := range []string{"functions", "declare", "enter", "lock"} {
		_, rest, _ := strings.Cut(parts, "-- {"+part+"}\n")
		rest, _, _ = strings.Cut(rest, "\n-- {")
		text = strings.ReplaceAll(text, "{"+part+"}", rest)
	}
	quote := fmt.Sprintf("$es%x$", uint64(s.lockKey("quote"))) // occurs in no name of a schema
	return strings.NewReplacer("{schema}", s.schema, "{key}", strconv.FormatInt(s.lockKey("append"), 10),
		"{round}", strconv.FormatInt(s.lockKey("round")>>2, 10),
		"{listeners}", strconv.FormatInt(s.lockKey("listeners"), 10), "$$", quote).Replace(text)
}

// text returns the text of a statement for a session with any search_path. All statements but those of migrations pass through it, and
// migrations set a path of their own.
func (s *Store) text(text string) string { return qualify.SQL(s.sql(text)) }

// migrate checks the state of the schema, which needs no rights, and updates an older schema.
func (s *Store) migrate(ctx context.Context, waits *patience) error {
	conn, err := s.borrow(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	_, pending, err := s.pending(ctx, conn)
	if err != nil || len(pending) == 0 {
		return err
	}
	if err := holdsUTF8(conn.Conn()); err != nil {
		return err
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it returns an error after a commit, and the first error is the cause
	waits.at("migration of the schema, perhaps by another process")
	defer waits.at(forConnection)
	if err := s.migrateTo(ctx, tx, math.MaxInt); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// inspect is migrate for a read-only store: it returns an error if the schema lacks something of this release.
func (s *Store) inspect(ctx context.Context) error {
	conn, err := s.borrow(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	state, pending, err := s.pending(ctx, conn)
	if err != nil || len(pending) == 0 {
		return err
	}
	if state == (migration.State{}) {
		return fmt.Errorf("%w: the database has no store in schema %s: name another database or schema", es.ErrInvalid, s.schema)
	}
	return fmt.Errorf("%w: schema %s is of an older release, and the store is read-only: run Migrate as the owner", es.ErrInvalid, s.schema)
}

// migrateTo applies the migrations up to a number.
func (s *Store) migrateTo(ctx context.Context, tx pgx.Tx, last int) error {
	// The scripts take their names from the built-in schema alone, whatever the session's path has.
	// A statement of a migration may take longer than the session allows to those of the application.
	if err := script(ctx, tx, pinPath); err != nil {
		return err
	}
	// A lock of the transaction, because a pooler would leave a lock of the session behind.
	if _, err := tx.Exec(ctx, s.text(lockMigration), pgx.QueryExecModeExec, s.lockKey("migrate")); err != nil {
		return err
	}
	state, pending, err := s.pending(ctx, tx)
	if err != nil || len(pending) == 0 {
		return err
	}
	if state == (migration.State{}) {
		if err := s.prepareSchema(ctx, tx); err != nil {
			return err
		}
	}
	for _, m := range pending {
		if m.To.Expansion > last {
			break
		}
		if err := script(ctx, tx, s.sql(m.SQL)); err != nil {
			return fmt.Errorf("migration %03d.sql: %w", m.To.Expansion, err)
		}
		state = m.To
	}
	for key, value := range state.Meta() {
		if _, err := tx.Exec(ctx, s.text(upsertMeta), pgx.QueryExecModeExec, key, value); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, s.text(insertMeta), pgx.QueryExecModeExec, "store", rand.Text())
	return err
}

// prepareSchema creates the schema and its table meta. An existing schema is used, because few roles may create one.
func (s *Store) prepareSchema(ctx context.Context, tx pgx.Tx) error {
	var there bool
	if err := tx.QueryRow(ctx, s.text(selectSpace), pgx.QueryExecModeExec, s.config.Schema).Scan(&there); err != nil {
		return err
	}
	if !there {
		if err := script(ctx, tx, s.sql(createSchema)); err != nil {
			return err
		}
	}
	if err := tx.QueryRow(ctx, s.text(selectTable), pgx.QueryExecModeExec, s.config.Schema, "events").Scan(&there); err != nil {
		return err
	}
	if there {
		return fmt.Errorf("%w: schema %s has a table events and no version: it is corrupt (restore a backup), or not a store (set Config.Schema)", es.ErrInvalid, s.schema)
	}
	return script(ctx, tx, s.sql(createMeta))
}

// script runs several statements.
func script(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// pending returns the state of the schema, and the migrations that it needs.
func (s *Store) pending(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (state migration.State, scripts []migration.Script, err error) {
	var there bool
	if err := db.QueryRow(ctx, s.text(selectTable), pgx.QueryExecModeExec, s.config.Schema, "meta").Scan(&there); err != nil {
		return state, nil, err
	}
	meta := make(map[string]string)
	if there {
		rows, err := db.Query(ctx, s.text(selectMeta), pgx.QueryExecModeExec)
		if err != nil {
			return state, nil, err
		}
		var key, value string
		if _, err := pgx.ForEachRow(rows, []any{&key, &value}, func() error { meta[key] = value; return nil }); err != nil {
			return state, nil, err
		}
	}
	if state, scripts, err = migrations.Pending(meta); err != nil {
		return state, nil, fmt.Errorf("schema %s: %w", s.schema, err)
	}
	return state, scripts, nil
}
