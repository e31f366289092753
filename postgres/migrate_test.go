package postgres_test

import (
	"testing"
	"time"

	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func TestOpenMigratesTheSchemaOfTheFirstRelease(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		if err := postgres.MigrateTo(t.Context(), newPool(t, url), 1); err != nil {
			t.Fatal(err)
		}
		if version := scalar[string](t, url, "select value from es.meta where key = 'schema'"); version != "1" {
			t.Fatalf("the schema has version %s", version)
		}
		run(t, url, "select es.append_one(1, 0, 0, 'account', 'a', 1, 'happened', 'one', '')")
		id := scalar[string](t, url, "select value from es.meta where key = 'store'")
		s := open(t, url)
		mustAppend(t, s, at(account("a"), 1, 1))
		if s.ID() != id || len(dense(t, s)) != 2 {
			t.Errorf("it has the ID %q and %d records, want %q and 2", s.ID(), len(dense(t, s)), id)
		}
		if l, err := s.AcquireLease(t.Context(), "relay", "a", time.Hour, ""); err != nil || l.Holder != "a" {
			t.Errorf("the lease is %+v, %v", l, err)
		}
	})
}

// A release that has not all migrations of another one works beside it, as long as both have the same schema version.
func TestOpenAcceptsAnExpansionOfANewerRelease(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		mustAppend(t, open(t, url), at(account("a"), 0, 1))
		run(t, url, "update es.meta set value = '999' where key = 'expansion'")
		mustAppend(t, open(t, url), at(account("a"), 1, 1))
		if expansion := scalar[string](t, url, "select value from es.meta where key = 'expansion'"); expansion != "999" {
			t.Errorf("the expansion is %s now", expansion)
		}
	})
}
