// Package sqlite keeps events in a SQLite database: for tests, for programs on one machine, for embedded use.
//
// Appends are durable when they return (write-ahead log, synchronous=FULL) and share transactions: what many goroutines append at the
// same time is written in one commit. Several processes may share the file. It must be on a local disk, as network file systems
// do not keep SQLite's locks; while it is open, the files beside it whose names end with -wal and -shm are part of it.
//
// The tables' names begin with es_, so that read models may stand beside them in the same database; see migrations for the columns.
// A copy of a database in use is made with [Store.Backup], never by copying the file.
package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
)

// Store is an [es.Log] in a SQLite database, and keeps snapshots, leases and checkpoints there. [Open] makes it.
type Store struct {
	name     string
	id       string
	busy     time.Duration
	sealed   bool    // Config.ReadOnly
	write    *sql.DB // one connection; the same as read if the store is sealed
	read     *sql.DB // a pool; the same as write for a database in memory
	queue    *commit.Queue
	writer   writer
	log      logFile
	watcher  watcher
	projects *engine.Engine[*sql.Tx]
	inline   *engine.Inline[*sql.Tx] // nil if there are none
	rooms    sync.Pool               // of *[]es.Record: the memory of pages, used again
	close    func() error            // does it once
}

var (
	_ es.Log         = (*Store)(nil)
	_ es.Snapshots   = (*Store)(nil)
	_ es.Leases      = (*Store)(nil)
	_ es.Checkpoints = (*Store)(nil)
)

// Config is what can be set about a store. Its zero value is what [Open] uses.
type Config struct {
	// BusyTimeout is how long an append waits for another process that holds the write lock. 0 means 10 seconds.
	BusyTimeout time.Duration

	// Poll is how often Changed looks for what other processes have written, while anybody waits in it. 0 means 10 milliseconds.
	// What this process writes wakes it at once.
	Poll time.Duration

	// Inline are the projections that run within the transactions of appends, so that read model and events are never apart.
	// Handle gets what an append, or several that share a transaction, are about to write. What it returns an error for is not written, and
	// the caller of Append, he alone, gets an error that wraps it: so a handler can enforce what concerns several streams, such as a name that
	// is given only once. It must be quick, as all who append wait for it; it must use its transaction only, and return the errors that it
	// gets from it.
	//
	// Opening brings each to the end of the log, and takes as long as that takes. What others append that run without it is applied by the next
	// append of one who runs with it. A projection that Project has run with one partition may go on inline, and the other way round, but not
	// both at a time. Source, Partitions and Park are refused; Retries, Lease and Logger play no part; OnProgress and OnCaughtUp hear of opening.
	Inline []Projection

	// ReadOnly opens a database that is there and leaves it as it is: nothing is made or migrated, and what would write makes an error
	// that wraps [es.ErrInvalid]. SQLite may still make the files beside the database that its readers share.
	ReadOnly bool
}

// Open opens the database in a file, and makes or migrates it as needed. The folder must exist.
// The path ":memory:" gives an empty database of its own that is gone when it is closed.
//
// A database of a newer release is refused, and so is a file that is no database.
func Open(path string) (*Store, error) { return Config{}.Open(path) }

// Open is like the function [Open], with settings.
func (c Config) Open(path string) (*Store, error) {
	s := &Store{name: path, busy: c.BusyTimeout, sealed: c.ReadOnly}
	s.close = sync.OnceValue(s.closeOnce)
	if s.busy <= 0 {
		s.busy = 10 * time.Second
	}
	if c.Poll <= 0 {
		c.Poll = 10 * time.Millisecond
	}
	if err := s.connect(path); err != nil {
		return nil, fmt.Errorf("sqlite: open %s: %w", path, explain(err))
	}
	s.queue = commit.New(s.beginAppend, commit.Options{})
	s.projects = engine.New(&backend{store: s})
	s.watcher.init(s, c.Poll, s.sealed || s.read != s.write)
	if err := s.prepare(c.Inline); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: open %s: %w", path, err), s.Close())
	}
	return s, nil
}

// prepare makes the database ready for work.
func (s *Store) prepare(inline []Projection) (err error) {
	if s.sealed {
		return explain(s.inspect(background))
	}
	if err := s.migrate(background); err != nil || len(inline) == 0 {
		return explain(err)
	}
	if s.inline, err = s.projects.Inline(inline, s.between); err != nil {
		return err
	}
	return s.inline.Start(background)
}

func (s *Store) connect(path string) error {
	switch {
	case path == "":
		return errors.New("the path is empty: give a file or :memory: instead")
	case strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("the path %q has a NUL byte: give another", path)
	}
	if path == ":memory:" && s.sealed {
		return errors.New("a database in memory is empty when it is opened: there is nothing to read")
	}
	if path == ":memory:" {
		s.write = sql.OpenDB(newConnector("file::memory:", memoryPragmas))
		s.write.SetMaxOpenConns(1)
		s.write.SetMaxIdleConns(1)
		s.read = s.write
		return nil
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Dir(absolute)); err != nil {
		return fmt.Errorf("the folder must exist: %w", err)
	}
	if info, err := os.Stat(absolute); err == nil && info.IsDir() {
		return errors.New("it is a folder: give a file in it")
	}
	uri := fileURI(filepath.ToSlash(absolute))
	if s.sealed {
		if _, err := os.Stat(absolute); err != nil {
			return fmt.Errorf("it is opened to be read, and must be there: %w", err)
		}
		uri += "?mode=ro"
	}
	readers := max(4, 2*runtime.GOMAXPROCS(0))
	s.read = sql.OpenDB(newConnector(uri, readPragmas))
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if s.sealed {
		s.write = s.read
		return nil
	}
	s.write = sql.OpenDB(newConnector(uri, writePragmas))
	s.write.SetMaxOpenConns(1)
	s.write.SetMaxIdleConns(1)
	return nil
}

// ID identifies the store for ever: it is made with the database and goes along with copies of it.
func (s *Store) ID() string { return s.id }

// DB gives read-only connections to the database, for queries by the application. For a database in memory it gives the only connection
// there is: while a query has it, nothing else goes on; and it is not read-only, but the tables of this package must not be written through it.
func (s *Store) DB() *sql.DB { return s.read }

// Close waits for appends under way, ends waiting readers and closes the database. What is called afterwards returns an error
// that wraps [es.ErrClosed]; Close itself may be called again.
func (s *Store) Close() error { return s.close() }

func (s *Store) closeOnce() error {
	s.queue.Close()
	s.watcher.close()
	var err error
	if s.read != s.write {
		// The readers first: whoever closes last brings the write-ahead log into the file, and the writer syncs as it should.
		err = s.read.Close()
	}
	if conn, connErr := s.write.Conn(background); connErr == nil { // waits for a snapshot under way
		err = errors.Join(err, conn.Raw(func(any) error { return s.writer.close() }), conn.Close())
	}
	return errors.Join(err, s.write.Close())
}
