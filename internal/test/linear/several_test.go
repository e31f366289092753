package linear_test

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/internal/test/testserver"
)

// nemesis injects faults while the load runs, as the load progresses, so that on a slow machine faults do not dominate.
func nemesis(t *testing.T, l *load, turns int, harm ...func()) {
	ctx, cancel := context.WithCancel(t.Context())
	l.turns, l.turn = turns, make(chan struct{}, 1)
	var done sync.WaitGroup
	done.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-l.turn:
			case <-ctx.Done():
				return
			}
			time.Sleep(rand.N(5 * time.Millisecond)) // does not wait for anything: the fault may occur at any moment
			harm[i%len(harm)]()
		}
	})
	l.run(t.Context())
	cancel()
	done.Wait()
}

func TestSQLiteInSeveralProcesses(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "es.db")
	a, b, c := startProcess(t, store), startProcess(t, store), startProcess(t, store)
	l := &load{services: []service{a, b, c}, clients: 9, each: size(240)}
	killed := 0
	nemesis(t, l, 8, func() { a.replace(); killed++ }, func() { b.replace(); killed++ })
	l.check(t)
	t.Logf("%d processes were killed", killed)
}

func TestPostgresInSeveralProcesses(t *testing.T) {
	t.Run("that are killed, as are their connections", func(t *testing.T) {
		testserver.Each(t, func(t *testing.T, server *testserver.Server) {
			url := server.Database(t)
			a, b, c := startProcess(t, url), startProcess(t, url), startProcess(t, url)
			l := &load{services: []service{a, b, c}, clients: 9, each: size(240)}
			killer, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer killer.Close(context.Background())
			killed, ended := 0, 0
			nemesis(t, l, 12, func() { a.replace(); killed++ }, func() {
				var n int
				err := killer.QueryRow(t.Context(), `select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity
					where datname = current_database() and pid <> pg_backend_pid() order by random() limit 3) victims`).Scan(&n)
				if err != nil {
					t.Error(err)
				}
				ended += n
			})
			l.check(t)
			t.Logf("%d processes were killed and %d connections ended", killed, ended)
		})
	})
	t.Run("whose server is killed and restarted", func(t *testing.T) {
		server := testserver.StartPostgres(t, testserver.PostgresOptions{})
		url := server.Database(t)
		l := &load{services: []service{startProcess(t, url), startProcess(t, url), startProcess(t, url)}, clients: 9, each: size(240)}
		times := 0
		nemesis(t, l, 4, func() {
			if times++; times%2 == 0 {
				server.Restart(t, testserver.Immediate)
			} else {
				server.Kill(t)
				server.Start(t)
			}
		})
		l.check(t)
		t.Logf("the server was killed or stopped %d times", times)
	})
}
