package sqlite_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/sqlite"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	child.Main(children())
	goleak.VerifyTestMain(m)
}

// file returns the path of a database that does not exist yet.
func file(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "es.db")
}

// open opens a store that is closed when the test ends.
func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	return openWith(t, path, sqlite.Config{})
}

func openWith(t testing.TB, path string, c sqlite.Config) *sqlite.Store {
	t.Helper()
	s, err := c.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// connect opens the database without this package.
func connect(t testing.TB, path string) *sql.Conn {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// do runs statements on a connection.
func do(t testing.TB, conn *sql.Conn, statements string, args ...any) {
	t.Helper()
	if _, err := conn.ExecContext(context.Background(), statements, args...); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

// ask returns the single value that a query returns.
func ask[T any](t testing.TB, conn *sql.Conn, query string) (value T) {
	t.Helper()
	if err := conn.QueryRowContext(context.Background(), query).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

func stream(id string) es.Stream { return es.Stream{Kind: "account", ID: id} }

// at returns an append with one small event for each text.
func at(id string, expected es.Version, texts ...string) es.Append {
	a := es.Append{Stream: stream(id), Expected: expected}
	for _, text := range texts {
		a.Events = append(a.Events, es.Record{Type: "noted", Data: []byte(text)})
	}
	return a
}

// command is like at, with a command ID.
func command(id string, expected es.Version, command string, texts ...string) es.Append {
	a := at(id, expected, texts...)
	a.Command = command
	return a
}

// add appends and fails the test on an error.
func add(t testing.TB, s es.Store, appends ...es.Append) es.Position {
	t.Helper()
	position, err := s.Append(t.Context(), appends...)
	if err != nil {
		t.Fatalf("append to %s: %v", appends[0].Stream, err)
	}
	return position
}

// all returns the log, and fails the test if history finds a defect in it.
func all(t testing.TB, s es.Log) []es.Record {
	t.Helper()
	records, err := history(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// history reads the log and checks that positions and versions are dense and in order, that time does not run backwards,
// and that reading each stream returns the same records as reading the log.
func history(ctx context.Context, s es.Log) ([]es.Record, error) {
	var records []es.Record
	heads := make(map[es.Stream]es.Version)
	for r, err := range s.All(ctx, 0, es.Filter{}) {
		if err != nil {
			return nil, err
		}
		heads[r.Stream]++
		if r.Position != es.Position(len(records)+1) || r.Version != heads[r.Stream] {
			return nil, fmt.Errorf("%s is at position %d; expected version %d at %d", r.ID(), r.Position, heads[r.Stream], len(records)+1)
		}
		if len(records) > 0 && r.Time.Before(records[len(records)-1].Time) {
			return nil, fmt.Errorf("%s has time %v, before %v", r.ID(), r.Time, records[len(records)-1].Time)
		}
		records = append(records, r)
	}
	for stream, head := range heads {
		version := es.Version(0)
		for r, err := range s.Read(ctx, stream, 0) {
			if err != nil {
				return nil, err
			}
			version++
			if r.Version != version || r.Position < 1 || int(r.Position) > len(records) || records[r.Position-1].ID() != r.ID() {
				return nil, fmt.Errorf("%s read by itself has %s at %d; expected version %d, and the record that the log has there", stream, r.ID(), r.Position, version)
			}
		}
		if version != head {
			return nil, fmt.Errorf("%s read by itself ends at version %d, in the log at %d", stream, version, head)
		}
	}
	return records, nil
}

// texts returns the texts that were passed to at.
func texts(records []es.Record) []string {
	var texts []string
	for _, r := range records {
		texts = append(texts, string(r.Data))
	}
	return texts
}

// expectTexts fails the test unless the log has exactly these.
func expectTexts(t testing.TB, s es.Log, expected ...string) {
	t.Helper()
	if found := texts(all(t, s)); !slices.Equal(found, expected) {
		t.Errorf("the log has %q; expected %q", found, expected)
	}
}

// expectError fails the test unless the error is one of these, matched by errors.Is.
func expectError(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("the error is %v; expected %v", err, target)
		}
	}
}

// value returns the first value that a query returns on a connection of the driver.
func value(conn *sqlite3.SQLiteConn, query string) (driver.Value, error) {
	rows, err := conn.Query(query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	err = rows.Next(values)
	return values[0], err
}
