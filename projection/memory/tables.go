package memory

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/projection"
)

// tables are the rows of all projections. Stores that share them are like processes on one database.
type tables struct {
	writing chan struct{}               // holds a value while a transaction is in flight
	hold    atomic.Pointer[engine.Hold] // of the transaction in flight, if it calls a handler

	mu        sync.Mutex
	committed map[engine.Key]*rows
	beats     map[worker]beat // heartbeats are not part of transactions: they never wait
}

// worker identifies a worker of a projection.
type worker struct {
	engine.Key
	name string
}

// beat is the last heartbeat of a worker.
type beat struct {
	expires int64
	lacks   []string // the event types that the worker does not know
}

// rows are those of one projection. What is committed is not changed any more: a transaction changes a copy.
type rows struct {
	header engine.Header
	shards []shard   // by name
	parked []*parked // by position and stream
	timers timers
}

type shard struct {
	engine.Shard
	message   string
	messageAt int64
	moved     int64             // when the checkpoint was moved
	needsAt   projection.Cursor // the checkpoint when Needs was stored
}

type parked struct {
	projection.Parked
	shard   string
	request string
}

func newTables() *tables {
	return &tables{writing: make(chan struct{}, 1), committed: make(map[engine.Key]*rows), beats: make(map[worker]beat)}
}

// read returns the committed rows of a projection; none if it does not exist.
func (t *tables) read(k engine.Key) *rows {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.committed[k]; r != nil {
		return r
	}
	return new(rows)
}

// sorted returns the committed rows of all projections, by name and version.
func (t *tables) sorted() ([]engine.Key, map[engine.Key]*rows) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Keys(t.committed), compareKeys), maps.Clone(t.committed)
}

func compareKeys(a, b engine.Key) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
}

func now() int64 { return time.Now().UnixMicro() }

// alive reports whether a worker has a recent heartbeat.
func (t *tables) alive(k engine.Key, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.beats[worker{k, name}].expires > now()
}

// has reports whether a worker has not ended, as far as is known.
func (t *tables) has(k engine.Key, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, found := t.beats[worker{k, name}]
	return found
}

// workers returns the number of workers with a recent heartbeat.
func (t *tables) workers(k engine.Key) int {
	return len(t.lacks(k))
}

// lacks returns the event types that each worker with a recent heartbeat does not know.
func (t *tables) lacks(k engine.Key) map[string][]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lacks, at := make(map[string][]string), now()
	for w, b := range t.beats {
		if w.Key == k && b.expires > at {
			lacks[w.name] = b.lacks
		}
	}
	return lacks
}

// known reports whether a worker with a recent heartbeat knows an event type.
func (t *tables) known(k engine.Key, eventType string) bool {
	for _, types := range t.lacks(k) {
		if !slices.Contains(types, eventType) {
			return true
		}
	}
	return false
}

// inside is the context key for the tables that have a transaction in flight.
type inside struct{}

// acquire waits until no transaction is in flight, and lets none begin until release is called.
func (l *ledger) acquire(ctx context.Context) (release func(), err error) {
	if ctx.Value(inside{}) == l.tables {
		return nil, fmt.Errorf("memory: %w: the handler of a projection is in the only transaction: do it in a reaction", es.ErrInvalid)
	}
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	release = func() { <-l.writing }
	if err := l.check(ctx); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// lookEvery is how often a call that waits looks for how long a handler has been in the transaction.
const lookEvery = 100 * time.Millisecond

// enter waits until no transaction is in flight. It waits no longer than the lease of a projection for its handler, which may wait for that
// very call.
func (l *ledger) enter(ctx context.Context) error {
	select {
	case l.writing <- struct{}{}:
		return nil
	default:
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case l.writing <- struct{}{}:
			return nil
		case <-l.closed:
			return errClosed
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			if hold := l.hold.Load(); hold != nil && hold.Left() <= 0 {
				return hold.Overdue()
			}
		}
	}
}

// Transact implements [engine.Store].
func (l *ledger) Transact(ctx context.Context, o engine.Options, work func(ctx context.Context, tx *Tx) error) error {
	release, err := l.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	if o.Handler != nil {
		l.hold.Store(o.Handler.Hold(o.Idle))
		defer l.hold.Store(nil)
	}
	tx, committed := &Tx{rows: make(map[engine.Key]*rows)}, false
	defer func() { tx.end(committed) }()
	if err := work(context.WithValue(ctx, inside{}, l.tables), tx); err != nil {
		return err
	}
	if err := l.check(ctx); err != nil {
		return err
	}
	l.commit(tx)
	committed = true
	return nil
}

