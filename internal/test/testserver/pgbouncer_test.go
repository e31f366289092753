package testserver_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/internal/test/testserver"
)

func TestPgBouncer(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		direct := server.Database(t)
		pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 2, Users: map[string]string{"visitor": "hello"}})
		pooled := pooler.Through(direct)

		t.Run("shares one connection among many clients, by transaction", func(t *testing.T) {
			const clients = 20
			var mu sync.Mutex
			backends := map[int32]bool{}
			var all sync.WaitGroup
			for range clients {
				// All clients connect first: with a pool of sessions only two of them could work.
				c := connect(t, pooled)
				all.Go(func() {
					var pid int32
					if err := c.QueryRow(t.Context(), "select pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid); err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					backends[pid] = true
				})
			}
			all.Wait()
			if len(backends) > 2 {
				t.Errorf("%d clients got %d connections of the server, want at most 2", clients, len(backends))
			}
		})
		t.Run("accepts other users", func(t *testing.T) {
			exec(t, direct, "create role visitor login password 'hello'")
			defer exec(t, direct, "drop role visitor")
			got, err := ask[string](t, testserver.As(pooled, "visitor", "hello"), "select current_user::text", pgx.QueryExecModeExec)
			if err != nil || got != "visitor" {
				t.Errorf("logged in as %q, %v", got, err)
			}
		})
	})
}

func TestPgBouncerServerRestart(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{Scram: true})
	pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{})
	pooled := pooler.Through(server.Database(t))
	server.Kill(t)
	if _, err := ask[int](t, pooled+"&connect_timeout=1", "select 1", pgx.QueryExecModeExec); err == nil {
		t.Error("got an answer without a server")
	}
	server.Start(t)
	eventually(t, "the pooler has reconnected to its server", func() bool {
		_, err := ask[int](t, pooled, "select 1", pgx.QueryExecModeExec)
		return err == nil
	})
}

func TestPgBouncerIsRestartedWhenItEnds(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, testserver.Postgres18)
	pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{})
	pooled := pooler.Through(server.Database(t))
	console := connect(t, pooler.URL("pgbouncer"))
	_, _ = console.Exec(t.Context(), "shutdown", pgx.QueryExecModeSimpleProtocol) // answered or not
	eventually(t, "the pooler has restarted and accepts clients", func() bool {
		_, err := ask[int](t, pooled, "select 1", pgx.QueryExecModeExec)
		return err == nil && strings.Count(pooler.Log(), "process up") == 2
	})
}
