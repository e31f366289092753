package postgres_test

import (
	"fmt"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func TestConformance(t *testing.T) {
	for _, variant := range []struct {
		name       string
		version    testserver.Version
		parameters string
	}{
		{"as it comes", testserver.Postgres18, ""},
		{"one connection, and serializable by default", testserver.Postgres18, "pool_max_conns=1&default_transaction_isolation=serializable"},
		{"two connections, repeatable read by default, and no prepared statements", testserver.Postgres14, "pool_max_conns=2&default_transaction_isolation=repeatable%20read&default_query_exec_mode=exec"},
	} {
		t.Run(fmt.Sprintf("%.2s %s", variant.version, variant.name), func(t *testing.T) {
			t.Parallel()
			server := testserver.Postgres(t, variant.version)
			conforms(t, with(server.Database(t), variant.parameters))
		})
	}
	t.Run("through pgbouncer, which the store detects", func(t *testing.T) {
		t.Parallel()
		server := testserver.Postgres(t, testserver.Postgres18)
		pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 3})
		conforms(t, pooler.Through(server.Database(t)))
	})
}

// conforms runs the conformance suites on a database, with one schema for each clause.
func conforms(t *testing.T, url string) {
	clause := 0
	next := func() postgres.Config {
		clause++
		return postgres.Config{Schema: fmt.Sprint("clause ", clause)}
	}
	conformance.TestLog(t, func(t *testing.T) func() es.Log {
		c := next()
		return func() es.Log { return openWith(t, c, url) }
	})
	conformance.TestSnapshots(t, func(t *testing.T) func() es.Snapshots {
		c := next()
		return func() es.Snapshots { return openWith(t, c, url) }
	})
	conformance.TestRedaction(t, func(t *testing.T) func() conformance.Redactable {
		c := next()
		return func() conformance.Redactable { return openWith(t, c, url) }
	})
	conformance.TestLeases(t, func(t *testing.T) func() es.Leases {
		c := next()
		return func() es.Leases { return openWith(t, c, url) }
	})
	conformance.TestCheckpoints(t, func(t *testing.T) func() es.Checkpoints {
		c := next()
		return func() es.Checkpoints { return openWith(t, c, url) }
	})
}
