package es

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/thalo-go/es/internal/cause"
)

const defaultSnapshotEvery = 100

// Repo runs commands on the aggregates of one kind. It loads, decides, appends, and retries on conflict.
//
// Commands that wait for the same aggregate are decided one after the other, each on its predecessor's state, and
// appended together. States are cached, so that a command on a cached state reads nothing.
//
// Set the exported fields before the first use. All methods may be called concurrently.
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

	kind string
	core core[S, C, E]
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
	r := &Repo[S, C, E]{kind: kind, core: core[S, C, E]{store: store, rules: rules, codec: codec, name: "repo is"}}
	r.core.history = r
	return r
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

	// Events are the events of the command, as a later load decodes them; none if there was nothing to do.
	Events []E

	// Repeated reports that the command had taken effect before, and that this is the outcome of the first time.
	// If the program did not send the command twice, two commands share a [CommandID], which is a bug of the program.
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
	c := &call[S, C, E]{ctx: ctx, command: command, on: r.subject(id)}
	for _, option := range options {
		option(&c.settings)
	}
	if err := r.start(); err != nil {
		return Result[S, E]{}, err
	}
	return r.core.execute(c)
}

func (r *Repo[S, C, E]) subject(id string) subject[S] {
	return subject[S]{stream: Stream{r.kind, id}, key: id}
}

// Load returns the current state of an aggregate, or the zero Versioned if it has no events.
func (r *Repo[S, C, E]) Load(ctx context.Context, id string) (_ Versioned[S], err error) {
	defer cause.Set(ctx, &err)
	if err := r.start(); err != nil {
		return Versioned[S]{}, err
	}
	on := r.subject(id)
	at, err := r.core.current(ctx, &on)
	if err != nil {
		return Versioned[S]{}, err
	}
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
	at, err := r.loadAt(ctx, stream, version)
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
func (r *Repo[S, C, E]) Close(ctx context.Context) error { return r.core.close(ctx) }

// Stats returns the counters since NewRepo.
func (r *Repo[S, C, E]) Stats() RepoStats { return r.core.count() }

// start prepares the Repo once. The error says which setting is invalid.
func (r *Repo[S, C, E]) start() error {
	return r.core.begin(r.Config, func(log *slog.Logger) error {
		if r.SnapshotEvery < 0 {
			return invalid("SnapshotEvery is %d: must not be negative; set Snapshots to nil to keep none", r.SnapshotEvery)
		}
		r.core.snapshots.init(r.Snapshots, r.SnapshotSchema, cmp.Or(r.SnapshotEvery, defaultSnapshotEvery), log)
		return nil
	})
}
