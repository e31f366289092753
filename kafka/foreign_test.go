package kafka_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/internal/wire"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// sendRaw writes messages as they are, in one transaction, to the partition of their key, or to partition 0 if they have none.
func (p *publisher) sendRaw(messages ...confluent.Message) {
	p.t.Helper()
	err := p.producer.BeginTransaction()
	for _, m := range messages {
		m.TopicPartition = confluent.TopicPartition{Topic: &p.topic, Partition: confluent.PartitionAny}
		if m.Key == nil {
			m.TopicPartition.Partition = 0
		}
		err = errors.Join(err, p.producer.Produce(&m, nil))
	}
	if err := errors.Join(err, p.producer.CommitTransaction(p.t.Context())); err != nil {
		p.t.Fatal(err)
	}
}

// foreignMessages have no header of a relay. Some have the key of a stream that has records.
func foreignMessages() map[string]confluent.Message {
	return map[string]confluent.Message{
		"a tombstone":                   {Key: []byte("a0")},
		"nothing at all":                {},
		"a value without headers":       {Key: []byte("a1"), Value: []byte(`{"n":1}`)},
		"a value of another producer":   {Key: []byte("a0"), Value: []byte("x"), Headers: []confluent.Header{{Key: "content-type", Value: []byte("text/plain")}, {Key: "traceparent"}}},
		"a tombstone with other header": {Key: []byte("a1"), Headers: []confluent.Header{{Key: "source", Value: []byte("erp")}}},
	}
}

// damagedMessages have some header of a relay, or of a dead-letter topic, and are not records.
func damagedMessages(t testing.TB) map[string]confluent.Message {
	t.Helper()
	r := es.Record{Stream: es.Stream{Kind: "account", ID: "a0"}, Version: 1, Position: 1, Type: "happened"}
	without := func(header string) confluent.Message {
		m, err := kafka.CloudEvents.Encode("store-1", r, "t")
		if err != nil {
			t.Fatal(err)
		}
		damaged := confluent.Message{Key: []byte("a0"), Value: []byte("{}")}
		for _, h := range m.Headers {
			if h.Key != header {
				damaged.Headers = append(damaged.Headers, confluent.Header{Key: h.Key, Value: []byte(string(h.Value))})
			}
		}
		return damaged
	}
	deleted := without("")
	deleted.Value = nil
	return map[string]confluent.Message{
		"a CloudEvent without a position": without("ce_position"),
		"a CloudEvent without a stream":   without("ce_subject"),
		"a CloudEvent without a type":     without("ce_type"),
		"a record with a null value":      deleted,
		"one header of a CloudEvent":      {Key: []byte("a0"), Value: []byte("{}"), Headers: []confluent.Header{{Key: "ce_specversion", Value: []byte("1.0")}}},
		"a compact header that ends":      {Key: []byte("a0"), Value: []byte("{}"), Headers: []confluent.Header{{Key: "es", Value: []byte("store-1\x00account\x00hap")}}},
		"metadata alone":                  {Key: []byte("a0"), Value: []byte("{}"), Headers: []confluent.Header{{Key: "es-meta", Value: []byte("a\x00b")}}},
		"a note of a dead-letter topic":   {Key: []byte("a0"), Headers: []confluent.Header{{Key: "es-dlt", Value: []byte("done")}, {Key: "es-dlt-letter", Value: []byte("1")}}},
	}
}

