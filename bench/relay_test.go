package bench_test

import (
	"context"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/kafka"
)

// BenchmarkRelay measures a relay that publishes from es.Mem, 20,000 records at a time. An operation is the append and the wait until all
// records are published.
func BenchmarkRelay(b *testing.B) {
	eachBroker(b, func(b *testing.B, c cluster) {
		for _, encoding := range []kafka.Encoding{kafka.CloudEvents, kafka.Compact} {
			b.Run("encoding="+encoding.String(), func(b *testing.B) {
				c := c
				c.prefix += "-" + encoding.String()
				relays(b, c, encoding)
			})
		}
	})
}

func relays(b *testing.B, c cluster, encoding kafka.Encoding) {
	records := few(20_000, 1000)
	log, appended := new(es.Mem), 0
	relay := c.relay(b, log, encoding)
	more := func(ctx context.Context) error {
		if err := work.FillMore(ctx, log, appended/10, records/10, 10); err != nil {
			return err
		}
		appended += records
		return published(ctx, relay, es.Position(appended))
	}
	check(b, more(b.Context()))
	// The baseline sends the same messages.
	var messages []*confluent.Message
	check(b, readAll(b.Context(), c.reader(b), records, func(m *confluent.Message) {
		messages = append(messages, &confluent.Message{Key: m.Key, Value: m.Value, Timestamp: m.Timestamp, Headers: m.Headers})
	}))
	bare, err := baseline.OpenKafka(b.Context(), c.bootstrap, c.prefix+"-bare")
	check(b, err)
	b.Cleanup(func() { check(b, bare.Close()) })
	ours := measure.Side{Name: "relay", Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error { return more(ctx) }}
	theirs := measure.Side{Name: "bare loop", Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
		return bare.Send(ctx, c.topic(), messages, 5000) // the default of Relay.Batch
	}}
	compare(b, nil, ours, rival{"bare", theirs})
}

// BenchmarkRelayDelay measures the delay from the return of Append to a reader of committed messages, one event at a time.
func BenchmarkRelayDelay(b *testing.B) {
	eachBroker(b, func(b *testing.B, c cluster) {
		log := c.publish(b, 1000, kafka.CloudEvents)
		reader := c.reader(b)
		check(b, readAll(b.Context(), reader, 1000, func(*confluent.Message) {}))
		to, event := work.To(log), work.Events(1, payload)
		var delays []time.Duration
		for b.Loop() {
			check(b, to(b.Context(), es.Stream{Kind: "account", ID: "delayed"}, es.Version(len(delays)), event))
			returned := time.Now()
			check(b, readAll(b.Context(), reader, 1, func(*confluent.Message) {}))
			delays = append(delays, time.Since(returned))
		}
		reportDelays(b, delays)
	})
}

func reportDelays(b *testing.B, delays []time.Duration) {
	b.ReportMetric(ms(measure.Percentile(delays, 50)), "p50-ms")
	b.ReportMetric(ms(measure.Percentile(delays, 99)), "p99-ms")
}
