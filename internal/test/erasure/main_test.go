package erasure_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

func TestMain(m *testing.M) { os.Exit(testserver.Run(m)) }

// store is what the stores of packages sqlite and postgres have in common.
type store interface {
	es.Log
	es.Snapshots
	projection.Admin
	React(ctx context.Context, r projection.Reaction) error
	Redact(ctx context.Context, stream es.Stream, version es.Version, reason string) (es.Redaction, error)
}

// database is a store whose files a test looks into.
type database struct {
	store

	// project runs a projection whose handler needs no database, once or until ctx is done.
	project func(ctx context.Context, once bool, name string, onError es.OnError, handle func(r es.Record) error) error

	open func() store // another process

	rows       func(text string) (found []string) // the tables that have a text in a row
	files      func(text string) (found []string) // the files that have a text
	everywhere func(text string) (found []string) // files, and also the write-ahead log
	clean      func()                             // does what the documentation says so that files lose what was erased
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// databases runs a test on each backend.
func databases(t *testing.T, test func(t *testing.T, db database)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { test(t, openSQLite(t)) })
	t.Run("Postgres", func(t *testing.T) { test(t, openPostgres(t)) })
}

func openSQLite(t *testing.T) database {
	folder := t.TempDir()
	open := func() *sqlite.Store {
		s, err := sqlite.Open(filepath.Join(folder, "es.db"))
		must(t, err)
		t.Cleanup(func() { must(t, s.Close()) })
		return s
	}
	s := open()
	return database{
		store: s,
		project: func(ctx context.Context, once bool, name string, onError es.OnError, handle func(r es.Record) error) error {
			return s.Project(ctx, sqlite.Projection{Name: name, OnError: onError, Retries: -1, Once: once, Handle: each[*sql.Tx](handle)})
		},
		open:       func() store { return open() },
		rows:       func(text string) []string { return find(t, folder, text) },
		files:      func(text string) []string { return find(t, folder, text) },
		everywhere: func(text string) []string { return find(t, folder, text) },
		clean:      func() {},
	}
}

func openPostgres(t *testing.T) database {
	server := testserver.Postgres(t, testserver.Postgres18)
	url := server.Database(t)
	open := func() *postgres.Store {
		s, err := postgres.Open(t.Context(), url)
		must(t, err)
		t.Cleanup(func() { must(t, s.Close()) })
		return s
	}
	s := open()
	exec := func(sql string) {
		_, err := s.Pool().Exec(t.Context(), sql)
		must(t, err)
	}
	return database{
		store: s,
		project: func(ctx context.Context, once bool, name string, onError es.OnError, handle func(r es.Record) error) error {
			return s.Project(ctx, postgres.Projection{Name: name, OnError: onError, Retries: -1, Once: once, Handle: each[pgx.Tx](handle)})
		},
		open: func() store { return open() },
		rows: func(text string) (found []string) {
			rows, err := s.Pool().Query(t.Context(), "select c.relname from pg_class c where c.relnamespace = 'es'::regnamespace and c.relkind = 'r'")
			must(t, err)
			tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
			must(t, err)
			for _, table := range tables {
				var there bool
				must(t, s.Pool().QueryRow(t.Context(), "select exists (select from es."+table+" x where strpos(x::text, $1) > 0 or strpos(x::text, $2) > 0)",
					text, hex.EncodeToString([]byte(text))).Scan(&there))
				if there {
					found = append(found, table)
				}
			}
			return found
		},
		files: func(text string) []string {
			exec("checkpoint")
			return find(t, filepath.Join(server.Dir(), "base"), text)
		},
		everywhere: func(text string) []string {
			exec("checkpoint")
			return find(t, server.Dir(), text)
		},
		clean: func() {
			for _, table := range []string{"events", "snapshots", "parked", "shards", "requests", "answers"} {
				exec("vacuum full es." + table)
			}
		},
	}
}

// each returns the handler of a projection that calls a function with every record.
func each[Tx any](handle func(r es.Record) error) func(ctx context.Context, tx Tx, records []es.Record) error {
	return func(_ context.Context, _ Tx, records []es.Record) error {
		for _, r := range records {
			if err := handle(r); err != nil {
				return err
			}
		}
		return nil
	}
}

// find returns the files in a folder that have a text.
func find(t *testing.T, folder, text string) (found []string) {
	t.Helper()
	must(t, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // a server removes files while they are listed
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(text)) {
			found = append(found, path)
		}
		return nil
	}))
	return found
}
