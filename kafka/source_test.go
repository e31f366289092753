package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/projection"
)

func source(t testing.TB, b bank, change ...func(*kafka.SourceConfig)) *kafka.Source {
	t.Helper()
	c := kafka.SourceConfig{Cluster: kafka.Cluster{Config: b.config()}, Topics: []string{b.topic}, Logger: testLog(t)}
	for _, f := range change {
		f(&c)
	}
	s, err := c.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func feed(t testing.TB, s *kafka.Source, shard string, after projection.Cursor, filter es.Filter) projection.Feed {
	t.Helper()
	f, err := s.Feed(t.Context(), shard, after, filter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// readAll reads a feed to its end and checks each batch.
func readAll(t testing.TB, f projection.Feed, after projection.Cursor, most int) (records []es.Record, cursors []projection.Cursor, next projection.Cursor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for next = after; ; {
		b, err := f.Next(ctx, most)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Records) != len(b.Cursors) || len(b.Records) > most || b.Next < next || b.End < b.Next {
			t.Fatalf("a batch of %d records with %d cursors, from %d to %d of %d", len(b.Records), len(b.Cursors), next, b.Next, b.End)
		}
		for _, c := range b.Cursors {
			if c <= next || c > b.Next {
				t.Fatalf("a record with cursor %d after %d, in a batch to %d", c, next, b.Next)
			}
			next = c
		}
		records, cursors, next = append(records, b.Records...), append(cursors, b.Cursors...), b.Next
		if b.Next == b.End {
			return records, cursors, next
		}
	}
}

func TestFeedReturnsCommittedRecordsFromAnyCursor(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		all := p.publish(500, 7)
		s := source(t, b)
		shards, err := s.Shards(t.Context(), 4)
		if err != nil || !cmp.Equal(shards, []string{b.topic + "/0"}) {
			t.Fatalf("the shards are %q, %v", shards, err)
		}
		f := feed(t, s, shards[0], 0, es.Filter{})
		records, cursors, next := readAll(t, f, 0, 64)
		if diff := cmp.Diff(all, records); diff != "" {
			t.Fatal(diff)
		}
		for _, i := range []int{0, 1, 250, 499} {
			rest, _, end := readAll(t, feed(t, s, shards[0], cursors[i], es.Filter{}), cursors[i], 1000)
			if diff := cmp.Diff(all[i+1:], rest, cmpopts.EquateEmpty()); diff != "" || end != next {
				t.Fatalf("from %d on to %d: %s", cursors[i], end, diff)
			}
		}

		// At the end, Next reports it once, waits, and then returns new records.
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if b, err := f.Next(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%+v, %v", b, err)
		}
		f = feed(t, s, shards[0], next, es.Filter{})
		if records, _, _ := readAll(t, f, next, 10); len(records) > 0 {
			t.Fatalf("%d records after the end", len(records))
		}
		more := p.publish(3, 7)
		for records = nil; len(records) < len(more); { // the first batches may end at an aborted transaction
			var some []es.Record
			some, _, next = readAll(t, f, next, 10)
			records = append(records, some...)
		}
		if diff := cmp.Diff(more, records); diff != "" {
			t.Fatal(diff)
		}

		// Filtered records move the cursor.
		f = feed(t, s, shards[0], 0, es.Filter{Types: []string{"none"}})
		if records, _, _ := readAll(t, f, 0, 100); len(records) > 0 {
			t.Fatalf("%d records passed the filter", len(records))
		}
	})
}

