// Package consume runs a consumer: it assigns partitions, handles their records at least once, retries and parks those
// that fail, and commits offsets.
package consume

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/deadletter"
)

// Config is the settings of a run, with all defaults applied.
type Config struct {
	Client      client.ConfigMap
	Group       string
	Topics      []string
	Filter      es.Filter
	FromEnd     bool
	SkipForeign bool
	Workers     int
	Buffer      int
	Park        bool
	Retries     int
	Drain       time.Duration
	Replication int
	Log         *slog.Logger
	Handle      func(ctx context.Context, r es.Record) error
}

// RecordError reports the record that stopped a run.
type RecordError struct {
	Partition client.Partition
	Offset    int64
	Record    es.Record // zero if the message is not a record
	Err       error     // the handler's
}

func (f *RecordError) Error() string { return f.Err.Error() }

// Unwrap returns the handler's error.
func (f *RecordError) Unwrap() error { return f.Err }

// pauseAfter is how long the poll loop waits for a partition with a full buffer before it pauses the partition.
const pauseAfter = 100 * time.Millisecond

// Run is one run of a consumer.
//
// One goroutine polls and makes all changes to the assignment. Each partition has goroutines of its own, see [partition].
// Two more commit offsets and watch the topics.
type Run struct {
	Config
	client  *client.Reader
	topics  map[string]client.Topic
	watch   *client.Watch
	letters *deadletter.Topics // nil if nothing is parked and nothing will be
	failed  chan error

	mu         sync.Mutex // guards partitions, which only the polling goroutine changes
	partitions map[client.Partition]*partition

	committing sync.Mutex // held while offsets are sent, so that no offset of a revoked partition is committed
}

// Open connects to the cluster and looks up the topics.
func Open(ctx context.Context, c Config) (*Run, error) {
	config, err := client.ReaderConfig(c.Client, c.Group)
	if err != nil {
		return nil, err
	}
	r := &Run{Config: c, partitions: make(map[client.Partition]*partition), failed: make(chan error, 1)}
	if r.client, err = client.OpenReader(config, r.Log); err != nil {
		return nil, err
	}
	if r.topics, err = r.client.Describe(ctx, c.Topics...); err == nil {
		r.letters, err = deadletter.Open(ctx, r.client, deadletter.Config{
			Client: c.Client, Group: c.Group, Topics: r.topics, Park: c.Park, Replication: c.Replication, Log: c.Log, Fail: r.fail,
		})
	}
	if err != nil {
		_ = r.client.Close() // the first error says more
		return nil, err
	}
	r.watch = &client.Watch{
		Reader: r.client, Topics: r.topics, Log: r.Log, Changed: r.changed,
		Gone: func(err error) { r.fail(r.errorf("%w", err)) },
	}
	return r, nil
}

// Run polls until the context ends or the run fails, and closes the run.
func (r *Run) Run(ctx context.Context) error {
	err := r.poll(ctx)
	if closing := r.close(ctx); err == nil {
		err = closing
	}
	return err
}

func (r *Run) poll(ctx context.Context) error {
	if err := r.client.SubscribeTopics(r.Topics, r.rebalance(ctx)); err != nil {
		return r.errorf("subscribe to %q: %w", r.Topics, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	background.Go(func() { r.commitPeriodically(ctx) })
	background.Go(func() { r.watch.Run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-r.failed:
			return err
		default:
		}
		r.resume()
		if err := r.process(ctx, r.client.Poll(int(client.PollFor.Milliseconds()))); err != nil {
			return err
		}
	}
}

func (r *Run) process(ctx context.Context, event kafka.Event) error {
	switch event := event.(type) {
	case *kafka.Message:
		return r.deliver(ctx, event)
	case kafka.PartitionEOF:
		if p := r.partition(client.PartitionOf(kafka.TopicPartition(event))); p != nil {
			p.reachedEnd(int64(event.Offset))
		}
	case kafka.Error:
		return r.check(ctx, event)
	}
	return nil
}

func (r *Run) partition(p client.Partition) *partition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.partitions[p]
}

func (r *Run) all() []*partition {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*partition, 0, len(r.partitions))
	for _, p := range r.partitions {
		all = append(all, p)
	}
	return all
}

// fail ends the run with an error. Later errors are dropped.
func (r *Run) fail(err error) {
	select {
	case r.failed <- err:
	default:
	}
}

func (r *Run) errorf(format string, args ...any) error {
	return fmt.Errorf("kafka: consumer %s: %w", r.Group, fmt.Errorf(format, args...))
}

// deliver adds a message to the buffer of its partition. If the buffer is full afterwards, the partition is paused.
//
// Pausing discards prefetched messages. So deliver first waits a moment for a handler that is only a little slower than
// the network; librdkafka stops fetching when its own queue is full.
func (r *Run) deliver(ctx context.Context, m *kafka.Message) error {
	p := r.partition(client.PartitionOf(m.TopicPartition))
	if p == nil {
		return nil // the partition was revoked after the message was fetched
	}
	p.add(m)
	if !p.full() {
		return nil
	}
	timer := time.NewTimer(pauseAfter)
	defer timer.Stop()
	for p.full() {
		select {
		case <-p.drained:
			continue
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if err := r.client.Pause([]kafka.TopicPartition{p.At(0)}); err != nil {
			return r.errorf("pause %v: %w", p, err)
		}
		p.paused = true
		return nil
	}
	return nil
}

// resume resumes paused partitions whose buffers have capacity again.
func (r *Run) resume() {
	for _, p := range r.partitions { // only this goroutine changes it
		if !p.paused || !p.hasCapacity() {
			continue
		}
		if err := r.client.Resume([]kafka.TopicPartition{p.At(0)}); err != nil {
			r.Log.Warn("kafka: cannot resume a partition, retrying", "partition", p.String(), "err", err)
			continue
		}
		p.paused = false
	}
}

// check returns an error if one of librdkafka's errors ends the run. It recovers from the others.
func (r *Run) check(ctx context.Context, err kafka.Error) error {
	switch {
	case err.Code() == kafka.ErrAutoOffsetReset:
		_ = r.watch.Check(ctx) // a topic that was created again explains more
		select {
		case changed := <-r.failed:
			return changed
		default:
		}
		return r.errorf("%w: retention deleted unhandled records, or the topic was created again; set the group's offsets", err)
	case err.IsFatal(), err.Code() == kafka.ErrTopicAuthorizationFailed, err.Code() == kafka.ErrGroupAuthorizationFailed:
		return r.errorf("%w", err)
	case err.Code() == kafka.ErrInvalidSessionTimeout:
		return client.Invalid("consumer %s: %v; set session.timeout.ms within the brokers' group.min and group.max.session.timeout.ms", r.Group, err)
	}
	r.Log.Warn("kafka: librdkafka error", "err", err, "code", err.Code().String())
	return nil
}

// changed ends the run because a topic was created again, or logs that it has grown.
func (r *Run) changed(c client.Change) {
	if c.Recreated() {
		r.fail(r.errorf("topic %s was deleted and created again; set the group's offsets and restart", c.Topic))
		return
	}
	r.Log.Warn("kafka: a topic has grown: records of a key may be in two partitions and handled out of order",
		"topic", c.Topic, "was", c.Was.Partitions, "is", c.Is.Partitions)
}
