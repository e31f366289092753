package postgres_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/counted"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func TestStats(t *testing.T) {
	refuse := postgres.Projection{Name: "refuses", Handle: func(_ context.Context, _ pgx.Tx, records []es.Record) error { return counted.Refuse(records) }}
	s, err := postgres.Config{Inline: []postgres.Projection{refuse}}.Open(t.Context(), testserver.Postgres(t, testserver.Postgres18).Database(t))
	if err != nil {
		t.Fatal(err)
	}
	counted.Test(t, s)
}
