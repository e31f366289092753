package conformance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A SourceUnderTest is a source with the log that its records come from, and a database for read models, as [TestSource] tries it.
type SourceUnderTest[Tx any] struct {
	// Log is what the suite appends to. All of it is to come out of the source, by way of a relay for instance.
	Log es.Log

	// Source opens the source: each call another one, as another process would have it.
	Source func() projection.Source

	// Side opens a store in the database of the read models, and Lists are those; as in [TestProjections].
	Side  func() ReadSide[Tx]
	Lists Lists[Tx]
}

// TestSource tests whether a source of projections keeps the promises of [projection.Source] and [projection.Feed], by itself and with read models that are fed from it.
// For each clause it calls fresh, which makes a log, a source and a database of which nobody has taken anything so far.
//
// It is for sources that are no logs, such as topics; [TestProjections] has tried a backend with those that are.
// What it cannot test: that a source survives what may happen to its servers, and that one which has lost records says so.
func TestSource[Tx any](t *testing.T, fresh func(t *testing.T) SourceUnderTest[Tx]) {
	t.Helper()
	run(t, fedClauses(), func(t *testing.T) *trial { return fedTrial(fresh(t)) })
}

func fedTrial[Tx any](f SourceUnderTest[Tx]) *trial {
	t := projectionTrial(f.Side, f.Lists)
	t.log, t.source = func() es.Log { return f.Log }, f.Source
	return t
}

func fedClauses() []clause {
	clauses := []clause{
		{"feeds return every record once and each stream in order",
			"Whoever reads all shards has read the log. The cursors rise, and a batch says where it ends.",
			feedsAll},
		{"feed starts after its cursor",
			"A worker that takes over begins where the checkpoint is. A record less is missing from the read model for ever, and one more is there twice.",
			feedsFrom},
		{"feed returns what its filter matches and passes the rest",
			"The checkpoint moves, or the same records are looked at again with every start.",
			feedsFiltered},
		{"feed at the end reports it and then waits",
			"Who reads an empty shard must learn that he has caught up. A feed that waits ends with its context.",
			feedsEnd},
		{"cursor beyond the end is refused",
			"The source has lost its end, and would give other records under the same cursors. The error wraps *es.AheadError.",
			feedsAhead},
		{"ID and shards are stable",
			"A checkpoint of another source is refused.",
			sourceIsSame},
		{"read model survives restarts and failures",
			"The checkpoint moves in the transaction of the read model, and each start goes on behind it.",
			feedsModel},
		{"two workers divide the source",
			"Each shard is fed to one of them, and when that ends the other goes on behind its checkpoint.",
			feedsWorkers},
		{"read model catches up with an empty source",
			"A program that waits for its read model would otherwise not start until the first record.",
			feedsNothing},
		{"failing record is isolated and parked",
			"A batch is divided by the cursors of its records: what stands before the bad one is applied once.",
			feedsParked},
		{"rebuilt read model starts from the beginning",
			"All records are still there, and come again in the same order.",
			feedsAnew},
		{"reaction gets every record and resumes at its checkpoint",
			"Commands are run by it that others wait for.",
			feedsReaction},
	}
	for i, c := range clauses {
		clauses[i].test = func(t *trial) {
			defer t.endRuns()
			c.test(t)
		}
	}
	return clauses
}

// A shardRead is what was read of a shard.
type shardRead struct {
	records []es.Record
	cursors []projection.Cursor
	next    projection.Cursor
}

// add adds a batch that was asked for with so many records at most.
func (r *shardRead) add(t *trial, b projection.Batch, most int) {
	cursors := b.Cursors
	if cursors == nil {
		for _, record := range b.Records {
			cursors = append(cursors, projection.Cursor(record.Position))
		}
	}
	if len(cursors) != len(b.Records) || len(b.Records) > most || b.Next < r.next || b.End < b.Next {
		t.Fatalf("Next(%d) returned %d records with %d cursors, up to %d of %d, after %d", most, len(b.Records), len(cursors), b.Next, b.End, r.next)
	}
	for _, c := range cursors {
		if c <= r.next || c > b.Next {
			t.Fatalf("a record has the cursor %d, after %d, in a batch up to %d", c, r.next, b.Next)
		}
		r.next = c
	}
	r.records, r.cursors, r.next = append(r.records, b.Records...), append(r.cursors, cursors...), b.Next
}

// readUpTo reads a shard from one cursor to another, from a source of its own.
func (t *trial) readUpTo(shard string, after, upTo projection.Cursor, filter es.Filter) []es.Record {
	f, done := t.feed(t.source(), shard, after, filter)
	defer done()
	r := &shardRead{next: after}
	for r.next < upTo {
		b, err := f.Next(t.ctx, 4)
		if err != nil {
			t.Fatalf("Next behind the cursor %d of %s returned %v, short of %d", r.next, shard, err, upTo)
		}
		r.add(t, b, 4)
	}
	return r.records
}

func (t *trial) shards(s projection.Source) []string {
	shards, err := s.Shards(t.ctx, 1)
	if err != nil || len(shards) == 0 {
		t.Fatalf("Shards returned %q and %v", shards, err)
	}
	return shards
}

