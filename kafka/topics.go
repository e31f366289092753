package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// A destination is a topic that a relay writes to.
type destination struct {
	name   string
	mark   topicMark
	limit  int       // max.message.bytes
	looked time.Time // when it was last seen to be what it was
	looks  int       // the session's, of the last batch that went there
}

// destinations are the topics of a session, found out about when a record is first bound for them.
type destinations struct {
	w      *work
	admin  *kafka.AdminClient
	byName map[string]*destination
	byKind map[string]*destination // unless there is a Route
}

func newDestinations(w *work, admin *kafka.AdminClient) *destinations {
	return &destinations{w: w, admin: admin, byName: make(map[string]*destination), byKind: make(map[string]*destination)}
}

// of returns where a record goes. known is the checkpoint's, and is added to.
func (d *destinations) of(ctx context.Context, r *es.Record, c *checkpoint) (*destination, error) {
	route := d.w.r.Route
	if route == nil {
		if to := d.byKind[r.Stream.Kind]; to != nil {
			return to, nil
		}
		to, err := d.named(ctx, d.w.r.Prefix+"."+r.Stream.Kind, r, c)
		if err == nil {
			d.byKind[r.Stream.Kind] = to
		}
		return to, err
	}
	return d.named(ctx, route(*r), r, c)
}

func (d *destinations) named(ctx context.Context, name string, r *es.Record, c *checkpoint) (*destination, error) {
	if to := d.byName[name]; to != nil {
		return to, nil
	}
	if !topicName.MatchString(name) || name == "." || name == ".." {
		return nil, stopf("%s at position %d goes to topic %q, and a topic's name has up to 249 letters, digits, dots, hyphens and underscores: name another with Route", r.ID(), r.Position, name)
	}
	to, err := d.examine(ctx, name, c)
	if err != nil {
		return nil, err
	}
	d.byName[name] = to
	return to, nil
}

// examine finds out about a topic, and makes it if that is asked for and it is the first time that the relay writes to it.
func (d *destinations) examine(ctx context.Context, name string, c *checkpoint) (*destination, error) {
	before, known := c.Topics[name]
	now, there, err := awaitTopicMark(ctx, d.admin, name, known)
	switch {
	case err != nil:
		return nil, err
	case !there && known:
		return nil, stopf("topic %s is gone, which relay %s has written to: what was in it is lost to its readers; make it again with %d partitions, and Reset the relay, to 0 to publish everything again",
			name, d.w.key, before.Partitions)
	case !there && d.w.r.Topics.Partitions == 0:
		return nil, stopf("topic %s is not there: make it, or let the relay make it by Topics", name)
	case !there:
		if now, err = d.w.createTopic(ctx, d.admin, name, d.w.r.Topics, nil); err != nil {
			return nil, err
		}
	}
	switch {
	case !known:
		if err := d.mustBeNew(ctx, name, now, c); err != nil {
			return nil, err
		}
		if c.Topics == nil {
			c.Topics = make(map[string]topicMark)
		}
		c.Topics[name] = now
	case before.ID != now.ID:
		return nil, stopf("topic %s was deleted and made again since relay %s wrote to it: what was in it is lost to its readers; Reset the relay, to 0 to publish everything again", name, d.w.key)
	case before.Partitions > now.Partitions:
		return nil, stopf("topic %s has %d partitions, and had %d when relay %s first wrote to it: Reset the relay", name, now.Partitions, before.Partitions, d.w.key)
	case before.Partitions < now.Partitions:
		d.w.r.log.Warn("kafka: a topic has grown: records go to the partitions that it had, so that streams stay in order; to use the others publish to another topic",
			"topic", name, "partitions", now.Partitions, "used", before.Partitions)
		now.Partitions = before.Partitions
	}
	limit, err := topicLimit(ctx, d.admin, name)
	if err != nil {
		return nil, err
	}
	return &destination{name: name, mark: now, limit: limit, looked: time.Now()}, nil
}

// refresh looks again at the topics of the session, for what may have become of them.
func (d *destinations) refresh(ctx context.Context, c *checkpoint) error {
	for _, name := range slices.Sorted(maps.Keys(d.byName)) {
		now, err := d.examine(ctx, name, c)
		if err != nil {
			return err
		}
		*d.byName[name] = *now
	}
	return nil
}

