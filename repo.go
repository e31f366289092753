package es

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/thalo-go/es/internal/cause"
)

// Defaults of the settings.
const (
	defaultRetries       = 16
	defaultCacheSize     = 10_000
	defaultSnapshotEvery = 100
)

// Config holds the settings of a [Repo]. Set them before the first use.
type Config struct {
	// Retries is the number of attempts after a conflict with another writer, with a growing jittered pause between
	// them. 0 means 16, negative none.
	Retries int

	// CacheSize is the number of states kept in memory; the least recently used are dropped. 0 means 10,000, negative none.
	CacheSize int

	// Logger receives warnings that have no caller to return to, such as that of a corrupt snapshot, and the stacks of
	// panics. nil discards.
	Logger *slog.Logger
}

// Repo runs commands on the aggregates of one kind. It loads, decides, appends, and retries on conflict.
//
// Commands that wait for the same aggregate are decided one after the other, each on its predecessor's state, and
// appended together. States are cached, so that a command on a cached state reads nothing.
//
// The exported fields are settings, to be made before the first use. All methods may be called concurrently.
// Any number of Repos, also in several processes, may work on the same aggregates.
type Repo[S, C, E any] struct {
	Config

	// Snapshots keeps states, so that loading a long stream need not read all of it. It is usually the store.
	// nil keeps none.
	//
	// Snapshots are saved in the background. A missing, corrupt or incompatible snapshot is ignored, and so is one of
	// another layout of S. A state must survive a JSON round trip; one that does not is not saved.
	Snapshots Snapshots

	// SnapshotEvery is the number of events between two snapshots. 0 means 100. It must not be negative.
	SnapshotEvery int

	// SnapshotSchema numbers the meaning of Evolve. Raise it when that changes: snapshots with another number are not
	// used. A change of the layout of S is detected without it.
	SnapshotSchema int

	store Store
	kind  string
	rules Aggregate[S, C, E]
	codec *Codec[E]

	init      sync.Once
	settings  error // what is wrong with the settings
	cache     cache[S]
	snapshots snapshotter[S]

	mu     sync.Mutex // guards lanes, what they contain, and closed
	lanes  map[string]*lane[S, C, E]
	closed bool
	busy   sync.WaitGroup // lanes in use
}

// NewRepo returns a Repo for the aggregates of one kind, such as "account". It panics if store, rules or codec is nil.
func NewRepo[S, C, E any](store Store, kind string, rules Aggregate[S, C, E], codec *Codec[E]) *Repo[S, C, E] {
	switch {
	case store == nil:
		panic("es: NewRepo: store is nil")
	case rules == nil:
		panic("es: NewRepo: rules are nil")
	case codec == nil:
		panic("es: NewRepo: codec is nil")
	}
	return &Repo[S, C, E]{store: store, kind: kind, rules: rules, codec: codec}
}

// Versioned is a state and its place in the log.
// The state is shared with the Repo and its other callers: do not modify what it points to.
type Versioned[S any] struct {
	State    S
	Version  Version   // of the stream
	Position Position  // of the last event in the state
	Time     time.Time // of that event; zero in a Result, as a store does not report when it wrote
}

// Result is the outcome of a command: the state after it, and the events that it added.
type Result[S, E any] struct {
	Versioned[S]

	// Events are the events of the command as they are stored, and so as later loads see them; none if there was
	// nothing to do.
	Events []E

	// Repeated reports that the command had taken effect before, and that this is the outcome of the first time.
	// If the program did not send the command twice, two commands have one [CommandID].
	Repeated bool
}

