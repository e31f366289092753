package commit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/hist"
)

// counters counts what becomes of appends, without a lock.
type counters struct {
	appends, events, conflicts, duplicates, refused, unknown, failed, batches atomic.Int64

	append, batch hist.Durations
	size          hist.Sizes
}

// refusal is the error of an inline projection for an append.
type refusal interface {
	error
	Refuses()
}

// Clock returns the time since the queue was made. It takes half of the time of time.Now.
func (q *Queue) Clock() time.Duration { return time.Since(q.epoch) }

// Count counts a call of Append that began at a time of Clock. A store calls it when its Append returns.
func (q *Queue) Count(began time.Duration, appends []es.Append, err error) {
	c := &q.counters
	c.appends.Add(1)
	c.append.Add(q.Clock() - began)
	if err != nil {
		c.of(err).Add(1)
		return
	}
	events := 0
	for i := range appends {
		events += len(appends[i].Events)
	}
	c.events.Add(int64(events))
}

// of returns the counter of an error. A refusal comes first, because it may wrap any error of a handler.
func (c *counters) of(err error) *atomic.Int64 {
	if _, is := errors.AsType[refusal](err); is {
		return &c.refused
	}
	if _, is := errors.AsType[*es.ConflictError](err); is {
		return &c.conflicts
	}
	if _, is := errors.AsType[*es.DuplicateError](err); is {
		return &c.duplicates
	}
	switch {
	case errors.Is(err, es.ErrUnknownOutcome):
		return &c.unknown
	case errors.Is(err, es.ErrInvalid):
		return &c.refused
	}
	return &c.failed
}

// transact writes requests in a transaction, or sets the error of begin as their verdict, and counts it. It returns how long that took.
func (q *Queue) transact(ctx context.Context, tx Tx, err error, requests ...*Request) time.Duration {
	began := q.Clock()
	if err != nil || len(requests) == 0 { // all callers may have left
		q.write(ctx, tx, err, requests...)
		return q.Clock() - began
	}
	size := 0
	for _, r := range requests {
		size += len(r.Appends)
	}
	for _, r := range requests {
		r.size, r.waited = size, began-r.came
	}
	q.write(ctx, tx, nil, requests...)
	took := q.Clock() - began
	q.counters.batches.Add(1)
	q.counters.size.Add(size)
	q.counters.batch.Add(took)
	return took
}

// Stats returns the counters.
func (q *Queue) Stats() es.Stats {
	c := &q.counters
	q.mu.Lock()
	waiting := q.group.Waiting()
	q.mu.Unlock()
	return es.Stats{
		Appends: c.appends.Load(), Events: c.events.Load(), Conflicts: c.conflicts.Load(), Duplicates: c.duplicates.Load(),
		Refused: c.refused.Load(), Unknown: c.unknown.Load(), Failed: c.failed.Load(), Batches: c.batches.Load(), Waiting: waiting,
		Append: es.Histogram(c.append.Snapshot()), Batch: es.Histogram(c.batch.Snapshot()), BatchSize: es.Histogram(c.size.Snapshot()),
	}
}
