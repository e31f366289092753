package sqlite

import "github.com/mattn/go-sqlite3"

// OnWriter runs f on the connection that writes, while nothing else does.
func (s *Store) OnWriter(f func(conn *sqlite3.SQLiteConn) error) error {
	conn, err := s.write.Conn(background)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error { return f(driver.(*sqlite3.SQLiteConn)) })
}

// Queries are the statements that must be answered from an index.
var Queries = []string{selectStream, selectAll, selectFiltered, selectHead, selectLast, selectStreamHead, selectCommand, selectSnapshot,
	selectLease, deleteLease, selectCheckpoint, updateCheckpoint}

// FileURI makes the URI of a file.
var FileURI = fileURI

// Connect opens a connection that writes to the database that a URI names, and closes it.
func Connect(uri string) error {
	conn, err := newConnector(uri, writePragmas).Connect(background)
	if err == nil {
		err = conn.Close()
	}
	return err
}

// SetLargeLog sets the size at which the write-ahead log is emptied.
func (s *Store) SetLargeLog(bytes int64) { s.log.large = bytes }
