package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

const (
	pollFor     = 100 * time.Millisecond // how long a poll waits, and so how late a reader notices that its context has ended
	askFor      = 10 * time.Second       // how long a question to the cluster may take
	closeFor    = 10 * time.Second       // how long closing a client may take, which hangs after some fatal errors
	memoryOfOne = 16 << 10               // kilobytes that one client fetches ahead
)

// readerSettings are what every reader is made with; the user's own go over those that are a matter of taste.
var readerSettings = ConfigMap{
	"client.id":                  "es",
	"fetch.wait.max.ms":          100,
	"fetch.queue.backoff.ms":     50,
	"queued.max.messages.kbytes": memoryOfOne,
	"enable.metrics.push":        false,
	"allow.auto.create.topics":   false,
}

// readerPromises are what a reader's promises rest on.
var readerPromises = ConfigMap{
	"enable.auto.commit":              false,
	"enable.auto.offset.store":        false,
	"enable.partition.eof":            true,
	"auto.offset.reset":               "error", // anything else skips what retention has deleted, without a word
	"isolation.level":                 "read_committed",
	"partition.assignment.strategy":   "cooperative-sticky",
	"group.protocol":                  "classic",
	"go.events.channel.enable":        false,
	"go.application.rebalance.enable": false,
	"check.crcs":                      true,
}

// readerConfig takes the user's configuration over and refuses what would break a promise.
func readerConfig(user ConfigMap, group string) (ConfigMap, error) {
	config := maps.Clone(readerSettings)
	given := maps.Clone(user)
	if topic, ok := given["default.topic.config"].(ConfigMap); ok {
		delete(given, "default.topic.config")
		maps.Copy(given, topic)
	}
	for key, value := range given {
		key = strings.TrimPrefix(key, "{topic}.")
		switch promised, promise := readerPromises[key]; {
		case key == "group.id":
			return nil, invalid("setting group.id: give the group as the field Group")
		case key == "group.instance.id":
			return nil, invalid("setting group.instance.id: a static member that is gone holds its partitions until its session times out; leave it out")
		case promise && !sameSetting(value, promised):
			return nil, invalid("setting %s=%v: it must be %v, on which promises rest; leave it out", key, value, promised)
		}
		config[key] = value
	}
	if brokers := config["bootstrap.servers"]; brokers == nil && config["metadata.broker.list"] == nil {
		return nil, invalid("setting bootstrap.servers is missing: give the addresses of some brokers in Config")
	}
	maps.Copy(config, readerPromises)
	config["group.id"] = group
	config["go.logs.channel.enable"] = true
	return config, nil
}

// sameSetting tells whether librdkafka understands two values as the same.
func sameSetting(a, b kafka.ConfigValue) bool {
	return strings.EqualFold(fmt.Sprint(a), fmt.Sprint(b))
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("kafka: %w: %s", es.ErrInvalid, fmt.Sprintf(format, args...))
}

// A reader is a consumer of librdkafka whose logs somebody hears and whose end is bounded.
type reader struct {
	*kafka.Consumer
	admin *kafka.AdminClient
	log   *slog.Logger
	logs  sync.WaitGroup
	ended chan struct{}
	calls sync.WaitGroup // that were left to themselves
}

func openReader(config ConfigMap, log *slog.Logger) (*reader, error) {
	c, err := kafka.NewConsumer(&config)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w: %w", es.ErrInvalid, err)
	}
	r := &reader{Consumer: c, log: log, ended: make(chan struct{})}
	r.logs.Go(func() { hear(c.Logs(), log, r.ended) })
	if r.admin, err = kafka.NewAdminClientFromConsumer(c); err != nil {
		_ = r.close()
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return r, nil
}

// close ends the client. If that hangs, which it may after a fatal error, it is left behind.
func (r *reader) close() error {
	done := make(chan error, 1)
	go func() {
		r.calls.Wait() // or they would find a client that is not there any more
		if r.admin != nil {
			r.admin.Close()
		}
		done <- r.Close()
	}()
	timer := time.NewTimer(closeFor)
	defer timer.Stop()
	var err error
	select {
	case err = <-done:
	case <-timer.C:
		err = fmt.Errorf("kafka: closing a consumer takes longer than %v: it is left to itself", closeFor)
	}
	close(r.ended)
	r.logs.Wait()
	return err
}

// call waits for a call that cannot be cancelled, but not for ever.
func (r *reader) call(what string, f func() error) error {
	done := make(chan error, 1)
	r.calls.Go(func() { done <- f() })
	timer := time.NewTimer(askFor)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("kafka: %s: no answer within %v", what, askFor)
	}
}

// hear passes on what librdkafka says, until its client is closed or left behind. What it mends by itself it calls an error; to others that is a warning.
func hear(lines <-chan kafka.LogEvent, log *slog.Logger, ended <-chan struct{}) {
	for {
		var line kafka.LogEvent
		var open bool
		select {
		case line, open = <-lines:
		case <-ended:
		}
		if !open {
			return
		}
		level := slog.LevelWarn
		switch {
		case line.Level >= 7, strings.HasSuffix(line.Message, "property and will be ignored by this producer instance"),
			strings.HasSuffix(line.Message, "property and will be ignored by this consumer instance"): // one Config may serve both
			level = slog.LevelDebug
		case line.Level >= 5:
			level = slog.LevelInfo
		}
		log.Log(context.Background(), level, "kafka: librdkafka: "+line.Message, "client", line.Name, "facility", line.Tag)
	}
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// A topicState is what identifies a topic: one that was deleted and made again has another id.
type topicState struct {
	id         string
	partitions int
}

// describe returns the state of topics, and an error that names one that is not there.
func (r *reader) describe(ctx context.Context, topics []string) (map[string]topicState, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	result, err := r.admin.DescribeTopics(ctx, kafka.NewTopicCollectionOfTopicNames(topics))
	if err != nil {
		return nil, fmt.Errorf("kafka: describe topics %q: %w", topics, err)
	}
	states := make(map[string]topicState, len(topics))
	for _, t := range result.TopicDescriptions {
		switch code := t.Error.Code(); code {
		case kafka.ErrNoError:
			states[t.Name] = topicState{t.TopicID.String(), len(t.Partitions)}
		case kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopic:
			return nil, &NoTopicError{t.Name}
		default:
			return nil, fmt.Errorf("kafka: describe topic %s: %w", t.Name, t.Error)
		}
	}
	return states, nil
}

// A NoTopicError says that a topic is not there: the relay that makes it has not run, its name is wrong, it was deleted, or this user may not see it.
type NoTopicError struct {
	Topic string
}

func (e *NoTopicError) Error() string {
	return fmt.Sprintf("kafka: topic %s is not there: let its relay make it, mend the name, or give the user the right to describe and read it", e.Topic)
}
