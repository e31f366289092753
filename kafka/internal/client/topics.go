package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Partition names a partition of a topic.
type Partition struct {
	Topic  string
	Number int32
}

// At returns an offset in the partition.
func (p Partition) At(offset int64) kafka.TopicPartition {
	return kafka.TopicPartition{Topic: &p.Topic, Partition: p.Number, Offset: kafka.Offset(offset)}
}

// String returns the topic and the number of the partition.
func (p Partition) String() string { return fmt.Sprintf("%s [%d]", p.Topic, p.Number) }

// PartitionOf returns the partition without its offset.
func PartitionOf(t kafka.TopicPartition) Partition { return Partition{*t.Topic, t.Partition} }

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// IsTopicName reports whether Kafka accepts name as the name of a topic.
func IsTopicName(name string) bool { return topicName.MatchString(name) && name != "." && name != ".." }

// Topic identifies a topic: one that was deleted and created again under its name has another ID. It is part of a relay's checkpoint.
type Topic struct {
	ID         string `json:"id"`
	Partitions int32  `json:"partitions"`
}

// DescribeTopics returns those of the topics that exist.
func DescribeTopics(ctx context.Context, admin *kafka.AdminClient, names ...string) (map[string]Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, AskFor)
	defer cancel()
	answer, err := admin.DescribeTopics(ctx, kafka.NewTopicCollectionOfTopicNames(names))
	if err != nil {
		return nil, fmt.Errorf("kafka: describe topics %s: %w", strings.Join(names, ", "), err)
	}
	if len(answer.TopicDescriptions) != len(names) {
		return nil, fmt.Errorf("kafka: describe topics %s: %d answers", strings.Join(names, ", "), len(answer.TopicDescriptions))
	}
	topics := make(map[string]Topic, len(names))
	for _, t := range answer.TopicDescriptions {
		switch t.Error.Code() {
		case kafka.ErrNoError:
			topics[t.Name] = Topic{t.TopicID.String(), int32(len(t.Partitions))}
		case kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopic:
		default:
			err := fmt.Errorf("kafka: describe topic %s: %w", t.Name, t.Error)
			return nil, cmp.Or(Denied(err, "Describe", "topic "+t.Name), err)
		}
	}
	return topics, nil
}

// Missing returns the first of the topics on which the user lacks a right, as an error that wraps cause. If there is none, it returns cause.
func Missing(ctx context.Context, admin *kafka.AdminClient, right kafka.ACLOperation, cause error, names ...string) error {
	if e, ok := KafkaError(cause); !ok || e.Code() != kafka.ErrTopicAuthorizationFailed || errors.As(cause, new(*DeniedError)) {
		return cause
	}
	ctx, cancel := context.WithTimeout(ctx, AskFor)
	defer cancel()
	answer, err := admin.DescribeTopics(ctx, kafka.NewTopicCollectionOfTopicNames(names), kafka.SetAdminOptionIncludeAuthorizedOperations(true))
	if err != nil {
		return cause
	}
	for _, t := range answer.TopicDescriptions {
		switch {
		case t.Error.Code() == kafka.ErrTopicAuthorizationFailed:
			return &DeniedError{Operation: "Describe", Resource: "topic " + t.Name, Err: cause}
		case t.Error.Code() == kafka.ErrNoError && !slices.Contains(t.AuthorizedOperations, right):
			name := right.String() // such as WRITE
			return &DeniedError{Operation: name[:1] + strings.ToLower(name[1:]), Resource: "topic " + t.Name, Err: cause}
		}
	}
	return cause
}

// Describe returns topics, or a [*NoTopicError] for the first that does not exist.
func (r *Reader) Describe(ctx context.Context, names ...string) (map[string]Topic, error) {
	topics, err := DescribeTopics(ctx, r.Admin, names...)
	if err != nil {
		return nil, r.Trouble.Explain(err)
	}
	for _, name := range names {
		if _, ok := topics[name]; !ok {
			return nil, &NoTopicError{name}
		}
	}
	return topics, nil
}

