package es

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/thalo-go/es/internal/cause"
)

const defaultLimit = 100_000

// Boundary is what one decision rests on, and where its events go.
type Boundary[S any] struct {
	// Initial is the state before any event, such as the ids that the command names.
	Initial S

	// Query selects the records that Evolve folds: those that any of the filters matches. Each filter needs a tag.
	// There are 1 to [MaxConditions] filters.
	Query []Filter

	// Stream is where the events are appended, at any version.
	Stream Stream
}

// Decisions runs commands whose decision rests on tagged records of many streams, such as "a course has at most 30 students, and a
// student at most 5 courses". Where one stream is enough, use a [Repo].
//
// It works as a Repo does. It reads the records that the [Boundary] of a command selects, folds them, lets the rules decide, and appends
// the events. The append fails if a record that the boundary selects was written since it was read, and then the command is decided again.
// So two decisions that rest on each other's events never both take effect. States are cached by their query.
//
// Set the exported fields before the first use. All methods may be called concurrently. Any number of
// Decisions and Repos, also in several processes, may work on one log.
//
// Every event that a boundary should see needs its tags from every codec that writes it; see [Codec.Tag].
type Decisions[S, C, E any] struct {
	Config

	// Limit is the number of records that one decision may rest on. A command that rests on more is an error that wraps [ErrInvalid].
	// From a tenth of it, the log has a warning. 0 means 100,000, negative no limit.
	Limit int

	all      Log
	boundary func(command C) Boundary[S]
	core     core[S, C, E]
}

// NewDecisions returns Decisions over a log. The boundary must depend on the command alone.
// It panics if an argument is nil.
func NewDecisions[S, C, E any](log Log, rules Aggregate[S, C, E], codec *Codec[E], boundary func(command C) Boundary[S]) *Decisions[S, C, E] {
	switch {
	case log == nil:
		panic("es: NewDecisions: log is nil")
	case rules == nil:
		panic("es: NewDecisions: rules are nil")
	case codec == nil:
		panic("es: NewDecisions: codec is nil")
	case boundary == nil:
		panic("es: NewDecisions: boundary is nil")
	}
	d := &Decisions[S, C, E]{all: log, boundary: boundary}
	d.core = core[S, C, E]{store: log, rules: rules, codec: codec, name: "decisions are", history: d}
	return d
}

// Execute reads the records that the command's boundary selects, decides, and appends, again if such a record was written in between, up
// to [Config.Retries] times. Errors and panics are those of [Repo.Execute]. [ExpectVersion] is refused: a decision has no version.
//
// The Version of the result is 0. Its Position is that of the last event in the state.
func (d *Decisions[S, C, E]) Execute(ctx context.Context, command C, options ...ExecuteOption) (_ Result[S, E], err error) {
	defer cause.Set(ctx, &err)
	c := &call[S, C, E]{ctx: ctx, command: command}
	for _, option := range options {
		option(&c.settings)
	}
	if c.on, err = d.subject(command); err != nil {
		return Result[S, E]{}, err
	}
	if c.hasExpected {
		return Result[S, E]{}, noVersion(c.on.stream)
	}
	return d.core.execute(c)
}

func noVersion(stream Stream) error {
	return invalid("execute on %s: a decision over tags has no version: leave ExpectVersion out", stream)
}

// Load returns the state on which the command would be decided now. Its Version is 0.
func (d *Decisions[S, C, E]) Load(ctx context.Context, command C) (_ Versioned[S], err error) {
	defer cause.Set(ctx, &err)
	on, err := d.subject(command)
	if err != nil {
		return Versioned[S]{}, err
	}
	at, err := d.core.current(ctx, &on)
	if err != nil {
		return Versioned[S]{}, err
	}
	at.Version = 0
	return at.Versioned, nil
}

// Stats returns the counters since NewDecisions.
func (d *Decisions[S, C, E]) Stats() RepoStats { return d.core.count() }

// Close waits for commands in flight, at most until ctx is done, and then returns the error of ctx.
// Later commands fail with an error that wraps [ErrClosed]. It does not close the log. Close is optional.
func (d *Decisions[S, C, E]) Close(ctx context.Context) error { return d.core.close(ctx) }

// subject returns what a command is decided on.
func (d *Decisions[S, C, E]) subject(command C) (on subject[S], err error) {
	if err := d.core.begin(d.Config, func(*slog.Logger) error { return nil }); err != nil {
		return on, err
	}
	b := d.boundary(command)
	on.stream = b.Stream
	if on.scope, on.key, err = newScope(b); err == nil {
		on.scope.limit = Version(cmp.Or(d.Limit, defaultLimit))
	}
	return on, err
}

