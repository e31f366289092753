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
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A task is one run of a projection or a reaction, from Project to its return.
type task[Tx any] struct {
	*Engine[Tx]
	key
	source     projection.Source
	filter     es.Filter
	partitions int
	onError    es.OnError
	retries    int
	batch      int
	lease      time.Duration
	prepare    func(ctx context.Context, tx Tx) error
	handle     func(ctx context.Context, tx Tx, records []es.Record) error // of a projection
	react      func(ctx context.Context, r es.Record) error                // of a reaction
	onProgress func(projection.Progress)
	onCaughtUp func(ctx context.Context) error
	log        *slog.Logger

	worker   string
	shards   []string // those of the source, or nil if it can be divided at will
	extended time.Time
	sessions map[string]*session[Tx]
	ended    chan *session[Tx]
	reached  chan struct{} // a session has come to the end of its shard for the first time
	all      sync.WaitGroup
	progress sync.Mutex
	heart    atomic.Int64 // when the last heartbeat that arrived began; see beating
}

// Project implements [projection.Projections].
func (e *Engine[Tx]) Project(ctx context.Context, p projection.Projection[Tx]) error {
	t, err := e.task(p)
	if err != nil {
		return err
	}
	return t.run(ctx)
}

// task makes a projection ready to run.
func (e *Engine[Tx]) task(p projection.Projection[Tx]) (*task[Tx], error) {
	if p.Handle == nil {
		return nil, fmt.Errorf("es: %w: projection %.80q has no Handle: give it one", es.ErrInvalid, p.Name)
	}
	t := &task[Tx]{
		Engine: e, key: key{p.Name, p.Version}, source: p.Source, filter: p.Filter, partitions: p.Partitions, onError: p.OnError, retries: p.Retries,
		batch: p.Batch, lease: p.Lease, prepare: p.Prepare, handle: p.Handle, onProgress: p.OnProgress, onCaughtUp: p.OnCaughtUp, log: p.Logger,
	}
	return t, t.check()
}

