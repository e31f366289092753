package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
)

// ensure creates the dead-letter topic of a topic if it is needed, and reports whether it exists.
func ensure(ctx context.Context, r *client.Reader, c Config, topic string) (exists bool, err error) {
	name, want := Topic(topic, c.Group), c.Topics[topic].Partitions
	if !client.IsTopicName(name) {
		return false, nil // nothing was ever parked: a consumer that parks refuses such a name
	}
	var missing *client.NoTopicError
	switch topics, err := r.Describe(ctx, name); {
	case errors.As(err, &missing) && !c.Park:
		return false, nil
	case errors.As(err, &missing):
		return true, create(ctx, r, c, name, want)
	case err != nil:
		return false, err
	case topics[name].Partitions < want:
		return true, grow(ctx, r, name, want)
	}
	return true, check(ctx, r, c, name)
}

func create(ctx context.Context, r *client.Reader, c Config, name string, partitions int32) error {
	results, err := r.Admin.CreateTopics(ctx, []kafka.TopicSpecification{{
		Topic:             name,
		NumPartitions:     int(partitions),
		ReplicationFactor: cmp.Or(c.Replication, -1),
		Config:            map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"},
	}}, kafka.SetAdminOperationTimeout(client.AskFor))
	if err == nil {
		err = firstError(results)
	}
	if err != nil {
		return fmt.Errorf("kafka: create dead-letter topic %s: %w; create it with %d partitions and unlimited retention", name, err, partitions)
	}
	c.Log.Info("kafka: dead-letter topic created", "topic", name, "partitions", partitions)
	_, exists, err := client.AwaitTopic(ctx, r.Admin, name)
	if err == nil && !exists {
		err = &client.NoTopicError{Topic: name}
	}
	return err
}

func grow(ctx context.Context, r *client.Reader, name string, partitions int32) error {
	results, err := r.Admin.CreatePartitions(ctx, []kafka.PartitionsSpecification{{Topic: name, IncreaseTo: int(partitions)}}, kafka.SetAdminOperationTimeout(client.AskFor))
	if err == nil {
		err = firstError(results)
	}
	if err != nil {
		return fmt.Errorf("kafka: dead-letter topic %s needs %d partitions, as many as its topic: %w", name, partitions, err)
	}
	return nil
}

// firstError returns the first error, except that a topic exists already.
func firstError(results []kafka.TopicResult) error {
	for _, result := range results {
		if code := result.Error.Code(); code != kafka.ErrNoError && code != kafka.ErrTopicAlreadyExists {
			return result.Error
		}
	}
	return nil
}

// Check checks the dead-letter topics that exist as [Open] does.
func Check(ctx context.Context, r *client.Reader, c Config) error {
	var names []string
	for topic := range c.Topics {
		if name := Topic(topic, c.Group); client.IsTopicName(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	topics, err := client.DescribeTopics(ctx, r.Admin, names...)
	if err != nil {
		return nil //nolint:nilerr // the clients that use them report it
	}
	for name := range topics {
		if err := check(ctx, r, c, name); err != nil {
			return err
		}
	}
	return nil
}

// check refuses a dead-letter topic that deletes parked records.
func check(ctx context.Context, r *client.Reader, c Config, name string) error {
	settings, err := client.TopicSettings(ctx, r.Admin, name)
	if err != nil {
		c.Log.Warn("kafka: cannot check that the dead-letter topic has cleanup.policy=delete and retention.ms=-1", "topic", name, "err", err)
		return nil
	}
	switch keeps := settings.Keeps(); {
	case settings.Compacts():
		return client.Invalid("dead-letter topic %s has cleanup.policy=%s, which deletes parked records: set it to delete", name, settings.Policy())
	case keeps > 0 && !c.Drops:
		return client.Invalid("dead-letter topic %s deletes parked records after %v: set its retention.ms to -1, or set AllowCompacted", name, keeps)
	}
	return nil
}