func (t *trial) feed(s projection.Source, shard string, after projection.Cursor, filter es.Filter) (f projection.Feed, done func()) {
	f, err := s.Feed(t.ctx, shard, after, filter)
	if err != nil {
		t.Fatalf("Feed(%s, %d) returned %v", shard, after, err)
	}
	return f, func() {
		if err := f.Close(); err != nil {
			t.Errorf("Close of a feed returned %v", err)
		}
	}
}

// readSource reads all shards at once, until they have so many records together.
func (t *trial) readSource(s projection.Source, want int) map[string]*shardRead {
	shards := t.shards(s)
	all := make(map[string]*shardRead, len(shards))
	for _, shard := range shards {
		all[shard] = new(shardRead)
	}
	reading, enough := context.WithCancel(t.ctx)
	defer enough()
	var count atomic.Int64
	t.race(len(shards), func(i int) {
		f, done := t.feed(s, shards[i], 0, es.Filter{})
		defer done()
		for r := all[shards[i]]; ; {
			b, err := f.Next(reading, 7)
			if err != nil {
				if reading.Err() == nil {
					t.Errorf("Next of %s returned %v", shards[i], err)
				}
				return
			}
			r.add(t, b, 7)
			if count.Add(int64(len(b.Records))) >= int64(want) {
				enough()
				return
			}
		}
	})
	if n := count.Load(); n != int64(want) {
		t.Fatalf("%d records were read, of %d", n, want)
	}
	return all
}

func feedsAll(t *trial) {
	l := t.log()
	t.append(l, add(stream("many"), 40))
	t.appendSome(l, 30)
	read := t.readSource(t.source(), 70)
	var got []string
	shardOf := make(map[es.Stream]string)
	for shard, r := range read {
		for _, record := range r.records {
			if other, seen := shardOf[record.Stream]; seen && other != shard {
				t.Errorf("records of %s are in %s and in %s", record.Stream, other, shard)
			}
			shardOf[record.Stream] = shard
		}
		got = append(got, ids(r.records)...)
	}
	t.equal("what was read, by stream", byStream(got), byStream(ids(t.all(l))))
	want := make(map[string]es.Record)
	for _, r := range t.all(l) {
		want[r.ID()] = r
	}
	for _, r := range read {
		for _, record := range r.records {
			t.equal("record "+record.ID(), record, want[record.ID()])
		}
	}
}

func feedsFrom(t *trial) {
	l := t.log()
	t.appendSome(l, 25)
	for shard, r := range t.readSource(t.source(), 25) {
		for i := 0; i < len(r.records); i += 3 {
			again := t.readUpTo(shard, r.cursors[i], r.next, es.Filter{})
			t.equal(fmt.Sprintf("what stands behind the cursor %d of %s", r.cursors[i], shard), ids(again), ids(r.records[i+1:]))
		}
	}
}

func feedsFiltered(t *trial) {
	l := t.log()
	filter := es.Filter{Kinds: []string{"estest"}, Types: []string{"happened"}}
	for range 3 {
		t.appendSome(l, 5)
		t.append(l, es.Append{Stream: stream("a"), Expected: es.AnyVersion, Events: []es.Record{{Type: "other", Data: []byte("1")}}})
	}
	for shard, r := range t.readSource(t.source(), 18) {
		want := slices.DeleteFunc(slices.Clone(r.records), func(r es.Record) bool { return !filter.Match(r) })
		t.equal("what the filter lets through of "+shard, ids(t.readUpTo(shard, 0, r.next, filter)), ids(want))
	}
}

func feedsEnd(t *trial) {
	l, s := t.log(), t.source()
	t.appendSome(l, 10)
	for shard, r := range t.readSource(s, 10) {
		f, done := t.feed(s, shard, r.next, es.Filter{})
		for told := false; !told; {
			b, err := f.Next(t.ctx, 5)
			if err != nil {
				t.Fatalf("Next at the end of %s returned %v", shard, err)
			}
			t.equal("the records behind the end", ids(b.Records), []string{})
			told = b.Next >= b.End
		}
		ctx, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
		if b, err := f.Next(ctx, 5); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next behind the end of %s returned %+v and %v: want it to wait, and the context's error", shard, b, err)
		}
		cancel()
		done()
	}
}

func feedsAhead(t *trial) {
	l, s := t.log(), t.source()
	t.appendSome(l, 10)
	for shard := range t.readSource(s, 10) {
		f, err := s.Feed(t.ctx, shard, math.MaxInt32, es.Filter{})
		if err == nil {
			_, err = f.Next(t.ctx, 5)
			_ = f.Close()
		}
		if ahead := (*es.AheadError)(nil); !errors.As(err, &ahead) {
			t.Errorf("a feed of %s behind the cursor %d returned %v: want a *es.AheadError", shard, math.MaxInt32, err)
		}
	}
}

func sourceIsSame(t *trial) {
	one := t.source()
	t.appendSome(t.log(), 5)
	two := t.source()
	if one.ID() == "" || one.ID() != two.ID() {
		t.Errorf("the source has the id %q, and opened again %q", one.ID(), two.ID())
	}
	t.equal("the shards", t.shards(two), t.shards(one))
}

