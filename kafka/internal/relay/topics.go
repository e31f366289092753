package relay

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// destination is a topic that a relay writes to.
type destination struct {
	name    string
	topic   client.Topic  // with the partitions that the relay uses
	limit   int           // max.message.bytes
	keeps   time.Duration // how old a record becomes before the cluster deletes it; 0 if its age does not matter
	checked time.Time     // when it was last seen to be the same topic
	check   int           // session.checks of the last batch with a record for it
	first   []first       // of each partition
}

// destinations are the topics of a session. Each is examined when the first record goes to it.
type destinations struct {
	r      *Relay
	admin  *kafka.AdminClient
	byName map[string]*destination
	byKind map[string]*destination // unless there is a Route
}

func newDestinations(r *Relay, admin *kafka.AdminClient) *destinations {
	return &destinations{r: r, admin: admin, byName: make(map[string]*destination), byKind: make(map[string]*destination)}
}

// of returns the destination of a record. It adds a new topic to the checkpoint.
func (d *destinations) of(ctx context.Context, r *es.Record, c *checkpoint) (*destination, error) {
	if d.r.Route != nil {
		return d.named(ctx, d.r.Route(*r), r, c)
	}
	if to := d.byKind[r.Stream.Kind]; to != nil {
		return to, nil
	}
	to, err := d.named(ctx, d.r.Prefix+"."+r.Stream.Kind, r, c)
	if err == nil {
		d.byKind[r.Stream.Kind] = to
	}
	return to, err
}

func (d *destinations) named(ctx context.Context, name string, r *es.Record, c *checkpoint) (*destination, error) {
	if to := d.byName[name]; to != nil {
		return to, nil
	}
	if !client.IsTopicName(name) {
		return nil, client.Permanentf("invalid topic %q for %s at position %d; name another with Route", name, r.ID(), r.Position)
	}
	to, err := d.examine(ctx, name, c)
	if err != nil {
		return nil, err
	}
	d.byName[name] = to
	return to, nil
}

// examine describes a topic and compares it with the checkpoint. It creates a topic that is new to the relay, if Topics says so.
func (d *destinations) examine(ctx context.Context, name string, c *checkpoint) (*destination, error) {
	before, known := c.Topics[name]
	created := false
	now, exists, err := describe(ctx, d.admin, name, known)
	switch {
	case err != nil:
		return nil, err
	case !exists && known:
		return nil, client.Permanentf("topic %s is gone with its records; create it with %d partitions and Reset relay %s", name, before.Partitions, d.r.Name)
	case !exists && d.r.Topics.Partitions == 0:
		return nil, client.Permanentf("topic %s does not exist; create it, or set Topics", name)
	case !exists:
		if now, created, err = d.r.createTopic(ctx, d.admin, name, d.r.Topics, nil); err != nil {
			return nil, err
		}
	}
	switch {
	case !known:
		if created {
			err = d.awaitLeaders(ctx, name, now)
		} else {
			err = d.mustBeNew(ctx, name, now, c)
		}
		if err != nil {
			return nil, err
		}
		topics := make(map[string]client.Topic, len(c.Topics)+1) // a copy, because other checkpoints share it
		maps.Copy(topics, c.Topics)
		topics[name] = now
		c.Topics = topics
	case before.ID != now.ID:
		return nil, client.Permanentf("topic %s was deleted and created again, its records are lost; Reset relay %s", name, d.r.Name)
	case before.Partitions > now.Partitions:
		return nil, client.Permanentf("topic %s has %d partitions, it had %d when relay %s began; Reset the relay", name, now.Partitions, before.Partitions, d.r.Name)
	case before.Partitions < now.Partitions:
		// Streams stay in order only if their partitions stay the same. To use the new partitions, publish to another topic.
		d.r.log.Warn("kafka: topic has grown; relay uses only its first partitions", "topic", name, "partitions", now.Partitions, "used", before.Partitions)
		now.Partitions = before.Partitions
	}
	settings, err := client.TopicSettings(ctx, d.admin, name)
	if err != nil {
		return nil, err
	}
	limit, err := client.MessageLimit(name, settings)
	if err != nil {
		return nil, err
	}
	keeps, err := d.keeps(name, settings)
	if err != nil {
		return nil, err
	}
	return &destination{
		name: name, topic: now, limit: min(limit, client.LargestMessage), keeps: keeps, checked: time.Now(), first: make([]first, now.Partitions),
	}, nil
}

// keeps returns for how long a topic keeps a record, from the record's time. It refuses a topic that is compacted, unless that is wanted.
func (d *destinations) keeps(name string, settings client.Settings) (time.Duration, error) {
	_, wanted := d.r.Topics.Config["retention.ms"]
	switch {
	case d.r.Compacted:
		return 0, nil
	case settings.Compacts():
		return 0, client.PermanentError{Err: client.KeepsRecords(name, settings)}
	case wanted, settings.AppendTime():
		return 0, nil
	}
	return settings.Keeps(), nil
}

// keepsRecord returns an error if the cluster would delete a record as soon as it is published.
func (to *destination) keepsRecord(r *es.Record) error {
	if to.keeps == 0 || time.Since(r.Time) < to.keeps {
		return nil
	}
	return client.Permanentf("topic %s deletes records after %v, %s is of %s: set retention.ms=-1, or AllowCompacted",
		to.name, to.keeps, r.ID(), r.Time.Format(time.DateOnly))
}

