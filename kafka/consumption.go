package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

const (
	commitEvery = time.Second
	patience    = 100 * time.Millisecond // with a partition whose buffer is full, before it is paused
)

// A consumption is one run of a [Consumer].
//
// One goroutine polls, and does all that concerns the assignment. Each partition has goroutines of its own, see [partition].
// One more commits, now and then.
type consumption struct {
	*Consumer
	handle  func(ctx context.Context, r es.Record) error
	log     *slog.Logger
	client  *client.Reader
	topics  map[string]client.Topic
	watch   client.Watch
	letters *letters // nil if nothing is parked and nothing shall be
	failed  chan error

	mu         sync.Mutex // guards partitions, which the polling goroutine alone changes
	partitions map[client.Partition]*partition

	committing sync.Mutex // held while offsets are sent: nobody commits a partition that is not his any more
}

// run polls until the context ends or something fails.
func (r *consumption) run(ctx context.Context) error {
	if err := r.client.SubscribeTopics(r.Topics, r.rebalance(ctx)); err != nil {
		return fmt.Errorf("kafka: consumer %s: subscribe to %q: %w", r.Group, r.Topics, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	others.Go(func() { r.commitNowAndThen(ctx) })
	others.Go(func() { r.watch.Run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-r.failed:
			return err
		default:
		}
		r.resume()
		switch event := r.client.Poll(int(client.PollFor.Milliseconds())).(type) {
		case *kafka.Message:
			if err := r.take(ctx, event); err != nil {
				return err
			}
		case kafka.PartitionEOF:
			if p := r.partition(client.PartitionOf(kafka.TopicPartition(event))); p != nil {
				p.reached(int64(event.Offset))
			}
		case kafka.Error:
			if err := r.trouble(ctx, event); err != nil {
				return err
			}
		}
	}
}

func (r *consumption) partition(t client.Partition) *partition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.partitions[t]
}

func (r *consumption) all() []*partition {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*partition, 0, len(r.partitions))
	for _, p := range r.partitions {
		all = append(all, p)
	}
	return all
}

// fail ends the run. The first error is the one that counts.
func (r *consumption) fail(err error) {
	select {
	case r.failed <- err:
	default:
	}
}

