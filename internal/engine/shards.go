package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
)

// join creates the rows of the projection, or checks that the existing ones are of the same source. The last program to start decides
// the number of partitions.
func (t *task[Tx]) join(ctx context.Context) error {
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
	return t.engine.db.Transact(ctx, Options{Idle: t.lease}, func(ctx context.Context, tx Tx) error {
		made, err := t.engine.db.Exec(ctx, tx, t.engine.stmts.insert, t.key.with(t.source.ID(), int64(wanted))...)
		if err != nil {
			return err
		}
		if made == 1 {
			return t.start(ctx, tx, names)
		}
		h, err := t.engine.locked(ctx, tx, t.key)
		switch {
		case err != nil:
			return err
		case !h.found:
			return errLost // Forget has just removed it
		case h.rebuild:
			return t.restart(ctx, tx, wanted)
		case h.source != t.source.ID():
			return fmt.Errorf("%w: its checkpoints are of source %s, not %s: raise Version, or use Rebuild or Forget",
				es.ErrInvalid, h.source, t.source.ID())
		case wanted == 0:
			return t.engine.insertShards(ctx, tx, t.key, names, row{})
		case h.partitions != wanted:
			return t.engine.exec(ctx, tx, t.engine.stmts.setPartitions, t.key.with(h.source, int64(wanted))...)
		}
		return nil
	})
}

// start sets the checkpoints to the beginning and calls Prepare.
func (t *task[Tx]) start(ctx context.Context, tx Tx, names []string) error {
	if err := t.engine.insertShards(ctx, tx, t.key, names, row{}); err != nil {
		return err
	}
	if t.prepare == nil {
		return nil
	}
	if err := t.guard(func() error { return t.prepare(ctx, tx) }); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return nil
}

// restart replaces the shards of an existing projection, with new claims, and starts it.
func (t *task[Tx]) restart(ctx context.Context, tx Tx, partitions int) error {
	// The lock waits for transactions of shards in flight before Prepare empties the read model.
	if _, err := t.engine.lockedShards(ctx, tx, t.key, t.engine.stmts.lockShards); err != nil {
		return err
	}
	names := t.shards
	if names == nil {
		names = part.Names(partitions)
	}
	for _, sql := range []string{t.engine.stmts.deleteShards, t.engine.stmts.deleteParked} {
		if err := t.engine.exec(ctx, tx, sql, t.key.with()...); err != nil {
			return err
		}
	}
	if err := t.engine.exec(ctx, tx, t.engine.stmts.rebuilt, t.key.with(t.source.ID(), int64(partitions))...); err != nil {
		return err
	}
	return t.start(ctx, tx, names)
}

// reset carries out a requested rebuild, unless another worker has done so.
func (t *task[Tx]) reset(ctx context.Context) error {
	err := t.engine.db.Transact(ctx, Options{Idle: t.lease}, func(ctx context.Context, tx Tx) error {
		h, err := t.engine.locked(ctx, tx, t.key)
		if err != nil || !h.rebuild {
			return err
		}
		return t.restart(ctx, tx, h.partitions)
	})
	if err == nil {
		t.log.Info("rebuild started")
	}
	return err
}

// divide changes the number of shards to the requested one. A division needs one cursor for all shards, so it first sets a barrier at the
// highest cursor of any shard. When all shards have reached it, their rows are replaced.
func (t *task[Tx]) divide(ctx context.Context) error {
	return t.engine.db.Transact(ctx, Options{Idle: t.lease}, func(ctx context.Context, tx Tx) error {
		h, err := t.engine.locked(ctx, tx, t.key)
		if err != nil || h.rebuild {
			return err
		}
		// A missing row is locked by a transaction in flight: try again later.
		rows, err := t.engine.lockedShards(ctx, tx, t.key, t.engine.stmts.skipShards)
		if err != nil {
			return err
		}
		all := 0
		err = t.engine.db.Query(ctx, tx, func(scan func(...any) error) error { return scan(&all) }, t.engine.stmts.countShards, t.key.with()...)
		if err != nil || len(rows) < all {
			return err
		}
		if all == h.partitions {
			if h.barrier < 0 {
				return nil
			}
			// The requested number of partitions was withdrawn; clear the barrier so that the shards can proceed.
			return t.engine.exec(ctx, tx, t.engine.stmts.setBarrier, t.key.with(int64(-1))...)
		}
		whole, together := row{caught: true}, true
		for i, r := range rows {
			whole.cursor, whole.time, whole.caught = max(whole.cursor, r.cursor), max(whole.time, r.time), whole.caught && r.caught
			together = together && (i == 0 || r.cursor == rows[i-1].cursor)
		}
		if !together {
			if h.barrier == whole.cursor {
				return nil
			}
			return t.engine.exec(ctx, tx, t.engine.stmts.setBarrier, t.key.with(int64(whole.cursor))...)
		}
		return t.replace(ctx, tx, h, whole)
	})
}

func (t *task[Tx]) replace(ctx context.Context, tx Tx, h header, whole row) error {
	if err := t.engine.exec(ctx, tx, t.engine.stmts.deleteShards, t.key.with()...); err != nil {
		return err
	}
	names := part.Names(h.partitions)
	if err := t.engine.insertShards(ctx, tx, t.key, names, whole); err != nil {
		return err
	}
	var streams []es.Stream
	err := t.engine.db.Query(ctx, tx, func(scan func(...any) error) error {
		var s es.Stream
		err := scan(&s.Kind, &s.ID)
		streams = append(streams, s)
		return err
	}, t.engine.stmts.parkedStreams, t.key.with()...)
	if err != nil {
		return err
	}
	for _, s := range streams {
		if err := t.engine.exec(ctx, tx, t.engine.stmts.reshard, t.key.with(s.Kind, s.ID, part.Of(s.String(), h.partitions).String())...); err != nil {
			return err
		}
	}
	if err := t.engine.exec(ctx, tx, t.engine.stmts.setBarrier, t.key.with(int64(-1))...); err != nil {
		return err
	}
	t.log.Info("repartitioned", "partitions", h.partitions, "cursor", int64(whole.cursor))
	return nil
}

// extendEvery is the interval at which a source with its own shards is asked for new ones.
const extendEvery = 30 * time.Second

// extend adds new shards of the source.
func (t *task[Tx]) extend(ctx context.Context, seen state) error {
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
	return t.engine.db.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		return t.engine.insertShards(ctx, tx, t.key, names, row{})
	})
}
