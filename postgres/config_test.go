package postgres_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func TestNegativeSettingsAreRefused(t *testing.T) {
	const url = "postgres://localhost:1/none" // a setting is checked before the server is asked
	pool := newPool(t, url)
	for field, c := range map[string]postgres.Config{
		"ConnectTimeout": {ConnectTimeout: -time.Second},
		"PollInterval":   {PollInterval: -1},
	} {
		for name, call := range map[string]func() error{
			"Open":    func() error { _, err := c.Open(t.Context(), url); return err },
			"New":     func() error { _, err := c.New(t.Context(), pool); return err },
			"Migrate": func() error { return c.Migrate(t.Context(), pool) },
		} {
			if err := call(); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), field) {
				t.Errorf("%s with a negative %s: got %v, want es.ErrInvalid and the field's name", name, field, err)
			}
		}
	}
}

func TestPoolBelongsToItsOpener(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	isClosed := func(pool *pgxpool.Pool) bool { return pool.Ping(t.Context()) != nil }
	own := open(t, url)
	pool := newPool(t, url)
	given, err := postgres.New(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	if given.Pool() != pool {
		t.Error("Pool is not the pool that New got")
	}
	for _, s := range []*postgres.Store{own, given} {
		if isClosed(s.Pool()) {
			t.Error("the pool of an open store is closed")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if !isClosed(own.Pool()) {
		t.Error("Close left the pool open that Open made")
	}
	if isClosed(pool) {
		t.Error("Close closed the pool that New got")
	}
}
