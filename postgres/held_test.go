package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

// The handler of an inline projection runs within an append. If it appends with a context other than its own, it waits for that append, and
// so do all others. That ends when the server ends the transaction, after the lease, with an error that says so.
func TestAnInlineHandlerThatCallsItsOwnStoreEnds(t *testing.T) {
	t.Parallel()
	outer := context.Background()
	server := testserver.Postgres(t, testserver.Postgres18)
	for name, c := range map[string]struct {
		call func(s *postgres.Store) error
		path string // by which the records come to the handler
	}{
		"Append":                     {func(s *postgres.Store) error { _, err := s.Append(outer, add(account("b"), 1)); return err }, ""},
		"Append while it is rebuilt": {func(s *postgres.Store) error { _, err := s.Append(outer, add(account("b"), 1)); return err }, "rebuild"},
		"Append by tx.Conn":          {func(s *postgres.Store) error { _, err := s.Append(outer, add(account("b"), 1)); return err }, "conn"},
		"WaitFor":                    {func(s *postgres.Store) error { return s.WaitFor(outer, "selfish", 2) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *postgres.Store
			entered, calls := make(chan struct{}, 1), false
			s, err := postgres.Config{Inline: []postgres.Projection{{Name: "selfish", Lease: time.Second,
				Prepare: func(context.Context, pgx.Tx) error { return nil },
				Handle: func(_ context.Context, tx pgx.Tx, _ []es.Record) error {
					if !calls {
						return nil
					}
					if c.path == "conn" {
						tx.Conn()
					}
					calls = false
					entered <- struct{}{}
					return c.call(s)
				}}}}.Open(t.Context(), with(server.Database(t), "pool_max_conns=4"))
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, s, add(account("a"), 1))
			if c.path == "rebuild" {
				if err := s.Rebuild(t.Context(), "selfish", 0); err != nil {
					t.Fatal(err)
				}
			}
			calls = true
			refused := make(chan error, 1)
			go func() {
				_, err := s.Append(outer, add(account("a"), 1))
				refused <- err
			}()
			<-entered
			_, err = s.Append(outer, add(account("c"), 1))
			if err != nil && (!errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "projection selfish has been in Handle for over 1s")) {
				t.Errorf("the append of another caller: %v", err)
			}
			if err := <-refused; !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "projection selfish") || !strings.Contains(err.Error(), "calls its own store") {
				t.Errorf("the append returned %v, want an error that says what the handler does", err)
			}
			mustAppend(t, s, add(account("c"), 1))
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// An append in a transaction of the application has the lock of all appends until the handler returns. If the handler waits for another
// append, that ends after the lease as well, with the transaction of the application.
func TestAnInlineHandlerThatCallsItsOwnStoreEndsTheTransactionOfTheApplication(t *testing.T) {
	t.Parallel()
	outer, calls := context.Background(), false
	var s *postgres.Store
	s, err := postgres.Config{Inline: []postgres.Projection{{Name: "selfish", Lease: time.Second,
		Handle: func(context.Context, pgx.Tx, []es.Record) error {
			if !calls {
				return nil
			}
			calls = false
			_, err := s.Append(outer, add(account("b"), 1))
			return err
		}}}}.Open(t.Context(), with(testserver.Postgres(t, testserver.Postgres18).Database(t), "pool_max_conns=4"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustAppend(t, s, add(account("a"), 1))
	tx, err := s.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	calls = true
	_, err = s.In(tx).Append(t.Context(), add(account("a"), 1))
	if !errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "projection selfish has been in Handle for over 1s") {
		t.Errorf("the append returned %v, want an error that names the projection", err)
	}
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("the transaction of the application committed")
	}
	mustAppend(t, s, add(account("c"), 1))
	records := 0
	for _, err := range s.Read(t.Context(), account("a"), 0) {
		if err != nil {
			t.Fatal(err)
		}
		records++
	}
	if records != 1 {
		t.Errorf("stream a has %d records, want the one that was acknowledged", records)
	}
}

// A handler that waits for its own checkpoint, with a context other than its own, ends with an error that says so.
func TestAHandlerThatWaitsForItselfEnds(t *testing.T) {
	t.Parallel()
	s := open(t, testserver.Postgres(t, testserver.Postgres18).Database(t))
	mustAppend(t, s, add(account("a"), 1))
	err := s.Project(t.Context(), postgres.Projection{Name: "selfish", OnError: es.Park, Retries: -1, Lease: time.Second, Handle: func(context.Context, pgx.Tx, []es.Record) error {
		return s.WaitFor(context.Background(), "selfish", 1)
	}})
	if stopped := (*projection.Error)(nil); errors.As(err, &stopped) || !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "calls its own store") {
		t.Errorf("Project returned %v, want an error that says what the handler does", err)
	}
	for p, err := range s.Parked(t.Context()) {
		t.Errorf("%s is parked: %s; %v", p.Record.ID(), p.Error, err)
	}
}
