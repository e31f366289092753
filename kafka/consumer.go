package kafka

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/step"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/consume"
)

// Consumer handles the records of topics at least once. It commits the offsets of handled records to Kafka, never past a
// record that failed. Processes with the same Group share the partitions.
//
// Records with the same key, which is the id of their stream, are handled one after the other, in order. A record whose
// handler fails is retried in place with backoff and jitter, while later records of its key wait. If it still fails after
// Retries, Run stops before it or parks it in a dead-letter topic; see [es.OnError] and [DeadLetters].
//
// Consumer polls while handlers run, so a handler that takes longer than max.poll.interval.ms (a minute by default, more
// with a long Drain) does not lose its partition. Only a process that hangs as a whole does. A partition that is revoked waits for its
// handlers; see Drain.
//
// To build a read model exactly once, use [Source]. To run a command exactly once, pass [es.Step].
//
// The exported fields are settings. They must not change after Run is called.
type Consumer struct {
	Cluster Cluster

	// Group is the consumer group. A new group begins with the oldest record; see FromEnd.
	Group string

	// Topics are the topics to read. Run waits for a topic that does not exist yet, and reads the others until then.
	Topics []string

	// Filter selects the records to handle by their headers alone. Others are not decoded and count as handled.
	Filter es.Filter

	// FromEnd lets a group without committed offsets of a topic begin with new records only. Partitions that are added later,
	// and topics that did not exist when Run was called, are read from their beginning.
	FromEnd bool

	// SkipForeign skips messages of other producers, as in [SourceConfig]. They are counted in [PartitionStats]. Neither they nor
	// damaged messages are ever parked: without a record, the key says nothing about a stream.
	SkipForeign bool

	// AllowCompacted lets Run read compacted topics, of which the cluster deletes all records of a stream but the last, and park records in
	// a topic that deletes them after a time. Otherwise Run returns an error that wraps [es.ErrInvalid], also while it runs.
	AllowCompacted bool

	// Carry are the keys of Record.Meta that commands with [es.Step] take over, such as "user".
	Carry []string

	// Workers is the number of records of one partition that are handled at the same time, with different keys. 0 means 1.
	// A key that is retried delays the other keys of its worker.
	Workers int

	// Buffer is the maximum number of messages of one partition in memory. 0 means 1000.
	Buffer int

	// OnError selects what happens to a record that still fails after Retries: [es.Stop], the default, or [es.Park].
	OnError es.OnError

	// Retries is how often a failed record is retried. 0 means 5; a negative value means no retries.
	// Errors that wrap [es.ErrUnavailable] do not count: such a record is retried until its handler's dependency is back.
	Retries int

	// Drain is how long handlers may continue after their partition is revoked or the context of Run ends, before their
	// own context is canceled. The partition is not reassigned until they return. 0 means 10s; a negative value means that
	// they are canceled at once.
	Drain time.Duration

	// Replication is the replication factor of dead-letter topics that Run creates. 0 means the brokers' default.
	Replication int

	// Logger receives assignments, retries, parked records and librdkafka's log. nil discards them.
	Logger *slog.Logger

	mu      sync.Mutex
	running *consume.Run
}

// ConsumerError reports where and why a [Consumer] stopped. Nothing is committed past the record.
type ConsumerError struct {
	Group     string
	Topic     string
	Partition int32
	Offset    int64
	Record    es.Record // zero if the message is not a record
	Err       error     // of the handler; a [*es.PanicError] if it panicked
}

func (e *ConsumerError) Error() string {
	what := "a message"
	if e.Record.Version > 0 {
		what = e.Record.ID()
	}
	return fmt.Sprintf("kafka: consumer %s stopped before %s (%s [%d] offset %d): %v", e.Group, what, e.Topic, e.Partition, e.Offset, e.Err)
}

// Unwrap returns the handler's error.
func (e *ConsumerError) Unwrap() error { return e.Err }

// Run handles records until ctx is done, and then returns ctx's error. It waits for a cluster that is not available and for
// topics that do not exist yet; see [Consumer.Stats]. It returns a [*ConsumerError] if a record failed, an error that wraps
// [es.ErrInvalid] for invalid settings, and other errors from which the client cannot recover.
//
// Run calls handle from several goroutines. The context of a handler ends some time after ctx, or after its partition is
// revoked; see Drain. It must return then, because no other process gets the partition before.
func (c *Consumer) Run(ctx context.Context, handle func(ctx context.Context, r es.Record) error) (err error) {
	defer cause.Set(ctx, &err)
	run, err := c.open(handle)
	if err != nil {
		return err
	}
	defer func() {
		c.mu.Lock()
		c.running = nil
		c.mu.Unlock()
	}()
	err = run.Run(ctx)
	var f *consume.RecordError
	if errors.As(err, &f) {
		return &ConsumerError{c.Group, f.Partition.Topic, f.Partition.Number, f.Offset, f.Record, f.Err}
	}
	return err
}

func (c *Consumer) open(handle func(ctx context.Context, r es.Record) error) (*consume.Run, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		return nil, client.Invalid("consumer %s is running already: use another Consumer", c.Group)
	}
	run, err := consume.Open(consume.Config{
		Client:      c.Cluster.client(),
		Group:       c.Group,
		Topics:      c.Topics,
		Filter:      c.Filter,
		FromEnd:     c.FromEnd,
		Compacted:   c.AllowCompacted,
		SkipForeign: c.SkipForeign,
		Workers:     cmp.Or(c.Workers, 1),
		Buffer:      cmp.Or(c.Buffer, 1000),
		Park:        c.OnError == es.Park,
		Retries:     max(0, cmp.Or(c.Retries, 5)),
		Drain:       max(0, cmp.Or(c.Drain, 10*time.Second)),
		Replication: c.Replication,
		Log:         client.Logger(c.Logger).With("group", c.Group),
		Handle: func(ctx context.Context, store string, r es.Record) error {
			return handle(step.With(ctx, &step.Handling{By: c.identity(store), Record: r.ID(), Meta: r.Meta, Carry: c.Carry}), r)
		},
	})
	if err != nil {
		return nil, err
	}
	c.running = run
	return run, nil
}

// identity identifies the group and the store of a record in the ids of commands. Records of two stores may have the same id.
func (c *Consumer) identity(store string) string {
	sum := sha256.Sum256([]byte(c.Group + "\x00" + store))
	return "c" + hex.EncodeToString(sum[:12])
}

const topicNameRule = "a name has up to 249 letters, digits, dots, hyphens and underscores"

func (c *Consumer) check() error {
	switch {
	case c.Group == "":
		return client.Invalid("a consumer has no Group: set the name of its consumer group")
	case len(c.Topics) == 0:
		return client.Invalid("consumer %s has no Topics: set those to read", c.Group)
	case c.OnError != es.Stop && c.OnError != es.Park:
		return client.Invalid("consumer %s: OnError %d: use es.Stop or es.Park", c.Group, c.OnError)
	}
	err := client.NotNegative("consumer "+c.Group, map[string]int64{"Workers": int64(c.Workers), "Buffer": int64(c.Buffer), "Replication": int64(c.Replication)})
	if err != nil {
		return err
	}
	for _, topic := range c.Topics {
		if !client.IsTopicName(topic) {
			return client.Invalid("consumer %s: topic %q: %s", c.Group, topic, topicNameRule)
		}
		if dead := DeadLetterTopic(topic, c.Group); !client.IsTopicName(dead) && c.OnError == es.Park {
			return client.Invalid("consumer %s: dead-letter topic %q: %s; use another Group", c.Group, dead, topicNameRule)
		}
	}
	return nil
}
