package baseline

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es"
)

// sqliteSchema is the events table of package sqlite with its index. It leaves out the tables of commands, snapshots and migrations, and the
// triggers that protect the history.
const sqliteSchema = `
create table if not exists events (
	position integer primary key,
	kind     text    not null,
	id       text    not null,
	version  integer not null,
	time     integer not null,
	type     text    not null,
	data     blob    not null,
	meta     text
) strict;
create unique index if not exists events_stream on events (kind, id, version);`

const (
	sqliteInsert = "insert into events (kind, id, version, time, type, data) values (?, ?, ?, ?, ?, ?)"
	sqliteStream = "select version, type, data from events where kind = ? and id = ? and version > ? order by version"
	sqliteScan   = "select position, kind, id, version, time, type, data, meta from events order by position"
)

// SQLite is an event store on the driver that package sqlite uses, with the same pragmas and one commit per append.
//
// It is tuned as follows:
//
//   - Statements are prepared, and readers have a pool.
//   - Callers queue in database/sql for the one connection that writes. This is as fast as a mutex, and faster with few callers.
//   - The unique index checks the version, so an append is a single INSERT without an explicit transaction. The textbook's begin, select
//     max(version), insert, commit is slower by a fifth.
//
// It leaves out:
//
//   - group commit
//   - checks for gaps, limits and invalid names; it accepts an append far after the end of the stream
//   - metadata, command ids and migrations
//   - cancelling a running statement, because the driver starts a goroutine for each statement that can be cancelled
//   - waiting for other processes for longer than the driver's busy_timeout
//   - errors that say how to fix the problem
type SQLite struct {
	write, read          *sql.DB
	insert, stream, scan *sql.Stmt
}

// OpenSQLite opens or creates the database in a file.
func OpenSQLite(path string) (*SQLite, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	uri := (&url.URL{Scheme: "file", Path: filepath.ToSlash(absolute)}).String()
	s := &SQLite{}
	if s.write, err = sql.Open("sqlite3", uri+"?_journal_mode=WAL&_synchronous=FULL&_cache_size=-16384&_busy_timeout=10000"); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	s.write.SetMaxIdleConns(1)
	if s.read, err = sql.Open("sqlite3", uri+"?_busy_timeout=10000&_query_only=true"); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	readers := max(4, 2*runtime.GOMAXPROCS(0))
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *SQLite) prepare() error {
	_, err := s.write.Exec("pragma wal_autocheckpoint = 4000; pragma temp_store = memory; pragma fullfsync = on; pragma checkpoint_fullfsync = on;" + sqliteSchema)
	if err != nil {
		return err
	}
	if s.insert, err = s.write.Prepare(sqliteInsert); err != nil {
		return err
	}
	if s.stream, err = s.read.Prepare(sqliteStream); err != nil {
		return err
	}
	s.scan, err = s.read.Prepare(sqliteScan)
	return err
}

// Close closes the database.
func (s *SQLite) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }

// Append appends events after a version, in its own commit. It returns [ErrConflict] if the stream has later events.
func (s *SQLite) Append(_ context.Context, stream es.Stream, after es.Version, events []es.Record) error {
	if len(events) == 1 {
		return conflict(insertRow(s.insert, Row{stream, after + 1, &events[0]}))
	}
	rows := make([]Row, len(events))
	for i := range events {
		rows[i] = Row{stream, after + es.Version(i) + 1, &events[i]}
	}
	return conflict(s.Insert(rows))
}

// A Row is one row to insert.
type Row struct {
	Stream  es.Stream
	Version es.Version
	Event   *es.Record
}

// Insert is the bare loop of the driver: a prepared statement for each row, all in one transaction.
// With many rows this is about the limit of the driver on one goroutine. database/sql takes a few percent of the time.
//
// It leaves out everything but the INSERT. No caller waits for its own result, and all rows exist before it begins.
func (s *SQLite) Insert(rows []Row) error {
	tx, err := s.write.Begin()
	if err != nil {
		return err
	}
	insert := tx.Stmt(s.insert)
	for _, r := range rows {
		if err := insertRow(insert, r); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func insertRow(insert *sql.Stmt, r Row) error {
	_, err := insert.Exec(r.Stream.Kind, r.Stream.ID, int64(r.Version), time.Now().UnixMicro(), r.Event.Type, r.Event.Data)
	return err
}

func conflict(err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrConstraintUnique {
		return ErrConflict
	}
	return err
}

// Read calls see with the events of a stream after a version, by one prepared query. The driver owns the data, so see must not keep it.
//
// It leaves out position, time and metadata, and cancellation. It does not read pages, so it holds a transaction and a connection while see
// runs.
func (s *SQLite) Read(_ context.Context, stream es.Stream, after es.Version, see func(version es.Version, name string, data []byte) error) error {
	rows, err := s.stream.Query(stream.Kind, stream.ID, int64(after))
	if err != nil {
		return err
	}
	defer rows.Close()
	var version int64
	var name string
	var data sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&version, &name, &data); err != nil {
			return err
		}
		if err := see(es.Version(version), name, data); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Scan calls see with all events, by one prepared query. The driver owns the data, so see must not keep it.
//
// It leaves out metadata, pages, filters and cancellation.
func (s *SQLite) Scan(_ context.Context, see func(es.Record)) error {
	rows, err := s.scan.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	var data, meta sql.RawBytes
	for rows.Next() {
		r, err := scanRecord(rows, &data, &meta)
		if err != nil {
			return err
		}
		r.Data = data
		see(r)
	}
	return rows.Err()
}

// scanRecord reads a row of sqliteScan.
func scanRecord(rows *sql.Rows, data, meta *sql.RawBytes) (r es.Record, err error) {
	var position, version, micros int64
	if err := rows.Scan(&position, &r.Stream.Kind, &r.Stream.ID, &version, &micros, &r.Type, data, meta); err != nil {
		return r, err
	}
	if *meta != nil {
		return r, fmt.Errorf("baseline: position %d has metadata, which is not supported", position)
	}
	r.Position, r.Version, r.Time = es.Position(position), es.Version(version), time.UnixMicro(micros)
	return r, nil
}
