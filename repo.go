package es

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es/internal/digest"
)

// Defaults of a [Repo].
const (
	DefaultRetries       = 16
	DefaultCacheSize     = 10_000
	DefaultSnapshotEvery = 100
)

// A Repo runs commands on the aggregates of one kind. It is the one algorithm of the toolkit: load, decide, append, again on conflict.
//
// Commands that wait on the same aggregate in one Repo share a lane: they are decided one after the other, each on the state that
// the ones before produced, and appended together. States are cached, so that a command on a cached state reads nothing.
//
// The exported fields are settings, to be made before the first use. The methods may be called from many goroutines,
// and any number of Repos, also in several processes, may work on the same aggregates.
type Repo[S, C, E any] struct {
	// Retries is how often a command is decided again when another writer was faster, with a growing jittered pause in between.
	// 0 means [DefaultRetries], a negative number none.
	Retries int

	// CacheSize is how many states are kept, the least recently used going first. 0 means [DefaultCacheSize], a negative number none.
	CacheSize int

	// Snapshots, if set, keeps states so that loading a long stream need not read all of it. It costs the callers nothing:
	// snapshots are taken behind their backs, and one that is missing, broken or of another schema is read past.
	// The state is kept as JSON, which must bring back an equal state: it is tried, and where it fails no snapshot is kept.
	Snapshots Snapshots

	// SnapshotEvery is the number of events after which a new snapshot is taken. 0 means [DefaultSnapshotEvery].
	SnapshotEvery int

	// SnapshotSchema numbers the layout of S and the meaning of Evolve. Raise it whenever either changes:
	// snapshots of another number are not used.
	SnapshotSchema int

	// Logger hears of what costs time but has no caller to tell, such as a broken snapshot. nil means nobody does.
	Logger *slog.Logger

	store     Store
	kind      string
	rules     Aggregate[S, C, E]
	codec     Codec[E]
	init      sync.Once
	cache     cache[S]
	snapshots snapshotter[S]

	mu     sync.Mutex // guards lanes, the calls in them, and closed
	lanes  map[string]*lane[S, C, E]
	closed bool
	work   sync.WaitGroup // lanes under way
}

// NewRepo returns a Repo for the aggregates of one kind, such as "account".
func NewRepo[S, C, E any](store Store, kind string, rules Aggregate[S, C, E], codec Codec[E]) *Repo[S, C, E] {
	return &Repo[S, C, E]{store: store, kind: kind, rules: rules, codec: codec}
}

// A Result is what a command led to.
type Result[S, E any] struct {
	// State is the state after the command. It is shared with the Repo and its other callers: read it, do not change what it points to.
	State S

	// Version is that of the state.
	Version Version

	// Position is that of the last event in the state: a reader that has come so far sees what the command did.
	Position Position

	// Events are what the command caused; none if there was nothing to do.
	Events []E
}

// Execute runs a command on the aggregate with the given id: it loads the state, lets the rules decide, and appends the events.
// When another writer was faster it decides again on the new state, up to [Repo.Retries] times.
//
// A refusal is the error of Decide, as it is. It was decided on a state that the store had after Execute was called, not on a stale one.
// Other errors: [*ConflictError] if the retries ran out, or at once with [ExpectVersion]; one that wraps [ErrInvalid] for input that no store takes;
// one that wraps [ErrUnknownOutcome] if the context ended, or the store broke, at a moment when the events may or may not have been written;
// with any other, the context's among them, nothing was written.
//
// A panic in Decide or Evolve comes out of Execute as a [*PanicError]; other callers do not notice.
func (r *Repo[S, C, E]) Execute(ctx context.Context, id string, command C, options ...ExecuteOption) (Result[S, E], error) {
	c := &call[S, C, E]{ctx: ctx, command: command}
	for _, option := range options {
		option(&c.settings)
	}
	stream := Stream{r.kind, id}
	if err := stream.Check(); err != nil {
		return Result[S, E]{}, err
	}
	if c.hasCommandID {
		if bad := badName(c.commandID, MaxCommand); bad != "" {
			return Result[S, E]{}, invalid("command id %.80q for %s %s", c.commandID, stream, bad)
		}
	}
	if c.hasExpected && c.expected < 0 {
		return Result[S, E]{}, invalid("expected version %d of %s: give 0 or more, or leave ExpectVersion out", c.expected, stream)
	}
	if err := ctx.Err(); err != nil {
		return Result[S, E]{}, err
	}
	r.init.Do(r.start)
	lane, err := r.enter(stream, c)
	if err != nil {
		return Result[S, E]{}, err
	}
	if lane != nil {
		if r.finish(stream, lane) {
			go r.run(stream, lane)
		}
	} else if err := r.wait(c); err != nil {
		return Result[S, E]{}, fmt.Errorf("es: execute on %s: %w", stream, err)
	}
	if c.panicked != nil {
		panic(c.panicked)
	}
	if c.exited {
		runtime.Goexit()
	}
	if c.err != nil {
		return Result[S, E]{}, c.err
	}
	return c.result, nil
}

