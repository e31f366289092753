package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/projection"
)

// task is one run of a projection or a reaction, from Project to its return.
type task[Tx any] struct {
	engine     *Engine[Tx]
	key        Key
	source     projection.Source
	kind       projection.Kind
	filter     es.Filter
	canonical  string // the filter, as the checkpoints have it
	mark       int64  // of the filter, as the shards have it
	partitions int
	onError    es.OnError
	retries    int
	batch      int
	lease      time.Duration
	prepare    func(ctx context.Context, tx Tx) error
	handle     func(ctx context.Context, tx Tx, records []es.Record) error // of a projection
	react      func(ctx context.Context, r es.Record) error                // of a reaction
	carry      []string                                                    // of a reaction, like from
	from       projection.Start
	due        func(r es.Record) (time.Time, error)
	now        func() time.Time // in place of the clock of the ledger; may be nil
	onProgress func(projection.Progress)
	onCaughtUp func(ctx context.Context) error
	atEnd      bool // whether the run has reached the end
	once       bool // whether the run ends when nothing is left to do
	log        *slog.Logger

	worker       string
	shards       []string // of the source, or nil if it can be divided into any number
	starts       starts   // where the shards begin if there are no checkpoints
	extended     time.Time
	announced    int // of lacked, in the last heartbeat
	shardWorkers map[string]*shardWorker[Tx]
	ended        chan *shardWorker[Tx]
	reached      chan struct{} // a shard worker has reached the end of its shard for the first time
	all          sync.WaitGroup
	progress     sync.Mutex
	lacking      sync.Mutex
	lacked       []string // the event types that this program does not know, as far as it has met them; guarded by lacking
	heart        pulse    // the last successful heartbeat; see isAlive
}

// Project implements [projection.Projections].
func (e *Engine[Tx]) Project(ctx context.Context, p projection.Projection[Tx]) (err error) {
	defer cause.Set(ctx, &err)
	t, err := e.task(p)
	if err != nil {
		return err
	}
	if slices.Contains(e.inline, t.key) {
		return fmt.Errorf("es: %w: projection %s is inline in this store, so it must not run in Project as well", es.ErrInvalid, t.key)
	}
	return t.run(ctx)
}

// task prepares a projection to run.
func (e *Engine[Tx]) task(p projection.Projection[Tx]) (*task[Tx], error) {
	if p.Handle == nil {
		return nil, fmt.Errorf("es: %w: projection %.80q has no Handle: give it one", es.ErrInvalid, p.Name)
	}
	t := &task[Tx]{
		engine: e, kind: projection.KindProjection, key: Key{p.Name, p.Version}, source: p.Source, filter: p.Filter, partitions: p.Partitions, onError: p.OnError, retries: p.Retries,
		batch: p.Batch, lease: p.Lease, prepare: p.Prepare, handle: p.Handle, onProgress: p.OnProgress, onCaughtUp: p.OnCaughtUp, once: p.Once, log: p.Logger,
	}
	return t, t.check()
}

// React implements [projection.Projections].
func (e *Engine[Tx]) React(ctx context.Context, r projection.Reaction) (err error) {
	defer cause.Set(ctx, &err)
	if r.Handle == nil {
		return fmt.Errorf("es: %w: reaction %.80q has no Handle: give it one", es.ErrInvalid, r.Name)
	}
	t := &task[Tx]{
		engine: e, kind: projection.KindReaction, key: Key{r.Name, 0}, source: r.Source, filter: r.Filter, partitions: r.Partitions, onError: r.OnError, retries: r.Retries,
		batch: r.Batch, lease: r.Lease, react: r.Handle, carry: slices.Clone(r.Carry), from: r.From, due: r.Due, now: r.Now, once: r.Once, log: r.Logger,
	}
	if err := t.check(); err != nil {
		return err
	}
	return t.run(ctx)
}

// Defaults of projections and reactions.
const (
	defaultRetries = 5
	defaultBatch   = 1000
	defaultLease   = 10 * time.Second
)

// maxPartitions is more than any machine can use.
const maxPartitions = 1024

