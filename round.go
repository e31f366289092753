package es

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/thalo-go/es/internal/batch"
	"github.com/thalo-go/es/internal/group"
)

// round executes a group of commands on one aggregate, or on one query. It decides them one after the other and appends their events
// together. This file is the algorithm of Repo and Decisions: load, decide, append, and again on conflict.
type round[S, C, E any] struct {
	*group.Round[*call[S, C, E]]
	core *core[S, C, E]
	on   *subject[S]
	ctx  context.Context // done when the contexts of all callers are

	open    []*call[S, C, E] // calls without an answer
	base    state[S]         // the state on which the next plan is decided
	fresh   bool             // base was read after the round began
	counted bool             // in the hits or misses of the cache
	pauses  int              // conflicts since the last plan that was written
}

// settle answers every call of the round. It returns when each has its answer or was abandoned by its caller.
func (r *round[S, C, E]) settle() {
	r.open = r.Calls
	if r.core.tracer != nil {
		r.queued()
	}
	base, cached, err := r.core.start(r.ctx, r.on)
	if err != nil {
		r.fail(r.open, err)
		return
	}
	r.base, r.fresh = base, !cached
	for r.step() {
	}
}

// step plans the open calls and appends the plan once. It reports whether there is more to do.
func (r *round[S, C, E]) step() (more bool) {
	if r.open = r.claim(r.open); len(r.open) == 0 {
		return false
	}
	p := r.plan()
	if len(p.appends) == 0 && !r.fresh {
		r.unclaim(r.open)
		return r.refresh() // a refusal or no-op must not be based on a stale state
	}
	var conflict *ConflictError
	var duplicate *DuplicateError
	err := r.append(&p)
	switch {
	case err == nil:
		r.written(&p)
	case errors.As(err, &duplicate):
		r.repeated(&p, duplicate)
	case errors.As(err, &conflict):
		return r.retry(&p, err)
	default:
		r.failed(&p, err)
	}
	return true
}

// plan is the outcome of deciding calls one after the other, each on the state after the one before.
type plan[S, C, E any] struct {
	calls   []*call[S, C, E] // the calls decided, in order
	appends []Append         // what they write
	sent    []*call[S, C, E] // the call of each append
	settled []*call[S, C, E] // calls with nothing to write: refusals, no-ops and panics
	later   []*call[S, C, E] // calls that must be planned again
	end     state[S]         // the state after all of them
}

func (r *round[S, C, E]) plan() plan[S, C, E] {
	p := plan[S, C, E]{end: r.base}
	size, events := 0, 0 // of all appends, in bytes and events
	var ids map[string]bool
	for i, c := range r.open {
		if c.hasCommandID && ids[c.commandID] {
			p.later = append(p.later, c) // a duplicate: answered from the first one after that is written
			continue
		}
		a, next, ok := r.core.decide(r.on, p.end, c)
		if !ok {
			p.calls = append(p.calls, c)
			p.settled = append(p.settled, c)
			continue
		}
		bytes, _ := a.check()
		if size, events = size+bytes, events+len(a.Events); len(p.appends) > 0 && (size > MaxBytes || events > MaxEvents) {
			p.later = append(p.later, r.open[i:]...)
			break
		}
		if c.hasCommandID {
			if ids == nil {
				ids = make(map[string]bool)
			}
			ids[c.commandID] = true
		}
		if len(p.appends) > 0 {
			a.Unless = Condition{} // that of the first append is about all: either everything is written, or nothing
		}
		p.calls = append(p.calls, c)
		p.appends = append(p.appends, a)
		p.sent = append(p.sent, c)
		p.end = next
	}
	return p
}

// append writes a plan, everything or nothing, and sets the position of each result.
func (r *round[S, C, E]) append(p *plan[S, C, E]) error {
	last, err := r.send(p)
	if err != nil || len(p.appends) == 0 {
		return err
	}
	before := last - Position(p.end.ahead) // the records of one call of Append are consecutive
	p.end.place(before, last)
	for _, c := range p.calls {
		c.result.Position = c.result.Position.place(before)
	}
	return nil
}

// send hands a plan to the store. Without appends there is nothing to do.
func (r *round[S, C, E]) send(p *plan[S, C, E]) (last Position, err error) {
	ctx := r.ctx
	var info *batch.Info
	if r.core.tracer != nil {
		ctx, info = batch.Ask(ctx)
	}
	if len(p.appends) > 0 {
		last, err = r.core.store.Append(ctx, p.appends...)
	}
	if info != nil {
		p.observed(info)
	}
	return last, err
}

