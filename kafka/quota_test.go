package kafka_test

import (
	"crypto/rand"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
)

// throttle makes a broker slow for the clients with an id: to about as many bytes a second, or, on the fake, to ten requests a second.
func throttle(t testing.TB, b testserver.Broker, client string, bytes float64) {
	t.Helper()
	if b.Fake != nil {
		b.Fake.Delay(kmsg.Produce, 100*time.Millisecond)
		return
	}
	if err := testserver.ProducerQuota(t.Context(), b.Bootstrap, client, bytes); err != nil {
		t.Fatal(err)
	}
}

// fillRandom appends records of two kilobytes that do not become smaller when they are compressed.
func fillRandom(t testing.TB, log es.Log, records int) (last es.Position) {
	t.Helper()
	events := make([]es.Record, records)
	for i := range events {
		data := make([]byte, 2000)
		_, _ = rand.Read(data) // never fails
		events[i] = es.Record{Type: "e", Data: data}
	}
	last, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "1"}, Expected: es.AnyVersion, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// A batch that the quota does not let through in time must not be repeated as it was: it would time out each time.
func TestBatchesShrinkUntilTheyArriveInTime(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *kafka.Relay, log *es.Mem){
		"exactly once":  func(r *kafka.Relay, _ *es.Mem) { r.Cluster.Config["transaction.timeout.ms"] = 4000 },
		"at least once": func(r *kafka.Relay, log *es.Mem) { r.AtLeastOnce, r.Cluster.Config["message.timeout.ms"] = log, 4000 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
				if b.Fake == nil && name == "at least once" && os.Getenv("ES_TEST_LARGE") != "1" {
					t.Skip("takes a minute on a real broker, as exactly once does: run with ES_TEST_LARGE=1")
				}
				throttle(t, b, b.Prefix, 50_000)
				log := new(es.Mem)
				r := relay(b, log)
				r.Topics.Partitions, r.Encoding, r.Logger = 1, kafka.Compact, testLog(t)
				r.Cluster.Config["client.id"], r.Cluster.Config["statistics.interval.ms"], r.Cluster.Config["batch.size"] = b.Prefix, 500, 10_000
				change(r, log)
				records := 450 // above what the quota lets through at once
				run := runRelay(t, r)
				last, throttled := fillRandom(t, log, records), 0.0
				eventually(t, "all is published", func() bool {
					throttled = max(throttled, r.Stats().Throttle)
					return r.Stats().Position >= last
				})
				limited := r.Stats().BatchBytes
				if limited == 0 {
					t.Error("batches did not shrink")
				}
				if b.Real != nil && throttled == 0 {
					t.Error("Stats do not say that the broker throttles")
				}
				if b.Fake != nil {
					b.Fake.Heal()
					eventually(t, "batches grow again", func() bool {
						run.reaches(fillRandom(t, log, 50))
						return r.Stats().BatchBytes == 0 || r.Stats().BatchBytes > 2*limited
					})
				}
				run.mustStop()
				if name == "exactly once" {
					audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
				}
			})
		})
	}
}
