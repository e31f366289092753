package conformance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// sourceClauses are about records that come from elsewhere.
func sourceClauses() []clause {
	return []clause{
		{"records may come from another log",
			"A service keeps read models of events that are in another database, and counts their positions.",
			appliesForeign},
		{"checkpoint of another source is refused",
			"To go on from there would skip what the new source has below it. The error wraps es.ErrInvalid and says what to do; Rebuild lets the projection begin anew with the new source.",
			refusesOtherSource},
		{"checkpoint beyond the end of the source is refused",
			"The source was restored from an older copy. The *es.AheadError says so, and nothing is applied.",
			refusesAhead},
		{"failed source is retried",
			"It is another database, which may be away. Nothing is skipped or applied twice, and Status tells of the error meanwhile.",
			triesSource},
		{"every shard of a source is followed",
			"Topics have their partitions, whatever Partitions says, with cursors that are not the records' positions. A batch that is divided to find a record that fails goes by them.",
			appliesShards},
	}
}

func appliesForeign(t *trial) {
	s, other := t.side(), new(es.Mem)
	t.appendSome(s, 7)
	p := t.listing("foreign")
	p.Source = projection.FromLog(other)
	last := t.appendSome(other, 20)
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.reach(s, p.Name, t.appendSome(other, 5))
	t.enlisted(p.Name, other, es.Filter{})
	t.ends(r)
	if status := t.status(s, p.Name); len(status) != 1 || status[0].Source != other.ID() || status[0].Head != -1 || status[0].Lag != -1 || status[0].Behind != -1 {
		t.Errorf("Status says %+v: want the source %s, and -1 for what the store does not know of it", status, other.ID())
	}
}

func refusesOtherSource(t *trial) {
	s, other := t.side(), new(es.Mem)
	last := t.appendSome(s, 5)
	p := t.listing("other")
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.ends(r)
	t.appendSome(other, 9)
	p.Source = projection.FromLog(other)
	if err := t.stops(t.project(s, p)); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("Project with another source returned %v: want an error that wraps es.ErrInvalid", err)
	}
	t.enlisted(p.Name, s, es.Filter{})
	if err := s.Rebuild(t.ctx, p.Name, 0); err != nil {
		t.Errorf("Rebuild returned %v", err)
	}
	t.project(s, p)
	t.reach(s, p.Name, 9)
	t.enlisted(p.Name, other, es.Filter{})
}

// A posing source has the ID of another.
type posing struct {
	projection.Source
	id string
}

// ID implements [projection.Source].
func (p posing) ID() string { return p.id }

func refusesAhead(t *trial) {
	s, whole, older := t.side(), new(es.Mem), new(es.Mem)
	last := t.appendSome(whole, 9)
	p := t.listing("ahead")
	p.Source = posing{projection.FromLog(whole), "the source"}
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.ends(r)
	t.appendSome(older, 6)
	p.Source = posing{projection.FromLog(older), "the source"}
	err := t.stops(t.project(s, p))
	if ahead := (*es.AheadError)(nil); !errors.As(err, &ahead) || *ahead != (es.AheadError{After: 9, Head: 6}) {
		t.Errorf("Project returned %v for a checkpoint of 9 in a log of 6: want a *es.AheadError", err)
	}
	t.enlisted(p.Name, whole, es.Filter{})
}

// A failing source fails until it is mended, at reading and at beginning to.
type failing struct {
	projection.Source
	mended *atomic.Bool
	begun  *atomic.Int32
}

// Feed implements [projection.Source].
func (f failing) Feed(ctx context.Context, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
	if f.begun.Add(1)%2 == 0 && !f.mended.Load() {
		return nil, errMend
	}
	feed, err := f.Source.Feed(ctx, shard, after, filter)
	return failingFeed{feed, f.mended}, err
}

type failingFeed struct {
	projection.Feed
	mended *atomic.Bool
}

// Next implements [projection.Feed].
func (f failingFeed) Next(ctx context.Context, _ int) (projection.Batch, error) {
	b, err := f.Feed.Next(ctx, 5)
	if !f.mended.Load() && b.Next > 10 {
		return projection.Batch{}, errMend
	}
	return b, err
}

