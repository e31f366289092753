package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// pooled opens a store on a pool of the test.
func pooled(t testing.TB, c postgres.Config, url string) (*postgres.Store, *pgxpool.Pool) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s, err := c.New(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, pool
}

// A survivor follows a log, and continues at its position after an error.
type survivor struct {
	seen chan es.Position // the last
	done chan struct{}
	end  context.CancelFunc
	err  error
}

func survive(t testing.TB, log es.Log) *survivor {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &survivor{seen: make(chan es.Position, 1), done: make(chan struct{}), end: cancel}
	go func() {
		defer close(f.done)
		at := es.Position(0)
		for ctx.Err() == nil {
			for r, err := range es.Follow(ctx, log, at, es.Filter{}) {
				if ahead := (*es.AheadError)(nil); errors.As(err, &ahead) {
					f.err = err
					return
				}
				if err != nil {
					break
				}
				if r.Position != at+1 {
					f.err = fmt.Errorf("position %d came after %d", r.Position, at)
					return
				}
				at = r.Position
				select {
				case <-f.seen:
				default:
				}
				f.seen <- at
			}
			select {
			case <-time.After(10 * time.Millisecond): // the server is not available
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-f.done
	})
	return f
}

// reaches waits until the survivor has seen a position.
func (f *survivor) reaches(t testing.TB, position es.Position) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case at := <-f.seen:
			if at >= position {
				return
			}
		case <-f.done:
			t.Fatal(f.err)
		case <-limit:
			t.Fatalf("the follower has not seen position %d", position)
		}
	}
}

// healthy checks that a store works, its pool has all connections back, and the database agrees with the ledger.
func healthy(t testing.TB, l *ledger, s *postgres.Store, pool *pgxpool.Pool, url string) {
	t.Helper()
	if err := l.append(t.Context(), s, named("healthy", account("healthy"), 0)); err != nil {
		t.Error(err)
	}
	eventually(t, "all connections are back in the pool", func() bool { return pool.Stat().AcquiredConns() == 0 })
	l.check(t, url)
}

func never(error) bool { return false }

func TestSurvivesTerminatedBackends(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s, pool := pooled(t, postgres.Config{}, with(url, "application_name=victim&pool_max_conns=6"))
		l := newLedger()
		f := survive(t, s)
		stop := l.writers(t, s, 32, never)
		killer := connect(t, url)
		killed := 0
		for range 60 {
			var n int
			// A random choice of busy and idle sessions.
			err := killer.QueryRow(t.Context(), `select count(pg_terminate_backend(pid)) from (
				select pid from pg_stat_activity where datname = current_database() and application_name = 'victim' order by random() limit 3) victims`).Scan(&n)
			if err != nil {
				t.Fatal(err)
			}
			killed += n
			at := l.count()
			eventually(t, "appends go on", func() bool { return l.count() > at+4 })
		}
		stop()
		t.Logf("%d backends were terminated, %d appends acknowledged", killed, l.count())
		healthy(t, l, s, pool, url)
		f.reaches(t, es.Position(l.count()))
		if n := l.unknown(); n > 0 {
			t.Errorf("%d appends were answered with es.ErrUnknownOutcome, and no context had ended", n)
		}
	})
}

func TestSurvivesRestarts(t *testing.T) {
	t.Parallel()
	immediately := func(t *testing.T, s *testserver.Server) { s.Restart(t, testserver.Immediate) }
	fast := func(t *testing.T, s *testserver.Server) { s.Restart(t, testserver.Fast) }
	kill := func(t *testing.T, s *testserver.Server) { s.Kill(t); s.Start(t) }
	slow := func(t *testing.T, s *testserver.Server) {
		s.Kill(t)
		<-time.After(3 * time.Second)
		s.Start(t)
	}
	for name, restarts := range map[string][]func(*testing.T, *testserver.Server){
		"stopped":                  {immediately, fast, immediately},
		"killed":                   {kill, kill},
		"killed, and down for 3 s": {slow},
	} {
		t.Run(name, func(t *testing.T) {
			server := testserver.StartPostgres(t, testserver.PostgresOptions{})
			url := server.Database(t)
			s, pool := pooled(t, postgres.Config{}, url)
			l := newLedger()
			f := survive(t, s)
			stop := l.writers(t, s, 32, never)
			for _, restart := range restarts {
				at := l.count()
				eventually(t, "appends go on", func() bool { return l.count() > at+200 })
				restart(t, server)
			}
			at := l.count()
			eventually(t, "appends go on after the restart", func() bool { return l.count() > at+200 })
			stop()
			healthy(t, l, s, pool, url)
			f.reaches(t, es.Position(l.count()))
		})
	}
}

