package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// statusClauses test WaitFor and Status.
func statusClauses() []clause {
	return []clause{
		{"WaitFor waits until the position is applied",
			"A caller reads the read model after WaitFor to see its own write. If WaitFor returns too early, the write is missing.",
			waitsFor},
		{"WaitFor reports the position reached when its context ends",
			"There may be no worker. The error then shows how far the projection is.",
			waitTimesOut},
		{"WaitFor waits for a projection that is about to start",
			"A program waits right after it has started the projection. If the name is misspelt, the error after the context's end says that there is no such projection.",
			waitsForStart},
		{"WaitFor follows the version that has caught up",
			"While a new version is being built, programs read the old one.",
			waitsForServing},
		{"Status has the lag and the worker",
			"Status reports the lag in records and in time, sorted by name, version and shard. Otherwise operators cannot see that a projection has stalled.",
			reportsStatus},
	}
}

func waitsFor(t *trial) {
	s := t.side()
	var slow atomic.Bool
	p := t.listing("waited")
	p.Partitions, p.Batch = 2, 1 // so that the shards alternate on a database with one writer
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		if slow.Load() {
			pause(ctx, 5*time.Millisecond)
		}
		return t.enlist(ctx, tx, p.Name, records)
	}
	t.project(s, p)
	t.reach(s, p.Name, t.appendSome(s, 2))
	slow.Store(true)
	other := t.side()
	for i := range 12 {
		last := t.append(s, add(stream(fmt.Sprint("long ", i)), 20)) // all in one shard, so that the other reaches the position soon
		if err := other.WaitFor(t.ctx, p.Name, last); err != nil {
			t.Fatalf("WaitFor returned %v", err)
		}
		if n := len(t.lines(p.Name)); n != int(last) {
			t.Fatalf("WaitFor(%d) returned when %d records were applied", last, n)
		}
	}
}

func waitTimesOut(t *trial) {
	s := t.side()
	p := t.listing("unfinished")
	r := t.project(s, p)
	last := t.appendSome(s, 3)
	t.reach(s, p.Name, last)
	t.cancel(r)
	// On a busy machine a context may end before the first query.
	for timeout := time.Second; ; timeout *= 2 {
		ctx, cancel := context.WithTimeout(t.ctx, timeout)
		err := s.WaitFor(ctx, p.Name, last+1)
		cancel()
		complete := err != nil && strings.Contains(err.Error(), p.Name) && strings.Contains(err.Error(), "3")
		if expired := errors.Is(err, context.DeadlineExceeded); !expired || !complete && t.ctx.Err() != nil {
			t.Errorf("WaitFor(%d) returned %v: want the context's error with the projection's name and its position, 3", last+1, err)
			return
		}
		if complete {
			return
		}
	}
}

func waitsForStart(t *trial) {
	s := t.side()
	p := t.listing("late")
	p.Batch = 1
	last := t.appendSome(s, 20)
	waited := make(chan error, 1)
	go func() { waited <- s.WaitFor(t.ctx, p.Name, last) }()
	// On a busy machine a context may end before the first query.
	for timeout := 100 * time.Millisecond; ; timeout *= 2 {
		ctx, cancel := context.WithTimeout(t.ctx, timeout)
		err := s.WaitFor(ctx, "unknown", 1)
		cancel()
		complete := err != nil && strings.Contains(err.Error(), "unknown does not exist")
		if expired := errors.Is(err, context.DeadlineExceeded); !expired || !complete && t.ctx.Err() != nil {
			t.Errorf("WaitFor an unknown projection returned %v: want the context's error, and that the projection does not exist", err)
			return
		}
		if complete {
			break
		}
	}
	select {
	case err := <-waited:
		t.Errorf("WaitFor returned %v before the projection was started", err)
		return
	default:
	}
	t.project(s, p)
	if err := <-waited; err != nil {
		t.Errorf("WaitFor a projection that started later returned %v", err)
	} else if n := len(t.lines(p.Name)); n != int(last) {
		t.Errorf("WaitFor(%d) returned when %d records were applied", last, n)
	}
}

func waitsForServing(t *trial) {
	s := t.side()
	p := t.listing("old")
	p.Name = "serving"
	t.project(s, p)
	t.reach(s, p.Name, t.appendSome(s, 3))
	next := t.listing("new")
	next.Name, next.Version, next.Batch = p.Name, 1, 1
	next.Handle = func(ctx context.Context, _ any, records []es.Record) error {
		return errHandler
	}
	_ = t.failure(s, next)
	last := t.appendSome(s, 3)
	t.reach(s, p.Name, last) // the old version reaches it; the new one has not caught up
	if n := len(t.lines("old")); n != int(last) {
		t.Errorf("WaitFor(%d) returned when the version that has caught up had applied %d records", last, n)
	}
}

func reportsStatus(t *trial) {
	s := t.side()
	p, block := t.listing("z"), newFlag()
	p.Batch = 4
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		if records[0].Position > 4 {
			return errHandler
		}
		block.raise()
		return t.enlist(ctx, tx, p.Name, records)
	}
	t.appendSome(s, 10)
	_ = t.failure(s, p)
	status := t.status(s, "z")
	if len(status) != 1 {
		t.Fatalf("Status returned %d shards: want one", len(status))
	}
	fourth := t.all(s)[3]
	got := status[0]
	if got.Lag == nil || got.Lag.Age <= 0 || got.Worker != "" {
		t.Fatalf("Status returned %+v for a stopped projection: want the age of its lag, and no worker", got)
	}
	got.Lag.Age, got.Error, got.ErrorAt = 0, "", time.Time{}
	t.equal("Status", got, projection.Status{Name: "z", Shard: "0/1", Kind: projection.KindProjection, Source: s.ID(), Cursor: 4, Time: fourth.Time, Lag: &projection.Lag{Head: 10, Positions: 6}})
	q := t.listing("a")
	q.Partitions = 11
	t.project(s, q)
	t.reach(s, q.Name, 10)
	all, err := s.Status(t.ctx)
	var names []string
	for _, s := range all {
		names = append(names, s.Name+" "+s.Shard)
	}
	if err != nil || !slices.Equal(names, []string{"a 0/11", "a 1/11", "a 2/11", "a 3/11", "a 4/11", "a 5/11", "a 6/11", "a 7/11", "a 8/11", "a 9/11", "a 10/11", "z 0/1"}) {
		t.Errorf("Status returned %q, %v: want them sorted", names, err)
	}
	if all[0].Worker == "" || all[0].Lag == nil || *all[0].Lag != (projection.Lag{Head: 10}) {
		t.Errorf("Status returned %+v for a projection that has caught up: want its worker and no lag", all[0])
	}
}
