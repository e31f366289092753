package museum_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// The failure: the outbox sends with acks=0 and marks as published what has left the process. Messages that the broker
// rejects or never receives are lost.
//
// Not here: records and checkpoint are one Kafka transaction with acks=all, and a relay refuses other settings.
func TestOutboxWithoutAcknowledgement(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: the tests of kafka cover lost answers")
	}
	ours(t, func(t *testing.T, p place) error {
		broker := startBroker(t)
		log := p.open(t)
		return unpublished(t, broker, log, func(ctx context.Context, head es.Position) error {
			r := &kafka.Relay{Log: log, Prefix: "bank", Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap()}}, Topics: kafka.Topics{Partitions: 1}, Encoding: kafka.Compact}
			return untilDone(ctx, r.Run, func() bool { return r.Stats().Position >= head })
		})
	})
	t.Run("acks=0 is refused", func(t *testing.T) {
		broker := startBroker(t)
		r := &kafka.Relay{Log: new(es.Mem), Prefix: "bank", Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap(), "acks": 0}}}
		if err := r.Run(t.Context()); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("got %v, want an error that wraps es.ErrInvalid", err)
		}
	})
	control(t, "acks=0", func(t *testing.T) error {
		broker := startBroker(t)
		log := new(es.Mem)
		return unpublished(t, broker, log, (&outbox{log: log, bootstrap: broker.Bootstrap()}).publish)
	})
}

const topic = "bank.account"

func startBroker(t *testing.T) *kafkatest.Broker {
	return kafkatest.Start(t, kafkatest.Options{Topics: map[string]int{topic: 1}})
}

// untilDone runs a publisher until it has finished.
func untilDone(ctx context.Context, run func(context.Context) error, done func() bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-time.After(5 * time.Millisecond):
			if done() {
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					return err
				}
				return nil
			}
		}
	}
}

// unpublished looks for records that are missing or repeated in the topic after a short failure of the brokers.
func unpublished(t *testing.T, broker *kafkatest.Broker, log es.Log, publish func(ctx context.Context, head es.Position) error) error {
	var want []string
	round := func(name string) {
		for i := range 5 {
			text := fmt.Sprint(name, " ", i)
			_, err := log.Append(t.Context(), note("ann", text))
			must(t, err)
			want = append(want, text)
		}
		must(t, publish(t.Context(), es.Position(len(want))))
	}
	round("quiet")
	broker.Fail(kmsg.Produce, kerr.NotEnoughReplicas, 2)
	round("refused")
	lost := broker.LoseRequest(kmsg.Produce)
	round("cut off")
	select {
	case <-lost:
	default:
		t.Fatal("no request was lost")
	}
	round("end")
	got := published(t, broker, want[len(want)-1])
	if !slices.Equal(got, want) {
		return fmt.Errorf("%d records published, %d are in the topic: %q", len(want), len(got), got)
	}
	return nil
}

// published reads the committed messages of the topic up to a text.
func published(t *testing.T, broker *kafkatest.Broker, last string) (texts []string) {
	c, err := confluent.NewConsumer(&confluent.ConfigMap{
		"bootstrap.servers": broker.Bootstrap(), "group.id": "reader", "enable.auto.commit": false, "isolation.level": "read_committed", "auto.offset.reset": "earliest", "enable.metrics.push": false,
	})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	must(t, c.Assign([]confluent.TopicPartition{{Topic: new(topic), Partition: 0, Offset: confluent.OffsetBeginning}}))
	for len(texts) == 0 || texts[len(texts)-1] != last {
		m, err := c.ReadMessage(time.Minute)
		must(t, err)
		texts = append(texts, string(m.Value))
	}
	return texts
}

// An outbox publishes the records after its checkpoint, as fast as it can.
type outbox struct {
	log       es.Log
	bootstrap string
	at        es.Position
}

func (o *outbox) publish(ctx context.Context, _ es.Position) error {
	p, err := confluent.NewProducer(&confluent.ConfigMap{"bootstrap.servers": o.bootstrap, "acks": 0, "linger.ms": 0, "enable.metrics.push": false})
	if err != nil {
		return err
	}
	defer p.Close()
	for r, err := range o.log.All(ctx, o.at, es.Filter{}) {
		if err != nil {
			return err
		}
		report := make(chan confluent.Event, 1)
		m := &confluent.Message{TopicPartition: confluent.TopicPartition{Topic: new(topic), Partition: 0}, Key: []byte(r.Stream.ID), Value: r.Data}
		if err := p.Produce(m, report); err != nil {
			return err
		}
		if err := (<-report).(*confluent.Message).TopicPartition.Error; err != nil {
			return err // it is sent again
		}
		o.at = r.Position
	}
	return nil
}
