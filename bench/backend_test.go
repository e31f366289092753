package bench_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/jackc/pgx/v5"
	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/server"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// payload is the size of an event in bytes, where the content does not matter.
const payload = 120

// A log is a store that the benchmarks use.
type log interface {
	es.Log
	es.Snapshots
	Close() error
}

// memory is es.Mem with a Close that does nothing.
type memory struct{ *es.Mem }

func (memory) Close() error { return nil }

// plain is a baseline for a store.
type plain interface {
	baseline.Store
	Scan(ctx context.Context, see func(es.Record)) error
}

// A backend is one value of the key store in benchmark names.
type backend struct {
	name string
	open func(b *testing.B) bed
}

// A bed is an empty log of a backend, with its baseline.
type bed struct {
	log
	plain  plain                // an empty baseline; nil if there is none
	fill   work.Append          // the fastest way to fill the baseline
	server func() time.Duration // the CPU time of the server so far; nil without a server

	// place is the address of the log, for other processes and other store values; "" if they cannot open it.
	place string
	// disk returns the bytes on disk of the events and their indexes; nil if they are not on disk.
	disk func() (int64, error)
}

// again opens the log a second time, as another process would.
func (s bed) again(b *testing.B) log {
	b.Helper()
	store, err := open(b.Context(), s.place)
	check(b, err)
	b.Cleanup(func() { check(b, store.Close()) })
	return store
}

// rivals returns the baselines for Append.
func (s bed) rivals(writers, batch, bytes int) []rival {
	switch plain := s.plain.(type) {
	case *baseline.SQLite:
		return []rival{{"insert", work.Appends("one commit each", plain.Append, writers, batch, bytes)}}
	case *baseline.Postgres:
		rivals := []rival{{"textbook", work.Appends("textbook", plain.Append, writers, batch, bytes)}}
		if batch == 1 {
			insert := func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error {
				stream.Kind = "Account" // not the textbook's
				return plain.Insert(ctx, stream, after, events)
			}
			rivals = append(rivals, rival{"insert", work.Appends("one INSERT each", insert, writers, batch, bytes)})
		}
		return rivals
	}
	return nil
}

func backends() []backend {
	all := []backend{
		{"mem", func(*testing.B) bed { return bed{log: memory{new(es.Mem)}} }},
		{"sqlite", openSQLite},
	}
	if servers.pg != nil {
		all = append(all, backend{"postgres", openPostgres})
	}
	return all
}

// eachStore runs a benchmark for each backend, as store=name.
func eachStore(b *testing.B, run func(b *testing.B, s backend)) {
	for _, s := range backends() {
		b.Run("store="+s.name, func(b *testing.B) { run(b, s) })
	}
}

// eachDurable runs a benchmark for each backend that several processes can share.
func eachDurable(b *testing.B, run func(b *testing.B, s backend)) {
	for _, s := range backends()[1:] {
		b.Run("store="+s.name, func(b *testing.B) { run(b, s) })
	}
}

const sqlitePlace, postgresPlace = "sqlite:", "postgres:"

// open opens the log at a place that another store value created.
func open(ctx context.Context, place string) (log, error) {
	if path, ok := cutPlace(place, sqlitePlace); ok {
		return sqlite.Open(path)
	}
	if url, ok := cutPlace(place, postgresPlace); ok {
		return postgres.Open(ctx, url)
	}
	return nil, fmt.Errorf("there is no store at %q", place)
}

func cutPlace(place, kind string) (string, bool) {
	if len(place) < len(kind) || place[:len(kind)] != kind {
		return "", false
	}
	return place[len(kind):], true
}

func openSQLite(b *testing.B) bed {
	dir := b.TempDir()
	plain, err := baseline.OpenSQLite(filepath.Join(dir, "plain.db"))
	check(b, err)
	b.Cleanup(func() { check(b, plain.Close()) })
	path := filepath.Join(dir, "store.db")
	store, err := sqlite.Open(path)
	check(b, err)
	b.Cleanup(func() { check(b, store.Close()) })
	return bed{log: store, plain: plain, fill: plain.Append, place: sqlitePlace + path, disk: func() (int64, error) { return sqliteBytes(path) }}
}

