package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/projection"
)

// ledger is the [engine.Ledger] of a store.
//
// One transaction is in flight at a time, as in SQLite. It changes copies of the rows, which replace the committed ones when it commits.
// Everything else reads what is committed. A row is therefore never locked by another transaction.
type ledger struct {
	*tables
	log    *es.Mem
	once   sync.Once
	closed chan struct{}
}

var errClosed = fmt.Errorf("memory: %w", es.ErrClosed)

func (l *ledger) close() { l.once.Do(func() { close(l.closed) }) }

// check returns an error if the store is closed or the context has ended.
func (l *ledger) check(ctx context.Context) error {
	select {
	case <-l.closed:
		return errClosed
	default:
		return ctx.Err()
	}
}

// Passing implements [engine.Store]. Memory has no transient faults.
func (l *ledger) Passing(error) bool { return false }

// Missing implements [engine.Store]. Read models are Go values.
func (l *ledger) Missing(error) bool { return false }

// Hold implements [engine.Store]. A transaction does not block appends or heartbeats.
func (l *ledger) Hold() time.Duration { return 0 }

// Log implements [engine.Store].
func (l *ledger) Log() es.Log { return l.log }

// Recall implements [engine.Store].
func (l *ledger) Recall(ctx context.Context, positions []es.Position) iter.Seq2[es.Record, error] {
	return engine.RecallFrom(ctx, l.log, positions)
}

// Overview implements [engine.Ledger].
func (l *ledger) Overview(ctx context.Context, k engine.Key) (engine.Overview, error) {
	r := l.read(k)
	o := engine.Overview{Header: r.header, Workers: l.workers(k)}
	o.Asked = slices.ContainsFunc(r.parked, func(p *parked) bool { return p.request != "" })
	for _, s := range r.shards {
		s.Live = l.alive(k, s.Holder)
		o.Shards = append(o.Shards, s.Shard)
	}
	return o, l.check(ctx)
}

// Checkpoints implements [engine.Ledger].
func (l *ledger) Checkpoints(ctx context.Context, name string) ([]engine.Checkpoint, error) {
	var all []engine.Checkpoint
	keys, of := l.sorted()
	for _, k := range slices.Backward(keys) {
		r := of[k]
		if k.Name != name || len(r.shards) == 0 {
			continue
		}
		c := engine.Checkpoint{Key: k, Kind: r.header.Kind, Cursor: r.shards[0].place(), Partitions: r.header.Partitions, CaughtUp: true}
		for _, s := range r.shards {
			c.Cursor, c.CaughtUp, c.Error = min(c.Cursor, s.place()), c.CaughtUp && s.CaughtUp, max(c.Error, s.message)
		}
		all = append(all, c)
	}
	return all, l.check(ctx)
}

// Status implements [engine.Ledger].
func (l *ledger) Status(ctx context.Context) ([]projection.Status, error) {
	list := []projection.Status{}
	keys, of := l.sorted()
	for _, k := range keys {
		r := of[k]
		var filter es.Filter
		if r.header.Filter != "" {
			var err error
			if filter, err = canon.Parse(r.header.Filter); err != nil {
				return nil, err
			}
		}
		for _, s := range r.shards {
			status := projection.Status{
				Name: k.Name, Version: k.Version, Shard: s.Name, Kind: r.header.Kind, Source: r.header.Source, Filter: filter,
				Cursor: s.place(), Time: engine.TimeOf(s.Time),
				CaughtUp: s.CaughtUp, Error: s.message, ErrorAt: engine.TimeOf(s.messageAt),
			}
			if still := now() - s.moved; still > 0 {
				status.Lag = &projection.Lag{Age: time.Duration(still) * time.Microsecond}
			}
			if l.alive(k, s.Holder) {
				status.Worker = s.Holder
			}
			if s.Needs != "" && s.needsAt == s.Cursor && !l.known(k, s.Needs) {
				status.NeedsType = s.Needs
			}
			for _, p := range r.parked {
				if p.shard == s.Name {
					status.Parked++
				}
			}
			if p, err := part.Parse(s.Name); err == nil {
				var next int64
				status.Waiting, next = r.timers.of(p)
				status.NextDue = engine.TimeOf(next)
			}
			list = append(list, status)
		}
	}
	return list, l.check(ctx)
}

// Holding implements [engine.Ledger].
func (l *ledger) Holding(ctx context.Context, _ engine.Key, _ string) (engine.Session, bool, error) {
	return engine.Session{}, false, l.check(ctx)
}

