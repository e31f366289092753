package stores_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A handler breaks a rule of its transaction and hides the error. Nothing may be committed, on any database.
func TestTransactionRules(t *testing.T) {
	exec := func(ctx context.Context, tx projection.SQL, s string) { _, _ = tx.Exec(ctx, s) }
	tests := []struct {
		name   string
		handle func(ctx context.Context, tx projection.SQL) error
		want   string // in the error; "" if the row is committed
	}{
		{"returns nil", func(context.Context, projection.SQL) error { return nil }, ""},
		{"returns an error", func(context.Context, projection.SQL) error { return errors.New("mine") }, "mine"},
		{"hides the error of a statement", func(ctx context.Context, tx projection.SQL) error {
			exec(ctx, tx, "insert into t values (1)")
			return nil
		}, "returned no error"},
		{"goes on after an error", func(ctx context.Context, tx projection.SQL) error {
			exec(ctx, tx, "insert into t values (1)")
			exec(ctx, tx, "insert into t values (2)")
			return nil
		}, "returned no error"},
		{"hides the error of an argument", func(ctx context.Context, tx projection.SQL) error {
			_, _ = tx.Exec(ctx, "insert into t values ($1)", make(chan int))
			return nil
		}, "returned no error"},
		{"hides that there is no such table", func(ctx context.Context, tx projection.SQL) error {
			for _, err := range tx.Query(ctx, "select id from none") {
				if err == nil {
					return errors.New("there is a row of no table")
				}
				break
			}
			return nil
		}, "returned no error"},
		{"hides the error of a scan", func(ctx context.Context, tx projection.SQL) error {
			var n int
			_ = tx.QueryRow(ctx, "select 'a'").Scan(&n)
			return nil
		}, "returned no error"},
		{"hides an error in the middle of a query", func(ctx context.Context, tx projection.SQL) error {
			n := 0
			for _, err := range tx.Query(ctx, "select abs(-9223372036854775807 - id) from (select 0 as id union all select 1) as x") {
				if n++; err != nil && n == 1 {
					return errors.New("no row came before the error")
				}
			}
			return nil
		}, "returned no error"},
		{"finds no row", func(ctx context.Context, tx projection.SQL) error {
			if err := tx.QueryRow(ctx, "select id from t where id = 99").Scan(new(int)); !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			return nil
		}, ""},
		{"commits", func(ctx context.Context, tx projection.SQL) error { exec(ctx, tx, "commit"); return nil }, "only the store ends"},
		{"commits in other words", func(ctx context.Context, tx projection.SQL) error {
			exec(ctx, tx, " /* now */ END transaction")
			return nil
		}, "only the store ends"},
		{"rolls back", func(ctx context.Context, tx projection.SQL) error { exec(ctx, tx, "rollback"); return nil }, "only the store ends"},
		{"begins", func(ctx context.Context, tx projection.SQL) error { exec(ctx, tx, "begin"); return nil }, "only the store ends"},
		{"commits among others", func(ctx context.Context, tx projection.SQL) error {
			exec(ctx, tx, "insert into t values (5); commit; begin")
			return nil
		}, "only the store ends"},
		{"panics", func(context.Context, projection.SQL) error { panic("broken") }, "broken"},
		{"panics in a loop", func(ctx context.Context, tx projection.SQL) error {
			for _, err := range tx.Query(ctx, "select 1") {
				panic(fmt.Sprint("broken ", err))
			}
			return nil
		}, "broken"},
		{"changes rows while it reads", func(ctx context.Context, tx projection.SQL) error {
			for _, err := range tx.Query(ctx, "select id from t") {
				if err != nil {
					return err
				}
				exec(ctx, tx, "insert into t values (7)")
			}
			return nil
		}, "another query of the transaction is open"},
		{"reads while it reads", func(ctx context.Context, tx projection.SQL) error {
			for _, err := range tx.Query(ctx, "select id from t") {
				if err != nil {
					return err
				}
				_ = tx.QueryRow(ctx, "select 1").Scan(new(int))
			}
			return nil
		}, "another query of the transaction is open"},
		{"leaves a query open", func(ctx context.Context, tx projection.SQL) error {
			next, _ := iter.Pull2(tx.Query(ctx, "select id from t"))
			_, err, _ := next()
			return err
		}, "a query is still open"},
		{"leaves a loop early", func(ctx context.Context, tx projection.SQL) error {
			for row, err := range tx.Query(ctx, "select 1 union all select 2") {
				if err := errors.Join(err, row.Scan(new(int))); err != nil {
					return err
				}
				break
			}
			_, err := tx.Exec(ctx, "update t set id = id")
			return err
		}, ""},
		{"scans a row that has gone", func(ctx context.Context, tx projection.SQL) error {
			var kept projection.Row
			for row, err := range tx.Query(ctx, "select id from t") {
				if err != nil {
					return err
				}
				kept = row
			}
			return kept.Scan(new(int))
		}, "the loop has gone on"},
		{"uses a context that has ended", func(ctx context.Context, tx projection.SQL) error {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			_, _ = tx.Exec(ended, "insert into t values (8)")
			return nil
		}, "returned no error"},
		{"uses another context", func(_ context.Context, tx projection.SQL) error {
			_, err := tx.Exec(context.Background(), "update t set id = id")
			return err
		}, ""},
		{"goes back to a savepoint", func(ctx context.Context, tx projection.SQL) error {
			if _, err := tx.Exec(ctx, "savepoint a"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "insert into t values (1)"); err == nil {
				return errors.New("a key is there twice")
			}
			_, err := tx.Exec(ctx, "rollback to savepoint a")
			return err
		}, ""},
		{"has an unknown savepoint", func(ctx context.Context, tx projection.SQL) error {
			exec(ctx, tx, "insert into t values (1)")
			exec(ctx, tx, "rollback to savepoint b")
			return nil
		}, "returned no error"},
	}
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		do(t, store, "create table t (id bigint primary key)", "insert into t values (1)")
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				mine := 100 + i
				var kept projection.SQL
				err := handled(t, store, func(ctx context.Context, tx projection.SQL) error {
					kept = tx
					if _, err := tx.Exec(ctx, "insert into t values ($1)", mine); err != nil {
						return err
					}
					return test.handle(ctx, tx)
				})
				if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("got %v, want %q", err, test.want)
				}
				if n := count(t, store, "select count(*) from t where id = $1", mine); (n == 1) != (test.want == "") {
					t.Errorf("%d rows are committed", n)
				}
				if n := count(t, store, "select count(*) from t where id between 2 and 99"); n > 0 {
					t.Errorf("%d rows of a failed transaction are committed", n)
				}
				if _, err := kept.Exec(t.Context(), "insert into t values (9)"); !errors.Is(err, es.ErrInvalid) {
					t.Errorf("the transaction was used after its handler: %v", err)
				}
				if err := kept.QueryRow(t.Context(), "select 1").Scan(new(int)); !errors.Is(err, es.ErrInvalid) {
					t.Errorf("the transaction was read after its handler: %v", err)
				}
			})
		}
	})
}