// arrives waits until a list has as many records as the log, and sees that they are those of the log, by stream.
func (t *trial) arrives(list string, l es.Log) {
	want := t.all(l)
	t.until(fmt.Sprintf("%d records are in the list %s", len(want), list), func() bool { return len(t.lines(list)) >= len(want) })
	t.enlistedByStream(list, l)
}

// fed is a projection into a list, from a source that is opened for it.
func (t *trial) fed(name string) anyProjection {
	p := t.listing(name)
	p.Source, p.Batch = t.source(), 6
	return p
}

func feedsModel(t *trial) {
	l, s := t.log(), t.side()
	for i := range 4 {
		t.appendSome(l, 15)
		p, failed := t.fed("fed"), i%2 == 0
		handle := p.Handle
		p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
			err := handle(ctx, tx, records)
			if err == nil && !failed {
				failed = true
				return errMend
			}
			return err
		}
		r := t.project(s, p)
		t.arrives("fed", l)
		t.appendSome(l, 3)
		t.arrives("fed", l)
		t.ends(r)
	}
}

func feedsWorkers(t *trial) {
	l := t.log()
	t.appendSome(l, 20)
	first := t.project(t.side(), t.fed("shared"))
	t.arrives("shared", l)
	second := t.project(t.side(), t.fed("shared"))
	for range 3 {
		t.appendSome(l, 10)
		t.arrives("shared", l)
	}
	t.ends(first)
	t.appendSome(l, 10)
	t.arrives("shared", l)
	t.ends(second)
}

func feedsNothing(t *trial) {
	l, s := t.log(), t.side()
	p, up := t.fed("nothing"), newFlag()
	p.OnCaughtUp = func(context.Context) error {
		up.raise()
		return nil
	}
	t.project(s, p)
	t.await(up, "OnCaughtUp is called for a source that has nothing")
	t.appendSome(l, 5)
	t.arrives("nothing", l)
}

func feedsParked(t *trial) {
	l, s := t.log(), t.side()
	t.poison(l, 20, 11)
	t.appendSome(l, 10)
	p := t.parking("parked", always)
	p.Source, p.Batch, p.OnError = t.source(), 50, es.Stop
	if stopped := t.stopped(s, p); stopped.Record.ID() != "estest/p/12" {
		t.Errorf("the projection stopped before %s: want estest/p/12", stopped.Record.ID())
	}
	p.Source, p.OnError = t.source(), es.Park // it begins in the middle of what was a batch
	t.project(s, p)
	t.until("the rest of the stream is parked, and the others are applied", func() bool {
		return len(t.parkedIDs(s)) == 9 && len(t.lines("parked")) >= 21
	})
	lines := byStream(t.lines("parked"))
	t.equal("what is applied of the stream with a bad record", lines["estest/p"], numbers(1, 11))
	for i := range 5 {
		t.equal("what is applied of another stream", lines[fmt.Sprintf("estest/s%d", i)], numbers(1, 2))
	}
}

// numbers are those from one to another, as text.
func numbers(from, to int) []string {
	var all []string
	for n := from; n <= to; n++ {
		all = append(all, fmt.Sprint(n))
	}
	return all
}

func feedsAnew(t *trial) {
	l, s := t.log(), t.side()
	t.appendSome(l, 20)
	p := t.fed("anew")
	again, times, empty := newFlag(), 0, p.Prepare
	p.Prepare = func(ctx context.Context, tx any) error {
		if times++; times == 2 {
			again.raise()
		}
		return empty(ctx, tx)
	}
	r := t.project(s, p)
	t.arrives("anew", l)
	if err := s.Rebuild(t.ctx, p.Name, 0); err != nil {
		t.Fatalf("Rebuild returned %v", err)
	}
	t.await(again, "Prepare is called again after Rebuild")
	t.appendSome(l, 5)
	t.arrives("anew", l)
	t.ends(r)
}

func feedsReaction(t *trial) {
	l, s, d := t.log(), t.side(), new(diary)
	for range 3 {
		t.appendSome(l, 10)
		reaction := t.reaction("reacts", d, nil)
		reaction.Source = t.source()
		want := len(t.all(l))
		r := t.reacting(s, reaction)
		t.until("everything is reacted to", func() bool { return len(d.read()) >= want })
		t.until("the checkpoints are behind it", func() bool { return t.atEnd(s, "reacts") })
		t.ends(r)
	}
	t.equal("what was reacted to, by stream", byStream(d.read()), byStream(ids(t.all(l))))
}

// atEnd tells whether nothing stands behind the checkpoints of a projection.
func (t *trial) atEnd(s ReadSide[any], name string) bool {
	source := t.source()
	status := t.status(s, name)
	for _, shard := range status {
		f, done := t.feed(source, shard.Shard, shard.Cursor, es.Filter{})
		b, err := f.Next(t.ctx, 1)
		done()
		if err != nil || len(b.Records) > 0 || b.Next < b.End {
			return false
		}
	}
	return len(status) > 0
}
