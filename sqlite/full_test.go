package sqlite_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es/sqlite"
)

// limit lets the database grow to so many pages more, and no further, as a full disk would.
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

// isCode tells whether an error is one of SQLite's with that code.
func isCode(err error, code sqlite3.ErrNo) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == code
}
