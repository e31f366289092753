package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/mattn/go-sqlite3"
)

// migrations/001.sql brings an empty database to schema version 1, 002.sql from there to 2, and so on.
//
//go:embed migrations/*.sql
var migrations embed.FS

const schemaVersion = 3

const createMeta = `create table if not exists es_meta (key text primary key, value text not null) strict, without rowid`

// migrate updates the database to the schema of this release. If several processes call it at once, one migrates and the others wait.
func (s *Store) migrate(ctx context.Context) error {
	conn, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := s.migrateWithin(ctx, conn); err != nil {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "rollback") // the first error is the cause
		return err
	}
	if _, err := conn.ExecContext(ctx, "commit"); err != nil {
		return err
	}
	return conn.Raw(func(driver any) error {
		s.log.init(driver.(*sqlite3.SQLiteConn).GetFilename("main"))
		return nil
	})
}

func (s *Store) migrateWithin(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, createMeta); err != nil {
		return err
	}
	have, store, err := readMeta(ctx, conn)
	if err != nil {
		return err
	}
	for v := have + 1; v <= schemaVersion; v++ {
		script, err := migrations.ReadFile(fmt.Sprintf("migrations/%03d.sql", v))
		if err != nil {
			return err
		}
		if _, err := conn.ExecContext(ctx, string(script)); err != nil {
			return fmt.Errorf("migrate to schema version %d: %w", v, err)
		}
	}
	s.id = store
	if s.id == "" {
		s.id = rand.Text()
	}
	// Also if the rows exist: SQLite writes nothing then, but returns an error now if the file is read-only, instead of at the first append.
	_, err = conn.ExecContext(ctx, "insert or replace into es_meta (key, value) values ('schema', ?), ('store', ?)", strconv.Itoa(schemaVersion), s.id)
	return err
}

// readMeta returns the schema version of a database, 0 if it has none, and the store's ID. It returns an error for a version of a newer release.
func readMeta(ctx context.Context, conn *sql.Conn) (schema int, store string, err error) {
	rows, err := conn.QueryContext(ctx, "select key, value from es_meta")
	if err != nil {
		return 0, "", err
	}
	defer rows.Close()
	meta := make(map[string]string)
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			return 0, "", err
		}
		meta[key] = value
	}
	if err := rows.Err(); err != nil {
		return 0, "", err
	}
	if text, found := meta["schema"]; found {
		if schema, err = strconv.Atoi(text); err != nil || schema < 1 {
			return 0, "", fmt.Errorf("invalid schema version %q in es_meta: the database is damaged; restore a backup", text)
		}
	}
	if schema > schemaVersion {
		return 0, "", fmt.Errorf("the database has schema version %d, newer than %d of this release: upgrade this program", schema, schemaVersion)
	}
	return schema, meta["store"], nil
}

// inspect checks that a read-only database has the schema of this release, and reads the store's ID.
func (s *Store) inspect(ctx context.Context) error {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	there := false
	if err := conn.QueryRowContext(ctx, "select exists (select 1 from sqlite_master where type = 'table' and name = 'es_meta')").Scan(&there); err != nil {
		return err
	}
	if !there {
		return errors.New("not an es database: it has no events table; give another path")
	}
	have, store, err := readMeta(ctx, conn)
	switch {
	case err != nil:
		return err
	case have < schemaVersion:
		return fmt.Errorf("the database has schema version %d, this release needs %d: open it once without Config.ReadOnly to migrate it", have, schemaVersion)
	case store == "":
		return errors.New("the store's ID is missing in es_meta: the database is damaged; restore a backup")
	}
	s.id = store
	return nil
}
