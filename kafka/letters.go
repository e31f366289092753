package kafka

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"sync"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// letters are the dead-letter topics of one run: a producer, and a reader that follows the partitions that the run has.
// A nil letters has none.
type letters struct {
	r        *consumption
	topics   map[string]bool // those with a dead-letter topic
	config   ConfigMap
	producer *kafka.Producer
	tail     *reader
	work     sync.WaitGroup
	closing  chan struct{}

	mu    sync.Mutex
	boxes map[topicPartition]*letterbox
}

// openLetters opens the dead-letter topics of a run, or returns nil if it needs none: if it does not park, and nobody has before.
func openLetters(ctx context.Context, r *consumption) (*letters, error) {
	l := &letters{r: r, topics: make(map[string]bool), boxes: make(map[topicPartition]*letterbox), closing: make(chan struct{})}
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
	if l.config, err = readerConfig(r.Config, r.Group); err != nil {
		return nil, err
	}
	if l.producer, err = letterProducer(r.Config, r.log); err != nil {
		return nil, err
	}
	if l.tail, err = openReader(l.config, r.log); err != nil {
		l.producer.Close()
		return nil, err
	}
	l.work.Go(l.drain)
	l.work.Go(l.follows)
	return l, nil
}

// letterProducer makes a producer that has written what it says it has.
func letterProducer(user ConfigMap, log *slog.Logger) (*kafka.Producer, error) {
	config := ConfigMap{
		"client.id":                "es",
		"linger.ms":                1,
		"compression.type":         "lz4",
		"message.max.bytes":        1 << 30 >> 2, // the topic's limit is the one that counts
		"allow.auto.create.topics": false,
		"enable.metrics.push":      false,
	}
	maps.Copy(config, user)
	for key, promised := range map[string]any{"acks": "all", "enable.idempotence": true, "go.delivery.reports": true} {
		if value, given := user[key]; given && !sameSetting(value, promised) && (key != "acks" || !sameSetting(value, -1)) {
			return nil, invalid("setting %s=%v: it must be %v where records are parked; leave it out", key, value, promised)
		}
		config[key] = promised
	}
	for _, key := range []string{"transactional.id", "request.required.acks"} {
		if _, given := user[key]; given {
			return nil, invalid("setting %s has no place in the Config of a consumer; leave it out", key)
		}
	}
	config["go.logs.channel.enable"] = true
	p, err := kafka.NewProducer(&config)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w: %w", es.ErrInvalid, err)
	}
	go hear(p.Logs(), log, nil) // until the producer is closed
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
		switch event := l.tail.Poll(int(pollFor.Milliseconds())).(type) {
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
	return l.boxes[partitionOf(t)]
}

// of returns where the letters of a partition are, if it has any.
func (l *letters) of(t topicPartition) (topicPartition, bool) {
	if l == nil || !l.topics[t.topic] {
		return topicPartition{}, false
	}
	return topicPartition{DeadLetterTopic(t.topic, l.r.Group), t.number}, true
}

// follow begins to read the letters of a partition. The partition must not begin before its letterbox is loaded.
func (l *letters) follow(p *partition, begin kafka.Offset) error {
	t, ok := l.of(p.topicPartition)
	if !ok {
		return nil
	}
	b := newLetterbox(l, t, int64(begin), p.order)
	l.mu.Lock()
	l.boxes[t] = b
	l.mu.Unlock()
	p.letterbox = b
	at := t.at(int64(begin))
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
		delete(l.boxes, p.letterbox.topicPartition)
		l.mu.Unlock()
		if err := l.tail.IncrementalUnassign([]kafka.TopicPartition{p.letterbox.at(0)}); err != nil {
			l.r.log.Warn("kafka: cannot leave a partition of the dead-letter topic", "partition", p.letterbox.String(), "error", err)
		}
	}
}

// read reads a partition of a dead-letter topic from a letter on, to its end.
func (l *letters) read(ctx context.Context, t topicPartition, from int64) iter.Seq2[*kafka.Message, error] {
	return readPartition(ctx, l.config, l.r.log, t, kafka.Offset(from))
}

