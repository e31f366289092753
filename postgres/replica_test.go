package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

// A read model on a standby shows a write of the primary once WaitFor on the standby has returned, and not before.
func TestReadYourOwnWritesOnAStandby(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	open(t, url) // makes the schema
	standby := server.Standby(t)
	there := standby.URL(scalar[string](t, url, "select current_database()"))
	primary := open(t, url).SQL()
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- primary.Project(ctx, projection.SQLProjection{
			Name: "seen",
			Prepare: func(ctx context.Context, tx projection.SQL) error {
				_, err := tx.Exec(ctx, "create table seen (position bigint primary key)")
				return err
			},
			Handle: func(ctx context.Context, tx projection.SQL, records []es.Record) error {
				for _, r := range records {
					if _, err := tx.Exec(ctx, "insert into seen values ($1)", r.Position); err != nil {
						return err
					}
				}
				return nil
			},
		})
	}()
	defer func() {
		end()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	last := mustAppend(t, primary, add(account("a"), 1))
	if err := primary.WaitFor(t.Context(), "seen", last); err != nil {
		t.Fatal(err)
	}
	standby.CaughtUp(t, server)
	replica := openWith(t, postgres.Config{ReadOnly: true}, there).SQL()
	shown := func() (n es.Position) {
		t.Helper()
		if err := replica.QueryRow(t.Context(), "select max(position) from seen").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	for range 20 {
		last = mustAppend(t, primary, add(account("a"), 1))
		if err := replica.WaitFor(t.Context(), "seen", last); err != nil {
			t.Fatal(err)
		}
		if n := shown(); n < last {
			t.Fatalf("after WaitFor the standby shows %d, want %d", n, last)
		}
	}

	// The standby lags: WaitFor of the primary says nothing about it.
	run(t, there, "select pg_wal_replay_pause()")
	eventually(t, "the standby stands still", func() bool { return scalar[string](t, there, "select pg_get_wal_replay_pause_state()") == "paused" })
	before := shown()
	last = mustAppend(t, primary, add(account("a"), 1))
	if err := primary.WaitFor(t.Context(), "seen", last); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- replica.WaitFor(t.Context(), "seen", last) }()
	if n := shown(); n != before {
		t.Errorf("a standby that stands still shows %d, and %d before", n, before)
	}
	select {
	case err := <-waited:
		t.Fatalf("WaitFor returned %v for a standby that stands still", err)
	default:
	}
	run(t, there, "select pg_wal_replay_resume()")
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if n := shown(); n < last {
		t.Errorf("after WaitFor the standby shows %d, want %d", n, last)
	}

	// What changes something is refused there.
	if _, err := replica.Append(t.Context(), add(account("a"), 1)); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("an append on the standby: %v, want es.ErrInvalid", err)
	}
	if err := replica.QueryRow(t.Context(), "delete from seen returning position").Scan(new(int)); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("a change on the standby: %v, want es.ErrInvalid", err)
	}
	nothing := func(context.Context, projection.SQL, []es.Record) error { return nil }
	if err := replica.Project(t.Context(), projection.SQLProjection{Name: "there", Handle: nothing}); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("a projection on the standby: %v, want es.ErrInvalid", err)
	}
	ahead := (*es.AheadError)(nil)
	if head, err := replica.Changed(t.Context(), last+1000); !errors.As(err, &ahead) {
		t.Errorf("following the standby after a position that it does not have: %d, %v, want an AheadError", head, err)
	}
}
