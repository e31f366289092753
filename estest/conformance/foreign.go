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

// foreignClauses test sources other than the store's own log.
func foreignClauses() []clause {
	return []clause{
		{"records may come from another log",
			"A service may keep read models of events that are stored in another database. The checkpoint then counts that log's positions.",
			appliesForeign},
		{"checkpoint of another source is refused",
			"Resuming there would skip records of the new source. The error wraps es.ErrInvalid and names the remedy; after Rebuild the projection starts at the beginning of the new source.",
			refusesOtherSource},
		{"checkpoint beyond the end of the source is refused",
			"The source was restored from an older copy. Project returns a *es.AheadError and applies nothing; otherwise new records below the checkpoint are skipped.",
			refusesAhead},
		{"failed source is retried",
			"The source is another database, which may be unavailable. Nothing is skipped or applied twice, and Status has the error in the meantime.",
			retriesSource},
		{"every shard of a source is followed",
			"A source such as a set of topics has its own shards, whatever Partitions says, and cursors that are not positions. If a shard is not followed, its records are lost.",
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
	t.cancel(r)
	if status := t.status(s, p.Name); len(status) != 1 || status[0].Source != other.ID() || status[0].Lag != nil {
		t.Errorf("Status returned %+v: want the source %s, and no lag, which the store cannot know", status, other.ID())
	}
}

func refusesOtherSource(t *trial) {
	s, other := t.side(), new(es.Mem)
	last := t.appendSome(s, 5)
	p := t.listing("other")
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.cancel(r)
	t.appendSome(other, 9)
	p.Source = projection.FromLog(other)
	if err := t.wait(t.project(s, p)); !errors.Is(err, es.ErrInvalid) {
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

// renamedSource is a source with another ID.
type renamedSource struct {
	projection.Source
	id string
}

// ID implements [projection.Source].
func (s renamedSource) ID() string { return s.id }

func refusesAhead(t *trial) {
	s, whole, older := t.side(), new(es.Mem), new(es.Mem)
	last := t.appendSome(whole, 9)
	p := t.listing("ahead")
	p.Source = renamedSource{projection.FromLog(whole), "the source"}
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.cancel(r)
	t.appendSome(older, 6)
	p.Source = renamedSource{projection.FromLog(older), "the source"}
	err := t.wait(t.project(s, p))
	if ahead := (*es.AheadError)(nil); !errors.As(err, &ahead) || *ahead != (es.AheadError{After: 9, Head: 6}) {
		t.Errorf("Project returned %v for a checkpoint of 9 in a log of 6: want a *es.AheadError", err)
	}
	t.enlisted(p.Name, whole, es.Filter{})
}

// failingSource is a source whose Feed and Next fail until it is fixed.
type failingSource struct {
	projection.Source
	fixed *atomic.Bool
	feeds *atomic.Int32
}

// Feed implements [projection.Source].
func (s failingSource) Feed(ctx context.Context, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
	if s.feeds.Add(1)%2 == 0 && !s.fixed.Load() {
		return nil, errHandler
	}
	feed, err := s.Source.Feed(ctx, shard, after, filter)
	return failingFeed{feed, s.fixed}, err
}

type failingFeed struct {
	projection.Feed
	fixed *atomic.Bool
}

// Next implements [projection.Feed].
func (f failingFeed) Next(ctx context.Context, _ int) (projection.Batch, error) {
	b, err := f.Feed.Next(ctx, 5)
	if !f.fixed.Load() && b.Next > 10 {
		return projection.Batch{}, errHandler
	}
	return b, err
}

func retriesSource(t *trial) {
	s := t.side()
	last := t.appendSome(s, 30)
	p := t.listing("again")
	source := failingSource{projection.FromLog(s), new(atomic.Bool), new(atomic.Int32)}
	p.Source = source
	t.project(s, p)
	t.until("Status has the error of Next, and Feed has failed too", func() bool {
		status := t.status(s, p.Name)
		return len(status) == 1 && strings.Contains(status[0].Error, errHandler.Error()) && source.feeds.Load() > 2
	})
	source.fixed.Store(true)
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})
}

// topic is a source of two shards whose cursors are not positions.
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

// Next implements [projection.Feed]. Record number n is at the cursor 100 n.
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

// inParts is a topic with one stream. Its first record was published as three messages, the second of which is bad.
type inParts struct{ topic }

// Shards implements [projection.Source].
func (inParts) Shards(context.Context, int) ([]string, error) { return []string{"topic"}, nil }

// Feed implements [projection.Source].
func (inParts) Feed(_ context.Context, _ string, after projection.Cursor, _ es.Filter) (projection.Feed, error) {
	return &partsFeed{at: after}, nil
}

type partsFeed struct {
	topicFeed
	at projection.Cursor
}

// Next implements [projection.Feed]. Message number n is at the cursor n.
func (f *partsFeed) Next(ctx context.Context, _ int) (projection.Batch, error) {
	const end = 4
	if f.at == end {
		<-ctx.Done()
		return projection.Batch{}, ctx.Err()
	}
	f.at++
	r := es.Record{Stream: es.Stream{Kind: "topic", ID: "1"}, Version: 1, Position: 1, Time: time.UnixMicro(1), Type: "t", Data: []byte("good"), Part: int(f.at)}
	switch f.at {
	case 2:
		r.Data = []byte("bad")
	case end:
		r.Version, r.Position, r.Part = 2, 2, 0
	}
	return projection.Batch{Records: []es.Record{r}, Cursors: []projection.Cursor{f.at}, Next: f.at, End: end}, nil
}

func appliesShards(t *trial) {
	s := t.side()
	p := t.parking("topics", always)
	p.Source, p.Partitions = topic{20}, 3
	p.Batch = 7
	p.OnProgress = func(g projection.Progress) {
		if g.Cursor%100 != 0 || g.Cursor > 2000 {
			t.Errorf("OnProgress got the cursor %d: want a cursor of the source", g.Cursor)
		}
	}
	complete := func() bool {
		status := t.status(s, p.Name)
		return len(status) == 2 && status[0].Cursor == 2000 && status[1].Cursor == 2000 && status[0].CaughtUp && status[1].CaughtUp
	}
	r := t.project(s, p)
	t.until("both shards are at their end", complete)
	t.cancel(r)
	lines := byStream(t.lines(p.Name))
	for _, shard := range []string{"topic-0", "topic-1"} {
		t.equal("the applied records of a stream without a bad record", lines[shard+"/1"], []string{"1", "4", "7", "10", "13", "16", "19"})
		t.equal("the applied records of the stream with a bad record", lines[shard+"/2"], []string{"2"})
	}
	if n := len(t.parkedIDs(s)); n != 12 {
		t.Errorf("%d records are parked: want numbers 5, 8 and so on up to 20, of two shards", n)
	}
	if err := s.WaitFor(t.ctx, p.Name, 1); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("WaitFor with a source that is not a log returned %v: want an error that wraps es.ErrInvalid", err)
	}
}
