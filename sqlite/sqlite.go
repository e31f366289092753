// Package sqlite keeps events in a SQLite database, for tests, for programs on one machine and for embedded use.
//
// Appends are durable when they return (write-ahead log, synchronous=FULL). Concurrent appends share transactions: one commit writes
// the appends of many goroutines. Several processes may use the same file. It must be on a local disk, because network file systems
// do not implement the locks that SQLite needs. While the database is open, the files with the same name and the endings -wal and -shm are part of it.
//
// The names of the tables begin with es_, so that read models can be in the same database. The migrations folder has the columns.
// To copy a database in use, call [Store.Backup]. Never copy the file.
package sqlite

import (
	"cmp"
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
	"github.com/thalo-go/es/internal/growth"
	"github.com/thalo-go/es/internal/scheme"
	"github.com/thalo-go/es/internal/tag"
	"github.com/thalo-go/es/projection"
)

// Store is an [es.Log] in a SQLite database. It also keeps snapshots, leases and checkpoints and runs projections. [Open] returns it.
type Store struct {
	projection.Projections[*sql.Tx] // runs projections and reactions in this database

	name     string
	id       string
	busy     time.Duration
	turns    turns
	readOnly bool
	write    *sql.DB // one connection; the same as read if the store is read-only
	read     *sql.DB // a pool; the same as write for a database in memory
	queue    *commit.Queue
	writer   writer
	holder   holder
	log      logFile
	files    openFiles
	history  history
	growth   *growth.Growth
	inline   *engine.SQLInline[*sql.Tx] // nil without inline projections
	pages    sync.Pool                  // of *[]es.Record: reused memory of pages
	close    func() error               // runs closeOnce at most once
}

var (
	_ es.Log         = (*Store)(nil)
	_ es.Snapshots   = (*Store)(nil)
	_ es.Leases      = (*Store)(nil)
	_ es.Checkpoints = (*Store)(nil)
)

// Config is the settings of a store. Its zero value is what [Open] uses.
type Config struct {
	// BusyTimeout is how long Open and an append wait for another process that holds the write lock, and how long a call waits for
	// the handler of a projection that has the writing connection. 0 means 10s.
	BusyTimeout time.Duration

	// PollInterval is the interval at which Changed polls for appends of other processes. 0 means 10ms. Changed polls only while
	// a caller waits in it. Appends of this process wake it at once.
	PollInterval time.Duration

	// Inline are projections that run in the transactions of appends, so that their read models never lag behind the events.
	//
	// Handle is called with the records of one append, or of several that share a transaction, before they are committed. If Handle returns
	// an error, that append is not written, and only its caller receives an error, which wraps that of Handle. So Handle can enforce an invariant
	// across streams, such as unique names. Handle must be quick, because all appends wait for it. It must use only its transaction, and
	// must return the errors that it receives from it.
	//
	// Open applies all records that an inline projection has not handled yet, which may take long. Events from processes without the
	// projection are applied by the next append from a process with it. A projection that ran in Project with one partition may continue
	// inline, and the other way round, but not both at the same time. Source, Partitions and Park are refused. Retries, Lease and Logger have no
	// effect. OnProgress and OnCaughtUp are called by Open.
	Inline []Projection

	// ReadOnly opens an existing database without changing it. Nothing is created or migrated, and methods that write return an error
	// that wraps [es.ErrInvalid]. SQLite may still create the files beside the database that its readers share.
	ReadOnly bool
}

// Open opens the database in a file. It creates and migrates the database if needed. The folder must exist.
// The path ":memory:" opens an empty database of its own, which Close discards.
//
// Open returns an error if the file is not a database or was used by a newer release.
func Open(path string) (*Store, error) { return Config{}.Open(path) }

// Open is like the function [Open], with settings.
func (c Config) Open(path string) (*Store, error) {
	if err := refuseURL(path); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	s := &Store{name: path, busy: cmp.Or(c.BusyTimeout, 10*time.Second), readOnly: c.ReadOnly}
	s.files.began = time.Now()
	s.close = sync.OnceValue(s.closeOnce)
	if err := s.connect(path); err != nil {
		return nil, fmt.Errorf("sqlite: open %s: %w", path, s.explain(err))
	}
	s.writer.history, s.writer.turns, s.writer.hash = &s.history, &s.turns, tag.Hash
	s.queue = commit.New(s.beginAppend, commit.Options{})
	projections := engine.NewSQL(&backend{store: s})
	s.Projections = projections
	s.growth = s.newGrowth(cmp.Or(c.PollInterval, 10*time.Millisecond))
	if err := s.prepare(projections, c.Inline); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: open %s: %w", path, err), s.Close())
	}
	return s, nil
}

