package engine

import (
	"context"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
)

// finished reports whether a run with Once has nothing left to do: all shards are at the end of the source, and nothing is due.
// Then OnCaughtUp is called. What is appended or due after that is for another run.
func (t *task[Tx]) finished(ctx context.Context) (bool, error) {
	idle, err := t.isIdle(ctx)
	switch {
	case err == nil && idle:
		return true, t.callOnCaughtUp(ctx)
	case err == nil:
		t.engine.awaited.notify() // checkpoints move without a record too
		return false, nil
	case t.engine.ledger.Passing(err) || isSource(classifySourceError(err)):
		t.log.Warn("retrying", "what", "find out whether all is done", "err", err)
		return false, ctx.Err()
	}
	return false, err
}

func (t *task[Tx]) isIdle(ctx context.Context) (bool, error) {
	log := logOf(t.source)
	if log == nil {
		return true, nil // the shards have reached the end, as far as is known
	}
	before, err := es.Head(ctx, log)
	if err != nil {
		return false, err
	}
	seen, err := t.engine.ledger.Overview(ctx, t.key)
	if err != nil || slices.ContainsFunc(seen.Shards, func(s Shard) bool { return es.Position(s.Cursor) < before || s.PastEnd > 0 }) {
		return false, err
	}
	if seen.Delays {
		due, err := t.engine.ledger.Due(ctx, t.key, part.Part{Of: 1}, Timer{}, t.clockTime(), 1)
		if err != nil || len(due.Timers) > 0 {
			return false, err
		}
	}
	after, err := es.Head(ctx, log) // a timer that fired in between may have appended
	return before == after, err
}
