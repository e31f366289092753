// Package postgres keeps events in PostgreSQL, 14 or newer.
//
// Appends share transactions: what many goroutines append at the same time is written by one call of one function in the server,
// under an advisory lock that is held for that statement and its commit. Positions are assigned under the lock, so they are dense and
// in commit order, and readers neither skip events nor wait for anybody's open transaction.
//
// Everything is in one schema, "es" by default: tables events, commands, snapshots, leases and checkpoints, those of projections
// (projections, shards, workers, parked), functions, and the view history for people.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
)

// Store is an [es.Log] in a PostgreSQL database, and keeps snapshots, leases and checkpoints there. [Open] and [New] make it.
type Store struct {
	pool    *pgxpool.Pool
	ownPool bool
	config  Config
	schema  string // quoted
	channel string // of announcements
	id      string

	unprepared atomic.Bool  // behind a pooler that does not know prepared statements
	wrapped    atomic.Bool  // the server's default isolation is not read committed
	growth     atomic.Int32 // of the log, as far as is known; see statement
	statements statements
	heads      heads
	queue      *commit.Queue
	batch      batch // the memory of the one that is being written
	stride     stride
	cautious   int // batches that are to look before they write, because one before met a conflict
	loader     loader
	watcher    watcher
	projects   *engine.Engine[pgx.Tx]
	inline     *engine.Inline[pgx.Tx] // nil if there are none
	closing    chan struct{}
	close      sync.Once
}

var (
	_ es.Log         = (*Store)(nil)
	_ es.Snapshots   = (*Store)(nil)
	_ es.Leases      = (*Store)(nil)
	_ es.Checkpoints = (*Store)(nil)
)

// Config is what can be set about a store. Its zero value is what [Open] and [New] use.
type Config struct {
	// Schema is the schema in which everything is, so that several stores may share a database. "" means "es".
	Schema string

	// Inline are the projections that run within the transactions of appends, so that read model and events are never apart.
	// See [Projection] for when that is the better way. Handle gets what an append, or several that share a transaction, are about to write.
	// What it returns an error for is not written, and the caller of Append, he alone, gets an error that wraps it: so a handler can
	// enforce what concerns several streams, such as a name that is given only once. It must be quick, as all who append wait for it;
	// it must use its transaction only, and return the errors that it gets from it.
	//
	// Opening brings each to the end of the log, and takes as long as that takes. What others append that run without it is applied by the next
	// append of one who runs with it. A projection that Project has run with one partition may go on inline, and the other way round, but not
	// both at a time. Source, Partitions and Park are refused; Retries, Lease and Logger play no part; OnProgress and OnCaughtUp hear of opening.
	Inline []Projection

	// Patience is how long an append waits for a server that cannot be reached, before it is refused with nothing written. 0 means 10 seconds.
	// It does not limit how long the store tries to find out about an append that was already sent: that lasts until the caller's context ends.
	Patience time.Duration

	// Poll is how often Changed looks for what others have written, while anybody waits in it and the server's announcements
	// do not arrive: behind a pooler in transaction mode, say. 0 means 25 milliseconds. Where they do arrive it looks once a second all the same.
	Poll time.Duration

	// ReadOnly opens a schema that is there and leaves it as it is: nothing is made or migrated, and what would write makes an error
	// that wraps [es.ErrInvalid].
	ReadOnly bool
}

// Open connects to the database that a URL or a string of keywords names, and makes or migrates the schema as needed.
// While the server is not there it tries again until the context ends. A schema of a newer release is refused.
func Open(ctx context.Context, url string) (*Store, error) { return Config{}.Open(ctx, url) }

// New is like [Open] on a pool of the application's, which Close leaves open.
func New(ctx context.Context, pool *pgxpool.Pool) (*Store, error) { return Config{}.New(ctx, pool) }

// Open is like the function [Open], with settings.
func (c Config) Open(ctx context.Context, url string) (*Store, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: open: %w", err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: open: %w", err)
	}
	s, err := c.New(ctx, pool)
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.ownPool = true
	return s, nil
}

