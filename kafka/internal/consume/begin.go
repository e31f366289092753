package consume

import (
	"context"
	"fmt"
	"slices"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
)

// beginGroup decides where the group begins to read partitions of which it has no offset, and adds to offsets those that are
// not the beginning.
//
// A group that has an offset of another partition of the topic has begun: the partition was added since, and is read from its
// beginning, also with FromEnd. So a group commits first where it begins, for all partitions of the topic and not only for those
// that this member was assigned. Several members may do that at the same time. The last one decides then, by a moment, where
// the end was.
func (r *Run) beginGroup(ctx context.Context, list []kafka.TopicPartition, offsets map[client.Partition]kafka.Offset) error {
	began, fresh := make(map[string]bool), make(map[string]bool)
	for p, offset := range offsets {
		began[p.Topic] = began[p.Topic] || offset >= 0
	}
	for _, t := range list {
		p := client.PartitionOf(t)
		switch {
		case offsets[p] >= 0:
		case began[p.Topic]:
			r.Log.Warn("kafka: the group has no offset of a partition, only of others: it was added, or the brokers have dropped the offset; reading it from its beginning",
				"topic", p.Topic, "partition", p.Number)
		default:
			fresh[p.Topic] = true
		}
	}
	for topic := range fresh {
		if err := r.beginTopic(ctx, topic, list, offsets); err != nil {
			return err
		}
	}
	return nil
}

// beginTopic decides where the group begins to read a topic of which it has no offsets: it is new, or the brokers have dropped them.
func (r *Run) beginTopic(ctx context.Context, topic string, list []kafka.TopicPartition, offsets map[client.Partition]kafka.Offset) error {
	if err := r.neverBegan(ctx, topic, list); err != nil {
		return err
	}
	where, offset := "beginning", r.client.Starts
	if r.FromEnd && !r.isNew(topic) {
		where, offset = "end", r.client.Ends
	}
	var all []client.Partition
	for p := range offsets {
		if p.Topic == topic {
			all = append(all, p)
		}
	}
	begin, err := offset(ctx, all)
	if err != nil {
		return err
	}
	id := r.topic(topic).ID
	var commit []kafka.TopicPartition
	for p, at := range begin {
		offsets[p] = kafka.Offset(at)
		t := p.At(at)
		t.Metadata = &id
		commit = append(commit, t)
	}
	r.Log.Warn("kafka: the group has no offsets of a topic: it is new, or the brokers have dropped them; reading it from its "+where, "topic", topic, "partitions", fmt.Sprint(commit))
	return r.commitBegin(ctx, commit)
}

// commitBegin commits where the group begins.
func (r *Run) commitBegin(ctx context.Context, offsets []kafka.TopicPartition) error {
	r.committing.Lock()
	defer r.committing.Unlock()
	for attempt := 0; ; attempt++ {
		err := r.client.Call("commit", func() error { return r.send(offsets) })
		switch {
		case err == nil, rebalancing(err): // then the next assignment begins again
			return nil
		case attempt == 5 || ctx.Err() != nil || !client.Passes(err):
			return fmt.Errorf("commit where the group begins: %w", err)
		}
		r.Log.Warn("kafka: cannot commit where the group begins, retrying", "err", err)
		if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
			return err
		}
	}
}

// neverBegan returns an error if the group has parked records of a topic, so that the brokers must have dropped its offsets.
func (r *Run) neverBegan(ctx context.Context, topic string, list []kafka.TopicPartition) error {
	var dead []client.Partition
	for _, t := range list {
		if p, ok := r.letters.Of(client.PartitionOf(t)); ok && *t.Topic == topic {
			dead = append(dead, p)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	ends, err := r.client.Ends(ctx, dead)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(dead, func(p client.Partition) bool { return ends[p] > 0 }) {
		return fmt.Errorf("the brokers have dropped the group's offsets of topic %s, whose records it has parked; set them", topic)
	}
	return nil
}

// outOfRange returns which offsets the cluster does not have any more.
func (r *Run) outOfRange(ctx context.Context, cause error) error {
	for _, p := range r.all() {
		low, high, err := r.client.Bounds(ctx, p.Partition)
		if err != nil {
			break
		}
		switch next := p.position(); {
		case next < low:
			return r.errorf("%v: retention deleted offsets %d to %d unhandled; set the group's offset: %w", p.Partition, next, low-1, cause)
		case next > high:
			return r.errorf("%v: the group's offset %d is beyond the end %d, records were lost; set it: %w", p.Partition, next, high, cause)
		}
	}
	return r.errorf("%w: retention deleted unhandled records, or the topic was created again; set the group's offsets", cause)
}