// readPartition reads a partition from an offset to its end, with a client of its own.
func readPartition(ctx context.Context, config ConfigMap, log *slog.Logger, t topicPartition, from kafka.Offset) iter.Seq2[*kafka.Message, error] {
	return func(yield func(*kafka.Message, error) bool) {
		r, err := openReader(maps.Clone(config), log)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = r.close() }() // it has written nothing
		if err := r.Assign([]kafka.TopicPartition{t.at(int64(from))}); err != nil {
			yield(nil, fmt.Errorf("kafka: read %v: %w", t, err))
			return
		}
		for {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			switch event := r.Poll(int(pollFor.Milliseconds())).(type) {
			case *kafka.Message:
				if !yield(event, nil) {
					return
				}
			case kafka.PartitionEOF:
				return
			case kafka.Error:
				if event.IsFatal() || event.Code() == kafka.ErrAutoOffsetReset || event.Code() == kafka.ErrTopicAuthorizationFailed || event.Code() == kafka.ErrUnknownTopicOrPart {
					yield(nil, fmt.Errorf("kafka: read %v: %w", t, event))
					return
				}
			}
		}
	}
}

// close ends the clients. It is called when no lane works any more.
func (l *letters) close() {
	if l == nil {
		return
	}
	close(l.closing)
	l.producer.Close()
	l.work.Wait()
	if err := l.tail.close(); err != nil {
		l.r.log.Warn("kafka: closing the reader of the dead-letter topic", "error", err)
	}
}

// ensureLetters makes the dead-letter topic of a topic if it is needed, and tells whether it is there.
func ensureLetters(ctx context.Context, r *consumption, topic string) (there bool, err error) {
	name, want := DeadLetterTopic(topic, r.Group), r.topics[topic].partitions
	if !topicName.MatchString(name) {
		return false, nil // and so nothing was ever parked; see Consumer.check
	}
	var none *NoTopicError
	switch states, err := r.client.describe(ctx, []string{name}); {
	case errors.As(err, &none) && r.OnError != es.Park:
		return false, nil
	case errors.As(err, &none):
		return true, createLetters(ctx, r, name, want)
	case err != nil:
		return false, err
	case states[name].partitions < want:
		return true, growLetters(ctx, r, name, want)
	}
	return true, checkLetters(ctx, r, name)
}

func createLetters(ctx context.Context, r *consumption, name string, partitions int) error {
	results, err := r.client.admin.CreateTopics(ctx, []kafka.TopicSpecification{{
		Topic:             name,
		NumPartitions:     partitions,
		ReplicationFactor: orElse(r.Replication, -1),
		Config:            map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"},
	}}, kafka.SetAdminOperationTimeout(askFor))
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
		_, err := r.client.describe(ctx, []string{name})
		if err == nil || attempt == 10 {
			return err
		}
		if err := sleep(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}

func growLetters(ctx context.Context, r *consumption, name string, partitions int) error {
	results, err := r.client.admin.CreatePartitions(ctx, []kafka.PartitionsSpecification{{Topic: name, IncreaseTo: partitions}}, kafka.SetAdminOperationTimeout(askFor))
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
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	results, err := r.client.admin.DescribeConfigs(ctx, []kafka.ConfigResource{{Type: kafka.ResourceTopic, Name: name}})
	if err != nil || len(results) == 0 || results[0].Error.Code() != kafka.ErrNoError {
		r.log.Warn("kafka: cannot see the settings of the dead-letter topic: it must not be compacted, and have no retention", "topic", name)
		return nil
	}
	settings := results[0].Config
	if policy := settings["cleanup.policy"].Value; strings.Contains(policy, "compact") {
		return invalid("dead-letter topic %s has cleanup.policy=%s, which deletes parked records: set it to delete", name, policy)
	}
	if keep := settings["retention.ms"].Value; keep != "-1" {
		r.log.Warn("kafka: the dead-letter topic deletes parked records in time: set its retention.ms to -1", "topic", name, "retention.ms", keep)
	}
	return nil
}
