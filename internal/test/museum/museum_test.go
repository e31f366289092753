package museum_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/mattn/go-sqlite3" // for connections that bypass the store
	"go.uber.org/goleak"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers{m}) }

// servers stops the servers before goleak checks for leaks.
type servers struct{ m *testing.M }

func (s servers) Run() int { return testserver.Run(s.m) }

// A place is a fresh database of one of our backends.
type place struct {
	name string
	open func(t testing.TB) es.Log // opens a new store on it, like another process; on Mem the same one each time
	url  string                    // of Postgres
	path string                    // of SQLite
}

// ours runs a check on a fresh database of each of our backends. The check must find nothing.
func ours(t *testing.T, check func(t *testing.T, p place) error) {
	t.Helper()
	t.Run("Mem", func(t *testing.T) { finds(t, false, check(t, inMemory())) })
	t.Run("SQLite", func(t *testing.T) { finds(t, false, check(t, onSQLite(t))) })
	t.Run("Postgres", func(t *testing.T) { finds(t, false, check(t, onPostgres(t))) })
}

// control runs the same check on a program with the bug. The check must find it.
func control(t *testing.T, what string, check func(t *testing.T) error) {
	t.Helper()
	t.Run("control: "+what, func(t *testing.T) { finds(t, true, check(t)) })
}

func finds(t *testing.T, wanted bool, found error) {
	t.Helper()
	switch {
	case found != nil && wanted:
		t.Logf("found: %v", found)
	case found != nil:
		t.Error(found)
	case wanted:
		t.Error("the check does not find the bug, so it proves nothing about our stores")
	}
}

func inMemory() place {
	log := new(es.Mem)
	return place{name: "Mem", open: func(testing.TB) es.Log { return log }}
}

func onSQLite(t testing.TB) place {
	p := place{name: "SQLite", path: filepath.Join(t.TempDir(), "es.db")}
	p.open = func(t testing.TB) es.Log { return openSQLite(t, p.path) }
	return p
}

func onPostgres(t testing.TB) place {
	return onServer(t, testserver.Postgres(t, testserver.Postgres18))
}

func onServer(t testing.TB, server *testserver.Server) place {
	p := place{name: "Postgres", url: server.Database(t)}
	p.open = func(t testing.TB) es.Log { return openPostgres(t, p.url) }
	return p
}

func openSQLite(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(path)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func openPostgres(t testing.TB, url string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// connect returns a connection to Postgres that bypasses any store.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { _ = c.Close(context.Background()) }) // harmless if the test has closed it
	return c
}

// exec runs statements on a new connection.
func exec(t testing.TB, url string, statements ...string) {
	t.Helper()
	c := connect(t, url)
	for _, s := range statements {
		_, err := c.Exec(t.Context(), s)
		must(t, err)
	}
	must(t, c.Close(t.Context()))
}

// byHand returns a connection to a SQLite file that bypasses any store.
func byHand(t testing.TB, path string) *sql.Conn {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	c, err := db.Conn(t.Context())
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// locked waits until a session waits for a lock in the database.
func locked(t testing.TB, url string) {
	t.Helper()
	c := connect(t, url)
	eventually(t, "a session waits for a lock", func() bool {
		var n int
		must(t, c.QueryRow(t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").Scan(&n))
		return n > 0
	})
	must(t, c.Close(t.Context()))
}

// eventually waits for a condition that sends no notification.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// must ends the test after an error that is not the subject of the test.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func account(id string) es.Stream { return es.Stream{Kind: "account", ID: id} }

// noted is an event with a text.
func noted(text string) es.Record { return es.Record{Type: "noted", Data: []byte(text)} }

// note appends an event to a stream, whatever its version.
func note(stream, text string) es.Append {
	return es.Append{Stream: account(stream), Expected: es.AnyVersion, Events: []es.Record{noted(text)}}
}

// whole reads a log and checks that positions and versions count 1, 2, 3.
func whole(ctx context.Context, log es.Log) (records []es.Record, err error) {
	heads := make(map[es.Stream]es.Version)
	for r, err := range log.All(ctx, 0, es.Filter{}) {
		if err != nil {
			return nil, err
		}
		heads[r.Stream]++
		if r.Position != es.Position(len(records)+1) || r.Version != heads[r.Stream] {
			return nil, fmt.Errorf("record %d is %s at position %d", len(records)+1, r.ID(), r.Position)
		}
		records = append(records, r)
	}
	return records, nil
}

func isConflict(err error) bool {
	var conflict *es.ConflictError
	return errors.As(err, &conflict)
}

// inSchema opens another store in a database of Postgres.
func inSchema(t testing.TB, url, schema string) *postgres.Store {
	t.Helper()
	s, err := postgres.Config{Schema: schema}.Open(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}
