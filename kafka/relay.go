package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// Defaults of a [Relay].
const (
	DefaultRelayName  = "relay"
	DefaultRelayBatch = 5000             // records in a transaction
	DefaultRelayBytes = 16 << 20         // bytes of data in a transaction
	DefaultKeepAlive  = 6 * time.Hour    // without a transaction
	DefaultRelayLease = 10 * time.Second // without a sign of life
	DefaultOverdue    = 10 * time.Second // the longest a transaction may be open
)

// A Relay copies the records of a log to topics: each once, and those of a stream in order, as readers see it that read committed messages only.
//
// One Kafka transaction carries a batch of records and the new checkpoint, which is a message in a compacted topic of the name _<Prefix>.relay-checkpoints.
// So there is no moment in which the one is there without the other. A relay that dies leaves a transaction that is never committed; its successor has the
// cluster end it and shut the dead one out, and goes on behind the last checkpoint that was committed, whatever either of them believed. Any number of processes
// may run the same relay: with Leases one of them works and another takes over when it is not heard of; safety does not rest on that.
//
// The topic of a record is <Prefix>.<kind>, its key the id of the stream. The partition is murmur2 of the key, as with the default of Java's
// clients, over the partitions that the topic had when the relay first wrote to it: so that a stream stays in order also if the topic grows later.
//
// A Relay must not be copied after its first use.
type Relay struct {
	Cluster Cluster // where the topics are
	Log     es.Log  // where the records come from
	Prefix  string  // of the names of topics, and of the transactional id; letters, digits, dots, hyphens and underscores

	// Name tells relays of one log apart, each of which publishes all that its Filter lets through. "" means [DefaultRelayName].
	Name string

	Encoding Encoding // of messages

	// ContentType returns the media type of a record's data, for CloudEvents, such as the codec's method of that name. nil means application/json.
	ContentType func(r es.Record) string

	// Filter selects the records that are published. If it is changed, it counts for what comes after the checkpoint.
	Filter es.Filter

	// Route names the topic of a record, in place of <Prefix>.<kind>. All records of a stream must go to one topic, or their order is lost.
	Route func(es.Record) string

	// Topics says how topics are made that are not there. Its zero value makes none: a topic that is missing stops the relay.
	Topics Topics

	// Leases lets one of several processes work; as a rule it is the store. With nil the last to start shuts the others out, whose Run then returns [ErrFenced].
	Leases es.Leases
	Lease  time.Duration // how long a relay that is not heard of keeps others waiting; 0 means [DefaultRelayLease]

	// AtLeastOnce, if set, does without transactions, which some clusters do not have: this keeps the checkpoint, and as a rule it is the store.
	// Whenever something goes wrong records are published again; a repeated message has the same store and position as the first.
	AtLeastOnce es.Checkpoints

	// TooLarge says what becomes of a record that does not fit into the topic's max.message.bytes. [es.Stop] ends Run with a [*TooLargeError].
	// [es.Park] leaves it out, and the later records of its stream with it, in a list that the checkpoint carries; see [RelayStats].
	// Whoever starts the relay tries those again first, in order.
	TooLarge es.OnError

	Batch     int           // records in a transaction, at most, if so many wait; 0 means [DefaultRelayBatch]
	Bytes     int           // bytes of data in a transaction, about; 0 means [DefaultRelayBytes]
	KeepAlive time.Duration // after so long without a record an empty transaction tells the cluster that the relay is still there; 0 means [DefaultKeepAlive]

	// Logger hears of takeovers, retries and parked records, and what librdkafka says. nil means nobody does.
	Logger *slog.Logger

	log   *slog.Logger
	stats relayStats
	hook  func(step string) error // of tests: an error ends the session where it stands, as a crash would

	mu      sync.Mutex
	running bool
}

// Topics says how a [Relay] makes topics. Unless Config says otherwise they keep what is published for ever: a cluster's own retention, by default
// a week, counts from the time of a message, which is that of its record, so that of a log of years it would take most away as soon as it is published.
type Topics struct {
	Partitions  int               // 0 means that none are made
	Replication int               // 0 means the cluster's default
	MinInSync   int               // how many replicas must have a record, min.insync.replicas; 0 means the cluster's default
	Config      map[string]string // further settings, such as "retention.ms"; not those of the checkpoint topic
}

