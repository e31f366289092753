package deadletter

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
)

// Config is what [Open] requires of a run of a consumer.
type Config struct {
	Client      client.Cluster
	Group       string
	Topics      map[string]client.Topic // the consumed topics
	Park        bool                    // create missing dead-letter topics
	Drops       bool                    // accept dead-letter topics that delete parked records after a time
	Replication int                     // of created topics; 0 means the brokers' default
	Log         *slog.Logger
	Trouble     *client.Trouble // of all clients of the run
	Fail        func(error)     // ends the run
}

// deadTopic is the dead-letter topic of a topic.
type deadTopic struct {
	partitions int32
	limit      int // max.message.bytes; 0 if the user may not know
}

// Topics are the dead-letter topics of one run: producers, and a reader that follows the partitions of the run.
// A nil Topics has none.
type Topics struct {
	Config
	reading   client.ConfigMap
	names     map[string]deadTopic // by consumed topic: those that have a dead-letter topic
	writing   client.ConfigMap
	producers map[int]*client.Producer // by the size of their batches; nearly always there is one
	reader    *client.Reader
	work      sync.WaitGroup
	closing   chan struct{}

	mu         sync.Mutex
	partitions map[client.Partition]*Partition
}

// Open opens the dead-letter topics of a run. It returns nil if the run does not park and no earlier run has parked.
func Open(ctx context.Context, r *client.Reader, c Config) (*Topics, error) {
	t := &Topics{
		Config: c, names: make(map[string]deadTopic), producers: make(map[int]*client.Producer), closing: make(chan struct{}), partitions: make(map[client.Partition]*Partition),
	}
	err := t.ensure(ctx, r, c)
	if err != nil || len(t.names) == 0 {
		return nil, err
	}
	if t.reading, err = client.ReaderConfig(c.Client, c.Group); err != nil {
		return nil, err
	}
	if t.writing, err = client.DeadLetterConfig(c.Client); err != nil {
		return nil, err
	}
	if t.reader, err = client.OpenReader(t.reading, c.Trouble); err != nil {
		return nil, err
	}
	t.work.Go(t.follow)
	return t, nil
}

// Add adds consumed topics, those of c. It returns t, or, if t is nil, what [Open] returns.
func (t *Topics) Add(ctx context.Context, r *client.Reader, c Config) (*Topics, error) {
	if t == nil {
		return Open(ctx, r, c)
	}
	return t, t.ensure(ctx, r, c)
}

func (t *Topics) ensure(ctx context.Context, r *client.Reader, c Config) error {
	for topic := range c.Topics {
		dead, err := ensure(ctx, r, c, topic)
		if err != nil {
			return err
		}
		if dead.partitions > 0 {
			t.names[topic] = dead
		}
	}
	return nil
}

// lettersBytes is the largest batch of letters. Larger ones are hardly faster, and few topics have a smaller limit.
const lettersBytes = 64 << 10

// producer returns the producer for a topic with a limit; 0 means that the limit is not known, so that each letter is sent alone.
func (t *Topics) producer(limit int) (*client.Producer, error) {
	size := client.BatchSize(min(limit, lettersBytes))
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.producers[size]; p != nil {
		return p, nil
	}
	p, err := client.OpenProducer(t.writing, min(limit, lettersBytes), t.Trouble)
	if err != nil {
		return nil, err
	}
	t.producers[size] = p
	t.work.Go(func() { t.drain(p) })
	return p, nil
}

// drain receives a producer's events, because the producer blocks when they fill its channel.
func (t *Topics) drain(p *client.Producer) {
	for event := range p.Events() {
		if err, ok := event.(kafka.Error); ok {
			t.Trouble.Event(err)
		}
	}
}

// follow reads the entries of the partitions.
func (t *Topics) follow() {
	for {
		select {
		case <-t.closing:
			return
		default:
		}
		switch event := t.reader.Poll(int(client.PollFor.Milliseconds())).(type) {
		case *kafka.Message:
			if p := t.partition(event.TopicPartition); p != nil {
				p.add(event)
			}
		case kafka.PartitionEOF:
			if p := t.partition(kafka.TopicPartition(event)); p != nil {
				p.reachedEnd(int64(event.Offset))
			}
		case kafka.Error:
			t.failed(event)
		}
	}
}