func (d *Decisions[S, C, E]) load(ctx context.Context, on *subject[S]) (state[S], error) {
	return d.read(ctx, on, on.scope.empty())
}

// refresh applies the records after a state.
func (d *Decisions[S, C, E]) refresh(ctx context.Context, on *subject[S], base state[S]) (state[S], error) {
	next, err := d.read(ctx, on, base)
	switch {
	case isRedacted(err):
		d.core.log.Info("es: event of a cached state was redacted, reading all events", "stream", on.stream.String(), "position", int64(base.Position))
		d.core.cache.drop(on.key)
		return d.load(ctx, on)
	case errors.Is(err, errDiverged):
		d.core.log.Warn("es: cached state does not match the store's history, reading all events", "stream", on.stream.String(), "position", int64(base.Position))
		d.core.cache.drop(on.key)
		return d.load(ctx, on)
	}
	return next, err
}

func (s *scope[S]) empty() state[S] {
	at := state[S]{scope: s}
	at.State = s.initial
	return at
}

// read returns the state at the head of the log, given an earlier one. The head is taken before the records are read, and later records are
// left out. So the state is that of one moment, and a condition on what follows it is exact.
func (d *Decisions[S, C, E]) read(ctx context.Context, on *subject[S], at state[S]) (state[S], error) {
	head, err := Head(ctx, d.all)
	if err != nil {
		return at, fmt.Errorf("es: load the decision on %s: %w", on.stream, err)
	}
	return d.fold(ctx, on, at, head)
}

// fold returns the state after the records that follow a state, up to a position.
//
// It reads the last record of the state again and compares: histories only grow, unless the store was restored from an older copy.
func (d *Decisions[S, C, E]) fold(ctx context.Context, on *subject[S], at state[S], upTo Position) (state[S], error) {
	verified := at.Position == 0
	empty, before := verified, at.Version
	var last Record
	for record, err := range selected(ctx, d.all, max(at.Position-1, 0), on.scope.query) {
		if err != nil {
			return at, fmt.Errorf("es: load the decision on %s: %w", on.stream, err)
		}
		if record.Position > upTo {
			break
		}
		if !verified {
			if verified = at.Position == record.Position && at.digest == record.digest() && (at.Time.IsZero() || at.Time.Equal(record.Time)); !verified {
				return at, errDiverged
			}
			at.Time = record.Time
			continue
		}
		if record.Type == TypeRedaction && !empty {
			return at, &redactedError{stream: record.Stream} // from the beginning, no record before it has its content
		}
		if err := d.evolve(&at, record); err != nil {
			return at, err
		}
		last = record
		if limit := on.scope.limit; limit > 0 && at.Version > limit {
			return at, on.scope.tooMany(on.stream)
		}
	}
	if !verified {
		return at, errDiverged
	}
	on.scope.warnOf(d.core.log, on.stream, before, at.Version)
	at.upTo = upTo
	if last.Position > 0 {
		at.digest = last.digest()
	}
	return at, nil
}

func (d *Decisions[S, C, E]) evolve(at *state[S], record Record) error {
	if _, _, err := d.core.apply(at, record); err != nil {
		return err
	}
	at.Version++
	at.Position, at.Time = record.Position, record.Time
	return nil
}

// firstOutcome returns the original result of a command that the log has already.
func (d *Decisions[S, C, E]) firstOutcome(ctx context.Context, on *subject[S], first *DuplicateError) (Result[S, E], error) {
	var events []E
	var version Version
	var last Position
	for record, err := range d.all.Read(ctx, on.stream, first.First-1) {
		if err != nil {
			return Result[S, E]{}, fmt.Errorf("es: load %s: %w", on.stream, err)
		}
		event, err := d.core.codec.Decode(record)
		switch {
		case errors.Is(err, ErrRetired):
		case err != nil:
			return Result[S, E]{}, err
		default:
			events = append(events, event)
		}
		if version, last = record.Version, record.Position; version == first.Last {
			break
		}
	}
	if version != first.Last {
		return Result[S, E]{}, fmt.Errorf("es: execute on %s: %w, but the stream has only %d versions: the history is damaged; run es verify", on.stream, first, version)
	}
	at, err := d.fold(ctx, on, on.scope.empty(), last)
	if err != nil {
		return Result[S, E]{}, err
	}
	outcome := result(on, at, events)
	outcome.Repeated = true
	return outcome, nil
}
