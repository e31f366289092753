package sqlite

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
)

// OnWriter runs f with exclusive use of the writing connection.
func (s *Store) OnWriter(f func(conn *sqlite3.SQLiteConn) error) error {
	conn, err := s.write.Conn(background)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error { return f(driver.(*sqlite3.SQLiteConn)) })
}

// Queries are the statements that must use an index.
var Queries = []string{selectStream, selectAll, selectFiltered, selectTop, selectMark, selectMarks, selectPosition, selectLast, selectStreamHead, selectCommand, selectSnapshot,
	selectTagged, selectMatch, selectTagSpan, selectHasKind, selectTaggedKind, selectLease, deleteLease, selectCheckpoint, updateCheckpoint}

// SetHash sets the function by which tags are indexed.
func (s *Store) SetHash(hash func(tag string) int64) { s.writer.hash = hash }

// FileURI returns the URI of a file.
var FileURI = fileURI

// Connect opens a writing connection to the database with a URI, and closes it.
func Connect(uri string) error {
	conn, err := new(Store).connector(uri, writePragmas).Connect(background)
	if err == nil {
		err = conn.Close()
	}
	return err
}

// SetDay replaces the time of day that projections measure their leases with.
func (s *Store) SetDay(day func() time.Time) { s.Projections.(*engine.SQL[*sql.Tx]).SetDay(day) }

// SetLargeLog sets the size at which the write-ahead log is truncated.
func (s *Store) SetLargeLog(bytes int64) { s.log.large = bytes }

// Begin begins a transaction of the group commit, and returns a function that writes and commits one call of Append.
func (s *Store) Begin(ctx context.Context) (write func([]es.Append) (es.Position, error), err error) {
	tx, err := s.beginAppend(ctx)
	if err != nil {
		return nil, err
	}
	return func(appends []es.Append) (es.Position, error) {
		r := &commit.Request{Appends: appends, Events: 1}
		tx.Write(ctx, []*commit.Request{r})
		return r.Position, r.Err
	}, nil
}

// WriteTogether writes several calls of Append in one transaction, in this order.
func (s *Store) WriteTogether(ctx context.Context, calls ...[]es.Append) ([]es.Position, []error) {
	positions, errs := make([]es.Position, len(calls)), make([]error, len(calls))
	tx, err := s.beginAppend(ctx)
	if err != nil {
		return positions, append(errs[:0], slices.Repeat([]error{err}, len(calls))...)
	}
	requests := make([]*commit.Request, len(calls))
	for i, appends := range calls {
		requests[i] = &commit.Request{Appends: appends}
		for _, a := range appends {
			requests[i].Events += len(a.Events)
		}
	}
	tx.Write(ctx, requests)
	for i, r := range requests {
		positions[i], errs[i] = r.Position, r.Err
	}
	return positions, errs
}
