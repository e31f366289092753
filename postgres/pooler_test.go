package postgres_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// All execution modes of pgx work with all modes of a pooler. The conformance suites run on some combinations.
func TestExecModesAndPoolers(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		urls := map[string]string{"direct": url}
		// In session mode a connection is lent for good: two stores have three each, and one to listen.
		for mode, size := range map[string]int{"transaction": 4, "session": 10, "statement": 4} {
			pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: size, Settings: map[string]string{"pool_mode": mode}})
			urls[mode] = pooler.Through(url)
		}
		for by, url := range urls {
			for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
				t.Run(by+" "+mode, func(t *testing.T) {
					c := postgres.Config{Schema: by + mode}
					if by == "statement" { // there are no transactions, and migrations are one
						if err := c.Migrate(t.Context(), newPool(t, urls["direct"])); err != nil {
							t.Fatal(err)
						}
					}
					// More connections than the pooler lends, so that statements find themselves on others.
					writeAndRead(t, openWith(t, c, with(url, "pool_max_conns=3&default_query_exec_mode="+mode)), openWith(t, c, with(url, "pool_max_conns=3&default_query_exec_mode="+mode)))
				})
			}
		}
	})
}

func writeAndRead(t *testing.T, a, b *postgres.Store) {
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			s, stream := []*postgres.Store{a, b}[i%2], account(fmt.Sprint(i/2))
			for v := range es.Version(4) {
				once := es.Append{Stream: stream, Expected: es.AnyVersion, Events: events(1), Command: fmt.Sprint(v)}
				_, err := s.Append(t.Context(), once, add(account(fmt.Sprint("own", i)), 1))
				if duplicate := (*es.DuplicateError)(nil); err != nil && !errors.As(err, &duplicate) {
					t.Error(err)
				}
				if _, err := drain(s.Read(t.Context(), stream, v)); err != nil {
					t.Error(err)
				}
				if err := s.SaveSnapshot(t.Context(), es.Snapshot{Stream: stream, Version: v, Position: 1}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := len(dense(t, a)); got != 64 {
		t.Errorf("there are %d records, want 64", got)
	}
	if n, err := b.LoadSnapshot(t.Context(), account("3")); err != nil || n.Version != 3 {
		t.Errorf("the snapshot has version %d, %v; want 3", n.Version, err)
	}
	changed := make(chan error)
	go func() {
		_, err := a.Changed(t.Context(), 64)
		changed <- err
	}()
	mustAppend(t, b, at(account("3"), 4, 1))
	if err := <-changed; err != nil {
		t.Error(err)
	}
}

// The application's transaction is on one connection, which a pooler may have lent to other sessions before.
func TestInThroughPgBouncer(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 3})
		url := with(pooler.Through(server.Database(t)), "default_query_exec_mode=exec")
		pool := newPool(t, url)
		s, err := postgres.New(t.Context(), pool)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 5 {
					tx, err := pool.Begin(t.Context())
					if err == nil {
						_, err = s.In(tx).Append(t.Context(), add(account(fmt.Sprint(i)), 1))
						err = errors.Join(err, tx.Commit(t.Context()))
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if got := len(dense(t, s)); got != 40 {
			t.Errorf("there are %d records, want 40", got)
		}
	})
}
