package consume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
)

// rebalance returns the callback that librdkafka calls, within Poll and Close, when partitions are assigned and revoked.
func (r *Run) rebalance(ctx context.Context) kafka.RebalanceCb {
	return func(_ *kafka.Consumer, event kafka.Event) error {
		var err error
		switch e := event.(type) {
		case kafka.AssignedPartitions:
			err = r.assigned(ctx, e.Partitions)
		case kafka.RevokedPartitions:
			err = r.revoked(ctx, e.Partitions)
		}
		if err != nil {
			err = r.errorf("%w", client.WithPrincipal(err, r.Client))
			r.fail(err)
		}
		return err
	}
}

func (r *Run) assigned(ctx context.Context, list []kafka.TopicPartition) error {
	begin, err := r.begin(ctx, list)
	if err != nil {
		return r.refuse(err)
	}
	assign := make([]kafka.TopicPartition, 0, len(list))
	for _, at := range begin {
		p := newPartition(ctx, r, at)
		if p.letters, err = r.letters.Follow(p.Partition, at.letters, p.request); err != nil {
			return r.refuse(err)
		}
		r.mu.Lock()
		r.partitions[p.Partition] = p
		r.mu.Unlock()
		p.start()
		assign = append(assign, at.At(int64(at.offset)))
	}
	if err := r.client.IncrementalAssign(assign); err != nil {
		return fmt.Errorf("assign %v: %w", assign, err)
	}
	r.Log.Info("kafka: partitions assigned", "partitions", fmt.Sprint(assign))
	return nil
}

// refuse answers the rebalance although an error ends the run. The group then assigns the partitions to other members.
func (r *Run) refuse(err error) error { return errors.Join(err, r.client.IncrementalAssign(nil)) }

// start is where to begin reading a partition.
type start struct {
	client.Partition
	offset    kafka.Offset
	letters   kafka.Offset // in its dead-letter partition
	committed int64        // the group's offset; 0 if there is none
}

// begin returns where to begin reading partitions.
func (r *Run) begin(ctx context.Context, list []kafka.TopicPartition) ([]start, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if err := r.letters.Grow(ctx, r.client, list); err != nil {
		return nil, err
	}
	offsets, err := r.groupOffsets(ctx, list)
	if err != nil {
		return nil, err
	}
	if err := r.beginGroup(ctx, list, offsets); err != nil {
		return nil, err
	}
	var begin []start
	for _, t := range list {
		at := start{client.PartitionOf(t), offsets[client.PartitionOf(t)], kafka.OffsetBeginning, 0}
		if at.offset >= 0 {
			at.committed = int64(at.offset)
		} else {
			at.offset = kafka.OffsetBeginning
		}
		if dead, ok := r.letters.Of(at.Partition); ok && offsets[dead] >= 0 {
			at.letters = offsets[dead]
		}
		begin = append(begin, at)
	}
	return begin, nil
}

// groupOffsets returns the group's offsets of the partitions of a list, of the other partitions of their topics, and of the
// dead-letter partitions.
func (r *Run) groupOffsets(ctx context.Context, list []kafka.TopicPartition) (map[client.Partition]kafka.Offset, error) {
	wanted := make(map[client.Partition]bool)
	for _, t := range list {
		p := client.PartitionOf(t)
		wanted[p] = true
		if dead, ok := r.letters.Of(p); ok {
			wanted[dead] = true
		}
		for number := range r.topic(p.Topic).Partitions {
			wanted[client.Partition{Topic: p.Topic, Number: number}] = true
		}
	}
	request := make([]kafka.TopicPartition, 0, len(wanted))
	for p := range wanted {
		request = append(request, p.At(int64(kafka.OffsetInvalid)))
	}
	committed, err := r.committed(ctx, request)
	if err != nil {
		return nil, err
	}
	offsets := make(map[client.Partition]kafka.Offset, len(committed))
	for _, t := range committed {
		if t.Error != nil {
			return nil, fmt.Errorf("committed offset of %v: %w", client.PartitionOf(t), t.Error)
		}
		id := r.topic(*t.Topic).ID
		if t.Offset >= 0 && t.Metadata != nil && id != "" && *t.Metadata != id {
			return nil, fmt.Errorf("topic %s was deleted and created again; set the group's offsets, which are of topic id %s", *t.Topic, *t.Metadata)
		}
		offsets[client.PartitionOf(t)] = t.Offset
	}
	return offsets, nil
}

// committed requests the group's offsets, and retries a few times.
func (r *Run) committed(ctx context.Context, list []kafka.TopicPartition) ([]kafka.TopicPartition, error) {
	for attempt := 0; ; attempt++ {
		offsets, err := r.client.Committed(list, int(client.AskFor.Milliseconds()))
		if err == nil {
			return offsets, nil
		}
		final := r.denied(err)
		if ctx.Err() != nil || attempt == 5 || final != nil {
			return nil, fmt.Errorf("committed offsets: %w", cmp.Or(final, err))
		}
		r.Log.Warn("kafka: cannot read the committed offsets, retrying", "err", err)
		if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
			return nil, err
		}
	}
}

// revoked stops the work on partitions, commits what is done, and gives the partitions up, in this order.
func (r *Run) revoked(ctx context.Context, list []kafka.TopicPartition) error {
	var gone []*partition
	for _, t := range list {
		if p := r.partition(client.PartitionOf(t)); p != nil {
			gone = append(gone, p)
		}
	}
	lost := r.client.AssignmentLost()
	grace := r.Drain
	if lost {
		grace = 0 // another member may have them already
	}
	r.give(gone, grace, !lost)
	for _, p := range gone {
		r.letters.Forget(p.letters)
	}
	r.Log.Info("kafka: partitions revoked", "partitions", fmt.Sprint(list), "lost", lost)
	if err := r.client.IncrementalUnassign(list); err != nil && ctx.Err() == nil {
		return fmt.Errorf("unassign %v: %w", list, err)
	}
	return nil
}

// give stops the work on partitions, all at the same time, commits what is done if that is wanted, and removes them.
func (r *Run) give(list []*partition, grace time.Duration, commit bool) {
	var all sync.WaitGroup
	for _, p := range list {
		all.Go(func() { p.stop(grace) })
	}
	all.Wait()
	r.committing.Lock()
	defer r.committing.Unlock()
	if commit {
		r.finalCommit(list)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range list {
		delete(r.partitions, p.Partition)
	}
}

// close stops the work, commits what is done, and leaves the group.
func (r *Run) close(ctx context.Context) error {
	r.give(r.all(), r.Drain, true)
	r.letters.Close()
	if err := r.client.Close(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
