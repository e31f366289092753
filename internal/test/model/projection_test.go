package model_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
	"github.com/thalo-go/es/sqlite"
)

var (
	errDone   = errors.New("caught up")
	errPoison = errors.New("the handler has a bug")
)

// A readModel is a list of all applied records in a database.
type readModel struct {
	log     closable
	asks    asks
	project func(ctx context.Context, s settings, handle func(es.Record) error) error
	applied func() ([]row, error)
}

type closable interface {
	es.Log
	Close() error
}

// asks are the operations on projections that do not depend on the type of the transaction.
type asks interface {
	Rebuild(ctx context.Context, name string, version int) error
	Retry(ctx context.Context, name string, version int, stream es.Stream) error
	Status(ctx context.Context) ([]projection.Status, error)
	Parked(ctx context.Context) iter.Seq2[projection.Parked, error]
}

type row struct {
	id      string
	version es.Version
}

// settings are the settings of one run.
type settings struct {
	partitions, batch int
	onError           es.OnError
	goOn              bool // after it has caught up
}

const lease = 300 * time.Millisecond

// TestProjections runs a projection that is stopped, fails, panics, parks, is repartitioned and rebuilt. Its read model
// must have the first versions of each stream, each once and in order, and all of them when all faults are removed.
func TestProjections(t *testing.T) {
	t.Run("Memory", func(t *testing.T) {
		for range repeatedly(t) {
			rapid.Check(t, func(r *rapid.T) {
				s := memory.New(new(es.Mem))
				defer func() { must(t, s.Close()) }()
				exercise(t, r, inMemory(t, s))
			})
		}
	})
	t.Run("SQLite", func(t *testing.T) {
		run := 0
		for range repeatedly(t) {
			rapid.Check(t, func(r *rapid.T) {
				run++
				s, err := sqlite.Open(filepath.Join(t.TempDir(), fmt.Sprint(run, ".db")))
				must(t, err)
				defer func() { must(t, s.Close()) }()
				exercise(t, r, inSQLite(t, s))
			})
		}
	})
	t.Run("Postgres", func(t *testing.T) {
		server := testserver.Postgres(t, testserver.Postgres18)
		for range repeatedly(t) {
			rapid.Check(t, func(r *rapid.T) {
				url := server.Database(t)
				s, err := postgres.Open(t.Context(), url)
				must(t, err)
				defer func() { must(t, s.Close()) }()
				conn, err := pgx.Connect(t.Context(), url)
				must(t, err)
				defer func() { must(t, conn.Close(t.Context())) }()
				_, err = conn.Exec(t.Context(), createRows)
				must(t, err)
				exercise(t, r, inPostgres(t, s, conn))
			})
		}
	})
}

func exercise(t *testing.T, r *rapid.T, m *readModel) {
	p := &projectionModel{t: t, m: m, versions: make(map[string]es.Version)}
	r.Repeat(map[string]func(*rapid.T){"": p.check, "append": p.append, "run": p.run, "run again": p.run, "fix or break": p.toggle, "rebuild": p.rebuild})
	p.fixed = true
	if p.ran {
		for id := range p.versions {
			_ = m.asks.Retry(t.Context(), "rows", 0, es.Stream{Kind: "account", ID: id}) // fails if no record of it is parked
		}
	}
	var rows []row
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.project(ctx, settings{partitions: 1, onError: es.Park, goOn: true}, -1, "") }()
	for len(rows) < p.sum() && ctx.Err() == nil {
		select {
		case <-time.After(5 * time.Millisecond):
			var err error
			rows, err = m.applied()
			must(t, err)
		case err := <-ended:
			r.Fatalf("without faults: %v", err)
		}
	}
	if len(rows) != p.sum() {
		status, err := m.asks.Status(t.Context())
		r.Fatalf("%d rows of %d events without faults: %+v, %v", len(rows), p.sum(), status, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		r.Fatalf("without faults: %v", err)
	}
	p.check(r)
}

