// Package commit is group commit: many callers' appends written in one transaction, each with a verdict of its own.
//
// There is no timer. A lone caller writes his append himself and pays no hand-over between goroutines; while he does,
// others gather, and a goroutine takes all that is waiting, again and again until nothing is. So a crowd shares one fsync,
// and the more there are the more share it.
package commit

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

// A Request is one call of Store.Append on its way into a transaction.
type Request struct {
	Appends []es.Append
	Events  int // in all appends
	Bytes   int // of names, data and metadata, about

	// The verdict, which the writer sets.
	Position es.Position
	Err      error

	batch *batch        // the one it was taken into; guarded by Queue.mu
	gone  bool          // its caller left before it was taken, and may be using its memory again; guarded by Queue.mu
	done  chan struct{} // closed when the verdict is there
}

// A Tx is ready to write: it has its connection and whatever lock the backend takes.
type Tx interface {
	// Write writes the requests in one transaction and sets the verdict of each. With no requests it only ends.
	// The context ends when nobody waits for the verdicts any more; what is unknown then is said with [es.ErrUnknownOutcome].
	Write(ctx context.Context, requests []*Request)
}

// A Queue gathers the appends of many goroutines.
type Queue struct {
	begin  func(ctx context.Context) (Tx, error)
	events int // at most in a transaction, if it has more than one request
	bytes  int
	slots  chan struct{} // one for each caller inside, so that the queue is bounded

	mu       sync.Mutex
	waiting  []*Request
	here     int                // callers of those waiting that have not left
	giveUp   context.CancelFunc // ends the begin under way, if it is no caller's own
	flushing bool
	closed   bool
	idle     sync.Cond // signalled when flushing ends

	hasty, haste int // how many transactions are not to be gathered for, and how many the last time; the flushing goroutine's
}

// A batch is the requests of one transaction.
type batch struct {
	cancel context.CancelFunc
	live   int // callers that still wait; guarded by Queue.mu
}

// Options bound a [Queue].
type Options struct {
	Events  int // in one transaction; 0 means 4,096
	Bytes   int // in one transaction; 0 means 16 MiB
	Waiting int // callers that may be in the queue; more of them wait outside; 0 means 16,384
}

// New returns a queue. begin makes ready for the next transaction, waiting for a connection and a lock as long as it has to;
// what gathers meanwhile goes into it. Its error is the verdict for all that wait. Its context ends when nobody waits any more.
func New(begin func(ctx context.Context) (Tx, error), o Options) *Queue {
	q := &Queue{begin: begin, events: or(o.Events, 4096), bytes: or(o.Bytes, 16<<20), slots: make(chan struct{}, or(o.Waiting, 16384))}
	q.idle.L = &q.mu
	return q
}

