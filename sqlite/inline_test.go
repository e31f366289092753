package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/inlinetest"
	"github.com/thalo-go/es/sqlite"
)

func inlineBackend(database func(t *testing.T) (inlinetest.Open[*sql.Tx], func(string) string)) inlinetest.Backend[*sql.Tx] {
	return inlinetest.Backend[*sql.Tx]{
		Database: database,
		Exec: func(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
			_, err := tx.ExecContext(ctx, query, args...)
			return err
		},
		End: func(_ context.Context, tx *sql.Tx) error { return tx.Commit() },
		Together: func(ctx context.Context, s inlinetest.Store[*sql.Tx], calls [][]es.Append) ([]es.Position, []error) {
			return s.(*sqlite.Store).WriteTogether(ctx, calls...)
		},
		Events: "es_events",
	}
}

func rows(t *testing.T, db *sql.DB, query string) string {
	t.Helper()
	found, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	var lines []string
	for found.Next() {
		var line any
		if err := found.Scan(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprint(line))
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func TestInline(t *testing.T) {
	inlinetest.Run(t, inlineBackend(func(t *testing.T) (inlinetest.Open[*sql.Tx], func(string) string) {
		path := filepath.Join(t.TempDir(), "es.db")
		reader := open(t, path)
		return func(inline ...sqlite.Projection) (inlinetest.Store[*sql.Tx], error) {
			return sqlite.Config{Inline: inline}.Open(path)
		}, func(query string) string { return rows(t, reader.DB(), query) }
	}))
}
