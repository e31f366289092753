package commit

import (
	"context"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/group"
)

// apart chooses requests for a transaction in flight. A stream with an append in flight goes into no other transaction, because the head of
// the stream is known only from its answer. A request that is skipped keeps later ones from its streams, so that it is not overtaken forever.
type apart struct {
	queue   *Queue
	skipped map[es.Stream]struct{}
}

// skips reports whether a request must wait. The caller holds the lock of the queue.
func (a *apart) skips(r *Request) bool {
	skips := false
	for i := range r.Appends {
		_, flying := a.queue.streams[r.Appends[i].Stream]
		_, awaited := a.skipped[r.Appends[i].Stream]
		skips = skips || flying || awaited
	}
	if !skips {
		return false
	}
	if a.skipped == nil {
		a.skipped = make(map[es.Stream]struct{})
	}
	for i := range r.Appends {
		a.skipped[r.Appends[i].Stream] = struct{}{}
	}
	return true
}

// ready reports whether a request waits that can be part of the next transaction in flight. The caller holds the lock.
func (q *Queue) ready() bool {
	a := apart{queue: q}
	return q.group.Any(func(r *Request) bool { return !a.skips(r) })
}

// launch starts a transaction in a goroutine of its own. tx and err are what begin has returned.
func (q *Queue) launch(tx Tx, err error, cancel context.CancelFunc) {
	ctx, requests := q.pick()
	if len(requests) == 0 { // their callers have left
		q.write(ctx, tx, err)
		cancel()
		return
	}
	go func() {
		defer cancel()
		defer q.land(requests)
		if err == nil {
			tx.(Flyer).Fly(ctx, requests)
			return
		}
		q.write(ctx, tx, err, requests...)
	}()
}

// pick returns the requests of the next transaction in flight, and its context.
func (q *Queue) pick() (context.Context, []*Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, bytes := 0, 0
	a := apart{queue: q}
	round := q.group.Pick(func(r *Request, first bool) group.Choice {
		if a.skips(r) {
			return group.Skip
		}
		events, bytes = events+r.Events, bytes+r.Bytes
		if first || events <= q.events && bytes <= q.bytes {
			return group.Into
		}
		return group.Stop
	})
	ctx := round.Context(context.Background())
	requests := group.Claim(round.Calls)
	for _, r := range requests {
		r.flight = true
		for i := range r.Appends {
			q.streams[r.Appends[i].Stream] = struct{}{}
		}
	}
	if len(requests) > 0 {
		q.flying++
	}
	return ctx, requests
}

// land answers the requests of a transaction in flight, which has ended.
func (q *Queue) land(requests []*Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range requests {
		for i := range r.Appends {
			delete(q.streams, r.Appends[i].Stream)
		}
	}
	q.flying--
	group.Answer(requests...)
	q.changed.Signal()
}