// checkName reports what makes a name invalid.
func checkName(name string) error {
	if name == "" || len(name) > es.MaxKind || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w: a name is UTF-8 of 1 to %d bytes without NUL", es.ErrInvalid, es.MaxKind)
	}
	return nil
}

// check fills in the defaults and reports what makes the task invalid.
func (t *task[Tx]) check() error {
	if err := checkName(t.key.Name); err != nil {
		return fmt.Errorf("es: projection %.80q: %w", t.key.Name, err)
	}
	switch {
	case t.key.Version < 0:
		return fmt.Errorf("es: %w: projection %s: version %d is below 0: give 0 or more", es.ErrInvalid, t.key.Name, t.key.Version)
	case t.partitions < 0 || t.partitions > maxPartitions:
		return fmt.Errorf("es: %w: projection %s: %d partitions: give 1 to %d, or 0 for 1", es.ErrInvalid, t.key.Name, t.partitions, maxPartitions)
	case t.batch < 0:
		return fmt.Errorf("es: %w: projection %s: Batch is %d: give 1 or more, or 0 for the default", es.ErrInvalid, t.key.Name, t.batch)
	case t.lease < 0:
		return fmt.Errorf("es: %w: projection %s: Lease is %v: give a positive duration, or 0 for the default", es.ErrInvalid, t.key.Name, t.lease)
	case t.onError != es.Stop && t.onError != es.Park:
		return fmt.Errorf("es: %w: projection %s: OnError is %d: give es.Stop or es.Park", es.ErrInvalid, t.key.Name, t.onError)
	}
	if t.source == nil {
		t.source = projection.FromLog(t.engine.ledger.Log())
	}
	if t.due != nil && logOf(t.source) == nil {
		return fmt.Errorf("es: %w: reaction %s: Due needs a log as source, not topics: react to a log, such as the store's own", es.ErrInvalid, t.key.Name)
	}
	t.canonical = canon.Filter(t.filter)
	t.mark = canon.Mark(t.canonical)
	t.partitions = max(t.partitions, 1)
	t.retries = cmp.Or(t.retries, defaultRetries)
	t.batch = cmp.Or(t.batch, defaultBatch)
	t.lease = cmp.Or(t.lease, defaultLease)
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	t.worker = clean(fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8]))
	t.log = t.log.With("projection", t.key.String(), "worker", t.worker)
	t.shardWorkers = make(map[string]*shardWorker[Tx])
	t.ended = make(chan *shardWorker[Tx])
	t.reached = make(chan struct{}, 1)
	t.asProgram()
	return nil
}

// run works until ctx is done or a permanent error occurs.
func (t *task[Tx]) run(ctx context.Context) error {
	ctx = asRun(ctx)
	ended := t.engine.refused.begin(t.key.Name, t.kind)
	if err := t.persist(ctx, "join", t.join); err != nil {
		err = t.explain(ctx, err)
		ended(err)
		return err
	}
	defer ended(nil)
	work, cancel := context.WithCancel(ctx)
	err := t.supervise(work)
	cancel()
	// Shard workers end with the context. They may still send to ended.
	go func() {
		t.all.Wait()
		close(t.ended)
	}()
	for range t.ended { // the error that ended the run is known
	}
	t.releaseAll(ctx)
	return t.explain(ctx, err)
}

// explain adds the projection's name to an error. The context's own error stays as it is.
func (t *task[Tx]) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var stopped *projection.Error
	if errors.As(err, &stopped) {
		return stopped
	}
	return fmt.Errorf("es: projection %s: %w", t.key, err)
}