func (t *tables) commit(tx *Tx) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for old, k := range tx.renamed {
		for w, b := range t.beats {
			if w.Key == old {
				t.beats[worker{k, w.name}] = b
			}
		}
	}
	for k, r := range tx.rows {
		if r != nil {
			t.committed[k] = r
			continue
		}
		delete(t.committed, k)
		maps.DeleteFunc(t.beats, func(w worker, _ beat) bool { return w.Key == k })
	}
}

// change runs a function on the rows of a projection in a transaction of its own.
func (l *ledger) change(ctx context.Context, k engine.Key, f func(r *rows)) error {
	return l.Transact(ctx, engine.Options{}, func(_ context.Context, tx *Tx) error {
		f(l.edit(tx, k))
		return nil
	})
}

// in returns the rows of a projection as a transaction sees them; nil if it does not exist.
func (t *tables) in(tx *Tx, k engine.Key) *rows {
	if r, changed := tx.rows[k]; changed {
		return r
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.committed[k]
}

// edit returns the rows of a projection for a transaction to change. If the projection does not exist, changes have no effect.
func (t *tables) edit(tx *Tx, k engine.Key) *rows {
	r, changed := tx.rows[k]
	if changed && r != nil {
		return r
	}
	if r = t.in(tx, k); r == nil {
		return new(rows)
	}
	r = &rows{r.header, slices.Clone(r.shards), slices.Clone(r.parked), r.timers}
	tx.rows[k] = r
	return r
}

// shard returns the shard of a name; nil if there is none.
func (r *rows) shard(name string) *shard {
	if i, found := slices.BinarySearchFunc(r.shards, name, func(s shard, name string) int { return strings.Compare(s.Name, name) }); found {
		return &r.shards[i]
	}
	return nil
}

// place returns the checkpoint, or the place in the past while that is replayed.
func (s *shard) place() projection.Cursor {
	if s.PastEnd > 0 {
		return s.Past
	}
	return s.Cursor
}

// detach gives the shard a new claim and no holder.
func (s *shard) detach() { s.Claim, s.Holder, s.AtEnd = engine.NewClaim(), "", false }

// claimed returns the shard if its claim is still the same.
func (r *rows) claimed(s engine.Shard) *shard {
	if there := r.shard(s.Name); there != nil && there.Claim == s.Claim {
		return there
	}
	return nil
}

// insert adds the shards that do not exist.
func (r *rows) insert(names []string, like engine.Shard) {
	for _, name := range names {
		if r.shard(name) == nil {
			s := engine.Shard{Name: name, Cursor: like.Cursor, Time: like.Time, Claim: engine.NewClaim(), CaughtUp: like.CaughtUp, Filter: like.Filter}
			r.shards = append(r.shards, shard{Shard: s, moved: now()})
			slices.SortFunc(r.shards, func(a, b shard) int { return strings.Compare(a.Name, b.Name) })
		}
	}
}

// first returns the first parked record of a stream; nil if there is none.
func (r *rows) first(stream es.Stream) (first *parked) {
	for _, p := range r.parked {
		if p.Record.Stream == stream && (first == nil || p.Record.Version < first.Record.Version) {
			first = p
		}
	}
	return first
}

// set replaces a parked record by a changed copy.
func (r *rows) set(old *parked, change func(p *parked)) {
	p := *old
	change(&p)
	r.parked[slices.Index(r.parked, old)] = &p
}

// comparePlaces orders parked records of one projection.
func comparePlaces(a, b es.Record) int {
	return cmp.Or(cmp.Compare(a.Position, b.Position), strings.Compare(a.Stream.Kind, b.Stream.Kind), strings.Compare(a.Stream.ID, b.Stream.ID),
		cmp.Compare(a.Version, b.Version), cmp.Compare(a.Part, b.Part))
}

func sameRecord(a, b es.Record) bool {
	return a.Stream == b.Stream && a.Version == b.Version && a.Part == b.Part
}

// clone copies what a caller may change.
func clone(r es.Record) es.Record {
	r.Data, r.Meta, r.Tags = slices.Clone(r.Data), maps.Clone(r.Meta), slices.Clone(r.Tags)
	return r
}
