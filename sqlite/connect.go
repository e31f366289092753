package sqlite

import (
	"context"
	"database/sql/driver"
	"net/url"
	"path/filepath"

	"github.com/mattn/go-sqlite3"
)

// The pragmas of each kind of connection. They hold for a connection, not for a file, which is why a Store opens its own.
const (
	// A commit is on the disk when it returns: synchronous=FULL, and F_FULLFSYNC where the system has it (macOS).
	// Waiting for the lock is done in Go, where a context can end it.
	writePragmas = `
		pragma busy_timeout = 0;
		pragma journal_mode = wal;
		pragma synchronous = full;
		pragma fullfsync = on;
		pragma checkpoint_fullfsync = on;
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
		return err
	}
	return connector{&sqlite3.SQLiteDriver{ConnectHook: hook}, uri + "?_stmt_cache_size=64"}
}

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver implements driver.Connector.
func (c connector) Driver() driver.Driver { return c.driver }

// fileURI turns an absolute path into the URI form that SQLite reads, so that "?", "#" and "%" in it are only characters.
// Source: https://www.sqlite.org/uri.html, section 3.1.
func fileURI(path string) string {
	path = filepath.ToSlash(path)
	if path[0] != '/' {
		path = "/" + path // C:/...
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}
