// Package postgres keeps events in PostgreSQL, 14 or newer.
//
// Appends share transactions. What several goroutines append at the same time is written by one call of one function in the server.
// The function holds an advisory lock until its transaction has committed. Positions are assigned under that lock, so they are dense
// and in commit order. Readers neither skip events nor wait for open transactions.
//
// Everything is in one schema, "es" by default: the tables events, commands, snapshots, leases and checkpoints, the tables of
// projections (projections, shards, workers, parked, timers), functions, and the view history for reading with psql.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/thalo-go/es/internal/tag"
	"github.com/thalo-go/es/projection"
)

// Store is an [es.Log] in a PostgreSQL database, which also keeps snapshots, leases and checkpoints. [Open] and [New] return one.
type Store struct {
	projection.Projections[pgx.Tx] // runs projections and reactions in this database

	pool    *pgxpool.Pool
	ownPool bool
	config  Config
	schema  string // quoted
	channel string // of notifications
	id      string

	unprepared  atomic.Bool  // a pooler does not support prepared statements
	wrapped     atomic.Bool  // the server's default isolation level is not read committed
	growth      atomic.Int32 // of the log, as the store knows it; see statement
	pace        pace
	statements  statements
	heads       heads
	queue       *commit.Queue
	batch       batch    // being written
	taggedKinds sync.Map // kinds of which the database knows that their events have tags
	solo        soloWriter
	cautious    int // batches that look up heads before they write, because of a recent conflict
	company     company
	loader      loader
	watcher     watcher
	share       *share
	inline      *engine.SQLInline[pgx.Tx] // nil without inline projections
	closing     chan struct{}
	close       sync.Once

	abandonAfter time.Duration // see the constant
	drainLimit   time.Duration // see the constant
}

var (
	_ es.Log         = (*Store)(nil)
	_ es.Snapshots   = (*Store)(nil)
	_ es.Leases      = (*Store)(nil)
	_ es.Checkpoints = (*Store)(nil)
)

// Config holds the settings of a store. Its zero value is what [Open], [New] and [Migrate] use.
// A negative duration is refused with an error that wraps [es.ErrInvalid].
type Config struct {
	// Schema is the schema that holds all tables, so that several stores can share a database. "" means "es".
	Schema string

	// Inline are the projections that run in the transactions of appends, so that a read model never lags behind the events.
	// Prefer a [Projection] where the read model may lag by milliseconds, because appends do not wait for it. Handle gets the records
	// that one append, or several sharing a transaction, will write. If Handle returns an error, that append is not written and only its
	// caller receives the error. A handler can therefore enforce an invariant across streams, such as a unique name. Handle must be quick, because all appends wait for it. It must
	// use only its transaction, and return the errors it gets from it.
	//
	// Opening the store brings each projection to the end of the log, which may take long. Events from processes without the projection
	// are applied by the next append from a process with it. A projection that Project ran with one partition can continue inline, and
	// the reverse, but not both at once. Source, Partitions and Park are refused. Retries, Lease and Logger have no effect. OnProgress and
	// OnCaughtUp are called while the store opens.
	Inline []Projection

	// ConnectTimeout is how long an append waits for a server that it cannot reach, before it fails with nothing written. 0 means 10s.
	// It does not limit how long the store tries to resolve an append that was already sent: that ends with the caller's context.
	ConnectTimeout time.Duration

	// PollInterval is the interval at which Changed polls when LISTEN/NOTIFY does not work, for example on a standby or behind a
	// transaction-mode pooler. 0 means 25ms. While the log does not grow, the interval becomes a tenth of that time, and at most ten times
	// as long or a second. Where notifications arrive, Changed still polls once a second. The store polls only during a call of Changed.
	PollInterval time.Duration

	// Logger receives conditions that no error reports: notifications do not arrive, or Open, or an append whose connection broke, waits for
	// the server. nil discards.
	Logger *slog.Logger

	// ReadOnly opens an existing schema and changes nothing: the schema is neither created nor migrated, and methods that would write
	// return an error that wraps [es.ErrInvalid].
	ReadOnly bool
}

// Open connects to the database that a URL or a keyword string names, and creates or migrates the schema as needed.
// It retries until the context ends while the server cannot be reached. A schema of a newer release is refused.
func Open(ctx context.Context, url string) (*Store, error) { return Config{}.Open(ctx, url) }

// New is like [Open] but uses a pool that the caller has opened and must close. [Store.Close] leaves it open.
func New(ctx context.Context, pool *pgxpool.Pool) (*Store, error) { return Config{}.New(ctx, pool) }