// Load returns the state of an aggregate as the store has it now, and its version: the zero S and 0 if it has no events.
// The state is shared: read it, do not change what it points to.
func (r *Repo[S, C, E]) Load(ctx context.Context, id string) (S, Version, error) {
	r.init.Do(r.start)
	stream := Stream{r.kind, id}
	base, err := r.current(ctx, stream)
	if err != nil {
		var none S
		return none, 0, err
	}
	r.cache.put(id, base)
	return base.state, base.version, nil
}

// LoadAt returns the state that an aggregate had at a version. A version that it has not reached makes an error that wraps [ErrInvalid].
func (r *Repo[S, C, E]) LoadAt(ctx context.Context, id string, version Version) (S, error) {
	r.init.Do(r.start)
	stream := Stream{r.kind, id}
	var none S
	if err := stream.Check(); err != nil {
		return none, err
	}
	if version < 0 {
		return none, invalid("%s at version %d: versions count from 1, and 0 is before any event", stream, version)
	}
	at, err := r.load(ctx, stream, version)
	if err == nil && at.version != version {
		err = invalid("%s has version %d, not %d: ask for one from 0 to that", stream, at.version, version)
	}
	if err != nil {
		return none, err
	}
	return at.state, nil
}

// Close waits for commands and snapshots under way. Commands sent afterwards are refused with an error that wraps [ErrClosed].
// It does not close the store. A Repo need not be closed if its commands have all returned and nothing is lost by a missing snapshot.
func (r *Repo[S, C, E]) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.work.Wait() // the lanes may still have a snapshot to take
	r.snapshots.close()
	return nil
}

func (r *Repo[S, C, E]) start() {
	r.cache.init(orDefault(r.CacheSize, DefaultCacheSize))
	r.lanes = make(map[string]*lane[S, C, E])
	r.snapshots.init(r.Snapshots, r.SnapshotSchema, max(1, orDefault(r.SnapshotEvery, DefaultSnapshotEvery)), r.log())
}

