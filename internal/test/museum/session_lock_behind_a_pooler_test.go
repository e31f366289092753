package museum_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
)

// The failure: one process of many is chosen by a session lock. A pooler in transaction mode lends the session to
// another client, which then has the lock too, or releases a lock that it does not hold.
//
// Not here: the append lock belongs to a transaction, and is taken and released within one statement; leases are rows.
func TestSessionLockBehindAPooler(t *testing.T) {
	t.Run("Postgres, appending", func(t *testing.T) {
		url := pooled(t, 2)
		a, b := openPostgres(t, url), openPostgres(t, url)
		finds(t, false, interleaved(t, a, b))
	})
	t.Run("Postgres, leases", func(t *testing.T) {
		url := pooled(t, 1)
		holder := func(s es.Leases, me string) func(context.Context) (bool, error) {
			return func(ctx context.Context) (bool, error) {
				l, err := s.AcquireLease(ctx, "relay", me, time.Minute, "")
				return l.Holder == me, err
			}
		}
		finds(t, false, bothHold(t, holder(openPostgres(t, url), "one"), holder(openPostgres(t, url), "two")))
	})
	t.Run("Postgres, two workers of a projection", func(t *testing.T) {
		url := pooled(t, 2)
		p := postgresProjector(t, url)
		p.appends(t, "one", "two", "three", "four")
		errs := make(chan error, 2)
		for range 2 {
			go func() { errs <- p.run(t.Context(), fine) }()
		}
		must(t, errors.Join(<-errs, <-errs))
		finds(t, false, p.misapplied(t))
	})
	control(t, "pg_try_advisory_lock", func(t *testing.T) error {
		url := pooled(t, 1)
		return bothHold(t, sessionLock(t, url), sessionLock(t, url))
	})
}

// pooled returns the URL of a database through a pgbouncer in transaction mode.
func pooled(t *testing.T, connections int) string {
	server := testserver.Postgres(t, testserver.Postgres18)
	pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: connections})
	return pooler.Through(server.Database(t))
}

// bothHold looks for a lock that two clients hold at the same time.
func bothHold(t *testing.T, one, two func(ctx context.Context) (bool, error)) error {
	first, err := one(t.Context())
	must(t, err)
	second, err := two(t.Context())
	must(t, err)
	switch {
	case first && second:
		return errors.New("both have the lock")
	case !first:
		t.Fatal("neither has the lock")
	}
	return nil
}

// interleaved looks for positions that two stores assigned twice or not at all.
func interleaved(t *testing.T, stores ...es.Log) error {
	const writers, each = 16, 10
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				if _, err := stores[w%len(stores)].Append(t.Context(), note(fmt.Sprint(w), "x"), note("all", fmt.Sprint(i))); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	all.Wait()
	records, err := whole(t.Context(), stores[0])
	if err == nil && len(records) != 2*writers*each {
		err = fmt.Errorf("%d records, want %d", len(records), 2*writers*each)
	}
	return err
}

// sessionLock is the usual way to choose one of many workers: the one that gets the lock works while it is connected.
func sessionLock(t *testing.T, url string) func(ctx context.Context) (bool, error) {
	config, err := pgxpool.ParseConfig(url + "&default_query_exec_mode=exec")
	must(t, err)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	conn, err := pool.Acquire(t.Context())
	must(t, err)
	t.Cleanup(conn.Release)
	return func(ctx context.Context) (locked bool, err error) {
		return locked, conn.QueryRow(ctx, "select pg_try_advisory_lock(42)").Scan(&locked)
	}
}