func triesSource(t *trial) {
	s := t.side()
	last := t.appendSome(s, 30)
	p := t.listing("again")
	source := failing{projection.FromLog(s), new(atomic.Bool), new(atomic.Int32)}
	p.Source = source
	t.project(s, p)
	t.until("Status tells of the error, twice", func() bool {
		status := t.status(s, p.Name)
		return len(status) == 1 && strings.Contains(status[0].Error, errMend.Error()) && source.begun.Load() > 2
	})
	source.mended.Store(true)
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})
}

// A topic is a source of two shards, each with records at cursors of its own.
type topic struct{ records int }

// ID implements [projection.Source].
func (topic) ID() string { return "topic" }

// Shards implements [projection.Source].
func (topic) Shards(context.Context, int) ([]string, error) {
	return []string{"topic-0", "topic-1"}, nil
}

// Feed implements [projection.Source].
func (s topic) Feed(_ context.Context, shard string, after projection.Cursor, _ es.Filter) (projection.Feed, error) {
	return &topicFeed{topic: s, shard: shard, at: after}, nil
}

type topicFeed struct {
	topic
	shard string
	at    projection.Cursor
	ended bool
}

// Next implements [projection.Feed]. The record with the number n is at the cursor 100 n.
func (f *topicFeed) Next(ctx context.Context, most int) (projection.Batch, error) {
	b := projection.Batch{Next: f.at, End: projection.Cursor(100 * f.records)}
	for n := int(f.at/100) + 1; n <= f.records && len(b.Records) < most; n++ {
		data := "good"
		if n == 5 {
			data = "bad"
		}
		b.Records = append(b.Records, es.Record{
			Stream: es.Stream{Kind: f.shard, ID: fmt.Sprint(n % 3)}, Version: es.Version(n), Position: es.Position(math.MaxInt32 - n), Time: time.UnixMicro(1), Type: "t", Data: []byte(data),
		})
		b.Cursors = append(b.Cursors, projection.Cursor(100*n))
		b.Next = projection.Cursor(100 * n)
	}
	f.at = b.Next
	if len(b.Records) == 0 && f.ended {
		<-ctx.Done()
		return projection.Batch{}, ctx.Err()
	}
	f.ended = b.Next >= b.End
	return b, nil
}

// Applied implements [projection.Feed].
func (f *topicFeed) Applied(projection.Cursor) {}

// Close implements [projection.Feed].
func (f *topicFeed) Close() error { return nil }

func appliesShards(t *trial) {
	s := t.side()
	p := t.parking("topics", always)
	p.Source, p.Partitions = topic{20}, 3
	p.Batch = 7
	p.OnProgress = func(g projection.Progress) {
		if g.Cursor%100 != 0 || g.Cursor > 2000 {
			t.Errorf("OnProgress was told of the cursor %d: want one of the source's", g.Cursor)
		}
	}
	whole := func() bool {
		status := t.status(s, p.Name)
		return len(status) == 2 && status[0].Cursor == 2000 && status[1].Cursor == 2000 && status[0].CaughtUp && status[1].CaughtUp
	}
	r := t.project(s, p)
	t.until("both shards are at their end", whole)
	t.ends(r)
	lines := byStream(t.lines(p.Name))
	for _, shard := range []string{"topic-0", "topic-1"} {
		t.equal("what is applied of a stream without a bad record", lines[shard+"/1"], []string{"1", "4", "7", "10", "13", "16", "19"})
		t.equal("what is applied of the stream with a bad record", lines[shard+"/2"], []string{"2"})
	}
	if n := len(t.parkedIDs(s)); n != 12 {
		t.Errorf("%d records are parked: want those with the numbers 5, 8 up to 20 of two shards", n)
	}
	if err := s.WaitFor(t.ctx, p.Name, 1); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("WaitFor a position of a source that is no log returned %v: want an error that wraps es.ErrInvalid", err)
	}
}
