package engine

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/projection"
)

// WaitFor implements [projection.Projections].
func (e *Engine[Tx]) WaitFor(ctx context.Context, name string, position es.Position) (err error) {
	defer cause.Set(ctx, &err)
	const soon, late = 5 * time.Millisecond, 50 * time.Millisecond
	const refusedAfter = 250 * time.Millisecond // a run that was refused may be followed by one that has not begun
	var last place                              // as it was last seen
	began := time.Now()
	for wait := soon; ; wait = min(wait+wait/2, late) {
		moved := e.moved.wait()
		at, err := e.reached(ctx, name)
		if err == nil && at.found {
			at.refused = e.refused.of(name, at.Kind)
		}
		switch {
		case at.refused != nil && time.Since(began) > refusedAfter:
			return at.refused
		case err == nil && at.found && at.refused == nil && at.Cursor >= projection.Cursor(position):
			return nil
		case err == nil:
			last = at
			last.known = true
		case ctx.Err() != nil:
			return last.waitError(name, position, ctx.Err())
		case !e.passing(err):
			return e.about(ctx, name, err)
		}
		if held := e.overdue.of(name); held != nil {
			return fmt.Errorf("es: %w", held) // its handler may be the caller
		}
		e.awaited.notify()
		timer := time.NewTimer(wait)
		select {
		case <-moved:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return last.waitError(name, position, ctx.Err())
		}
		timer.Stop()
	}
}

// waitError returns the error of a WaitFor whose context ended first.
func (at place) waitError(name string, position es.Position, err error) error {
	switch {
	case !at.known:
		return fmt.Errorf("es: projection %s: the database did not answer whether it is at %d: %w", name, position, err)
	case !at.found:
		return fmt.Errorf("es: projection %s does not exist: it has never run: %w", name, err)
	case at.refused != nil:
		return fmt.Errorf("%w: %w", at.refused, err)
	case at.Error != "":
		return fmt.Errorf("es: projection %s is at %d, before %d, with the error %q: %w", at.Key, at.Cursor, position, at.Error, err)
	}
	return fmt.Errorf("es: projection %s is at %d, before %d: %w", at.Key, at.Cursor, position, err)
}

func (e *Engine[Tx]) about(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("es: projection %s: %w", name, err)
}

// place is the checkpoint of the shard of a projection that lags most.
type place struct {
	known   bool  // whether the database has been read
	found   bool  // whether there is a projection of the name
	refused error // of the last run in this process, if none goes on
	Checkpoint
}

// reached returns the place of the highest version that has ever caught up, or else of the highest version.
func (e *Engine[Tx]) reached(ctx context.Context, name string) (at place, err error) {
	all, err := e.ledger.Checkpoints(ctx, name)
	if err != nil || len(all) == 0 {
		return at, err
	}
	i := max(0, slices.IndexFunc(all, func(c Checkpoint) bool { return c.CaughtUp }))
	at.found, at.Checkpoint = true, all[i]
	for _, c := range all {
		if !sameKind(c.Kind, at.Kind) {
			return at, fmt.Errorf("%w: %s is a %s and %s a %s: Rename one of them", es.ErrInvalid, at.Key, at.Kind, c.Key, c.Kind)
		}
	}
	if at.Partitions == 0 {
		return at, fmt.Errorf("%w: its source is not a log, so it has no positions to wait for", es.ErrInvalid)
	}
	return at, nil
}

// Status implements [projection.Projections].
func (e *Engine[Tx]) Status(ctx context.Context) (_ []projection.Status, err error) {
	defer cause.Set(ctx, &err)
	return e.status(ctx, func(projection.Status) bool { return true })
}

// status returns the shards that which selects. The lag of each costs a look at the log.
func (e *Engine[Tx]) status(ctx context.Context, which func(projection.Status) bool) ([]projection.Status, error) {
	list, err := e.ledger.Status(ctx)
	list = slices.DeleteFunc(list, func(s projection.Status) bool { return !which(s) })
	for i := range list {
		if s := &list[i]; s.Kind == projection.KindInline && s.Worker == "" {
			s.Worker = projection.InlineWorker
		}
	}
	if err == nil {
		err = e.lags(ctx, list)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	} else if err != nil {
		return nil, fmt.Errorf("es: status of projections: %w", err)
	}
	slices.SortFunc(list, func(a, b projection.Status) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), compareShards(a.Shard, b.Shard))
	})
	return list, nil
}

// compareShards sorts 2/12 before 10/12.
func compareShards(a, b string) int {
	number := func(s string) int {
		i, _, _ := strings.Cut(s, "/")
		if n, err := strconv.Atoi(i); err == nil {
			return n
		}
		return -1
	}
	return cmp.Or(cmp.Compare(number(a), number(b)), strings.Compare(a, b))
}

