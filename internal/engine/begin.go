package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// starts are the cursors at which the shards of a reaction begin that has no checkpoints, by the name of the shard. nil means the beginning.
type starts map[string]projection.Cursor

// logOf returns the log that a source reads, or nil if it is not a log.
func logOf(s projection.Source) es.Log {
	if l, ok := s.(interface{ Log() es.Log }); ok {
		return l.Log()
	}
	return nil
}

// begins returns where the shards of a new reaction begin. A projection begins at the beginning, because its read model is empty. The effects
// of a reaction are in the world, so a beginning must be given: it can be everything that has ever happened.
func (t *task[Tx]) begins(ctx context.Context, names []string) (starts, error) {
	if t.react == nil {
		return nil, nil
	}
	s := make(starts, len(names))
	if log := logOf(t.source); log != nil {
		at, err := t.beginsIn(ctx, log)
		if errors.Is(err, es.ErrUnavailable) { // of another database, which may be away when this one is not
			err = classifySourceError(err)
		}
		for _, name := range names {
			s[name] = at
		}
		return s, err
	}
	known, isKnown := t.from.Known()
	switch {
	case isKnown && known == 0:
		return s, nil
	case t.from != (projection.Start{}) && t.from != projection.Head():
		return nil, fmt.Errorf("%w: it cannot begin there, as its source is not a log: give From: Head() or Beginning()", es.ErrInvalid)
	}
	for _, name := range names {
		end, err := t.end(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("end of shard %s: %w", name, err)
		}
		if s[name] = end; end > 0 && t.from != projection.Head() {
			return nil, fmt.Errorf("%w: it has no checkpoint, and shard %s is not empty: give From: Head(), or Beginning() to react to all of it", es.ErrInvalid, name)
		}
	}
	return s, nil
}

func (t *task[Tx]) beginsIn(ctx context.Context, log es.Log) (projection.Cursor, error) {
	if t.from != (projection.Start{}) {
		at, err := t.from.In(ctx, log)
		return projection.Cursor(at), err
	}
	head, err := es.Head(ctx, log)
	if err == nil && head > 0 {
		err = fmt.Errorf("%w: it has no checkpoint, and the log has %d records: give From: Head(), or Beginning() to react to them", es.ErrInvalid, head)
	}
	return 0, err
}

// end returns the end of a shard of a source that is not a log.
func (t *task[Tx]) end(ctx context.Context, shard string) (_ projection.Cursor, err error) {
	feed, err := t.source.Feed(ctx, shard, 0, es.Filter{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, feed.Close()) }()
	b, err := feed.Next(ctx, 1)
	return b.End, err
}
