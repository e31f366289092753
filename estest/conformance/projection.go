package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A ReadSide is a store with its projections, as [TestProjections] tries it.
type ReadSide[Tx any] interface {
	es.Log
	projection.Projections[Tx]

	// Close closes the store; it may be called again. The suite closes one under its worker, which must not be able to take leave.
	Close() error
}

// Lists are the read models with which [TestProjections] tries a backend: tables of lines in its database, each with a name.
type Lists[Tx any] struct {
	// Empty makes a list without lines, or takes out those that it has.
	Empty func(ctx context.Context, tx Tx, list string) error

	// Add adds a line at the end of a list.
	Add func(ctx context.Context, tx Tx, list, line string) error

	// Lines returns the lines of a list, as they are committed, in the order in which they were added. A list that is not there has none.
	Lines func(ctx context.Context, list string) ([]string, error)
}

// TestProjections tests whether a backend keeps the promises of [projection.Projections]. It calls database as [TestStore] does; the lists are in that database.
//
// What it cannot test: that a process that is killed or paused in the middle of a transaction has applied nothing, and that one which wakes up
// after another has taken its place does not. That needs real processes.
func TestProjections[Tx any](t *testing.T, database func(t *testing.T) (open func() ReadSide[Tx], lists Lists[Tx])) {
	t.Helper()
	run(t, projectionClauses(), func(t *testing.T) *trial {
		open, lists := database(t)
		return projectionTrial(open, lists)
	})
}

func projectionTrial[Tx any](open func() ReadSide[Tx], lists Lists[Tx]) *trial {
	return &trial{
		side: func() ReadSide[any] { return erased[Tx]{open()} },
		lists: Lists[any]{
			Empty: func(ctx context.Context, tx any, list string) error { return lists.Empty(ctx, tx.(Tx), list) },
			Add:   func(ctx context.Context, tx any, list, line string) error { return lists.Add(ctx, tx.(Tx), list, line) },
			Lines: lists.Lines,
		},
	}
}

// An erased store takes projections that do not know the type of their transaction, so that clauses need not either.
type erased[Tx any] struct{ ReadSide[Tx] }

// Project implements [projection.Projections].
func (e erased[Tx]) Project(ctx context.Context, p projection.Projection[any]) error {
	q := projection.Projection[Tx]{
		Name: p.Name, Version: p.Version, Source: p.Source, Filter: p.Filter, Partitions: p.Partitions, OnError: p.OnError, Retries: p.Retries,
		Batch: p.Batch, Lease: p.Lease, OnProgress: p.OnProgress, OnCaughtUp: p.OnCaughtUp, Logger: p.Logger,
	}
	if p.Prepare != nil {
		q.Prepare = func(ctx context.Context, tx Tx) error { return p.Prepare(ctx, tx) }
	}
	if p.Handle != nil {
		q.Handle = func(ctx context.Context, tx Tx, records []es.Record) error { return p.Handle(ctx, tx, records) }
	}
	return e.ReadSide.Project(ctx, q)
}

func projectionClauses() []clause {
	clauses := slices.Concat(applyClauses(), workerClauses(), errorClauses(), parkClauses(), rebuildClauses(), sourceClauses(), askClauses(), reactClauses())
	for i, c := range clauses {
		clauses[i].test = func(t *trial) {
			defer t.endRuns()
			c.test(t)
		}
	}
	return clauses
}

type anyProjection = projection.Projection[any]

// A run is a projection or reaction that is being run.
type projecting struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// end ends the run and returns its error.
func (r *projecting) end() error {
	r.cancel()
	<-r.done
	return r.err
}

// start runs something until the clause ends.
func (t *trial) start(run func(ctx context.Context) error) *projecting {
	ctx, cancel := context.WithCancel(t.ctx)
	r := &projecting{cancel: cancel, done: make(chan struct{})}
	t.mu.Lock()
	t.runs = append(t.runs, r)
	t.mu.Unlock()
	go func() {
		defer close(r.done)
		defer t.recover() // what panics in a handler must not come out of a run
		r.err = run(ctx)
	}()
	return r
}

func (t *trial) endRuns() {
	t.mu.Lock()
	runs := t.runs
	t.mu.Unlock()
	for _, r := range runs {
		r.cancel()
	}
	for _, r := range runs {
		select {
		case <-r.done:
		case <-time.After(t.patience):
			t.Errorf("a run did not end with its context")
			return
		}
	}
}

