package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
)

// ensure creates the dead-letter topic of a topic if it is needed. The result has no partitions if it does not exist.
func ensure(ctx context.Context, r *client.Reader, c Config, topic string) (d deadTopic, err error) {
	name, want := Topic(topic, c.Group), c.Topics[topic].Partitions
	if !client.IsTopicName(name) {
		return d, nil // nothing was ever parked: a consumer that parks refuses such a name
	}
	var missing *client.NoTopicError
	var denied *client.DeniedError
	switch topics, err := r.Describe(ctx, name); {
	case errors.As(err, &missing) && !c.Park:
		return d, nil
	case errors.As(err, &denied) && !c.Park:
		c.Log.Info("kafka: the user may not see a dead-letter topic, so it has parked nothing", "topic", name)
		return d, nil
	case errors.As(err, &missing):
		if err := create(ctx, r, c, topic, name, want); err != nil {
			return d, err
		}
	case err != nil:
		return d, err
	case topics[name].Partitions < want && !c.Park:
		want = topics[name].Partitions
	case topics[name].Partitions < want:
		if err := grow(ctx, r, name, want); err != nil {
			return d, err
		}
	default:
		want = topics[name].Partitions
	}
	limit, err := check(ctx, r, c, topic, name)
	return deadTopic{want, limit}, err
}

// letterExtra is the most bytes that a letter has more than its message: headers, with a part of the error.
const letterExtra = 8 << 10

// limitFor returns the max.message.bytes that a dead-letter topic needs for the messages of a topic. It is 0 if the user may not know.
func limitFor(ctx context.Context, r *client.Reader, topic string) (int, error) {
	settings, err := client.TopicSettings(ctx, r.Admin, topic)
	if err != nil {
		return 0, err
	}
	limit, err := client.MessageLimit(topic, settings)
	return limit + letterExtra, err
}

func create(ctx context.Context, r *client.Reader, c Config, topic, name string, partitions int32) error {
	settings := map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
	limit, err := limitFor(ctx, r, topic)
	switch {
	case errors.As(err, new(*client.DeniedError)):
		c.Log.Warn("kafka: cannot copy the topic's max.message.bytes to its dead-letter topic", "topic", name, "err", err)
	case err != nil:
		return err
	default:
		settings["max.message.bytes"] = strconv.Itoa(limit)
	}
	results, err := r.Admin.CreateTopics(ctx, []kafka.TopicSpecification{{
		Topic:             name,
		NumPartitions:     int(partitions),
		ReplicationFactor: cmp.Or(c.Replication, -1),
		Config:            settings,
	}}, kafka.SetAdminOperationTimeout(client.AskFor))
	if err == nil {
		err = firstError(results)
	}
	if err != nil {
		err = fmt.Errorf("kafka: create dead-letter topic %s: %w; create it with %d partitions, retention.ms=-1", name, err, partitions)
		return cmp.Or(client.Denied(err, "Create", "topic "+name+", or on the cluster"), err)
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
		err = fmt.Errorf("kafka: dead-letter topic %s needs %d partitions, as many as its topic: %w", name, partitions, err)
		return cmp.Or(client.Denied(err, "Alter", "topic "+name), err)
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
	of := make(map[string]string, len(c.Topics))
	for topic := range c.Topics {
		if name := Topic(topic, c.Group); client.IsTopicName(name) {
			names = append(names, name)
			of[name] = topic
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
		if _, err := check(ctx, r, c, of[name], name); err != nil {
			return err
		}
	}
	return nil
}

// check refuses a dead-letter topic that deletes parked records, and warns about one with a smaller limit than its topic. It returns the limit,
// or 0 if the user may not know it.
func check(ctx context.Context, r *client.Reader, c Config, topic, name string) (limit int, err error) {
	settings, err := client.TopicSettings(ctx, r.Admin, name)
	if err != nil {
		c.Log.Warn("kafka: cannot check that the dead-letter topic has cleanup.policy=delete and retention.ms=-1", "topic", name, "err", err)
		return 0, nil
	}
	switch keeps := settings.Keeps(); {
	case settings.Compacts():
		return 0, client.Invalid("dead-letter topic %s has cleanup.policy=%s, which drops records: set it to delete", name, settings.Policy())
	case keeps > 0 && !c.Drops:
		return 0, client.Invalid("dead-letter topic %s deletes records after %v: set retention.ms=-1, or AllowCompacted", name, keeps)
	}
	want, err := limitFor(ctx, r, topic)
	limit, failed := client.MessageLimit(name, settings)
	if failed != nil {
		return 0, failed
	}
	if err == nil && limit < want {
		c.Log.Warn("kafka: the dead-letter topic cannot hold the topic's largest messages: raise its max.message.bytes",
			"topic", name, "max.message.bytes", limit, "needed", want)
	}
	return limit, nil
}
