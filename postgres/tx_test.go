package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func begin(t testing.TB, conn *pgx.Conn, level pgx.TxIsoLevel) pgx.Tx {
	t.Helper()
	tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: level})
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func commit(t testing.TB, tx pgx.Tx) {
	t.Helper()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func rollback(t testing.TB, tx pgx.Tx) {
	t.Helper()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatalf("rollback: %v", err)
	}
}

func TestIn(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		database := server.Database(t)
		run(t, database, "create table orders (n integer)")
		fresh := func(t *testing.T) (s *postgres.Store, conn *pgx.Conn, url string) {
			url = database
			empty(t, url)
			s = open(t, url)
			mustAppend(t, s, at(account("a"), 0, 2))
			return s, connect(t, url), url
		}
		t.Run("what is appended takes effect with the transaction", func(t *testing.T) {
			s, conn, url := fresh(t)
			tx := begin(t, conn, "")
			if _, err := tx.Exec(t.Context(), "insert into orders values (1)"); err != nil {
				t.Fatal(err)
			}
			if position := mustAppend(t, s.In(tx), at(account("a"), 2, 2), at(account("b"), 0, 1)); position != 5 {
				t.Errorf("the first append returned position %d, want 5", position)
			}
			if position := mustAppend(t, s.In(tx), at(account("b"), 1, 1), at(account("a"), 4, 1)); position != 7 {
				t.Errorf("the second append returned position %d, want 7", position)
			}
			if got := len(collect(t, s.In(tx).Read(t.Context(), account("a"), 1))); got != 4 {
				t.Errorf("within the transaction there are %d records after the first, want 4", got)
			}
			if got := len(dense(t, s)); got != 2 {
				t.Errorf("before the commit others see %d records, want 2", got)
			}
			commit(t, tx)
			if got := len(dense(t, s)); got != 7 {
				t.Errorf("after the commit there are %d records, want 7", got)
			}
			if got := scalar[int](t, url, "select count(*) from orders"); got != 1 {
				t.Errorf("the application's own table has %d rows, want 1", got)
			}
		})
		t.Run("after a rollback nothing is missing", func(t *testing.T) {
			s, conn, _ := fresh(t)
			tx := begin(t, conn, "")
			mustAppend(t, s.In(tx), at(account("a"), 2, 3), at(account("new"), 0, 3), es.Append{Stream: account("c"), Expected: 0, Events: events(1), Command: "once"})
			collect(t, s.In(tx).Read(t.Context(), account("new"), 0))
			rollback(t, tx)
			_, err := s.Append(t.Context(), at(account("new"), 3, 1))
			if conflict := (*es.ConflictError)(nil); !errors.As(err, &conflict) {
				t.Errorf("an append on what was rolled back: got %v, want a conflict", err)
			}
			mustAppend(t, s, at(account("new"), 0, 1), at(account("a"), 2, 1), es.Append{Stream: account("c"), Expected: 0, Events: events(1), Command: "once"})
			if got := len(dense(t, s)); got != 5 {
				t.Errorf("there are %d records, want 5", got)
			}
		})
		t.Run("a conflict leaves the transaction usable", func(t *testing.T) {
			s, conn, _ := fresh(t)
			mustAppend(t, s, es.Append{Stream: account("c"), Expected: 0, Events: events(2), Command: "once"})
			tx := begin(t, conn, "")
			_, err := s.In(tx).Append(t.Context(), at(account("b"), 0, 1), at(account("a"), 1, 1))
			if conflict := (*es.ConflictError)(nil); !errors.As(err, &conflict) || conflict.Stream != account("a") || conflict.Expected != 1 {
				t.Errorf("got %v, want a conflict on account/a at version 1", err)
			}
			_, err = s.In(tx).Append(t.Context(), at(account("a"), 0, 1))
			if conflict := (*es.ConflictError)(nil); !errors.As(err, &conflict) || conflict.Expected != 0 {
				t.Errorf("got %v, want a conflict at version 0", err)
			}
			_, err = s.In(tx).Append(t.Context(), es.Append{Stream: account("c"), Expected: 0, Events: events(2), Command: "once"})
			if duplicate := (*es.DuplicateError)(nil); !errors.As(err, &duplicate) || duplicate.First != 1 || duplicate.Last != 2 {
				t.Errorf("got %v, want a duplicate of versions 1 to 2", err)
			}
			if _, err = s.In(tx).Append(t.Context(), add(es.Stream{}, 1)); !errors.Is(err, es.ErrInvalid) {
				t.Errorf("got %v, want es.ErrInvalid", err)
			}
			if position, err := s.In(tx).Append(t.Context(), at(account("a"), 2, 0)); position != 0 || err != nil {
				t.Errorf("a question: got position %d, %v", position, err)
			}
			mustAppend(t, s.In(tx), at(account("a"), 2, 1))
			commit(t, tx)
			if got := len(dense(t, s)); got != 5 {
				t.Errorf("there are %d records, want 5", got)
			}
		})
		t.Run("other appends wait for its end, readers do not", func(t *testing.T) {
			s, conn, url := fresh(t)
			other := open(t, url)
			tx := begin(t, conn, "")
			mustAppend(t, s.In(tx), at(account("a"), 2, 1))
			positions := make(chan es.Position, 2)
			for _, s := range []*postgres.Store{s, other} {
				go func() {
					position, err := s.Append(t.Context(), add(account("b"), 1))
					if err != nil {
						t.Error(err)
					}
					positions <- position
				}()
			}
			eventually(t, "both appends wait for the lock", func() bool {
				return scalar[int](t, url, "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())") == 2
			})
			if got := len(collect(t, s.Read(t.Context(), account("a"), 0))); got != 2 {
				t.Errorf("a reader sees %d records of the stream, want 2", got)
			}
			if head, err := es.Head(t.Context(), other); head != 2 || err != nil {
				t.Errorf("the head is %d, %v; want 2", head, err)
			}
			commit(t, tx)
			if a, b := <-positions, <-positions; min(a, b) != 4 || max(a, b) != 5 {
				t.Errorf("the appends that waited got positions %d and %d, want 4 and 5", a, b)
			}
			dense(t, s)
		})
		t.Run("a savepoint that is rolled back takes its appends with it", func(t *testing.T) {
			s, conn, _ := fresh(t)
			tx := begin(t, conn, "")
			inner, err := tx.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, s.In(inner), at(account("b"), 0, 2))
			rollback(t, inner)
			mustAppend(t, s.In(tx), at(account("b"), 0, 1), at(account("a"), 2, 1))
			commit(t, tx)
			if got := len(dense(t, s)); got != 4 {
				t.Errorf("there are %d records, want 4", got)
			}
		})
		t.Run("a stream of many pages is read whole", func(t *testing.T) {
			s, conn, _ := fresh(t)
			mustAppend(t, s, at(account("long"), 0, 3000))
			tx := begin(t, conn, "")
			mustAppend(t, s.In(tx), at(account("long"), 3000, 1))
			for i, r := range collect(t, s.In(tx).Read(t.Context(), account("long"), 0)) {
				if r.Version != es.Version(i+1) {
					t.Fatalf("record %d has version %d", i+1, r.Version)
				}
				if r.Version == 3001 {
					rollback(t, tx)
					return
				}
			}
			t.Error("the last record is missing")
		})
		t.Run("followers see it soon after the commit", func(t *testing.T) {
			s, conn, url := fresh(t)
			other := open(t, url)
			heads := make(chan es.Position, 2)
			for _, s := range []*postgres.Store{s, other} {
				go func() {
					head, err := s.Changed(t.Context(), 2)
					if err != nil {
						t.Error(err)
					}
					heads <- head
				}()
			}
			tx := begin(t, conn, "")
			mustAppend(t, s.In(tx), at(account("a"), 2, 1))
			commit(t, tx)
			start := time.Now()
			if a, b := <-heads, <-heads; a != 3 || b != 3 {
				t.Errorf("followers received positions %d and %d, want 3", a, b)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("that took %v", took)
			}
		})
	})
}
