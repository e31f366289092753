package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
)

// join creates the rows of the projection, or checks that the existing ones are of the same source. The last program to start decides
// the number of partitions.
func (t *task[Tx]) join(ctx context.Context) error {
	found, err := t.refuseName(ctx)
	if err != nil {
		return err
	}
	names, err := t.source.Shards(ctx, t.partitions)
	if err != nil {
		return fmt.Errorf("shards of the source: %w", err)
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: source %s has no shards", es.ErrInvalid, t.source.ID())
	}
	wanted := len(names)
	if !slices.Equal(names, part.Names(len(names))) {
		t.shards, wanted = names, 0
	}
	if !found {
		if t.starts, err = t.begins(ctx, names); err != nil {
			return err
		}
	}
	err = t.enter(ctx, names, wanted)
	if errors.Is(err, errForgotten) {
		if t.starts, err = t.begins(ctx, names); err == nil {
			err = t.enter(ctx, names, wanted)
		}
	}
	return err
}

// errForgotten reports that the checkpoints of a reaction were removed before it could continue them.
var errForgotten = errors.New("its checkpoints have just been removed")

// enter is the transaction of join.
func (t *task[Tx]) enter(ctx context.Context, names []string, wanted int) error {
	made := false
	err := t.preparing(ctx, func(ctx context.Context, tx Tx) (err error) {
		made, err = t.engine.ledger.Insert(ctx, tx, t.key, t.header(wanted))
		if err != nil {
			return err
		}
		if made && t.starts == nil && t.react != nil {
			return errForgotten
		}
		if made {
			return t.start(ctx, tx, names)
		}
		h, err := t.engine.ledger.Lock(ctx, tx, t.key)
		if err == nil && !h.Found {
			err = errLost // Forget has just removed it
		}
		if err == nil {
			err = t.refuseKind(t.key, h.Kind)
		}
		if err == nil && h.Rebuild {
			h.Rebuild, err = t.mayRestart(ctx, tx)
		}
		switch {
		case err != nil:
			return err
		case h.Rebuild:
			return t.restart(ctx, tx, wanted)
		case h.Source != t.source.ID():
			return fmt.Errorf("%w: its checkpoints are of source %s, not %s: raise Version, or use Rebuild or Forget",
				es.ErrInvalid, h.Source, t.source.ID())
		}
		if err := t.refuseFilter(h.Filter); err != nil {
			return err
		}
		if err := t.describe(ctx, tx, h); err != nil {
			return err
		}
		switch {
		case wanted == 0:
			return t.engine.ledger.InsertShards(ctx, tx, t.key, names, Shard{Filter: t.mark})
		case h.Partitions != wanted:
			return t.engine.ledger.SetPartitions(ctx, tx, t.key, wanted)
		}
		return nil
	})
	if err == nil && made {
		// Also after a change of its name, which es rename would have moved the checkpoints to.
		t.log.Info("begins without checkpoints", "cursor", int64(t.starts[names[0]]))
	}
	return err
}

// mayRestart reports whether a requested rebuild can be carried out. Without Prepare everything would be done twice, so the request, of an
// older release, say, is dropped.
func (t *task[Tx]) mayRestart(ctx context.Context, tx Tx) (bool, error) {
	if t.prepare != nil {
		return true, nil
	}
	t.log.Warn("request for a rebuild dropped", "err", fmt.Errorf("it has no Prepare, so everything would be done twice: use Replay if that is meant"))
	return false, t.engine.ledger.SetRebuild(ctx, tx, t.key, false)
}

// start sets the checkpoints to where they begin and calls Prepare.
func (t *task[Tx]) start(ctx context.Context, tx Tx, names []string) error {
	for _, name := range names {
		if err := t.engine.ledger.InsertShards(ctx, tx, t.key, []string{name}, Shard{Cursor: t.starts[name], Filter: t.mark}); err != nil {
			return err
		}
	}
	if t.prepare == nil {
		return nil
	}
	if err := t.guard(func() error { return t.prepare(ctx, tx) }); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return nil
}