func orDefault(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func (r *Repo[S, C, E]) log() *slog.Logger {
	if r.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return r.Logger
}

// A versioned is a state with the place in the log where it stands.
type versioned[S any] struct {
	state    S
	version  Version
	position Position
	digest   uint64    // of the record there
	time     time.Time // of the record there, if it has been read; a store does not say when it wrote
}

// isOf tells whether a state is of the history in which a record stands at its version.
func (v versioned[S]) isOf(r Record) bool {
	return r.Version == v.version && r.Position == v.position && r.digest() == v.digest && (v.time.IsZero() || v.time.Equal(r.Time))
}

func (r Record) digest() uint64 { return digest.Of(r.Type, r.Data) }

// errElsewhere says that a state is not of the history that the store has: the store was restored from an older copy.
var errElsewhere = errors.New("the state is not of this history")

// current returns the state that the store has now.
func (r *Repo[S, C, E]) current(ctx context.Context, stream Stream) (versioned[S], error) {
	if base, cached := r.cache.get(stream.ID); cached {
		return r.refresh(ctx, stream, base)
	}
	return r.load(ctx, stream, math.MaxInt64)
}

// refresh reads what has come after a state.
func (r *Repo[S, C, E]) refresh(ctx context.Context, stream Stream, base versioned[S]) (versioned[S], error) {
	next, err := r.fold(ctx, stream, base, math.MaxInt64, nil)
	if errors.Is(err, errElsewhere) {
		r.log().Warn("es: cached state is not of this history, reading all events instead", "stream", stream.String(), "version", base.version)
		r.cache.drop(stream.ID)
		return r.load(ctx, stream, math.MaxInt64)
	}
	return next, err
}

// load reads a state from the store, as it is now or at an earlier version, beginning with a snapshot if there is a fitting one.
func (r *Repo[S, C, E]) load(ctx context.Context, stream Stream, upTo Version) (versioned[S], error) {
	from, found := r.snapshots.load(ctx, stream, upTo)
	at, err := r.fold(ctx, stream, from, upTo, nil)
	if found && errors.Is(err, errElsewhere) {
		r.log().Warn("es: snapshot is not of this history, reading all events instead", "stream", stream.String(), "version", from.version)
		return r.fold(ctx, stream, versioned[S]{}, upTo, nil)
	}
	if err == nil {
		r.snapshots.consider(stream, from.version, at)
	}
	return at, err
}

// fold reads the events after a state, up to a version, and returns the state with them. It calls see, if not nil, with each.
//
// It reads the last event in the state once more and compares: history only grows, unless the store was restored from an older copy.
func (r *Repo[S, C, E]) fold(ctx context.Context, stream Stream, at versioned[S], upTo Version, see func(E)) (versioned[S], error) {
	if upTo <= 0 {
		return at, nil
	}
	known := at.version == 0
	var last Record
	for record, err := range r.store.Read(ctx, stream, max(at.version-1, 0)) {
		if err != nil {
			return at, fmt.Errorf("es: load %s: %w", stream, err)
		}
		switch {
		case !known:
			if known = at.isOf(record); !known {
				return at, errElsewhere
			}
			at.time = record.Time
		case record.Version != at.version+1:
			return at, fmt.Errorf("es: load %s: the store gave version %d after %d: its history is damaged, or the store breaks its contract; verify it", stream, record.Version, at.version)
		default:
			if err := r.evolve(&at, record, see); err != nil {
				return at, err
			}
			last = record
		}
		if at.version >= upTo {
			break
		}
	}
	if !known {
		return at, errElsewhere
	}
	if last.Version > 0 {
		at.digest = last.digest()
	}
	return at, nil
}

func (r *Repo[S, C, E]) evolve(at *versioned[S], record Record, see func(E)) error {
	event, err := r.codec.Decode(record)
	switch {
	case errors.Is(err, ErrRetired):
	case err != nil:
		return err
	default:
		at.state = r.rules.Evolve(at.state, event)
		if see != nil {
			see(event)
		}
	}
	at.version, at.position, at.time = record.Version, record.Position, record.Time
	return nil
}

// settle answers every call on one aggregate. It returns when each has its answer or has left.
func (r *Repo[S, C, E]) settle(ctx context.Context, stream Stream, calls []*call[S, C, E]) {
	base, cached := r.cache.get(stream.ID)
	if !cached {
		var err error
		if base, err = r.load(ctx, stream, math.MaxInt64); err != nil {
			r.fail(calls, err)
			return
		}
		r.cache.put(stream.ID, base)
	}
	fresh := !cached // whether the base was read after the calls came in
	for attempt := 0; ; {
		if calls = r.claim(calls); len(calls) == 0 {
			return
		}
		p := r.plan(stream, base, calls)
		if len(p.appends) == 0 && !fresh {
			// Refusals and no-ops decided on a cached state are decided again on what the store has now.
			r.unclaim(calls)
			next, err := r.refresh(ctx, stream, base)
			if err != nil {
				r.fail(calls, err)
				return
			}
			base, fresh = next, true
			r.cache.put(stream.ID, base)
			continue
		}
		var conflict *ConflictError
		var duplicate *DuplicateError
		err := r.append(ctx, &p)
		switch {
		case err == nil:
			r.confirm(ctx, stream, &p)
			r.snapshots.consider(stream, base.version, p.end)
			base, fresh, calls = p.end, false, p.later
			r.cache.put(stream.ID, base)

		case errors.As(err, &duplicate):
			calls = r.repeat(ctx, stream, &p, duplicate)
			r.unclaim(calls)

		case errors.As(err, &conflict):
			r.cache.drop(stream.ID)
			if attempt++; attempt > max(0, orDefault(r.Retries, DefaultRetries)) {
				r.fail(calls, fmt.Errorf("es: execute on %s: gave up after %d attempts: %w", stream, attempt, err))
				return
			}
			r.unclaim(calls)
			if base, err = r.reload(ctx, stream, base, attempt, err); err != nil {
				r.fail(calls, err)
				return
			}
			fresh = true
			r.cache.put(stream.ID, base)

		default:
			r.cache.drop(stream.ID)
			err = fmt.Errorf("es: execute on %s: %w", stream, err)
			r.fail(p.sent, err)
			calls = slices.Concat(p.answered, p.later) // their answers were not confirmed by the append
			r.unclaim(calls)
		}
	}
}

// reload returns the state after a conflict: the tail alone is read, after a pause that grows with the attempts.
func (r *Repo[S, C, E]) reload(ctx context.Context, stream Stream, base versioned[S], attempt int, conflict error) (versioned[S], error) {
	if err := pause(ctx, attempt); err != nil {
		return base, fmt.Errorf("es: execute on %s: %w", stream, err)
	}
	if errors.Is(conflict, ErrRewound) {
		r.cache.purge() // the other states may be of the lost history as well
		return r.load(ctx, stream, math.MaxInt64)
	}
	return r.refresh(ctx, stream, base)
}

// pause waits a random time of up to 1 ms before the second attempt, doubled with each further one up to 128 ms ("full jitter").
func pause(ctx context.Context, attempt int) error {
	if attempt < 2 {
		return ctx.Err() // the first conflict is met at once: mostly the other writer is done
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
