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

// migrate brings the database to the schema of this release. Any number of processes may do it at once: one does, the others wait.
func (s *Store) migrate(ctx context.Context) error {
	conn, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := s.migrateWithin(ctx, conn); err != nil {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "rollback") // the first error says what is wrong
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
	// Also when they are there: SQLite writes nothing then, but refuses a file that may only be read, better now than at the first append.
	_, err = conn.ExecContext(ctx, "insert or replace into es_meta (key, value) values ('schema', ?), ('store', ?)", strconv.Itoa(schemaVersion), s.id)
	return err
}

// readMeta returns the schema version of a database, 0 if it has none, and the store's id. A version that this release does not know makes an error.
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
			return 0, "", fmt.Errorf("schema version %q in es_meta is none: the database is damaged; restore a backup", text)
		}
	}
	if schema > schemaVersion {
		return 0, "", fmt.Errorf("the database has schema version %d and this release knows versions up to %d: it was used by a newer release; upgrade this program", schema, schemaVersion)
	}
	return schema, meta["store"], nil
}

// inspect does for a store that only reads what migrate does for the others: the database must be as this release has it.
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
		return errors.New("it has no events: no store was ever made in it; give the path of another")
	}
	have, store, err := readMeta(ctx, conn)
	switch {
	case err != nil:
		return err
	case have < schemaVersion:
		return fmt.Errorf("the database has schema version %d, this release needs %d, and it was opened to be read: open it once without Config.ReadOnly, which migrates it", have, schemaVersion)
	case store == "":
		return errors.New("the store's id is missing in es_meta: the database is damaged; restore a backup")
	}
	s.id = store
	return nil
}
