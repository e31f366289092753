package sqlite_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/sqlite"
)

type listsOf = conformance.Lists[*sql.Tx]

// lists returns the read models of the conformance suite, read with the connections of a store.
func lists(s func() *sqlite.Store) conformance.Lists[*sql.Tx] {
	const table = "create table if not exists lists (line_no integer primary key, list text not null, line text not null) strict"
	return conformance.Lists[*sql.Tx]{
		Empty: func(ctx context.Context, tx *sql.Tx, list string) error {
			if _, err := tx.ExecContext(ctx, table); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "delete from lists where list = ?", list)
			return err
		},
		Add: func(ctx context.Context, tx *sql.Tx, list, line string) error {
			_, err := tx.ExecContext(ctx, "insert into lists (list, line) values (?, ?)", list, line)
			return err
		},
		Lines: func(ctx context.Context, list string) (lines []string, err error) {
			rows, err := s().DB().QueryContext(ctx, "select line from lists where list = ? order by line_no", list)
			if err != nil && strings.Contains(err.Error(), "no such table") {
				return nil, nil
			} else if err != nil {
				return nil, err
			}
			defer rows.Close()
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

func TestProjectionsInAFile(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: TestProjectionsInMemory runs the same suite")
	}
	conformance.TestProjections(t, func(t *testing.T) (func() conformance.ReadSide[*sql.Tx], conformance.Lists[*sql.Tx]) {
		path := file(t)
		reader := open(t, path)
		return func() conformance.ReadSide[*sql.Tx] { return open(t, path) }, lists(func() *sqlite.Store { return reader })
	})
}

func TestProjectionsInMemory(t *testing.T) {
	conformance.TestProjections(t, func(t *testing.T) (func() conformance.ReadSide[*sql.Tx], conformance.Lists[*sql.Tx]) {
		s := open(t, ":memory:")
		return func() conformance.ReadSide[*sql.Tx] { return s }, lists(func() *sqlite.Store { return s })
	})
}
