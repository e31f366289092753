package kafka_test

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// A fast is a log whose clock is ahead. Kafka accepts times up to an hour in the future.
type fast struct{ *es.Mem }

const fastBy = 10 * time.Minute

func (f fast) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for r, err := range f.Mem.All(ctx, after, filter) {
			r.Time = r.Time.Add(fastBy)
			if !yield(r, err) {
				return
			}
		}
	}
}

// A lag must have an age whatever the time of the records is.
func TestARecordDatedInTheFutureHasALag(t *testing.T) {
	t.Parallel()
	waits := func(age, ahead time.Duration) bool {
		return age > 0 && age < fastBy && ahead > fastBy/2 && ahead <= fastBy
	}
	x := newBank(t, testserver.FakeBroker(t, kafkatest.Options{}), 1)
	log := fast{new(es.Mem)}
	run := runRelay(t, relay(x.Broker, log))
	run.reaches(note(t, log, "a"))
	x.Fake.Cut()
	last := note(t, log, "a")
	eventually(t, "the relay has a lag with an age", func() bool {
		lag := run.relay.Stats().Lag
		return lag != nil && lag.Head == last && lag.Positions == 1 && waits(lag.Age, lag.ClockAhead)
	})
	x.Fake.Heal()
	run.reaches(last)
	eventually(t, "the relay has no lag", func() bool {
		lag := run.relay.Stats().Lag
		return lag.Positions == 0 && lag.Age == 0 && lag.ClockAhead == 0
	})
	run.mustStop()

	s := source(t, x)
	shards, err := s.Shards(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	feed, err := s.Feed(t.Context(), shards[0], 0, es.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	batch, err := feed.Next(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if lag := s.Stats()[0].Lag; len(batch.Records) == 0 || lag.Offsets == 0 || !waits(lag.Age, lag.ClockAhead) {
		t.Errorf("the source has the lag %+v before %d records are applied", lag, len(batch.Records))
	}
	for batch.Next < batch.End {
		feed.Applied(batch.Next)
		if batch, err = feed.Next(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
	}
	feed.Applied(batch.Next)
	if lag := s.Stats()[0].Lag; lag.Offsets != 0 || lag.Age != 0 || lag.ClockAhead != 0 {
		t.Errorf("the source has the lag %+v when all is applied", lag)
	}

	release := make(chan struct{})
	c := consumer(t, x)
	stop := start(t, func(ctx context.Context) error {
		return c.Run(ctx, func(context.Context, es.Record) error { <-release; return nil })
	})
	eventually(t, "the consumer has a lag with an age", func() bool {
		stats := c.Stats()
		return len(stats) == 1 && stats[0].Lag != nil && stats[0].Lag.Offsets > 0 && waits(stats[0].Lag.Age, stats[0].Lag.ClockAhead)
	})
	close(release)
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