func TestForeignAndDamagedMessagesAreToldApart(t *testing.T) {
	t.Parallel()
	transfers := es.Filter{Kinds: []string{"transfer"}}
	for name, m := range foreignMessages() {
		_, _, err := kafka.Decode(&m)
		if !wire.Foreign(&m) || !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "SkipForeign") {
			t.Errorf("%s: foreign is %v, %v", name, wire.Foreign(&m), err)
		}
		if wire.Match(transfers, &m) || wire.Match(es.Filter{Types: []string{"happened"}}, &m) || !wire.Match(es.Filter{}, &m) {
			t.Errorf("%s: a filter of kinds or types must exclude it, and the empty one must not", name)
		}
	}
	for name, m := range damagedMessages(t) {
		_, _, err := kafka.Decode(&m)
		if wire.Foreign(&m) || !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: foreign is %v, %v", name, wire.Foreign(&m), err)
		}
		if !wire.Match(es.Filter{Kinds: []string{"account"}, Types: []string{"happened"}}, &m) {
			t.Errorf("%s: a filter excludes it that may have matched before it was damaged", name)
		}
	}
	for name, m := range damagedMessages(t) {
		if known := name == "a CloudEvent without a position" || name == "a CloudEvent without a type" || name == "a record with a null value" ||
			name == "a compact header that ends"; wire.Match(transfers, &m) == known {
			t.Errorf("%s: a filter of another kind matches: %v", name, !known)
		}
	}
}

// readRefused reads a feed until its error.
func readRefused(t testing.TB, f projection.Feed) (records []es.Record, next projection.Cursor, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		b, err := f.Next(ctx, 100)
		if err != nil {
			return records, next, err
		}
		records, next = append(records, b.Records...), b.Next
	}
}

func sameRecords(t testing.TB, what string, got, want []es.Record) {
	t.Helper()
	ids := func(all []es.Record) (list []string) {
		for _, r := range all {
			list = append(list, r.ID())
		}
		return list
	}
	if got, want := ids(got), ids(want); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestASourceStopsAtForeignMessagesOrSkipsThem(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		before := p.publish(20, 2)
		var foreign []confluent.Message
		for _, m := range foreignMessages() {
			foreign = append(foreign, m)
		}
		p.sendRaw(foreign...)
		all := slices.Concat(before[:20], p.publish(10, 2))
		shard := b.topic + "/0"

		records, at, err := readRefused(t, feed(t, source(t, b), shard, 0, es.Filter{}))
		sameRecords(t, "before the foreign message", records, before)
		if where := b.topic + "[0]@"; !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), where) || !strings.Contains(err.Error(), "SkipForeign") {
			t.Errorf("stopped after %d with %v", at, err)
		}
		if _, _, again := readRefused(t, feed(t, source(t, b), shard, at, es.Filter{})); again == nil || again.Error() != err.Error() {
			t.Errorf("begun after %d it stopped with %v", at, again)
		}

		skipping := source(t, b, func(c *kafka.SourceConfig) { c.SkipForeign = true })
		records, _, _ = readAll(t, feed(t, skipping, shard, 0, es.Filter{}), 0, 7)
		sameRecords(t, "with SkipForeign", records, all)
		if s := skipping.Stats(); len(s) != 1 || s[0].Foreign != int64(len(foreign)) {
			t.Errorf("the statistics are %+v", s)
		}

		// What the filter excludes is excluded, whatever it is.
		filtering := source(t, b)
		records, _, _ = readAll(t, feed(t, filtering, shard, 0, es.Filter{Kinds: []string{"account"}}), 0, 7)
		sameRecords(t, "with a filter", records, all)
		if s := filtering.Stats(); len(s) != 1 || s[0].Foreign != 0 {
			t.Errorf("the statistics with a filter are %+v", s)
		}
	})
}

func TestASourceAlwaysStopsAtDamagedMessages(t *testing.T) {
	t.Parallel()
	for name, damaged := range damagedMessages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := fake(t, 1)
			p := newPublisher(t, b)
			before := p.publish(5, 2)
			p.sendRaw(damaged)
			p.publish(5, 2)
			s := source(t, b, func(c *kafka.SourceConfig) { c.SkipForeign = true })
			records, _, err := readRefused(t, feed(t, s, b.topic+"/0", 0, es.Filter{}))
			sameRecords(t, "before the damaged message", records, before)
			if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("stopped with %v", err)
			}
		})
	}
}

