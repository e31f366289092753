package postgres_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// What a reaction needs may be unavailable for longer than a record is retried.
func TestAReactionOutlastsAnUnavailableServer(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	s := open(t, url)
	away, proxy := through(t, postgres.Config{}, url, "")
	mustAppend(t, s, add(account("a"), 1))
	proxy.Cut()
	proxy.Refuse()

	var tries atomic.Int32
	handled, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		ended <- s.React(ctx, projection.Reaction{Name: "patient", From: projection.Beginning(), Retries: 1, Handle: func(ctx context.Context, r es.Record) error {
			tries.Add(1)
			for _, err := range away.Read(ctx, r.Stream, 0) {
				if err != nil {
					return err
				}
			}
			close(handled)
			return nil
		}})
	}()
	eventually(t, "it was tried more often than a record is", func() bool { return tries.Load() > 3 || len(ended) > 0 })
	proxy.Heal(t)
	select {
	case <-handled:
	case err := <-ended:
		t.Fatalf("the reaction ended: %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the reaction ended with %v", err)
	}
}

// The checkpoints of a reaction may be in a different kind of database than its commands go to.
func TestAReactionOutlastsAnotherUnavailableStore(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	away := openWith(t, postgres.Config{ConnectTimeout: 10 * time.Millisecond}, server.Database(t))
	here, err := sqlite.Open(filepath.Join(t.TempDir(), "es.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = here.Close() })
	mustAppend(t, here, add(account("a"), 2))
	server.Stop(t, testserver.Fast)

	var read, write atomic.Int32
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		ended <- here.React(ctx, projection.Reaction{Name: "patient", From: projection.Beginning(), OnError: es.Park, Retries: 1, Handle: func(ctx context.Context, r es.Record) error {
			if read.Load() < 2 { // what a command fails with when nothing of its stream is known
				read.Add(1)
				for _, err := range away.Read(ctx, r.Stream, 0) {
					return err
				}
			}
			write.Add(1)
			_, err := away.Append(ctx, es.Append{Stream: r.Stream, Expected: es.AnyVersion, Command: r.ID(), Events: events(1)})
			return err
		}})
	}()
	eventually(t, "it was tried more often than a record is", func() bool { return write.Load() > 2 || len(ended) > 0 })
	status, err := here.Status(t.Context())
	if err != nil || len(status) != 1 || status[0].Error == "" {
		t.Errorf("Status is %+v, %v; want the error", status, err)
	}
	server.Start(t)
	eventually(t, "both records have been reacted to", func() bool {
		status, err := here.Status(t.Context())
		return err == nil && status[0].Cursor == 2 || len(ended) > 0
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the reaction ended with %v", err)
	}
	if got := collect(t, away.Read(t.Context(), account("a"), 0)); len(got) != 2 {
		t.Errorf("%d commands took effect, want 2", len(got))
	}
	for p, err := range here.Parked(t.Context()) {
		t.Errorf("parked: %s, %v", p.Record.ID(), err)
	}
}