// New is like the function [New], with settings.
func (c Config) New(ctx context.Context, pool *pgxpool.Pool) (*Store, error) {
	s, err := c.store(pool)
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if s.inline != nil {
		if err := s.inline.Start(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("postgres: open: %w", err), s.Close())
		}
	}
	return s, nil
}

func (c Config) store(pool *pgxpool.Pool) (*Store, error) {
	if c.Schema == "" {
		c.Schema = "es"
	}
	if len(c.Schema) > 50 || strings.ContainsRune(c.Schema, 0) || !utf8.ValidString(c.Schema) {
		return nil, fmt.Errorf("postgres: %w: schema %.60q: a name is UTF-8 of at most 50 bytes without NUL", es.ErrInvalid, c.Schema)
	}
	if c.Patience <= 0 {
		c.Patience = 10 * time.Second
	}
	if c.Poll <= 0 {
		c.Poll = 25 * time.Millisecond
	}
	s := &Store{pool: pool, config: c, schema: pgx.Identifier{c.Schema}.Sanitize(), channel: "es:" + c.Schema, closing: make(chan struct{})}
	s.unprepared.Store(pool.Config().ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement)
	s.prepare()
	s.heads.init()
	s.queue = commit.New(s.begin, commit.Options{})
	s.loader.init(s)
	s.watcher.init(s)
	s.projects = engine.New(backend{s})
	if len(c.Inline) > 0 {
		var err error
		if s.inline, err = s.projects.Inline(c.Inline, s.between); err != nil {
			return nil, fmt.Errorf("postgres: %w", err)
		}
	}
	return s, nil
}

// open waits for the server, and makes the store ready for work.
func (s *Store) open(ctx context.Context) error {
	wait := 50 * time.Millisecond
	for {
		var err error
		if s.config.ReadOnly {
			err = s.inspect(ctx)
		} else {
			err = s.migrate(ctx)
		}
		if err == nil {
			err = s.learn(ctx)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("postgres: open: %w; the last attempt: %w", ctx.Err(), err)
		case !isConnecting(err):
			return fmt.Errorf("postgres: open: %w", explain(err))
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		case <-ctx.Done():
			return fmt.Errorf("postgres: open: %w; the last attempt: %w", ctx.Err(), err)
		}
	}
}

// learn reads what the store must know of the database before its first append.
func (s *Store) learn(ctx context.Context) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var isolation string
	row := conn.QueryRow(ctx, strings.ReplaceAll("select value, current_setting('default_transaction_isolation') from {schema}.meta where key = 'store'", "{schema}", s.schema), pgx.QueryExecModeExec)
	if err := row.Scan(&s.id, &isolation); errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%w: the store's id is missing in %s.meta: it is damaged; restore a backup", es.ErrInvalid, s.schema)
	} else if err != nil {
		return err
	}
	s.wrapped.Store(isolation != "read committed")
	position, token, err := s.top(ctx, conn.Conn())
	if err == nil {
		s.heads.start(position, token)
	}
	return err
}

// ID identifies the store for ever: it is made with the schema and goes along with copies of the database.
func (s *Store) ID() string { return s.id }

// Close waits for appends under way, ends waiting readers and, if the store opened the pool, closes it.
// What is called afterwards returns an error that wraps [es.ErrClosed].
// An append whose connection broke, and whose outcome is still being looked into, is answered with [es.ErrUnknownOutcome].
func (s *Store) Close() error {
	s.close.Do(func() {
		close(s.closing)
		s.queue.Close()
		s.loader.close()
		s.watcher.close()
		if s.ownPool {
			s.pool.Close()
		}
	})
	return nil
}

var errClosed = fmt.Errorf("postgres: store is %w", es.ErrClosed)

func (s *Store) closed() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// isConnecting tells whether an error is one of reaching the server, which may yet come up.
func isConnecting(err error) bool {
	if err == nil || hopeless(err) {
		return false
	}
	switch sqlState(err) {
	case "":
		return !errors.Is(err, es.ErrInvalid) && isNetwork(err)
	case cannotConnectNow, tooManyConnections:
		return true
	}
	return !isRefused(err)
}