// refresh examines all topics of the session again, and the checkpoint topic.
func (d *destinations) refresh(ctx context.Context, c *checkpoint) error {
	if d.r.AtLeastOnce == nil {
		if err := d.r.checkCheckpointTopic(ctx, d.admin); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.byName)) {
		now, err := d.examine(ctx, name, c)
		if err != nil {
			return err
		}
		*d.byName[name] = *now
	}
	return nil
}

// awaitLeaders waits until each partition of a topic that was just created has a leader. Otherwise the first batch would fail, and cost a session.
func (d *destinations) awaitLeaders(ctx context.Context, name string, topic client.Topic) error {
	limit := time.Now().Add(client.AskFor)
	for number := range topic.Partitions {
		p := client.Partition{Topic: name, Number: number}
		for attempt := 0; ; attempt++ {
			_, _, err := client.Watermarks(ctx, d.admin, p)
			if err == nil {
				break
			}
			if !client.Passes(err) || time.Now().After(limit) {
				return err
			}
			if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
				return err
			}
		}
	}
	return nil
}

// mustBeNew refuses a topic that has records of this store although the checkpoint does not have the topic: they would be published twice.
func (d *destinations) mustBeNew(ctx context.Context, name string, now client.Topic, c *checkpoint) error {
	if c.Trusted || d.r.AtLeastOnce != nil {
		return nil
	}
	const tail = 100 // messages of each partition
	for number := range now.Partitions {
		p := client.Partition{Topic: name, Number: number}
		low, high, err := client.Watermarks(ctx, d.admin, p)
		if err != nil {
			return err
		}
		for m, err := range client.ReadPartition(ctx, client.CheckpointReader(d.r.producer), d.r.trouble, p, max(low, high-tail), high) {
			if err != nil {
				return err
			}
			if store, r, err := wire.Decode(m); err == nil && store == d.r.store {
				return d.notNew(ctx, name, r)
			}
		}
	}
	return nil
}

// notNew returns the error for a topic that has a record of this store.
func (d *destinations) notNew(ctx context.Context, name string, r es.Record) error {
	// Another relay of this name may have fenced this one and written to the topic since.
	last, _, _, err := d.r.loadCheckpoint(ctx, d.admin)
	if err != nil {
		return err
	}
	if _, known := last.Topics[name]; known {
		return fmt.Errorf("kafka: topic %s has records since this relay took over: %w", name, errFenced)
	}
	return client.Permanentf("topic %s has %s already, the checkpoint of relay %s is lost; Reset it to the last published position", name, r.ID(), d.r.Name)
}

// describe returns a topic, if it exists. If it is expected to exist, describe tries for a while.
func describe(ctx context.Context, admin *kafka.AdminClient, name string, expected bool) (t client.Topic, exists bool, err error) {
	if expected {
		return client.AwaitTopic(ctx, admin, name)
	}
	topics, err := client.DescribeTopics(ctx, admin, name)
	t, exists = topics[name]
	return t, exists, err
}

// createTopic creates a topic, reports whether it has, and waits until the brokers know the topic. settings, if not nil, replace Topics.Config.
func (r *Relay) createTopic(ctx context.Context, admin *kafka.AdminClient, name string, t Topics, settings map[string]string) (topic client.Topic, created bool, err error) {
	config := maps.Clone(settings)
	if config == nil {
		config = map[string]string{"retention.ms": "-1", "retention.bytes": "-1"}
		maps.Copy(config, t.Config)
	}
	if t.MinInSync > 0 {
		config["min.insync.replicas"] = strconv.Itoa(t.MinInSync)
	}
	created, err = client.CreateTopic(ctx, admin, kafka.TopicSpecification{
		Topic: name, NumPartitions: t.Partitions, ReplicationFactor: t.Replication, Config: config,
	})
	if err != nil {
		return client.Topic{}, false, err
	}
	if created {
		r.log.Info("kafka: topic created", "topic", name, "partitions", t.Partitions)
	}
	for {
		topic, exists, err := describe(ctx, admin, name, false)
		if err == nil && exists {
			return topic, created, nil
		}
		if err := client.Sleep(ctx, 50*time.Millisecond); err != nil {
			return client.Topic{}, created, err
		}
	}
}

// checkCheckpointTopic checks the checkpoint topic, and creates it if Topics says so.
func (r *Relay) checkCheckpointTopic(ctx context.Context, admin *kafka.AdminClient) error {
	name := r.Checkpoints
	topic, exists, err := describe(ctx, admin, name, r.Topics.Partitions == 0)
	switch {
	case err != nil:
		return err
	case !exists && r.Topics.Partitions == 0:
		return client.Permanentf("checkpoint topic %s does not exist; create it, compacted, with one partition, or set Topics", name)
	case !exists:
		one := r.Topics
		one.Partitions = 1
		// Small segments are compacted soon, so that a takeover reads little.
		settings := map[string]string{"cleanup.policy": "compact", "segment.bytes": "16777216", "segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1"}
		if topic, _, err = r.createTopic(ctx, admin, name, one, settings); err != nil {
			return err
		}
	}
	if topic.Partitions != 1 {
		return client.Permanentf("checkpoint topic %s has %d partitions, not one; create it with one, or use another Prefix", name, topic.Partitions)
	}
	settings, err := client.TopicSettings(ctx, admin, name)
	if err != nil {
		return err
	}
	if r.checkpointLimit, err = client.MessageLimit(name, settings); err != nil {
		return err
	}
	if policy := settings["cleanup.policy"].Value; policy != "compact" {
		return client.Permanentf("checkpoint topic %s has cleanup.policy=%s, which deletes checkpoints; set it to compact", name, policy)
	}
	return nil
}