func TestServerThatStaysDown(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	s, pool := pooled(t, postgres.Config{ConnectTimeout: 300 * time.Millisecond}, url)
	l := newLedger()
	said := func(err error) bool {
		return errors.Is(err, es.ErrUnknownOutcome) || strings.Contains(err.Error(), "nothing was written")
	}
	stop := l.writers(t, s, 16, said)
	eventually(t, "there are some appends", func() bool { return l.count() > 100 })
	server.Stop(t, testserver.Immediate)
	// Appends in flight when the server stopped wait until they are resolved. The contexts of the following ones end.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			a := named(fmt.Sprint("away ", i), account(fmt.Sprint("away ", i)), 0)
			if err := l.append(ctx, s, a); err == nil || errors.Is(err, es.ErrUnknownOutcome) {
				t.Errorf("an append to a stopped server: %v", err)
			}
		})
	}
	all.Wait()
	server.Start(t)
	at := l.count()
	eventually(t, "appends go on", func() bool { return l.count() > at+100 })
	stop()
	healthy(t, l, s, pool, url)
}

func TestPausedServer(t *testing.T) {
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	s, pool := pooled(t, postgres.Config{}, url)
	l := newLedger()
	_ = l.append(t.Context(), s, named("before", account("a"), 0)) // the ledger has the error
	server.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := l.append(ctx, s, named("paused", account("a"), 1))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	server.Resume(t)
	healthy(t, l, s, pool, url)
}

func TestFailover(t *testing.T) {
	t.Run("to a synchronous standby", func(t *testing.T) {
		primary := testserver.StartPostgres(t, testserver.PostgresOptions{})
		url := primary.Database(t)
		proxy := testserver.StartProxy(t, url)
		s, pool := pooled(t, postgres.Config{}, proxy.Through(url))
		standby := primary.Standby(t)
		run(t, url, "alter system set synchronous_standby_names = '*'", "select pg_reload_conf()")
		eventually(t, "commits wait for the standby", func() bool {
			return scalar[int](t, url, "select count(*) from pg_stat_replication where sync_state = 'sync'") == 1
		})
		l := newLedger()
		f := survive(t, s)
		stop := l.writers(t, s, 16, never)
		eventually(t, "there are some appends", func() bool { return l.count() > 200 })
		primary.Kill(t)
		standby.Promote(t)
		url = standby.URL(scalar[string](t, standby.URL("postgres"), "select datname from pg_database where datname like 'testfailover%'"))
		run(t, standby.URL("postgres"), "alter system reset synchronous_standby_names", "select pg_reload_conf()")
		proxy.Target(url)
		proxy.Cut()
		at := l.count()
		eventually(t, "appends go on", func() bool { return l.count() > at+200 })
		stop()
		healthy(t, l, s, pool, url)
		f.reaches(t, es.Position(l.count()))
	})
	t.Run("to a standby that is behind", func(t *testing.T) {
		primary := testserver.StartPostgres(t, testserver.PostgresOptions{})
		url := primary.Database(t)
		proxy := testserver.StartProxy(t, url)
		s, pool := pooled(t, postgres.Config{}, proxy.Through(url))
		standby := primary.Standby(t)
		l := newLedger()
		f := survive(t, s)
		stop := l.writers(t, s, 16, never)
		eventually(t, "there are some appends", func() bool { return l.count() > 200 })
		received(t, url)
		standby.Stop(t, testserver.Fast)
		at := l.count()
		eventually(t, "appends go on", func() bool { return l.count() > at+200 })
		primary.Kill(t)
		inside(t, 1, "postgres.(*Store).acquire") // so every answer of the primary was read
		standby.Start(t)
		standby.Promote(t)
		url = standby.URL(scalar[string](t, standby.URL("postgres"), "select datname from pg_database where datname like 'testfailover%'"))
		l.forget(scalar[es.Position](t, url, "select max(position) from es.events")) // the primary's last answer was counted long ago
		proxy.Target(url)
		proxy.Cut()
		at = l.count()
		eventually(t, "appends go on", func() bool { return l.count() > at+200 })
		stop()
		healthy(t, l, s, pool, url)
		f.end()
		<-f.done
		if ahead := (*es.AheadError)(nil); f.err != nil && !errors.As(f.err, &ahead) { // or it came when the log had grown past it
			t.Error(f.err)
		}
	})
}

// received waits until the standby has all that the primary has written so far.
func received(t testing.TB, primary string) {
	t.Helper()
	end := scalar[string](t, primary, "select pg_current_wal_flush_lsn()::text")
	eventually(t, "the standby has received the log up to "+end, func() bool {
		return scalar[bool](t, primary, "select coalesce(bool_or(flush_lsn >= $1::text::pg_lsn), false) from pg_stat_replication", end)
	})
}
