package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/thalo-go/es"
)

// offsetsOf returns the offsets that a group has committed of the first partitions of a topic; -1 for none. It does not ask librdkafka, whose
// ListConsumerGroupOffsets ends the process with a segmentation fault when the coordinator has moved (2.11.1).
func (b bank) offsetsOf(t testing.TB, group, topic string, partitions int32) []int64 {
	t.Helper()
	c := watcher(t, b.Bootstrap, kgo.MaxVersions(kversion.V3_0_0())) // later versions name topics by their ids
	of := kmsg.NewOffsetFetchRequestGroup()
	in := kmsg.NewOffsetFetchRequestGroupTopic()
	in.Topic = topic
	offsets := make([]int64, partitions)
	for i := range partitions {
		in.Partitions, offsets[i] = append(in.Partitions, i), -1
	}
	of.Group, of.Topics = group, append(of.Topics, in)
	insist(t, "the offsets of a group", func() error {
		request := kmsg.NewOffsetFetchRequest()
		request.Groups = append(request.Groups, of)
		answer, err := request.RequestWith(t.Context(), c)
		if err == nil {
			err = kerr.ErrorForCode(answer.Groups[0].ErrorCode)
		}
		if errors.Is(err, kerr.GroupIDNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, topic := range answer.Groups[0].Topics {
			for _, p := range topic.Partitions {
				offsets[p.Partition] = max(p.Offset, -1)
			}
		}
		return nil
	})
	return offsets
}

// dropOffsets deletes a group with its offsets, as the brokers do after offsets.retention.minutes.
func (b bank) dropOffsets(t testing.TB, group string) {
	t.Helper()
	insist(t, "the group is deleted", func() error {
		answer, err := b.admin(t).DeleteConsumerGroups(t.Context(), []string{group})
		if err == nil && answer.ConsumerGroupResults[0].Error.Code() != confluent.ErrNoError {
			err = answer.ConsumerGroupResults[0].Error
		}
		return err
	})
}

// sendTo writes records to a partition, in one transaction.
func (p *publisher) sendTo(partition int32, records ...es.Record) {
	p.t.Helper()
	p.transact(true, func() error {
		for _, r := range records {
			m, err := p.encoding.Encode(p.store, r, p.topic)
			if err != nil {
				return err
			}
			m.TopicPartition.Partition = partition
			// The producer learns of a new partition after a moment.
			insist(p.t, "a record is sent", func() error { return p.producer.Produce(m, nil) })
		}
		return nil
	})
}

func TestAPartitionAddedToAGroupThatBeganAtTheEndIsReadFromItsBeginning(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running %v", running), func(t *testing.T) {
			t.Parallel()
			each(t, 2, func(t *testing.T, b bank) {
				p := newPublisher(t, b)
				before := p.record("before", "{}")
				p.sendTo(0, before)
				c, got := consumer(t, b), newCollector()
				c.FromEnd, c.Cluster.Config["topic.metadata.refresh.interval.ms"] = true, 500
				stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
				insist(t, "the group has begun", func() error {
					if offsets := b.offsetsOf(t, c.Group, b.topic, 2); offsets[0] <= 0 || offsets[1] < 0 {
						return fmt.Errorf("its offsets are %v", offsets)
					}
					return nil
				})
				if !running {
					_ = stop()
				}
				b.grow(t, 3)
				added := []es.Record{p.record("a", "{}"), p.record("a", "{}"), p.record("a", "{}")}
				again := newPublisherFrom(t, b, added) // it knows the partition
				again.sendTo(2, added...)
				if !running {
					c = consumer(t, b)
					c.FromEnd = true
					stop = start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
				}
				got.await(t, "the records of the partition that was added", got.has(added))
				if err := stop(); !errors.Is(err, context.Canceled) {
					t.Errorf("Run returned %v", err)
				}
				if got.ids[before.ID()] > 0 {
					t.Error("a record was handled that was there before the group began")
				}
			})
		})
	}
}

func TestDroppedOffsetsAreToldFromANewGroup(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		all := p.publish(20, 2)
		c, got := parking(t, b), newCollector()
		got.fail = failing(all[4].ID())
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		bad, good := of(all, "a0", all[4].Version)
		got.await(t, "all records that are not parked", got.has(good))
		awaitParked(t, b, len(bad))
		_ = stop()

		b.dropOffsets(t, c.Group)
		c = parking(t, b)
		err := c.Run(t.Context(), got.handle)
		if err == nil || !strings.Contains(err.Error(), "have dropped the group's offsets") {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestAnOffsetOutOfRangeNamesWhatIsLost(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		all := p.publish(20, 2)
		c, got := consumer(t, b), newCollector()
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		got.await(t, "all records", got.has(all))
		_ = stop()
		next := b.offsetsOf(t, c.Group, b.topic, 1)[0]
		p.publish(20, 2)
		b.deleteBefore(t, 0, next+10)
		c = consumer(t, b)
		err := c.Run(t.Context(), got.handle)
		if want := fmt.Sprintf("%s [0]: retention deleted offsets %d to %d unhandled", b.topic, next, next+9); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run returned %v\nwant %s", err, want)
		}
	})
}