// written answers the calls of a plan that was appended, and continues from its end.
func (r *round[S, C, E]) written(p *plan[S, C, E]) {
	r.answer(p.sent...) // these are done, whatever happens to the others
	for _, c := range p.settled {
		if c.hasCommandID && c.panicked == nil {
			r.confirm(c)
		}
	}
	r.answer(p.settled...)
	r.core.snapshots.consider(r.on.stream, r.base.Version, p.end)
	r.base, r.fresh, r.open, r.pauses = p.end, false, p.later, 0
	r.core.cache.put(r.on.key, r.base)
}

// confirm asks the store whether it has a command that was refused or had nothing to do.
// A command that took effect the first time is usually refused the second time.
func (r *round[S, C, E]) confirm(c *call[S, C, E]) {
	_, err := r.core.store.Append(r.ctx, Append{Stream: r.on.stream, Expected: AnyVersion, Command: c.commandID})
	var duplicate *DuplicateError
	if errors.As(err, &duplicate) {
		r.recall(c, duplicate)
	} else if err != nil {
		c.err = fmt.Errorf("es: execute on %s: %w", r.on.stream, err)
	}
}

// repeated answers the call whose command the store has already. The others are planned again.
func (r *round[S, C, E]) repeated(p *plan[S, C, E], duplicate *DuplicateError) {
	i := slices.IndexFunc(p.sent, func(c *call[S, C, E]) bool { return c.hasCommandID && c.commandID == duplicate.Command })
	if i < 0 {
		r.failed(p, fmt.Errorf("%w, which was not sent: the store breaks its contract", duplicate))
		return
	}
	first := p.sent[i]
	r.recall(first, duplicate)
	r.answer(first)
	others := slices.DeleteFunc(p.calls, func(c *call[S, C, E]) bool { return c == first })
	r.open = slices.Concat(others, p.later)
	r.unclaim(r.open)
}

// recall sets the result of a call to the outcome of the first time.
func (r *round[S, C, E]) recall(c *call[S, C, E], d *DuplicateError) {
	r.core.guard(r.on.stream, c, func() { c.result, c.err = r.core.history.firstOutcome(r.ctx, r.on, d) })
}

// failed answers the calls of an append that failed. The others were not confirmed by it and are planned again.
func (r *round[S, C, E]) failed(p *plan[S, C, E], err error) {
	r.core.cache.drop(r.on.key)
	r.fail(p.sent, fmt.Errorf("es: execute on %s: %w", r.on.stream, err))
	r.open = slices.Concat(p.settled, p.later)
	r.unclaim(r.open)
}

// retry prepares another attempt after a conflict: it pauses and reads what the other writer appended.
// Each call that was sent has one attempt less. Those that have none left fail.
func (r *round[S, C, E]) retry(p *plan[S, C, E], conflict error) (more bool) {
	r.core.cache.drop(r.on.key)
	for _, c := range p.sent {
		c.conflicts++
	}
	r.core.mu.Lock()
	r.core.stats.Retries++
	r.core.mu.Unlock()
	var open []*call[S, C, E]
	for _, c := range r.open {
		if c.conflicts > r.core.retries {
			c.err = fmt.Errorf("es: execute on %s: gave up after %d attempts: %w", r.on.stream, c.conflicts, conflict)
			r.answer(c)
		} else {
			open = append(open, c)
		}
	}
	if r.open = open; len(r.open) == 0 {
		return false
	}
	r.unclaim(r.open)
	r.pauses++
	if err := pause(r.ctx, r.pauses); err != nil {
		r.fail(r.open, fmt.Errorf("es: execute on %s: %w", r.on.stream, err))
		return false
	}
	if errors.Is(conflict, ErrRewound) {
		r.core.cache.purge() // other cached states may be of the lost history too
		return r.rebase(r.core.history.load(r.ctx, r.on))
	}
	return r.refresh()
}

// refresh continues on the state that the store has now.
func (r *round[S, C, E]) refresh() (more bool) {
	return r.rebase(r.core.history.refresh(r.ctx, r.on, r.base))
}

func (r *round[S, C, E]) rebase(base state[S], err error) (more bool) {
	if err != nil {
		r.fail(r.open, err)
		return false
	}
	r.base, r.fresh = base, true
	r.core.cache.put(r.on.key, base)
	return true
}

// pause waits before an attempt: not at all before the first retry, then a random time of up to 1 ms, doubled with each
// further attempt up to 128 ms. This is the "full jitter" of Brooker, "Exponential Backoff And Jitter" (AWS, 2015).
func pause(ctx context.Context, attempt int) error {
	if attempt < 2 {
		return ctx.Err() // usually the other writer is done
	}
	limit := time.Millisecond << min(attempt-2, 7)
	timer := time.NewTimer(rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