func TestFeedErrors(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		p.publish(100, 1)
		s := source(t, b)
		shard := b.topic + "/0"
		if _, _, end := readAll(t, feed(t, s, shard, 0, es.Filter{}), 0, 100); end == 0 {
			shard = b.topic + "/1"
		}

		t.Run("a cursor beyond the end", func(t *testing.T) {
			_, err := s.Feed(t.Context(), shard, 10_000, es.Filter{})
			var ahead *es.AheadError
			if !errors.As(err, &ahead) || ahead.After != 10_000 {
				t.Errorf("%v", err)
			}
		})
		t.Run("an invalid shard", func(t *testing.T) {
			for _, shard := range []string{b.topic + "/2", "bank.transfer/0", "x", b.topic + "/", b.topic + "/-1"} {
				if _, err := s.Feed(t.Context(), shard, 0, es.Filter{}); !errors.Is(err, es.ErrInvalid) {
					t.Errorf("%s: %v", shard, err)
				}
			}
		})
		t.Run("records of another store", func(t *testing.T) {
			other := source(t, b, func(c *kafka.SourceConfig) { c.Stores = []string{"store-2"} })
			_, err := feed(t, other, shard, 0, es.Filter{}).Next(t.Context(), 10)
			if !errors.Is(err, es.ErrInvalid) {
				t.Errorf("%v", err)
			}
		})
		t.Run("deleted records", func(t *testing.T) {
			b.deleteBefore(t, int32(shard[len(shard)-1]-'0'), 150)
			_, err := s.Feed(t.Context(), shard, 20, es.Filter{})
			if !errors.Is(err, es.ErrInvalid) {
				t.Errorf("from within: %v", err)
			}
			if _, err = s.Feed(t.Context(), shard, 0, es.Filter{}); !errors.Is(err, es.ErrInvalid) {
				t.Errorf("from the beginning: %v", err)
			}
			oldest := source(t, b, func(c *kafka.SourceConfig) { c.Oldest = true })
			if records, _, _ := readAll(t, feed(t, oldest, shard, 0, es.Filter{}), 0, 100); len(records) == 0 || len(records) == 100 {
				t.Errorf("from the oldest there were %d", len(records))
			}
			if _, err := oldest.Feed(t.Context(), shard, 20, es.Filter{}); !errors.Is(err, es.ErrInvalid) {
				t.Errorf("from within, the oldest: %v", err)
			}
		})
		t.Run("a topic that has grown", func(t *testing.T) {
			grown := source(t, b)
			if grown.ID() != s.ID() {
				t.Fatalf("%s and %s", grown.ID(), s.ID())
			}
			b.grow(t, 3)
			if grown = source(t, b); grown.ID() == s.ID() {
				t.Errorf("it is still %s", s.ID())
			}
		})
		t.Run("a recreated topic", func(t *testing.T) {
			b.deleteTopic(t)
			b.createTopic(t, b.topic, 2)
			if again := source(t, b); again.ID() == s.ID() {
				t.Errorf("it is still %s", s.ID())
			}
		})
	})
}

func TestSourceDropsDuplicates(t *testing.T) {
	t.Parallel()
	encodings(t, func(t *testing.T, encoding kafka.Encoding) {
		b := fake(t, 1)
		p := newPublisher(t, b)
		p.encoding = encoding
		var all []es.Record
		for i := range 90 {
			r := p.record(fmt.Sprint(i%5), "{}")
			r.Time = time.UnixMicro(1e15 + int64(i/10)*1000).UTC() // ten in each millisecond
			all = append(all, r)
		}
		p.send(true, all[:60]...)
		p.send(true, all[35:50]...) // the relay began again
		p.send(true, all[40:90]...) // and again
		s := source(t, b, func(c *kafka.SourceConfig) { c.Deduplicate = true })
		records, cursors, _ := readAll(t, feed(t, s, b.topic+"/0", 0, es.Filter{}), 0, 20)
		if diff := cmp.Diff(all, records); diff != "" {
			t.Fatal(diff)
		}
		// From any cursor, including those between duplicates.
		step := projection.Cursor(7)
		if testing.Short() {
			step = 31
		}
		for after := projection.Cursor(1); after <= cursors[len(cursors)-1]; after += step {
			var want []es.Record
			for i, c := range cursors {
				if c > after {
					want = append(want, all[i])
				}
			}
			rest, _, _ := readAll(t, feed(t, s, b.topic+"/0", after, es.Filter{}), after, 100)
			if diff := cmp.Diff(want, rest, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("from %d on: %s", after, diff)
			}
		}
	})
}
