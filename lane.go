package es

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
)

// A lane is the commands on one aggregate. The first one is a round by itself, which its caller works on. Those that come meanwhile wait,
// and a goroutine of their own works on them afterwards, round by round, so that no caller's context or panic decides over the others.
// Everything in it is guarded by Repo.mu.
type lane[S, C, E any] struct {
	waiting []*call[S, C, E]
	round   *round[S, C, E] // the one under way
}

// A round is the calls that a lane works on together.
type round[S, C, E any] struct {
	ctx    context.Context // ends when the contexts of all its calls have
	cancel context.CancelFunc
	live   int // calls that have neither been answered nor left
	calls  []*call[S, C, E]
}

// A call is one Execute on its way through a lane.
type call[S, C, E any] struct {
	ctx     context.Context
	command C
	settings

	busy  bool            // the lane runs rules for this call alone
	phase phase           // guarded by Repo.mu
	round *round[S, C, E] // guarded by Repo.mu; nil while it waits for one

	// The answer: written by whoever works on the lane, read by the caller once done is closed, or nil, if it is he.
	done     chan struct{}
	result   Result[S, E]
	err      error
	panicked *PanicError
	exited   bool // the rules called runtime.Goexit, as t.FailNow does
}

type phase int8

const (
	waiting  phase = iota // nothing of it is on its way to the store
	claimed               // its events may be on their way
	answered              // the answer is there
	left                  // its caller did not wait for the answer
)

// over tells whether nobody waits for the call's answer any more.
func (c *call[S, C, E]) over() bool { return c.phase == answered || c.phase == left }

// enter puts a call into the lane of its aggregate. If nobody works on that, it begins a round with the call and returns the lane:
// the caller is to work on it.
func (r *Repo[S, C, E]) enter(stream Stream, c *call[S, C, E]) (*lane[S, C, E], error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("es: execute on %s: repo is %w", stream, ErrClosed)
	}
	if l := r.lanes[stream.ID]; l != nil {
		c.done = make(chan struct{})
		l.waiting = append(l.waiting, c)
		return nil, nil
	}
	l := &lane[S, C, E]{}
	l.begin([]*call[S, C, E]{c})
	r.lanes[stream.ID] = l
	r.work.Add(1)
	return l, nil
}

// wait waits for the answer of a call, or until its context has ended.
func (r *Repo[S, C, E]) wait(c *call[S, C, E]) error {
	select {
	case <-c.done:
		return nil
	case <-c.ctx.Done():
		return r.leave(c)
	}
}

// leave takes out a call whose context has ended. Without an error there is an answer after all.
func (r *Repo[S, C, E]) leave(c *call[S, C, E]) error {
	r.mu.Lock()
	switch {
	case c.phase == waiting:
		c.phase = left
		c.round.less()
		r.mu.Unlock()
		return c.ctx.Err()
	case c.phase == claimed && c.round.live > 1:
		c.phase = left
		c.round.less()
		r.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, c.ctx.Err())
	}
	// Nobody else needs the round: its context has ended with this call's, and the store knows best how that went.
	if c.phase == claimed && c.round.cancel != nil {
		c.round.cancel()
	}
	r.mu.Unlock()
	<-c.done
	return nil
}

// less counts one call less and ends the round's context with the last one.
func (r *round[S, C, E]) less() {
	if r == nil {
		return
	}
	if r.live--; r.live == 0 && r.cancel != nil {
		r.cancel()
	}
}

// run works on a lane until nothing waits in it.
func (r *Repo[S, C, E]) run(stream Stream, l *lane[S, C, E]) {
	growStack()
	for r.finish(stream, l) {
	}
}

// finish works on the round of a lane, begins the next, and tells whether there is one.
func (r *Repo[S, C, E]) finish(stream Stream, l *lane[S, C, E]) (more bool) {
	finished := false
	defer func() {
		if !finished {
			r.exit(l) // the rules called runtime.Goexit, which has ended this goroutine
		}
		switch more = r.next(stream, l); {
		case !more:
			r.work.Done()
		case !finished:
			go r.run(stream, l)
		}
	}()
	if p := protect(func() { r.settle(l.round.ctx, stream, l.round.calls) }); p != nil {
		r.abort(l.round.calls, func(c *call[S, C, E]) { c.panicked = p }) // an event in the history that Evolve cannot take: nobody can be served
	}
	finished = true
	return more
}

