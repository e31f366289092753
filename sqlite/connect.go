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

// The pragmas of each kind of connection. They hold for a connection, not for a file, which is why a Store opens its own.
const (
	// A commit is on the disk when it returns: synchronous=FULL, and F_FULLFSYNC where the system has it (macOS).
	// Waiting for the lock is done in Go, where a context can end it.
	// The log is emptied at 16 MB, not at SQLite's 4: a crowd's transaction touches a page of the index for each stream, so that it would be
	// emptied, with syncs of its own, at every other one.
	writePragmas = `
		pragma busy_timeout = 0;
		pragma synchronous = full;
		pragma fullfsync = on;
		pragma checkpoint_fullfsync = on;
		pragma wal_autocheckpoint = 4000;
		pragma temp_store = memory;
		pragma cache_size = -16384`
	readPragmas = `
		pragma busy_timeout = 10000;
		pragma temp_store = memory;
		pragma query_only = on`
	memoryPragmas = `
		pragma journal_mode = memory;
		pragma temp_store = memory`
)

// A connector makes connections without registering a driver, which would be state of the package.
type connector struct {
	driver *sqlite3.SQLiteDriver
	dsn    string
}

func newConnector(uri, pragmas string) connector {
	hook := func(conn *sqlite3.SQLiteConn) error {
		_, err := conn.Exec(pragmas, nil)
		if err == nil && pragmas == writePragmas {
			err = useLog(conn)
		}
		return err
	}
	separator, lock := "?", "immediate"
	if pragmas == readPragmas {
		lock = "deferred"
	}
	if strings.HasSuffix(uri, "?mode=ro") { // a "?" of the path is escaped
		separator = "&"
	}
	// What database/sql begins takes the lock at once, as this package does: it would be too late to wait for it in the middle.
	return connector{&sqlite3.SQLiteDriver{ConnectHook: hook}, uri + separator + "_stmt_cache_size=64&_txlock=" + lock}
}

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver implements driver.Connector.
func (c connector) Driver() driver.Driver { return c.driver }

// useLog lets the database have a write-ahead log. SQLite gives no error if it cannot: it answers with the mode that it stays in.
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
		return fmt.Errorf("no write-ahead log can be had here (journal mode %v): put the database on a local disk", mode[0])
	}
	return nil
}

// fileURI turns an absolute path with slashes into the URI form that SQLite reads, so that "?", "#" and "%" in it are only characters.
// Source: https://www.sqlite.org/uri.html, section 3.1.
func fileURI(path string) string {
	if path[0] != '/' {
		path = "/" + path // C:/...
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}
