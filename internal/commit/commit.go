// Package commit is group commit: it writes the appends of many callers in one transaction, each with a verdict of its own.
//
// There is no timer. A lone caller writes its own append without a goroutine switch. Appends that arrive while it does are written
// together by a goroutine, transaction after transaction, until none waits. So a crowd shares one fsync, and the larger the crowd, the more share it.
package commit

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/batch"
	"github.com/thalo-go/es/internal/group"
)

// Request is one call of Store.Append.
type Request struct {
	Appends []es.Append
	Events  int // in all appends
	Bytes   int // approximate size of names, data and metadata

	// The verdict, set by Tx.Write.
	Position es.Position
	Err      error

	Broken bool // the condition of an append has failed already; for Tx.Write

	size   int           // appends in its transaction
	came   time.Duration // when it came, by Queue.Clock
	waited time.Duration // for its transaction to begin

	group.Member
	detached bool // it is part of a transaction that may outlast its callers; guarded by Queue.mu
}

// Tx is an open transaction, with its connection and the locks that the backend takes.
type Tx interface {
	// Write writes the requests in one transaction and sets the verdict of each. Without requests it only ends the transaction.
	// The context ends when no caller waits for a verdict. If an outcome is unknown then, its error wraps [es.ErrUnknownOutcome].
	Write(ctx context.Context, requests []*Request)
}

// Detached is a Tx whose Write may go on for a limited time after its context has ended, to learn the outcome. Its callers do not wait for
// that, only [Queue.Close] does. Write owns the requests until it returns.
type Detached interface {
	Tx
	// Detached reports whether this transaction does.
	Detached() bool
}

func isDetached(tx Tx) bool {
	d, ok := tx.(Detached)
	return ok && d.Detached()
}

// Queue collects the appends of many goroutines.
type Queue struct {
	begin  func(ctx context.Context) (Tx, error)
	events int // limit of a transaction with more than one request
	bytes  int
	slots  chan struct{} // holds one element for each caller inside, to bound the queue
	epoch  time.Time     // when the clock begins

	counters counters

	mu      sync.Mutex
	group   group.Group[*Request]
	closed  bool
	blocked error         // see Block
	idle    sync.Cond     // signaled when the group becomes idle
	goal    int           // of waiting requests, at which full is closed
	full    chan struct{} // nil unless the goroutine that runs flush waits for it

	// Owned by the goroutine that runs flush.
	skipGather, backoff int // transactions that begin without yielding, now and after the last slow one
	returning           returning
}

// Options are the limits of a [Queue].
type Options struct {
	Events  int // in one transaction; 0 means 4,096
	Bytes   int // in one transaction; 0 means 16 MiB
	Waiting int // callers in the queue; further callers block until there is capacity; 0 means 16,384
}

// New returns a queue. begin opens the next transaction and may block on a connection and a lock.
// Requests that arrive while begin runs join the batch. If it fails, all of them fail. Its context ends when no caller waits.
func New(begin func(ctx context.Context) (Tx, error), o Options) *Queue {
	q := &Queue{
		begin: begin, events: cmp.Or(o.Events, 4096), bytes: cmp.Or(o.Bytes, 16<<20),
		slots: make(chan struct{}, cmp.Or(o.Waiting, 16384)), epoch: time.Now(), returning: returning{part: 1},
	}
	q.idle.L = &q.mu
	return q
}

