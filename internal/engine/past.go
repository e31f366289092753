package engine

import (
	"context"
	"errors"
	"math"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/projection"
)

// While a shard replays the past, its row has two places: the checkpoint, which stands still, and a place before it. The shard worker
// treats that place as the cursor of the row, and keeps the rest for afterwards.

// present is what a row has beside its place in the past.
type present struct {
	cursor projection.Cursor
	time   int64
}

// enterPast makes the place in the past the cursor of the row.
func (s *shardWorker[Tx]) enterPast() {
	s.present = present{s.row.Cursor, s.row.Time}
	s.row.Cursor = s.row.Past
	s.task.log.Info("past replayed", "shard", s.shard, "from", int64(s.row.Past), "to", int64(s.row.PastEnd))
}

// leavePast makes the checkpoint the cursor of the row again, if the end of the past is reached.
func (s *shardWorker[Tx]) leavePast() {
	if s.row.PastEnd == 0 || s.row.Cursor < s.row.PastEnd {
		return
	}
	s.row.Cursor, s.row.Time = s.present.cursor, s.present.time
	s.row.Past, s.row.PastEnd = 0, 0
}

// feed returns a feed that begins at the cursor of the row: of the records in the past that the filter adds, or of the shard.
func (s *shardWorker[Tx]) feed(ctx context.Context) (projection.Feed, error) {
	feed, err := s.task.source.Feed(ctx, s.shard, s.row.Cursor, s.task.filter)
	if err != nil || s.row.PastEnd == 0 {
		return feed, err
	}
	before, err := canon.Parse(s.row.Replaced)
	if err != nil {
		return nil, errors.Join(err, feed.Close())
	}
	return &pastFeed{Feed: feed, before: before, end: s.row.PastEnd}, nil
}

// pastFeed is a feed of the records up to a cursor that an earlier filter did not let through.
type pastFeed struct {
	projection.Feed
	before es.Filter
	end    projection.Cursor
	done   bool
}

// Next implements [projection.Feed]. The end of the past is not the end of the shard.
func (f *pastFeed) Next(ctx context.Context, limit int) (projection.Batch, error) {
	if f.done {
		<-ctx.Done()
		return projection.Batch{}, ctx.Err()
	}
	b, err := f.Feed.Next(ctx, limit)
	if err != nil {
		return b, err
	}
	kept := projection.Batch{Next: min(b.Next, f.end), End: math.MaxInt64}
	all := piece{records: b.Records, cursors: b.Cursors}
	for i, r := range b.Records {
		if all.cursor(i) > f.end || f.before.Match(r) {
			continue
		}
		kept.Records = append(kept.Records, r)
		if b.Cursors != nil {
			kept.Cursors = append(kept.Cursors, b.Cursors[i])
		}
	}
	f.done = kept.Next == f.end
	return kept, nil
}

// Applied implements [projection.Feed]. What is replayed was read before, so it is no progress of the shard.
func (f *pastFeed) Applied(projection.Cursor) {}

// replay applies the records of the past that a changed filter adds, to the end of the past. It is for inline projections.
func (t *task[Tx]) replay(ctx context.Context, s Shard, replaced string, limit int) (int, error) {
	before, err := canon.Parse(replaced)
	if err != nil {
		return 0, err
	}
	return t.step(ctx, es.Position(s.Past), es.Position(s.PastEnd), limit, stepping[Tx]{
		wanted: func(r es.Record) bool { return !before.Match(r) },
		move: func(ctx context.Context, tx Tx, to Target) (bool, error) {
			s.Cursor = s.Past
			return t.engine.ledger.Move(ctx, tx, t.key, s, to)
		},
	})
}

// stepping is how a step of an inline projection selects records and moves its place.
type stepping[Tx any] struct {
	wanted func(r es.Record) bool
	move   func(ctx context.Context, tx Tx, to Target) (moved bool, err error)
}

// forward steps towards the end of the log.
func (t *task[Tx]) forward(after es.Position) stepping[Tx] {
	return stepping[Tx]{
		wanted: func(es.Record) bool { return true },
		move: func(ctx context.Context, tx Tx, to Target) (bool, error) {
			return t.engine.ledger.MoveInline(ctx, tx, t.key, projection.Cursor(after), to)
		},
	}
}
