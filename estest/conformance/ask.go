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

// askClauses are about what people and programs ask of projections.
func askClauses() []clause {
	return []clause{
		{"WaitFor waits until the position is applied",
			"A caller who reads the read model after it sees what he has written. One who is let through too early sees the account without his deposit.",
			waitsFor},
		{"WaitFor reports the position reached when its context ends",
			"Nobody may be at work.",
			waitsInVain},
		{"WaitFor refuses an unknown projection",
			"It is misspelt, or was never run: the error wraps es.ErrInvalid.",
			refusesWaiting},
		{"WaitFor follows the version that has caught up",
			"While a new one is built the old one is read.",
			waitsForServing},
		{"Status has the lag and the worker",
			"In records and in seconds, in the order of name, version and shard.",
			tellsStatus},
	}
}

func waitsFor(t *trial) {
	s := t.side()
	var gate atomic.Bool
	p := t.listing("waited")
	p.Partitions, p.Batch = 2, 1 // so that on a database with one writer the shards take turns
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		if gate.Load() {
			rest(ctx, 5*time.Millisecond)
		}
		return t.enlist(ctx, tx, p.Name, records)
	}
	t.project(s, p)
	t.reach(s, p.Name, t.appendSome(s, 2))
	gate.Store(true)
	other := t.side()
	for i := range 12 {
		last := t.append(s, add(stream(fmt.Sprint("long ", i)), 20)) // all in one shard, so that the other is there soon
		if err := other.WaitFor(t.ctx, p.Name, last); err != nil {
			t.Fatalf("WaitFor returned %v", err)
		}
		if n := len(t.lines(p.Name)); n != int(last) {
			t.Fatalf("WaitFor(%d) returned when %d records were applied", last, n)
		}
	}
}

func waitsInVain(t *trial) {
	s := t.side()
	p := t.listing("vain")
	r := t.project(s, p)
	last := t.appendSome(s, 3)
	t.reach(s, p.Name, last)
	t.ends(r)
	// On a busy machine a context may end before the database was asked even once.
	for patience := time.Second; ; patience *= 2 {
		ctx, cancel := context.WithTimeout(t.ctx, patience)
		err := s.WaitFor(ctx, p.Name, last+1)
		cancel()
		told := err != nil && strings.Contains(err.Error(), p.Name) && strings.Contains(err.Error(), "3")
		if expired := errors.Is(err, context.DeadlineExceeded); !expired || !told && t.ctx.Err() != nil {
			t.Errorf("WaitFor(%d) returned %v: want an error of the context, with the projection's name and the 3 that it stands at", last+1, err)
			return
		}
		if told {
			return
		}
	}
}

func refusesWaiting(t *trial) {
	if err := t.side().WaitFor(t.ctx, "nobody", 1); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("WaitFor a projection that is not there returned %v: want an error that wraps es.ErrInvalid", err)
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
		return errMend
	}
	_ = t.stopped(s, next)
	last := t.appendSome(s, 3)
	t.reach(s, p.Name, last) // by the old one: the new one has not caught up
	if n := len(t.lines("old")); n != int(last) {
		t.Errorf("WaitFor(%d) returned when %d records were applied in the version that has caught up", last, n)
	}
}

func tellsStatus(t *trial) {
	s := t.side()
	p, block := t.listing("z"), newFlag()
	p.Batch = 4
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		if records[0].Position > 4 {
			return errMend
		}
		block.raise()
		return t.enlist(ctx, tx, p.Name, records)
	}
	t.appendSome(s, 10)
	_ = t.stopped(s, p)
	status := t.status(s, "z")
	if len(status) != 1 {
		t.Fatalf("Status tells of %d shards: want one", len(status))
	}
	fourth := t.all(s)[3]
	got := status[0]
	if got.Behind <= 0 || got.Worker != "" {
		t.Errorf("Status says %+v of one that stopped: want the seconds that it is behind, and no worker", got)
	}
	got.Behind, got.Error, got.ErrorAt = 0, "", time.Time{}
	t.equal("Status", got, projection.Status{Name: "z", Shard: "0/1", Source: s.ID(), Cursor: 4, Time: fourth.Time, Head: 10, Lag: 6})
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
		t.Errorf("Status tells of %q, %v: want them sorted", names, err)
	}
	if all[0].Worker == "" || all[0].Lag != 0 || all[0].Behind != 0 {
		t.Errorf("Status says %+v of one that has caught up: want its worker, and no lag", all[0])
	}
}
