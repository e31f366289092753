package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/background"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

// Handlers that keep their connections must leave some of the pool for appends, loads, Status and the other statements of all runs, however
// many projections and stores use the pool.
func TestProjectionsLeaveConnectionsForOthers(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	pool := newPool(t, with(url, "pool_max_conns=4"))
	stores := []*postgres.Store{openPool(t, pool), must(postgres.Config{Schema: "second"}.New(t.Context(), pool))(t)}
	t.Cleanup(func() {
		if err := stores[1].Close(); err != nil {
			t.Error(err)
		}
	})
	release := make(chan struct{})
	var holding atomic.Int32
	for i, s := range stores {
		for p := range 3 {
			background.Project(t, s, postgres.Projection{Name: fmt.Sprint("slow", p), Lease: time.Hour, Partitions: 2, Handle: func(ctx context.Context, _ pgx.Tx, _ []es.Record) error {
				holding.Add(1)
				select {
				case <-release:
				case <-ctx.Done():
				}
				return nil
			}})
		}
		mustAppend(t, s, add(account("a"), 1), add(account(fmt.Sprint("b", i)), 1), add(account("c"), 1))
	}
	eventually(t, "the share is in use", func() bool { return holding.Load() == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, s := range stores {
		reacted := make(chan struct{}, 10)
		done := make(chan error, 1)
		reacting, stop := context.WithCancel(ctx)
		go func() {
			done <- s.React(reacting, projection.Reaction{Name: "reacts", From: projection.Beginning(), Handle: func(ctx context.Context, r es.Record) error {
				if _, err := drain(s.Read(ctx, r.Stream, 0)); err != nil {
					return err
				}
				reacted <- struct{}{}
				return nil
			}})
		}()
		last, err := s.Append(ctx, add(account("a"), 1))
		if err != nil {
			t.Fatalf("append: %v", err)
		}
		for range last {
			select {
			case <-reacted:
			case <-ctx.Done():
				t.Fatal("a reaction stands still")
			}
		}
		if err := s.WaitFor(ctx, "reacts", last); err != nil {
			t.Error(err)
		}
		all, err := s.Status(ctx)
		if err != nil {
			t.Fatalf("status: %v", err)
		}
		for _, status := range all {
			if status.Worker == "" {
				t.Errorf("%s %s has no worker: its heartbeats do not get through", status.Name, status.Shard)
			}
		}
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if n := holding.Load(); n != 2 {
		t.Errorf("%d handlers have a connection of a pool of 4, want half of it", n)
	}
	close(release)
}

// Handlers that load a state need a second connection. They get it, and commands go on.
func TestHandlersThatLoadStarveNoCommand(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	s := open(t, with(url, "pool_max_conns=4"))
	p := postgres.Projection{Partitions: 8, Batch: 10, Handle: func(ctx context.Context, _ pgx.Tx, records []es.Record) error {
		for _, r := range records {
			if _, err := drain(s.Read(ctx, r.Stream, 0)); err != nil {
				return err
			}
			if _, err := drain(s.Read(context.WithoutCancel(ctx), r.Stream, 0)); err != nil {
				return err
			}
		}
		return nil
	}}
	names := []string{"p0", "p1", "p2", "p3", "p4", "p5"}
	for _, name := range names {
		p.Name = name
		background.Project(t, s, p)
		p.Partitions = 1
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var last es.Position
	for i := range 60 {
		var err error
		if last, err = s.Append(ctx, add(account(fmt.Sprint(i%20)), 1)); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
		if _, err := s.Status(ctx); err != nil {
			t.Fatalf("status %d: %v", i, err)
		}
	}
	for _, name := range names {
		if err := s.WaitFor(ctx, name, last); err != nil {
			t.Error(err)
		}
	}
}

// A projection that gets no connection, because the handlers of others have their share of the pool, says so in Status and the log, and
// no longer once it works.
func TestAProjectionSaysThatItWaitsForAConnection(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	s := open(t, with(url, "pool_max_conns=4"))
	release := make(chan struct{})
	var holding atomic.Int32
	for i := range 2 {
		background.Project(t, s, postgres.Projection{Name: fmt.Sprint("slow", i), Lease: time.Hour, Handle: func(ctx context.Context, _ pgx.Tx, _ []es.Record) error {
			holding.Add(1)
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil
		}})
	}
	mustAppend(t, s, add(account("a"), 1))
	eventually(t, "the share is in use", func() bool { return holding.Load() == 2 })
	log := new(logged.Text)
	background.Project(t, s, postgres.Projection{Name: "waits", Logger: log.Logger(), Handle: func(context.Context, pgx.Tx, []es.Record) error { return nil }})
	const says = "all projections share 2 of the pool's 4: raise pool_max_conns"
	eventually(t, "the projection exists", func() bool {
		all, err := s.Status(t.Context())
		return err == nil && len(all) == 3
	})
	eventually(t, "Status and the log say that it waits", func() bool {
		return strings.Contains(statusOf(t, s, "waits").Error, says) && strings.Contains(log.String(), says)
	})
	last := mustAppend(t, s, add(account("a"), 1))
	close(release)
	if err := s.WaitFor(t.Context(), "waits", last); err != nil {
		t.Fatal(err)
	}
	if text := statusOf(t, s, "waits").Error; text != "" {
		t.Errorf("the error remains: %s", text)
	}
}

// While a handler waits for something else, the server ends its session, or an operator does. Status and the log say so at once, the
// handler's context ends, and no record is parked for it.
func TestTheContextOfAHandlerEndsWithItsTransaction(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, testserver.Postgres18)
	for want, c := range map[string]struct {
		lease time.Duration
		end   func(t *testing.T, url string)
	}{
		"25P03": {time.Second, func(*testing.T, string) {}},
		"57P01": {time.Hour, func(t *testing.T, url string) {
			run(t, url, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'")
		}},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			url := server.Database(t)
			s := open(t, with(url, "pool_max_conns=2"))
			var calls atomic.Int32
			entered, cause, goOn := make(chan struct{}), make(chan error, 1), make(chan struct{})
			log := new(logged.Text)
			background.Project(t, s, postgres.Projection{Name: "p", OnError: es.Park, Retries: -1, Lease: c.lease, Logger: log.Logger(), Handle: func(ctx context.Context, _ pgx.Tx, _ []es.Record) error {
				if calls.Add(1) > 1 {
					return nil
				}
				close(entered)
				<-ctx.Done()
				cause <- context.Cause(ctx)
				<-goOn
				return fmt.Errorf("the handler: %w", ctx.Err())
			}})
			last := mustAppend(t, s, add(account("a"), 1))
			<-entered
			c.end(t, url)
			if err := <-cause; code(err) != want {
				t.Errorf("the context ended with %v, want the server's error", err)
			}
			eventually(t, "Status and the log say what the handler does", func() bool {
				return strings.Contains(statusOf(t, s, "p").Error, "has been in Handle") && strings.Contains(log.String(), "has been in Handle")
			})
			close(goOn)
			if err := s.WaitFor(t.Context(), "p", last); err != nil && !errors.Is(err, es.ErrUnavailable) { // the handler is overdue
				t.Fatal(err)
			}
			eventually(t, "the projection goes on", func() bool { return s.WaitFor(t.Context(), "p", last) == nil })
			for p, err := range s.Parked(t.Context()) {
				t.Errorf("%s is parked: %s; %v", p.Record.ID(), p.Error, err)
			}
		})
	}
}
