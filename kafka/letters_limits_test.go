package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

// sized returns records of one stream with data of a size.
func (p *publisher) sized(records, size int) (all []es.Record) {
	for range records {
		r := p.record("a0", string(bytes.Repeat([]byte("x"), size)))
		p.send(true, r)
		all = append(all, r)
	}
	return all
}

func TestLargeRecordsAreParkedInATopicWithARaisedLimit(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		setting(t, b.Bootstrap, b.topic, "max.message.bytes", "3000000")
		p := newPublisher(t, b, 3_000_000)
		all := p.sized(2, 2_000_000)
		c, got := parking(t, b), newCollector()
		c.Cluster.Config["compression.type"] = "none"
		got.fail = failing(all[0].ID())
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		eventually(t, "its key is parked", func() bool { stats := c.Stats(); return len(stats) > 0 && stats[0].Parked > 0 })
		letters := awaitParked(t, b, len(all))
		_ = stop()
		if !bytes.Equal(letters[0].Record.Data, all[0].Data) {
			t.Error("the letter is not the record")
		}
	})
}

func TestLettersThatExceedTheLimitTogetherAreParked(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		makeTopic(t, b.Bootstrap, kafka.DeadLetterTopic(b.topic, b.Prefix+"-notify"), 1, map[string]string{"max.message.bytes": "20000", "retention.ms": "-1"})
		all := newPublisher(t, b).sized(40, 9000)
		c, got := parking(t, b), newCollector()
		c.Cluster.Config["compression.type"], c.Cluster.Config["linger.ms"] = "none", 20
		got.fail = failing(all[0].ID())
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		awaitParked(t, b, len(all))
		_ = stop()
	})
}

func TestALetterAboveTheLimitSaysWhatToSet(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		dead := kafka.DeadLetterTopic(b.topic, b.Prefix+"-notify")
		makeTopic(t, b.Bootstrap, dead, 1, map[string]string{"max.message.bytes": "20000", "retention.ms": "-1"})
		all := newPublisher(t, b).sized(1, 30_000)
		c, got := parking(t, b), newCollector()
		c.Cluster.Config["compression.type"] = "none"
		got.fail = failing(all[0].ID())
		if err := c.Run(t.Context(), got.handle); err == nil || !strings.Contains(err.Error(), "raise max.message.bytes of "+dead) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestDeadLetterTopicsGrowWhileTheConsumerRuns(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		all := p.publish(10, 5)
		c, got := parking(t, b), newCollector()
		c.Cluster.Config["topic.metadata.refresh.interval.ms"] = 200
		got.fail = func(r es.Record) error {
			if r.Version > 2 {
				return errBroken
			}
			return nil
		}
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		got.await(t, "all records", got.has(all))
		b.grow(t, 4)
		p = newPublisherFrom(t, b, all) // which knows the partitions
		more := p.publish(40, 20)
		bad := slices.DeleteFunc(slices.Clone(more), func(r es.Record) bool { return r.Version <= 2 })
		letters := awaitParked(t, b, len(bad))
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if !slices.ContainsFunc(letters, func(l kafka.DeadLetter) bool { return l.Partition > 0 }) {
			t.Error("no letter is in a new partition")
		}
	})
}
