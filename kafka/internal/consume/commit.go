package consume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
)

const commitEvery = time.Second

func (r *Run) commitPeriodically(ctx context.Context) {
	ticker := time.NewTicker(commitEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		r.committing.Lock()
		err := r.commit(r.all())
		r.committing.Unlock()
		final := r.final(ctx, err)
		switch {
		case final != nil:
			r.fail(final)
		case rebalancing(err):
			r.Log.Debug("kafka: cannot commit while the group rebalances, retrying", "err", err)
		case err != nil:
			r.Log.Warn("kafka: cannot commit, retrying", "err", err)
		}
	}
}

// finalCommit commits before partitions are given up. While the group rebalances, a commit may take a few attempts.
// The caller holds committing.
func (r *Run) finalCommit(list []*partition) {
	var err error
	for attempt := range 6 {
		if err = r.commit(list); !rebalancing(err) || r.client.AssignmentLost() {
			break
		}
		time.Sleep(client.Backoff(attempt))
	}
	if err != nil {
		r.Log.Warn("kafka: the final commit failed: some records will be handled again", "err", err)
	}
}

// rebalancing reports whether a commit failed because the group is rebalancing.
func rebalancing(err error) bool {
	var e kafka.Error
	return errors.As(err, &e) && (e.Code() == kafka.ErrIllegalGeneration || e.Code() == kafka.ErrRebalanceInProgress)
}

// commit commits the offsets that have moved. The caller holds committing.
func (r *Run) commit(list []*partition) error {
	var offsets []kafka.TopicPartition
	var committed []func()
	for _, p := range list {
		if next, ok := p.uncommitted(); ok {
			t := p.At(next)
			id := r.topic(p.Topic).ID
			t.Metadata = &id
			offsets = append(offsets, t)
			committed = append(committed, func() { p.setCommitted(next) })
		}
		if next, ok := p.letters.Uncommitted(); ok {
			offsets = append(offsets, p.letters.At(next))
			committed = append(committed, func() { p.letters.SetCommitted(next) })
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	if err := r.client.Call("commit", func() error { return r.send(offsets) }); err != nil {
		return err
	}
	for _, f := range committed {
		f()
	}
	return nil
}

func (r *Run) send(offsets []kafka.TopicPartition) error {
	results, err := r.client.CommitOffsets(offsets)
	for _, t := range results {
		if err == nil && t.Error != nil {
			err = fmt.Errorf("%v: %w", client.PartitionOf(t), t.Error)
		}
	}
	return err
}