// growStack makes the stack of a new goroutine as large as a round needs while there is next to nothing on it. Where it grows
// in the middle of one, every frame has to be moved: that took a quarter of the time of a command on a cached state, and a sixth of one on a state
// that has to be read, as decoding JSON goes deep.
//
//go:noinline
func growStack() {
	var room [12 << 10]byte
	runtime.KeepAlive(&room)
}

// exit ends the caller for whom the rules called runtime.Goexit, and lets the others in the round wait for the next.
// If the rules did so on history, all end.
func (r *Repo[S, C, E]) exit(l *lane[S, C, E]) {
	calls := l.round.calls
	if i := slices.IndexFunc(calls, func(c *call[S, C, E]) bool { return c.busy }); i >= 0 {
		others := slices.Concat(calls[:i], calls[i+1:])
		calls = calls[i : i+1]
		r.unclaim(others)
		r.mu.Lock()
		l.waiting = append(others, l.waiting...)
		r.mu.Unlock()
	}
	r.abort(calls, func(c *call[S, C, E]) { c.exited = true })
}

// next begins the next round with all that waits. It removes a lane in which nothing does.
func (r *Repo[S, C, E]) next(stream Stream, l *lane[S, C, E]) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := l.waiting[:0:len(l.waiting)]
	for _, c := range l.waiting {
		if c.phase == waiting {
			calls = append(calls, c)
		}
	}
	l.waiting = nil
	if len(calls) == 0 {
		delete(r.lanes, stream.ID)
		return false
	}
	l.begin(calls)
	return true
}

// begin makes a round of calls.
func (l *lane[S, C, E]) begin(calls []*call[S, C, E]) {
	l.round = &round[S, C, E]{ctx: calls[0].ctx, calls: calls, live: len(calls)}
	if len(calls) > 1 {
		l.round.ctx, l.round.cancel = context.WithCancel(context.WithoutCancel(calls[0].ctx))
	}
	for _, c := range calls {
		c.round = l.round
	}
}

// claim marks the calls as possibly on their way to the store, and leaves out those whose callers have left or have their answer.
func (r *Repo[S, C, E]) claim(calls []*call[S, C, E]) []*call[S, C, E] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(calls, (*call[S, C, E]).over) {
		calls = slices.DeleteFunc(slices.Clone(calls), (*call[S, C, E]).over)
	}
	for _, c := range calls {
		c.phase = claimed
	}
	return calls
}

// unclaim says of calls that nothing of them is on its way to the store, and nothing was written.
func (r *Repo[S, C, E]) unclaim(calls []*call[S, C, E]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range calls {
		if c.phase == claimed {
			c.phase = waiting
		}
	}
}

// answer hands the calls the answers that are in them.
func (r *Repo[S, C, E]) answer(calls ...*call[S, C, E]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range calls {
		if !c.over() {
			c.phase = answered
			c.round.less()
			if c.done != nil {
				close(c.done)
			}
		}
	}
}

func (r *Repo[S, C, E]) fail(calls []*call[S, C, E], err error) {
	for _, c := range calls {
		c.err = err
	}
	r.answer(calls...)
}

// abort answers the calls of a round that did not come to its end; set says how.
func (r *Repo[S, C, E]) abort(calls []*call[S, C, E], set func(*call[S, C, E])) {
	r.mu.Lock()
	for _, c := range calls {
		if c.phase != answered {
			set(c)
		}
	}
	r.mu.Unlock()
	r.answer(calls...)
}

// run runs the user's code for one call, to which a panic goes.
func (c *call[S, C, E]) run(f func()) {
	c.busy = true
	c.panicked = protect(f)
	c.busy = false // not reached if f calls runtime.Goexit
}

// protect runs the user's code and returns its panic.
func protect(f func()) (p *PanicError) {
	defer func() {
		if v := recover(); v != nil {
			p = &PanicError{v, debug.Stack()}
		}
	}()
	f()
	return nil
}