// Append writes the appends and returns their verdict, as [es.Store] specifies.
// If the context ends before they are part of a transaction, nothing is written.
func (q *Queue) Append(ctx context.Context, appends []es.Append) (es.Position, error) {
	came := q.Clock()
	select {
	case q.slots <- struct{}{}:
		defer func() { <-q.slots }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	r := newRequest(appends)
	r.came = came
	lead, err := q.join(r)
	switch {
	case err != nil:
		return 0, err
	case lead:
		return q.lead(ctx, r)
	}
	return q.wait(ctx, r)
}

// join adds a request to the queue and reports whether its caller must write it.
func (q *Queue) join(r *Request) (lead bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.group.Busy() {
		q.mu.Unlock()
		r.own() // without the lock, as it may take long
		q.mu.Lock()
	}
	if q.closed {
		return false, fmt.Errorf("store is %w", es.ErrClosed)
	}
	if q.blocked != nil && q.group.Busy() {
		return false, q.blocked
	}
	lead = q.group.Join(r)
	if !lead && q.full != nil && q.group.Waiting() >= q.goal {
		close(q.full)
		q.full = nil
	}
	return lead, nil
}

// Block fails the requests that wait for the transaction being written, and those that come, with an error, until Unblock is called.
// It is for a transaction that may itself wait for one of them.
func (q *Queue) Block(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.blocked = err
	waiting := group.Claim(q.group.Take(nil).Calls)
	for _, r := range waiting {
		r.Position, r.Err = 0, err
	}
	group.Answer(waiting...)
}

// Unblock ends Block.
func (q *Queue) Unblock() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.blocked = nil
}

func newRequest(appends []es.Append) *Request {
	r := &Request{Appends: appends}
	for i := range appends {
		a := &appends[i]
		r.Events += len(a.Events)
		r.Bytes += len(a.Stream.Kind) + len(a.Stream.ID) + len(a.Command)
		for j := range a.Events {
			e := &a.Events[j]
			r.Bytes += len(e.Type) + len(e.Data)
			for _, tag := range e.Tags {
				r.Bytes += len(tag)
			}
			for key, value := range e.Meta {
				r.Bytes += len(key) + len(value)
			}
		}
	}
	return r
}

// own copies data that the caller may reuse after it returns early, while another goroutine is still writing it.
func (r *Request) own() {
	r.Appends = slices.Clone(r.Appends)
	for i := range r.Appends {
		events := slices.Clone(r.Appends[i].Events)
		for j := range events {
			events[j].Data = bytes.Clone(events[j].Data)
			events[j].Meta = maps.Clone(events[j].Meta)
			events[j].Tags = slices.Clone(events[j].Tags)
		}
		r.Appends[i].Events = events
		r.Appends[i].Unless = CloneCondition(r.Appends[i].Unless)
	}
}

// wait returns the verdict of a request that another goroutine writes.
func (q *Queue) wait(ctx context.Context, r *Request) (es.Position, error) {
	select {
	case <-r.Done():
		return r.verdict(ctx)
	case <-ctx.Done():
		return q.leave(ctx, r)
	}
}

// leave gives up on a request whose caller's context has ended.
func (q *Queue) leave(ctx context.Context, r *Request) (es.Position, error) {
	q.mu.Lock()
	outcome := q.group.Leave(r)
	if outcome == group.Last && r.detached {
		outcome = group.Abandoned
	}
	q.mu.Unlock()
	switch outcome {
	case group.Withdrawn:
		return 0, ctx.Err()
	case group.Abandoned:
		return 0, fmt.Errorf("%w: %w", es.ErrUnknownOutcome, ctx.Err())
	}
	<-r.Done()
	return r.verdict(ctx)
}

// verdict returns the verdict of a request that was answered.
func (r *Request) verdict(ctx context.Context) (es.Position, error) {
	batch.Tell(ctx, r.size, r.waited)
	return r.Position, r.Err
}

// lead writes the request of a caller that found the queue idle. If others have joined once the transaction is open, a goroutine takes over.
func (q *Queue) lead(ctx context.Context, r *Request) (es.Position, error) {
	handedOver := false
	defer func() {
		if !handedOver {
			q.next() // also if the backend panics, as other requests may be waiting
		}
	}()
	tx, err := q.begin(ctx)
	if !isDetached(tx) && q.alone() {
		q.transact(ctx, tx, err, r)
		return r.verdict(ctx)
	}
	handedOver = true
	if ctx.Err() != nil { // only this caller was canceled
		if err != nil {
			tx, err = nil, nil // begin again for the others
		}
		go q.flush(tx, err)
		return 0, ctx.Err()
	}
	q.handOver(r, tx, err)
	return q.wait(ctx, r)
}

