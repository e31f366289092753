package consume

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/deadletter"
)

// lookEvery is how long the run waits before it looks again for its topics, none of which exists.
const lookEvery = time.Second

// appearance is a topic that exists now and did not when the run began.
type appearance struct {
	name string
	client.Topic
}

// awaitTopics returns when one of the topics exists. It waits for a cluster that is not available.
func (r *Run) awaitTopics(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		topics, err := r.lookUp(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !client.Passes(err):
			return r.errorf("%w", r.explain(err))
		case err != nil:
			err = r.trouble.Explain(err)
			r.trouble.Note(err)
			r.Log.Warn("kafka: consumer waits for the cluster", "err", err, "brokers", client.Brokers(r.Client.Config))
			if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
				return err
			}
			continue
		}
		r.await(topics)
		if len(topics) > 0 {
			r.watch = &client.Watch{
				Reader: r.client, Topics: maps.Clone(topics), Missing: slices.Sorted(maps.Keys(r.missing)), Log: r.Log, Changed: r.changed,
				Gone:     func(err error) { r.fail(r.errorf("%w", err)) },
				Fit:      r.fitNow,
				Unfit:    func(err error) { r.fail(r.errorf("%w", err)) },
				Appeared: func(name string, t client.Topic) { r.appeared <- appearance{name, t} },
			}
			return nil
		}
		attempt = 0
		if err := client.Sleep(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// lookUp returns the topics that exist, and opens their dead-letter topics.
func (r *Run) lookUp(ctx context.Context) (map[string]client.Topic, error) {
	for event := r.client.Poll(0); event != nil; event = r.client.Poll(0) {
		if err, ok := event.(kafka.Error); ok {
			if err := r.check(ctx, err); err != nil {
				return nil, client.PermanentError{Err: err}
			}
		}
	}
	topics, err := client.DescribeTopics(ctx, r.client.Admin, r.Topics...)
	if err != nil || len(topics) == 0 {
		return nil, err
	}
	if err := r.fit(ctx, topics); err != nil {
		return nil, err
	}
	r.letters, err = deadletter.Open(ctx, r.client, r.deadLetters(topics))
	return topics, err
}

// fit checks that topics keep all their records.
func (r *Run) fit(ctx context.Context, topics map[string]client.Topic) error {
	if r.Compacted {
		return nil
	}
	return r.fitness.Of(ctx, slices.Sorted(maps.Keys(topics))...)
}

// fitNow checks that the topics and their dead-letter topics keep all their records. The watch calls it.
func (r *Run) fitNow(ctx context.Context) error {
	r.mu.Lock()
	topics := maps.Clone(r.topics)
	r.mu.Unlock()
	if err := r.fit(ctx, topics); err != nil {
		return err
	}
	return deadletter.Check(ctx, r.client, r.deadLetters(topics))
}

func (r *Run) deadLetters(topics map[string]client.Topic) deadletter.Config {
	return deadletter.Config{
		Client: r.Client, Group: r.Group, Topics: topics, Park: r.Park, Drops: r.Compacted, Replication: r.Replication, Log: r.Log, Trouble: r.trouble, Fail: r.fail,
	}
}

// await notes which topics exist, and says once of each other that the run waits for it.
func (r *Run) await(topics map[string]client.Topic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.topics = topics
	for _, name := range r.Topics {
		_, exists := topics[name]
		switch since := r.missing[name]; {
		case exists:
			delete(r.missing, name)
		case since.IsZero():
			r.missing[name], r.late[name] = time.Now(), true
			r.Log.Warn("kafka: consumer waits for a topic that does not exist", "topic", name)
		}
	}
}

// subscribe subscribes to the topics that exist. librdkafka would look for the others too, but only every five minutes.
func (r *Run) subscribe(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(r.topics))
	if err := r.client.SubscribeTopics(names, r.rebalance(ctx)); err != nil {
		return r.errorf("subscribe to %q: %w", names, err)
	}
	return nil
}

// addTopic adds a topic that has appeared to the subscription.
func (r *Run) addTopic(ctx context.Context, a appearance) error {
	topics := map[string]client.Topic{a.name: a.Topic}
	if err := r.fit(ctx, topics); err != nil && !client.Passes(err) { // the watch checks it again
		return r.errorf("%w", err)
	}
	letters, err := r.letters.Add(ctx, r.client, r.deadLetters(topics))
	switch {
	case err != nil && client.Passes(err):
		r.Log.Warn("kafka: dead-letter topic not opened", "topic", a.name, "err", r.trouble.Explain(err))
		r.appeared <- a // again after the next poll; there is a place for each topic
		return nil
	case err != nil:
		return r.errorf("%w", r.explain(err))
	}
	r.letters = letters
	r.mu.Lock()
	r.topics[a.name] = a.Topic
	delete(r.missing, a.name)
	r.mu.Unlock()
	r.Log.Info("kafka: consumer reads a topic that has appeared", "topic", a.name, "partitions", a.Partitions)
	return r.subscribe(ctx)
}

// checkTopics checks the topics at once. A topic that was created again ends the run.
func (r *Run) checkTopics(ctx context.Context) {
	if r.watch != nil {
		_ = r.watch.Check(ctx) // the next check follows
	}
}

// isNew reports whether a topic did not exist when the run began, so that a group that begins at the end begins with all of it.
func (r *Run) isNew(topic string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.late[topic]
}

// topic returns a topic of the run.
func (r *Run) topic(name string) client.Topic {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.topics[name]
}
