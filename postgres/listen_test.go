package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// The password in the URL has expired, and a hook of the pool fetches another for each connection, also for the one that listens.
func TestTheListenerUsesTheHooksOfThePool(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{Scram: true})
	good := server.Database(t)
	u, err := url.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	u.User = url.UserPassword(u.User.Username(), "expired")
	var before, after atomic.Int64
	s := openPool(t, newPool(t, u.String(), func(config *pgxpool.Config) {
		config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
			before.Add(1)
			c.Password = password
			return nil
		}
		config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			after.Add(1)
			_, err := conn.Exec(ctx, "set application_name = 'made by the pool'")
			return err
		}
	}))
	f := follow(t, s, 0)
	eventually(t, "a session listens", func() bool {
		return scalar[int](t, good, "select count(*) from pg_stat_activity a join pg_locks l using (pid) where l.locktype = 'advisory' and l.mode = 'ShareLock' and a.application_name = 'made by the pool'") == 1
	})
	mustAppend(t, open(t, good), at(account("a"), 0, 1))
	f.sees(t, 1, 1)
	if n := strings.Count(server.Log(), "password authentication failed"); n != 0 {
		t.Errorf("%d logins were refused", n)
	}
	if before.Load() == 0 || before.Load() != after.Load() {
		t.Errorf("BeforeConnect was called %d times and AfterConnect %d times", before.Load(), after.Load())
	}
}

// A standby refuses LISTEN, and it is not asked: the store polls, and says so once.
func TestAStandbyIsPolled(t *testing.T) {
	t.Parallel()
	for _, version := range []testserver.Version{testserver.Postgres14, testserver.Postgres18} {
		t.Run(string(version), func(t *testing.T) {
			primary := testserver.StartPostgres(t, testserver.PostgresOptions{Version: version})
			address := primary.Database(t)
			w := open(t, address)
			mustAppend(t, w, at(account("a"), 0, 1))
			standby := primary.Standby(t)
			standby.CaughtUp(t, primary)
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			var log logged.Text
			r := openWith(t, postgres.Config{ReadOnly: true, Logger: log.Logger()}, standby.URL(u.Path[1:]))
			f := follow(t, r, 0)
			f.sees(t, 1, 1)
			eventually(t, "the store has said that it polls", func() bool { return strings.Contains(log.String(), "notifications do not arrive") })
			for v := range es.Version(3) {
				mustAppend(t, w, at(account("a"), 1+v, 1))
				f.sees(t, es.Position(2+v), es.Position(2+v))
			}
			if n := strings.Count(standby.Log(), "cannot execute LISTEN"); n != 0 {
				t.Errorf("LISTEN was tried %d times", n)
			}
			if n := strings.Count(log.String(), "notifications do not arrive"); n != 1 || !strings.Contains(log.String(), "standby") {
				t.Errorf("it was said %d times:\n%s", n, log.String())
			}
		})
	}
}

// endSessions ends the other sessions of a database, as an administrator does.
func endSessions(t *testing.T, url string) {
	t.Helper()
	run(t, url, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
}

// The session is ended while a statement is prepared on it. The caller gets the reason, and not that the connection is closed.
func TestASessionThatEndsWhilePreparing(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s, tap := tapped(t, with(url, "pool_max_conns=1"))
		mustAppend(t, open(t, url), at(account("a"), 0, 1))
		for what, do := range map[string]struct {
			request string
			call    func() error
		}{
			"Read": {"e.kind operator(pg_catalog.=) $1", func() error { _, err := drain(s.Read(t.Context(), account("a"), 0)); return err }},
			"All":  {"e.position operator(pg_catalog.>) $1", func() error { _, err := drain(s.All(t.Context(), 0, es.Filter{})); return err }},
			"LoadSnapshot": {".snapshots where kind", func() error {
				_, err := s.LoadSnapshot(t.Context(), account("a"))
				return err
			}},
		} {
			tap.end(do.request, func() { endSessions(t, url) })
			err := do.call()
			if code(err) != "57P01" || !errors.Is(err, es.ErrUnavailable) {
				t.Errorf("%s: got %v, want 57P01 and es.ErrUnavailable", what, err)
			}
		}
		tap.end("append_", func() { endSessions(t, url) })
		mustAppend(t, s, at(account("b"), 0, 1))
	})
}

// A session that idles for longer than the server allows is ended with a code of its own.
func TestIdleSessionsAreEnded(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, with(url, "idle_session_timeout=50&pool_max_conns=1"))
		for _, name := range []string{"Append", "append nothing", "Read", "All", "a filter", "Head", "SaveSnapshot", "LoadSnapshot"} {
			eventually(t, "the idle session is ended", func() bool {
				return scalar[int](t, url, "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()") == 0
			})
			if err := calls(t, s)[name](); err != nil && !errors.Is(err, es.ErrUnavailable) {
				t.Errorf("%s: got %v, want es.ErrUnavailable", name, err)
			}
		}
	})
}
