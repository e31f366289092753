package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
)

// A seen is a record as a reader of committed messages read it.
type seen struct {
	store     string
	record    es.Record
	partition int32
	offset    int64
}

// watcher reads committed messages with a different implementation of the protocol than the relay's.
func watcher(t testing.TB, bootstrap string, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.FetchMaxWait(50 * time.Millisecond), kgo.MetadataMinAge(50 * time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// topicsOf returns the topics with a prefix, with the ends of their partitions, messages of open transactions included.
func topicsOf(ctx context.Context, c *kgo.Client, prefix string) (map[string]map[int32]int64, error) {
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = nil
	answer, err := request.RequestWith(ctx, c)
	if err != nil {
		return nil, err
	}
	ends := make(map[string]map[int32]int64)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, err
	}
	for _, topic := range answer.Topics {
		if topic.Topic == nil || !strings.HasPrefix(*topic.Topic, prefix) {
			continue
		}
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			return nil, err
		}
		ends[*topic.Topic] = make(map[int32]int64)
		for _, p := range topic.Partitions {
			if ends[*topic.Topic][p.Partition], err = end(ctx, c, *topic.Topic, p.Partition, 0); err != nil {
				return nil, err
			}
		}
	}
	return ends, nil
}

// end returns the end of a partition: of all messages with isolation 0, and before the first open transaction with isolation 1.
func end(ctx context.Context, c *kgo.Client, topic string, partition int32, isolation int8) (int64, error) {
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = partition, -1
	in := kmsg.NewListOffsetsRequestTopic()
	in.Topic, in.Partitions = topic, append(in.Partitions, p)
	request := kmsg.NewListOffsetsRequest()
	request.IsolationLevel, request.Topics = isolation, append(request.Topics, in)
	for _, shard := range c.RequestSharded(ctx, &request) {
		if shard.Err != nil {
			return 0, shard.Err
		}
		for _, answer := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			return answer.Partitions[0].Offset, kerr.ErrorForCode(answer.Partitions[0].ErrorCode)
		}
	}
	return 0, errors.New("no answer")
}

// published reads all committed messages in the topics with a prefix. It waits for open transactions.
func published(t testing.TB, bootstrap, prefix string) []seen {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	asker := watcher(t, bootstrap)
	var ends map[string]map[int32]int64
	var err error
	for ends == nil {
		if ends, err = topicsOf(ctx, asker, prefix); err != nil && ctx.Err() != nil {
			t.Fatalf("topics: %v", err)
		}
	}
	left := 0
	for _, partitions := range ends {
		for _, end := range partitions {
			if end > 0 {
				left++
			}
		}
	}
	if left == 0 {
		return nil
	}
	c := watcher(t, bootstrap, kgo.ConsumeTopics(slices.Collect(maps.Keys(ends))...))
	defer c.Close()
	var all []seen
	for left > 0 {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("after %d messages %d partitions have not come to their end: is a transaction open?", len(all), left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset == ends[r.Topic][r.Partition]-1 {
				left--
			}
			if r.Offset >= ends[r.Topic][r.Partition] || r.Attrs.IsControl() {
				return
			}
			all = append(all, decode(t, r))
		})
	}
	return all
}

func decode(t testing.TB, r *kgo.Record) seen {
	t.Helper()
	m := &confluent.Message{TopicPartition: confluent.TopicPartition{Topic: &r.Topic, Partition: r.Partition, Offset: confluent.Offset(r.Offset)}, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, confluent.Header{Key: h.Key, Value: h.Value})
	}
	store, record, err := kafka.Decode(m)
	if err != nil {
		t.Fatal(err)
	}
	return seen{store, record, r.Partition, r.Offset}
}

// audit compares the topics with the log: they must have each record that matches the filter once, and those of a stream in one partition, in order.
func audit(t testing.TB, bootstrap, prefix string, log es.Log, filter es.Filter) {
	t.Helper()
	compare(t, log.ID(), recorded(t, log, filter), published(t, bootstrap, prefix+"."))
}

