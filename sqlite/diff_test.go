package sqlite_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/thalo-go/es/internal/test/differ"
	"github.com/thalo-go/es/sqlite"
)

func TestDiff(t *testing.T) {
	for _, path := range []string{":memory:", file(t)} {
		s, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		differ.Test(t, s, func(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
			_, err := tx.ExecContext(ctx, query, args...)
			return err
		})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
