package stores_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

func createLists(table string) string {
	return "create table if not exists " + table + " (n bigint not null, list text not null, line text not null)"
}

// lists are the read models of the conformance suite, in a table that a view of the database lists.
func lists(reader projection.Querier, view, table string) conformance.Lists[projection.SQL] {
	return conformance.Lists[projection.SQL]{
		Empty: func(ctx context.Context, tx projection.SQL, list string) error {
			if _, err := tx.Exec(ctx, createLists(table)); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "delete from "+table+" where list = $1", list)
			return err
		},
		Add: func(ctx context.Context, tx projection.SQL, list, line string) error {
			_, err := tx.Exec(ctx, "insert into "+table+" (n, list, line) select coalesce(max(n), 0) + 1, $1, $2 from "+table, list, line)
			return err
		},
		Lines: func(ctx context.Context, list string) (lines []string, err error) {
			var n int
			if err := reader.QueryRow(ctx, "select count(*) from "+view+" = $1", table).Scan(&n); err != nil || n == 0 {
				return nil, err
			}
			for row, err := range reader.Query(ctx, "select line from "+table+" where list = $1 order by n", list) {
				var line string
				if err == nil {
					err = row.Scan(&line)
				}
				if err != nil {
					return nil, err
				}
				lines = append(lines, line)
			}
			return lines, nil
		},
	}
}

func TestProjectionsOfSQL(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		conformance.TestProjections(t, func(t *testing.T) (func() conformance.ReadSide[projection.SQL], conformance.Lists[projection.SQL]) {
			store := opened(t, "mem:")
			return func() conformance.ReadSide[projection.SQL] { return store }, lists(store, "sqlite_master where name", "lists")
		})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url, clause := testserver.Postgres(t, testserver.Postgres18).Database(t), 0
		reader := opened(t, url)
		plain, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = plain.Close(context.Background()) })
		conformance.TestProjections(t, func(t *testing.T) (func() conformance.ReadSide[projection.SQL], conformance.Lists[projection.SQL]) {
			clause++
			table := fmt.Sprint("lists_", clause)
			if _, err := plain.Exec(t.Context(), createLists(table)); err != nil { // if two transactions did it at once, one would fail
				t.Fatal(err)
			}
			c := postgres.Config{Schema: fmt.Sprint("clause ", clause)}
			return func() conformance.ReadSide[projection.SQL] {
				store, err := c.Open(t.Context(), url+"&pool_max_conns=6")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := store.Close(); err != nil {
						t.Error(err)
					}
				})
				return store.SQL()
			}, lists(reader, "pg_tables where tablename", table)
		})
	})
}
