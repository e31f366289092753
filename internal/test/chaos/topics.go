package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

// A Published is a record that was read from a topic with read_committed.
type Published struct {
	Store     string
	Record    es.Record
	Topic     string
	Partition int32
	Offset    int64
}

func (p Published) place() string { return fmt.Sprintf("%s [%d]", p.Topic, p.Partition) }

const (
	guaranteeTopics = "the topics equal the log, each record once"
	guaranteeOrder  = "each stream is in order in its topic"
)

// topics compares the topics with the log.
func (c *checker) topics(store string, log []es.Record, published []Published) {
	seen := make(map[es.Position]Published, len(log))
	last := make(map[es.Stream]Published)
	for _, p := range published {
		r := p.Record
		if first, again := seen[r.Position]; again {
			c.found(guaranteeTopics, "%s at position %d is published again at %s offset %d, after %s offset %d", r.ID(), r.Position, p.place(), p.Offset, first.place(), first.Offset)
			continue
		}
		seen[r.Position] = p
		if r.Position < 1 || int(r.Position) > len(log) {
			c.found(guaranteeTopics, "%s at position %d is published but not in the log", r.ID(), r.Position)
			continue
		}
		want := log[r.Position-1]
		if p.Store != store || r.ID() != want.ID() || content(r) != content(want) || !r.Time.Equal(want.Time) || fmt.Sprint(r.Meta) != fmt.Sprint(want.Meta) {
			c.found(guaranteeTopics, "position %d is published as %s %q %v of store %s, but is %s %q %v in the log", r.Position, r.ID(), content(r), r.Meta, p.Store, want.ID(), content(want), want.Meta)
		}
		if before, again := last[r.Stream]; again && (before.place() != p.place() || before.Offset >= p.Offset || before.Record.Version+1 != r.Version) {
			c.found(guaranteeOrder, "%s at %s offset %d follows %s at %s offset %d", r.ID(), p.place(), p.Offset, before.Record.ID(), before.place(), before.Offset)
		}
		last[r.Stream] = p
	}
	for _, r := range log {
		if _, there := seen[r.Position]; !there {
			c.found(guaranteeTopics, "%s at position %d is not published", r.ID(), r.Position)
		}
	}
}

func topicsOf(prefix string) []string {
	return []string{prefix + "." + kindAccount, prefix + "." + kindBonus, prefix + "." + reactionReminder, prefix + "." + reactionNudge}
}

const partitionsOfTopic = 4

// createTopics creates the topics before any process reads them.
func createTopics(ctx context.Context, bootstrap string, topics []string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(bootstrap, ",")...))
	if err != nil {
		return err
	}
	defer client.Close()
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = 30_000
	for _, name := range topics {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitionsOfTopic, -1
		request.Topics = append(request.Topics, topic)
	}
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, topic := range answer.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", topic.Topic, err)
		}
	}
	return nil
}

// readTopics reads all committed records. It uses another client library than the code under test.
func readTopics(ctx context.Context, bootstrap string, topics []string) (all []Published, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ConsumeTopics(topics...))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ends := make(map[string]int64)
	for _, topic := range topics {
		for partition := range int32(partitionsOfTopic) {
			end, err := endOf(ctx, client, topic, partition)
			if err != nil {
				return nil, fmt.Errorf("end of %s [%d]: %w", topic, partition, err)
			}
			if end > 0 {
				ends[fmt.Sprint(topic, partition)] = end
			}
		}
	}
	for len(ends) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return all, fmt.Errorf("after %d messages the ends of these partitions were not reached, perhaps because a transaction is open: %v: %w", len(all), ends, ctx.Err())
		}
		fetches.EachRecord(func(r *kgo.Record) {
			key := fmt.Sprint(r.Topic, r.Partition)
			if r.Offset >= ends[key]-1 {
				delete(ends, key)
			}
			if r.Attrs.IsControl() || err != nil {
				return
			}
			var p Published
			p, err = decode(r)
			all = append(all, p)
		})
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// endOf returns the end of a partition, including messages of open transactions.
func endOf(ctx context.Context, client *kgo.Client, topic string, partition int32) (int64, error) {
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = partition, -1
	in := kmsg.NewListOffsetsRequestTopic()
	in.Topic, in.Partitions = topic, append(in.Partitions, p)
	request := kmsg.NewListOffsetsRequest()
	request.Topics = append(request.Topics, in)
	for _, shard := range client.RequestSharded(ctx, &request) {
		if shard.Err != nil {
			return 0, shard.Err
		}
		for _, answer := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			return answer.Partitions[0].Offset, kerr.ErrorForCode(answer.Partitions[0].ErrorCode)
		}
	}
	return 0, errors.New("no answer")
}

func decode(r *kgo.Record) (Published, error) {
	m := &confluent.Message{TopicPartition: confluent.TopicPartition{Topic: &r.Topic, Partition: r.Partition, Offset: confluent.Offset(r.Offset)}, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, confluent.Header{Key: h.Key, Value: h.Value})
	}
	store, record, err := kafka.Decode(m)
	return Published{store, record, r.Topic, r.Partition, r.Offset}, err
}
