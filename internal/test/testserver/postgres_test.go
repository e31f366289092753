package testserver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/thalo-go/es/internal/test/testserver"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func scalar[T any](t *testing.T, url, sql string, args ...any) T {
	t.Helper()
	value, err := ask[T](t, url, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func ask[T any](t *testing.T, url, sql string, args ...any) (value T, err error) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return value, err
	}
	defer c.Close(t.Context())
	return value, c.QueryRow(t.Context(), sql, args...).Scan(&value)
}

func exec(t *testing.T, url string, statements ...string) {
	t.Helper()
	c := connect(t, url)
	defer c.Close(t.Context())
	for _, sql := range statements {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	const limit = 2 * time.Minute
	for end := time.Now().Add(limit); ; <-time.After(10 * time.Millisecond) {
		done := is()
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		if done {
			return
		}
	}
}

func TestEach(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		t.Run("runs the requested release", func(t *testing.T) {
			want := "PostgreSQL " + strings.SplitN(string(server.Version()), ".", 2)[0] + "."
			if got := scalar[string](t, url, "select version()"); !strings.HasPrefix(got, want) && server.Version() != "external" {
				t.Errorf("version() = %s, want %s", got, want)
			}
		})
		t.Run("commits are durable", func(t *testing.T) {
			for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
				if got := scalar[string](t, url, "select current_setting($1)", setting); got != "on" {
					t.Errorf("%s = %s, want on", setting, got)
				}
			}
		})
		t.Run("is shared with the next test", func(t *testing.T) {
			if again := testserver.Postgres(t, server.Version()); again != server {
				t.Error("a second server was started")
			}
		})
	})
}

func TestDatabase(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		var gone string
		t.Run("belongs to one test", func(t *testing.T) {
			one, other := server.Database(t), server.Database(t)
			exec(t, one, "create table mine (n int)")
			if scalar[bool](t, other, "select to_regclass('mine') is not null") {
				t.Error("a table of one database is visible in the other")
			}
			gone = scalar[string](t, one, "select current_database()")
		})
		t.Run("is dropped despite a connection", func(t *testing.T) {
			var name string
			test := t
			t.Run("test", func(t *testing.T) {
				url := server.Database(t)
				name = scalar[string](t, url, "select current_database()")
				connected, err := pgx.Connect(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				test.Cleanup(func() { connected.Close(context.Background()) })
			})
			const exists = "select exists (select from pg_database where datname = any($1))"
			if scalar[bool](t, server.Database(t), exists, []string{name, gone}) {
				t.Errorf("%s or %s still exists", name, gone)
			}
		})
	})
}

func TestStartPostgres(t *testing.T) {
	t.Parallel()
	for _, version := range []testserver.Version{testserver.Postgres14, testserver.Postgres18, testserver.System} {
		t.Run(string(version), func(t *testing.T) {
			t.Parallel()
			server := testserver.StartPostgres(t, testserver.PostgresOptions{Version: version, Settings: map[string]string{
				"max_connections": "17", "default_transaction_isolation": "serializable",
			}})
			url := server.Database(t)
			if got := scalar[string](t, url, "select current_setting('max_connections') || current_setting('transaction_isolation')"); got != "17serializable" {
				t.Errorf("settings are %s", got)
			}
			exec(t, url, "create table kept (n int)", "insert into kept values (1)")
			port, pid := server.Port(), server.PID()

			restarts := map[string]func(){
				"fast restart":      func() { server.Restart(t, testserver.Fast) },
				"immediate restart": func() { server.Restart(t, testserver.Immediate) },
				"smart stop":        func() { server.Stop(t, testserver.Smart); server.Start(t) },
				"kill":              func() { server.Kill(t); server.Start(t) },
			}
			for name, restart := range restarts {
				restart()
				if got := scalar[int](t, url, "select n from kept"); got != 1 {
					t.Errorf("after %s: n = %d", name, got)
				}
				if server.Port() != port || server.PID() == pid || server.PID() == 0 {
					t.Errorf("after %s: port %d was %d, pid %d was %d", name, server.Port(), port, server.PID(), pid)
				}
				pid = server.PID()
			}
			if !strings.Contains(server.Log(), "not properly shut down") {
				t.Errorf("the log has no sign of a crash:\n%s", server.Log())
			}
		})
	}
}

