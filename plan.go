package es

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"
)

// A plan is what the calls of a round come to, decided one after the other from one state.
type plan[S, C, E any] struct {
	base     versioned[S]
	calls    []*call[S, C, E] // those planned, in order
	appends  []Append         // what they have to write
	sent     []*call[S, C, E] // whose each append is
	answered []*call[S, C, E] // those with nothing to write: refusals, no-ops and panics
	later    []*call[S, C, E] // those for which another plan must be made
	end      versioned[S]     // the state after it all
}

func (r *Repo[S, C, E]) plan(stream Stream, base versioned[S], calls []*call[S, C, E]) plan[S, C, E] {
	p := plan[S, C, E]{base: base, end: base}
	size := 0 // bytes
	events := 0
	var ids map[string]bool
	for i, c := range calls {
		if c.hasCommandID && ids[c.commandID] {
			p.later = append(p.later, c) // the same command twice: the first one's events are the answer to the second
			continue
		}
		a, next, ok := r.decide(stream, p.end, c)
		if !ok {
			p.calls = append(p.calls, c)
			p.answered = append(p.answered, c)
			continue
		}
		bytes, _ := a.check()
		if size, events = size+bytes, events+len(a.Events); len(p.appends) > 0 && (size > MaxBytes || events > MaxEvents) {
			p.later = append(p.later, calls[i:]...)
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

// decide lets the rules decide on one command and fills in its result. It is ok if there is something to append.
func (r *Repo[S, C, E]) decide(stream Stream, at versioned[S], c *call[S, C, E]) (a Append, next versioned[S], ok bool) {
	c.err = nil
	c.result = Result[S, E]{State: at.state, Version: at.version}
	if c.hasExpected && c.expected != at.version {
		c.err = fmt.Errorf("es: execute on %s: %w", stream, &ConflictError{stream, c.expected})
		return a, at, false
	}
	next = at
	c.run(func() {
		var events []E
		if events, c.err = r.rules.Decide(at.state, c.command); c.err != nil || len(events) == 0 {
			return
		}
		a = Append{Stream: stream, Expected: at.version, Command: c.commandID, Events: make([]Record, len(events))}
		for i, event := range events {
			if a.Events[i], c.err = r.codec.Encode(event); c.err != nil {
				return
			}
			a.Events[i].Meta = with(a.Events[i].Meta, c.meta)
			next.state = r.rules.Evolve(next.state, event)
		}
		if c.err = CheckAppends(a); c.err != nil {
			return
		}
		next.version += Version(len(events))
		next.digest = a.Events[len(events)-1].digest()
		c.result = Result[S, E]{State: next.state, Version: next.version, Events: events}
		ok = true
	})
	return a, next, ok
}

func with(meta, more map[string]string) map[string]string {
	if len(meta) == 0 {
		return more
	}
	meta = maps.Clone(meta)
	maps.Copy(meta, more)
	return meta
}

// append writes a plan, all or nothing, and gives each result its position.
func (r *Repo[S, C, E]) append(ctx context.Context, p *plan[S, C, E]) error {
	at := p.base.position
	if len(p.appends) > 0 {
		last, err := r.store.Append(ctx, p.appends...)
		if err != nil {
			return err
		}
		p.end.position, p.end.time = last, time.Time{}
		at = last - Position(p.end.version-p.base.version)
	}
	for _, c := range p.calls {
		at += Position(len(c.result.Events))
		c.result.Position = at
		if len(c.result.Events) == 0 && c.result.Version == p.base.version {
			c.result.Position = p.base.position
		}
	}
	return nil
}

// confirm answers the calls of a plan that is in the store.
func (r *Repo[S, C, E]) confirm(ctx context.Context, stream Stream, p *plan[S, C, E]) {
	r.answer(p.sent...) // whatever becomes of the others, these are done
	for _, c := range p.answered {
		if !c.hasCommandID || c.panicked != nil {
			continue
		}
		// A command that took effect the first time is likely to be refused the second time.
		_, err := r.store.Append(ctx, Append{Stream: stream, Expected: AnyVersion, Command: c.commandID})
		var duplicate *DuplicateError
		if errors.As(err, &duplicate) {
			r.recall(ctx, stream, c, duplicate)
		} else if err != nil {
			c.err = fmt.Errorf("es: execute on %s: %w", stream, err)
		}
	}
	r.answer(p.answered...)
}

// repeat answers the call whose command is in the store already, and returns all the others.
func (r *Repo[S, C, E]) repeat(ctx context.Context, stream Stream, p *plan[S, C, E], duplicate *DuplicateError) []*call[S, C, E] {
	var others []*call[S, C, E]
	for _, c := range p.calls {
		if c.hasCommandID && c.commandID == duplicate.Command {
			r.recall(ctx, stream, c, duplicate)
			r.answer(c)
		} else {
			others = append(others, c)
		}
	}
	return append(others, p.later...)
}

// recall sets the answer of a call to what its command led to the first time.
func (r *Repo[S, C, E]) recall(ctx context.Context, stream Stream, c *call[S, C, E], d *DuplicateError) {
	c.run(func() { c.result, c.err = r.first(ctx, stream, d) })
}

// first returns what a command led to the first time.
func (r *Repo[S, C, E]) first(ctx context.Context, stream Stream, d *DuplicateError) (Result[S, E], error) {
	var events []E
	at, err := r.load(ctx, stream, d.First-1)
	if err == nil {
		at, err = r.fold(ctx, stream, at, d.Last, func(event E) { events = append(events, event) })
	}
	if err == nil && at.version != d.Last {
		err = fmt.Errorf("es: execute on %s: %w, but the store has only %d versions: its history is damaged; verify it", stream, d, at.version)
	}
	if err != nil {
		return Result[S, E]{}, err
	}
	return Result[S, E]{State: at.state, Version: at.version, Position: at.position, Events: events}, nil
}
