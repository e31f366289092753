package kafka_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// A partition accepts any sequence number from a producer that it has not seen. So if the first request is refused and the second, which is in
// flight, is accepted, librdkafka takes the first as accepted too.
func TestTheFirstBatchOfAPartitionIsNotLost(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *kafka.Relay, log *es.Mem){
		"exactly once":  func(*kafka.Relay, *es.Mem) {},
		"at least once": func(r *kafka.Relay, log *es.Mem) { r.AtLeastOnce = log },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := testserver.FakeBroker(t, kafkatest.Options{})
			topic := b.Prefix + ".account"
			makeTopic(t, b.Bootstrap, topic, 1, map[string]string{"retention.ms": "-1"})
			used(t, bank{b, topic})
			bank{b, topic}.deleteBefore(t, 0, 1)
			refused := b.Fake.Cluster().Fault(
				kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: 1})
			b.Fake.Delay(kmsg.Produce, 50*time.Millisecond) // so that further requests are in flight
			log := new(es.Mem)
			r := relay(b, log)
			r.Topics.Partitions, r.Encoding, r.Logger = 1, kafka.Compact, testLog(t)
			r.Cluster.Config["batch.size"] = 10_000
			change(r, log)
			last := fillRandom(t, log, 60)
			run := runRelay(t, r)
			run.reaches(last)
			if refused.Hits() == 0 {
				t.Fatal("no request was refused")
			}
			run.mustStop()
			audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
		})
	}
}

// used writes a message to a partition: from Kafka 4.5 on, one that never had any refuses a first sequence number other than 0.
func used(t *testing.T, b bank) {
	t.Helper()
	c := watcher(t, b.Bootstrap)
	if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: b.topic, Value: []byte("of another producer")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}
