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
	// The catalogue is asked by an ordinary query, and not with to_regclass: that looks into a cache, which a session renews when
	// it locks a table or begins a transaction, and so not after it has waited for another one's migration.
	selectTable  = `select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2)`
	selectSpace  = `select exists (select from pg_catalog.pg_namespace where nspname = $1)`
	createSchema = `create schema {schema}`
	createMeta   = `create table if not exists {schema}.meta (key text primary key, value text not null)`
	selectSchema = `select value from {schema}.meta where key = 'schema'`
	upsertMeta   = `insert into {schema}.meta (key, value) values ($1, $2) on conflict (key) do update set value = excluded.value`
	insertMeta   = `insert into {schema}.meta (key, value) values ($1, $2) on conflict (key) do nothing`
)

// Migrate makes the schema or brings it to this release, and returns. [Open] and [New] do so as well; it is for set-ups in which
// the program's own role may not: run it with the owner's first, and Open then needs no rights to change anything.
// Any number of processes may do it at once.
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

// sql fills in what stands in braces: the schema, the keys of its locks, and the parts that functions have in common.
func (s *Store) sql(text string) string {
	for _, part := range []string{"declare", "enter", "lock"} {
		_, rest, _ := strings.Cut(parts, "-- {"+part+"}\n")
		rest, _, _ = strings.Cut(rest, "\n-- {")
		text = strings.ReplaceAll(text, "{"+part+"}", rest)
	}
	quote := fmt.Sprintf("$es%x$", uint64(s.lockKey("quote"))) // stands in no name of a schema
	return strings.NewReplacer("{schema}", s.schema, "{key}", strconv.FormatInt(s.lockKey("append"), 10),
		"{listeners}", strconv.FormatInt(s.lockKey("listeners"), 10), "$$", quote).Replace(text)
}

// migrate looks first, which needs no rights, and changes what is not as it should be.
func (s *Store) migrate(ctx context.Context) error {
	have, err := s.schemaVersion(ctx, s.pool)
	if err != nil || have == schemaVersion {
		return err
	}
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // says so after a commit, and adds nothing to an error
	if err := s.migrateTo(ctx, tx, schemaVersion); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// inspect does for a store that only reads what migrate does for the others: the schema must be as this release has it.
func (s *Store) inspect(ctx context.Context) error {
	have, err := s.schemaVersion(ctx, s.pool)
	switch {
	case err != nil:
		return err
	case have == 0:
		return fmt.Errorf("%w: the database has no store in schema %s: give the name of another database or schema", es.ErrInvalid, s.schema)
	case have < schemaVersion:
		return fmt.Errorf("%w: schema %s has version %d, this release needs %d, and it was opened to be read: run Migrate with the owner's role", es.ErrInvalid, s.schema, have, schemaVersion)
	}
	return nil
}

func (s *Store) migrateTo(ctx context.Context, tx pgx.Tx, version int) error {
	// A lock of the transaction, not of the session: that one a pooler would leave behind.
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

// prepareSchema makes what the migrations build on. A schema that is there is used, as the right to make one is seldom given.
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

// schemaVersion returns the version of the schema in the database, 0 if there is none.
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
		return 0, fmt.Errorf("%w: schema %s has version %d and this release knows versions up to %d: it was used by a newer release; upgrade this program", es.ErrInvalid, s.schema, have, schemaVersion)
	}
	return have, nil
}