// Last implements [engine.Ledger].
func (l *ledger) Last(ctx context.Context, k engine.Key, name string) (last engine.Last, err error) {
	for _, s := range l.read(k).shards {
		if s.Name == name {
			last.Moved = s.moved
			if l.has(k, s.Holder) {
				last.Holder = s.Holder
			}
		}
	}
	return last, l.check(ctx)
}

// Blocked implements [engine.Ledger].
func (l *ledger) Blocked(ctx context.Context, k engine.Key, shard string) ([]es.Stream, error) {
	var streams []es.Stream
	for _, p := range l.read(k).parked {
		if p.shard == shard && !slices.Contains(streams, p.Record.Stream) {
			streams = append(streams, p.Record.Stream)
		}
	}
	return streams, l.check(ctx)
}

// Requests implements [engine.Ledger].
func (l *ledger) Requests(ctx context.Context, k engine.Key) ([]engine.Request, error) {
	var requests []engine.Request
	for _, p := range l.read(k).parked {
		r := engine.Request{Shard: p.shard, Stream: p.Record.Stream}
		if p.request != "" && !slices.Contains(requests, r) {
			requests = append(requests, r)
		}
	}
	return requests, l.check(ctx)
}

// FirstParked implements [engine.Ledger].
func (l *ledger) FirstParked(ctx context.Context, k engine.Key, stream es.Stream) (p projection.Parked, request string, found bool, err error) {
	if first := l.read(k).first(stream); first != nil {
		p, request, found = first.Parked, first.request, true
		p.Record = clone(p.Record)
	}
	return p, request, found, l.check(ctx)
}

// Parked implements [engine.Ledger].
func (l *ledger) Parked(ctx context.Context, after projection.Parked, limit int) ([]projection.Parked, error) {
	var page []projection.Parked
	keys, of := l.sorted()
	for _, k := range keys {
		order := compareKeys(k, engine.Key{Name: after.Name, Version: after.Version})
		for _, p := range of[k].parked {
			if len(page) == limit {
				return page, l.check(ctx)
			}
			if order > 0 || order == 0 && comparePlaces(p.Record, after.Record) > 0 {
				c := p.Parked
				c.Record = clone(c.Record)
				page = append(page, c)
			}
		}
	}
	return page, l.check(ctx)
}