// lags fills in the lag of the projections of the database's own log.
func (e *Engine[Tx]) lags(ctx context.Context, list []projection.Status) error {
	log := e.ledger.Log()
	head, err := es.Head(ctx, log)
	if err != nil {
		return err
	}
	for i := range list {
		s := &list[i]
		still := time.Microsecond // since the checkpoint moved
		if s.Lag != nil {
			still, s.Lag = max(still, s.Lag.Age), nil
		}
		if s.Source != log.ID() {
			continue
		}
		s.Lag = &projection.Lag{Head: head, Positions: max(0, int64(head)-int64(s.Cursor))}
		if s.Lag.Positions == 0 {
			continue
		}
		for r, err := range log.All(ctx, es.Position(s.Cursor), es.Filter{}) {
			if err != nil {
				return err
			}
			if s.Lag.Age = time.Since(r.Time); s.Lag.Age <= 0 {
				// The record is dated in the future, so its time does not say how long it waits.
				s.Lag.ClockAhead, s.Lag.Age = -s.Lag.Age, still
			}
			break
		}
	}
	return nil
}

// Rebuild implements [projection.Projections].
func (e *Engine[Tx]) Rebuild(ctx context.Context, name string, version int) (err error) {
	defer cause.Set(ctx, &err)
	return e.change(ctx, Key{name, version}, func(ctx context.Context, tx Tx, k Key, h Header) error {
		switch {
		case h.Kind == projection.KindReaction:
			return fmt.Errorf("%w: a reaction would have all its effects again: use Replay if that is meant", es.ErrInvalid)
		case h.Prepares == PreparesNo:
			return fmt.Errorf("%w: without Prepare its records would be applied twice: raise Version, or use Replay if that is meant", es.ErrInvalid)
		case h.Prepares == "":
			return fmt.Errorf("%w: it is not known whether it has a Prepare: run it with this release first", es.ErrInvalid)
		}
		return e.ledger.SetRebuild(ctx, tx, k, true)
	})
}

// Forget implements [projection.Projections].
func (e *Engine[Tx]) Forget(ctx context.Context, name string, version int) (err error) {
	defer cause.Set(ctx, &err)
	k := Key{name, version}
	err = e.ledger.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		h, err := e.ledger.Lock(ctx, tx, k)
		if err != nil {
			return err
		}
		if !h.Found {
			return fmt.Errorf("%w: it does not exist", es.ErrInvalid)
		}
		alive, err := e.ledger.Workers(ctx, tx, k)
		if err != nil {
			return err
		}
		if alive > 0 {
			return fmt.Errorf("%w: %d workers run it: stop them first", es.ErrInvalid, alive)
		}
		return e.ledger.Forget(ctx, tx, k)
	})
	if err != nil {
		return e.about(ctx, k.String(), err)
	}
	return nil
}

// Parked implements [projection.Projections]. It reads the records in pages.
func (e *Engine[Tx]) Parked(ctx context.Context) iter.Seq2[projection.Parked, error] {
	return pages(ctx, "parked records", projection.Parked{Version: -1}, 64, e.ledger.Parked)
}

// pages returns what a query returns after start, page by page. what is for its error.
func pages[T any](ctx context.Context, what string, start T, limit int, query func(ctx context.Context, after T, limit int) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		last := start
		for {
			page, err := query(ctx, last, limit)
			if err != nil {
				if ctx.Err() != nil {
					err = ctx.Err()
				} else {
					err = fmt.Errorf("es: %s: %w", what, err)
				}
				var none T
				yield(none, cause.Of(ctx, err))
				return
			}
			for _, row := range page {
				if !yield(row, nil) {
					return
				}
			}
			if len(page) < limit {
				return
			}
			last = page[len(page)-1]
		}
	}
}

// Retry implements [projection.Projections].
func (e *Engine[Tx]) Retry(ctx context.Context, name string, version int, stream es.Stream) (err error) {
	defer cause.Set(ctx, &err)
	return e.request(ctx, Key{name, version}, stream, RequestRetry)
}

// Drop implements [projection.Projections].
func (e *Engine[Tx]) Drop(ctx context.Context, name string, version int, stream es.Stream) (err error) {
	defer cause.Set(ctx, &err)
	return e.request(ctx, Key{name, version}, stream, RequestDrop)
}

// request records a retry or drop for the shard's worker. It is stored on the first parked record, so it applies to that record only.
func (e *Engine[Tx]) request(ctx context.Context, k Key, stream es.Stream, want string) error {
	found, err := e.ledger.Request(ctx, k, stream, want)
	if err == nil && !found {
		err = fmt.Errorf("%w: no record of %s is parked", es.ErrInvalid, stream)
	}
	if err != nil {
		return e.about(ctx, k.String(), err)
	}
	e.changed.notify()
	return nil
}
