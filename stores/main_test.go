package stores_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/stores"
)

func TestMain(m *testing.M) { os.Exit(testserver.Run(m)) }

// each runs a test on every kind of store. Each call of open opens a store on the same database, except in memory.
func each(t *testing.T, test func(t *testing.T, open func() projection.Database)) {
	t.Helper()
	for _, kind := range []string{"memory", "file", "postgres", "postgres without prepared statements"} {
		t.Run(kind, func(t *testing.T) {
			var url string
			switch kind {
			case "memory":
				store := opened(t, "mem:")
				test(t, func() projection.Database { return store })
				return
			case "file":
				url = filepath.Join(t.TempDir(), "store.db")
			default:
				url = testserver.Postgres(t, testserver.Postgres18).Database(t)
				if kind != "postgres" {
					url += "&default_query_exec_mode=exec"
				}
			}
			test(t, func() projection.Database { return opened(t, url) })
		})
	}
}

func opened(t *testing.T, url string) projection.Database {
	t.Helper()
	store, err := stores.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return store
}

// add appends n events to a stream.
func add(t *testing.T, store es.Store, id string, n int) {
	t.Helper()
	events := make([]es.Record, n)
	for i := range events {
		events[i] = es.Record{Type: "added", Data: fmt.Appendf(nil, `{"Amount":%d}`, i+1)}
	}
	if _, err := store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "thing", ID: id}, Expected: es.AnyVersion, Events: events}); err != nil {
		t.Fatal(err)
	}
}

// handled runs a projection over one record, once, and returns its error.
func handled(t *testing.T, store projection.Database, handle func(ctx context.Context, tx projection.SQL) error) error {
	t.Helper()
	if head, err := es.Head(t.Context(), store); err != nil {
		t.Fatal(err)
	} else if head == 0 {
		add(t, store, "1", 1)
	}
	return store.Project(t.Context(), projection.SQLProjection{
		Name: rand.Text(), Once: true, Retries: -1,
		Handle: func(ctx context.Context, tx projection.SQL, _ []es.Record) error { return handle(ctx, tx) },
	})
}

// do runs statements in a projection, which must succeed.
func do(t *testing.T, store projection.Database, statements ...string) {
	t.Helper()
	err := handled(t, store, func(ctx context.Context, tx projection.SQL) error {
		for _, s := range statements {
			if _, err := tx.Exec(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// count returns the result of a query for a number.
func count(t *testing.T, store projection.Querier, query string, args ...any) (n int64) {
	t.Helper()
	if err := store.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}