// A statement that only reads returns no number of rows, and one that changes rows returns how many.
func TestAffectedRowsAreAlike(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		err := handled(t, store, func(ctx context.Context, tx projection.SQL) error {
			for _, test := range []struct {
				statement string
				want      int64
			}{
				{"create table t (id bigint primary key, n bigint)", 0},
				{"insert into t values (1, 0), (2, 0), (3, 0)", 3},
				{"create table u (id bigint)", 0},
				{"insert into t values (3, 1), (4, 1) on conflict (id) do nothing", 1},
				{"insert into t values (3, 1), (4, 1) on conflict (id) do update set n = t.n + excluded.n where t.n = 0", 1},
				{"update t set n = 7 where id > 1", 3},
				{"with x as (select 1 as id) update t set n = 8 where id in (select id from x)", 1},
				{"select id from t", 0},
				{"with x as (select 1 as id) select id from x", 0},
				{"delete from t where id < 3", 2},
				{"drop table u", 0},
			} {
				if n, err := tx.Exec(ctx, test.statement); err != nil {
					return err
				} else if n != test.want {
					t.Errorf("%s: %d rows, want %d", test.statement, n, test.want)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// Queries of a store see what is committed, and change nothing.
func TestQueriesOfAStore(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		do(t, store, "create table t (id bigint primary key)", "insert into t values (1), (2), (3)")
		for _, query := range []string{
			"delete from t", "insert into t values (9) returning id", "with x as (delete from t returning id) select id from x",
			"drop table t", "commit", "", "update t set id = 10 returning id",
		} {
			if err := store.QueryRow(t.Context(), query).Scan(new(int)); !errors.Is(err, es.ErrInvalid) {
				t.Errorf("%q: %v, want es.ErrInvalid", query, err)
			}
		}
		// The loop may call the store, also if it has one connection.
		sum := 0
		for row, err := range store.Query(t.Context(), "select id from t order by id") {
			var id int
			if err != nil {
				t.Fatal(err)
			}
			if err := row.Scan(&id); err != nil {
				t.Fatal(err)
			}
			add(t, store, "loop", 1)
			sum += id * int(count(t, store, "select count(*) from t"))
		}
		if sum != 18 {
			t.Errorf("got %d, want 18", sum)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := store.QueryRow(ended, "select 1").Scan(new(int)); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
		if err := store.QueryRow(t.Context(), "select id from none").Scan(new(int)); err == nil || !strings.Contains(err.Error(), "none") {
			t.Errorf("without a table: %v", err)
		}
		// A table is created again, with other columns.
		if err := store.QueryRow(t.Context(), "select * from t").Scan(new(int)); err != nil {
			t.Error(err)
		}
		do(t, store, "drop table t", "create table t (name text)", "insert into t values ('a')")
		if err := store.QueryRow(t.Context(), "select * from t").Scan(new(string)); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		if err := store.QueryRow(t.Context(), "select 1").Scan(new(int)); !errors.Is(err, es.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
