package conformance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// shardRead is the part of a shard that was read.
type shardRead struct {
	records []es.Record
	cursors []projection.Cursor
	next    projection.Cursor
}

// add checks and adds a batch that Next returned for at most so many records.
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

// readUpTo reads a shard from one cursor to another, from a newly opened source.
func (t *trial) readUpTo(shard string, after, upTo projection.Cursor, filter es.Filter) []es.Record {
	f, done := t.feed(t.source(), shard, after, filter)
	defer done()
	r := &shardRead{next: after}
	for r.next < upTo {
		b, err := f.Next(t.ctx, 4)
		if err != nil {
			t.Fatalf("Next after the cursor %d of %s returned %v, before %d", r.next, shard, err, upTo)
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

// readSource reads all shards concurrently until they have returned so many records in total, or one fails.
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
		defer enough() // a shard ends only when all have enough, or when it fails: then the others need not wait for its records
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
				return
			}
		}
	})
	if n := count.Load(); n != int64(want) {
		t.Fatalf("%d of %d records were read", n, want)
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
	t.equal("the records read, by stream", byStream(got), byStream(ids(t.all(l))))
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
			t.equal(fmt.Sprintf("the records after the cursor %d of %s", r.cursors[i], shard), ids(again), ids(r.records[i+1:]))
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
		t.equal("the matching records of "+shard, ids(t.readUpTo(shard, 0, r.next, filter)), ids(want))
	}
}

func feedsEnd(t *trial) {
	l, s := t.log(), t.source()
	t.appendSome(l, 10)
	for shard, r := range t.readSource(s, 10) {
		f, done := t.feed(s, shard, r.next, es.Filter{})
		for ended := false; !ended; {
			b, err := f.Next(t.ctx, 5)
			if err != nil {
				t.Fatalf("Next at the end of %s returned %v", shard, err)
			}
			t.equal("the records after the end", ids(b.Records), []string{})
			ended = b.Next >= b.End
		}
		ctx, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
		if b, err := f.Next(ctx, 5); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next at the end of %s returned %+v and %v: want it to wait and to return the context's error", shard, b, err)
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
			t.Errorf("a feed of %s after the cursor %d returned %v: want a *es.AheadError", shard, math.MaxInt32, err)
		}
	}
}

func sourceIsSame(t *trial) {
	one := t.source()
	t.appendSome(t.log(), 5)
	two := t.source()
	if one.ID() == "" || one.ID() != two.ID() {
		t.Errorf("the source has the ID %q, and %q when it is opened again", one.ID(), two.ID())
	}
	t.equal("the shards", t.shards(two), t.shards(one))
}
