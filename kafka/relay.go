package kafka

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/relay"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// Relay copies the records of a log to topics, each once, and those of a stream in order. This holds for readers that read only committed messages.
//
// One Kafka transaction has a batch of records and the new checkpoint, which is a message in the compacted topic _<Prefix>.relay-checkpoints.
// So the records and the checkpoint are committed together. A relay that dies leaves a transaction that is never committed:
// its successor fences it, aborts its transaction, and continues after the last committed checkpoint.
//
// Any number of processes may run the same relay. With Leases one of them works, and another takes over when its lease expires.
// The lease is an optimization, not a safety mechanism.
//
// The topic of a record is <Prefix>.<kind>, and its key is the id of the stream. The partition is murmur2 of the key, as with the default of
// Kafka's Java clients, over the partitions that the topic had when the relay first wrote to it. So a stream stays in order even if the topic grows.
//
// The exported fields are settings. Set them before the first call of a method. A Relay must not be copied after that.
type Relay struct {
	Cluster Cluster // where the topics are
	Log     es.Log  // where the records come from
	Prefix  string  // of topics and of the transactional id: letters, digits, dots, hyphens and underscores

	// Name distinguishes relays of one log. Each publishes all records that match its Filter. "" means "relay".
	Name string

	// Encoding is the form of messages.
	Encoding Encoding

	// ContentType returns the media type of a record's data, for CloudEvents, such as [es.Codec.ContentType] does. nil and "" mean application/json.
	ContentType func(r es.Record) string

	// Filter selects the records that are published. It is kept with the checkpoint, and a changed one ends Run with an error that wraps
	// [es.ErrInvalid]; see Relay.Refilter.
	Filter es.Filter

	// Route returns the topic of a record. nil means <Prefix>.<kind>. All records of a stream must go to one topic, or their order is lost.
	Route func(r es.Record) string

	// Transform returns what is published for a record: nothing, or one message or several, such as events that are public instead of those that
	// are stored. All of them are published, in order, in the record's transaction, with the stream's id as the key. Readers get them as records
	// of the same stream, version, position and time, with their number from 1 as [es.Record.Part], which [es.Record.ID] includes.
	// Route gets each of them. The number that a message has should not change, because readers know it by that.
	//
	// An error ends Run, unless it wraps [es.ErrUnavailable], after which the relay tries again. Transform must return the same for the same record
	// each time, because it is called again after errors. nil publishes the record.
	Transform func(r es.Record) ([]Message, error)

	// Topics says how missing topics are created. Its zero value creates none: a missing topic stops the relay.
	Topics Topics

	// AllowCompacted lets the relay publish to topics that drop records: those that are compacted, and those whose retention.ms is shorter
	// than the age of a record. Otherwise they stop the relay. A retention.ms in Topics.Config is accepted, too.
	AllowCompacted bool

	// Leases lets one of several processes work; it is usually the store. If it is nil, the last relay to start fences the others,
	// whose Run then returns [ErrFenced].
	Leases es.Leases

	// Lease is how long other processes wait for a relay that does not renew its lease. 0 means 10s. A negative value is refused.
	Lease time.Duration

	// AtLeastOnce, if not nil, keeps the checkpoint; it is usually the store. The relay then publishes without transactions, which some clusters
	// do not have. After an error records are published again. A repeated message has the same store and position as the first.
	AtLeastOnce es.Checkpoints

	// TooLarge selects what happens to a record above its topic's max.message.bytes. [es.Stop] ends Run with a [*TooLargeError].
	// [es.Park] does not publish the record and the later records of its stream. The checkpoint keeps a list of such streams; see [RelayStats].
	// The next process that runs the relay tries to publish them first, in order.
	TooLarge es.OnError

	// Batch is the largest number of records in a transaction. 0 means 5000. A negative value is refused.
	Batch int

	// Bytes is the approximate maximum of bytes in a transaction. 0 means 16 MiB. A negative value is refused.
	Bytes int

	// KeepAlive is how long an idle relay waits before it commits an empty transaction, so that the cluster does not forget its transactional id.
	// 0 means 6h. A negative value is refused.
	KeepAlive time.Duration

	// Logger receives takeovers, retries, parked records, and the log of librdkafka. nil discards them.
	Logger *slog.Logger

	stats   relay.Stats
	refresh time.Duration           // for tests
	hook    func(step string) error // for tests

	mu      sync.Mutex
	running bool
}

// Topics says how a [Relay] creates topics. Unless Config has other settings, a topic keeps its messages forever. The cluster's own retention,
// a week by default, counts from a message's time, which is its record's: most of a log of years would be deleted as soon as it is published.
type Topics struct {
	Partitions  int               // 0 means that none are created
	Replication int               // 0 means the cluster's default
	MinInSync   int               // min.insync.replicas: how many replicas must have a record; 0 means the cluster's default
	Config      map[string]string // further settings, such as "retention.ms"; they do not apply to the checkpoint topic
}

// Message is what [Relay.Transform] returns to be published for a record. Its key is always the id of the stream.
type Message struct {
	Type        string            // as in a record; it must be set
	Data        []byte            // the value
	Meta        map[string]string // as in a record; what is not here is not published
	ContentType string            // for CloudEvents; "" means Relay.ContentType
	Headers     map[string]string // further headers, which readers of this package ignore; none may have a name that the relay uses
}

// ErrFenced is wrapped by the error of [Relay.Run] when another relay of the same name has taken over and Leases is nil.
var ErrFenced = relay.ErrFenced

