package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// Defaults of a [Consumer].
const (
	DefaultBuffer  = 1000             // messages
	DefaultRetries = 5                // attempts after the first
	DefaultDrain   = 10 * time.Second // that a handler may take to its end
)

// A Consumer handles the records of topics, each at least once: what it has handled is committed to Kafka afterwards, and never past a record that
// failed. Any number of processes with the same group share the partitions.
//
// The records of a key, which is the id of their stream, are handled one after the other, in order. A record that fails is tried again
// in place, with a growing jittered pause; the records of its key wait. If it fails for good the run stops before it, or it is parked
// in a dead-letter topic, and the later records of its key behind it; see [es.OnError] and [DeadLetters].
//
// It polls whatever the handlers do, so one that takes longer than max.poll.interval.ms (librdkafka's default is five minutes) loses no partition: that
// time only counts for a process that stands still altogether. A partition that is to move waits for its handlers; see Drain.
//
// For a read model in a database that is exactly once, use a [Source]. To run commands exactly once, give them es.CommandID(record.ID()).
//
// The exported fields are settings, to be made before Run.
type Consumer struct {
	// Cluster is where the topics are.
	Cluster Cluster

	// Group names those who share the partitions. Another group reads everything anew.
	Group string

	// Topics are read. They must be there.
	Topics []string

	// Filter selects the records that are handled, by the headers alone: the others are not decoded, and count as handled.
	Filter es.Filter

	// FromEnd lets a group that has never committed an offset begin with what comes from now on, in place of everything there is.
	FromEnd bool

	// Workers is how many records of one partition are handled at the same time, with different keys. 0 means 1.
	// A key that is tried again holds up the others of its worker.
	Workers int

	// Buffer is how many messages of a partition are held in memory at most. 0 means [DefaultBuffer].
	Buffer int

	// OnError says what becomes of a record that failed for good. The zero value is [es.Stop].
	OnError es.OnError

	// Retries is how often a record that failed is tried again before that. 0 means [DefaultRetries], a negative number none.
	// An error that wraps [es.ErrUnavailable] does not count: the store that a command goes to is away, say, and is waited for.
	Retries int

	// Drain is how long a handler may go on when the partition is taken away or the run ends, before its context does.
	// 0 means [DefaultDrain]. Others wait for the partition so long.
	Drain time.Duration

	// Replication is how many copies a dead-letter topic has that is made here. 0 means as many as the brokers' default.
	Replication int

	// Logger hears of assignments, retries, parked records, and of what librdkafka says. nil means nobody does.
	Logger *slog.Logger

	mu      sync.Mutex
	running *consumption
}

// A ConsumerError says where and why a [Consumer] stopped.
type ConsumerError struct {
	Group     string
	Topic     string
	Partition int32
	Offset    int64
	Key       string
	Record    es.Record // zero if the message is none
	Err       error     // of the handler; a [*es.PanicError] if it panicked
}

func (e *ConsumerError) Error() string {
	what := fmt.Sprintf("the message with key %q", e.Key)
	if e.Record.Version > 0 {
		what = fmt.Sprintf("%s, a %q", e.Record.ID(), e.Record.Type)
	}
	return fmt.Sprintf("kafka: consumer %s stopped before %s, at %s [%d] offset %d: %v; mend the handler and run it again, or let it park such records",
		e.Group, what, e.Topic, e.Partition, e.Offset, e.Err)
}

// Unwrap returns the error of the handler.
func (e *ConsumerError) Unwrap() error { return e.Err }

// Run handles records until the context ends, and returns the context's error then; or a [*ConsumerError]; or at once an error that wraps
// [es.ErrInvalid] for settings that cannot be; or another if the cluster does not let it go on.
//
// The handler is called from several goroutines. Its context ends some time after Run's does, or after the partition was taken away; see Drain.
// It must return then: nobody else gets the partition before.
func (c *Consumer) Run(ctx context.Context, handle func(ctx context.Context, r es.Record) error) error {
	r, err := c.start(ctx, handle)
	if err != nil {
		return err
	}
	defer func() {
		c.mu.Lock()
		c.running = nil
		c.mu.Unlock()
	}()
	err = r.run(ctx)
	if closing := r.close(ctx); err == nil {
		err = closing
	}
	return err
}

// start checks the settings and opens what a run needs.
func (c *Consumer) start(ctx context.Context, handle func(ctx context.Context, r es.Record) error) (*consumption, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	config, err := client.ReaderConfig(c.Cluster.Config, c.Group)
	if err != nil {
		return nil, err
	}
	r := &consumption{
		Consumer:   c,
		handle:     handle,
		log:        client.Logger(c.Logger).With("group", c.Group),
		partitions: make(map[client.Partition]*partition),
		failed:     make(chan error, 1),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		return nil, client.Invalid("consumer %s is running already: make another Consumer", c.Group)
	}
	if r.client, err = client.OpenReader(config, r.log); err != nil {
		return nil, err
	}
	if r.topics, err = r.client.Describe(ctx, c.Topics...); err == nil {
		r.letters, err = openLetters(ctx, r)
	}
	if err != nil {
		_ = r.client.Close() // the first error says more
		return nil, err
	}
	r.watch = client.Watch{Reader: r.client, Topics: r.topics, Log: r.log, Changed: r.changed, Gone: r.gone}
	c.running = r
	return r, nil
}

func (c *Consumer) check() error {
	switch {
	case c.Group == "":
		return client.Invalid("a consumer has no Group: name those who share the partitions")
	case len(c.Topics) == 0:
		return client.Invalid("consumer %s has no Topics: name those to read", c.Group)
	case c.OnError != es.Stop && c.OnError != es.Park:
		return client.Invalid("consumer %s: OnError %d: it is es.Stop or es.Park", c.Group, c.OnError)
	}
	for _, topic := range c.Topics {
		if !client.IsTopicName(topic) {
			return client.Invalid("consumer %s: topic %q: a name has up to 249 letters, digits, dots, hyphens and underscores", c.Group, topic)
		}
		if dead := DeadLetterTopic(topic, c.Group); !client.IsTopicName(dead) && c.OnError == es.Park {
			return client.Invalid("consumer %s cannot have the dead-letter topic %q: a name has up to 249 letters, digits, dots, hyphens and underscores; choose another Group", c.Group, dead)
		}
	}
	return nil
}

// Typed makes a handler of one that takes events: it decodes each record by the codec, and reads past those that are retired.
// An event that the codec does not know, or cannot decode, is an error of the record; a [Consumer.Filter] keeps away what is not meant.
func Typed[E any](codec *es.Codec[E], handle func(ctx context.Context, r es.Record, event E) error) func(ctx context.Context, r es.Record) error {
	return func(ctx context.Context, r es.Record) error {
		event, err := codec.Decode(r)
		if err == es.ErrRetired { //nolint:errorlint // the contract of Codec: it comes bare
			return nil
		}
		if err != nil {
			return err
		}
		return handle(ctx, r, event)
	}
}
