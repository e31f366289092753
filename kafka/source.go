package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/projection"
)

// SourceConfig says which topics a [Source] reads, and how.
type SourceConfig struct {
	// Cluster is where the topics are.
	Cluster Cluster

	// Topics are read. They must be there. To add one is to have another source: raise the projection's Version.
	Topics []string

	// Stores are the ids of the stores whose records are expected; those of another end the run. Empty means that all records of a partition
	// must be of one store, whichever that is.
	Stores []string

	// Oldest lets a read model that has nothing yet begin with the oldest record that is there, if retention has deleted the first ones.
	// Otherwise that is an error, for the read model would not have them.
	Oldest bool

	// Deduplicate drops records that stand in the topic more than once, as they may if an AtLeastOnce relay wrote it. It is exact if one relay
	// of each store writes to the topic, the messages have the records' time (message.timestamp.type=CreateTime), and retention has not taken
	// away the first of two while the second is still to be read. A restart of a feed costs two questions to the broker.
	Deduplicate bool

	// Group, if not empty, names a consumer group to which is written now and then how far the read model has come, for tools that show lag.
	// Nobody reads it, and no consumer must use it.
	Group string

	// Logger hears what librdkafka says. nil means nobody does.
	Logger *slog.Logger
}

// A Source is topics as the [projection.Source] of projections and reactions: each partition is a shard. So a read model in a database of one's own is fed
// exactly once, for the checkpoint of each shard, which is the next offset, moves in the transaction of the read model.
//
// There is no consumer group: the database with the read model says who reads which partition. All methods may be called from many goroutines.
type Source struct {
	SourceConfig
	log    *slog.Logger
	id     string
	topics map[string]client.Topic
	client *client.Reader // for questions and commits; each feed has another one
	cancel context.CancelFunc
	work   sync.WaitGroup
	watch  client.Watch
	look   chan struct{} // asks for a look at the topics

	mu      sync.Mutex
	closed  bool
	broken  error // why no feed can go on
	feeds   map[*feed]struct{}
	applied map[client.Partition]int64 // to be committed
}

var _ projection.Source = (*Source)(nil)

// Open connects to the cluster and sees what the topics are. The source must be closed, after everything that reads it has ended.
// Its error wraps [es.ErrInvalid] or is a [*NoTopicError] if the configuration is wrong.
func (c SourceConfig) Open(ctx context.Context) (*Source, error) {
	if len(c.Topics) == 0 {
		return nil, client.Invalid("a source has no Topics: name those to read")
	}
	s := &Source{
		SourceConfig: c, log: client.Logger(c.Logger), look: make(chan struct{}, 1),
		feeds: make(map[*feed]struct{}), applied: make(map[client.Partition]int64),
	}
	config, err := s.config()
	if err != nil {
		return nil, err
	}
	if s.client, err = client.OpenReader(config, s.log); err != nil {
		return nil, err
	}
	if s.topics, err = s.client.Describe(ctx, c.Topics...); err != nil {
		_ = s.client.Close() // the first error says more
		return nil, err
	}
	s.id = s.identity()
	s.watch = client.Watch{Reader: s.client, Topics: s.topics, Log: s.log, Changed: s.changed, Gone: s.gone, Soon: s.look}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	s.work.Go(func() { s.watch.Run(background) })
	if c.Group != "" {
		s.work.Go(func() { s.commitNowAndThen(background) })
	}
	return s, nil
}

func (s *Source) config() (ConfigMap, error) {
	return client.ReaderConfig(s.Cluster.Config, cmp.Or(s.Group, "es-source"))
}

// identity names the topics as they are: made again, or with more partitions, they are other topics.
func (s *Source) identity() string {
	names := slices.Sorted(slices.Values(s.Topics))
	for i, name := range names {
		names[i] = fmt.Sprintf("%s/%d@%s", name, s.topics[name].Partitions, s.topics[name].ID)
	}
	return "kafka:" + strings.Join(names, ",")
}

// ID implements [projection.Source]. It has names, numbers of partitions and ids of the topics: a checkpoint of a topic that was since deleted and made
// again is refused, and so is one of a topic that has grown, for then the records of a stream may be in two partitions.
func (s *Source) ID() string { return s.id }

// Shards implements [projection.Source]. The shards are the partitions, such as bank.account/0.
func (s *Source) Shards(context.Context, int) ([]string, error) {
	var names []string
	for _, topic := range slices.Sorted(slices.Values(s.Topics)) {
		for i := range s.topics[topic].Partitions {
			names = append(names, shardName(client.Partition{Topic: topic, Number: int32(i)}))
		}
	}
	return names, nil
}

func shardName(t client.Partition) string { return t.Topic + "/" + strconv.Itoa(int(t.Number)) }

func (s *Source) parseShard(name string) (client.Partition, error) {
	topic, number, _ := strings.Cut(name, "/")
	n, err := strconv.ParseInt(number, 10, 32)
	if t, known := s.topics[topic]; err != nil || !known || n < 0 || int32(n) >= t.Partitions {
		return client.Partition{}, client.Invalid("%q is no partition of this source: they are called %s/0 and so on", name, s.Topics[0])
	}
	return client.Partition{Topic: topic, Number: int32(n)}, nil
}

