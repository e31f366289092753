package projection_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A scroll is a log whose reads return only the records that existed when the read began, like a log with large pages.
type scroll struct {
	*es.Mem
	shown atomic.Int64 // number of records returned by all reads
	copy  atomic.Int64 // the data of every record returned; a restored copy of the database has another number
}

func (l *scroll) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		var page []es.Record
		for r, err := range l.Mem.All(ctx, after, filter) {
			if err != nil {
				yield(r, err)
				return
			}
			r.Data = fmt.Append(nil, l.copy.Load())
			page = append(page, r)
		}
		for _, r := range page {
			if l.shown.Add(1); !yield(r, nil) {
				return
			}
		}
	}
}

// write appends n events to a few streams.
func (l *scroll) write(t rapid.TB, n int) {
	for range n {
		head, err := es.Head(context.Background(), l)
		if err == nil {
			_, err = l.Append(context.Background(), es.Append{
				Stream: es.Stream{Kind: "account", ID: fmt.Sprint(head % 37)}, Expected: es.AnyVersion, Events: []es.Record{{Type: "deposited"}},
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A reader is a feed with the records that it returned.
type reader struct {
	projection.Feed
	at  projection.Cursor
	got []es.Record
}

func newReader(t rapid.TB, source projection.Source, shard string, at projection.Cursor) *reader {
	f, err := source.Feed(context.Background(), shard, at, es.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return &reader{Feed: f, at: at}
}

func (r *reader) close(t rapid.TB) {
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// read reads one batch.
func (r *reader) read(t rapid.TB, most int) {
	b, err := r.Next(context.Background(), most)
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range b.Records {
		if c := projection.Cursor(record.Position); c <= r.at || c > b.Next {
			t.Fatalf("position %d came between the cursors %d and %d", record.Position, r.at, b.Next)
		}
	}
	r.got, r.at = append(r.got, b.Records...), b.Next
}

// readTo reads batches until one ends at or after a cursor.
func (r *reader) readTo(t rapid.TB, upTo projection.Cursor) {
	for r.at < upTo {
		r.read(t, 1000)
	}
}

// two opens the feeds of both shards of a log with a number of records.
func two(t *testing.T, records int) (l *scroll, source projection.Source, a, b *reader) {
	l = &scroll{Mem: new(es.Mem)}
	l.write(t, records)
	source = projection.FromLog(l)
	a, b = newReader(t, source, "0/2", 0), newReader(t, source, "1/2", 0)
	t.Cleanup(func() { a.close(t); b.close(t) })
	return l, source, a, b
}

// places returns the positions of records, in order.
func places(records ...[]es.Record) []es.Position {
	var all []es.Position
	for _, r := range slices.Concat(records...) {
		all = append(all, r.Position)
	}
	slices.Sort(all)
	return all
}

// dense reports whether positions are 1, 2, 3 and so on up to n.
func dense(positions []es.Position, n int) bool {
	for i, p := range positions {
		if p != es.Position(i+1) {
			return false
		}
	}
	return len(positions) == n
}

func TestShardsThatKeepPaceReadTheLogOnce(t *testing.T) {
	const records, shards = 50_000, 4
	l := &scroll{Mem: new(es.Mem)}
	l.write(t, records)
	source := projection.FromLog(l)
	var readers []*reader
	for i := range shards {
		readers = append(readers, newReader(t, source, fmt.Sprintf("%d/%d", i, shards), 0))
	}
	var got [][]es.Record
	for slices.ContainsFunc(readers, func(r *reader) bool { return r.at < records }) {
		for _, r := range readers {
			if r.at < records {
				r.read(t, 250)
			}
		}
	}
	for _, r := range readers {
		r.close(t)
		got = append(got, r.got)
	}
	if all := places(got...); !dense(all, records) {
		t.Errorf("%d records came, of %d", len(all), records)
	}
	// Before the last one was opened, each of the others read ahead to its limit.
	if n := l.shown.Load(); n > 2*records {
		t.Errorf("the log was read for %d records, of %d", n, records)
	}
}

func TestAShardThatStandsStillHoldsUpNoOther(t *testing.T) {
	const records = 60_000
	_, _, still, moves := two(t, records)
	// One shard is first ahead of the other, then behind it.
	for _, step := range []struct {
		r    *reader
		upTo projection.Cursor
	}{{moves, records / 2}, {still, records}, {moves, records}} {
		step.r.readTo(t, step.upTo)
	}
	if all := places(still.got, moves.got); !dense(all, records) {
		t.Errorf("%d records came, of %d", len(all), records)
	}
}

// An operator restores the database while programs run. Records that were buffered before must not be returned as those of the
// restored database.
func TestAFeedHasWhatWasReadSinceItWasOpened(t *testing.T) {
	const records, at = 20_000, 10_000
	l, source, _, moves := two(t, records)
	moves.readTo(t, records)
	l.copy.Store(1)
	for _, shard := range []string{"0/2", "1/2"} {
		r := newReader(t, source, shard, at)
		r.readTo(t, records)
		r.close(t)
		if i := slices.IndexFunc(r.got, func(r es.Record) bool { return string(r.Data) != "1" }); i >= 0 {
			t.Errorf("%s: position %d is from the copy before", shard, r.got[i].Position)
		}
	}
}

// A laggard is a log whose Changed reports an old head until fixed is closed.
type laggard struct {
	*scroll
	once  es.Position
	fixed chan struct{}
}

func (l *laggard) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	if after < l.once {
		return l.once, nil
	}
	select {
	case <-l.fixed:
		return l.Mem.Changed(ctx, after)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// A read that began before records were written does not return them. The feed that continues it knows that the records exist.
func TestAReadThatGoesOnIsNotTakenToTheEndOfTheLog(t *testing.T) {
	l := &laggard{&scroll{Mem: new(es.Mem)}, 500, make(chan struct{})}
	l.write(t, 1000)
	source := projection.FromLog(l)
	a, b := newReader(t, source, "0/2", 0), newReader(t, source, "1/2", 0)
	defer a.close(t)
	defer b.close(t)
	a.read(t, 1000)
	b.read(t, 1000)
	l.write(t, 100)
	close(l.fixed)
	for _, r := range []*reader{a, b} {
		r.readTo(t, 1100)
	}
	if all := places(a.got, b.got); !dense(all, 1100) {
		t.Errorf("%d records came, of 1100", len(all))
	}
}

// Feeds are opened and closed, read or pause, while the log grows. Each record must come exactly once, from its own shard.
func TestFeedsOfOneSourceSkipNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const shards = 3
		l := &scroll{Mem: new(es.Mem)}
		l.write(t, rapid.IntRange(1, 3000).Draw(t, "records"))
		source := projection.FromLog(l)
		var readers [shards]*reader
		for i := range readers {
			readers[i] = newReader(t, source, fmt.Sprintf("%d/%d", i, shards), 0)
			defer func() { readers[i].close(t) }()
		}
		catchUp := func(r *reader, most int) {
			head, err := es.Head(t.Context(), l)
			if err == nil && r.at < projection.Cursor(head) {
				r.read(t, most)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			i := rapid.IntRange(0, shards-1).Draw(t, "shard")
			switch r := readers[i]; rapid.SampledFrom([]string{"write", "read", "read", "read", "reopen"}).Draw(t, "step") {
			case "write":
				l.write(t, rapid.SampledFrom([]int{1, 100, 800}).Draw(t, "records"))
			case "read":
				catchUp(r, rapid.SampledFrom([]int{1, 300, 3000}).Draw(t, "most"))
			case "reopen":
				r.close(t)
				again := newReader(t, source, fmt.Sprintf("%d/%d", i, shards), r.at)
				again.got = r.got
				readers[i] = again
			}
		}
		head, err := es.Head(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		var got [][]es.Record
		for _, r := range readers {
			r.readTo(t, projection.Cursor(head))
			got = append(got, r.got)
		}
		if all := places(got...); !dense(all, int(head)) {
			t.Fatalf("%d records came, of %d", len(all), head)
		}
	})
}
