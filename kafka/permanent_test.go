package kafka_test

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
)

// appendTo appends one event to a stream.
func appendTo(t testing.TB, log es.Store, kind, id string) es.Position {
	t.Helper()
	at, err := log.Append(t.Context(), es.Append{
		Stream: es.Stream{Kind: kind, ID: id}, Expected: es.AnyVersion, Events: []es.Record{{Type: "happened", Data: []byte("{}")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Brokers replace dots with underscores in the names of metrics, and refuse a topic whose name differs in nothing else.
func TestKindsWhoseTopicsCollideStopTheRelay(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		appendTo(t, log, "order.line", "1")
		run := runRelay(t, relay(b, log))
		run.reaches(1)
		run.mustStop()
		if b.Fake != nil { // it does not know the rule
			b.Fake.Fail(kmsg.CreateTopics, kerr.InvalidTopicException, -1)
		}
		appendTo(t, log, "order_line", "1")
		runRelay(t, relay(b, log)).ends(b.Prefix+".order_line", "Route")
	})
}

// aheadOfTime is a log with a record of the day after tomorrow, as if the clock had been wrong once.
type aheadOfTime struct {
	*es.Mem
	at es.Position
}

func (l aheadOfTime) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for r, err := range l.Mem.All(ctx, after, filter) {
			if r.Position == l.at {
				r.Time = r.Time.Add(48 * time.Hour)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func TestARecordOfTheFutureStopsTheRelay(t *testing.T) {
	t.Parallel()
	for _, atLeastOnce := range []bool{false, true} {
		testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
			log := new(es.Mem)
			publish := func(log es.Log) *running {
				r := relay(b, log)
				if mem, ok := log.(es.Checkpoints); ok && atLeastOnce {
					r.AtLeastOnce = mem
				}
				return runRelay(t, r)
			}
			last := fill(t, log, 20)
			run := publish(log)
			run.reaches(last)
			run.mustStop()
			if b.Fake != nil { // it takes any time
				b.Fake.Fail(kmsg.Produce, kerr.InvalidTimestamp, -1)
			}
			late := appendTo(t, log, "account", "late")
			fill(t, log, 20)
			publish(aheadOfTime{log, late}).ends("Invalid timestamp", "message.timestamp.after.max.ms")
		})
	}
}
