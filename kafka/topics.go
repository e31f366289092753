package kafka

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// A destination is a topic that a relay writes to.
type destination struct {
	name   string
	mark   client.Topic
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
	if !client.IsTopicName(name) {
		return nil, client.Permanentf("%s at position %d goes to topic %q, and a topic's name has up to 249 letters, digits, dots, hyphens and underscores: name another with Route", r.ID(), r.Position, name)
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
	now, there, err := describe(ctx, d.admin, name, known)
	switch {
	case err != nil:
		return nil, err
	case !there && known:
		return nil, client.Permanentf("topic %s is gone, which relay %s has written to: what was in it is lost to its readers; make it again with %d partitions, and Reset the relay, to 0 to publish everything again",
			name, d.w.key, before.Partitions)
	case !there && d.w.r.Topics.Partitions == 0:
		return nil, client.Permanentf("topic %s is not there: make it, or let the relay make it by Topics", name)
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
			c.Topics = make(map[string]client.Topic)
		}
		c.Topics[name] = now
	case before.ID != now.ID:
		return nil, client.Permanentf("topic %s was deleted and created again since relay %s wrote to it: what was in it is lost to its readers; Reset the relay, to 0 to publish everything again", name, d.w.key)
	case before.Partitions > now.Partitions:
		return nil, client.Permanentf("topic %s has %d partitions, and had %d when relay %s first wrote to it: Reset the relay", name, now.Partitions, before.Partitions, d.w.key)
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
func (d *destinations) mustBeNew(ctx context.Context, name string, now client.Topic, c *checkpoint) error {
	if c.Trusted || d.w.r.AtLeastOnce != nil {
		return nil
	}
	const tail = 100 // of each partition
	for partition := range now.Partitions {
		p := client.Partition{Topic: name, Number: partition}
		low, high, err := client.Watermarks(ctx, d.admin, p)
		if err != nil {
			return err
		}
		for m, err := range client.ReadPartition(ctx, client.CheckpointReader(d.w.config), d.w.r.log, p, max(low, high-tail), high) {
			if err != nil {
				return err
			}
			store, r, err := wire.Decode(m)
			if err != nil || store != d.w.store {
				continue // other programs may write to the topic
			}
			return d.alreadyThere(ctx, name, r)
		}
	}
	return nil
}

// alreadyThere says why a topic has a record of this store that the checkpoint does not know of.
func (d *destinations) alreadyThere(ctx context.Context, name string, r es.Record) error {
	// Another relay of this name may have fenced this one and begun to write to the topic.
	last, _, _, err := d.w.loadCheckpoint(ctx, d.admin)
	if err != nil {
		return err
	}
	if _, known := last.Topics[name]; known {
		return fmt.Errorf("kafka: topic %s has records since this relay took over: %w", name, errFenced)
	}
	return client.Permanentf("topic %s has %s of this store already, at position %d, and the checkpoint of relay %s in %s does not know of it: the checkpoint was lost, belongs to another cluster, or another relay writes to this topic; "+
		"find out, then Reset the relay to the last position that is published", name, r.ID(), r.Position, d.w.key, d.w.checkpointTopic)
}

// describe returns what a topic is, if it exists. One that is expected to exist is asked for repeatedly.
func describe(ctx context.Context, admin *kafka.AdminClient, name string, expected bool) (t client.Topic, exists bool, err error) {
	if expected {
		return client.AwaitTopic(ctx, admin, name)
	}
	topics, err := client.DescribeTopics(ctx, admin, name)
	t, exists = topics[name]
	return t, exists, err
}

func topicLimit(ctx context.Context, admin *kafka.AdminClient, name string) (int, error) {
	settings, err := client.TopicSettings(ctx, admin, name)
	if err != nil {
		return 0, err
	}
	limit, err := client.MessageLimit(name, settings)
	return min(limit, client.LargestMessage), err
}

// createTopic makes a topic and waits until all brokers that are asked know of it.
func (w *work) createTopic(ctx context.Context, admin *kafka.AdminClient, name string, t Topics, settings map[string]string) (client.Topic, error) {
	config := maps.Clone(settings)
	if config == nil {
		config = map[string]string{"retention.ms": "-1", "retention.bytes": "-1"}
		maps.Copy(config, t.Config)
	}
	if t.MinInSync > 0 {
		config["min.insync.replicas"] = strconv.Itoa(t.MinInSync)
	}
	asked, cancel := context.WithTimeout(ctx, client.AskFor)
	defer cancel()
	answer, err := admin.CreateTopics(asked, []kafka.TopicSpecification{{
		Topic: name, NumPartitions: t.Partitions, ReplicationFactor: cmp.Or(t.Replication, -1), Config: config,
	}}, kafka.SetAdminOperationTimeout(client.AskFor))
	if err != nil {
		return client.Topic{}, fmt.Errorf("kafka: make topic %s: %w", name, err)
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
				return client.Topic{}, client.Permanentf("make topic %s: %w; mend Topics, or make it by other means", name, result.Error)
			}
			fallthrough
		default:
			return client.Topic{}, fmt.Errorf("kafka: make topic %s: %w", name, result.Error)
		}
	}
	for {
		mark, there, err := describe(ctx, admin, name, false)
		if err == nil && there {
			return mark, nil
		}
		if err := client.Sleep(ctx, 50*time.Millisecond); err != nil {
			return client.Topic{}, err
		}
	}
}

// checkCheckpointTopic sees that the checkpoint topic is there and is what it must be, and makes it if that is asked for.
func (w *work) checkCheckpointTopic(ctx context.Context, admin *kafka.AdminClient) error {
	name := w.checkpointTopic
	mark, there, err := describe(ctx, admin, name, w.r.Topics.Partitions == 0)
	switch {
	case err != nil:
		return err
	case !there && w.r.Topics.Partitions == 0:
		return client.Permanentf("checkpoint topic %s is not there: make it with one partition and cleanup.policy=compact, or let the relay make it by Topics", name)
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
		return client.Permanentf("checkpoint topic %s has %d partitions: it must have one, or checkpoints have no order; make another, with another Prefix", name, mark.Partitions)
	}
	settings, err := client.TopicSettings(ctx, admin, name)
	if err != nil {
		return err
	}
	if w.checkpointLimit, err = client.MessageLimit(name, settings); err != nil {
		return err
	}
	if policy := settings["cleanup.policy"].Value; policy != "compact" {
		return client.Permanentf("checkpoint topic %s has cleanup.policy=%s, by which checkpoints are lost in time: set it to compact", name, policy)
	}
	return nil
}
