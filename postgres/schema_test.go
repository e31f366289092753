package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// openInChild opens a store, appends to it and prints its id.
func openInChild(ctx context.Context, arguments []string) error {
	s, err := postgres.Open(ctx, arguments[0])
	if err != nil {
		return err
	}
	if _, err := s.Append(ctx, add(account("a"), 1)); err != nil {
		return err
	}
	child.Say(s.ID())
	return s.Close()
}

func TestOpenCreatesTheSchema(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		t.Run("ten processes and ten goroutines at the same time", func(t *testing.T) {
			ids := make(chan string, 20)
			var processes []*child.Process
			for range 10 {
				processes = append(processes, child.Start(t, "opener", url))
			}
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					s, err := postgres.Open(t.Context(), url)
					if err != nil {
						t.Error(err)
						return
					}
					ids <- s.ID()
					if _, err := s.Append(t.Context(), add(account("a"), 1)); err != nil {
						t.Error(err)
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			for _, c := range processes {
				ids <- c.Finish(t)[0]
			}
			close(ids)
			s := open(t, url)
			for id := range ids {
				if id != s.ID() || id == "" {
					t.Errorf("one of them has the id %q, another %q", id, s.ID())
				}
			}
			if got := len(dense(t, s)); got != 20 {
				t.Errorf("the log has %d records, want 20", got)
			}
		})
		t.Run("only once", func(t *testing.T) {
			empty(t, url)
			pool := newPool(t, url)
			for range 2 {
				if err := postgres.Migrate(t.Context(), pool); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, url)
			id := s.ID()
			mustAppend(t, s, at(account("a"), 0, 1))
			if err := postgres.Migrate(t.Context(), pool); err != nil {
				t.Fatal(err)
			}
			if again := open(t, url); again.ID() != id || len(dense(t, again)) != 1 {
				t.Errorf("after another migration it is %q with %d records", again.ID(), len(dense(t, again)))
			}
		})
		t.Run("in an existing, empty schema", func(t *testing.T) {
			empty(t, url)
			run(t, url, "create schema es")
			mustAppend(t, open(t, url), at(account("a"), 0, 1))
		})
		t.Run("after an interrupted migration", func(t *testing.T) {
			empty(t, url)
			run(t, url, "create schema es", "create table es.meta (key text primary key, value text not null)")
			mustAppend(t, open(t, url), at(account("a"), 0, 1))
		})
	})
}

func TestSchemasThatAreRefused(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		for _, test := range []struct {
			name   string
			damage string
			says   []string
		}{
			{"of a newer release", "update es.meta set value = '99' where key = 'schema'", []string{`"es"`, "version 99", "newer release", "upgrade"}},
			{"with a version that is not a number", "update es.meta set value = 'x' where key = 'schema'", []string{`"es"`, `"x"`, "damaged", "restore"}},
			{"with an impossible version", "update es.meta set value = '0' where key = 'schema'", []string{`"es"`, `"0"`, "damaged", "restore"}},
			{"with tables but no version", "delete from es.meta where key = 'schema'", []string{`"es"`, "corrupt", "restore"}},
			{"without an id", "delete from es.meta where key = 'store'", []string{`"es".meta`, "corrupt", "restore"}},
			{"of another application", "drop schema es cascade; create schema es; create table es.events (n integer)", []string{`"es"`, "Config.Schema"}},
		} {
			t.Run(test.name, func(t *testing.T) {
				empty(t, url)
				open(t, url)
				run(t, url, test.damage)
				s, err := postgres.Open(t.Context(), url)
				if err == nil {
					_ = s.Close()
				}
				if !errors.Is(err, es.ErrInvalid) {
					t.Fatalf("got %v, want an error that wraps es.ErrInvalid", err)
				}
				for _, want := range test.says {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q does not say %q", err, want)
					}
				}
			})
		}
	})
}

