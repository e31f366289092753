package model_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// TestWorkers appends, starts, ends and kills workers, repartitions, makes records fail for a while, and rebuilds, in
// random order. The read model must always have the first records of each stream, each once and in order, and all of
// them at the end.
func TestWorkers(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		run := 0
		for range repeatedly(t) {
			rapid.Check(t, func(r *rapid.T) {
				run++
				path := filepath.Join(t.TempDir(), fmt.Sprint(run, ".db"))
				exerciseWorkers(t, r, func() *readModel {
					s, err := sqlite.Open(path)
					must(t, err)
					return inSQLite(t, s)
				})
			})
		}
	})
	for _, version := range []testserver.Version{testserver.Postgres14, testserver.Postgres18} {
		t.Run("Postgres "+string(version), func(t *testing.T) {
			server := testserver.Postgres(t, version)
			for range repeatedly(t) {
				rapid.Check(t, func(r *rapid.T) {
					url := server.Database(t)
					conn, err := pgx.Connect(t.Context(), url)
					must(t, err)
					defer func() { must(t, conn.Close(t.Context())) }()
					_, err = conn.Exec(t.Context(), createRows)
					must(t, err)
					exerciseWorkers(t, r, func() *readModel {
						s, err := postgres.Open(t.Context(), url)
						must(t, err)
						return inPostgres(t, s, conn)
					})
				})
			}
		})
	}
}

type workersModel struct {
	*rapid.T
	ctx      context.Context
	open     func() *readModel
	m        *readModel // of the checking client
	versions map[string]es.Version
	workers  []*worker
	fixed    atomic.Bool
}

type worker struct {
	m      *readModel
	cancel context.CancelFunc
	done   chan error
}

func exerciseWorkers(t *testing.T, r *rapid.T, open func() *readModel) {
	w := &workersModel{T: r, ctx: t.Context(), open: open, m: open(), versions: make(map[string]es.Version)}
	defer w.leave()
	w.work(r)
	r.Repeat(map[string]func(*rapid.T){
		"append": w.append, "append more": w.append, "work": w.work, "end": w.end, "die": w.die, "rebuild": w.rebuild,
		"fix or break": w.fixOrBreak, "retry": w.retry, "wait": w.wait, "": w.check,
	})
	w.finish()
}

// leave ends all workers, whatever the result.
func (w *workersModel) leave() {
	for _, worker := range w.workers {
		worker.cancel()
		_, _ = <-worker.done, worker.m.log.Close()
	}
	_ = w.m.log.Close()
}

func (w *workersModel) append(r *rapid.T) {
	id := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(r, "stream")
	a := es.Append{Stream: es.Stream{Kind: "account", ID: id}, Expected: es.AnyVersion}
	for range rapid.IntRange(1, 12).Draw(r, "events") {
		a.Events = append(a.Events, es.Record{Type: rapid.SampledFrom([]string{"good", "good", "good", "good", "poison"}).Draw(r, "type")})
	}
	if _, err := w.m.log.Append(w.ctx, a); err != nil {
		w.Fatal(err)
	}
	w.versions[id] += es.Version(len(a.Events))
}

func (w *workersModel) work(r *rapid.T) {
	if len(w.workers) == 4 {
		r.Skip("enough of them")
	}
	ctx, cancel := context.WithCancel(w.ctx)
	worker := &worker{w.open(), cancel, make(chan error, 1)}
	w.workers = append(w.workers, worker)
	set := settings{
		partitions: rapid.IntRange(1, 4).Draw(r, "partitions"), batch: rapid.IntRange(1, 9).Draw(r, "batch"),
		onError: es.Park, goOn: true,
	}
	go func() {
		worker.done <- worker.m.project(ctx, set, func(r es.Record) error {
			if r.Type == "poison" && !w.fixed.Load() {
				return errPoison
			}
			return nil
		})
	}()
}

func (w *workersModel) pick(r *rapid.T) *worker {
	if len(w.workers) == 0 {
		r.Skip("no worker runs")
	}
	i := rapid.IntRange(0, len(w.workers)-1).Draw(r, "worker")
	worker := w.workers[i]
	w.workers = slices.Delete(w.workers, i, i+1)
	return worker
}

// end shuts a worker down.
func (w *workersModel) end(r *rapid.T) { w.dismiss(w.pick(r)) }

func (w *workersModel) dismiss(worker *worker) {
	worker.cancel()
	err := <-worker.done
	if closed := worker.m.log.Close(); !errors.Is(err, context.Canceled) || closed != nil {
		w.Fatalf("a worker ended with %v, %v", err, closed)
	}
}

// die closes the store of a worker, which then cannot release anything.
func (w *workersModel) die(r *rapid.T) {
	worker := w.pick(r)
	closed := worker.m.log.Close()
	err := <-worker.done
	worker.cancel()
	if !errors.Is(err, es.ErrClosed) || closed != nil {
		w.Fatalf("a worker whose store was closed ended with %v, %v", err, closed)
	}
}

func (w *workersModel) rebuild(*rapid.T) {
	if err := w.m.asks.Rebuild(w.ctx, "rows", 0); err != nil && !errors.Is(err, es.ErrInvalid) { // it may not exist yet
		w.Fatal(err)
	}
}

func (w *workersModel) fixOrBreak(r *rapid.T) { w.fixed.Store(rapid.Bool().Draw(r, "fixed")) }

func (w *workersModel) retry(r *rapid.T) {
	id := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(r, "stream")
	if err := w.m.asks.Retry(w.ctx, "rows", 0, es.Stream{Kind: "account", ID: id}); err != nil && !errors.Is(err, es.ErrInvalid) { // nothing may be parked
		w.Fatal(err)
	}
}

func (w *workersModel) wait(r *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 60).Draw(r, "ms")) * time.Millisecond) // lets them make some progress: there is no end to wait for
}

// check compares the read model with the streams.
func (w *workersModel) check(*rapid.T) { w.applied() }

// applied returns the rows of the read model, which must be a correct prefix.
func (w *workersModel) applied() []row {
	rows, err := w.m.applied()
	if err != nil {
		w.Fatal(err)
	}
	seen := make(map[string]es.Version)
	for _, row := range rows {
		if seen[row.id]++; row.version != seen[row.id] || row.version > w.versions[row.id] {
			w.Fatalf("account/%s/%d was applied instead of version %d, of %d: %v", row.id, row.version, seen[row.id], w.versions[row.id], rows)
		}
	}
	return rows
}

// finish removes all faults and waits until everything is applied.
func (w *workersModel) finish() {
	w.fixed.Store(true)
	if len(w.workers) == 0 {
		w.work(w.T)
	}
	sum := 0
	for _, v := range w.versions {
		sum += int(v)
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		for p, err := range w.m.asks.Parked(w.ctx) {
			if err != nil {
				w.Fatal(err)
			}
			_ = w.m.asks.Retry(w.ctx, "rows", 0, p.Record.Stream) // it may have been retried already
		}
		n := len(w.applied())
		status, err := w.m.asks.Status(w.ctx)
		if err != nil {
			w.Fatal(err)
		}
		behind := slices.ContainsFunc(status, func(s projection.Status) bool { return s.Lag != nil && s.Lag.Positions > 0 || s.Parked > 0 })
		if len(status) > 0 && !behind && n == sum {
			break
		}
		if time.Now().After(end) {
			w.Fatalf("%d of %d records are applied, without further progress: %+v", n, sum, status)
		}
	}
	for len(w.workers) > 0 {
		worker := w.workers[0]
		w.workers = w.workers[1:]
		w.dismiss(worker)
	}
}
