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

// sqliteSchema is the events table of package sqlite with its index. What package sqlite has besides is left out, since nothing here
// needs it: the tables of commands, snapshots and migrations, and the triggers that keep history from being changed.
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
// Tuned: prepared statements; one writer connection, for which callers queue in database/sql (as fast as a mutex, and faster with few
// callers); a pool of readers; and the version is checked by the unique index, so that an append is a single INSERT that commits itself.
// The textbook's begin, select max(version), insert, commit is slower by a fifth.
//
// It leaves out: group commit; a check for gaps (an append far beyond the head is taken), for limits and for bad names; metadata; command ids;
// cancelling a statement that has begun (the driver starts a goroutine for each statement that could be cancelled);
// waiting for other processes beyond the driver's busy_timeout; migrations; saying what is to be done about an error.
type SQLite struct {
	write, read          *sql.DB
	insert, stream, scan *sql.Stmt
}

// OpenSQLite opens or makes the database in a file.
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

// Append writes events behind a version, in one commit of its own. It returns [ErrConflict] if the stream has events behind it.
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
// With many rows this is about as fast as the driver goes from one goroutine; database/sql itself costs a few percent of it.
//
// It leaves out: everything but the INSERT. Nobody waits for a result of his own, and all rows are there before it begins.
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

// Read calls see with the events of a stream after a version, by one prepared query. The data are the driver's: see must not keep them.
//
// It leaves out: position, time and metadata; pages, so a transaction and a connection are held while see runs; cancelling on the way.
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

// Scan calls see with all events, by one prepared query. The data are the driver's: see must not keep them.
//
// It leaves out: metadata that is not null; pages, filters and cancelling.
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
		return r, fmt.Errorf("baseline: position %d has metadata, which is left out", position)
	}
	r.Position, r.Version, r.Time = es.Position(position), es.Version(version), time.UnixMicro(micros)
	return r, nil
}
