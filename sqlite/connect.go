package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// The pragmas of each kind of connection. They apply to a connection, not to a file, so a Store opens its own connections.
const (
	// A commit is durable when it returns: synchronous=FULL, and F_FULLFSYNC on macOS.
	// The store waits for locks in Go, where a context can end the wait.
	// SQLite checkpoints the write-ahead log at 16 MB instead of 4. A large transaction changes an index page for each stream, so with 4 MB
	// every other one would checkpoint, with syncs of its own.
	// What is deleted is overwritten with zeros, so that no erased content stays in unused bytes of the file. Events are not deleted, so appends
	// do not pay for it.
	writePragmas = `
		pragma busy_timeout = 0;
		pragma synchronous = full;
		pragma fullfsync = on;
		pragma checkpoint_fullfsync = on;
		pragma wal_autocheckpoint = 4000;
		pragma secure_delete = on;
		pragma temp_store = memory;
		pragma cache_size = -16384`
	readPragmas = `
		pragma busy_timeout = %d;
		pragma temp_store = memory;
		pragma query_only = on`
	memoryPragmas = `
		pragma journal_mode = memory;
		pragma temp_store = memory`
)

// connector opens connections without registering a driver, which would be package state.
type connector struct {
	driver *sqlite3.SQLiteDriver
	dsn    string
}

func (s *Store) connector(uri, pragmas string) connector {
	hook := func(conn *sqlite3.SQLiteConn) error {
		_, err := conn.Exec(pragmas, nil)
		if err == nil && pragmas == writePragmas {
			err = useLog(conn)
		}
		if err == nil {
			err = s.files.check() // it may be another file than that of earlier connections
		}
		return err
	}
	separator, lock := "?", "deferred"
	if pragmas == writePragmas || pragmas == memoryPragmas {
		lock = "immediate"
	}
	if strings.HasSuffix(uri, "?mode=ro") { // a "?" in the path is escaped
		separator = "&"
	}
	// With _txlock, transactions of database/sql take the write lock when they begin. Taking it later fails if another process has written.
	return connector{&sqlite3.SQLiteDriver{ConnectHook: hook}, uri + separator + "_stmt_cache_size=64&_txlock=" + lock}
}

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver implements driver.Connector.
func (c connector) Driver() driver.Driver { return c.driver }

// useLog turns on the write-ahead log. If SQLite cannot, it returns no error, but the mode that remains in effect.
func useLog(conn *sqlite3.SQLiteConn) error {
	rows, err := conn.Query("pragma journal_mode = wal", nil)
	if err != nil {
		return err
	}
	mode := make([]driver.Value, 1)
	if err := errors.Join(rows.Next(mode), rows.Close()); err != nil {
		return err
	}
	if mode[0] != "wal" {
		return fmt.Errorf("write-ahead log not available (journal mode %v): put the database on a local disk", mode[0])
	}
	return nil
}

// fileURI converts an absolute path with slashes to a URI for SQLite, so that "?", "#" and "%" in it have no special meaning.
// Source: https://www.sqlite.org/uri.html, section 3.1.
func fileURI(path string) string {
	if path[0] != '/' {
		path = "/" + path // C:/...
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}
