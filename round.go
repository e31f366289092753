package es

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/thalo-go/es/internal/group"
)

// round executes a group of commands on one aggregate. It decides them one after the other and appends their events
// together. This file is the algorithm of a Repo: load, decide, append, and again on conflict.
type round[S, C, E any] struct {
	*group.Round[*call[S, C, E]]
	repo   *Repo[S, C, E]
	stream Stream
	ctx    context.Context // done when the contexts of all callers are

	open   []*call[S, C, E] // calls without an answer
	base   state[S]         // the state on which the next plan is decided
	fresh  bool             // base was read after the round began
	pauses int              // conflicts since the last plan that was written
}

// settle answers every call of the round. It returns when each has its answer or was abandoned by its caller.
func (r *round[S, C, E]) settle() {
	r.open = r.Calls
	base, cached := r.repo.cache.get(r.stream.ID)
	if !cached {
		var err error
		if base, err = r.repo.load(r.ctx, r.stream, math.MaxInt64); err != nil {
			r.fail(r.open, err)
			return
		}
		r.repo.cache.put(r.stream.ID, base)
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
		a, next, ok := r.decide(p.end, c)
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
		p.calls = append(p.calls, c)
		p.appends = append(p.appends, a)
		p.sent = append(p.sent, c)
		p.end = next
	}
	return p
}

// decide lets the rules decide on one command and sets its result. It is ok if there is something to append.
func (r *round[S, C, E]) decide(at state[S], c *call[S, C, E]) (a Append, next state[S], ok bool) {
	c.err = nil
	c.result = result[S, E](at, nil)
	if !c.notAfter.IsZero() && time.Now().After(c.notAfter) {
		c.err = fmt.Errorf("es: execute on %s: %w: it came after %s", r.stream, ErrExpired, c.notAfter.Format(time.RFC3339Nano))
		return a, at, false
	}
	if c.hasExpected && c.expected != at.Version {
		c.err = fmt.Errorf("es: execute on %s: %w", r.stream, &ConflictError{Stream: r.stream, Expected: c.expected})
		return a, at, false
	}
	next = at
	r.guard(c, func() {
		var events []E
		if events, c.err = r.repo.rules.Decide(at.State, c.command); c.err != nil || len(events) == 0 {
			return
		}
		a = Append{Stream: r.stream, Expected: at.Version, Command: c.commandID, Events: make([]Record, len(events))}
		if events, c.err = r.evolve(&next, events, a.Events, c.meta); c.err != nil {
			return
		}
		if c.err = CheckAppends(a); c.err != nil {
			return
		}
		next.Time = time.Time{} // not known until it is read
		next.digest = a.Events[len(a.Events)-1].digest()
		c.result = result(next, events)
		ok = true
	})
	return a, next, ok
}

// evolve encodes new events into records and applies them to a state. It returns the events as others will load them:
// an event that need not survive encoding is decoded again, so that a cached state equals a loaded one.
func (r *round[S, C, E]) evolve(next *state[S], events []E, records []Record, meta map[string]string) ([]E, error) {
	stored, cloned := events, false
	for i, event := range events {
		record, exact, err := r.repo.codec.encodeExact(event)
		if err != nil {
			return nil, err
		}
		record.Meta = merge(record.Meta, meta)
		records[i] = record
		next.Version++
		if !exact {
			if !cloned {
				stored, cloned = slices.Clone(events[:i]), true
			}
			record.Stream, record.Version = r.stream, next.Version
			if event, err = r.repo.codec.Decode(record); errors.Is(err, ErrRetired) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		if cloned {
			stored = append(stored, event)
		}
		next.State = r.repo.rules.Evolve(next.State, event)
	}
	return stored, nil
}

// result returns the outcome of a command. It has no time, so that a repeated command has the result of the first one.
func result[S, E any](at state[S], events []E) Result[S, E] {
	at.Time = time.Time{}
	return Result[S, E]{Versioned: at.Versioned, Events: events}
}

func merge(meta, more map[string]string) map[string]string {
	if len(meta) == 0 {
		return more
	}
	meta = maps.Clone(meta)
	maps.Copy(meta, more)
	return meta
}

// append writes a plan, everything or nothing, and sets the position of each result.
func (r *round[S, C, E]) append(p *plan[S, C, E]) error {
	if len(p.appends) > 0 {
		last, err := r.repo.store.Append(r.ctx, p.appends...)
		if err != nil {
			return err
		}
		p.end.Position = last
	}
	for _, c := range p.calls {
		c.result.Position = r.base.Position
		if c.result.Version > r.base.Version { // the records of one call of Append are consecutive
			c.result.Position = p.end.Position - Position(p.end.Version-c.result.Version)
		}
	}
	return nil
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
	r.repo.snapshots.consider(r.stream, r.base.Version, p.end)
	r.base, r.fresh, r.open, r.pauses = p.end, false, p.later, 0
	r.repo.cache.put(r.stream.ID, r.base)
}

// confirm asks the store whether it has a command that was refused or had nothing to do.
// A command that took effect the first time is usually refused the second time.
func (r *round[S, C, E]) confirm(c *call[S, C, E]) {
	_, err := r.repo.store.Append(r.ctx, Append{Stream: r.stream, Expected: AnyVersion, Command: c.commandID})
	var duplicate *DuplicateError
	if errors.As(err, &duplicate) {
		r.recall(c, duplicate)
	} else if err != nil {
		c.err = fmt.Errorf("es: execute on %s: %w", r.stream, err)
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
	r.guard(c, func() { c.result, c.err = r.repo.firstOutcome(r.ctx, r.stream, d) })
}

// failed answers the calls of an append that failed. The others were not confirmed by it and are planned again.
func (r *round[S, C, E]) failed(p *plan[S, C, E], err error) {
	r.repo.cache.drop(r.stream.ID)
	r.fail(p.sent, fmt.Errorf("es: execute on %s: %w", r.stream, err))
	r.open = slices.Concat(p.settled, p.later)
	r.unclaim(r.open)
}

// retry prepares another attempt after a conflict: it pauses and reads what the other writer appended.
// Each call that was sent has one attempt less. Those that have none left fail.
func (r *round[S, C, E]) retry(p *plan[S, C, E], conflict error) (more bool) {
	r.repo.cache.drop(r.stream.ID)
	for _, c := range p.sent {
		c.conflicts++
	}
	var open []*call[S, C, E]
	for _, c := range r.open {
		if c.conflicts > max(0, cmp.Or(r.repo.Retries, defaultRetries)) {
			c.err = fmt.Errorf("es: execute on %s: gave up after %d attempts: %w", r.stream, c.conflicts, conflict)
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
		r.fail(r.open, fmt.Errorf("es: execute on %s: %w", r.stream, err))
		return false
	}
	if errors.Is(conflict, ErrRewound) {
		r.repo.cache.purge() // other cached states may be of the lost history too
		return r.rebase(r.repo.load(r.ctx, r.stream, math.MaxInt64))
	}
	return r.refresh()
}

// refresh continues on the state that the store has now.
func (r *round[S, C, E]) refresh() (more bool) {
	return r.rebase(r.repo.refresh(r.ctx, r.stream, r.base))
}

func (r *round[S, C, E]) rebase(base state[S], err error) (more bool) {
	if err != nil {
		r.fail(r.open, err)
		return false
	}
	r.base, r.fresh = base, true
	r.repo.cache.put(r.stream.ID, base)
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
