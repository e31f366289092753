package bench_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// partitions is the number of partitions of a topic.
const partitions = 4

// A cluster is the Kafka cluster of a benchmark.
type cluster struct{ bootstrap, prefix string }

func (c cluster) topic() string { return c.prefix + ".account" }

func (c cluster) config() kafka.ConfigMap { return kafka.ConfigMap{"bootstrap.servers": c.bootstrap} }

// eachBroker runs a benchmark for the in-process broker, and for real Kafka if it was started.
func eachBroker(b *testing.B, run func(b *testing.B, c cluster)) {
	b.Run("broker=kafkatest", func(b *testing.B) {
		run(b, cluster{kafkatest.Start(b, kafkatest.Options{}).Bootstrap(), "bench"})
	})
	if servers.kafka != nil {
		b.Run("broker=kafka", func(b *testing.B) { run(b, cluster{servers.kafka.Bootstrap, "bench-" + rand.Text()[:8]}) })
	}
}

// relay runs a relay of a log until the benchmark ends.
func (c cluster) relay(b *testing.B, log es.Log, encoding kafka.Encoding) *kafka.Relay {
	b.Helper()
	relay := &kafka.Relay{Log: log, Prefix: c.prefix, Encoding: encoding, Cluster: kafka.Cluster{Config: c.config()}, Topics: kafka.Topics{Partitions: partitions}}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			b.Errorf("the relay ended: %v", err)
		}
	})
	return relay
}

// published waits until a relay has published the log up to a position.
func published(ctx context.Context, relay *kafka.Relay, position es.Position) error {
	for deadline := time.Now().Add(time.Minute); relay.Stats().Position < position; {
		if s := relay.Stats(); time.Now().After(deadline) {
			return fmt.Errorf("the relay is at position %d of %d: %s", s.Position, position, s.Error)
		}
		select {
		case <-time.After(time.Millisecond / 2):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// publish fills the topic with a number of records and returns their log.
func (c cluster) publish(b *testing.B, records int, encoding kafka.Encoding) es.Log {
	b.Helper()
	log := new(es.Mem)
	check(b, work.FillAccounts(b.Context(), log, records/10, 10))
	check(b, published(b.Context(), c.relay(b, log, encoding), es.Position(records)))
	return log
}

// reader returns a bare client that reads the committed messages of the topic from the beginning.
func (c cluster) reader(b *testing.B) *confluent.Consumer {
	b.Helper()
	reader, err := confluent.NewConsumer(c.reading("bench"))
	check(b, err)
	b.Cleanup(func() { check(b, reader.Close()) })
	check(b, c.rewind(reader))
	return reader
}

func (c cluster) reading(group string) *confluent.ConfigMap {
	return &confluent.ConfigMap{
		"bootstrap.servers": c.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": false,
		"isolation.level": "read_committed", "fetch.wait.max.ms": 100, "fetch.queue.backoff.ms": 50, "enable.metrics.push": false, "log_level": 0,
	}
}

func (c cluster) rewind(reader *confluent.Consumer) error {
	topic := c.topic()
	var all []confluent.TopicPartition
	for n := range int32(partitions) {
		all = append(all, confluent.TopicPartition{Topic: &topic, Partition: n, Offset: confluent.OffsetBeginning})
	}
	return reader.Assign(all)
}

// readAll reads n messages and calls see with each.
func readAll(ctx context.Context, reader *confluent.Consumer, n int, see func(*confluent.Message)) error {
	for deadline := time.Now().Add(time.Minute); n > 0; {
		switch event := reader.Poll(100).(type) {
		case *confluent.Message:
			if event.TopicPartition.Error != nil {
				return event.TopicPartition.Error
			}
			see(event)
			n--
		case confluent.Error:
			if event.IsFatal() {
				return event
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d messages are missing after a minute", n)
		}
	}
	return nil
}
