package postgres_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func TestMain(m *testing.M) {
	child.Main(children)
	goleak.VerifyTestMain(servers{m})
}

// servers stops the servers before goleak looks for leaks.
type servers struct{ m *testing.M }

func (s servers) Run() int { return testserver.Run(s.m) }

// open opens a store as postgres.Open does, and closes it when the test ends.
func open(t testing.TB, url string) *postgres.Store {
	t.Helper()
	return openWith(t, postgres.Config{}, url)
}

func openWith(t testing.TB, c postgres.Config, url string) *postgres.Store {
	t.Helper()
	s, err := c.Open(t.Context(), url)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// newPool makes a pool and closes it at the end of the test. Each function changes its configuration.
func newPool(t testing.TB, url string, change ...func(config *pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(config)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// openPool opens a store on a pool of the application.
func openPool(t testing.TB, pool *pgxpool.Pool) *postgres.Store {
	t.Helper()
	s, err := postgres.New(t.Context(), pool)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// with adds a parameter such as pool_max_conns=1 to a URL.
func with(url, parameter string) string {
	if parameter == "" {
		return url
	}
	if strings.Contains(url, "?") {
		return url + "&" + parameter
	}
	return url + "?" + parameter
}

// connect opens a connection that the store does not know.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) }) // a server that was stopped has closed it
	return c
}

// run runs statements on a new connection.
func run(t testing.TB, url string, statements ...string) {
	t.Helper()
	c := connect(t, url)
	for _, sql := range statements {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// empty drops the schema of an earlier test, which is faster than creating a database.
func empty(t testing.TB, url string) {
	t.Helper()
	run(t, url, "drop schema if exists es cascade")
}

// scalar returns the single value of a query.
func scalar[T any](t testing.TB, url, sql string, args ...any) (value T) {
	t.Helper()
	c := connect(t, url)
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return value
}

func account(id string) es.Stream { return es.Stream{Kind: "account", ID: id} }

// events returns n small events.
func events(n int) []es.Record {
	records := make([]es.Record, n)
	for i := range records {
		records[i] = es.Record{Type: "deposited", Data: fmt.Appendf(nil, `{"n":%d}`, i)}
	}
	return records
}

// add appends n events to a stream, whatever its version.
func add(stream es.Stream, n int) es.Append { return at(stream, es.AnyVersion, n) }

// at appends n events to a stream at a version.
func at(stream es.Stream, version es.Version, n int) es.Append {
	return es.Append{Stream: stream, Expected: version, Events: events(n)}
}

// mustAppend appends, and fails the test on an error.
func mustAppend(t testing.TB, s es.Store, appends ...es.Append) es.Position {
	t.Helper()
	position, err := s.Append(t.Context(), appends...)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return position
}

// collect reads all records, and fails the test on an error.
func collect(t testing.TB, records iter.Seq2[es.Record, error]) []es.Record {
	t.Helper()
	all, err := drain(records)
	if err != nil {
		t.Fatalf("reading broke off after %d records: %v", len(all), err)
	}
	return all
}

func drain(records iter.Seq2[es.Record, error]) (all []es.Record, err error) {
	for r, err := range records {
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
	return all, nil
}

// dense reads the log and checks that positions, and versions in each stream, count 1, 2, 3.
func dense(t testing.TB, log es.Log) []es.Record {
	t.Helper()
	all := collect(t, log.All(t.Context(), 0, es.Filter{}))
	heads := make(map[es.Stream]es.Version)
	for i, r := range all {
		heads[r.Stream]++
		if r.Position != es.Position(i+1) || r.Version != heads[r.Stream] {
			t.Fatalf("record %d is %s at position %d: want version %d at position %d", i+1, r.ID(), r.Position, heads[r.Stream], i+1)
		}
	}
	return all
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("timeout waiting until %s", what)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// children are the functions that child processes run. A file for some systems only adds its own.
var children = map[string]child.Func{
	"follow":   followInChild,
	"follower": followToTheEndInChild,
	"inline":   appendInlineInChild,
	"opener":   openInChild,
	"racer":    raceInChild,
	"trace":    traceInChild,
	"write":    writeInChild,
}
