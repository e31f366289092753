package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// letters are the dead-letter topics of one run: a producer, and a reader that follows the partitions that the run has.
// A nil letters has none.
type letters struct {
	r        *consumption
	topics   map[string]bool // those with a dead-letter topic
	config   ConfigMap
	producer *kafka.Producer
	tail     *client.Reader
	work     sync.WaitGroup
	closing  chan struct{}

	mu    sync.Mutex
	boxes map[client.Partition]*letterbox
}

// openLetters opens the dead-letter topics of a run, or returns nil if it needs none: if it does not park, and nobody has before.
func openLetters(ctx context.Context, r *consumption) (*letters, error) {
	l := &letters{r: r, topics: make(map[string]bool), boxes: make(map[client.Partition]*letterbox), closing: make(chan struct{})}
	for _, topic := range r.Topics {
		there, err := ensureLetters(ctx, r, topic)
		if err != nil {
			return nil, err
		}
		if there {
			l.topics[topic] = true
		}
	}
	if len(l.topics) == 0 {
		return nil, nil
	}
	var err error
	if l.config, err = client.ReaderConfig(r.Cluster.Config, r.Group); err != nil {
		return nil, err
	}
	if l.producer, err = letterProducer(r.Cluster.Config, r.log); err != nil {
		return nil, err
	}
	if l.tail, err = client.OpenReader(l.config, r.log); err != nil {
		l.producer.Close()
		return nil, err
	}
	l.work.Go(l.drain)
	l.work.Go(l.follows)
	return l, nil
}

// letterProducer makes a producer that has written what it says it has.
func letterProducer(user ConfigMap, log *slog.Logger) (*kafka.Producer, error) {
	config, err := client.DeadLetterConfig(user)
	if err != nil {
		return nil, err
	}
	p, err := kafka.NewProducer(&config)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w: %w", es.ErrInvalid, err)
	}
	go client.ForwardLogs(p.Logs(), log, nil) // until the producer is closed
	return p, nil
}

// drain hears the producer's events, which would otherwise fill up.
func (l *letters) drain() {
	for event := range l.producer.Events() {
		if err, ok := event.(kafka.Error); ok {
			l.r.log.Warn("kafka: trouble with the dead-letter topic, librdkafka goes on", "error", err, "code", err.Code().String())
		}
	}
}

// follows reads what comes to the letterboxes.
func (l *letters) follows() {
	for {
		select {
		case <-l.closing:
			return
		default:
		}
		switch event := l.tail.Poll(int(client.PollFor.Milliseconds())).(type) {
		case *kafka.Message:
			if b := l.box(event.TopicPartition); b != nil {
				b.take(event)
			}
		case kafka.PartitionEOF:
			if b := l.box(kafka.TopicPartition(event)); b != nil {
				b.atEnd(int64(event.Offset))
			}
		case kafka.Error:
			if event.Code() == kafka.ErrAutoOffsetReset {
				l.r.fail(fmt.Errorf("kafka: consumer %s: %w: records that were parked have been deleted; see what is lost, then set the group's offsets of the dead-letter topic, with kafka-consumer-groups --reset-offsets",
					l.r.Group, event))
			} else if event.IsFatal() {
				l.r.fail(fmt.Errorf("kafka: consumer %s: dead-letter topic: %w", l.r.Group, event))
			}
		}
	}
}

func (l *letters) box(t kafka.TopicPartition) *letterbox {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.boxes[client.PartitionOf(t)]
}

// of returns where the letters of a partition are, if it has any.
func (l *letters) of(t client.Partition) (client.Partition, bool) {
	if l == nil || !l.topics[t.Topic] {
		return client.Partition{}, false
	}
	return client.Partition{Topic: DeadLetterTopic(t.Topic, l.r.Group), Number: t.Number}, true
}

// follow begins to read the letters of a partition. The partition must not begin before its letterbox is loaded.
func (l *letters) follow(p *partition, begin kafka.Offset) error {
	t, ok := l.of(p.Partition)
	if !ok {
		return nil
	}
	b := newLetterbox(l, t, int64(begin), p.order)
	l.mu.Lock()
	l.boxes[t] = b
	l.mu.Unlock()
	p.letterbox = b
	at := t.At(int64(begin))
	if begin < 0 {
		at.Offset = kafka.OffsetBeginning
	}
	if err := l.tail.IncrementalAssign([]kafka.TopicPartition{at}); err != nil {
		return fmt.Errorf("read %v: %w", t, err)
	}
	return nil
}

// forget reads the letters of partitions no more.
func (l *letters) forget(gone []*partition) {
	for _, p := range gone {
		if p.letterbox == nil {
			continue
		}
		l.mu.Lock()
		delete(l.boxes, p.letterbox.Partition)
		l.mu.Unlock()
		if err := l.tail.IncrementalUnassign([]kafka.TopicPartition{p.letterbox.At(0)}); err != nil {
			l.r.log.Warn("kafka: cannot leave a partition of the dead-letter topic", "partition", p.letterbox.String(), "error", err)
		}
	}
}

