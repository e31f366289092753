package es

import (
	"context"
	"errors"
	"fmt"
	"math"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/thalo-go/es/internal/digest"
)

// state is a state with its place in the log, and a digest of the record at that place.
type state[S any] struct {
	Versioned[S] // in a decision, Version is the number of records in the state
	digest       uint64
	ahead        int // events that were decided and are not yet written; -n as Position is the n-th of them

	// Of a decision only.
	upTo  Position  // the state is that at this position, which is not before Position
	scope *scope[S] // what the state began with
}

// derivesFrom reports whether s is of the history in which r is the record at the version of s.
func (s state[S]) derivesFrom(r Record) bool {
	return r.Version == s.Version && r.Position == s.Position && r.digest() == s.digest && (s.Time.IsZero() || s.Time.Equal(r.Time))
}

func (r Record) digest() uint64 { return digest.Of(r.Type, r.Data) }

// errDiverged indicates that a state does not match the history in the store, which was restored from an older copy.
var errDiverged = errors.New("state does not match the store's history")

// cache keeps the most recently used states. Cached states may be stale but never ahead of the store.
type cache[S any] struct {
	states *lru.Cache[string, state[S]] // nil if none are kept
}

func (c *cache[S]) init(size int) {
	if size > 0 {
		c.states, _ = lru.New[string, state[S]](size) // fails only for a size below 1
	}
}

func (c *cache[S]) get(id string) (state[S], bool) {
	if c.states == nil {
		return state[S]{}, false
	}
	return c.states.Get(id)
}

// put keeps a state unless the cache has a later one.
func (c *cache[S]) put(id string, s state[S]) {
	if c.states == nil || s.Version == 0 {
		return
	}
	if cached, found := c.states.Peek(id); !found || cached.Version < s.Version || cached.upTo < s.upTo {
		c.states.Add(id, s)
	}
}

func (c *cache[S]) purge() {
	if c.states != nil {
		c.states.Purge()
	}
}

func (c *cache[S]) drop(id string) {
	if c.states != nil {
		c.states.Remove(id)
	}
}

func (r *Repo[S, C, E]) load(ctx context.Context, on *subject[S]) (state[S], error) {
	return r.loadAt(ctx, on.stream, math.MaxInt64)
}

// refresh applies the events after a state.
func (r *Repo[S, C, E]) refresh(ctx context.Context, on *subject[S], base state[S]) (state[S], error) {
	next, err := r.fold(ctx, on.stream, base, math.MaxInt64, rereader{}, nil)
	switch {
	case errors.Is(err, errDiverged):
		r.core.log.Warn("es: cached state does not match the store's history, reading all events", "stream", on.stream.String(), "version", base.Version)
		r.core.cache.drop(on.key)
		return r.load(ctx, on)
	case isRedacted(err):
		r.core.log.Info("es: event of a cached state was redacted, reading all events", "stream", on.stream.String(), "version", base.Version)
		r.core.cache.drop(on.key)
		return r.load(ctx, on)
	}
	return next, err
}

// loadAt reads a state from the store, up to a version. It starts with a snapshot if there is a suitable one.
func (r *Repo[S, C, E]) loadAt(ctx context.Context, stream Stream, upTo Version) (state[S], error) {
	from, found := r.core.snapshots.load(ctx, stream, upTo)
	at, err := r.fold(ctx, stream, from, upTo, rereader{}, nil)
	if found && errors.Is(err, errDiverged) {
		r.core.log.Warn("es: snapshot does not match the store's history, reading all events", "stream", stream.String(), "version", from.Version)
		return r.foldAll(ctx, stream, upTo)
	}
	if isRedacted(err) {
		r.core.log.Info("es: event was redacted, reading all events", "stream", stream.String(), "version", from.Version)
		from = state[S]{}
		at, err = r.foldAll(ctx, stream, upTo)
	}
	if err == nil {
		r.core.snapshots.consider(stream, from.Version, at)
	}
	return at, err
}

// fold returns the state after the events that follow a state, up to a version. It calls see, if not nil, with each.
//
// It reads the last event of the state again and compares: histories only grow, unless the store was restored from an
// older copy.
func (r *Repo[S, C, E]) fold(ctx context.Context, stream Stream, at state[S], upTo Version, redacted rereader, see func(E)) (state[S], error) {
	if upTo <= 0 {
		return at, nil
	}
	verified := at.Version == 0
	var last Record
	for record, err := range r.core.store.Read(ctx, stream, max(at.Version-1, 0)) {
		if err != nil {
			return at, fmt.Errorf("es: load %s: %w", stream, err)
		}
		switch {
		case !verified:
			if verified = at.derivesFrom(record); !verified && record.Type == TypeRedacted {
				return at, &redactedError{stream: stream}
			} else if !verified {
				return at, errDiverged
			}
			at.Time = record.Time
		case record.Version != at.Version+1:
			return at, fmt.Errorf("es: load %s: version %d follows version %d: the history is damaged; run es verify", stream, record.Version, at.Version)
		default:
			if err := redacted.check(&record); err != nil {
				return at, err
			}
			if err := r.evolve(&at, record, see); err != nil {
				return at, err
			}
			last = record
		}
		if at.Version >= upTo {
			break
		}
	}
	if !verified {
		return at, errDiverged
	}
	if last.Version > 0 {
		at.digest = last.digest()
	}
	return at, nil
}

func (r *Repo[S, C, E]) evolve(at *state[S], record Record, see func(E)) error {
	event, kept, err := r.core.apply(at, record)
	if err != nil {
		return err
	}
	if kept && see != nil {
		see(event)
	}
	at.Version, at.Position, at.Time = record.Version, record.Position, record.Time
	return nil
}

// firstOutcome returns the original result of a command that the store has already.
func (r *Repo[S, C, E]) firstOutcome(ctx context.Context, on *subject[S], d *DuplicateError) (Result[S, E], error) {
	var events []E
	stream := on.stream
	at, err := r.loadAt(ctx, stream, d.First-1)
	if err == nil {
		at, err = r.fold(ctx, stream, at, d.Last, rereader{}, func(event E) { events = append(events, event) })
	}
	if isRedacted(err) && ctx.Err() == nil { // the event before its first one, since it was loaded
		return r.firstOutcome(ctx, on, d)
	}
	if err == nil && at.Version != d.Last {
		err = fmt.Errorf("es: execute on %s: %w, but the stream has only %d versions: the history is damaged; run es verify", stream, d, at.Version)
	}
	if err != nil {
		return Result[S, E]{}, err
	}
	first := result(on, at, events)
	first.Repeated = true
	return first, nil
}
