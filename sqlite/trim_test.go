package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// grow appends n events of 100,000 bytes.
func grow(t *testing.T, s es.Store, id string, n int) {
	t.Helper()
	for range n {
		a := at(id, es.AnyVersion, "")
		a.Events[0].Data = make([]byte, 100_000)
		add(t, s, a)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// alwaysRead sets the size from which a store's write-ahead log is large to 3 MiB, and reads the store with overlapping readers until the test ends.
func alwaysRead(t *testing.T, s *sqlite.Store) {
	s.SetLargeLog(3 << 20)
	add(t, s, at("read", 0, make([]string, 10_000)...))
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		readers.Wait()
	})
	for range 3 {
		readers.Go(func() {
			var err error
			for err == nil {
				for _, err = range s.All(ctx, 0, es.Filter{Types: []string{"none"}}) {
				}
			}
			expectError(t, err, context.Canceled)
		})
	}
}

func TestLargeLog(t *testing.T) {
	t.Run("is truncated once its readers are done", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path, target := filepath.Join(t.TempDir(), "link.db"), file(t)
			if err := os.Symlink(target, path); err != nil {
				t.Skip(err)
			}
			s := open(t, path)
			s.SetLargeLog(3 << 20)
			grow(t, s, "a", 1)
			reader := connect(t, path)
			do(t, reader, "begin")
			if n := ask[int](t, reader, "select count(*) from es_events"); n != 1 {
				t.Fatalf("%d events", n)
			}
			grow(t, s, "a", 60)
			if size(t, target+"-wal") < 6_000_000 {
				t.Fatal("the log was emptied under a reader; this test is about one that keeps it")
			}
			do(t, reader, "rollback")
			time.Sleep(10 * time.Second) // fake clock: until the next attempt
			grow(t, s, "a", 2)
			if found := size(t, target+"-wal"); found > 1<<20 {
				t.Errorf("it has %d bytes still", found)
			}
			if n := len(all(t, s)); n != 63 {
				t.Errorf("%d records", n)
			}
		})
	})
	t.Run("does not grow without limit under overlapping readers", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		alwaysRead(t, s)
		most, rounds := int64(0), 30
		if testing.Short() {
			rounds = 15
		}
		for range rounds {
			grow(t, s, "written", 10)
			most = max(most, size(t, path+"-wal"))
		}
		if most > 12<<20 {
			t.Errorf("it grew to %d bytes", most)
		}
	})
	t.Run("waiting for the lock ends with the context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := file(t)
			s := open(t, path)
			s.SetLargeLog(1)
			grow(t, s, "a", 3)
			var timeout any
			err := s.OnWriter(func(conn *sqlite3.SQLiteConn) (err error) {
				timeout, err = value(conn, "pragma busy_timeout")
				return err
			})
			if err != nil || timeout != int64(0) {
				t.Errorf("the busy timeout is %v, %v; expected 0", timeout, err)
			}
		})
	})
}

// In a process that only projects, no append counts the bytes written, so the store checks the size of the file.
func TestLargeLogOfAProcessThatOnlyProjects(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: writes 300 large records; TestLargeLog covers appends")
	}
	path, elsewhere := file(t), new(es.Mem)
	s := open(t, path)
	alwaysRead(t, s)
	grow(t, elsewhere, "written", 300)
	most := int64(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := s.Project(ctx, sqlite.Projection{
		Name: "copies", Source: projection.FromLog(elsewhere), Batch: 10,
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "create table copies (data blob not null) strict")
			return err
		},
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) (err error) {
			for _, r := range records {
				_, failed := tx.ExecContext(ctx, "insert into copies (data) values (?)", r.Data)
				err = errors.Join(err, failed)
			}
			return err
		},
		OnProgress: func(projection.Progress) { most = max(most, size(t, path+"-wal")) },
		OnCaughtUp: func(context.Context) error { cancel(); return nil },
	})
	expectError(t, err, context.Canceled)
	if most < 1<<20 || most > 12<<20 {
		t.Errorf("it grew to %d bytes", most)
	}
}