// take gives a message to its partition. If that has enough already, the message is taken all the same and the partition paused.
//
// To pause throws away what was fetched ahead. So a handler that is only a little slower than the network is waited for a moment,
// in which librdkafka's queue fills up and it stops fetching by itself.
func (r *consumption) take(ctx context.Context, m *kafka.Message) error {
	p := r.partition(client.PartitionOf(m.TopicPartition))
	if p == nil {
		return nil // it was taken away while the message was on its way
	}
	p.push(m)
	if !p.full() {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for p.full() {
		select {
		case <-p.room:
			continue
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if err := r.client.Pause([]kafka.TopicPartition{p.At(0)}); err != nil {
			return fmt.Errorf("kafka: consumer %s: pause %v: %w", r.Group, p, err)
		}
		p.paused = true
		return nil
	}
	return nil
}

// resume goes on with the partitions that were paused and have room again.
func (r *consumption) resume() {
	for _, p := range r.partitions { // this goroutine alone changes it
		if !p.paused || !p.roomy() {
			continue
		}
		if err := r.client.Resume([]kafka.TopicPartition{p.At(0)}); err != nil {
			r.log.Warn("kafka: cannot resume a partition, trying again", "partition", p.String(), "error", err)
			continue
		}
		p.paused = false
	}
}

// trouble tells which of librdkafka's errors end the run. It mends the others itself.
func (r *consumption) trouble(ctx context.Context, err kafka.Error) error {
	switch {
	case err.Code() == kafka.ErrAutoOffsetReset:
		_ = r.watch.Check(ctx) // if it cannot tell, the error below does
		select {
		case again := <-r.failed:
			return again
		default:
		}
		return fmt.Errorf("kafka: consumer %s: %w: records that the group has not handled were deleted by retention, or the topic was deleted and created again; "+
			"see what is lost, then set the group's offsets, with kafka-consumer-groups --reset-offsets", r.Group, err)
	case err.IsFatal(), err.Code() == kafka.ErrTopicAuthorizationFailed, err.Code() == kafka.ErrGroupAuthorizationFailed:
		return fmt.Errorf("kafka: consumer %s: %w", r.Group, err)
	case err.Code() == kafka.ErrInvalidSessionTimeout:
		return client.Invalid("consumer %s: %v; keep session.timeout.ms between the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms", r.Group, err)
	}
	r.log.Warn("kafka: trouble, librdkafka goes on", "error", err, "code", err.Code().String())
	return nil
}

// rebalance returns what librdkafka calls, from within Poll and Close, when partitions come and go.
func (r *consumption) rebalance(ctx context.Context) kafka.RebalanceCb {
	return func(_ *kafka.Consumer, event kafka.Event) error {
		var err error
		switch e := event.(type) {
		case kafka.AssignedPartitions:
			err = r.assigned(ctx, e.Partitions)
		case kafka.RevokedPartitions:
			err = r.revoked(ctx, e.Partitions)
		}
		if err != nil {
			r.fail(fmt.Errorf("kafka: consumer %s: %w", r.Group, err))
		}
		return err
	}
}

func (r *consumption) assigned(ctx context.Context, list []kafka.TopicPartition) error {
	begin, err := r.begin(ctx, list)
	if err != nil {
		// The group needs an answer even so. The run ends at once, and the partitions go to others.
		return errors.Join(err, r.client.IncrementalAssign(nil))
	}
	assign := make([]kafka.TopicPartition, 0, len(list))
	for _, at := range begin {
		p := newPartition(ctx, r, at.Partition)
		if err := r.letters.follow(p, at.letters); err != nil {
			return errors.Join(err, r.client.IncrementalAssign(nil))
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
	r.log.Info("kafka: partitions assigned", "partitions", fmt.Sprint(assign))
	return nil
}

// A beginning is where a partition and its letters begin.
type beginning struct {
	client.Partition
	offset, letters kafka.Offset
}

// begin returns where to begin with partitions.
func (r *consumption) begin(ctx context.Context, list []kafka.TopicPartition) ([]beginning, error) {
	if len(list) == 0 {
		return nil, nil
	}
	ask := make([]kafka.TopicPartition, 0, 2*len(list))
	for _, t := range list {
		ask = append(ask, client.PartitionOf(t).At(int64(kafka.OffsetInvalid)))
		if dead, ok := r.letters.of(client.PartitionOf(t)); ok {
			ask = append(ask, dead.At(int64(kafka.OffsetInvalid)))
		}
	}
	committed, err := r.committed(ctx, ask)
	if err != nil {
		return nil, err
	}
	offsets := make(map[client.Partition]kafka.Offset, len(committed))
	for _, t := range committed {
		if t.Error != nil {
			return nil, fmt.Errorf("committed offset of %v: %w", client.PartitionOf(t), t.Error)
		}
		id := r.topics[*t.Topic].ID
		if t.Offset >= 0 && t.Metadata != nil && id != "" && *t.Metadata != id {
			return nil, fmt.Errorf("topic %s was deleted and created again: the group's offsets are of the one with id %s, not %s; "+
				"see what is lost, then set the group's offsets, with kafka-consumer-groups --reset-offsets", *t.Topic, *t.Metadata, id)
		}
		offsets[client.PartitionOf(t)] = t.Offset
	}
	var begin []beginning
	for _, t := range list {
		at := beginning{client.PartitionOf(t), offsets[client.PartitionOf(t)], kafka.OffsetBeginning}
		if at.offset < 0 {
			at.offset = kafka.OffsetBeginning
			if r.FromEnd {
				at.offset = kafka.OffsetEnd
			}
		}
		if dead, ok := r.letters.of(at.Partition); ok && offsets[dead] >= 0 {
			at.letters = offsets[dead]
		}
		begin = append(begin, at)
	}
	return begin, nil
}

// committed asks for the group's offsets until there is an answer or the context ends.
func (r *consumption) committed(ctx context.Context, list []kafka.TopicPartition) ([]kafka.TopicPartition, error) {
	for attempt := 0; ; attempt++ {
		offsets, err := r.client.Committed(list, int(client.AskFor.Milliseconds()))
		if err == nil {
			return offsets, nil
		}
		if ctx.Err() != nil || attempt == 5 {
			return nil, fmt.Errorf("committed offsets: %w", err)
		}
		r.log.Warn("kafka: cannot get the committed offsets, trying again", "error", err)
		if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
			return nil, err
		}
	}
}

// revoked ends the work on partitions, commits what is done, and gives them away: in this order.
func (r *consumption) revoked(ctx context.Context, list []kafka.TopicPartition) error {
	var gone []*partition
	for _, t := range list {
		if p := r.partition(client.PartitionOf(t)); p != nil {
			gone = append(gone, p)
		}
	}
	lost := r.client.AssignmentLost()
	grace := cmp.Or(r.Drain, DefaultDrain)
	if lost {
		grace = 0 // they may be somebody else's by now
	}
	r.stop(gone, grace)
	r.committing.Lock()
	if !lost {
		r.lastCommit(gone)
	}
	r.mu.Lock()
	for _, p := range gone {
		delete(r.partitions, p.Partition)
	}
	r.mu.Unlock()
	r.committing.Unlock()
	r.letters.forget(gone)
	r.log.Info("kafka: partitions revoked", "partitions", fmt.Sprint(list), "lost", lost)
	if err := r.client.IncrementalUnassign(list); err != nil && ctx.Err() == nil {
		return fmt.Errorf("unassign %v: %w", list, err)
	}
	return nil
}

// stop ends the work on partitions, all at the same time.
func (r *consumption) stop(list []*partition, grace time.Duration) {
	var all sync.WaitGroup
	for _, p := range list {
		all.Go(func() { p.stop(grace) })
	}
	all.Wait()
}

// close ends the work, commits what is done, and leaves the group.
func (r *consumption) close(ctx context.Context) error {
	all := r.all()
	r.stop(all, cmp.Or(r.Drain, DefaultDrain))
	r.committing.Lock()
	r.lastCommit(all)
	r.mu.Lock()
	clear(r.partitions)
	r.mu.Unlock()
	r.committing.Unlock()
	r.letters.close()
	if err := r.client.Close(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (r *consumption) commitNowAndThen(ctx context.Context) {
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
		switch {
		case rebalancing(err):
			r.log.Debug("kafka: cannot commit while the group rebalances, trying again", "error", err)
		case err != nil:
			r.log.Warn("kafka: cannot commit, trying again", "error", err)
		}
	}
}

// lastCommit commits before partitions are given away. The group may just be rebalancing, and then it takes an attempt or two more.
// Its caller holds committing.
func (r *consumption) lastCommit(list []*partition) {
	var err error
	for attempt := range 6 {
		if err = r.commit(list); !rebalancing(err) || r.client.AssignmentLost() {
			break
		}
		time.Sleep(client.Backoff(attempt))
	}
	if err != nil {
		r.log.Warn("kafka: the last commit failed: some records will be handled again", "error", err)
	}
}

// rebalancing tells whether a commit failed because the group is between two assignments.
func rebalancing(err error) bool {
	var e kafka.Error
	return errors.As(err, &e) && (e.Code() == kafka.ErrIllegalGeneration || e.Code() == kafka.ErrRebalanceInProgress)
}

// commit sends the offsets of partitions that have moved. Its caller holds committing.
func (r *consumption) commit(list []*partition) error {
	var offsets []kafka.TopicPartition
	var moved []func()
	for _, p := range list {
		if next, ok := p.uncommitted(); ok {
			t := p.At(next)
			id := r.topics[p.Topic].ID
			t.Metadata = &id
			offsets = append(offsets, t)
			moved = append(moved, func() { p.setCommitted(next) })
		}
		if next, ok := p.letterbox.uncommitted(); ok {
			offsets = append(offsets, p.letterbox.At(next))
			moved = append(moved, func() { p.letterbox.setCommitted(next) })
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	if err := r.client.Call("commit", func() error { return r.send(offsets) }); err != nil {
		return err
	}
	for _, f := range moved {
		f()
	}
	return nil
}

func (r *consumption) send(offsets []kafka.TopicPartition) error {
	results, err := r.client.CommitOffsets(offsets)
	for _, t := range results {
		if err == nil && t.Error != nil {
			err = fmt.Errorf("%v: %w", client.PartitionOf(t), t.Error)
		}
	}
	return err
}

// changed ends the run if a topic was deleted and created again, and logs that one has grown.
func (r *consumption) changed(c client.Change) {
	if c.Recreated() {
		r.fail(fmt.Errorf("kafka: consumer %s: topic %s was deleted and created again: see what is lost, then set the group's offsets and start again", r.Group, c.Topic))
		return
	}
	r.log.Warn("kafka: topic has grown; records of a key may be in two partitions now and be handled out of order",
		"topic", c.Topic, "was", c.Was.Partitions, "is", c.Is.Partitions)
}

// gone ends the run because a topic does not exist any more.
func (r *consumption) gone(err error) { r.fail(fmt.Errorf("kafka: consumer %s: %w", r.Group, err)) }
