package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/inlinetest"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func inlineBackend(server *testserver.Server, through func(url string) string) inlinetest.Backend[pgx.Tx] {
	return inlinetest.Backend[pgx.Tx]{
		Database: func(t *testing.T) (inlinetest.Open[pgx.Tx], func(string) string) {
			url := server.Database(t)
			open(t, url) // so that the tables are there to be asked
			reader := connect(t, url)
			return func(inline ...postgres.Projection) (inlinetest.Store[pgx.Tx], error) {
				return postgres.Config{Inline: inline}.Open(t.Context(), through(url))
			}, func(query string) string { return lines(t, reader, query) }
		},
		Exec: func(ctx context.Context, tx pgx.Tx, query string, args ...any) error {
			_, err := tx.Exec(ctx, query, args...)
			return err
		},
		End: func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
		Together: func(ctx context.Context, s inlinetest.Store[pgx.Tx], calls [][]es.Append) ([]es.Position, []error) {
			return s.(*postgres.Store).WriteTogether(ctx, calls...)
		},
		Events: "es.events",
	}
}

func lines(t *testing.T, conn *pgx.Conn, query string) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[any])
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, line := range found {
		text = append(text, fmt.Sprint(line))
	}
	return strings.Join(text, "\n")
}

func TestInline(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		inlinetest.Run(t, inlineBackend(server, func(url string) string { return url }))
	})
}

func TestInlineThroughPgBouncer(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, testserver.Postgres18)
	pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 3})
	inlinetest.Run(t, inlineBackend(server, func(url string) string {
		return with(pooler.Through(url), "default_query_exec_mode=exec&pool_max_conns=1")
	}))
}

// counts is a read model with one row for each event, so that handling an event twice fails.
func counts() postgres.Projection {
	return postgres.Projection{
		Name: "counts",
		Prepare: func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "create table counts (id text primary key, n bigint not null check (n < 1000000), last bigint not null unique deferrable initially deferred)")
			return err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			for _, r := range records {
				last := int64(r.Position)
				if r.Type == "late" {
					last = 1 // a constraint that is looked at by the commit alone
				}
				_, err := tx.Exec(ctx, "insert into counts values ($1, 1, $2) on conflict (id) do update set n = counts.n + 1, last = excluded.last", r.Stream.ID, last)
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// notApart fails the test if the events and the read model differ.
func notApart(t *testing.T, url string) {
	t.Helper()
	if n := scalar[int64](t, url, `select count(*) from (select id, count(*) as n from es.events group by id) e full join counts c on c.id = e.id where e.n is distinct from c.n`); n != 0 {
		t.Fatalf("%d streams differ between the read model and the log", n)
	}
}

func TestInlineAndACommitThatIsRefused(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := openWith(t, postgres.Config{Inline: []postgres.Projection{counts()}}, url)
		mustAppend(t, s, at(account("first"), 0, 1))
		late := func(id string) []es.Append {
			return []es.Append{{Stream: account(id), Expected: 0, Events: []es.Record{{Type: "late"}}}}
		}
		_, errs := s.WriteTogether(t.Context(), []es.Append{at(account("a"), 0, 1)}, late("b"), []es.Append{at(account("c"), 0, 1)}, late("d"))
		if errs[0] != nil || errs[2] != nil || code(errs[1]) != "23505" || code(errs[3]) != "23505" {
			t.Errorf("got %v, want that the second and the fourth are refused", errs)
		}
		notApart(t, url)
	})
}

// An append with inline projections whose connection broke is resolved like any other, together with its read model.
func TestInlineResolves(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for what, lose := range breaks {
			for _, at := range []string{"append_", "insert into counts", "shards set cursor"} {
				t.Run(fmt.Sprintf("the connection loses %s of %s", what, at), func(t *testing.T) {
					url := server.Database(t)
					s, proxy := through(t, postgres.Config{Inline: []postgres.Projection{counts()}}, url, "pool_max_conns=2&default_query_exec_mode=exec")
					l := newLedger()
					for i := range 5 {
						name := fmt.Sprint("lost", i)
						lost := lose(proxy, at)
						if err := l.append(t.Context(), s, named(name, account(name), 0)); err != nil {
							t.Errorf("append %d got %v", i, err)
						}
						<-lost
						l.check(t, url)
						notApart(t, url)
					}
				})
			}
		}
	})
}

