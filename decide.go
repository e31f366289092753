package es

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// decide lets the rules decide on one command and sets its result. It is ok if there is something to append.
func (k *core[S, C, E]) decide(on *subject[S], at state[S], c *call[S, C, E]) (a Append, next state[S], ok bool) {
	c.err, c.refused = nil, false
	c.result = result[S, E](on, at, nil)
	if !c.notAfter.IsZero() && time.Now().After(c.notAfter) {
		c.err = fmt.Errorf("es: execute on %s: %w: it came after %s", on.stream, ErrExpired, c.notAfter.Format(time.RFC3339Nano))
		return a, at, false
	}
	if c.hasExpected && c.expected != at.Version {
		c.err = fmt.Errorf("es: execute on %s: %w", on.stream, &ConflictError{Stream: on.stream, Expected: c.expected})
		return a, at, false
	}
	if s := on.scope; s != nil && s.limit > 0 && at.Version > s.limit {
		c.err = s.tooMany(on.stream)
		return a, at, false
	}
	next = at
	k.guard(on.stream, c, func() {
		var events []E
		if events, c.err = k.rules.Decide(at.State, c.command); c.err != nil || len(events) == 0 {
			c.refused = c.err != nil
			return
		}
		a = on.question(at)
		a.Command, a.Events = c.commandID, make([]Record, len(events))
		if events, c.err = k.evolve(on, &next, events, a.Events, c.meta); c.err != nil {
			return
		}
		if c.err = CheckAppends(a); c.err != nil {
			return
		}
		c.result = result(on, next, events)
		ok = true
		if s := on.scope; s != nil {
			s.warnOf(k.log, on.stream, at.Version, next.Version)
		}
	})
	return a, next, ok
}

// question returns an append without events, which asks whether a state is still the current one.
func (s *subject[S]) question(at state[S]) Append {
	if s.scope != nil {
		return Append{Stream: s.stream, Expected: AnyVersion, Unless: Condition{Match: s.scope.query, After: at.upTo}}
	}
	return Append{Stream: s.stream, Expected: at.Version}
}

// evolve encodes new events into records and applies them to a state. It returns the events as others will load them:
// an event that need not survive encoding is decoded again, so that a cached state equals a loaded one.
func (k *core[S, C, E]) evolve(on *subject[S], next *state[S], events []E, records []Record, meta map[string]string) ([]E, error) {
	stored, cloned := events, false
	last := -1 // the last record that is in the state
	for i, event := range events {
		record, exact, err := k.codec.encodeExact(event)
		if err != nil {
			return nil, err
		}
		record.Meta = merge(record.Meta, meta)
		records[i] = record
		record.Stream = on.stream
		next.ahead++
		folds := on.scope == nil || on.scope.match(record)
		if folds {
			last = i
			next.Version++
			next.Position = -Position(next.ahead) // until it is placed
			next.Time = time.Time{}               // not known until it is read
		}
		if !exact {
			if !cloned {
				stored, cloned = slices.Clone(events[:i]), true
			}
			if on.scope == nil {
				record.Version = next.Version
			}
			if event, err = k.codec.Decode(record); errors.Is(err, ErrRetired) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		if cloned {
			stored = append(stored, event)
		}
		if folds {
			next.State = k.rules.Evolve(next.State, event)
		}
	}
	if last >= 0 {
		next.digest = records[last].digest()
	}
	return stored, nil
}

// place returns the position of the n-th record of an append for -n, given the position before the first. Other positions are returned as they are.
func (p Position) place(before Position) Position {
	if p < 0 {
		return before - p
	}
	return p
}

// place sets the positions in a state after an append whose records end at a position.
func (s *state[S]) place(before, last Position) {
	s.Position = s.Position.place(before)
	s.ahead = 0
	if s.scope != nil {
		s.upTo = last
	}
}

// result returns the outcome of a command. It has no time, so that a repeated command has the result of the first one.
func result[S, E any](on *subject[S], at state[S], events []E) Result[S, E] {
	at.Time = time.Time{}
	if on.scope != nil {
		at.Version = 0
	}
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
