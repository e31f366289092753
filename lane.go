package es

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
)

// lane queues the commands on one aggregate.
//
// The first caller runs its own command. Commands that arrive while a round is running are queued and run in batches
// (rounds) by a background goroutine, so that one caller's cancellation or panic does not affect the others.
// Repo.mu guards it.
type lane[S, C, E any] struct {
	queue []*call[S, C, E]
	round *round[S, C, E] // the one that is running
}

// call is one Execute.
type call[S, C, E any] struct {
	ctx     context.Context
	command C
	settings

	running bool            // the rules run for this call
	phase   phase           // guarded by Repo.mu
	round   *round[S, C, E] // guarded by Repo.mu; nil while the call is queued

	// Results. The goroutine that runs the round writes them. The caller reads them after done is closed.
	// done is nil if the caller runs the round itself.
	done     chan struct{}
	result   Result[S, E]
	err      error
	panicked *PanicError
	exited   bool // the rules called runtime.Goexit, as t.FailNow does
}

type phase int8

const (
	waiting   phase = iota // nothing was sent to the store
	claimed                // its events may have been sent
	answered               // it has its results
	abandoned              // its caller left without them
)

// over reports whether no caller waits for the results of the call.
func (c *call[S, C, E]) over() bool { return c.phase == answered || c.phase == abandoned }

// run executes a call on an aggregate and returns when its results are set, or with an error if its caller gave up.
func (r *Repo[S, C, E]) run(stream Stream, c *call[S, C, E]) error {
	l, err := r.enter(stream, c)
	switch {
	case err != nil:
		return err
	case l == nil:
		return r.wait(c)
	}
	if r.finish(stream, l) {
		go r.drain(stream, l)
	}
	return nil
}

// enter queues a call. If the lane is idle, enter returns it with a round of this call, which the caller must run.
func (r *Repo[S, C, E]) enter(stream Stream, c *call[S, C, E]) (*lane[S, C, E], error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("repo is %w", ErrClosed)
	}
	if l := r.lanes[stream.ID]; l != nil {
		c.done = make(chan struct{})
		l.queue = append(l.queue, c)
		return nil, nil
	}
	l := &lane[S, C, E]{}
	r.begin(stream, l, []*call[S, C, E]{c})
	r.lanes[stream.ID] = l
	r.busy.Add(1)
	return l, nil
}

// wait waits for the results of a call, or until its context is done.
func (r *Repo[S, C, E]) wait(c *call[S, C, E]) error {
	select {
	case <-c.done:
		return nil
	case <-c.ctx.Done():
		return r.leave(c)
	}
}

// leave abandons a call whose context is done. It returns nil if the call has its results after all.
func (r *Repo[S, C, E]) leave(c *call[S, C, E]) error {
	r.mu.Lock()
	switch {
	case c.phase == waiting:
		c.phase = abandoned
		c.round.release()
		r.mu.Unlock()
		return c.ctx.Err()
	case c.phase == claimed && c.round.live > 1:
		c.phase = abandoned
		c.round.release()
		r.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, c.ctx.Err())
	}
	// This is the last waiter: cancel the round and wait for the store's answer.
	if c.phase == claimed && c.round.cancel != nil {
		c.round.cancel()
	}
	r.mu.Unlock()
	<-c.done
	return nil
}

// release counts one waiting caller less. The last one ends the context of the round.
func (r *round[S, C, E]) release() {
	if r == nil {
		return
	}
	if r.live--; r.live == 0 && r.cancel != nil {
		r.cancel()
	}
}

// drain runs the rounds of a lane until its queue is empty.
func (r *Repo[S, C, E]) drain(stream Stream, l *lane[S, C, E]) {
	growStack()
	for r.finish(stream, l) {
	}
}

// finish runs the round of a lane and begins the next. It reports whether there is one.
func (r *Repo[S, C, E]) finish(stream Stream, l *lane[S, C, E]) (more bool) {
	finished := false
	defer func() {
		if !finished {
			r.exit(l) // the rules called runtime.Goexit, which ends this goroutine
		}
		switch more = r.next(stream, l); {
		case !more:
			r.busy.Done()
		case !finished:
			go r.drain(stream, l)
		}
	}()
	if p := protect(l.round.settle); p != nil {
		r.logPanic(stream, p) // Evolve panicked on stored events, so no call of the round can be served
		l.round.abort(l.round.calls, func(c *call[S, C, E]) { c.panicked = p })
	}
	finished = true
	return more
}

