// Package feed reads topics as the source of projections and reactions: each partition is a shard.
package feed

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
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

// Config is the settings of a [Source].
type Config struct {
	Client      client.Cluster
	Topics      []string
	Stores      []string
	Oldest      bool
	Compacted   bool // accept topics that drop records
	SkipForeign bool
	Deduplicate bool
	Group       string
	Log         *slog.Logger
}

// Source reads topics. All methods may be called from several goroutines.
type Source struct {
	Config
	reading client.ConfigMap // of the clients
	id      string
	topics  map[string]client.Topic
	client  *client.Reader // for questions and commits; see handle
	cancel  context.CancelFunc
	work    sync.WaitGroup
	watch   *client.Watch
	fitness *client.Fitness
	suspect chan struct{} // requests a check of the topics

	mu      sync.Mutex
	closed  bool
	broken  error // why no feed can continue
	feeds   map[*feed]struct{}
	handles map[*handle]struct{}
	applied map[client.Partition]int64 // to be committed
}

// Open connects to the cluster and looks up the topics.
func Open(ctx context.Context, c Config) (*Source, error) {
	s := &Source{
		Config: c, suspect: make(chan struct{}, 1), feeds: make(map[*feed]struct{}), handles: make(map[*handle]struct{}), applied: make(map[client.Partition]int64),
	}
	group := c.Group
	if group == "" {
		group = "es-source" // librdkafka requires one
	}
	var err error
	if s.reading, err = client.ReaderConfig(c.Client, group); err != nil {
		return nil, err
	}
	if s.client, err = client.OpenReader(s.reading, client.NewTrouble(s.Client, s.Log, nil)); err != nil {
		return nil, err
	}
	if s.topics, err = s.client.Describe(ctx, c.Topics...); err != nil {
		_ = s.client.Close() // the first error says more
		return nil, client.WithPrincipal(err, c.Client)
	}
	s.fitness = &client.Fitness{Reader: s.client, Check: s.fits}
	if err := s.fit(ctx); err != nil {
		_ = s.client.Close()
		return nil, err
	}
	s.id = s.identity()
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	s.watch = &client.Watch{Reader: s.client, Topics: maps.Clone(s.topics), Log: s.Log, Changed: s.changed, Gone: s.gone, Fit: s.fit, Unfit: s.fail, Soon: s.suspect}
	s.work.Go(func() { s.watch.Run(background) })
	if c.Group != "" {
		s.work.Go(func() { s.commitPeriodically(background) })
	}
	return s, nil
}

// fit checks that the topics keep all their records, and their times if duplicates are found by them.
func (s *Source) fit(ctx context.Context) error {
	return s.fitness.Of(ctx, slices.Sorted(maps.Keys(s.topics))...)
}

func (s *Source) fits(topic string, settings client.Settings) error {
	switch {
	case s.Deduplicate && settings.AppendTime():
		return client.Invalid("topic %s has message.timestamp.type=LogAppendTime: set it to CreateTime, or Deduplicate to false", topic)
	case s.Compacted:
		return nil
	}
	return client.KeepsRecords(topic, settings)
}

// identity names the topics with their ids and numbers of partitions, so that a topic differs that was created again or has grown.
func (s *Source) identity() string {
	names := slices.Sorted(slices.Values(s.Topics))
	for i, name := range names {
		names[i] = fmt.Sprintf("%s/%d@%s", name, s.topics[name].Partitions, s.topics[name].ID)
	}
	return "kafka:" + strings.Join(names, ",")
}

// ID implements [projection.Source].
func (s *Source) ID() string { return s.id }

// Shards implements [projection.Source].
func (s *Source) Shards(context.Context, int) ([]string, error) {
	var names []string
	for _, topic := range slices.Sorted(slices.Values(s.Topics)) {
		for i := range s.topics[topic].Partitions {
			names = append(names, shardName(client.Partition{Topic: topic, Number: i}))
		}
	}
	return names, nil
}

func shardName(p client.Partition) string { return p.Topic + "/" + strconv.Itoa(int(p.Number)) }

func (s *Source) parseShard(name string) (client.Partition, error) {
	topic, number, _ := strings.Cut(name, "/")
	n, err := strconv.ParseInt(number, 10, 32)
	if t, known := s.topics[topic]; err != nil || !known || n < 0 || int32(n) >= t.Partitions {
		return client.Partition{}, client.Invalid("%q is not a partition of this source; the first one is %s/0", name, s.Topics[0])
	}
	return client.Partition{Topic: topic, Number: int32(n)}, nil
}

// Feed implements [projection.Source].
func (s *Source) Feed(ctx context.Context, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
	p, err := s.parseShard(shard)
	if err != nil {
		return nil, err
	}
	low, high, err := s.client.Bounds(ctx, p)
	if err != nil {
		return nil, client.WithPrincipal(err, s.Client)
	}
	switch offset := int64(after); {
	case offset > high:
		return nil, truncated(p, offset, high)
	case offset == 0 && low > 0 && s.Oldest:
		after = projection.Cursor(low)
	case offset < low:
		return nil, client.Invalid("%v: retention deleted offsets %d to %d unread; republish, or Rebuild with Oldest", p, offset, low-1)
	}
	return s.open(p, int64(after), high, filter)
}

// truncated is the error for a checkpoint after the end of its partition.
func truncated(p client.Partition, offset, high int64) error {
	return fmt.Errorf("kafka: %v: the checkpoint is after the end of the partition: %w", p, &es.AheadError{After: es.Position(offset), Head: es.Position(high)})
}

func (s *Source) open(p client.Partition, offset, high int64, filter es.Filter) (*feed, error) {
	f := newFeed(s, p, offset, high, filter)
	if err := s.openFeed(f); err != nil {
		return nil, err
	}
	return f, nil
}

var errClosed = fmt.Errorf("kafka: source: %w", es.ErrClosed)

// Close closes the source. Its feeds must be closed first.
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

// fail ends all feeds with an error, also those opened later.
func (s *Source) fail(err error) {
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
		s.fail(client.Invalid("topic %s was deleted and created again; see what is lost, then Rebuild or raise the Version", c.Topic))
		return
	}
	s.fail(client.Invalid("topic %s has grown from %d to %d partitions, streams lose their order; use another topic",
		c.Topic, c.Was.Partitions, c.Is.Partitions))
}

// gone ends all feeds because a topic is missing.
func (s *Source) gone(err error) { s.fail(fmt.Errorf("kafka: source: %w: %w", es.ErrInvalid, err)) }

// check checks the topics at once, and returns why no feed can continue, if so.
func (s *Source) check(ctx context.Context) error {
	if err := s.watch.Check(ctx); err != nil {
		s.Log.Warn("kafka: cannot check the topics", "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// checkSoon requests a check of the topics.
func (s *Source) checkSoon() {
	select {
	case s.suspect <- struct{}{}:
	default:
	}
}

// commitEvery is the interval of commits, which serve only tools that show lag.
const commitEvery = 5 * time.Second

func (s *Source) commitPeriodically(ctx context.Context) {
	ticker := time.NewTicker(commitEvery)
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
	for p, offset := range s.applied {
		at := p.At(offset)
		id := s.topics[p.Topic].ID
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
		s.Log.Warn("kafka: cannot commit offsets for tools that show lag", "group", s.Group, "err", err)
	}
}

// setApplied notes the offset up to which the read model has applied a partition.
func (s *Source) setApplied(p client.Partition, offset int64) {
	if s.Group == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied[p] = offset
}