// Feed implements [projection.Source].
func (s *Source) Feed(ctx context.Context, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
	t, err := s.parseShard(shard)
	if err != nil {
		return nil, err
	}
	low, high, err := s.bounds(ctx, t)
	if err != nil {
		return nil, err
	}
	switch offset := int64(after); {
	case offset > high:
		return nil, fmt.Errorf("kafka: %v: the checkpoint is beyond the end of the partition, which has lost its end or was copied from elsewhere: %w",
			t, &es.AheadError{After: es.Position(offset), Head: es.Position(high)})
	case offset == 0 && low > 0 && s.Oldest:
		after = projection.Cursor(low)
	case offset < low:
		return nil, client.Invalid("%v: retention has deleted the records from offset %d to %d, which the read model does not have: "+
			"fill a topic anew by a relay and build the read model from that; or, for one that may begin with what is there, Rebuild it with SourceConfig.Oldest", t, offset, low-1)
	}
	return s.open(t, int64(after), high, filter)
}

// bounds returns the offsets of the first message of a partition and behind the last one that is committed.
func (s *Source) bounds(ctx context.Context, t client.Partition) (low, high int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	err = s.client.Call("ask for the end of "+t.String(), func() (err error) {
		low, high, err = s.client.QueryWatermarkOffsets(t.Topic, t.Number, int((client.AskFor - time.Second).Milliseconds()))
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("kafka: the bounds of %v: %w", t, err)
	}
	return low, high, nil
}

func (s *Source) open(t client.Partition, offset, high int64, filter es.Filter) (*feed, error) {
	config, err := s.config()
	if err != nil {
		return nil, err
	}
	client, err := client.OpenReader(config, s.log)
	if err != nil {
		return nil, err
	}
	f := &feed{Partition: t, source: s, client: client, filter: filter, next: offset, end: max(high, offset), failed: make(chan error, 1)}
	f.stat = SourceStats{Applied: -1, Read: offset, End: f.end}
	f.began = offset
	if s.Deduplicate {
		f.seen = make(map[string]es.Position)
	}
	if err := client.Assign([]kafka.TopicPartition{t.At(offset)}); err != nil {
		return nil, errors.Join(fmt.Errorf("kafka: read %v: %w", t, err), client.Close())
	}
	s.mu.Lock()
	err = s.broken
	if s.closed {
		err = fmt.Errorf("kafka: source: %w", es.ErrClosed)
	}
	if err == nil {
		s.feeds[f] = struct{}{}
	}
	s.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return f, nil
}

// Close ends the source. Feeds must be closed before.
func (s *Source) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.cancel()
	s.work.Wait()
	return s.client.Close()
}

// spoil ends all feeds with an error, now and later.
func (s *Source) spoil(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
	for f := range s.feeds {
		f.fail(err)
	}
}

// changed ends all feeds because a topic is not what it was.
func (s *Source) changed(c client.Change) {
	if c.Recreated() {
		s.spoil(client.Invalid("topic %s was deleted and created again, its id is %s and not %s: see what is lost, then start again with Rebuild or another Version", c.Topic, c.Is.ID, c.Was.ID))
		return
	}
	s.spoil(client.Invalid("topic %s has grown from %d to %d partitions, so that the records of a stream may be in two of them, in any order: "+
		"let a relay fill another topic that has them from the beginning, and build the read model from that", c.Topic, c.Was.Partitions, c.Is.Partitions))
}

// gone ends all feeds because a topic does not exist any more.
func (s *Source) gone(err error) { s.spoil(fmt.Errorf("kafka: source: %w: %w", es.ErrInvalid, err)) }

// check describes the topics at once, and returns why no feed can go on, if that is so.
func (s *Source) check(ctx context.Context) error {
	_ = s.watch.Check(ctx) // if it cannot tell, the caller's own error counts
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// doubt asks for a look at the topics.
func (s *Source) doubt() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// commitEveryNow is how often offsets are committed that nobody waits for.
const commitEveryNow = 5 * time.Second

func (s *Source) commitNowAndThen(ctx context.Context) {
	ticker := time.NewTicker(commitEveryNow)
	defer ticker.Stop()
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-ticker.C:
		}
		s.commit()
	}
}

func (s *Source) commit() {
	s.mu.Lock()
	var offsets []kafka.TopicPartition
	for t, offset := range s.applied {
		at := t.At(offset)
		id := s.topics[t.Topic].ID
		at.Metadata = &id
		offsets = append(offsets, at)
	}
	clear(s.applied)
	s.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	err := s.client.Call("commit", func() error {
		_, err := s.client.CommitOffsets(offsets)
		return err
	})
	if err != nil {
		s.log.Warn("kafka: cannot commit offsets, which only tools that show lag need", "group", s.Group, "error", err)
	}
}

// Stats tells how the feeds stand that are open in this process, sorted by shard.
func (s *Source) Stats() []SourceStats {
	s.mu.Lock()
	feeds := make([]*feed, 0, len(s.feeds))
	for f := range s.feeds {
		feeds = append(feeds, f)
	}
	s.mu.Unlock()
	all := make([]SourceStats, 0, len(feeds))
	for _, f := range feeds {
		all = append(all, f.stats())
	}
	slices.SortFunc(all, func(a, b SourceStats) int { return strings.Compare(a.Shard, b.Shard) })
	return all
}

// SourceStats is how one feed of a [Source] stands.
type SourceStats struct {
	Shard   string
	Applied int64   // the offset up to which the read model has everything; -1 if nothing was applied since the feed began
	Read    int64   // the offset up to which the feed has read
	End     int64   // of the partition, as far as is known
	Lag     int64   // offsets between Applied, or if there is none where the feed began, and End. Control records have offsets too: it is no count of records
	Behind  float64 // seconds since the last record read was written, if the feed is not at the end; 0 if it is
	Dropped int64   // records that were there twice
}
