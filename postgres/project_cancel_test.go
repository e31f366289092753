package postgres_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// An operator or a timeout cancels a statement of the projection while it moves its checkpoint. The projection retries, as this is no fault of
// the handler.
func TestAProjectionGoesOnWhenItsStatementsAreCancelled(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	s := open(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var applied atomic.Int64
	go func() {
		done <- s.Project(ctx, postgres.Projection{Name: "balances", Retries: -1, Handle: func(_ context.Context, _ pgx.Tx, records []es.Record) error {
			applied.Store(int64(records[len(records)-1].Position))
			return nil
		}})
	}()
	mustAppend(t, s, add(account("a"), 1))
	if err := s.WaitFor(t.Context(), "balances", 1); err != nil && !errors.Is(err, es.ErrInvalid) { // it has not run yet
		t.Fatal(err)
	}
	for applied.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	lock := connect(t, url)
	tx, err := lock.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select from es.shards for update"); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, add(account("a"), 1))
	other := connect(t, url)
	for cancelled := 0; cancelled == 0; {
		var n int
		err := other.QueryRow(t.Context(), `select count(*) filter (where pg_cancel_backend(pid)) from pg_stat_activity
			where datname = current_database() and wait_event_type = 'Lock' and query ~ 'shards'`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		cancelled += n
		select {
		case err := <-done:
			t.Fatalf("after %d cancellations the projection has ended: %v", cancelled, err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitFor(t.Context(), "balances", 2); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
