package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
)

// join makes the rows of the projection if there are none, and otherwise sees whether they are of the same source. The number of partitions
// becomes that of the last program to start.
func (t *task[Tx]) join(ctx context.Context) error {
	names, err := t.source.Shards(ctx, t.partitions)
	if err != nil {
		return fmt.Errorf("shards of the source: %w", err)
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: its source %s has no shards", es.ErrInvalid, t.source.ID())
	}
	wanted := len(names)
	if !slices.Equal(names, part.Names(len(names))) {
		t.shards, wanted = names, 0
	}
	return t.db.Transact(ctx, Options{Idle: t.lease}, func(ctx context.Context, tx Tx) error {
		made, err := t.db.Exec(ctx, tx, t.say.insert, t.with(t.source.ID(), int64(wanted))...)
		if err != nil {
			return err
		}
		if made == 1 {
			return t.start(ctx, tx, names)
		}
		h, err := t.locked(ctx, tx, t.key)
		switch {
		case err != nil:
			return err
		case !h.found:
			return errLost // forgotten in this moment
		case h.rebuild:
			return t.restart(ctx, tx, wanted)
		case h.source != t.source.ID():
			return fmt.Errorf("%w: its checkpoints are of source %s and this program reads %s: raise Version to build another read model beside it, or let it begin anew with Rebuild or Forget",
				es.ErrInvalid, h.source, t.source.ID())
		case wanted == 0:
			return t.insertShards(ctx, tx, t.key, names, row{})
		case h.partitions != wanted:
			return t.exec(ctx, tx, t.say.want, t.with(h.source, int64(wanted))...)
		}
		return nil
	})
}

// start sets the checkpoints to the beginning and lets the read model be made empty.
func (t *task[Tx]) start(ctx context.Context, tx Tx, names []string) error {
	if err := t.insertShards(ctx, tx, t.key, names, row{}); err != nil {
		return err
	}
	if t.prepare == nil {
		return nil
	}
	if err := guard(func() error { return t.prepare(ctx, tx) }); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return nil
}

// restart starts a projection whose rows are there, with shards and claims that nobody has.
func (t *task[Tx]) restart(ctx context.Context, tx Tx, partitions int) error {
	// Locked, so that no transaction of a shard is under way when Prepare empties what it writes to.
	if _, err := t.Engine.shards(ctx, tx, t.key, t.say.lockShards); err != nil {
		return err
	}
	names := t.shards
	if names == nil {
		names = part.Names(partitions)
	}
	for _, sql := range []string{t.say.deleteShards, t.say.deleteParked} {
		if err := t.exec(ctx, tx, sql, t.with()...); err != nil {
			return err
		}
	}
	if err := t.exec(ctx, tx, t.say.rebuilt, t.with(t.source.ID(), int64(partitions))...); err != nil {
		return err
	}
	return t.start(ctx, tx, names)
}

// reset does the rebuild that somebody has asked for, if no other worker has.
func (t *task[Tx]) reset(ctx context.Context) error {
	err := t.db.Transact(ctx, Options{Idle: t.lease}, func(ctx context.Context, tx Tx) error {
		h, err := t.locked(ctx, tx, t.key)
		if err != nil || !h.rebuild {
			return err
		}
		return t.restart(ctx, tx, h.partitions)
	})
	if err == nil {
		t.log.Info("rebuild begins")
	}
	return err
}

// divide brings the shards to the number of partitions that is wanted. What all of them have read is the same in any division, so all are
// driven to one place first, the furthest that any has come to, and stop there; then the rows are replaced.
func (t *task[Tx]) divide(ctx context.Context) error {
	return t.db.Transact(ctx, Options{Idle: t.lease}, func(ctx context.Context, tx Tx) error {
		h, err := t.locked(ctx, tx, t.key)
		if err != nil || h.rebuild {
			return err
		}
		// A row that is left out is locked by a transaction under way: then another time.
		rows, err := t.Engine.shards(ctx, tx, t.key, t.say.skipShards)
		if err != nil {
			return err
		}
		all := 0
		err = t.db.Query(ctx, tx, func(scan func(...any) error) error { return scan(&all) }, t.say.countShards, t.with()...)
		if err != nil || len(rows) < all {
			return err
		}
		if all == h.partitions {
			if h.barrier < 0 {
				return nil
			}
			// Whoever wanted another number has gone before it came to that, and nobody would ever let the shards go on.
			return t.exec(ctx, tx, t.say.fence, t.with(int64(-1))...)
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
			return t.exec(ctx, tx, t.say.fence, t.with(int64(whole.cursor))...)
		}
		return t.replace(ctx, tx, h, whole)
	})
}

func (t *task[Tx]) replace(ctx context.Context, tx Tx, h header, whole row) error {
	if err := t.exec(ctx, tx, t.say.deleteShards, t.with()...); err != nil {
		return err
	}
	names := part.Names(h.partitions)
	if err := t.insertShards(ctx, tx, t.key, names, whole); err != nil {
		return err
	}
	var streams []es.Stream
	err := t.db.Query(ctx, tx, func(scan func(...any) error) error {
		var s es.Stream
		err := scan(&s.Kind, &s.ID)
		streams = append(streams, s)
		return err
	}, t.say.parkedStreams, t.with()...)
	if err != nil {
		return err
	}
	for _, s := range streams {
		if err := t.exec(ctx, tx, t.say.reshard, t.with(s.Kind, s.ID, part.Of(s.String(), h.partitions).String())...); err != nil {
			return err
		}
	}
	if err := t.exec(ctx, tx, t.say.fence, t.with(int64(-1))...); err != nil {
		return err
	}
	t.log.Info("divided anew", "partitions", h.partitions, "cursor", int64(whole.cursor))
	return nil
}

// extendEvery is how often a source that cannot be divided at will is asked whether it has more shards than before.
const extendEvery = 30 * time.Second

// extend adds shards that the source has got since.
func (t *task[Tx]) extend(ctx context.Context, seen state) error {
	if t.shards == nil || time.Since(t.extended) < extendEvery {
		return nil
	}
	t.extended = time.Now()
	names, err := t.source.Shards(ctx, t.partitions)
	if err != nil {
		t.log.Warn("again in a while", "what", "shards of the source", "error", err)
		return nil
	}
	there := seen.names()
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(there, name) })
	if len(names) == 0 {
		return nil
	}
	t.shards = append(slices.Clone(t.shards), names...)
	return t.db.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		return t.insertShards(ctx, tx, t.key, names, row{})
	})
}