// project runs a projection until the clause ends.
func (t *trial) project(s ReadSide[any], p anyProjection) *projecting {
	return t.start(func(ctx context.Context) error { return s.Project(ctx, p) })
}

// stops waits until a run ends by itself.
func (t *trial) stops(r *projecting) error {
	select {
	case <-r.done:
		return r.err
	case <-t.ctx.Done():
		t.Fatalf("a run goes on that was to end: %v", t.ctx.Err())
		return nil
	}
}

// ends ends a run, whose error must be the context's.
func (t *trial) ends(r *projecting) {
	if err := r.end(); !errors.Is(err, context.Canceled) {
		t.Fatalf("a run returned %v when its context ended: want the context's error", err)
	}
}

// listing is a projection that adds the ID of each record to the list with its name.
func (t *trial) listing(name string) anyProjection {
	return anyProjection{
		Name:    name,
		Retries: 1,
		Prepare: func(ctx context.Context, tx any) error { return t.lists.Empty(ctx, tx, name) },
		Handle:  func(ctx context.Context, tx any, records []es.Record) error { return t.enlist(ctx, tx, name, records) },
	}
}

func (t *trial) enlist(ctx context.Context, tx any, list string, records []es.Record) error {
	for _, r := range records {
		if err := t.lists.Add(ctx, tx, list, r.ID()); err != nil {
			return err
		}
	}
	return nil
}

// lines returns what is in a list.
func (t *trial) lines(list string) []string {
	lines, err := t.lists.Lines(t.ctx, list)
	if err != nil {
		t.Fatalf("the lines of %s: %v", list, err)
	}
	return lines
}

// reach waits until a projection is there and has come to a position.
func (t *trial) reach(s ReadSide[any], name string, position es.Position) {
	t.until("it is there", func() bool { return len(t.status(s, name)) > 0 })
	if err := s.WaitFor(t.ctx, name, position); err != nil {
		t.Fatalf("WaitFor(%s, %d) returned %v%s", name, position, err, t.ranInto())
	}
}

// ranInto says how runs ended that have.
func (t *trial) ranInto() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var text strings.Builder
	for _, r := range t.runs {
		select {
		case <-r.done:
			fmt.Fprintf(&text, "; a run has ended with %v", r.err)
		default:
		}
	}
	return text.String()
}

// enlisted asserts that a list has exactly the records of a log, in order, that a filter lets through.
func (t *trial) enlisted(list string, l es.Log, filter es.Filter) {
	t.equal("the list "+list, t.lines(list), ids(t.collect(l.All(t.ctx, 0, filter))))
}

// enlistedByStream asserts the same, but for the order of records of different streams.
func (t *trial) enlistedByStream(list string, l es.Log) {
	t.equal("the list "+list+", by stream", byStream(t.lines(list)), byStream(ids(t.all(l))))
}

// byStream sorts IDs by stream, and leaves each stream in its order.
func byStream(ids []string) map[string][]string {
	streams := make(map[string][]string)
	for _, id := range ids {
		i := len(id) - 1
		for i > 0 && id[i] != '/' {
			i--
		}
		streams[id[:i]] = append(streams[id[:i]], id[i+1:])
	}
	return streams
}

func ids(records []es.Record) []string {
	ids := make([]string, 0, len(records))
	for _, r := range records {
		ids = append(ids, r.ID())
	}
	return ids
}

// until waits until something is so that nothing tells of.
func (t *trial) until(what string, is func() bool) {
	for !is() {
		if t.ctx.Err() != nil {
			t.Fatalf("waited in vain until %s%s", what, t.ranInto())
		}
		rest(t.ctx, 2*time.Millisecond)
	}
}

// status returns how the shards of a projection stand.
func (t *trial) status(s ReadSide[any], name string) []projection.Status {
	all, err := s.Status(t.ctx)
	if err != nil {
		t.Fatalf("Status returned %v", err)
	}
	return slices.DeleteFunc(all, func(s projection.Status) bool { return s.Name != name })
}

// A flag is raised once and waited for.
type flag struct {
	once sync.Once
	up   chan struct{}
}

func newFlag() *flag { return &flag{up: make(chan struct{})} }

func (f *flag) raise() { f.once.Do(func() { close(f.up) }) }

func (t *trial) await(f *flag, what string) {
	select {
	case <-f.up:
	case <-t.ctx.Done():
		t.Fatalf("waited in vain until %s%s", what, t.ranInto())
	}
}

// errMend is what the clauses' handlers return when they are to fail.
var errMend = errors.New("the handler is to be mended")