// TooLargeError reports that the message of a record is larger than its topic allows. Raise the topic's max.message.bytes and run the relay again,
// or set Relay.TooLarge to [es.Park]. It has the Record, the Topic, the Size of the message with its headers, and the Limit of the topic.
type TooLargeError = relay.TooLargeError

// Run publishes until ctx is done, and then returns the context's error. It retries transient errors indefinitely, such as a cluster that is not available.
//
// It returns permanent errors at once: one that wraps [es.ErrInvalid] for invalid settings, an [*es.AheadError] if the checkpoint is beyond the end
// of the log, a [*TooLargeError], [ErrFenced], and errors that name a topic and what is wrong with it.
//
// When ctx is done, Run completes the current transaction, which takes up to 10 seconds if the cluster does not answer.
func (r *Relay) Run(ctx context.Context) (err error) {
	defer cause.Set(ctx, &err)
	work, err := r.start()
	if err != nil {
		return err
	}
	defer r.end()
	return work.Run(ctx)
}

// Reset sets the checkpoint from which the next Run continues: 0 publishes everything again. Another position is for topics that were lost or
// filled otherwise, and for a database that was restored from an older copy. Records that are published again are in the topics twice.
//
// Reset fences a relay that runs, and accepts a changed Filter. It also forgets which topics the relay has written to, how many partitions they had, and what is parked.
func (r *Relay) Reset(ctx context.Context, to es.Position) (err error) {
	defer cause.Set(ctx, &err)
	work, err := r.start()
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
	return work.Reset(ctx, to)
}

// Refilter accepts a changed Filter from here on: records before the checkpoint that only the new filter lets through are never published.
// To publish them, Reset the relay to a position before them, which publishes the others twice. Call it once, with the settings of the
// new release; a relay that runs with another filter then ends with an error. If there is no checkpoint yet, it does nothing.
func (r *Relay) Refilter(ctx context.Context) (err error) {
	defer cause.Set(ctx, &err)
	work, err := r.start()
	if err != nil {
		return err
	}
	defer r.end()
	return work.Refilter(ctx)
}

// start checks the settings before anything else happens.
func (r *Relay) start() (*relay.Relay, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running {
		return nil, client.Invalid("relay %s runs already; use another Relay", r.name())
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	work, err := relay.New(relay.Config{
		Cluster: r.Cluster.client(), Log: r.Log, Prefix: r.Prefix, Name: r.name(), Checkpoints: CheckpointTopic(r.Prefix),
		Encoding: wire.Encoding(r.Encoding), ContentType: r.ContentType, Filter: r.Filter, Route: r.Route, Transform: r.transform(), Topics: relay.Topics(r.Topics), Compacted: r.AllowCompacted,
		Leases: r.Leases, Lease: cmp.Or(r.Lease, 10*time.Second), AtLeastOnce: r.AtLeastOnce, TooLarge: r.TooLarge,
		Batch: cmp.Or(r.Batch, 5000), Bytes: cmp.Or(r.Bytes, 16<<20), KeepAlive: cmp.Or(r.KeepAlive, 6*time.Hour),
		Logger: r.Logger, Stats: &r.stats, Refresh: r.refresh, Hook: r.hook,
	})
	if err != nil {
		return nil, err
	}
	r.running = true
	return work, nil
}

// transform returns Transform with the types of package relay.
func (r *Relay) transform() func(es.Record) ([]relay.Message, error) {
	if r.Transform == nil {
		return nil
	}
	return func(record es.Record) ([]relay.Message, error) {
		made, err := r.Transform(record)
		if err != nil {
			return nil, err
		}
		all := make([]relay.Message, len(made))
		for i, m := range made {
			all[i] = relay.Message(m)
		}
		return all, nil
	}
}

func (r *Relay) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = false
	r.stats.Stopped()
}

func (r *Relay) name() string { return cmp.Or(r.Name, "relay") }

func (r *Relay) check() error {
	switch {
	case r.Log == nil:
		return client.Invalid("relay %s has no Log; set it to the store", r.name())
	case !client.IsTopicName(CheckpointTopic(r.Prefix)) || r.Prefix == "":
		return client.Invalid("relay %s: invalid prefix %q; use letters, digits, dots, hyphens and underscores", r.name(), r.Prefix)
	case !client.IsTopicName(r.name()):
		return client.Invalid("relay: invalid name %q; use letters, digits, dots, hyphens and underscores", r.name())
	case r.Encoding != CloudEvents && r.Encoding != Compact:
		return client.Invalid("relay %s: invalid Encoding %d; use kafka.CloudEvents or kafka.Compact", r.name(), r.Encoding)
	case r.TooLarge != es.Stop && r.TooLarge != es.Park:
		return client.Invalid("relay %s: invalid TooLarge %d; use es.Stop or es.Park", r.name(), r.TooLarge)
	case r.TooLarge == es.Park && r.AtLeastOnce != nil:
		return client.Invalid("relay %s: TooLarge es.Park needs transactions; leave out AtLeastOnce, or use es.Stop", r.name())
	}
	return client.NotNegative("relay "+r.name(), map[string]int64{
		"Batch": int64(r.Batch), "Bytes": int64(r.Bytes), "KeepAlive": int64(r.KeepAlive), "Lease": int64(r.Lease),
		"Topics.Partitions": int64(r.Topics.Partitions), "Topics.Replication": int64(r.Topics.Replication), "Topics.MinInSync": int64(r.Topics.MinInSync),
	})
}