func TestStopped(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)

	t.Run("a killed server closes its sessions and refuses new ones", func(t *testing.T) {
		c := connect(t, url)
		server.Kill(t)
		if _, err := c.Exec(t.Context(), "select 1"); err == nil {
			t.Error("a session outlived its server")
		}
		if _, err := pgx.Connect(t.Context(), url); err == nil {
			t.Error("a killed server accepted a session")
		}
		if server.PID() != 0 {
			t.Error("a killed server has a pid")
		}
		server.Start(t)
	})
	t.Run("a paused server answers after Resume", func(t *testing.T) {
		c := connect(t, url)
		server.Pause(t)
		answered := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "select 1")
			answered <- err
		}()
		select {
		case err := <-answered:
			t.Errorf("a paused server answered: %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		server.Resume(t)
		if err := <-answered; err != nil {
			t.Errorf("after the pause: %v", err)
		}
	})
	t.Run("a paused server can be killed", func(t *testing.T) {
		server.Pause(t)
		server.Kill(t)
		server.Start(t)
	})
}

func TestScram(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{Scram: true})
	url := server.Database(t)
	exec(t, url, "create role reader login password 'right'")
	if got := scalar[string](t, testserver.As(url, "reader", "right"), "select current_user::text"); got != "reader" {
		t.Errorf("logged in as %s", got)
	}
	_, err := pgx.Connect(t.Context(), testserver.As(url, "reader", "wrong"))
	if refused := (*pgconn.PgError)(nil); !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("with a wrong password: %v", err)
	}
}

func TestBackup(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	exec(t, url, "create table log (n int)", "insert into log values (1)")
	server.Stop(t, testserver.Fast)
	backup := server.Backup(t)
	server.Start(t)
	exec(t, url, "insert into log values (2)")
	server.Stop(t, testserver.Immediate)
	server.Restore(t, backup)
	server.Start(t)
	if got := scalar[int](t, url, "select max(n) from log"); got != 1 {
		t.Errorf("a restored server has row %d, want 1 as the last", got)
	}
}

func TestStandby(t *testing.T) {
	t.Parallel()
	primary := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := primary.Database(t)
	exec(t, url, "create table log (n int)")
	standby := primary.Standby(t)
	proxy := testserver.StartProxy(t, url)
	through := proxy.Through(url)
	exec(t, through, "insert into log values (1)")
	standby.CaughtUp(t, primary)

	primary.Kill(t)
	standby.Promote(t)
	proxy.Target(standby.URL("postgres"))
	proxy.Cut()
	exec(t, through, "insert into log values (2)")
	if got := scalar[int](t, through, "select sum(n) from log"); got != 3 {
		t.Errorf("after the failover the rows add up to %d, want 3", got)
	}
}

func TestTool(t *testing.T) {
	t.Parallel()
	from := testserver.StartPostgres(t, testserver.PostgresOptions{Version: testserver.System})
	url := from.Database(t)
	exec(t, url, "create table kept (n int)", "insert into kept values (7)")
	t.Run("dumps and restores", func(t *testing.T) {
		dump, err := testserver.Tool(t, "pg_dump", url).Output()
		if err != nil {
			t.Fatalf("pg_dump: %v", err)
		}
		into := from.Database(t)
		restore := testserver.Tool(t, "psql", "-v", "ON_ERROR_STOP=1", "-q", into)
		restore.Stdin = strings.NewReader(string(dump))
		if out, err := restore.CombinedOutput(); err != nil {
			t.Fatalf("psql: %v\n%s", err, out)
		}
		if got := scalar[int](t, into, "select n from kept"); got != 7 {
			t.Errorf("n = %d after restore", got)
		}
	})
	t.Run("sets the transaction id of a stopped server", func(t *testing.T) {
		from.Stop(t, testserver.Fast)
		reset := testserver.Tool(t, "pg_resetwal", "-x", "200000000", "-D", from.Dir())
		if out, err := reset.CombinedOutput(); err != nil {
			t.Fatalf("pg_resetwal: %v\n%s", err, out)
		}
		// The file with the status of those transactions is missing, because pg_resetwal skipped it.
		status := fmt.Sprintf("%s/pg_xact/%04X", from.Dir(), 200000000/(8192*4*32))
		if err := os.WriteFile(status, make([]byte, 8192*32), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(status, 0o666); err != nil {
			t.Fatal(err)
		}
		from.Start(t)
		if got := scalar[int64](t, url, "select txid_current()"); got < 200000000 {
			t.Errorf("the transaction id is %d", got)
		}
	})
}

func TestLeaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("use a server and a proxy", func(t *testing.T) {
		server := testserver.StartPostgres(t, testserver.PostgresOptions{})
		proxy := testserver.StartProxy(t, server.URL("postgres"))
		connect(t, proxy.Through(server.Database(t)))
		proxy.Stall()
	})
	goleak.VerifyNone(t, before)
}
