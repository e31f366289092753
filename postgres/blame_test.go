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

// A lock on a read model, as create index takes it, makes every statement of the handler fail by a timeout. No record is parked for that,
// however the handler returns the error. Status and the log have it, although nothing is retried, and the projection goes on afterwards.
func TestRecordsAreNotParkedForTheServersFaults(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	for i, c := range []struct {
		setting, code string
		handlers      string
		returns       func(error) error
	}{
		{"statement_timeout=100", "57014", "wraps it", func(err error) error { return fmt.Errorf("insert: %w", err) }},
		{"statement_timeout=100", "57014", "hides it", func(err error) error { return fmt.Errorf("insert: %v", err) }}, //nolint:errorlint // on purpose
		{"statement_timeout=100", "57014", "ignores it", func(error) error { return nil }},
		{"lock_timeout=100", "55P03", "wraps it", func(err error) error { return err }},
	} {
		t.Run(c.setting+", and the handler "+c.handlers, func(t *testing.T) {
			schema, name := fmt.Sprint("es", i), fmt.Sprint("model", i)
			s := openWith(t, postgres.Config{Schema: schema}, with(url, c.setting))
			log := new(logged.Text)
			background.Project(t, s, postgres.Projection{
				Name: name, OnError: es.Park, Retries: -1, Batch: 2, Logger: log.Logger(),
				Prepare: func(ctx context.Context, tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "create table "+name+" (id text)")
					return err
				},
				Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
					for _, r := range records {
						if _, err := tx.Exec(ctx, "insert into "+name+" values ($1)", r.ID()); err != nil {
							return c.returns(err)
						}
					}
					return nil
				},
			})
			if err := s.WaitFor(t.Context(), name, mustAppend(t, s, add(account("a"), 1))); err != nil {
				t.Fatal(err)
			}
			lock, err := connect(t, url).Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := lock.Exec(t.Context(), "lock table "+name+" in share mode"); err != nil {
				t.Fatal(err)
			}
			last := mustAppend(t, s, add(account("a"), 2), add(account("b"), 2))
			eventually(t, "Status has the error", func() bool {
				return strings.Contains(statusOf(t, s, name).Error, c.code) && strings.Contains(log.String(), c.code)
			})
			for range 3 { // other attempts, without a pause that a test could miss
				before := strings.Count(log.String(), c.code)
				eventually(t, "it is tried again", func() bool { return strings.Count(log.String(), c.code) > before })
			}
			if err := lock.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.WaitFor(t.Context(), name, last); err != nil {
				t.Fatal(err)
			}
			if got := statusOf(t, s, name); got.Parked != 0 || got.Error != "" {
				t.Errorf("%d records are parked, and the error is %q", got.Parked, got.Error)
			}
			if n := scalar[int](t, url, "select count(*) from "+name); n != 5 {
				t.Errorf("%d records are applied, want 5", n)
			}
		})
	}
}

// A changed table makes the server refuse a prepared statement. That is no fault of the record that came next.
func TestRecordsAreNotParkedForInvalidatedPlans(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	s := open(t, with(url, "pool_max_conns=2")) // so that the statement is prepared on the connection that comes next
	run(t, url, "create table changed (id text)", "insert into changed values ('x')")
	background.Project(t, s, postgres.Projection{Name: "p", OnError: es.Park, Retries: -1, Handle: func(ctx context.Context, tx pgx.Tx, _ []es.Record) error {
		rows, err := tx.Query(ctx, "select * from changed")
		if err != nil {
			return err
		}
		rows.Close()
		return rows.Err()
	}})
	for i := range 6 {
		if err := s.WaitFor(t.Context(), "p", mustAppend(t, s, add(account("a"), 1))); err != nil {
			t.Fatal(err)
		}
		run(t, url, fmt.Sprintf("alter table changed add column c%d text", i))
	}
	for p, err := range s.Parked(t.Context()) {
		t.Fatalf("parked: %s, %s, %v", p.Record.ID(), p.Error, err)
	}
}

// A failure that the handler has undone with a savepoint is not why its transaction fails later.
func TestASavepointClearsTheServersFault(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	s := open(t, url)
	background.Project(t, s, postgres.Projection{Name: "p", OnError: es.Park, Retries: -1, Handle: func(ctx context.Context, tx pgx.Tx, _ []es.Record) error {
		part, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		_, err = part.Exec(ctx, "do $$ begin raise exception 'busy' using errcode = '55P03'; end $$")
		if err == nil {
			return errors.New("the statement did not fail")
		}
		if err := part.Rollback(ctx); err != nil {
			return err
		}
		return errors.New("the record is wrong")
	}})
	if err := s.WaitFor(t.Context(), "p", mustAppend(t, s, add(account("a"), 1))); err != nil {
		t.Fatal(err)
	}
	for p, err := range s.Parked(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if p.Error != "the record is wrong" {
			t.Errorf("parked with %q", p.Error)
		}
		return
	}
	t.Error("nothing is parked")
}

// An inline handler whose statement the server cancels has not refused the append.
func TestCancelledInlineHandlersRefuseNothing(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	for name, returns := range map[string]func(error) error{
		"wraps it": func(err error) error { return fmt.Errorf("insert: %w", err) },
		"hides it": func(err error) error { return fmt.Errorf("insert: %v", err) }, //nolint:errorlint // on purpose
		"ignores":  func(error) error { return nil },
	} {
		empty(t, url)
		var slow atomic.Bool
		s := openWith(t, postgres.Config{Inline: []postgres.Projection{{Name: "in", Handle: func(ctx context.Context, tx pgx.Tx, _ []es.Record) error {
			if !slow.Load() {
				return nil
			}
			if _, err := tx.Exec(ctx, "select pg_sleep(60)"); err != nil {
				return returns(err)
			}
			return nil
		}}}}, with(url, "statement_timeout=100"))
		slow.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := s.Append(ctx, add(account("a"), 1))
		cancel()
		if !errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "57014") || !strings.Contains(err.Error(), "nothing was written") {
			t.Errorf("the handler %s: %v, want ErrUnavailable with the server's error", name, err)
		}
		slow.Store(false)
		mustAppend(t, s, add(account("a"), 1))
	}
}

// statusOf returns the status of the only shard of a projection.
func statusOf(t testing.TB, s *postgres.Store, name string) projection.Status {
	t.Helper()
	all, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range all {
		if status.Name == name {
			return status
		}
	}
	t.Fatalf("there is no projection %s", name)
	return projection.Status{}
}