func TestInlineInATransactionOfTheApplication(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		without := open(t, url)
		mustAppend(t, without, at(account("before"), 0, 3))
		p := counts()
		p.Handle = refusing(p.Handle)
		s := openWith(t, postgres.Config{Inline: []postgres.Projection{p}}, url)
		mustAppend(t, without, at(account("between"), 0, 3))
		conn := connect(t, url)
		run(t, url, "create table mine (n int)")
		inTransaction := func(t *testing.T, work func(tx pgx.Tx, s es.Store) error) {
			t.Helper()
			err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error { return work(tx, s.In(tx)) })
			if err != nil {
				t.Error(err)
			}
			notApart(t, url)
		}
		t.Run("the appended records are handled, and earlier ones of other stores", func(t *testing.T) {
			inTransaction(t, func(tx pgx.Tx, s es.Store) error {
				position, err := s.Append(t.Context(), at(account("a"), 0, 2), add(account("before"), 1))
				if position != 9 {
					t.Errorf("the position is %d, want 9", position)
				}
				if _, err := s.Append(t.Context(), at(account("a"), 2, 1)); err != nil {
					t.Error(err)
				}
				return err
			})
		})
		t.Run("a refused append is not written, and the transaction continues", func(t *testing.T) {
			inTransaction(t, func(tx pgx.Tx, s es.Store) error {
				if _, err := tx.Exec(t.Context(), "insert into mine values (1)"); err != nil {
					return err
				}
				_, err := s.Append(t.Context(), at(account("b"), 0, 1), es.Append{Stream: account("c"), Expected: 0, Events: []es.Record{{Type: "refused"}}})
				if !errors.Is(err, errRefused) {
					t.Errorf("got %v, want the error of the handler", err)
				}
				if _, err := s.Append(t.Context(), at(account("b"), 7, 1)); !isConflict(err) {
					t.Errorf("got %v, want a conflict", err)
				}
				_, err = s.Append(t.Context(), at(account("b"), 0, 1))
				return err
			})
			if n := scalar[int64](t, url, "select count(*) from mine"); n != 1 {
				t.Errorf("the other statement of the transaction has %d effects", n)
			}
		})
		t.Run("a rollback removes events and read model", func(t *testing.T) {
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, s.In(tx), at(account("d"), 0, 1))
			if err := tx.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
			notApart(t, url)
			mustAppend(t, s, at(account("d"), 0, 1))
			notApart(t, url)
		})
		dense(t, s)
	})
}

var errRefused = errors.New("refused")

func refusing(handle func(context.Context, pgx.Tx, []es.Record) error) func(context.Context, pgx.Tx, []es.Record) error {
	return func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
		for _, r := range records {
			if r.Type == "refused" {
				return errRefused
			}
		}
		return handle(ctx, tx, records)
	}
}

// appendInlineInChild appends with an inline projection from many goroutines, until the process ends or is killed.
func appendInlineInChild(ctx context.Context, arguments []string) error {
	s, err := postgres.Config{Inline: []postgres.Projection{counts()}}.Open(ctx, arguments[0])
	if err != nil {
		return err
	}
	child.Say("ready")
	for w := range 8 {
		go func() {
			for {
				if _, err := s.Append(ctx, add(account(fmt.Sprint(w)), 1), add(account("hot"), 1)); err != nil {
					child.Say(err)
					return
				}
			}
		}()
	}
	<-ctx.Done()
	return s.Close()
}

// A process is killed at random points. The events and the read model never differ.
func TestInlineSurvivesKills(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, testserver.Postgres18)
	url := server.Database(t)
	openWith(t, postgres.Config{Inline: []postgres.Projection{counts()}}, url)
	for range 6 {
		c := child.Start(t, "inline", url)
		if line := c.Line(t); line != "ready" {
			t.Fatal(line)
		}
		before := scalar[int64](t, url, "select count(*) from es.events")
		eventually(t, "the child appends", func() bool { return scalar[int64](t, url, "select count(*) from es.events") > before+50 })
		notApart(t, url)
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		notApart(t, url)
	}
	dense(t, openWith(t, postgres.Config{Inline: []postgres.Projection{counts()}}, url))
	notApart(t, url)
}