// growStack grows the stack of a new goroutine to what a round needs, while it is nearly empty. Growing it during a
// round copies every frame, which took 17 to 25 % of the time of a command.
//
//go:noinline
func growStack() {
	var frame [12 << 10]byte
	runtime.KeepAlive(&frame)
}

// exit handles runtime.Goexit in the rules. The call for which they ran exits, and the others move to the next round.
// If the rules ran on stored events, all calls exit.
func (r *Repo[S, C, E]) exit(l *lane[S, C, E]) {
	calls := l.round.calls
	if i := slices.IndexFunc(calls, func(c *call[S, C, E]) bool { return c.running }); i >= 0 {
		others := slices.Concat(calls[:i], calls[i+1:])
		calls = calls[i : i+1]
		l.round.unclaim(others)
		r.mu.Lock()
		l.queue = append(others, l.queue...)
		r.mu.Unlock()
	}
	l.round.abort(calls, func(c *call[S, C, E]) { c.exited = true })
}

// next begins a round of the queued calls. It removes the lane if there are none.
func (r *Repo[S, C, E]) next(stream Stream, l *lane[S, C, E]) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := l.queue[:0:len(l.queue)]
	for _, c := range l.queue {
		if c.phase == waiting {
			calls = append(calls, c)
		}
	}
	l.queue = nil
	if len(calls) == 0 {
		delete(r.lanes, stream.ID)
		return false
	}
	r.begin(stream, l, calls)
	return true
}

func (r *Repo[S, C, E]) begin(stream Stream, l *lane[S, C, E], calls []*call[S, C, E]) {
	l.round = &round[S, C, E]{repo: r, stream: stream, ctx: calls[0].ctx, calls: calls, live: len(calls)}
	if len(calls) > 1 {
		l.round.ctx, l.round.cancel = context.WithCancel(context.WithoutCancel(calls[0].ctx))
	}
	for _, c := range calls {
		c.round = l.round
	}
}

// claim marks calls as possibly sent. It leaves out those that have an answer or were abandoned.
func (r *round[S, C, E]) claim(calls []*call[S, C, E]) []*call[S, C, E] {
	r.repo.mu.Lock()
	defer r.repo.mu.Unlock()
	if slices.ContainsFunc(calls, (*call[S, C, E]).over) {
		calls = slices.DeleteFunc(slices.Clone(calls), (*call[S, C, E]).over)
	}
	for _, c := range calls {
		c.phase = claimed
	}
	return calls
}

// unclaim marks calls as not sent.
func (r *round[S, C, E]) unclaim(calls []*call[S, C, E]) {
	r.repo.mu.Lock()
	defer r.repo.mu.Unlock()
	for _, c := range calls {
		if c.phase == claimed {
			c.phase = waiting
		}
	}
}

// answer hands the results in the calls to their callers.
func (r *round[S, C, E]) answer(calls ...*call[S, C, E]) {
	r.repo.mu.Lock()
	defer r.repo.mu.Unlock()
	for _, c := range calls {
		if !c.over() {
			c.phase = answered
			c.round.release()
			if c.done != nil {
				close(c.done)
			}
		}
	}
}

func (r *round[S, C, E]) fail(calls []*call[S, C, E], err error) {
	for _, c := range calls {
		c.err = err
	}
	r.answer(calls...)
}

// abort answers the calls of a round that did not complete; set sets the result.
func (r *round[S, C, E]) abort(calls []*call[S, C, E], set func(*call[S, C, E])) {
	r.repo.mu.Lock()
	for _, c := range calls {
		if c.phase != answered {
			set(c)
		}
	}
	r.repo.mu.Unlock()
	r.answer(calls...)
}

// guard runs code of the user for one call, which gets its panic.
func (r *round[S, C, E]) guard(c *call[S, C, E], f func()) {
	c.running = true
	c.panicked = protect(f)
	c.running = false // not reached if f calls runtime.Goexit
	if c.panicked != nil {
		r.repo.logPanic(r.stream, c.panicked)
	}
}

func (r *Repo[S, C, E]) logPanic(stream Stream, p *PanicError) {
	r.log().Error("es: panic in the rules", "stream", stream.String(), "err", p, "stack", string(p.Stack))
}

// protect runs code of the user and returns its panic.
func protect(f func()) (p *PanicError) {
	defer func() {
		if v := recover(); v != nil {
			p = &PanicError{v, debug.Stack()}
		}
	}()
	f()
	return nil
}
