package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es"
)

// grow appends so many events of 100,000 bytes.
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

func TestLargeLog(t *testing.T) {
	t.Run("is emptied when those who read it let go", func(t *testing.T) {
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
			time.Sleep(10 * time.Second) // by the bubble's clock: the next attempt is due
			grow(t, s, "a", 2)
			if found := size(t, target+"-wal"); found > 1<<20 {
				t.Errorf("it has %d bytes still", found)
			}
			if n := len(all(t, s)); n != 63 {
				t.Errorf("%d records", n)
			}
		})
	})
	t.Run("does not grow for ever while somebody always reads", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		s.SetLargeLog(3 << 20)
		add(t, s, at("read", 0, make([]string, 10_000)...))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				var err error
				for err == nil {
					for _, err = range s.All(ctx, 0, es.Filter{Types: []string{"none"}}) {
					}
				}
				expectError(t, err, context.Canceled)
			})
		}
		most := int64(0)
		for range 30 {
			grow(t, s, "written", 10)
			most = max(most, size(t, path+"-wal"))
		}
		cancel()
		wg.Wait()
		if most > 12<<20 {
			t.Errorf("it grew to %d bytes", most)
		}
	})
	t.Run("leaves waiting for the lock to Go, where a context ends it", func(t *testing.T) {
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