// refuseURL returns an error for what looks like a URL, unless it is the path of a file. The error has no more of it, such as a password.
func refuseURL(path string) error {
	err := scheme.Refuse(path, "the path of a file, or open a server by postgres.Open")
	if err == nil {
		return nil
	}
	if _, missing := os.Stat(filepath.Dir(path)); missing == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", es.ErrInvalid, err)
}

func (c Config) check() error {
	switch {
	case c.BusyTimeout < 0:
		return fmt.Errorf("%w: Config.BusyTimeout is %v: must not be negative", es.ErrInvalid, c.BusyTimeout)
	case c.PollInterval < 0:
		return fmt.Errorf("%w: Config.PollInterval is %v: must not be negative", es.ErrInvalid, c.PollInterval)
	}
	return nil
}

// prepare migrates the database and starts the inline projections.
func (s *Store) prepare(projections *engine.SQL[*sql.Tx], inline []Projection) (err error) {
	if s.readOnly {
		return s.explain(s.inspect(background))
	}
	if err := s.migrate(background); err != nil || len(inline) == 0 {
		return s.explain(err)
	}
	s.holder.known.Store(true)
	if s.inline, err = projections.Inline(inline, s.between); err != nil {
		return err
	}
	return s.inline.Start(background)
}

func (s *Store) connect(path string) error {
	switch {
	case path == "":
		return errors.New("the path is empty: give a file, or :memory: instead")
	case strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("the path %q contains a NUL byte: give another", path)
	}
	if path == ":memory:" && s.readOnly {
		return errors.New("a database in memory cannot be read-only: it is empty")
	}
	if path == ":memory:" {
		s.write = sql.OpenDB(s.connector("file::memory:", memoryPragmas))
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
	if err := checkFile(absolute); err != nil {
		return err
	}
	s.files.name = absolute
	s.files.ids[0], _ = identify(absolute) // unknown if it is created
	uri := fileURI(filepath.ToSlash(absolute))
	if s.readOnly {
		if _, err := os.Stat(absolute); err != nil {
			return fmt.Errorf("a read-only database must exist: %w", err)
		}
		uri += "?mode=ro"
	}
	readers := max(4, 2*runtime.GOMAXPROCS(0))
	s.read = sql.OpenDB(s.connector(uri, fmt.Sprintf(readPragmas, s.busy.Milliseconds())))
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if s.readOnly {
		s.write = s.read
		return nil
	}
	s.write = sql.OpenDB(s.connector(uri, writePragmas))
	s.write.SetMaxOpenConns(1)
	s.write.SetMaxIdleConns(1)
	return nil
}

// smallestDatabase is the size in bytes of the smallest page of SQLite.
const smallestDatabase = 512

// checkFile refuses what SQLite would take for an empty database and write over.
func checkFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil //nolint:nilerr // SQLite creates it, or returns an error
	case info.IsDir():
		return errors.New("it is a folder: give a file in it")
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file: give another path")
	case info.Size() > 0 && info.Size() < smallestDatabase:
		return fmt.Errorf("it is not a database, as it has only %d bytes: give another path, or move the file away", info.Size())
	}
	return nil
}

// ID returns the permanent ID of the store. It is created with the database; copies of the database have the same one.
func (s *Store) ID() string { return s.id }

// DB returns read-only connections to the database, for queries by the application.
//
// For a database in memory it returns the store's only connection. It is not read-only, but must not be used to write to the tables of this package.
// While a query uses it, all methods of the store wait.
func (s *Store) DB() *sql.DB { return s.read }

// Stats returns the counters since the store was opened.
func (s *Store) Stats() es.Stats { return s.queue.Stats() }

// Close waits for appends in flight, ends waiting readers and closes the database. Methods called afterwards return an error
// that wraps [es.ErrClosed]. Close may be called again. If the handler of a projection has not returned within [Config.BusyTimeout],
// Close returns an error that names it, and the files stay open until it returns.
func (s *Store) Close() error { return s.close() }

func (s *Store) closeOnce() error {
	s.queue.Close()
	s.growth.Close()
	var err error
	if s.read != s.write {
		// Readers first: the last connection to close checkpoints the write-ahead log, and only the writer's is set up to sync.
		err = s.read.Close()
	}
	if conn, connErr := s.writerConn(background); connErr == nil { // waits for a snapshot in flight
		err = errors.Join(err, conn.Raw(func(any) error { return s.writer.close() }), conn.Close())
	} else if engine.IsHeld(connErr) {
		err = errors.Join(err, fmt.Errorf("sqlite: close %s: %w", s.name, connErr))
	}
	return errors.Join(err, s.write.Close())
}