// failed ends the run if librdkafka cannot recover from an error. No partition would be handled: all wait until it is known what
// is parked.
func (t *Topics) failed(err kafka.Error) {
	missing := client.Missing(context.Background(), t.reader.Admin, kafka.ACLOperationRead, err, t.topics()...)
	switch final := client.Final(missing); {
	case err.Code() == kafka.ErrAutoOffsetReset:
		t.Fail(fmt.Errorf("kafka: consumer %s: dead-letter topic: %w: parked records were deleted; set the group's offsets there", t.Group, err))
	case final != nil:
		t.Fail(fmt.Errorf("kafka: consumer %s: dead-letter topic: %w", t.Group, client.WithPrincipal(final, t.Client)))
	case err.IsFatal():
		t.Fail(fmt.Errorf("kafka: consumer %s: dead-letter topic: %w", t.Group, err))
	default:
		t.Trouble.Event(err)
	}
}

func (t *Topics) partition(p kafka.TopicPartition) *Partition {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.partitions[client.PartitionOf(p)]
}

// Of returns the dead-letter partition of a partition, if it has one.
func (t *Topics) Of(p client.Partition) (client.Partition, bool) {
	if t == nil || p.Number >= t.names[p.Topic].partitions {
		return client.Partition{}, false
	}
	return client.Partition{Topic: Topic(p.Topic, t.Group), Number: p.Number}, true
}

// topics returns the names of the dead-letter topics.
func (t *Topics) topics() (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := range t.partitions {
		if !slices.Contains(names, p.Topic) {
			names = append(names, p.Topic)
		}
	}
	return names
}

// Grow makes sure that partitions have dead-letter partitions: their topic may have grown since the run began. Without Park a new
// partition needs none, because nothing of it is parked.
func (t *Topics) Grow(ctx context.Context, r *client.Reader, list []kafka.TopicPartition) error {
	if t == nil || !t.Park {
		return nil
	}
	for _, of := range list {
		dead := t.names[*of.Topic]
		if dead.partitions == 0 || of.Partition < dead.partitions {
			continue
		}
		name := Topic(*of.Topic, t.Group)
		if err := grow(ctx, r, name, of.Partition+1); err != nil {
			return err
		}
		dead.partitions = of.Partition + 1
		t.names[*of.Topic] = dead
		t.Log.Info("kafka: dead-letter topic has grown with its topic", "topic", name, "partitions", of.Partition+1)
	}
	return nil
}

// Follow begins to read the entries of a partition at an offset, a negative one meaning the oldest. It returns nil if the
// partition has no dead-letter partition. Until Loaded, the caller must not handle messages of the partition.
func (t *Topics) Follow(of client.Partition, begin kafka.Offset, requests func(Request)) (*Partition, error) {
	name, ok := t.Of(of)
	if !ok {
		return nil, nil
	}
	producer, err := t.producer(t.names[of.Topic].limit)
	if err != nil {
		return nil, err
	}
	p := newPartition(t, producer, name, int64(begin), requests)
	t.mu.Lock()
	t.partitions[name] = p
	t.mu.Unlock()
	at := name.At(int64(begin))
	if begin < 0 {
		at.Offset = kafka.OffsetBeginning
	}
	if err := t.reader.IncrementalAssign([]kafka.TopicPartition{at}); err != nil {
		return nil, fmt.Errorf("read %v: %w", name, err)
	}
	return p, nil
}

// Forget stops reading the entries of a partition.
func (t *Topics) Forget(p *Partition) {
	if p == nil {
		return
	}
	t.mu.Lock()
	delete(t.partitions, p.Partition)
	t.mu.Unlock()
	if err := t.reader.IncrementalUnassign([]kafka.TopicPartition{p.At(0)}); err != nil {
		t.Log.Warn("kafka: cannot unassign a dead-letter partition", "partition", p.String(), "err", err)
	}
}

// read reads entries of a dead-letter partition.
func (t *Topics) read(ctx context.Context, p client.Partition, offsets []int64) iter.Seq2[*kafka.Message, error] {
	return client.ReadOffsets(ctx, t.reading, t.Trouble, p, offsets)
}

// Close closes the clients. No writer may be in use.
func (t *Topics) Close() {
	if t == nil {
		return
	}
	close(t.closing)
	for _, p := range t.producers {
		p.Close()
	}
	t.work.Wait()
	if err := t.reader.Close(); err != nil {
		t.Log.Warn("kafka: cannot close the reader of the dead-letter topic", "err", err)
	}
}
