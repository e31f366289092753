package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// Whatever is appended, whoever works, ends, dies or divides the shards anew, whatever cannot be handled for a while, and whenever the read model
// is built anew: of each stream the read model has the first records, each once and in order, and in the end all of them.
func TestProjectionModel(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue { // more than there is time for
		if err := checks.Value.Set("8"); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checks.Value.Set(checks.DefValue) }() // it was taken before
	}
	rapid.Check(t, func(r *rapid.T) {
		m := &projectionModel{T: r, ctx: t.Context(), path: file(t)}
		m.store = m.open()
		m.lists = lists(func() *sqlite.Store { return m.store })
		m.work(r)
		r.Repeat(map[string]func(*rapid.T){
			"append": m.append, "append more": m.append, "work": m.work, "end": m.end, "die": m.die, "rebuild": m.rebuild,
			"mend or break": m.mend, "retry": m.retry, "wait": m.wait, "": m.check,
		})
		m.finish()
	})
}

type projectionModel struct {
	*rapid.T
	ctx     context.Context
	path    string
	store   *sqlite.Store // of the one who looks
	lists   listsOf
	workers []*modelWorker
	mended  atomic.Bool
}

type modelWorker struct {
	store  *sqlite.Store
	cancel context.CancelFunc
	done   chan error
}

func (m *projectionModel) open() *sqlite.Store {
	s, err := sqlite.Open(m.path)
	if err != nil {
		m.Fatal(err)
	}
	return s
}

func (m *projectionModel) append(r *rapid.T) {
	id := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(r, "stream")
	var texts []string
	for range rapid.IntRange(1, 12).Draw(r, "events") {
		texts = append(texts, rapid.SampledFrom([]string{"good", "good", "good", "good", "bad"}).Draw(r, "text"))
	}
	if _, err := m.store.Append(m.ctx, at(id, es.AnyVersion, texts...)); err != nil {
		m.Fatal(err)
	}
}

func (m *projectionModel) work(r *rapid.T) {
	if len(m.workers) == 4 {
		r.Skip("enough of them")
	}
	ctx, cancel := context.WithCancel(m.ctx)
	w := &modelWorker{m.open(), cancel, make(chan error, 1)}
	m.workers = append(m.workers, w)
	p := sqlite.Projection{
		Name: "work", OnError: es.Park, Retries: -1, Lease: 300 * time.Millisecond,
		Partitions: rapid.IntRange(1, 4).Draw(r, "partitions"),
		Batch:      rapid.IntRange(1, 9).Draw(r, "batch"),
		Prepare:    func(ctx context.Context, tx *sql.Tx) error { return m.lists.Empty(ctx, tx, "work") },
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				if err := m.lists.Add(ctx, tx, "work", r.ID()); err != nil {
					return err
				}
				if string(r.Data) == "bad" && !m.mended.Load() {
					return errors.New("not mended")
				}
			}
			return nil
		},
	}
	go func() { w.done <- w.store.Project(ctx, p) }()
}

func (m *projectionModel) pick(r *rapid.T) *modelWorker {
	if len(m.workers) == 0 {
		r.Skip("nobody works")
	}
	i := rapid.IntRange(0, len(m.workers)-1).Draw(r, "worker")
	w := m.workers[i]
	m.workers = slices.Delete(m.workers, i, i+1)
	return w
}

// end ends a worker, which takes leave.
func (m *projectionModel) end(r *rapid.T) { m.dismiss(m.pick(r)) }

func (m *projectionModel) dismiss(w *modelWorker) {
	w.cancel()
	if err := <-w.done; !errors.Is(err, context.Canceled) {
		m.Fatalf("a worker ended with %v", err)
	}
	if err := w.store.Close(); err != nil {
		m.Fatal(err)
	}
}

// die closes the store under a worker, which can take no leave then.
func (m *projectionModel) die(r *rapid.T) {
	w := m.pick(r)
	if err := w.store.Close(); err != nil {
		m.Fatal(err)
	}
	if err := <-w.done; !errors.Is(err, es.ErrClosed) {
		m.Fatalf("a worker whose store was closed ended with %v", err)
	}
	w.cancel()
}

func (m *projectionModel) rebuild(*rapid.T) {
	if err := m.store.Rebuild(m.ctx, "work", 0); err != nil && !errors.Is(err, es.ErrInvalid) { // nobody may have come to it yet
		m.Fatal(err)
	}
}

func (m *projectionModel) mend(r *rapid.T) { m.mended.Store(rapid.Bool().Draw(r, "mended")) }

func (m *projectionModel) retry(r *rapid.T) {
	id := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(r, "stream")
	if err := m.store.Retry(m.ctx, "work", 0, stream(id)); err != nil && !errors.Is(err, es.ErrInvalid) { // nothing may be parked
		m.Fatal(err)
	}
}

func (m *projectionModel) wait(r *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 60).Draw(r, "ms")) * time.Millisecond) // lets them come some of the way: there is no end to wait for
}

// check holds the read model against the streams, and returns how many records it has.
func (m *projectionModel) check(*rapid.T) {
	lines, err := m.lists.Lines(m.ctx, "work")
	if err != nil {
		m.Fatal(err)
	}
	versions := make(map[string]int)
	for _, line := range lines {
		i := strings.LastIndexByte(line, '/')
		versions[line[:i]]++
		if line[i+1:] != strconv.Itoa(versions[line[:i]]) {
			m.Fatalf("%s is applied where version %d of its stream should be: %q", line, versions[line[:i]], lines)
		}
	}
}

// finish mends what is broken and waits until everything is applied.
func (m *projectionModel) finish() {
	m.mended.Store(true)
	if len(m.workers) == 0 {
		m.work(m.T)
	}
	records, err := history(m.ctx, m.store)
	if err != nil {
		m.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		for p, err := range m.store.Parked(m.ctx) {
			if err != nil {
				m.Fatal(err)
			}
			_ = m.store.Retry(m.ctx, "work", 0, p.Record.Stream) // it may have been done meanwhile
		}
		lines, err := m.lists.Lines(m.ctx, "work")
		if err != nil {
			m.Fatal(err)
		}
		status, err := m.store.Status(m.ctx)
		if err != nil {
			m.Fatal(err)
		}
		behind := slices.ContainsFunc(status, func(s es.Status) bool { return s.Lag > 0 || s.Parked > 0 })
		if len(status) > 0 && !behind && len(lines) == len(records) {
			break
		}
		if time.Now().After(end) {
			m.Fatalf("%d of %d records are applied, and no more come: %+v", len(lines), len(records), fmt.Sprint(status))
		}
	}
	m.check(nil)
	for _, w := range m.workers {
		m.dismiss(w)
	}
	if err := m.store.Close(); err != nil {
		m.Fatal(err)
	}
}