// mustBeNew refuses a topic that has records of this store already although no checkpoint speaks of it: they would be there twice.
func (d *destinations) mustBeNew(ctx context.Context, name string, now topicMark, c *checkpoint) error {
	if c.Trusted || d.w.r.AtLeastOnce != nil {
		return nil
	}
	const tail = 100 // of each partition
	for partition := range now.Partitions {
		low, high, err := watermarks(ctx, d.admin, name, partition)
		if err != nil {
			return err
		}
		err = d.w.readPartition(ctx, name, partition, max(low, high-tail), high, func(m *kafka.Message) error {
			store, r, err := Decode(m)
			if err != nil || store != d.w.store {
				return nil //nolint:nilerr // others may write to the topic what they like
			}
			// Another relay of this name may have begun to, which has shut this one out.
			last, _, _, err := d.w.loadCheckpoint(ctx, d.admin)
			if err != nil {
				return err
			}
			if _, known := last.Topics[name]; known {
				return fmt.Errorf("kafka: topic %s has records since this relay took over: %w", name, errFenced)
			}
			return stopf("topic %s has %s of this store already, at position %d, and the checkpoint of relay %s in %s does not know of it: the checkpoint was lost, belongs to another cluster, or another relay writes to this topic; "+
				"find out, then Reset the relay to the last position that is published", name, r.ID(), r.Position, d.w.key, d.w.checkpointTopic)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// describeTopic returns what a topic is, if it is there.
func describeTopic(ctx context.Context, admin *kafka.AdminClient, name string) (mark topicMark, there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	marks, err := describeTopics(ctx, admin, name)
	mark, there = marks[name]
	return mark, there, err
}

// describeTopics returns what topics are, without those that are not there.
func describeTopics(ctx context.Context, admin *kafka.AdminClient, names ...string) (map[string]topicMark, error) {
	answer, err := admin.DescribeTopics(ctx, kafka.NewTopicCollectionOfTopicNames(names))
	if err != nil {
		return nil, fmt.Errorf("kafka: describe topics %s: %w", strings.Join(names, ", "), err)
	}
	if len(answer.TopicDescriptions) != len(names) {
		return nil, fmt.Errorf("kafka: describe topics %s: %d answers", strings.Join(names, ", "), len(answer.TopicDescriptions))
	}
	marks := make(map[string]topicMark, len(names))
	for _, t := range answer.TopicDescriptions {
		switch t.Error.Code() {
		case kafka.ErrNoError:
			marks[t.Name] = topicMark{t.TopicID.String(), int32(len(t.Partitions))}
		case kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopic:
		default:
			return nil, fmt.Errorf("kafka: describe topic %s: %w", t.Name, t.Error)
		}
	}
	return marks, nil
}

// awaitTopicMark is describeTopic for a topic that, if it is expected, is asked for again for a while: a broker that has just started, or is behind
// the others, may not know of it yet.
func awaitTopicMark(ctx context.Context, admin *kafka.AdminClient, name string, expected bool) (mark topicMark, there bool, err error) {
	for range 25 {
		if mark, there, err = describeTopic(ctx, admin, name); err != nil || there || !expected {
			break
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return topicMark{}, false, err
		}
	}
	return mark, there, err
}

// topicSettings returns the settings in force of a topic.
func topicSettings(ctx context.Context, admin *kafka.AdminClient, name string) (map[string]kafka.ConfigEntryResult, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	answer, err := admin.DescribeConfigs(ctx, []kafka.ConfigResource{{Type: kafka.ResourceTopic, Name: name}})
	if err != nil {
		return nil, fmt.Errorf("kafka: settings of topic %s: %w", name, err)
	}
	for _, result := range answer {
		switch result.Error.Code() {
		case kafka.ErrNoError:
			return result.Config, nil
		case kafka.ErrTopicAuthorizationFailed:
			return nil, stopf("settings of topic %s: %w; give the relay's user the right DescribeConfigs", name, result.Error)
		default:
			return nil, fmt.Errorf("kafka: settings of topic %s: %w", name, result.Error)
		}
	}
	return nil, fmt.Errorf("kafka: settings of topic %s: no answer", name)
}

func topicLimit(ctx context.Context, admin *kafka.AdminClient, name string) (int, error) {
	settings, err := topicSettings(ctx, admin, name)
	if err != nil {
		return 0, err
	}
	limit, err := strconv.Atoi(settings["max.message.bytes"].Value)
	if err != nil {
		return 0, fmt.Errorf("kafka: max.message.bytes of topic %s: %w", name, err)
	}
	return min(limit, largest), nil
}

// createTopic makes a topic and waits until all brokers that are asked know of it.
func (w *work) createTopic(ctx context.Context, admin *kafka.AdminClient, name string, t Topics, settings map[string]string) (topicMark, error) {
	config := maps.Clone(settings)
	if config == nil {
		config = map[string]string{"retention.ms": "-1", "retention.bytes": "-1"}
		maps.Copy(config, t.Config)
	}
	if t.MinInSync > 0 {
		config["min.insync.replicas"] = strconv.Itoa(t.MinInSync)
	}
	asked, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	answer, err := admin.CreateTopics(asked, []kafka.TopicSpecification{{
		Topic: name, NumPartitions: t.Partitions, ReplicationFactor: orElse(t.Replication, -1), Config: config,
	}}, kafka.SetAdminOperationTimeout(askTime))
	if err != nil {
		return topicMark{}, fmt.Errorf("kafka: make topic %s: %w", name, err)
	}
	for _, result := range answer {
		switch result.Error.Code() {
		case kafka.ErrNoError:
			w.r.log.Info("kafka: topic made", "topic", name, "partitions", t.Partitions)
		case kafka.ErrTopicAlreadyExists: // another process was faster
		case kafka.ErrInvalidReplicationFactor, kafka.ErrInvalidConfig, kafka.ErrPolicyViolation, kafka.ErrTopicAuthorizationFailed, kafka.ErrClusterAuthorizationFailed, kafka.ErrInvalidPartitions:
			// A broker that has just started, or is not heard of for a moment, is fenced.
			fenced := result.Error.Code() == kafka.ErrInvalidReplicationFactor && strings.Contains(result.Error.String(), "fenced")
			if !fenced {
				return topicMark{}, stopf("make topic %s: %w; mend Topics, or make it by other means", name, result.Error)
			}
			fallthrough
		default:
			return topicMark{}, fmt.Errorf("kafka: make topic %s: %w", name, result.Error)
		}
	}
	for {
		mark, there, err := describeTopic(ctx, admin, name)
		if err == nil && there {
			return mark, nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return topicMark{}, err
		}
	}
}

// checkCheckpointTopic sees that the checkpoint topic is there and is what it must be, and makes it if that is asked for.
func (w *work) checkCheckpointTopic(ctx context.Context, admin *kafka.AdminClient) error {
	name := w.checkpointTopic
	mark, there, err := awaitTopicMark(ctx, admin, name, w.r.Topics.Partitions == 0)
	switch {
	case err != nil:
		return err
	case !there && w.r.Topics.Partitions == 0:
		return stopf("checkpoint topic %s is not there: make it with one partition and cleanup.policy=compact, or let the relay make it by Topics", name)
	case !there:
		one := w.r.Topics
		one.Partitions = 1
		// Small segments are compacted soon, so that little is read at a takeover.
		settings := map[string]string{"cleanup.policy": "compact", "segment.bytes": "16777216", "segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1"}
		if mark, err = w.createTopic(ctx, admin, name, one, settings); err != nil {
			return err
		}
	}
	if mark.Partitions != 1 {
		return stopf("checkpoint topic %s has %d partitions: it must have one, or checkpoints have no order; make another, with another Prefix", name, mark.Partitions)
	}
	settings, err := topicSettings(ctx, admin, name)
	if err != nil {
		return err
	}
	if w.checkpointLimit, err = strconv.Atoi(settings["max.message.bytes"].Value); err != nil {
		return fmt.Errorf("kafka: max.message.bytes of topic %s: %w", name, err)
	}
	if policy := settings["cleanup.policy"].Value; policy != "compact" {
		return stopf("checkpoint topic %s has cleanup.policy=%s, by which checkpoints are lost in time: set it to compact", name, policy)
	}
	return nil
}
