package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type anyProjection = projection.Projection[any]

// errHandler is the error of handlers that fail on purpose.
var errHandler = errors.New("the handler fails on purpose")

// run is a call of Project or React in a goroutine.
type run struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// start calls a function in a goroutine. Its context ends with the clause at the latest.
func (t *trial) start(call func(ctx context.Context) error) *run {
	ctx, cancel := context.WithCancel(t.ctx)
	r := &run{cancel: cancel, done: make(chan struct{})}
	t.mu.Lock()
	t.runs = append(t.runs, r)
	t.mu.Unlock()
	go func() {
		defer close(r.done)
		defer t.recover() // a panic in a handler must not come out of a run
		r.err = call(ctx)
	}()
	return r
}

// endRuns cancels all runs and waits for them.
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
		case <-time.After(t.timeout):
			t.Errorf("a run did not end with its context")
			return
		}
	}
}

// endedRuns describes the runs that have ended, for messages about timeouts.
func (t *trial) endedRuns() string {
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

// project runs a projection until the clause ends.
func (t *trial) project(s ReadSide[any], p anyProjection) *run {
	return t.start(func(ctx context.Context) error { return s.Project(ctx, p) })
}

// wait waits until a run ends without being cancelled, and returns its error.
func (t *trial) wait(r *run) error {
	select {
	case <-r.done:
		return r.err
	case <-t.ctx.Done():
		t.Fatalf("a run that should end continues: %v", t.ctx.Err())
		return nil
	}
}

// cancel cancels a run and waits for it. Its error must be the context's.
func (t *trial) cancel(r *run) {
	r.cancel()
	<-r.done
	if !errors.Is(r.err, context.Canceled) {
		t.Fatalf("a run returned %v when its context ended: want the context's error", r.err)
	}
}

// failure runs a projection that must stop, and returns its error.
func (t *trial) failure(s ReadSide[any], p anyProjection) *projection.Error {
	err := t.wait(t.project(s, p))
	var stopped *projection.Error
	if !errors.As(err, &stopped) {
		t.Fatalf("Project returned %v: want a *projection.Error", err)
	}
	return stopped
}

// listing returns a projection that adds the ID of each record to the list with its name.
func (t *trial) listing(name string) anyProjection {
	return anyProjection{
		Name:    name,
		Retries: 1,
		Prepare: func(ctx context.Context, tx any) error { return t.lists.Empty(ctx, tx, name) },
		Handle:  func(ctx context.Context, tx any, records []es.Record) error { return t.enlist(ctx, tx, name, records) },
	}
}

// enlist adds the IDs of records to a list.
func (t *trial) enlist(ctx context.Context, tx any, list string, records []es.Record) error {
	for _, r := range records {
		if err := t.lists.Add(ctx, tx, list, r.ID()); err != nil {
			return err
		}
	}
	return nil
}

// lines returns the lines of a list.
func (t *trial) lines(list string) []string {
	lines, err := t.lists.Lines(t.ctx, list)
	if err != nil {
		t.Fatalf("Lines(%s) returned %v", list, err)
	}
	return lines
}

// reach waits until a projection exists and has applied everything up to a position.
func (t *trial) reach(s ReadSide[any], name string, position es.Position) {
	t.until("the projection "+name+" exists", func() bool { return len(t.status(s, name)) > 0 })
	if err := s.WaitFor(t.ctx, name, position); err != nil {
		t.Fatalf("WaitFor(%s, %d) returned %v%s", name, position, err, t.endedRuns())
	}
}

// enlisted checks that a list has exactly the records of a log that match a filter, in order.
func (t *trial) enlisted(list string, l es.Log, filter es.Filter) {
	t.equal("the list "+list, t.lines(list), ids(t.collect(l.All(t.ctx, 0, filter))))
}

// enlistedByStream checks that a list has exactly the records of a log, with each stream in order.
func (t *trial) enlistedByStream(list string, l es.Log) {
	t.equal("the list "+list+", by stream", byStream(t.lines(list)), byStream(ids(t.all(l))))
}

// status returns the status of the shards of a projection.
func (t *trial) status(s ReadSide[any], name string) []projection.Status {
	all, err := s.Status(t.ctx)
	if err != nil {
		t.Fatalf("Status returned %v", err)
	}
	return slices.DeleteFunc(all, func(s projection.Status) bool { return s.Name != name })
}

// byStream groups record IDs by stream and keeps the order within each stream.
func byStream(ids []string) map[string][]string {
	streams := make(map[string][]string)
	for _, id := range ids {
		i := strings.LastIndexByte(id, '/')
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