// React implements [projection.Projections].
func (e *Engine[Tx]) React(ctx context.Context, r projection.Reaction) error {
	if r.Handle == nil {
		return fmt.Errorf("es: %w: reaction %.80q has no Handle: give it one", es.ErrInvalid, r.Name)
	}
	t := &task[Tx]{
		Engine: e, key: key{r.Name, 0}, source: r.Source, filter: r.Filter, partitions: r.Partitions, onError: r.OnError, retries: r.Retries,
		batch: r.Batch, lease: r.Lease, react: r.Handle, log: r.Logger,
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

// check fills in the defaults and tells whether the task can be run.
func (t *task[Tx]) check() error {
	switch {
	case t.name == "" || len(t.name) > es.MaxKind || !utf8.ValidString(t.name) || strings.ContainsRune(t.name, 0):
		return fmt.Errorf("es: %w: projection %.80q: a name is UTF-8 of 1 to %d bytes without NUL", es.ErrInvalid, t.name, es.MaxKind)
	case t.version < 0:
		return fmt.Errorf("es: %w: projection %s: version %d is below 0: give 0 or more", es.ErrInvalid, t.name, t.version)
	case t.partitions < 0 || t.partitions > maxPartitions:
		return fmt.Errorf("es: %w: projection %s: %d partitions: give 1 to %d, or 0 for 1", es.ErrInvalid, t.name, t.partitions, maxPartitions)
	case t.batch < 0 || t.lease < 0:
		return fmt.Errorf("es: %w: projection %s: a batch of %d and a lease of %v: neither can be below 0; give 0 for the default", es.ErrInvalid, t.name, t.batch, t.lease)
	case t.onError != es.Stop && t.onError != es.Park:
		return fmt.Errorf("es: %w: projection %s: OnError is %d: give es.Stop or es.Park", es.ErrInvalid, t.name, t.onError)
	}
	if t.source == nil {
		t.source = projection.FromLog(t.db.Log())
	}
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
	t.log = t.log.With("projection", t.String(), "worker", t.worker)
	t.sessions = make(map[string]*session[Tx])
	t.ended = make(chan *session[Tx])
	t.reached = make(chan struct{}, 1)
	return nil
}

// run works until the context ends, or something that time does not mend.
func (t *task[Tx]) run(ctx context.Context) error {
	if err := t.persist(ctx, "join", t.join); err != nil {
		return t.explain(ctx, err)
	}
	work, cancel := context.WithCancel(ctx)
	err := t.supervise(work)
	cancel()
	// Sessions end with the context, and may have something to say before that.
	go func() {
		t.all.Wait()
		close(t.ended)
	}()
	for range t.ended { // what ended the run is known
	}
	t.retire(ctx)
	return t.explain(ctx, err)
}

// explain says which projection an error is about. The context's own error stays as it is.
func (t *task[Tx]) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var stopped *projection.Error
	if errors.As(err, &stopped) {
		return stopped
	}
	return fmt.Errorf("es: projection %s: %w", t.key, err)
}

// persist does something again and again while the database is at fault.
func (t *task[Tx]) persist(ctx context.Context, what string, do func(ctx context.Context) error) error {
	for pause := (pause{}); ; {
		err := do(ctx)
		if err == nil || ctx.Err() != nil || !t.db.Passing(err) {
			return err
		}
		t.log.Warn("again in a moment", "what", what, "error", err)
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// supervise sends heartbeats, takes and gives up shards, and does what concerns all of them.
func (t *task[Tx]) supervise(ctx context.Context) error {
	caughtUp := make(chan error, 1)
	called := t.onCaughtUp == nil
	tick := time.NewTicker(min(max(t.lease/10, 10*time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		news := t.news.hear()
		atEnd, err := t.turn(ctx)
		if err != nil {
			return err
		}
		if atEnd && !called {
			called = true
			t.all.Go(func() { caughtUp <- t.tellCaughtUp(ctx) })
		}
		select {
		case <-tick.C:
		case <-news:
		case <-t.reached:
		case err := <-caughtUp:
			if err != nil {
				return err
			}
		case s := <-t.ended:
			if err := t.bid(s); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tellCaughtUp calls OnCaughtUp, if there is one.
func (t *task[Tx]) tellCaughtUp(ctx context.Context) error {
	if t.onCaughtUp == nil {
		return nil
	}
	return guard(func() error { return t.onCaughtUp(ctx) })
}

// tellProgress calls OnProgress, if there is one.
func (t *task[Tx]) tellProgress(p projection.Progress) error {
	if t.onProgress == nil {
		return nil
	}
	return guard(func() error { t.onProgress(p); return nil })
}

// bid takes leave of a session that has ended.
func (t *task[Tx]) bid(s *session[Tx]) error {
	delete(t.sessions, s.shard)
	return s.err
}

// turn looks at the projection and does what is to be done. It tells whether all shards have come to the end of the source.
// What is the database's fault has another turn.
func (t *task[Tx]) turn(ctx context.Context) (atEnd bool, err error) {
	limit, cancel := context.WithTimeout(ctx, max(t.lease, 5*time.Second))
	defer cancel()
	seen, err := t.beatAndLook(limit)
	if err == nil && seen.rebuild {
		if err = t.reset(limit); err == nil {
			seen, err = t.look(limit, t.key)
		}
	}
	if err == nil && t.shards == nil && (seen.partitions != len(seen.shards) || seen.barrier >= 0) {
		if err = t.divide(limit); err == nil {
			seen, err = t.look(limit, t.key)
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
		// What one without a holder says of the end is what another run found there.
		return !seen.rebuild && !slices.ContainsFunc(seen.shards, func(r row) bool { return !r.atEnd || r.holder == "" || !r.live }), nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case t.db.Passing(err) || limit.Err() != nil:
		t.log.Warn("again in a moment", "what", "look after the shards", "error", err)
		return false, nil
	}
	return false, err
}

// beatAndLook sends a heartbeat if it is time for one, and looks.
func (t *task[Tx]) beatAndLook(ctx context.Context) (state, error) {
	now, last := time.Now().UnixNano(), t.heart.Load()
	if last != 0 && now-last > int64(t.lease) {
		// The process was paused, or cut off: others may have its shards. It would find out by the first move; a reaction had better not react until then.
		for _, s := range t.sessions {
			s.order(order{leave: true})
		}
	}
	if now-last > int64(t.lease/4) {
		if _, err := t.alone(ctx, Options{Quiet: true}, t.say.beat, t.with(t.worker, t.lease.Microseconds())...); err != nil {
			return state{}, err
		}
		t.heart.Store(now)
	}
	seen, err := t.look(ctx, t.key)
	if err == nil && len(seen.shards) == 0 {
		return seen, fmt.Errorf("%w: somebody has forgotten it while it ran: run it again, and it begins anew", es.ErrInvalid)
	}
	return seen, err
}

// beating tells whether the worker's last heartbeat is so young that nobody has taken its shards for it.
func (t *task[Tx]) beating() bool { return time.Now().UnixNano()-t.heart.Load() < int64(t.lease) }

// arrange makes the sessions what they should be: this worker's fair share of the shards, neither more nor less.
func (t *task[Tx]) arrange(ctx, work context.Context, seen state) error {
	share := (len(seen.shards) + seen.workers - 1) / max(seen.workers, 1)
	var wishes []wish
	if seen.asked {
		var err error
		if wishes, err = t.wishes(ctx, t.key); err != nil {
			return err
		}
	}
	held := 0
	for _, s := range t.sessions {
		if s.ordered().leave {
			continue
		}
		// A claim that is not its own is that of another, or of a rebuild.
		i := slices.IndexFunc(seen.shards, func(r row) bool { return r.shard == s.shard && r.claim == s.claim.Load() })
		surplus := held >= share
		if i >= 0 && !surplus {
			held++
		}
		s.order(order{leave: i < 0 || surplus, barrier: seen.barrier, wishes: slices.DeleteFunc(slices.Clone(wishes), func(w wish) bool { return w.shard != s.shard })})
	}
	for _, r := range seen.shards {
		if held >= share || ctx.Err() != nil {
			break
		}
		if t.sessions[r.shard] != nil || r.holder != "" && r.holder != t.worker && r.live {
			continue
		}
		taken, got, err := t.take(ctx, t.key, r, t.worker)
		if err != nil {
			return err
		}
		if got {
			held++
			t.begin(work, taken, r, seen.barrier)
		}
	}
	return nil //nolint:nilerr // every error has been returned
}

func (t *task[Tx]) begin(ctx context.Context, taken, before row, barrier projection.Cursor) {
	if before.holder != "" && before.holder != t.worker {
		t.log.Info("taken over", "shard", taken.shard, "cursor", int64(taken.cursor), "from", before.holder)
	}
	s := newSession(t, taken, barrier)
	t.sessions[taken.shard] = s
	t.all.Go(func() {
		s.err = s.run(ctx)
		t.ended <- s
	})
}

// retire gives back what the worker has, so that another need not wait for its lease to run out.
func (t *task[Tx]) retire(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := t.alone(ctx, Options{Quiet: true}, t.say.leave, t.with(t.worker)...); err != nil {
		t.log.Warn("its shards are free when its lease has run out", "error", err)
	}
	t.news.ring()
}
