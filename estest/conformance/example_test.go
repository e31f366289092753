package conformance_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// openStore opens a store on a file and closes it at the end of the test.
func openStore(t *testing.T, path string) *sqlite.Store {
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// This is the complete test of a store on files. Each database is a new file, and each call of the returned function opens it again.
func ExampleTestStore() {
	_ = func(t *testing.T) { // func TestStore(t *testing.T)
		conformance.TestStore(t, func(t *testing.T) func() es.Store {
			path := filepath.Join(t.TempDir(), "es.db")
			return func() es.Store { return openStore(t, path) }
		})
	}
	// Output:
}

// This is the complete test of a log on files. It includes what TestStore tests.
func ExampleTestLog() {
	_ = func(t *testing.T) { // func TestLog(t *testing.T)
		conformance.TestLog(t, func(t *testing.T) func() es.Log {
			path := filepath.Join(t.TempDir(), "es.db")
			return func() es.Log { return openStore(t, path) }
		})
	}
	// Output:
}

// The read models of the suite are lists of lines. Here they are one table of SQLite.
func ExampleTestProjections() {
	_ = func(t *testing.T) { // func TestProjections(t *testing.T)
		conformance.TestProjections(t, func(t *testing.T) (func() conformance.ReadSide[*sql.Tx], conformance.Lists[*sql.Tx]) {
			path := filepath.Join(t.TempDir(), "es.db")
			s := openStore(t, path)
			open := func() conformance.ReadSide[*sql.Tx] { return openStore(t, path) }
			return open, listsIn(s.DB())
		})
	}
	// Output:
}

// A source is tested with a log that its records come from and a store for read models. Here the source is the log itself.
func ExampleTestSource() {
	_ = func(t *testing.T) { // func TestSource(t *testing.T)
		conformance.TestSource(t, func(t *testing.T) conformance.SourceUnderTest[*sql.Tx] {
			log, s := new(es.Mem), openStore(t, filepath.Join(t.TempDir(), "es.db"))
			return conformance.SourceUnderTest[*sql.Tx]{
				Log:    log,
				Source: func() projection.Source { return projection.FromLog(log) },
				Side:   func() conformance.ReadSide[*sql.Tx] { return s },
				Lists:  listsIn(s.DB()),
			}
		})
	}
	// Output:
}

// listsIn returns lists that are kept in the table lists. Empty creates the table, because the connections of db are read-only.
func listsIn(db *sql.DB) conformance.Lists[*sql.Tx] {
	return conformance.Lists[*sql.Tx]{
		Empty: func(ctx context.Context, tx *sql.Tx, list string) error {
			_, err := tx.ExecContext(ctx, `
				create table if not exists lists (id integer primary key, list text not null, line text not null) strict;
				delete from lists where list = ?`, list)
			return err
		},
		Add: func(ctx context.Context, tx *sql.Tx, list, line string) error {
			_, err := tx.ExecContext(ctx, "insert into lists (list, line) values (?, ?)", list, line)
			return err
		},
		Lines: func(ctx context.Context, list string) ([]string, error) {
			var tables int
			err := db.QueryRowContext(ctx, "select count(*) from sqlite_schema where name = 'lists'").Scan(&tables)
			if err != nil || tables == 0 {
				return nil, err
			}
			rows, err := db.QueryContext(ctx, "select line from lists where list = ? order by id", list)
			if err != nil {
				return nil, err
			}
			defer rows.Close()
			var lines []string
			for rows.Next() {
				var line string
				if err := rows.Scan(&line); err != nil {
					return nil, err
				}
				lines = append(lines, line)
			}
			return lines, rows.Err()
		},
	}
}