// preparing runs a transaction that may call Prepare.
func (t *task[Tx]) preparing(ctx context.Context, work func(ctx context.Context, tx Tx) error) error {
	o := Options{Idle: t.lease}
	if t.prepare == nil {
		return t.engine.ledger.Transact(ctx, o, work)
	}
	o.Handler = t.handler(t.waiting)
	return t.transact(ctx, o, work)
}

// waiting logs why a transaction that belongs to no shard waits.
func (t *task[Tx]) waiting(err error) { t.log.Warn("waiting", "err", err) }

// restart replaces the shards of an existing projection, with new claims, and starts it.
func (t *task[Tx]) restart(ctx context.Context, tx Tx, partitions int) error {
	names := t.shards
	if names == nil {
		names = part.Names(partitions)
	}
	// Restart waits for transactions of shards in flight before Prepare empties the read model.
	if err := t.engine.ledger.Restart(ctx, tx, t.key, t.header(partitions)); err != nil {
		return err
	}
	return t.start(ctx, tx, names)
}

// reset carries out a requested rebuild, unless another worker has done so.
func (t *task[Tx]) reset(ctx context.Context) error {
	started := false
	err := t.preparing(ctx, func(ctx context.Context, tx Tx) error {
		h, err := t.engine.ledger.Lock(ctx, tx, t.key)
		if err == nil && h.Rebuild {
			started, err = t.mayRestart(ctx, tx)
		}
		if err != nil || !started {
			return err
		}
		return t.restart(ctx, tx, h.Partitions)
	})
	if err == nil && started {
		t.log.Info("rebuild started")
	}
	return err
}

// divide changes the number of shards to the requested one. A division needs one cursor for all shards, so it first sets a barrier at the
// highest cursor of any shard. When all shards have reached it, their rows are replaced.
func (t *task[Tx]) divide(ctx context.Context) error {
	return t.engine.ledger.Transact(ctx, Options{Idle: t.lease}, func(ctx context.Context, tx Tx) error {
		h, err := t.engine.ledger.Lock(ctx, tx, t.key)
		if err != nil || h.Rebuild {
			return err
		}
		// A missing shard is locked by a transaction in flight: try again later.
		rows, all, err := t.engine.ledger.IdleShards(ctx, tx, t.key)
		if err != nil || len(rows) < all || replays(rows) {
			return err
		}
		if all == h.Partitions {
			if h.Barrier < 0 {
				return nil
			}
			// The requested number of partitions was withdrawn; clear the barrier so that the shards can proceed.
			return t.engine.ledger.SetBarrier(ctx, tx, t.key, -1)
		}
		whole, together := Shard{CaughtUp: true, Filter: t.mark}, true
		for i, r := range rows {
			whole.Cursor, whole.Time, whole.CaughtUp = max(whole.Cursor, r.Cursor), max(whole.Time, r.Time), whole.CaughtUp && r.CaughtUp
			together = together && (i == 0 || r.Cursor == rows[i-1].Cursor)
		}
		if !together {
			if h.Barrier == whole.Cursor {
				return nil
			}
			return t.engine.ledger.SetBarrier(ctx, tx, t.key, whole.Cursor)
		}
		shardOf := func(s es.Stream) string { return part.Of(s.String(), h.Partitions).String() }
		if err := t.engine.ledger.Replace(ctx, tx, t.key, part.Names(h.Partitions), whole, shardOf); err != nil {
			return err
		}
		t.log.Info("repartitioned", "partitions", h.Partitions, "cursor", int64(whole.Cursor))
		return nil
	})
}

// extendEvery is the interval at which a source with its own shards is asked for new ones.
const extendEvery = 30 * time.Second

// extend adds new shards of the source.
func (t *task[Tx]) extend(ctx context.Context, seen Overview) error {
	if t.shards == nil || time.Since(t.extended) < extendEvery {
		return nil
	}
	t.extended = time.Now()
	names, err := t.source.Shards(ctx, t.partitions)
	if err != nil {
		t.log.Warn("retrying", "what", "shards of the source", "err", err)
		return nil
	}
	there := seen.names()
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(there, name) })
	if len(names) == 0 {
		return nil
	}
	t.shards = append(slices.Clone(t.shards), names...)
	return t.engine.ledger.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		return t.engine.ledger.InsertShards(ctx, tx, t.key, names, Shard{Filter: t.mark})
	})
}
