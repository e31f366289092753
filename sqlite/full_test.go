package sqlite_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// limit lets the database grow by a number of pages only, like a full disk.
func limit(t testing.TB, s *sqlite.Store, pages int64) {
	t.Helper()
	err := s.OnWriter(func(conn *sqlite3.SQLiteConn) error {
		count, err := value(conn, "pragma page_count")
		if err == nil {
			_, err = conn.Exec(fmt.Sprint("pragma max_page_count = ", count.(int64)+pages), nil)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// isCode reports whether err is an error of SQLite with that code.
func isCode(err error, code sqlite3.ErrNo) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == code
}

// fill appends from several goroutines until each gets an error, and returns what was acknowledged.
func fill(t *testing.T, s *sqlite.Store, round string, check func(error)) (acknowledged map[string]bool) {
	t.Helper()
	acknowledged = make(map[string]bool)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for k := 0; ; k++ {
				text := fmt.Sprint(round, "-", w, "-", k)
				large := at("large", es.AnyVersion, strings.Repeat("x", 20_000))
				if _, err := s.Append(t.Context(), large, command(fmt.Sprint(w), es.AnyVersion, text, text)); err != nil {
					check(err)
					return
				}
				mu.Lock()
				acknowledged[text] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return acknowledged
}

func TestFull(t *testing.T) {
	t.Run("database at its size limit", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		add(t, s, at("a", 0, "first"))
		limit(t, s, 100)
		acknowledged := fill(t, s, "", func(err error) {
			if !isCode(err, sqlite3.ErrFull) || !errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "nothing was written; free disk space and try again") {
				t.Errorf("the error is %v", err)
			}
		})
		if err := s.SaveSnapshot(t.Context(), es.Snapshot{Stream: stream("a"), Version: 1, Data: make([]byte, 1<<20)}); !isCode(err, sqlite3.ErrFull) {
			t.Errorf("a snapshot: %v", err)
		}
		if n := len(all(t, s)); n != 1+2*len(acknowledged) || len(acknowledged) == 0 {
			t.Errorf("%d records, %d acknowledged appends of two", n, len(acknowledged))
		}
		limit(t, s, 1<<20)
		add(t, s, at("a", 1, "goes on"))
		if err := s.SaveSnapshot(t.Context(), es.Snapshot{Stream: stream("a"), Version: 1, Data: make([]byte, 1<<20)}); err != nil {
			t.Error(err)
		}
	})
}
