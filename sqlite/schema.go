package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es/internal/migration"
)

// migrations/001.sql brings an empty database to schema version 1, 002.sql from there to 2, and so on. From 004.sql on they are expansions.
//
//go:embed migrations
var files embed.FS

// schemaVersion is the version of the schema, which older releases must have as well. Only a migration that they cannot work with raises it.
const schemaVersion = 3

var migrations = migration.Set{Files: files, Folder: "migrations", Version: schemaVersion}

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
	err = conn.Raw(func(driver any) error {
		path := driver.(*sqlite3.SQLiteConn).GetFilename("main")
		s.log.init(path)
		return s.files.note(path) // within the transaction, in which all files exist
	})
	if err != nil {
		return err
	}
	return s.commit(func() error {
		_, err := conn.ExecContext(ctx, "commit")
		return err
	})
}

func (s *Store) migrateWithin(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, createMeta); err != nil {
		return err
	}
	meta, err := readMeta(ctx, conn)
	if err != nil {
		return err
	}
	state, pending, err := migrations.Pending(meta)
	if err != nil {
		return err
	}
	for _, m := range pending {
		if _, err := conn.ExecContext(ctx, m.SQL); err != nil {
			return fmt.Errorf("migration %03d.sql: %w", m.To.Expansion, err)
		}
		state = m.To
	}
	s.id = meta[keyStore]
	if s.id == "" {
		s.id = rand.Text()
	}
	meta = state.Meta()
	meta[keyStore] = s.id
	for key, value := range meta {
		// Also if the row exists: SQLite writes nothing then, but returns an error now if the file is read-only, instead of at the first append.
		if _, err = conn.ExecContext(ctx, "insert or replace into es_meta (key, value) values (?, ?)", key, value); err != nil {
			return err
		}
	}
	return nil
}

const keyStore = "store"

// readMeta returns the rows of es_meta.
func readMeta(ctx context.Context, conn *sql.Conn) (map[string]string, error) {
	rows, err := conn.QueryContext(ctx, "select key, value from es_meta")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	meta := make(map[string]string)
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			return nil, err
		}
		meta[key] = value
	}
	return meta, rows.Err()
}

// inspect checks that a read-only database has the schema of this release, and reads the store's ID.
func (s *Store) inspect(ctx context.Context) error {
	conn, err := s.readerConn(ctx)
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
	meta, err := readMeta(ctx, conn)
	if err != nil {
		return err
	}
	_, pending, err := migrations.Pending(meta)
	switch {
	case err != nil:
		return err
	case len(pending) > 0:
		return errors.New("the database is of an older release: open it once without Config.ReadOnly to migrate it")
	case meta[keyStore] == "":
		return errors.New("the store's ID is missing in es_meta: the database is damaged; restore a backup")
	}
	s.id = meta[keyStore]
	return conn.Raw(func(driver any) error { return s.files.note(driver.(*sqlite3.SQLiteConn).GetFilename("main")) })
}