func TestARebuildOverForeignMessages(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		before := p.publish(10, 2)
		p.sendRaw(confluent.Message{Key: []byte("a0")})
		all := slices.Concat(before[:10], p.publish(10, 2))
		store, _ := openFile(t)
		got := newCollector()
		model := func(s *kafka.Source) sqlite.Projection {
			return sqlite.Projection{Name: "p", Source: s, OnError: es.Park, Prepare: func(context.Context, *sql.Tx) error { return nil }, Handle: func(ctx context.Context, _ *sql.Tx, records []es.Record) error {
				for _, r := range records {
					_ = got.handle(ctx, r)
				}
				return nil
			}}
		}
		err := store.Project(t.Context(), model(source(t, b)))
		if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "SkipForeign") {
			t.Fatalf("Project returned %v", err)
		}
		sameRecords(t, "before the tombstone", got.records, before)
		skipping := source(t, b, func(c *kafka.SourceConfig) { c.SkipForeign = true })
		project := func(what string, want []es.Record) {
			t.Helper()
			got = newCollector()
			stop := start(t, func(ctx context.Context) error { return store.Project(ctx, model(skipping)) })
			got.await(t, what, got.has(want))
			_ = stop()
			sameRecords(t, what, got.records, want)
		}
		project("the rest is projected", all[10:])
		if err := store.Rebuild(t.Context(), "p", 0); err != nil {
			t.Fatal(err)
		}
		project("the rebuild has everything", all)
	})
}

func TestAConsumerStopsAtForeignMessagesOrSkipsThem(t *testing.T) {
	t.Parallel()
	for _, onError := range []es.OnError{es.Stop, es.Park} {
		each(t, 1, func(t *testing.T, b bank) {
			p := newPublisher(t, b)
			before := p.publish(60, 5)
			var foreign []confluent.Message
			for _, m := range foreignMessages() {
				foreign = append(foreign, m)
			}
			p.sendRaw(foreign...)
			after := p.publish(20, 5)
			run := func() (*kafka.Consumer, *collector) {
				c := consumer(t, b)
				c.OnError, c.Retries, c.Workers = onError, -1, 3
				return c, newCollector()
			}

			c, got := run()
			err := c.Run(t.Context(), got.handle)
			var stopped *kafka.ConsumerError
			if !errors.As(err, &stopped) || !errors.Is(err, es.ErrInvalid) || stopped.Record.Version != 0 || !strings.Contains(err.Error(), "SkipForeign") {
				t.Fatalf("Run returned %v", err)
			}
			if len(got.records) != len(before) || !got.has(before)() {
				t.Errorf("%d records were handled, want the %d before the foreign message", len(got.records), len(before))
			}

			c, got = run()
			c.SkipForeign = true
			stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
			got.await(t, "the rest", got.has(after))
			if s := c.Stats(); len(s) != 1 || s[0].Foreign != int64(len(foreign)) || s[0].Parked != 0 {
				t.Errorf("the statistics are %+v", s)
			}
			_ = stop()
			if len(got.records) != len(after) {
				t.Errorf("%d records were handled, want the %d after the foreign messages", len(got.records), len(after))
			}

			c, got = run()
			c.Group += "-filtered"
			c.Filter = es.Filter{Kinds: []string{"account"}}
			stop = start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
			got.await(t, "all records", got.has(append(before[:60:60], after...)))
			_ = stop()
		})
	}
}

func TestAConsumerAlwaysStopsAtDamagedMessages(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		before := p.publish(60, 5)
		for _, m := range damagedMessages(t) {
			p.sendRaw(m)
			break
		}
		p.publish(20, 5)
		for _, onError := range []es.OnError{es.Stop, es.Park} {
			c, got := parking(t, b), newCollector()
			c.OnError, c.SkipForeign = onError, true
			c.Group += fmt.Sprint(onError)
			err := c.Run(t.Context(), got.handle)
			var stopped *kafka.ConsumerError
			if !errors.As(err, &stopped) || !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "damaged") {
				t.Fatalf("Run returned %v", err)
			}
			if !got.has(before)() {
				t.Errorf("%d records were handled, want the %d before the damaged message", len(got.records), len(before))
			}
			letters := deadLetters(b)
			letters.Group = c.Group
			for letter, err := range letters.All(t.Context()) {
				if err == nil {
					t.Errorf("%v is parked", letter)
				}
			}
		}
	})
}
