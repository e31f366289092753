// Package consume runs a consumer: it assigns partitions, handles their records at least once, retries and parks those
// that fail, and commits offsets.
package consume

import (
	"cmp"
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
	Client      client.Cluster
	Group       string
	Topics      []string
	Filter      es.Filter
	FromEnd     bool
	Compacted   bool // accept topics that drop records
	SkipForeign bool
	Workers     int
	Buffer      int
	Park        bool
	Retries     int
	Drain       time.Duration
	Replication int
	Log         *slog.Logger
	Handle      func(ctx context.Context, store string, r es.Record) error // store: the id of the store that the record is from
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
	client   *client.Reader
	trouble  *client.Trouble // of all clients
	watch    *client.Watch
	fitness  *client.Fitness
	letters  *deadletter.Topics // nil if nothing is parked and nothing will be; only the polling goroutine uses it
	failed   chan error
	appeared chan appearance

	mu         sync.Mutex                      // guards the fields below
	partitions map[client.Partition]*partition // only the polling goroutine changes it
	topics     map[string]client.Topic         // those that exist
	missing    map[string]time.Time            // since when the run waits for a topic
	late       map[string]bool                 // topics that did not exist when the run began

	committing sync.Mutex // held while offsets are sent, so that no offset of a revoked partition is committed
}

// Open checks the settings. It does not wait for the cluster.
func Open(c Config) (*Run, error) {
	config, err := client.ConsumerConfig(c.Client, c.Group, c.Drain)
	if err != nil {
		return nil, err
	}
	if c.Park {
		if _, err := client.DeadLetterConfig(c.Client); err != nil {
			return nil, err
		}
	}
	r := &Run{
		Config: c, trouble: client.NewTrouble(c.Client, c.Log, nil), failed: make(chan error, 1), appeared: make(chan appearance, len(c.Topics)),
		partitions: make(map[client.Partition]*partition), topics: make(map[string]client.Topic), missing: make(map[string]time.Time), late: make(map[string]bool),
	}
	if r.client, err = client.OpenReader(config, r.trouble); err != nil {
		return nil, err
	}
	r.fitness = &client.Fitness{Reader: r.client, Check: client.KeepsRecords}
	return r, nil
}

// Run waits for the topics, polls until the context ends or the run fails, and closes the run.
func (r *Run) Run(ctx context.Context) error {
	err := r.awaitTopics(ctx)
	if err == nil {
		err = r.poll(ctx)
	}
	if closing := r.close(ctx); err == nil {
		err = closing
	}
	return err
}

func (r *Run) poll(ctx context.Context) error {
	if err := r.subscribe(ctx); err != nil {
		return err
	}
	background, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { r.commitPeriodically(background) })
	work.Go(func() { r.watch.Run(background) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-r.failed:
			return err
		case a := <-r.appeared:
			if err := r.addTopic(ctx, a); err != nil {
				return err
			}
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
		r.checkTopics(ctx) // a topic that was created again explains more
		select {
		case changed := <-r.failed:
			return changed
		default:
		}
		return r.outOfRange(ctx, err)
	case err.Code() == kafka.ErrInvalidSessionTimeout:
		return fmt.Errorf("%w: %w", es.ErrInvalid, r.errorf("%w", client.Final(err)))
	case err.IsFatal():
		return r.errorf("%w", err)
	}
	if final := r.final(ctx, err); final != nil {
		return final
	}
	r.trouble.Event(err)
	return nil
}

// final returns the error that ends the run if an error is permanent, and otherwise nil.
func (r *Run) final(ctx context.Context, err error) error {
	err = client.Missing(ctx, r.client.Admin, kafka.ACLOperationRead, err, r.Topics...)
	if final := cmp.Or(r.denied(err), client.Final(err)); final != nil {
		return r.errorf("%w", client.WithPrincipal(final, r.Client))
	}
	return nil
}

// explain adds the remedy to an error that ends the run.
func (r *Run) explain(err error) error {
	return client.WithPrincipal(cmp.Or(client.Final(err), err), r.Client)
}

// denied returns an error if the user lacks the right to use the group, and otherwise nil.
func (r *Run) denied(err error) error {
	if e, ok := client.KafkaError(err); !ok || e.Code() != kafka.ErrGroupAuthorizationFailed {
		return nil
	}
	return client.Denied(err, "Read", "group "+r.Group)
}

// changed ends the run because a topic was created again, or logs that it has grown.
func (r *Run) changed(c client.Change) {
	if c.Recreated() {
		r.fail(r.errorf("topic %s was deleted and created again; set the group's offsets and restart", c.Topic))
		return
	}
	r.mu.Lock()
	r.topics[c.Topic] = c.Is
	r.mu.Unlock()
	r.Log.Warn("kafka: a topic has grown: records of a key may be in two partitions and handled out of order",
		"topic", c.Topic, "was", c.Was.Partitions, "is", c.Is.Partitions)
}