// Open is like the function [Open], with settings.
func (c Config) Open(ctx context.Context, url string) (*Store, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: open: %w", err)
	}
	Configure(config)
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

// Defaults of Config.
const (
	connectTimeout = 10 * time.Second
	pollInterval   = 25 * time.Millisecond
)

// store checks the settings and returns a store that has not yet talked to the server.
func (c Config) store(pool *pgxpool.Pool) (*Store, error) {
	if c.Schema == "" {
		c.Schema = "es"
	}
	if len(c.Schema) > 50 || strings.ContainsRune(c.Schema, 0) || !utf8.ValidString(c.Schema) {
		return nil, fmt.Errorf("postgres: %w: schema %.60q: a name is UTF-8 of at most 50 bytes without NUL", es.ErrInvalid, c.Schema)
	}
	switch {
	case c.ConnectTimeout < 0:
		return nil, fmt.Errorf("postgres: %w: ConnectTimeout is negative; 0 means %v", es.ErrInvalid, connectTimeout)
	case c.PollInterval < 0:
		return nil, fmt.Errorf("postgres: %w: PollInterval is negative; 0 means %v", es.ErrInvalid, pollInterval)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, connectTimeout)
	c.PollInterval = cmp.Or(c.PollInterval, pollInterval)
	s := &Store{pool: pool, config: c, schema: pgx.Identifier{c.Schema}.Sanitize(), channel: "es:" + c.Schema, closing: make(chan struct{}), abandonAfter: abandonAfter, drainLimit: drainLimit}
	s.batch.tags.hash = tag.Hash
	s.unprepared.Store(pool.Config().ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement)
	s.prepare()
	s.prepareRedact()
	s.pace.init()
	s.heads.init()
	s.company.init(c.sharesNever(), c.Logger)
	s.queue = commit.New(s.begin, commit.Options{})
	s.loader.init(s)
	s.watcher.init(s)
	s.share = shares.get(pool)
	projections := engine.NewSQL(backend{s})
	s.Projections = projections
	if len(c.Inline) > 0 {
		var err error
		if s.inline, err = projections.Inline(c.Inline, s.readRange); err != nil {
			return nil, fmt.Errorf("postgres: %w", err)
		}
	}
	return s, nil
}

// open waits for the server, checks or migrates the schema, and reads what the first append needs.
func (s *Store) open(ctx context.Context) error {
	wait := 50 * time.Millisecond
	waits := s.wait(forConnection)
	defer waits.done()
	for {
		var err error
		if s.config.ReadOnly {
			err = s.inspect(ctx)
		} else {
			err = s.migrate(ctx, waits)
		}
		if err == nil {
			err = s.learn(ctx)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("postgres: open: %w; the last attempt: %w", ctx.Err(), err)
		case !classify(err).unreachable():
			return fmt.Errorf("postgres: open: %w", explain(err))
		}
		waits.failed(err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		case <-ctx.Done():
			return fmt.Errorf("postgres: open: %w; the last attempt: %w", ctx.Err(), err)
		}
	}
}

// learn reads the store's id, the settings of the server and the end of the log.
func (s *Store) learn(ctx context.Context) error {
	conn, err := s.borrow(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var server settings
	row := conn.QueryRow(ctx, s.text(selectSettings), pgx.QueryExecModeExec, s.schema+".events")
	if err := row.Scan(&s.id, &server.isolation, &server.standbys, &server.hidden); errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%w: the store's id is missing in %s.meta, which is corrupt: restore a backup", es.ErrInvalid, s.schema)
	} else if err != nil {
		return err
	}
	if err := s.check(server); err != nil {
		return err
	}
	if !s.config.ReadOnly {
		if err := holdsUTF8(conn.Conn()); err != nil {
			return err
		}
	}
	s.wrapped.Store(server.isolation != "read committed")
	position, token, err := s.top(ctx, conn.Conn())
	if err != nil {
		return err
	}
	s.heads.start(position, token)
	return s.sweep(ctx, conn.Conn())
}

// ID returns the permanent identity of the store. It is created with the schema, and copies of the database have the same.
func (s *Store) ID() string { return s.id }

// Pool returns the store's pool. If [Open] made the store, Close closes the pool and the caller must not. If [New] made it, the pool is
// the one that the caller passed and still has to close.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Stats returns the counters since the store was opened. They do not have the appends of stores that In returns.
func (s *Store) Stats() es.Stats { return s.queue.Stats() }

// Close waits for appends in flight, ends waiting readers and, if the store opened the pool, closes it.
// Methods called afterwards return an error that wraps [es.ErrClosed].
// An append whose connection broke, and whose outcome is not yet known, returns [es.ErrUnknownOutcome].
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