// ErrFenced is wrapped by the error of [Relay.Run] when another relay of the same name has taken over and there are no Leases to share the work by.
var ErrFenced = errors.New("another relay of this name has taken over: run one at a time, or set Leases")

// A TooLargeError says that a record does not fit into its topic. Raise the topic's max.message.bytes and run the relay again, or let it park such records.
type TooLargeError struct {
	Record es.Record
	Topic  string
	Size   int // of the message with its headers
	Limit  int // max.message.bytes of the topic
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("kafka: %s at position %d makes a message of %d bytes, and topic %s takes %d: raise its max.message.bytes and run the relay again, or let it park such records (TooLarge: es.Park)",
		e.Record.ID(), e.Record.Position, e.Size, e.Topic, e.Limit)
}

// Run publishes until the context ends, and returns the context's error then. What may pass, such as a cluster that is away, it waits out. It returns
// any other error at once: what wraps [es.ErrInvalid] for settings that cannot be, [*es.AheadError] if the checkpoint is beyond the end of the log,
// [*TooLargeError], [ErrFenced], and others that name a topic and what is wrong with it.
//
// When the context ends it brings the transaction that is under way to its end, for which it takes up to 10 seconds if the cluster does not answer.
func (r *Relay) Run(ctx context.Context) error {
	w, err := r.start()
	if err != nil {
		return err
	}
	defer r.end()
	if r.Leases != nil {
		return w.share(ctx)
	}
	return w.work(ctx)
}

// start checks the settings, before anything is done.
func (r *Relay) start() (*work, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running {
		return nil, client.Invalid("relay %s runs already: a Relay runs once at a time", r.name())
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	w, err := newWork(r)
	if err != nil {
		return nil, err
	}
	r.running = true
	r.log = client.Logger(r.Logger).With("relay", r.name(), "store", w.store)
	return w, nil
}

func (r *Relay) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = false
	r.stats.set(func(s *RelayStats) { s.Working, s.Rate = false, 0 })
}

func (r *Relay) name() string { return cmp.Or(r.Name, DefaultRelayName) }

func (r *Relay) check() error {
	switch {
	case r.Log == nil:
		return client.Invalid("relay %s has no Log: give it the store", r.name())
	case !client.IsTopicName(CheckpointTopic(r.Prefix)) || r.Prefix == "":
		return client.Invalid("relay %s: prefix %q cannot be that of topics: use letters, digits, dots, hyphens and underscores, such as the application's name", r.name(), r.Prefix)
	case !client.IsTopicName(r.name()):
		return client.Invalid("relay %q: a name has letters, digits, dots, hyphens and underscores", r.name())
	case r.Encoding != CloudEvents && r.Encoding != Compact:
		return client.Invalid("relay %s: Encoding %d: it is kafka.CloudEvents or kafka.Compact", r.name(), r.Encoding)
	case r.TooLarge != es.Stop && r.TooLarge != es.Park:
		return client.Invalid("relay %s: TooLarge %d: it is es.Stop or es.Park", r.name(), r.TooLarge)
	case r.TooLarge == es.Park && r.AtLeastOnce != nil:
		return client.Invalid("relay %s: TooLarge: es.Park needs transactions, by which the list of what is parked is kept: leave out AtLeastOnce, or let it stop", r.name())
	case r.Batch < 0 || r.Bytes < 0 || r.KeepAlive < 0 || r.Lease < 0 || r.Topics.Partitions < 0 || r.Topics.Replication < 0 || r.Topics.MinInSync < 0:
		return client.Invalid("relay %s: Batch, Bytes, KeepAlive, Lease and what Topics says cannot be negative: 0 is the default", r.name())
	}
	return nil
}

// Reset sets the checkpoint, for the next Run to go on from there: to 0 to publish everything again, or to what is there when topics were lost, made anew or
// filled otherwise, or the database was restored from an older copy. Whoever runs the relay meanwhile is shut out. All that is published again is there twice.
//
// It also forgets which topics the relay has written to and how many partitions they had, and what is parked.
func (r *Relay) Reset(ctx context.Context, to es.Position) error {
	w, err := r.start()
	if err != nil {
		return err
	}
	defer r.end()
	head, err := es.Head(ctx, r.Log)
	if err != nil {
		return err
	}
	if to < 0 || to > head {
		return client.Invalid("reset relay %s to position %d: the log has 0 to %d", r.name(), to, head)
	}
	return w.reset(ctx, to)
}