func TestSchemaNames(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		names := []string{"es", "ES", "Üb er\"schema", "select", "a.b", "'; drop schema es --", "{key}{enter}", "a$$b", "$body$", strings.Repeat("n", 50), `back\slash`, "e", "before"}
		stores := make([]*postgres.Store, len(names))
		for i, name := range names {
			stores[i] = openWith(t, postgres.Config{Schema: name}, url)
		}
		ids := make(map[string]bool)
		for i, s := range stores {
			stream := account(names[i])
			mustAppend(t, s, at(stream, 0, 1), es.Append{Stream: account("same"), Expected: 0, Events: events(i), Command: "c"})
			mustAppend(t, s, at(stream, 1, 1))
			if got := len(dense(t, s)); got != 2+i {
				t.Errorf("schema %q has %d records, want %d", names[i], got, 2+i)
			}
			if err := s.SaveSnapshot(t.Context(), es.Snapshot{Stream: account("same"), Version: 1, Position: es.Position(i)}); err != nil {
				t.Errorf("schema %q: %v", names[i], err)
			}
			ids[s.ID()] = true
		}
		for i, s := range stores {
			if n, err := s.LoadSnapshot(t.Context(), account("same")); err != nil || n.Position != es.Position(i) {
				t.Errorf("schema %q has the snapshot of position %d, %v; want %d", names[i], n.Position, err, i)
			}
			if got := len(dense(t, s)); got != 2+i {
				t.Errorf("schema %q has %d records, want %d", names[i], got, 2+i)
			}
		}
		if len(ids) != len(names) {
			t.Errorf("%d schemas have %d ids", len(names), len(ids))
		}
		t.Run("have separate locks", func(t *testing.T) {
			release := holdLock(t, stores[0], url)
			mustAppend(t, stores[1], add(account("a"), 1))
			release()
		})
		t.Run("that are invalid are refused", func(t *testing.T) {
			for _, name := range []string{"nul\x00", "not \xff text", strings.Repeat("n", 51)} {
				_, err := postgres.Config{Schema: name}.Open(t.Context(), url)
				if !errors.Is(err, es.ErrInvalid) {
					t.Errorf("schema %q: got %v, want an error that wraps es.ErrInvalid", name, err)
				}
			}
		})
	})
}

// Open waits for a server that is not running, but not if the settings are wrong.
func TestOpenWaits(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{Scram: true})
	url := server.Database(t)
	// A pooler that soon says that its server is away, which it says with the code for a violation of the protocol.
	pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{Settings: map[string]string{"query_wait_timeout": "1"}})
	database := url[strings.LastIndex(url, "/"):]

	t.Run("but not with wrong settings", func(t *testing.T) {
		for name, wrong := range map[string]string{
			"password":  testserver.As(url, "postgres", "wrong"),
			"user":      testserver.As(url, "unknown", "wrong"),
			"database":  strings.Replace(url, database, "/nonesuch?", 1),
			"parameter": with(url, "pool_max_con=3"),
			"value":     with(url, "statement_timeout=soon"),
			"url":       "postgres://%zz",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := postgres.Open(ctx, wrong)
			if err == nil || ctx.Err() != nil {
				t.Errorf("a wrong %s: got %v, want an error at once", name, err)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "postgres: ") {
				t.Errorf("a wrong %s: %q does not say whose error it is", name, err)
			}
			cancel()
		}
	})
	server.Stop(t, testserver.Fast)
	t.Run("until the context ends", func(t *testing.T) {
		for url, limit := range map[string]time.Duration{url: 200 * time.Millisecond, pooler.Through(url): 2 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			_, err := postgres.Open(ctx, url)
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "last attempt") {
				t.Errorf("got %v, want the context's error and that of the last attempt", err)
			}
			cancel()
		}
	})
	t.Run("for a server that comes", func(t *testing.T) {
		opened := make(chan error)
		for _, url := range []string{url, pooler.Through(url)} {
			go func() {
				s, err := postgres.Open(t.Context(), url)
				if err == nil {
					_, err = s.Append(t.Context(), add(account("a"), 1))
					err = errors.Join(err, s.Close())
				}
				opened <- err
			}()
		}
		select {
		case err := <-opened:
			t.Fatalf("opened without a server: %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		server.Start(t)
		for range 2 {
			if err := <-opened; err != nil {
				t.Error(err)
			}
		}
	})
}