// sqliteBytes returns the size of the database file. The write-ahead log does not count, because SQLite reuses its space.
func sqliteBytes(path string) (int64, error) {
	db, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=10000")
	if err != nil {
		return 0, err
	}
	_, err = db.Exec("pragma wal_checkpoint(passive)") //nolint:noctx // nothing could end it
	if err = errors.Join(err, db.Close()); err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// openPostgres creates both sides in one database, so that both run on the same server in the same state.
func openPostgres(b *testing.B) bed {
	pg := servers.pg
	url, drop, err := pg.Database(b.Context())
	check(b, err)
	b.Cleanup(func() { check(b, drop()) })
	plain, err := baseline.OpenPostgres(b.Context(), url)
	check(b, err)
	b.Cleanup(func() { check(b, plain.Close()) })
	store, err := postgres.Open(b.Context(), url)
	check(b, err)
	b.Cleanup(func() { check(b, store.Close()) })
	s := bed{log: store, plain: plain, fill: work.InBulk(plain.Copy), place: postgresPlace + url, disk: func() (int64, error) { return postgresBytes(b.Context(), url) }}
	if pg.CPU() > 0 {
		s.server = pg.CPU
	}
	return s
}

func postgresBytes(ctx context.Context, url string) (bytes int64, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	err = conn.QueryRow(ctx, "select pg_total_relation_size('es.events')").Scan(&bytes)
	return bytes, errors.Join(err, conn.Close(ctx))
}

// servers are started before the first benchmark if the environment requests them.
var servers serverSet

type serverSet struct {
	pg    *server.Postgres
	kafka *server.Kafka
}

// start starts the servers. It prints the versions as lines that benchstat reads as its configuration.
func (s *serverSet) start(ctx context.Context) error {
	version, _, _ := sqlite3.Version()
	_, librdkafka := confluent.LibraryVersion()
	fmt.Printf("go: %s\ncpus: %d\nsqlite: %s\nlibrdkafka: %s\n", runtime.Version(), runtime.GOMAXPROCS(0), version, librdkafka)
	var err error
	if os.Getenv("ES_TEST_POSTGRES") != "" || mayStart() {
		if s.pg, err = server.StartPostgres(); err != nil {
			return err
		}
		if version, err = s.pg.Version(ctx); err != nil {
			return err
		}
		fmt.Println("postgres:", version)
	}
	if os.Getenv("ES_TEST_KAFKA") != "" || mayStart() {
		if s.kafka, err = server.StartKafka(); err != nil {
			return err
		}
		if version := s.kafka.Version(); version != "" {
			fmt.Println("kafka:", version)
		}
	}
	if s.pg == nil || s.kafka == nil {
		fmt.Fprintln(os.Stderr, "Servers are left out. Run make bench to start them, or set ES_TEST_POSTGRES and ES_TEST_KAFKA.")
	}
	return nil
}

// mayStart reports whether to start private servers. Without one of the variables, go test -bench does not wait for servers.
func mayStart() bool {
	for _, name := range []string{"ES_BENCH_SERVERS", "ES_TEST_REQUIRE", "CI"} {
		if is, err := strconv.ParseBool(os.Getenv(name)); err == nil && is {
			return true
		}
	}
	return false
}

func (s *serverSet) close() (err error) {
	if s.pg != nil {
		err = s.pg.Close()
	}
	if s.kafka != nil {
		err = errors.Join(err, s.kafka.Close())
	}
	return err
}

// writeWord is the first argument of a process that appends: place, name, number of writers.
const writeWord = "measure-write"

func writeInChild(args []string) (err error) {
	if len(args) != 3 {
		return fmt.Errorf("%s: give place, name, number of writers", writeWord)
	}
	writers, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx := context.Background()
	store, err := open(ctx, args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return work.Serve(ctx, store, args[1], writers, payload, os.Stdin, os.Stdout)
}