// A program that wants another number of partitions sets a barrier for all shards. If it ends before they are
// repartitioned, and the next program wants the current number, the barrier must be removed. TestProjections found one
// that stayed and stopped a projection.
func TestAnUnneededBarrierIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "es.db")
	s, err := sqlite.Open(path)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	m := inSQLite(t, s)
	fine := func(es.Record) error { return nil }
	add := func() {
		for _, id := range []string{"a", "b", "c", "d"} {
			_, err := s.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: id}, Expected: es.AnyVersion, Events: []es.Record{{Type: "good"}}})
			must(t, err)
		}
	}
	add()
	must(t, m.project(t.Context(), settings{partitions: 2}, fine))
	db, err := sql.Open("sqlite3", path)
	must(t, err)
	_, err = db.ExecContext(t.Context(), "update es_projections set barrier = 4")
	must(t, errors.Join(err, db.Close()))
	add()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, m.project(ctx, settings{partitions: 2}, fine))
	if rows, err := m.applied(); err != nil || len(rows) != 8 {
		t.Errorf("%d rows of 8 events: %v", len(rows), err)
	}
}

// OnCaughtUp reports on this run: that an earlier run had reached the end says nothing about later appends.
func TestAProjectionThatRanBeforeCatchesUpAgain(t *testing.T) {
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "es.db"))
	must(t, err)
	defer func() { must(t, s.Close()) }()
	m := inSQLite(t, s)
	for i := range 6 {
		_, err := s.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: fmt.Sprint(i)}, Events: []es.Record{{Type: "good"}}})
		must(t, err)
		for range 2 { // the second run has nothing to do
			must(t, m.project(t.Context(), settings{partitions: 1 + i/2}, func(es.Record) error { return nil }))
			if rows, err := m.applied(); err != nil || len(rows) != i+1 {
				t.Errorf("caught up with %d rows of %d events: %v", len(rows), i+1, err)
			}
		}
	}
}

type projectionModel struct {
	t          *testing.T
	m          *readModel
	versions   map[string]es.Version // by stream
	fixed, ran bool
}

func (p *projectionModel) sum() (n int) {
	for _, v := range p.versions {
		n += int(v)
	}
	return n
}

func (p *projectionModel) append(r *rapid.T) {
	id := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(r, "stream")
	n := rapid.IntRange(1, 4).Draw(r, "events")
	a := es.Append{Stream: es.Stream{Kind: "account", ID: id}, Expected: p.versions[id]}
	for range n {
		a.Events = append(a.Events, es.Record{Type: rapid.SampledFrom([]string{"good", "good", "good", "poison"}).Draw(r, "type")})
	}
	_, err := p.m.log.Append(p.t.Context(), a)
	must(p.t, err)
	p.versions[id] += es.Version(n)
}

func (p *projectionModel) toggle(*rapid.T) { p.fixed = !p.fixed }

func (p *projectionModel) rebuild(r *rapid.T) {
	if err := p.m.asks.Rebuild(p.t.Context(), "rows", 0); err != nil && p.ran {
		r.Fatal(err)
	}
}

func (p *projectionModel) run(r *rapid.T) {
	s := settings{
		partitions: rapid.IntRange(1, 3).Draw(r, "partitions"), batch: rapid.IntRange(1, 5).Draw(r, "batch"),
		onError: rapid.SampledFrom([]es.OnError{es.Stop, es.Park}).Draw(r, "on error"),
	}
	at, what := rapid.IntRange(-1, 8).Draw(r, "trouble at"), rapid.SampledFrom([]string{"stop", "panic", "fail"}).Draw(r, "trouble")
	err := p.project(p.t.Context(), s, at, what)
	var stopped *projection.Error
	if err != nil && !errors.Is(err, context.Canceled) && (s.onError != es.Stop || !errors.As(err, &stopped)) {
		r.Fatalf("run with %+v: %v", s, err)
	}
	if err != nil {
		return
	}
	rows, err := p.m.applied()
	must(p.t, err)
	status, err := p.m.asks.Status(p.t.Context())
	must(p.t, err)
	parked := 0
	for _, shard := range status {
		parked += shard.Parked
	}
	if len(rows)+parked != p.sum() {
		r.Fatalf("caught up with %d rows and %d parked records of %d events", len(rows), parked, p.sum())
	}
}

// project runs the projection until it has caught up or fails. The fault occurs at the given record.
func (p *projectionModel) project(ctx context.Context, s settings, at int, what string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	n := make(chan int, 1)
	n <- 0
	p.ran = true
	return p.m.project(ctx, s, func(record es.Record) error {
		i := <-n
		n <- i + 1
		switch {
		case i == at && what == "stop":
			cancel()
			return ctx.Err()
		case i == at && what == "panic":
			panic("trouble")
		case i == at && what == "fail", record.Type == "poison" && !p.fixed:
			return errPoison
		}
		return nil
	})
}

