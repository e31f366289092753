package postgres_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
)

// At any other level than read committed, a call that waited for the lock would not see what was committed while it waited.
func TestInAtOtherLevels(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, url)
		for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
			conn := connect(t, url)
			tx := begin(t, conn, level)
			_, err := s.In(tx).Append(t.Context(), at(account("a"), 0, 1))
			if code(err) != "ES001" || !strings.Contains(err.Error(), string(level)) || !strings.Contains(err.Error(), "begin the transaction with isolation level read committed") {
				t.Errorf("%s: got %v, want the remedy", level, err)
			}
			rollback(t, tx)
			if got := len(dense(t, s)); got != 0 {
				t.Errorf("%s: %d records were written", level, got)
			}
		}
		tx, err := connect(t, url).BeginTx(t.Context(), pgx.TxOptions{AccessMode: pgx.ReadOnly})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.In(tx).Append(t.Context(), at(account("a"), 0, 1)); code(err) != "25006" {
			t.Errorf("read only: got %v", err)
		}
	})
}

// The default may change while a store is open, and differ between connections.
func TestDefaultIsolationThatChanges(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for _, level := range []string{"repeatable read", "serializable"} {
			t.Run(level, func(t *testing.T) {
				url := server.Database(t)
				s := open(t, url)
				mustAppend(t, s, at(account("a"), 0, 1))
				run(t, url, "do $$ begin execute format('alter database %I set default_transaction_isolation = ''"+level+"''', current_database()); end $$",
					"select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
				var all sync.WaitGroup
				won := make(chan error, 64)
				for range cap(won) {
					all.Go(func() {
						_, err := s.Append(t.Context(), at(account("a"), 1, 1))
						won <- err
					})
				}
				all.Wait()
				close(won)
				good := 0
				for err := range won {
					conflict := (*es.ConflictError)(nil)
					switch {
					case err == nil:
						good++
					case !errors.As(err, &conflict):
						t.Errorf("got %v, want a conflict", err)
					}
				}
				if got := len(dense(t, s)); good != 1 || got != 2 {
					t.Errorf("%d appends won and there are %d records, want 1 and 2", good, got)
				}
			})
		}
	})
}