// read reads a partition of a dead-letter topic from a letter on, to its end.
func (l *letters) read(ctx context.Context, t client.Partition, from int64) iter.Seq2[*kafka.Message, error] {
	return client.ReadPartition(ctx, l.config, l.r.log, t, from, client.ToEnd)
}

// close ends the clients. It is called when no lane works any more.
func (l *letters) close() {
	if l == nil {
		return
	}
	close(l.closing)
	l.producer.Close()
	l.work.Wait()
	if err := l.tail.Close(); err != nil {
		l.r.log.Warn("kafka: closing the reader of the dead-letter topic", "error", err)
	}
}

// ensureLetters makes the dead-letter topic of a topic if it is needed, and tells whether it is there.
func ensureLetters(ctx context.Context, r *consumption, topic string) (there bool, err error) {
	name, want := DeadLetterTopic(topic, r.Group), r.topics[topic].Partitions
	if !client.IsTopicName(name) {
		return false, nil // and so nothing was ever parked; see Consumer.check
	}
	var none *NoTopicError
	switch states, err := r.client.Describe(ctx, name); {
	case errors.As(err, &none) && r.OnError != es.Park:
		return false, nil
	case errors.As(err, &none):
		return true, createLetters(ctx, r, name, int(want))
	case err != nil:
		return false, err
	case states[name].Partitions < want:
		return true, growLetters(ctx, r, name, int(want))
	}
	return true, checkLetters(ctx, r, name)
}

func createLetters(ctx context.Context, r *consumption, name string, partitions int) error {
	results, err := r.client.Admin.CreateTopics(ctx, []kafka.TopicSpecification{{
		Topic:             name,
		NumPartitions:     partitions,
		ReplicationFactor: cmp.Or(r.Replication, -1),
		Config:            map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"},
	}}, kafka.SetAdminOperationTimeout(client.AskFor))
	if err == nil {
		err = firstOf(results)
	}
	if err != nil {
		return fmt.Errorf("kafka: create dead-letter topic %s: %w; make it yourself, with %d partitions and without retention, or give the user the right to", name, err, partitions)
	}
	r.log.Info("kafka: dead-letter topic made", "topic", name, "partitions", partitions)
	return r.awaitTopic(ctx, name)
}

// awaitTopic waits until a topic that was made is known.
func (r *consumption) awaitTopic(ctx context.Context, name string) error {
	for attempt := 0; ; attempt++ {
		_, err := r.client.Describe(ctx, name)
		if err == nil || attempt == 10 {
			return err
		}
		if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
			return err
		}
	}
}

func growLetters(ctx context.Context, r *consumption, name string, partitions int) error {
	results, err := r.client.Admin.CreatePartitions(ctx, []kafka.PartitionsSpecification{{Topic: name, IncreaseTo: partitions}}, kafka.SetAdminOperationTimeout(client.AskFor))
	if err == nil {
		err = firstOf(results)
	}
	if err != nil {
		return fmt.Errorf("kafka: dead-letter topic %s has fewer partitions than its topic, %d: %w; give it as many", name, partitions, err)
	}
	return nil
}

// firstOf returns the first error, if that a topic exists is none.
func firstOf(results []kafka.TopicResult) error {
	for _, result := range results {
		if code := result.Error.Code(); code != kafka.ErrNoError && code != kafka.ErrTopicAlreadyExists {
			return result.Error
		}
	}
	return nil
}

// checkLetters refuses a dead-letter topic that would forget.
func checkLetters(ctx context.Context, r *consumption, name string) error {
	ctx, cancel := context.WithTimeout(ctx, client.AskFor)
	defer cancel()
	results, err := r.client.Admin.DescribeConfigs(ctx, []kafka.ConfigResource{{Type: kafka.ResourceTopic, Name: name}})
	if err != nil || len(results) == 0 || results[0].Error.Code() != kafka.ErrNoError {
		r.log.Warn("kafka: cannot see the settings of the dead-letter topic: it must not be compacted, and have no retention", "topic", name)
		return nil
	}
	settings := results[0].Config
	if policy := settings["cleanup.policy"].Value; strings.Contains(policy, "compact") {
		return client.Invalid("dead-letter topic %s has cleanup.policy=%s, which deletes parked records: set it to delete", name, policy)
	}
	if keep := settings["retention.ms"].Value; keep != "-1" {
		r.log.Warn("kafka: the dead-letter topic deletes parked records in time: set its retention.ms to -1", "topic", name, "retention.ms", keep)
	}
	return nil
}