// handOver makes the request of the leading caller wait like the others, and starts a goroutine for all. tx and err are as for flush.
func (q *Queue) handOver(r *Request, tx Tx, err error) {
	r.own()
	q.mu.Lock()
	q.group.PutBack(r)
	q.mu.Unlock()
	go q.flush(tx, err)
}

// alone reports whether no caller has joined since this one leads.
func (q *Queue) alone() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.group.Joined() == 0
}

// next starts a goroutine if requests are waiting.
func (q *Queue) next() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.group.Next() {
		go q.flush(nil, nil)
	} else {
		q.idle.Broadcast()
	}
}

// flush writes requests until none waits. tx and err are what begin has returned for the first transaction; if both are nil, flush calls it.
func (q *Queue) flush(tx Tx, err error) {
	for {
		cancel := func() {}
		if tx == nil && err == nil {
			q.gather()
			q.await()
			preparation, end, more := q.prepare()
			if !more {
				return
			}
			cancel = end
			if tx, err = q.begin(preparation); err != nil && preparation.Err() != nil {
				cancel() // all callers have left, but others may have joined
				tx, err = nil, nil
				continue
			}
		}
		ctx, requests := q.take(isDetached(tx))
		q.answer(requests, q.transact(ctx, tx, err, requests...))
		cancel()
		tx, err = nil, nil
	}
}

// gather yields briefly, so that callers that were just answered can join the next transaction. Otherwise each transaction would take only
// those that the one before left out, and a crowd would need two transactions where one is enough. gather stops as soon as no caller joins.
//
// After a long transaction, await waits for them as well.
//
// While other goroutines use all CPUs, yielding is slow: 10 ms or more for each of them. If it is, the next transactions begin
// without it, exponentially more of them each time.
func (q *Queue) gather() {
	if q.skipGather > 0 {
		q.skipGather--
		return
	}
	before, began := -1, time.Now()
	for range 8 {
		q.mu.Lock()
		waiting := q.group.Waiting()
		q.mu.Unlock()
		if time.Since(began) > 200*time.Microsecond+time.Duration(waiting)*5*time.Microsecond {
			q.backoff = min(2*q.backoff+32, 4096)
			q.skipGather = q.backoff
			return
		}
		if waiting <= before {
			q.backoff /= 2
			return
		}
		before = waiting
		runtime.Gosched()
	}
}

// prepare returns the context in which to begin the next transaction. If no request waits, more is false and the queue is idle.
func (q *Queue) prepare() (ctx context.Context, cancel context.CancelFunc, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.group.Next() {
		q.idle.Broadcast()
		return nil, nil, false
	}
	ctx, cancel = q.group.Prepare()
	return ctx, cancel, true
}

// write writes requests in a transaction, or sets the error of begin as their verdict.
func (q *Queue) write(ctx context.Context, tx Tx, err error, requests ...*Request) {
	if err == nil {
		tx.Write(ctx, requests)
		return
	}
	for _, r := range requests {
		r.Err = err
	}
}

// take returns the requests of the next transaction and its context. There is at least one, unless all callers have left.
func (q *Queue) take(detached bool) (context.Context, []*Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, bytes := 0, 0
	round := q.group.Take(func(r *Request, first bool) bool {
		events, bytes = events+r.Events, bytes+r.Bytes
		return first || events <= q.events && bytes <= q.bytes
	})
	ctx := round.Context(context.Background())
	requests := group.Claim(round.Calls)
	for _, r := range requests {
		r.detached = detached
	}
	return ctx, requests
}

func (q *Queue) answer(requests []*Request, took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.returning.answered(len(requests), q.group.Waiting(), took)
	group.Answer(requests...)
}

// Close rejects further appends and waits for those in the queue.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for q.group.Busy() {
		q.idle.Wait()
	}
}
