package postgres_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/internal/test/differ"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	s, err := postgres.Open(t.Context(), with(testserver.Postgres(t, testserver.Postgres14).Database(t), "pool_max_conns=4"))
	if err != nil {
		t.Fatal(err)
	}
	differ.Test(t, s, func(ctx context.Context, tx pgx.Tx, query string, args ...any) error {
		_, err := tx.Exec(ctx, query, args...)
		return err
	})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
