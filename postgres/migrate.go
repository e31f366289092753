package postgres

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
)

// migrations/001.sql brings an empty schema to version 1, 002.sql from there to 2, and so on.
//
//go:embed migrations/0*.sql
var migrations embed.FS

//go:embed migrations/enter.sql
var parts string

const schemaVersion = 3

const (
	// This is a query of the catalog instead of to_regclass, which reads a cache. A session refreshes that cache when it locks a table or
	// begins a transaction, but not after it has waited for another session's migration.
	selectTable  = `select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2)`
	selectSpace  = `select exists (select from pg_catalog.pg_namespace where nspname = $1)`
	createSchema = `create schema {schema}`
	createMeta   = `create table if not exists {schema}.meta (key text primary key, value text not null)`
	selectSchema = `select value from {schema}.meta where key = 'schema'`
	upsertMeta   = `insert into {schema}.meta (key, value) values ($1, $2) on conflict (key) do update set value = excluded.value`
	insertMeta   = `insert into {schema}.meta (key, value) values ($1, $2) on conflict (key) do nothing`
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
	if err := s.migrate(ctx); err != nil {
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
	for _, part := range []string{"declare", "enter", "lock"} {
		_, rest, _ := strings.Cut(parts, "-- {"+part+"}\n")
		rest, _, _ = strings.Cut(rest, "\n-- {")
		text = strings.ReplaceAll(text, "{"+part+"}", rest)
	}
	quote := fmt.Sprintf("$es%x$", uint64(s.lockKey("quote"))) // occurs in no name of a schema
	return strings.NewReplacer("{schema}", s.schema, "{key}", strconv.FormatInt(s.lockKey("append"), 10),
		"{listeners}", strconv.FormatInt(s.lockKey("listeners"), 10), "$$", quote).Replace(text)
}

// migrate checks the version of the schema, which needs no rights, and updates an older schema.
func (s *Store) migrate(ctx context.Context) error {
	have, err := s.schemaVersion(ctx, s.pool)
	if err != nil || have == schemaVersion {
		return err
	}
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it returns an error after a commit, and the first error is the cause
	if err := s.migrateTo(ctx, tx, schemaVersion); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// inspect is migrate for a read-only store: it returns an error unless the schema is that of this release.
func (s *Store) inspect(ctx context.Context) error {
	have, err := s.schemaVersion(ctx, s.pool)
	switch {
	case err != nil:
		return err
	case have == 0:
		return fmt.Errorf("%w: the database has no store in schema %s: name another database or schema", es.ErrInvalid, s.schema)
	case have < schemaVersion:
		return fmt.Errorf("%w: schema %s has version %d, this release needs %d, and the store is read-only: run Migrate as the owner", es.ErrInvalid, s.schema, have, schemaVersion)
	}
	return nil
}

func (s *Store) migrateTo(ctx context.Context, tx pgx.Tx, version int) error {
	// A lock of the transaction, because a pooler would leave a lock of the session behind.
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", pgx.QueryExecModeExec, s.lockKey("migrate")); err != nil {
		return err
	}
	have, err := s.schemaVersion(ctx, tx)
	if err != nil || have == version {
		return err
	}
	if have == 0 {
		if err := s.prepareSchema(ctx, tx); err != nil {
			return err
		}
	}
	for v := have + 1; v <= version; v++ {
		text, err := migrations.ReadFile(fmt.Sprintf("migrations/%03d.sql", v))
		if err != nil {
			return err
		}
		if err := script(ctx, tx, s.sql(string(text))); err != nil {
			return fmt.Errorf("to schema version %d: %w", v, err)
		}
	}
	if _, err := tx.Exec(ctx, s.sql(upsertMeta), pgx.QueryExecModeExec, "schema", strconv.Itoa(version)); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, s.sql(insertMeta), pgx.QueryExecModeExec, "store", rand.Text())
	return err
}

// prepareSchema creates the schema and its table meta. An existing schema is used, because few roles may create one.
func (s *Store) prepareSchema(ctx context.Context, tx pgx.Tx) error {
	var there bool
	if err := tx.QueryRow(ctx, selectSpace, pgx.QueryExecModeExec, s.config.Schema).Scan(&there); err != nil {
		return err
	}
	if !there {
		if err := script(ctx, tx, s.sql(createSchema)); err != nil {
			return err
		}
	}
	if err := tx.QueryRow(ctx, selectTable, pgx.QueryExecModeExec, s.config.Schema, "events").Scan(&there); err != nil {
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

// schemaVersion returns the version of the schema in the database, or 0 without one.
func (s *Store) schemaVersion(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (int, error) {
	var there bool
	if err := db.QueryRow(ctx, selectTable, pgx.QueryExecModeExec, s.config.Schema, "meta").Scan(&there); err != nil || !there {
		return 0, err
	}
	var text string
	if err := db.QueryRow(ctx, s.sql(selectSchema), pgx.QueryExecModeExec).Scan(&text); errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	have, err := strconv.Atoi(text)
	if err != nil || have < 1 {
		return 0, fmt.Errorf("%w: schema version %q in %s.meta is not a positive number, so it is corrupt: restore a backup", es.ErrInvalid, text, s.schema)
	}
	if have > schemaVersion {
		return 0, fmt.Errorf("%w: schema %s has version %d, this release supports up to %d: a newer release has migrated it, so upgrade this program", es.ErrInvalid, s.schema, have, schemaVersion)
	}
	return have, nil
}
