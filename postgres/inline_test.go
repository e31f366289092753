package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/inlinetest"
	"github.com/thalo-go/es/internal/testserver"
	"github.com/thalo-go/es/postgres"
)

func inlineBackend(server *testserver.Server, through func(url string) string) inlinetest.Backend[pgx.Tx] {
	return inlinetest.Backend[pgx.Tx]{
		Database: func(t *testing.T) (inlinetest.Open[pgx.Tx], func(string) string) {
			url := server.Database(t)
			open(t, url) // so that the tables are there to be asked
			reader := connect(t, url)
			return func(inline ...postgres.Projection) (inlinetest.Store[pgx.Tx], error) {
				return postgres.Config{Inline: inline}.Open(t.Context(), through(url))
			}, func(query string) string { return lines(t, reader, query) }
		},
		Exec: func(ctx context.Context, tx pgx.Tx, query string, args ...any) error {
			_, err := tx.Exec(ctx, query, args...)
			return err
		},
		End: func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
		Together: func(ctx context.Context, s inlinetest.Store[pgx.Tx], calls [][]es.Append) ([]es.Position, []error) {
			return s.(*postgres.Store).WriteTogether(ctx, calls...)
		},
		Events: "es.events",
	}
}

func lines(t *testing.T, conn *pgx.Conn, query string) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[any])
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, line := range found {
		text = append(text, fmt.Sprint(line))
	}
	return strings.Join(text, "\n")
}

func TestInline(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		inlinetest.Run(t, inlineBackend(server, func(url string) string { return url }))
	})
}
