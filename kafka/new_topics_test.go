package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// A topic that is created has no leader for a moment. That must not end the session, which would abort the batch in flight.
func TestNewTopicsDoNotCostASession(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		r := relay(b, log)
		var out logged.Text
		r.Logger = out.Logger()
		r.Route = func(r es.Record) string { return b.Prefix + ".tenant-" + r.Stream.ID }
		r.Topics.Partitions = 6
		run := runRelay(t, r)
		for tenant := range 12 {
			last, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: fmt.Sprint(tenant)}, Events: []es.Record{{Type: "opened"}}})
			if err != nil {
				t.Fatal(err)
			}
			run.reaches(last)
		}
		run.mustStop()
		if n := out.Count("relay works"); n != 1 || r.Stats().Retries > 0 {
			t.Errorf("%d sessions, %d retries, want 1 and 0:\n%s", n, r.Stats().Retries, out.String())
		}
	})
}

// A checkpoint is part of each transaction. With many topics it must not have them all, and the next relay must know them nevertheless.
func TestACheckpointDoesNotGrowWithTheTopics(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	{
		log := new(es.Mem)
		routed := func() *kafka.Relay {
			r := relay(b, log)
			r.Route = func(r es.Record) string { return b.Prefix + ".tenant-" + r.Stream.ID }
			r.Topics.Partitions = 1
			return r
		}
		tenants := func(from, to int) (last es.Position) {
			for tenant := from; tenant < to; tenant++ {
				var err error
				if last, err = log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: fmt.Sprint(tenant)}, Expected: es.AnyVersion, Events: []es.Record{{Type: "opened"}}}); err != nil {
					t.Fatal(err)
				}
			}
			return last
		}
		publish := func(last es.Position) {
			run := runRelay(t, routed())
			run.reaches(last)
			run.mustStop()
		}
		publish(tenants(0, 48))  // with the checkpoint
		publish(tenants(40, 53)) // too many for that
		dying := routed()
		dying.Hook(crashAt("produced", 2)) // the first one takes over
		tenants(45, 55)
		if err := runRelay(t, dying).wait(); !errors.Is(err, errCrash) {
			t.Fatalf("ended with %v", err)
		}
		publish(tenants(50, 56))
		publish(tenants(0, 56)) // knows all of them
		run := runRelay(t, routed())
		for range 160 {
			run.reaches(tenants(3, 4)) // so often that the list is written again
		}
		run.mustStop()
		publish(tenants(0, 56))
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})

		c := watcher(t, b.Bootstrap, kgo.ConsumeTopics(kafka.CheckpointTopic(b.Prefix)))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		ends, err := topicsOf(ctx, c, kafka.CheckpointTopic(b.Prefix))
		if err != nil {
			t.Fatal(err)
		}
		checkpoints, lists, largest := 0, 0, 0
		for done := false; !done && ctx.Err() == nil; {
			c.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				done = done || r.Offset == ends[r.Topic][r.Partition]-1
				switch {
				case r.Attrs.IsControl():
				case strings.HasSuffix(string(r.Key), "/topics"):
					lists++
				default:
					checkpoints++
					largest = max(largest, len(r.Value))
				}
			})
		}
		if largest > 50*150 || lists < 4 || lists > checkpoints/5 {
			t.Errorf("the largest of %d checkpoints has %d bytes, the list of topics was written %d times", checkpoints, largest, lists)
		}
	}
}
