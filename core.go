package es

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/hist"
)

// Defaults of the settings.
const (
	defaultRetries   = 16
	defaultCacheSize = 10_000
)

// Config holds the settings of a [Repo] and of [Decisions]. Set them before the first use.
type Config struct {
	// Retries is the number of attempts after a conflict with another writer, with a growing jittered pause between
	// them. 0 means 16, negative none. Where many processes decide on the same stream, tag or [Transact] at once, give more:
	// of n that race, one wins each time.
	Retries int

	// CacheSize is the number of states kept in memory; the least recently used are dropped. 0 means 10,000, negative none.
	CacheSize int

	// Meta, if set, returns metadata for every event of a command, such as the user in ctx. Metadata of the options takes precedence.
	// It is called once for each command, with the context of Tracer.
	Meta func(ctx context.Context) map[string]string

	// Tracer, if set, observes every command.
	Tracer Tracer

	// Logger receives warnings that have no caller to return to, such as that of a corrupt snapshot, and the stacks of
	// panics. nil discards.
	Logger *slog.Logger
}

// core is what Repo and Decisions share: it runs the rounds of commands, each on its subject.
type core[S, C, E any] struct {
	store   Store
	rules   Aggregate[S, C, E]
	codec   *Codec[E]
	history history[S, E]
	name    string // with its verb, in errors

	init      sync.Once
	settings  error // what is wrong with the settings
	retries   int
	meta      func(ctx context.Context) map[string]string
	tracer    Tracer
	epoch     time.Time // when the clock of calls begins
	number    uint64    // of this core in the process
	log       *slog.Logger
	cache     cache[S]
	snapshots snapshotter[S]

	mu     sync.Mutex // guards lanes, what they contain, and what follows
	lanes  map[string]*lane[S, C, E]
	turns  map[string]*turn // of transactions
	stats  RepoStats
	took   hist.Durations
	closed bool
	busy   sync.WaitGroup // lanes in use, and transactions
}

// subject is what commands are decided on: the events of one stream, or the records that a query selects.
type subject[S any] struct {
	stream Stream    // where the events go
	key    string    // of the state in the cache
	scope  *scope[S] // nil for the events of the stream
}

// lane returns the key of the lane in which the commands on a subject wait.
func (s *subject[S]) lane() string {
	if s.scope != nil {
		return s.scope.lane
	}
	return s.key
}

// history reads the states of subjects.
type history[S, E any] interface {
	// load returns the state that the store has now.
	load(ctx context.Context, on *subject[S]) (state[S], error)

	// refresh is load, given an earlier state.
	refresh(ctx context.Context, on *subject[S], base state[S]) (state[S], error)

	// firstOutcome returns the original result of a command that the store has already.
	firstOutcome(ctx context.Context, on *subject[S], d *DuplicateError) (Result[S, E], error)

	// asOf returns the state that the store had at a position.
	asOf(ctx context.Context, on *subject[S], upTo Position) (state[S], error)
}

// begin applies the settings once.
func (k *core[S, C, E]) begin(c Config, more func(log *slog.Logger) error) error {
	k.init.Do(func() {
		k.log = c.Logger
		if k.log == nil {
			k.log = slog.New(slog.DiscardHandler)
		}
		k.meta, k.tracer, k.epoch = c.Meta, c.Tracer, time.Now()
		k.retries = max(0, cmp.Or(c.Retries, defaultRetries))
		k.cache.init(cmp.Or(c.CacheSize, defaultCacheSize))
		k.lanes = make(map[string]*lane[S, C, E])
		k.number = coreNumbers.Add(1)
		k.settings = more(k.log)
	})
	return k.settings
}

// execute runs a command on a subject.
func (k *core[S, C, E]) execute(c *call[S, C, E]) (Result[S, E], error) {
	c.began = k.clock()
	if k.tracer != nil {
		return k.trace(c)
	}
	return k.command(c)
}

// clock returns the time since the first command. It takes half of the time of time.Now, and a call keeps a third of it.
func (k *core[S, C, E]) clock() time.Duration { return time.Since(k.epoch) }

func (k *core[S, C, E]) command(c *call[S, C, E]) (Result[S, E], error) {
	if err := c.resolveStep(c.ctx, c.on.stream); err != nil {
		return Result[S, E]{}, err
	}
	if k.meta != nil {
		c.meta = merge(k.meta(c.ctx), c.meta)
	}
	if err := c.check(c.on.stream); err != nil {
		return Result[S, E]{}, err
	}
	if err := c.ctx.Err(); err != nil {
		return Result[S, E]{}, err
	}
	if err := k.run(c); err != nil {
		return Result[S, E]{}, fmt.Errorf("es: execute on %s: %w", c.on.stream, err)
	}
	if c.traced != nil {
		c.traced.returned = true
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

// check reports what is wrong with the options of a command.
func (s *settings) check(stream Stream) error {
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

// start returns the state from which a round begins, and whether it was cached.
func (k *core[S, C, E]) start(ctx context.Context, on *subject[S]) (base state[S], cached bool, err error) {
	base, cached = k.cached(on)
	if !cached {
		if base, err = k.history.load(ctx, on); err == nil {
			k.cache.put(on.key, base)
		}
	}
	return base, cached, err
}

// cached returns the cached state of a subject.
func (k *core[S, C, E]) cached(on *subject[S]) (state[S], bool) {
	at, found := k.cache.get(on.key)
	if found && on.scope != nil && !on.scope.begins(at.scope) {
		k.cache.drop(on.key)
		return state[S]{}, false
	}
	return at, found
}

// current returns the state that the store has now.
func (k *core[S, C, E]) current(ctx context.Context, on *subject[S]) (at state[S], err error) {
	if base, found := k.cached(on); found {
		at, err = k.history.refresh(ctx, on, base)
	} else {
		at, err = k.history.load(ctx, on)
	}
	if err == nil {
		k.cache.put(on.key, at)
	}
	return at, err
}

// apply decodes a record and applies its event to a state, unless the event is retired.
func (k *core[S, C, E]) apply(at *state[S], record Record) (event E, kept bool, err error) {
	event, err = k.codec.Decode(record)
	switch {
	case errors.Is(err, ErrRetired):
		return event, false, nil
	case err != nil:
		return event, false, err
	}
	at.State = k.rules.Evolve(at.State, event)
	return event, true, nil
}

func (k *core[S, C, E]) closedError() error { return fmt.Errorf("%s %w", k.name, ErrClosed) }

func (k *core[S, C, E]) count() RepoStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	stats := k.stats
	stats.Execute = Histogram(k.took.Snapshot())
	return stats
}

func (k *core[S, C, E]) close(ctx context.Context) error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	done := make(chan struct{})
	go func() {
		k.busy.Wait() // a command in flight may still schedule a snapshot
		k.snapshots.close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		k.snapshots.abandon()
		return fmt.Errorf("es: close: %w", cause.Of(ctx, ctx.Err()))
	}
}