// Execute runs a command on the aggregate with the given id. It loads the state, lets the rules decide, and appends the
// events. After a conflict with another writer it decides again on the new state, up to [Config.Retries] times.
//
// Execute returns the error of Decide unchanged. A refusal is never based on a state older than the call. Other errors:
//   - a [*ConflictError] if the retries ran out, or at once with [ExpectVersion]
//   - an error that wraps [ErrInvalid] for input that every store rejects
//   - an error that wraps [ErrUnknownOutcome] if the context ended, or the store failed, while the events may have been written
//   - an error that wraps [ErrClosed] after Close
//   - an error that wraps [ErrExpired] after the time of [NotAfter]
//
// After any other error, such as that of the context, nothing was written.
//
// If Decide or Evolve panics, Execute panics with a [*PanicError]. Other callers are not affected.
func (r *Repo[S, C, E]) Execute(ctx context.Context, id string, command C, options ...ExecuteOption) (_ Result[S, E], err error) {
	defer cause.Set(ctx, &err)
	c := &call[S, C, E]{ctx: ctx, command: command}
	for _, option := range options {
		option(&c.settings)
	}
	stream := Stream{r.kind, id}
	if err := c.resolveStep(ctx, stream); err != nil {
		return Result[S, E]{}, err
	}
	if err := r.check(stream, c.settings); err != nil {
		return Result[S, E]{}, err
	}
	if err := ctx.Err(); err != nil {
		return Result[S, E]{}, err
	}
	if err := r.start(); err != nil {
		return Result[S, E]{}, err
	}
	if err := r.run(stream, c); err != nil {
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

func (r *Repo[S, C, E]) check(stream Stream, s settings) error {
	if err := stream.Check(); err != nil {
		return err
	}
	if s.hasCommandID {
		if bad := badName(s.commandID, MaxCommand); bad != "" {
			return invalid("command id %.80q for %s %s", s.commandID, stream, bad)
		}
	}
	if s.hasExpected && s.expected < 0 {
		return invalid("expected version %d of %s: give 0 or more, or leave ExpectVersion out", s.expected, stream)
	}
	return nil
}

// Load returns the current state of an aggregate, or the zero Versioned if it has no events.
func (r *Repo[S, C, E]) Load(ctx context.Context, id string) (_ Versioned[S], err error) {
	defer cause.Set(ctx, &err)
	if err := r.start(); err != nil {
		return Versioned[S]{}, err
	}
	at, err := r.current(ctx, Stream{r.kind, id})
	if err != nil {
		return Versioned[S]{}, err
	}
	r.cache.put(id, at)
	return at.Versioned, nil
}

// LoadAt returns the state of an aggregate at a version.
// A version that the aggregate has not reached is an error that wraps [ErrInvalid].
func (r *Repo[S, C, E]) LoadAt(ctx context.Context, id string, version Version) (_ Versioned[S], err error) {
	defer cause.Set(ctx, &err)
	stream := Stream{r.kind, id}
	if err := r.start(); err != nil {
		return Versioned[S]{}, err
	}
	if err := stream.Check(); err != nil {
		return Versioned[S]{}, err
	}
	if version < 0 {
		return Versioned[S]{}, invalid("%s at version %d: must not be negative", stream, version)
	}
	at, err := r.load(ctx, stream, version)
	if err == nil && at.Version != version {
		err = invalid("%s has no version %d: its version is %d", stream, version, at.Version)
	}
	if err != nil {
		return Versioned[S]{}, err
	}
	return at.Versioned, nil
}

// Close waits for commands and snapshots in flight, at most until ctx is done, and then returns the error of ctx.
// Later commands fail with an error that wraps [ErrClosed]. It does not close the store.
// Close is optional; without it, pending snapshots may be lost.
func (r *Repo[S, C, E]) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	done := make(chan struct{})
	go func() {
		r.busy.Wait() // a command in flight may still schedule a snapshot
		r.snapshots.close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		r.snapshots.abandon()
		return fmt.Errorf("es: close: %w", cause.Of(ctx, ctx.Err()))
	}
}

// start prepares the Repo once. The error says which setting is invalid.
func (r *Repo[S, C, E]) start() error {
	r.init.Do(func() {
		if r.SnapshotEvery < 0 {
			r.settings = invalid("SnapshotEvery is %d: must not be negative; set Snapshots to nil to keep none", r.SnapshotEvery)
			return
		}
		r.cache.init(cmp.Or(r.CacheSize, defaultCacheSize))
		r.lanes = make(map[string]*lane[S, C, E])
		r.snapshots.init(r.Snapshots, r.SnapshotSchema, cmp.Or(r.SnapshotEvery, defaultSnapshotEvery), r.log())
	})
	return r.settings
}

func (r *Repo[S, C, E]) log() *slog.Logger {
	if r.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return r.Logger
}