// Heartbeat implements [engine.Ledger].
func (l *ledger) Heartbeat(ctx context.Context, k engine.Key, name string, lease time.Duration, lacks []string) error {
	if err := l.check(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beats[worker{k, name}] = beat{now() + lease.Microseconds(), lacks}
	return nil
}

// Leave implements [engine.Ledger].
func (l *ledger) Leave(ctx context.Context, k engine.Key, name string) error {
	if err := l.check(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.beats, worker{k, name})
	return nil
}

// Lacks implements [engine.Ledger].
func (l *ledger) Lacks(ctx context.Context, k engine.Key) (map[string][]string, error) {
	return l.lacks(k), l.check(ctx)
}

// Need implements [engine.Ledger].
func (l *ledger) Need(ctx context.Context, k engine.Key, s engine.Shard, eventType string) error {
	return l.change(ctx, k, func(r *rows) {
		if there := r.claimed(s); there != nil {
			there.Needs, there.needsAt = eventType, there.Cursor
		}
	})
}

// Take implements [engine.Ledger].
func (l *ledger) Take(ctx context.Context, k engine.Key, seen engine.Shard, worker string) (s engine.Shard, taken bool, err error) {
	err = l.change(ctx, k, func(r *rows) {
		there := r.claimed(seen)
		if there == nil || there.Filter != 0 && there.Filter != seen.Filter || there.Holder != "" && there.Holder != worker && l.alive(k, there.Holder) {
			return
		}
		there.Holder, there.Claim, there.AtEnd = worker, engine.NewClaim(), false
		s, taken = there.Shard, true
		s.Filter = seen.Filter
	})
	return s, taken && err == nil, err
}

// Release implements [engine.Ledger].
func (l *ledger) Release(ctx context.Context, k engine.Key, s engine.Shard) error {
	return l.change(ctx, k, func(r *rows) {
		if there := r.claimed(s); there != nil {
			there.Holder = ""
		}
	})
}

// Fail implements [engine.Ledger].
func (l *ledger) Fail(ctx context.Context, k engine.Key, s engine.Shard, message string) error {
	return l.change(ctx, k, func(r *rows) {
		if there := r.shard(s.Name); there != nil && (s.Claim == 0 || s.Claim == there.Claim) {
			there.message, there.messageAt = message, now()
		}
	})
}

// Request implements [engine.Ledger].
func (l *ledger) Request(ctx context.Context, k engine.Key, stream es.Stream, want string) (found bool, err error) {
	err = l.change(ctx, k, func(r *rows) {
		if first := r.first(stream); first != nil {
			r.set(first, func(p *parked) { p.request = want })
			found = true
		}
	})
	return found, err
}

// Insert implements [engine.Ledger].
func (l *ledger) Insert(_ context.Context, tx *Tx, k engine.Key, h engine.Header) (inserted bool, err error) {
	if l.in(tx, k) != nil {
		return false, nil
	}
	tx.rows[k] = &rows{header: fresh(h)}
	return true, nil
}

// fresh returns the header of a projection that starts.
func fresh(h engine.Header) engine.Header {
	h.Replaced, h.Barrier, h.Rebuild, h.Found = "", -1, false, true
	return h
}

// Describe implements [engine.Ledger].
func (l *ledger) Describe(_ context.Context, tx *Tx, k engine.Key, h engine.Header) error {
	r := l.edit(tx, k)
	r.header.Kind, r.header.Filter, r.header.Prepares = h.Kind, h.Filter, h.Prepares
	r.header.Delays = r.header.Delays || h.Delays
	for i := range r.shards {
		r.shards[i].Filter = cmp.Or(r.shards[i].Filter, canon.Mark(h.Filter))
	}
	return nil
}

// SetRebuild implements [engine.Ledger].
func (l *ledger) SetRebuild(_ context.Context, tx *Tx, k engine.Key, requested bool) error {
	l.edit(tx, k).header.Rebuild = requested
	return nil
}

// SetIdentity implements [engine.Ledger].
func (l *ledger) SetIdentity(_ context.Context, tx *Tx, k engine.Key, identity string) error {
	l.edit(tx, k).header.Identity = identity
	return nil
}

// Refilter implements [engine.Ledger].
func (l *ledger) Refilter(_ context.Context, tx *Tx, k engine.Key, filter string, past bool) error {
	r := l.edit(tx, k)
	r.header.Replaced, r.header.Filter = r.header.Filter, filter
	for i := range r.shards {
		s := &r.shards[i]
		s.detach()
		s.Filter, s.Past, s.PastEnd = canon.Mark(filter), 0, 0
		if past {
			s.PastEnd = s.Cursor
		}
	}
	return nil
}

// Rewind implements [engine.Ledger].
func (l *ledger) Rewind(_ context.Context, tx *Tx, k engine.Key, to projection.Cursor) error {
	r := l.edit(tx, k)
	for i := range r.shards {
		s := &r.shards[i]
		s.detach()
		s.Cursor, s.Time, s.message, s.messageAt, s.moved = to, 0, "", 0, now()
		if s.PastEnd = min(s.PastEnd, to); s.Past >= to {
			s.Past, s.PastEnd = 0, 0
		}
	}
	r.parked = slices.DeleteFunc(r.parked, func(p *parked) bool { return projection.Cursor(p.Record.Position) > to })
	r.timers = r.timers.without(engine.Timer{}, lastTimer, func(t engine.Timer) bool { return projection.Cursor(t.Position) > to })
	return nil
}

// Rename implements [engine.Ledger].
func (l *ledger) Rename(_ context.Context, tx *Tx, old, name string) error {
	keys, _ := l.sorted()
	for _, k := range keys {
		if k.Name != old {
			continue
		}
		r, to := l.edit(tx, k), engine.Key{Name: name, Version: k.Version}
		for _, p := range r.parked {
			r.set(p, func(p *parked) { p.Name = name })
		}
		if tx.renamed == nil {
			tx.renamed = make(map[engine.Key]engine.Key)
		}
		tx.rows[k], tx.rows[to], tx.renamed[k] = nil, r, to
	}
	return nil
}

// Lock implements [engine.Ledger].
func (l *ledger) Lock(_ context.Context, tx *Tx, k engine.Key) (h engine.Header, err error) {
	if r := l.in(tx, k); r != nil {
		h = r.header
	}
	return h, nil
}

// SetPartitions implements [engine.Ledger].
func (l *ledger) SetPartitions(_ context.Context, tx *Tx, k engine.Key, partitions int) error {
	l.edit(tx, k).header.Partitions = partitions
	return nil
}

// SetBarrier implements [engine.Ledger].
func (l *ledger) SetBarrier(_ context.Context, tx *Tx, k engine.Key, barrier projection.Cursor) error {
	l.edit(tx, k).header.Barrier = barrier
	return nil
}

// Restart implements [engine.Ledger].
func (l *ledger) Restart(_ context.Context, tx *Tx, k engine.Key, h engine.Header) error {
	r := l.edit(tx, k)
	r.header, r.shards, r.parked = fresh(h), nil, nil
	return nil
}

// InsertShards implements [engine.Ledger].
func (l *ledger) InsertShards(_ context.Context, tx *Tx, k engine.Key, names []string, like engine.Shard) error {
	l.edit(tx, k).insert(names, like)
	return nil
}

// IdleShards implements [engine.Ledger].
func (l *ledger) IdleShards(_ context.Context, tx *Tx, k engine.Key) (idle []engine.Shard, all int, err error) {
	if r := l.in(tx, k); r != nil {
		for _, s := range r.shards {
			idle = append(idle, s.Shard)
		}
	}
	return idle, len(idle), nil
}

// Replace implements [engine.Ledger].
func (l *ledger) Replace(_ context.Context, tx *Tx, k engine.Key, names []string, like engine.Shard, shardOf func(es.Stream) string) error {
	r := l.edit(tx, k)
	r.header.Barrier, r.shards = -1, nil
	r.insert(names, like)
	for i, old := range r.parked {
		p := *old
		p.shard = shardOf(p.Record.Stream)
		r.parked[i] = &p
	}
	return nil
}

// Move implements [engine.Ledger].
func (l *ledger) Move(_ context.Context, tx *Tx, k engine.Key, s engine.Shard, to engine.Target) (moved bool, err error) {
	there := l.edit(tx, k).claimed(s)
	if there != nil && s.PastEnd > 0 {
		return there.movePast(s.Cursor, to.Cursor), nil
	}
	if there == nil || there.Cursor != s.Cursor {
		return false, nil
	}
	there.Cursor, there.Time, there.message, there.messageAt, there.moved = to.Cursor, to.Time, "", 0, now()
	there.CaughtUp, there.AtEnd = there.CaughtUp || to.End, there.AtEnd || to.End
	return true, nil
}

// movePast moves the place in the past that a shard replays.
func (s *shard) movePast(from, to projection.Cursor) (moved bool) {
	if s.PastEnd == 0 || s.Past != from {
		return false
	}
	s.message, s.messageAt, s.moved = "", 0, now()
	if s.Past = to; to >= s.PastEnd {
		s.Past, s.PastEnd = 0, 0
	}
	return true
}

// MoveInline implements [engine.Ledger]. A store in memory has no inline projections.
func (l *ledger) MoveInline(context.Context, *Tx, engine.Key, projection.Cursor, engine.Target) (moved bool, err error) {
	return false, errors.ErrUnsupported
}

// Park implements [engine.Ledger].
func (l *ledger) Park(_ context.Context, tx *Tx, k engine.Key, shard string, r *es.Record, message string, attempts int) error {
	p := &parked{shard: shard, Parked: projection.Parked{Name: k.Name, Version: k.Version, Record: clone(*r), Error: message, Attempts: attempts, At: engine.TimeOf(now())}}
	if p.Record.Data == nil {
		p.Record.Data = []byte{}
	}
	rows := l.edit(tx, k)
	i, found := slices.BinarySearchFunc(rows.parked, p, func(a, b *parked) int { return comparePlaces(a.Record, b.Record) })
	if found {
		return fmt.Errorf("memory: park %s: it is parked already", r.ID())
	}
	rows.parked = slices.Insert(rows.parked, i, p)
	return nil
}

// Unpark implements [engine.Ledger].
func (l *ledger) Unpark(_ context.Context, tx *Tx, k engine.Key, r es.Record) error {
	rows := l.edit(tx, k)
	rows.parked = slices.DeleteFunc(rows.parked, func(p *parked) bool { return sameRecord(p.Record, r) })
	if next := rows.first(r.Stream); next != nil {
		rows.set(next, func(p *parked) { p.request = engine.RequestRetry })
	}
	return nil
}

// FailParked implements [engine.Ledger].
func (l *ledger) FailParked(_ context.Context, tx *Tx, k engine.Key, r es.Record, message string) error {
	rows := l.edit(tx, k)
	for _, old := range rows.parked {
		if sameRecord(old.Record, r) {
			rows.set(old, func(p *parked) {
				p.Error, p.At, p.request = message, engine.TimeOf(now()), ""
				p.Attempts++
			})
			break
		}
	}
	return nil
}

// Workers implements [engine.Ledger].
func (l *ledger) Workers(_ context.Context, _ *Tx, k engine.Key) (int, error) {
	return l.workers(k), nil
}

// Forget implements [engine.Ledger].
func (l *ledger) Forget(_ context.Context, tx *Tx, k engine.Key) error {
	tx.rows[k] = nil
	return nil
}