// persist retries do while its error is a transient fault of the database, or of the log of another one.
func (t *task[Tx]) persist(ctx context.Context, what string, do func(ctx context.Context) error) error {
	for pause := (pause{}); ; {
		err := do(ctx)
		if err == nil || ctx.Err() != nil || !t.engine.passing(err) && !isSource(err) {
			return err
		}
		t.log.Warn("retrying", "what", what, "err", err)
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// supervise sends heartbeats, takes and releases shards, and does what concerns all of them.
func (t *task[Tx]) supervise(ctx context.Context) error {
	caughtUp := make(chan error, 1)
	called := t.onCaughtUp == nil || t.once
	every := min(max(t.lease/10, 10*time.Millisecond), time.Second)
	if t.once {
		every = min(every, 100*time.Millisecond) // for what other workers do; those of this run report that they are idle
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		changed := t.engine.changed.wait()
		atEnd, err := t.reconcile(ctx)
		if err != nil {
			return err
		}
		if atEnd && t.once {
			if ended, err := t.finished(ctx); err != nil || ended {
				return err
			}
		}
		if atEnd && !called {
			called = true
			t.all.Go(func() { caughtUp <- t.callOnCaughtUp(ctx) })
		}
		select {
		case <-tick.C:
		case <-changed:
		case <-t.reached:
		case err := <-caughtUp:
			if err != nil {
				return err
			}
		case s := <-t.ended:
			if err := t.unregister(s); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hasReached has the supervisor see whether all shards are at the end.
func (t *task[Tx]) hasReached() {
	select {
	case t.reached <- struct{}{}:
	default:
	}
}

// callOnCaughtUp calls OnCaughtUp, if there is one.
func (t *task[Tx]) callOnCaughtUp(ctx context.Context) error {
	if t.onCaughtUp == nil {
		return nil
	}
	return t.guard(func() error { return t.onCaughtUp(ctx) })
}

// callOnProgress calls OnProgress, if there is one.
func (t *task[Tx]) callOnProgress(p projection.Progress) error {
	if t.onProgress == nil {
		return nil
	}
	return t.guard(func() error { t.onProgress(p); return nil })
}

// unregister removes a shard worker that has ended, and returns its error.
func (t *task[Tx]) unregister(s *shardWorker[Tx]) error {
	delete(t.shardWorkers, s.shard)
	return s.err
}

// reconcile reads the projection's state and makes the changes that it requires. It reports whether all shards have reached the end
// of the source. After a transient error the next call tries again.
func (t *task[Tx]) reconcile(ctx context.Context) (atEnd bool, err error) {
	limit, cancel := context.WithTimeout(ctx, max(t.lease, 5*time.Second))
	defer cancel()
	seen, err := t.heartbeatAndRead(limit)
	if err == nil && seen.Rebuild {
		if err = t.reset(limit); err == nil {
			seen, err = t.engine.ledger.Overview(limit, t.key)
		}
	}
	if err == nil && t.shards == nil && (seen.Partitions != len(seen.Shards) || seen.Barrier >= 0) {
		if err = t.divide(limit); err == nil {
			seen, err = t.engine.ledger.Overview(limit, t.key)
		}
	}
	if err == nil {
		err = t.extend(limit, seen)
	}
	if err == nil {
		err = t.arrange(limit, ctx, seen)
	}
	switch {
	case err == nil:
		// The atEnd of a shard without a holder is from an earlier run.
		atEnd = !seen.Rebuild && !slices.ContainsFunc(seen.Shards, func(r Shard) bool { return !r.AtEnd || r.Holder == "" || !r.Live })
		if atEnd && !t.atEnd {
			t.atEnd = true
			t.hint(seen)
		}
		return atEnd, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case t.engine.passing(err) || limit.Err() != nil:
		t.log.Warn("retrying", "what", "read the state of the shards", "err", err)
		return false, nil
	}
	return false, err
}

// hint logs that the filter has selected nothing, for example because a kind or a type is misspelt. seen is that of a run that has reached the end.
func (t *task[Tx]) hint(seen Overview) {
	var cursor projection.Cursor
	for _, s := range seen.Shards {
		if s.Time != 0 {
			return
		}
		cursor = max(cursor, s.Cursor)
	}
	if f := t.filter; cursor > 0 && len(f.Kinds)+len(f.Types)+len(f.Tags) > 0 {
		t.log.Warn("filter has selected no record so far", "filter", t.filter.String(), "cursor", int64(cursor))
	}
}

// heartbeatAndRead sends a heartbeat if one is due, and reads the state.
func (t *task[Tx]) heartbeatAndRead(ctx context.Context) (Overview, error) {
	now := t.engine.clock()
	age, found := t.heart.age(now)
	if found && age > t.lease {
		// The process was paused or disconnected, so other workers may have its shards. The next move of a checkpoint would detect it,
		// but reactions must stop first.
		for _, s := range t.shardWorkers {
			s.order(order{leave: true})
		}
	}
	lacks := t.lacks()
	if !found || age > t.lease/4 || len(lacks) > t.announced {
		if err := t.engine.ledger.Heartbeat(ctx, t.key, t.worker, t.lease, lacks); err != nil {
			return Overview{}, err
		}
		t.heart.beat(now)
		t.announced = len(lacks)
	}
	seen, err := t.engine.ledger.Overview(ctx, t.key)
	switch {
	case err != nil:
		return seen, err
	case len(seen.Shards) == 0:
		return seen, fmt.Errorf("%w: Forget or Rename removed it while it ran: a new run begins from the beginning", es.ErrInvalid)
	case seen.Rebuild: // which may change the filter
		return seen, t.refuseKind(t.key, seen.Kind)
	}
	return seen, cmp.Or(t.refuseKind(t.key, seen.Kind), t.refuseFilter(seen.Filter))
}

// isAlive reports whether the last heartbeat is recent enough that no other worker has taken the shards.
func (t *task[Tx]) isAlive() bool {
	age, found := t.heart.age(t.engine.clock())
	return found && age < t.lease
}

// arrange starts and stops shard workers until this worker has its fair share of the shards.
func (t *task[Tx]) arrange(ctx, work context.Context, seen Overview) error {
	shares, err := t.shares(ctx, seen)
	if err != nil {
		return err
	}
	var requests []Request
	if seen.Asked {
		if requests, err = t.engine.ledger.Requests(ctx, t.key); err != nil {
			return err
		}
	}
	for _, s := range t.shardWorkers {
		if s.ordered().leave {
			continue
		}
		// A different claim is that of another worker, or of a rebuild.
		i := slices.IndexFunc(seen.Shards, func(r Shard) bool { return r.Name == s.shard && r.Claim == s.claim.Load() })
		surplus := false
		if i >= 0 {
			if surplus = shares[seen.Shards[i].Needs] <= 0; !surplus {
				shares[seen.Shards[i].Needs]--
			}
		}
		s.order(order{leave: i < 0 || surplus, barrier: seen.Barrier, requests: slices.DeleteFunc(slices.Clone(requests), func(w Request) bool { return w.Shard != s.shard })})
	}
	for _, r := range seen.Shards {
		if ctx.Err() != nil {
			break
		}
		if shares[r.Needs] <= 0 || t.shardWorkers[r.Name] != nil || r.Holder != "" && r.Holder != t.worker && r.Live {
			continue
		}
		r.Filter = t.mark
		taken, got, err := t.engine.ledger.Take(ctx, t.key, r, t.worker)
		if err != nil {
			return err
		}
		if got {
			shares[r.Needs]--
			taken.Replaced, taken.Identity, taken.Delays = seen.Replaced, seen.Identity, seen.Delays // as they were with the claim
			t.begin(work, taken, r, seen.Barrier)
		}
	}
	return nil //nolint:nilerr // every error has been returned
}

func (t *task[Tx]) begin(ctx context.Context, taken, before Shard, barrier projection.Cursor) {
	if before.Holder != "" && before.Holder != t.worker {
		t.log.Info("taken over", "shard", taken.Name, "cursor", int64(taken.Cursor), "from", before.Holder)
	}
	s := newShardWorker(t, taken, barrier)
	t.shardWorkers[taken.Name] = s
	t.all.Go(func() {
		s.err = s.run(ctx)
		t.ended <- s
	})
}

// releaseAll releases all shards, so that another worker need not wait until the lease expires.
func (t *task[Tx]) releaseAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := t.engine.ledger.Leave(ctx, t.key, t.worker); err != nil {
		t.log.Warn("shards stay taken until the lease expires", "err", err)
	}
	t.engine.changed.notify()
}
