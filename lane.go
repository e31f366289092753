package es

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/thalo-go/es/internal/group"
)

// lane queues the commands on one aggregate.
//
// The first caller runs its own command. Commands that arrive while a round is running are queued and run in batches
// (rounds) by a background goroutine, so that one caller's cancellation or panic does not affect the others.
// core.mu guards it.
type lane[S, C, E any] struct {
	group.Group[*call[S, C, E]]
	key   string          // in core.lanes
	round *round[S, C, E] // the one that is running
}

// call is one Execute.
type call[S, C, E any] struct {
	group.Member
	ctx     context.Context
	command C
	on      subject[S]
	began   time.Duration // by core.clock
	settings

	running   bool // the rules run for this call
	refused   bool // the rules refused the command
	conflicts int  // attempts that ended in a conflict

	// Results. The goroutine that runs the round writes them. The caller reads them once it has run the round itself,
	// or Done is closed.
	result   Result[S, E]
	err      error
	panicked *PanicError
	exited   bool // the rules called runtime.Goexit, as t.FailNow does

	traced *tracedCall // nil without a Tracer
}

// run executes a call on an aggregate and returns when its results are set, or with an error if its caller gave up.
func (k *core[S, C, E]) run(c *call[S, C, E]) error {
	l, lead, err := k.enter(c)
	switch {
	case err != nil:
		return err
	case !lead:
		return k.wait(l, c)
	}
	if k.finish(l) {
		go k.drain(l)
	}
	return nil
}

// enter joins the lane of an aggregate. If the lane was idle, the caller leads: it must run the round of its call.
func (k *core[S, C, E]) enter(c *call[S, C, E]) (l *lane[S, C, E], lead bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, false, k.closedError()
	}
	key := c.on.lane()
	if l = k.lanes[key]; l == nil {
		l = &lane[S, C, E]{key: key}
		k.lanes[key] = l
		k.busy.Add(1)
	}
	if lead = l.Join(c); lead {
		l.round = k.newRound(l.Lead(c))
	}
	return l, lead, nil
}

// wait waits for the results of a call, or until its context is done.
func (k *core[S, C, E]) wait(l *lane[S, C, E], c *call[S, C, E]) error {
	select {
	case <-c.Done():
		return nil
	case <-c.ctx.Done():
	}
	k.mu.Lock()
	outcome := l.Leave(c)
	k.mu.Unlock()
	switch outcome {
	case group.Withdrawn:
		return c.ctx.Err()
	case group.Abandoned:
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, c.ctx.Err())
	}
	<-c.Done() // the round is cancelled, and the store knows how it ended
	return nil
}

// drain runs the rounds of a lane until its queue is empty.
func (k *core[S, C, E]) drain(l *lane[S, C, E]) {
	growStack()
	for k.finish(l) {
	}
}

// finish runs the round of a lane and begins the next. It reports whether there is one.
func (k *core[S, C, E]) finish(l *lane[S, C, E]) (more bool) {
	finished := false
	defer func() {
		if !finished {
			k.exit(l) // the rules called runtime.Goexit, which ends this goroutine
		}
		switch more = k.next(l); {
		case !more:
			k.busy.Done()
		case !finished:
			go k.drain(l)
		}
	}()
	if p := protect(l.round.settle); p != nil {
		k.logPanic(l.round.on.stream, p) // Evolve panicked on stored events, so no call of the round can be served
		l.round.abort(l.round.Calls, func(c *call[S, C, E]) { c.panicked = p })
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
func (k *core[S, C, E]) exit(l *lane[S, C, E]) {
	calls := l.round.Calls
	if i := slices.IndexFunc(calls, func(c *call[S, C, E]) bool { return c.running }); i >= 0 {
		others := slices.Concat(calls[:i], calls[i+1:])
		calls = calls[i : i+1]
		k.mu.Lock()
		l.PutBack(slices.DeleteFunc(others, group.IsAnswered)...)
		k.mu.Unlock()
	}
	l.round.abort(calls, func(c *call[S, C, E]) { c.exited = true })
}

// next begins a round of the queued calls. It removes the lane if there are none. Decisions on one query can begin with different states:
// each such state has rounds of its own.
func (k *core[S, C, E]) next(l *lane[S, C, E]) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !l.Next() {
		delete(k.lanes, l.key)
		return false
	}
	var fits func(c *call[S, C, E], first bool) bool
	if l.round.on.scope != nil {
		var begun *scope[S]
		fits = func(c *call[S, C, E], first bool) bool {
			if first {
				begun = c.on.scope
			}
			return c.on.scope.begins(begun)
		}
	}
	l.round = k.newRound(l.Take(fits))
	return true
}

// newRound returns the round of some calls. Its context is that of its only call, or ends when the last caller leaves.
func (k *core[S, C, E]) newRound(calls *group.Round[*call[S, C, E]]) *round[S, C, E] {
	ctx := calls.Calls[0].ctx
	if len(calls.Calls) > 1 {
		ctx = calls.Context(ctx)
	}
	return &round[S, C, E]{Round: calls, core: k, on: &calls.Calls[0].on, ctx: ctx}
}

// claim marks calls as possibly sent. It leaves out those that have an answer or were abandoned.
func (r *round[S, C, E]) claim(calls []*call[S, C, E]) []*call[S, C, E] {
	r.core.mu.Lock()
	defer r.core.mu.Unlock()
	switch stats := &r.core.stats; {
	case r.counted:
	case r.fresh:
		stats.CacheMisses++
	default:
		stats.CacheHits++
	}
	r.counted = true
	return group.Claim(calls)
}

// unclaim marks calls as not sent.
func (r *round[S, C, E]) unclaim(calls []*call[S, C, E]) {
	r.core.mu.Lock()
	defer r.core.mu.Unlock()
	group.Unclaim(calls)
}

// answer hands the results in the calls to their callers.
func (r *round[S, C, E]) answer(calls ...*call[S, C, E]) {
	r.core.mu.Lock()
	defer r.core.mu.Unlock()
	r.core.answer(calls)
}

// answer hands the results in calls to their callers and counts them. The lock must be held.
func (k *core[S, C, E]) answer(calls []*call[S, C, E]) {
	for _, c := range calls {
		if group.IsAnswered(c) {
			continue
		}
		k.stats.Commands++
		k.took.Add(k.clock() - c.began)
		switch {
		case c.result.Repeated:
			k.stats.Repeated++
		case c.refused:
			k.stats.Refused++
		}
	}
	group.Answer(calls...)
}

func (r *round[S, C, E]) fail(calls []*call[S, C, E], err error) {
	for _, c := range calls {
		c.err = err
	}
	r.answer(calls...)
}

// abort answers the calls of a round that did not complete; set sets the result.
func (r *round[S, C, E]) abort(calls []*call[S, C, E], set func(*call[S, C, E])) {
	r.core.mu.Lock()
	defer r.core.mu.Unlock()
	for _, c := range calls {
		if !group.IsAnswered(c) {
			set(c)
		}
	}
	r.core.answer(calls)
}

// guard runs code of the user for one call, which gets its panic.
func (k *core[S, C, E]) guard(stream Stream, c *call[S, C, E], f func()) {
	c.running = true
	c.panicked = protect(f)
	c.running = false // not reached if f calls runtime.Goexit
	if c.panicked != nil {
		k.logPanic(stream, c.panicked)
	}
}

func (k *core[S, C, E]) logPanic(stream Stream, p *PanicError) {
	k.log.Error("es: panic in the rules", "stream", stream.String(), "err", p, "stack", string(p.Stack))
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
