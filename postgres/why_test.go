package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

// The server knows what a transaction of a projection waits for.
func TestWhyNamesWhatATransactionWaitsFor(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, testserver.Postgres14)
	insert := func(ctx context.Context, tx pgx.Tx, _ []es.Record) error {
		_, err := tx.Exec(ctx, "insert into model values (1)")
		return err
	}
	for _, test := range []struct {
		name     string
		settings string
		handle   func(ctx context.Context, tx pgx.Tx, records []es.Record) error
		want     projection.CauseCode
		message  func(blocker uint32) []string
	}{
		{"a lock", "", insert, projection.CauseLocked, func(pid uint32) []string {
			return []string{"waits for a lock: insert into model", fmt.Sprintf("process %d has it: lock table model", pid)}
		}},
		{"a lock, until a limit", "lock_timeout=100", insert, projection.CauseDatabase, func(uint32) []string { return []string{"55P03"} }},
		{"its handler", "", func(ctx context.Context, tx pgx.Tx, _ []es.Record) error {
			if _, err := tx.Exec(ctx, "select 1 as sleepy"); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}, projection.CauseIdle, func(uint32) []string { return []string{"idle after: select 1 as sleepy"} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			url := server.Database(t)
			other := connect(t, url)
			if test.settings != "" {
				url = with(url, test.settings)
			}
			s, err := postgres.Open(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, s, add(account("a"), 1))
			if _, err := other.Exec(t.Context(), "create table model (n int)"); err != nil {
				t.Fatal(err)
			}
			lock, err := other.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := lock.Exec(t.Context(), "lock table model"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- s.Project(ctx, postgres.Projection{Name: "held", Lease: time.Minute, Retries: 1000, Handle: test.handle})
			}()
			var last projection.Cause
			eventually(t, "Why is "+string(test.want), func() bool {
				last, err = s.Why(t.Context(), "held", 0)
				return err == nil && last.Code == test.want
			})
			for _, text := range test.message(other.PgConn().PID()) {
				if !strings.Contains(last.Message, text) {
					t.Errorf("Why says %q, want %q in it", last.Message, text)
				}
			}
			if last.Since.IsZero() || last.Remedy == "" {
				t.Errorf("Why says %+v, want a time and a remedy", last)
			}
			cancel()
			if err := lock.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
