package kafka_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/projection"
)

// old is a log whose records are of last month.
type old struct{ *es.Mem }

func (o old) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for r, err := range o.Mem.All(ctx, after, filter) {
			r.Time = r.Time.AddDate(0, -1, 0)
			if !yield(r, err) {
				return
			}
		}
	}
}

func TestARelayRefusesATopicThatDropsRecords(t *testing.T) {
	t.Parallel()
	week := map[string]string{"retention.ms": "604800000"}
	for name, test := range map[string]struct {
		settings map[string]string
		change   func(r *kafka.Relay, log *es.Mem)
		says     string // "" if the topic is accepted
	}{
		"compacted":                       {map[string]string{"cleanup.policy": "compact"}, func(*kafka.Relay, *es.Mem) {}, "set it to delete, or set AllowCompacted"},
		"compacted and deleted":           {map[string]string{"cleanup.policy": "compact,delete"}, func(*kafka.Relay, *es.Mem) {}, "set it to delete, or set AllowCompacted"},
		"compacted, at least once":        {map[string]string{"cleanup.policy": "compact"}, func(r *kafka.Relay, log *es.Mem) { r.AtLeastOnce = log }, "set it to delete, or set AllowCompacted"},
		"compacted, which is accepted":    {map[string]string{"cleanup.policy": "compact"}, func(r *kafka.Relay, _ *es.Mem) { r.AllowCompacted = true }, ""},
		"retention below the records age": {week, func(r *kafka.Relay, log *es.Mem) { r.Log = old{log} }, "set retention.ms=-1, or AllowCompacted"},
		"retention, which is accepted":    {week, func(r *kafka.Relay, log *es.Mem) { r.Log, r.AllowCompacted = old{log}, true }, ""},
		"retention, which is wanted":      {week, func(r *kafka.Relay, log *es.Mem) { r.Log, r.Topics.Config = old{log}, week }, ""},
		"retention above the records age": {week, func(*kafka.Relay, *es.Mem) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
				log := new(es.Mem)
				r := relay(b, log)
				test.change(r, log)
				makeTopic(t, b.Bootstrap, b.Prefix+".account", 2, test.settings)
				last := fill(t, log, 200)
				run := runRelay(t, r)
				if test.says != "" {
					run.ends("topic "+b.Prefix+".account ", test.says)
					return
				}
				run.reaches(last)
				run.mustStop()
			})
		})
	}
}

func TestARelayStopsWhenItsTopicsAreCompacted(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{".account", "checkpoints"} {
		testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
			log := new(es.Mem)
			r := relay(b, log)
			r.Refresh(200 * time.Millisecond)
			run := runRelay(t, r)
			run.reaches(fill(t, log, 200))
			if topic == ".account" {
				setting(t, b.Bootstrap, b.Prefix+topic, "cleanup.policy", "compact")
				run.ends(b.Prefix+topic, "set it to delete, or set AllowCompacted")
				return
			}
			setting(t, b.Bootstrap, kafka.CheckpointTopic(b.Prefix), "cleanup.policy", "delete")
			run.ends(kafka.CheckpointTopic(b.Prefix), "set it to compact")
		})
	}
}

func TestReadersRefuseATopicThatDropsRecords(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, broker testserver.Broker) {
		b := bank{broker, broker.Prefix + ".account"}
		makeTopic(t, b.Bootstrap, b.topic, 1, map[string]string{"retention.ms": "-1"})
		all := newPublisher(t, b).publish(10, 3)

		s := source(t, b)
		f := feed(t, s, b.topic+"/0", 0, es.Filter{})
		readAll(t, f, 0, 100)
		c, got := consumer(t, b), newCollector()
		done := make(chan error, 1)
		go func() { done <- c.Run(t.Context(), got.handle) }()
		got.await(t, "all records", got.has(all))

		// While they run.
		setting(t, b.Bootstrap, b.topic, "cleanup.policy", "compact")
		ended(t, "the consumer", done, b.topic, "set AllowCompacted")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var err error
		for err == nil {
			_, err = f.Next(ctx, 10)
		}
		if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "set AllowCompacted") {
			t.Errorf("the feed ended with %v", err)
		}

		// At the start.
		config := kafka.SourceConfig{Cluster: kafka.Cluster{Config: b.config()}, Topics: []string{b.topic}}
		if s, err := config.Open(t.Context()); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "set AllowCompacted") {
			t.Errorf("Open returned %v, %v", s, err)
		}
		if err := consumer(t, b).Run(t.Context(), got.handle); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "set AllowCompacted") {
			t.Errorf("Run returned %v", err)
		}

		// If that is wanted.
		s = source(t, b, func(c *kafka.SourceConfig) { c.AllowCompacted = true })
		if records, _, _ := readAll(t, feed(t, s, b.topic+"/0", projection.Cursor(0), es.Filter{}), 0, 100); len(records) == 0 {
			t.Error("the feed is empty")
		}
		c, got = consumer(t, b), newCollector()
		c.AllowCompacted, c.Group = true, c.Group+"-2"
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		got.await(t, "a record", func() bool { return len(got.records) > 0 })
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestADeadLetterTopicThatDropsLettersIsRefused(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		all := newPublisher(t, b).publish(5, 1)
		c, got := parking(t, b), newCollector()
		dead := kafka.DeadLetterTopic(b.topic, c.Group)
		makeTopic(t, b.Bootstrap, dead, 1, map[string]string{"retention.ms": "604800000"})
		if err := c.Run(t.Context(), got.handle); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "topic "+dead+" deletes records after 168h0m0s") {
			t.Errorf("Run returned %v", err)
		}
		c.AllowCompacted = true
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		got.await(t, "all records", got.has(all))
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// The exactness of Deduplicate rests on the times of messages.
func TestDeduplicateRefusesATopicWithOtherTimes(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		topic := b.Prefix + ".account"
		makeTopic(t, b.Bootstrap, topic, 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
		config := kafka.SourceConfig{Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": b.Bootstrap}}, Topics: []string{topic}, Deduplicate: true}
		if s, err := config.Open(t.Context()); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "set it to CreateTime") {
			t.Errorf("Open returned %v, %v", s, err)
		}
	})
}
