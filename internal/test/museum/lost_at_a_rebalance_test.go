package museum_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// The failure: offsets are committed for what was fetched. When a partition moves, the new owner starts after records
// that the old one was still handling.
//
// Not here: an offset is stored when the handler has returned nil, never past a failed record. A partition is released
// when its handlers have ended.
func TestLostAtARebalance(t *testing.T) {
	t.Run("Consumer", func(t *testing.T) {
		finds(t, false, losesAtRebalance(t, func(b *kafkatest.Broker) member {
			return func(ctx context.Context, handle func(context.Context, string) error) error {
				c := kafka.Consumer{
					Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": b.Bootstrap(), "session.timeout.ms": 6000, "heartbeat.interval.ms": 200}},
					Group:   "notify", Topics: []string{topic}, Drain: 50 * time.Millisecond, Retries: -1,
				}
				return c.Run(ctx, func(ctx context.Context, r es.Record) error { return handle(ctx, string(r.Data)) })
			}
		}))
	})
	control(t, "enable.auto.commit, and a handler beside the loop", func(t *testing.T) error {
		return losesAtRebalance(t, autoCommitting)
	})
}

// A member is a process of a consumer group. It handles records until its context is done.
type member func(ctx context.Context, handle func(ctx context.Context, text string) error) error

// losesAtRebalance looks for records that were never handled completely, after a member left during its work and
// another took over.
func losesAtRebalance(t *testing.T, of func(*kafkatest.Broker) member) error {
	b := startBroker(t)
	log := new(es.Mem)
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprint("record ", i))
		_, err := log.Append(t.Context(), note("ann", want[i]))
		must(t, err)
	}
	r := &kafka.Relay{Log: log, Prefix: "bank", Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": b.Bootstrap()}}, Topics: kafka.Topics{Partitions: 1}}
	must(t, untilDone(t.Context(), r.Run, func() bool { return r.Stats().Position == 5 }))

	var mu sync.Mutex
	var handled []string
	done := func(text string) error {
		mu.Lock()
		defer mu.Unlock()
		handled = append(handled, text)
		return nil
	}
	run := of(b)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	err := run(ctx, func(ctx context.Context, text string) error {
		if text == "record 2" {
			leave() // it is stopped while it handles this record, as for a deployment
			<-ctx.Done()
			return ctx.Err()
		}
		return done(text)
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Logf("the first member: %v", err)
	}
	// The other member takes over. Further records show when it has reached the end.
	_, err = log.Append(t.Context(), note("ann", "end"))
	must(t, err)
	want = append(want, "end")
	must(t, untilDone(t.Context(), r.Run, func() bool { return r.Stats().Position == 6 }))
	must(t, untilDone(t.Context(), func(ctx context.Context) error {
		return run(ctx, func(_ context.Context, text string) error { return done(text) })
	}, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(handled, "end")
	}))
	for _, text := range want {
		if !slices.Contains(handled, text) {
			return fmt.Errorf("%q was not handled; handled were %q", text, handled)
		}
	}
	return nil
}

// autoCommitting is a member with librdkafka's defaults, which commit what was handed to the loop.
func autoCommitting(b *kafkatest.Broker) member {
	return func(ctx context.Context, handle func(context.Context, string) error) error {
		c, err := confluent.NewConsumer(&confluent.ConfigMap{
			"bootstrap.servers": b.Bootstrap(), "group.id": "notify", "auto.offset.reset": "earliest", "isolation.level": "read_committed", "enable.metrics.push": false,
		})
		if err != nil {
			return err
		}
		if err := c.Subscribe(topic, nil); err != nil {
			return errors.Join(err, c.Close())
		}
		work := make(chan string, 100)
		var worker sync.WaitGroup
		worker.Go(func() { // so that a slow handler does not stop the loop from polling
			for text := range work {
				if handle(ctx, text) != nil {
					return
				}
			}
		})
		for ctx.Err() == nil {
			m, err := c.ReadMessage(100 * time.Millisecond)
			if err == nil {
				work <- string(m.Value)
			}
		}
		close(work)
		worker.Wait()
		return errors.Join(ctx.Err(), c.Close()) // commits what was read
	}
}