func (p *projectionModel) check(r *rapid.T) {
	if !p.ran {
		return
	}
	rows, err := p.m.applied()
	must(p.t, err)
	seen := make(map[string]es.Version)
	for _, row := range rows {
		if seen[row.id]++; row.version != seen[row.id] || row.version > p.versions[row.id] {
			r.Fatalf("account/%s/%d was applied instead of version %d, of %d: %v", row.id, row.version, seen[row.id], p.versions[row.id], rows)
		}
	}
}

func (s settings) caughtUp(context.Context) error {
	if s.goOn {
		return nil
	}
	return errDone
}

// finished returns nil for the error of a run that reached the end.
func finished(err error) error {
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

func inSQLite(t *testing.T, s *sqlite.Store) *readModel {
	return &readModel{
		log: s, asks: s,
		project: func(ctx context.Context, set settings, handle func(es.Record) error) error {
			return finished(s.Project(ctx, sqlite.Projection{
				Name: "rows", Partitions: set.partitions, Batch: set.batch, OnError: set.onError, Retries: -1, Lease: lease,
				Prepare: func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, "create table if not exists rows (n integer primary key, id text, version integer); delete from rows")
					return err
				},
				Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
					for _, r := range records {
						if err := handle(r); err != nil {
							return err
						}
						if _, err := tx.ExecContext(ctx, "insert into rows (id, version) values (?, ?)", r.Stream.ID, r.Version); err != nil {
							return err
						}
					}
					return nil
				},
				OnCaughtUp: set.caughtUp,
			}))
		},
		applied: func() (all []row, err error) {
			rows, err := s.DB().QueryContext(t.Context(), "select id, version from rows order by n")
			if err != nil && strings.Contains(err.Error(), "no such table") {
				return nil, nil // nothing is committed yet
			} else if err != nil {
				return nil, err
			}
			defer rows.Close()
			for rows.Next() {
				var r row
				if err := rows.Scan(&r.id, &r.version); err != nil {
					return nil, err
				}
				all = append(all, r)
			}
			return all, rows.Err()
		},
	}
}

func inMemory(t *testing.T, s *memory.Store) *readModel {
	all := map[string][]row{}
	const rows = "rows"
	return &readModel{
		log: s, asks: s,
		project: func(ctx context.Context, set settings, handle func(es.Record) error) error {
			return finished(s.Project(ctx, memory.Projection{
				Name: "rows", Partitions: set.partitions, Batch: set.batch, OnError: set.onError, Retries: -1, Lease: lease,
				Prepare: func(_ context.Context, tx *memory.Tx) error {
					memory.Clear(tx, all)
					return nil
				},
				Handle: func(_ context.Context, tx *memory.Tx, records []es.Record) error {
					for _, r := range records {
						if err := handle(r); err != nil {
							return err
						}
						memory.Set(tx, all, rows, append(slices.Clip(all[rows]), row{r.Stream.ID, r.Version}))
					}
					return nil
				},
				OnCaughtUp: set.caughtUp,
			}))
		},
		applied: func() (applied []row, err error) {
			err = s.View(t.Context(), func() { applied = slices.Clone(all[rows]) })
			return applied, err
		},
	}
}

const createRows = "create table if not exists rows (n bigserial primary key, id text, version bigint)"

func inPostgres(t *testing.T, s *postgres.Store, conn *pgx.Conn) *readModel {
	return &readModel{
		log: s, asks: s,
		project: func(ctx context.Context, set settings, handle func(es.Record) error) error {
			return finished(s.Project(ctx, postgres.Projection{
				Name: "rows", Partitions: set.partitions, Batch: set.batch, OnError: set.onError, Retries: -1, Lease: lease,
				Prepare: func(ctx context.Context, tx pgx.Tx) error {
					_, err := tx.Exec(ctx, createRows)
					if err == nil {
						_, err = tx.Exec(ctx, "delete from rows")
					}
					return err
				},
				Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
					for _, r := range records {
						if err := handle(r); err != nil {
							return err
						}
						if _, err := tx.Exec(ctx, "insert into rows (id, version) values ($1, $2)", r.Stream.ID, r.Version); err != nil {
							return err
						}
					}
					return nil
				},
				OnCaughtUp: set.caughtUp,
			}))
		},
		applied: func() ([]row, error) {
			rows, err := conn.Query(t.Context(), "select id, version from rows order by n")
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, func(c pgx.CollectableRow) (r row, err error) { return r, c.Scan(&r.id, &r.version) })
		},
	}
}