func or(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// Append brings the appends into a transaction and returns their verdict, as [es.Store] has it.
// When the context ends before they were taken into one, nothing was written.
func (q *Queue) Append(ctx context.Context, appends []es.Append) (es.Position, error) {
	select {
	case q.slots <- struct{}{}:
		defer func() { <-q.slots }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	r := newRequest(appends)
	lead, err := q.enter(r)
	if err != nil {
		return 0, err
	}
	if lead {
		q.lead(ctx, r)
	}
	select {
	case <-r.done:
		return r.Position, r.Err
	case <-ctx.Done():
		return q.leave(ctx, r)
	}
}

// enter puts a request into the queue and tells whether its caller is to write it himself.
func (q *Queue) enter(r *Request) (lead bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.flushing {
		q.mu.Unlock()
		r.own() // here, where it holds nobody up
		q.mu.Lock()
	}
	if q.closed {
		return false, fmt.Errorf("store is %w", es.ErrClosed)
	}
	q.waiting = append(q.waiting, r)
	q.here++
	lead = !q.flushing
	q.flushing = true
	return lead, nil
}

func newRequest(appends []es.Append) *Request {
	r := &Request{Appends: appends, done: make(chan struct{})}
	for i := range appends {
		a := &appends[i]
		r.Events += len(a.Events)
		r.Bytes += len(a.Stream.Kind) + len(a.Stream.ID) + len(a.Command)
		for j := range a.Events {
			e := &a.Events[j]
			r.Bytes += len(e.Type) + len(e.Data)
			for key, value := range e.Meta {
				r.Bytes += len(key) + len(value)
			}
		}
	}
	return r
}

// own copies what the caller may use again once he has left, which he may do while another goroutine writes it.
func (r *Request) own() {
	r.Appends = slices.Clone(r.Appends)
	for i := range r.Appends {
		events := slices.Clone(r.Appends[i].Events)
		for j := range events {
			events[j].Data = bytes.Clone(events[j].Data)
			events[j].Meta = maps.Clone(events[j].Meta)
		}
		r.Appends[i].Events = events
	}
}

// leave gives up on a request whose caller's context has ended.
func (q *Queue) leave(ctx context.Context, r *Request) (es.Position, error) {
	q.mu.Lock()
	select {
	case <-r.done: // at the same moment
		q.mu.Unlock()
		return r.Position, r.Err
	default:
	}
	if r.batch == nil {
		q.drop(r)
		q.mu.Unlock()
		return 0, ctx.Err()
	}
	r.batch.live--
	last := r.batch.live == 0
	q.mu.Unlock()
	if !last {
		return 0, fmt.Errorf("%w: %w", es.ErrUnknownOutcome, ctx.Err())
	}
	r.batch.cancel() // nobody else waits for this transaction: the writer says how it went
	<-r.done
	return r.Position, r.Err
}

// drop takes out a request that is still waiting.
func (q *Queue) drop(r *Request) {
	if r.gone {
		return
	}
	r.gone = true
	q.here--
	if q.here == 0 && q.giveUp != nil {
		q.giveUp()
	}
}

// lead writes the request of a caller that found nobody writing. If others have come meanwhile, a goroutine takes over.
func (q *Queue) lead(ctx context.Context, own *Request) {
	tx, err := q.begin(ctx)
	q.mu.Lock()
	if len(q.waiting) > 1 {
		if ctx.Err() != nil { // this caller's context is his own affair: begin anew for the others
			q.drop(own)
			err = nil
		}
		q.mu.Unlock()
		own.own()
		go q.flush(tx, err)
		return
	}
	clear(q.waiting)
	q.waiting, q.here = q.waiting[:0], 0
	own.batch = &batch{cancel: func() {}, live: 1}
	q.mu.Unlock()
	defer q.pass() // also when the backend panics: the others' appends are not lost with this one
	q.write(ctx, tx, err, []*Request{own})
}

// pass lets a goroutine go on with what has come meanwhile.
func (q *Queue) pass() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 {
		go q.flush(nil, nil)
	} else {
		q.rest()
	}
}

// flush writes all that waits, until nothing does. It may be given a transaction to begin with, or the error instead.
func (q *Queue) flush(tx Tx, err error) {
	for {
		begin, cancel := context.WithCancel(context.Background())
		if tx == nil && err == nil {
			q.gather()
			if !q.expect(cancel) {
				cancel()
				return
			}
			tx, err = q.begin(begin)
			if err != nil && begin.Err() != nil { // all have left; perhaps others have come
				err = nil
				continue
			}
		}
		ctx, requests, done := q.take()
		q.write(ctx, tx, err, requests)
		done()
		cancel()
		tx, err = nil, nil
	}
}

// gather lets those who were just answered come in again before the next transaction begins. Without it each transaction takes what the
// one before has left out, so that a crowd pays for two where one would do. It only yields, while that brings anybody.
//
// In a program that computes on all its CPUs, who yields comes back late: 10 ms or more for each goroutine that computes. Where that is seen,
// the next transactions begin at once, more of them each time.
func (q *Queue) gather() {
	if q.hasty > 0 {
		q.hasty--
		return
	}
	before, began := -1, time.Now()
	for range 8 {
		q.mu.Lock()
		here := q.here
		q.mu.Unlock()
		if time.Since(began) > 200*time.Microsecond+time.Duration(here)*5*time.Microsecond {
			q.haste = min(2*q.haste+32, 4096)
			q.hasty = q.haste
			return
		}
		if here <= before {
			q.haste /= 2
			return
		}
		before = here
		runtime.Gosched()
	}
}

// expect tells whether anybody waits for a transaction, who may give it up. If not, the queue rests.
func (q *Queue) expect(giveUp context.CancelFunc) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.here == 0 {
		q.waiting = nil
		q.rest()
		return false
	}
	q.giveUp = giveUp
	return true
}

func (q *Queue) rest() {
	q.giveUp = nil
	q.flushing = false
	q.idle.Broadcast()
}

func (q *Queue) write(ctx context.Context, tx Tx, err error, requests []*Request) {
	if err == nil {
		tx.Write(ctx, requests)
	}
	for _, r := range requests {
		if err != nil {
			r.Err = err
		}
		close(r.done)
	}
}

// take takes the requests for one transaction, and at least one if any caller is still there.
func (q *Queue) take() (context.Context, []*Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	b := &batch{cancel: cancel}
	var requests []*Request
	events, bytes := 0, 0
	q.mu.Lock()
	defer q.mu.Unlock()
	q.giveUp = nil
	i := 0
	for ; i < len(q.waiting); i++ {
		r := q.waiting[i]
		if r.gone {
			continue
		}
		events, bytes = events+r.Events, bytes+r.Bytes
		if len(requests) > 0 && (events > q.events || bytes > q.bytes) {
			break
		}
		r.batch = b
		requests = append(requests, r)
	}
	b.live = len(requests)
	q.here -= len(requests)
	clear(q.waiting[:i])
	q.waiting = q.waiting[i:]
	return ctx, requests, cancel
}

// Close refuses further appends and waits for those that are in the queue.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for q.flushing {
		q.idle.Wait()
	}
}