// recorded returns the records of a log.
func recorded(t testing.TB, log es.Log, filter es.Filter) (all []es.Record) {
	t.Helper()
	for r, err := range log.All(context.Background(), 0, filter) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func compare(t testing.TB, store string, want []es.Record, got []seen) {
	t.Helper()
	byPosition := make(map[es.Position]es.Record, len(want))
	for _, r := range want {
		byPosition[r.Position] = r
	}
	type place struct {
		topicPartition string
		offset         int64
		version        es.Version
	}
	last := make(map[es.Stream]place)
	bad := 0
	complain := func(format string, args ...any) {
		t.Helper()
		if bad++; bad < 10 {
			t.Errorf(format, args...)
		}
	}
	times := make(map[es.Position]int)
	for _, s := range got {
		r := s.record
		if times[r.Position]++; times[r.Position] > 1 {
			complain("%s, position %d, is there %d times", r.ID(), r.Position, times[r.Position])
			continue
		}
		w, found := byPosition[r.Position]
		switch {
		case !found:
			complain("%s, position %d, is published and not in the log", r.ID(), r.Position)
			continue
		case s.store != store || r.ID() != w.ID() || r.Type != w.Type || !r.Time.Equal(w.Time) || !bytes.Equal(r.Data, w.Data) || !maps.Equal(r.Meta, w.Meta):
			complain("position %d is published as %+v of store %s, and in the log %+v of %s", r.Position, r, s.store, w, store)
		}
		at := place{fmt.Sprint(r.Stream.Kind, s.partition), s.offset, r.Version}
		before, again := last[r.Stream]
		if again && (before.topicPartition != at.topicPartition || before.offset > at.offset || before.version >= at.version) {
			complain("%s: version %d at %v comes after version %d at %v", r.Stream, r.Version, at, before.version, before)
		}
		last[r.Stream] = at
	}
	for _, r := range want {
		if times[r.Position] == 0 {
			complain("%s, position %d, is not published", r.ID(), r.Position)
		}
	}
	if bad > 0 {
		t.Errorf("%d complaints, %d records in the log, %d published", bad, len(want), len(got))
	}
}

// fill appends records of several streams of two kinds to a log.
func fill(t testing.TB, log es.Log, records int) es.Position {
	t.Helper()
	last, err := tryFill(log, records)
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// load appends records to a log until it is stopped.
func load(t testing.TB, log es.Log) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var filling sync.WaitGroup
	filling.Go(func() {
		for ctx.Err() == nil {
			if _, err := tryFill(log, 10); err != nil {
				t.Errorf("the load ends: %v", err)
				return
			}
			time.Sleep(30 * time.Millisecond) // what waits while a broker is away must be caught up with, also on a busy machine
		}
	})
	return func() {
		cancel()
		filling.Wait()
	}
}

func tryFill(log es.Log, records int) (last es.Position, err error) {
	for done := 0; done < records; {
		n := min(1+rand.IntN(20), records-done)
		events := make([]es.Record, n)
		for i := range events {
			events[i] = es.Record{Type: []string{"opened", "deposited", "withdrawn"}[rand.IntN(3)], Data: []byte(`{"amount":` + strconv.Itoa(rand.IntN(1000)) + `}`)}
			if rand.IntN(3) == 0 {
				events[i].Meta = map[string]string{es.MetaCorrelation: "c" + strconv.Itoa(i), "user": "eve"}
			}
		}
		stream := es.Stream{Kind: []string{"account", "transfer"}[rand.IntN(2)], ID: strconv.Itoa(rand.IntN(50))}
		if last, err = log.Append(context.Background(), es.Append{Stream: stream, Expected: es.AnyVersion, Events: events}); err != nil {
			return 0, err
		}
		done += n
	}
	return last, nil
}

// relay returns a relay with the settings that tests share.
func relay(b testserver.Broker, log es.Log) *kafka.Relay {
	return &kafka.Relay{
		Log: log, Prefix: b.Prefix, Topics: kafka.Topics{Partitions: 3},
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": b.Bootstrap}},
	}
}

// A running is a relay that runs.
type running struct {
	t      testing.TB
	relay  *kafka.Relay
	cancel context.CancelFunc
	done   chan error
}

func runRelay(t testing.TB, r *kafka.Relay) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	run := &running{t, r, cancel, make(chan error, 1)}
	go func() { run.done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel() })
	return run
}

// reaches waits until everything up to a position is published.
func (r *running) reaches(p es.Position) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("the relay is at position %d", p), func() bool {
		select {
		case err := <-r.done:
			r.t.Fatalf("the relay ended: %v", err)
		default:
		}
		return r.relay.Stats().Position >= p
	})
}

// stop ends the relay and returns its error, unless that is the context's.
func (r *running) stop() error {
	r.t.Helper()
	r.cancel()
	return r.wait()
}

func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	case <-time.After(patience):
		r.t.Fatalf("the relay does not end; it stands as %+v", r.relay.Stats())
		return nil
	}
}

func (r *running) mustStop() {
	r.t.Helper()
	if err := r.stop(); err != nil {
		r.t.Fatalf("the relay ended with %v", err)
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	if err := becomes(what, is); err != nil {
		t.Fatal(err)
	}
}

// becomes is eventually for other goroutines than the test's, such as hooks.
func becomes(what string, is func() bool) error {
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %s", patience, what)
		}
	}
	return nil
}

// publishMore runs a relay until it has published a number of further records.
func publishMore(t testing.TB, r *kafka.Relay, records int) {
	t.Helper()
	run := runRelay(t, r)
	run.reaches(fill(t, r.Log, records))
	run.mustStop()
}