// AwaitTopic describes a topic that is expected to exist. It tries for a while: a broker that has just started,
// or is behind the others, may not know a topic yet.
func AwaitTopic(ctx context.Context, admin *kafka.AdminClient, name string) (t Topic, exists bool, err error) {
	for range 25 {
		topics, err := DescribeTopics(ctx, admin, name)
		if err != nil {
			return Topic{}, false, err
		}
		if t, exists = topics[name]; exists {
			return t, true, nil
		}
		if err := Sleep(ctx, 200*time.Millisecond); err != nil {
			return Topic{}, false, err
		}
	}
	return Topic{}, false, nil
}

// TopicSettings returns the effective settings of a topic.
func TopicSettings(ctx context.Context, admin *kafka.AdminClient, name string) (Settings, error) {
	ctx, cancel := context.WithTimeout(ctx, AskFor)
	defer cancel()
	answer, err := admin.DescribeConfigs(ctx, []kafka.ConfigResource{{Type: kafka.ResourceTopic, Name: name}})
	if err != nil {
		return nil, fmt.Errorf("kafka: settings of topic %s: %w", name, err)
	}
	for _, result := range answer {
		switch result.Error.Code() {
		case kafka.ErrNoError:
			return result.Config, nil
		default:
			err := fmt.Errorf("kafka: settings of topic %s: %w", name, result.Error)
			return nil, cmp.Or(Denied(err, "DescribeConfigs", "topic "+name), err)
		}
	}
	return nil, fmt.Errorf("kafka: settings of topic %s: no answer", name)
}

// MessageLimit returns max.message.bytes of a topic's settings.
func MessageLimit(name string, settings Settings) (int, error) {
	limit, err := strconv.Atoi(settings["max.message.bytes"].Value)
	if err != nil {
		return 0, fmt.Errorf("kafka: max.message.bytes of topic %s: %w", name, err)
	}
	return limit, nil
}

// Watermarks returns the first offset of a partition and the one after the last message, including those of open transactions.
func Watermarks(ctx context.Context, admin *kafka.AdminClient, p Partition) (low, high int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, AskFor)
	defer cancel()
	ask := func(spec kafka.OffsetSpec) (int64, error) {
		answer, err := admin.ListOffsets(ctx, map[kafka.TopicPartition]kafka.OffsetSpec{p.At(0): spec}, kafka.SetAdminIsolationLevel(kafka.IsolationLevelReadUncommitted))
		if err != nil {
			return 0, fmt.Errorf("kafka: offsets of %v: %w", p, err)
		}
		offset, err := offsetIn(answer)
		if err == nil && offset < 0 {
			err = errNoOffset
		}
		if err != nil {
			err = fmt.Errorf("kafka: offsets of %v: %w", p, err)
			return 0, cmp.Or(Denied(err, "Describe", "topic "+p.Topic), err)
		}
		return offset, nil
	}
	if low, err = ask(kafka.EarliestOffsetSpec); err != nil {
		return 0, 0, err
	}
	high, err = ask(kafka.LatestOffsetSpec)
	return low, high, err
}

// CreateTopic creates a topic, and reports whether it has: another process may have created it before. A replication factor of 0 means the cluster's default.
func CreateTopic(ctx context.Context, admin *kafka.AdminClient, t kafka.TopicSpecification) (created bool, err error) {
	if t.ReplicationFactor == 0 {
		t.ReplicationFactor = -1
	}
	ctx, cancel := context.WithTimeout(ctx, AskFor)
	defer cancel()
	answer, err := admin.CreateTopics(ctx, []kafka.TopicSpecification{t}, kafka.SetAdminOperationTimeout(AskFor))
	if err != nil {
		return false, fmt.Errorf("kafka: create topic %s: %w", t.Topic, err)
	}
	if len(answer) == 0 {
		return false, fmt.Errorf("kafka: create topic %s: no answer", t.Topic)
	}
	result := answer[0].Error
	switch result.Code() {
	case kafka.ErrNoError:
		return true, nil
	case kafka.ErrTopicAlreadyExists:
		return false, nil
	}
	err = fmt.Errorf("kafka: create topic %s: %w", t.Topic, result)
	if result.Code() == kafka.ErrInvalidReplicationFactor && strings.Contains(result.String(), "fenced") {
		// A broker that has just started, or has sent no heartbeat for a moment, is fenced and does not count as a replica.
		return false, fmt.Errorf("kafka: create topic %s: %s", t.Topic, result.String())
	}
	return false, cmp.Or(Denied(err, "Create", "topic "+t.Topic+", or on the cluster"), err)
}
