package kafka

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
	"github.com/thalo-go/es/projection"
)

const (
	feedBytes  = 8 << 20               // that one batch has at most, more or less
	feedGather = 10 * time.Millisecond // that a batch waits for more, if there is more
)

// A feed reads one partition, with a client of its own: so one that stands still holds up no other, and what it fetches ahead is bounded.
type feed struct {
	client.Partition
	source *Source
	client *client.Reader
	filter es.Filter
	next   int64 // everything before it has been read
	end    int64
	told   bool // that the end was reached
	failed chan error
	seen   map[string]es.Position // of each store, the highest position; nil if nothing is dropped
	began  int64

	mu    sync.Mutex
	stat  SourceStats
	store string // that the records are of
	last  time.Time
}

// Next implements [projection.Feed].
func (f *feed) Next(ctx context.Context, most int) (projection.Batch, error) {
	var b projection.Batch
	bytes, read := 0, 0
	var limit time.Time
	defer func() { f.note() }()
	for {
		wait := client.PollFor
		if read > 0 {
			if wait = time.Until(limit); wait < 0 || !f.more() {
				wait = 0
			}
		}
		if err := f.trouble(ctx); err != nil {
			return projection.Batch{}, err
		}
		switch event := f.client.Poll(int(wait.Milliseconds())).(type) {
		case nil:
			if read > 0 && (wait == 0 || !time.Now().Before(limit)) {
				return f.batch(b), nil
			}
		case *kafka.Message:
			if read++; read == 1 {
				limit = time.Now().Add(feedGather)
			}
			n, err := f.take(ctx, &b, event)
			if err != nil {
				return projection.Batch{}, err
			}
			if bytes += n; read >= max(most, 1) || bytes >= feedBytes {
				return f.batch(b), nil
			}
		case kafka.PartitionEOF:
			// Control records stand between the last message and the end.
			at := int64(event.Offset)
			if at > f.next || !f.told || read > 0 {
				f.next, f.end, f.told = max(f.next, at), at, true
				return f.batch(b), nil
			}
		case kafka.Error:
			if err := f.explain(ctx, event); err != nil {
				return projection.Batch{}, err
			}
		}
	}
}

// trouble returns why the feed cannot go on.
func (f *feed) trouble(ctx context.Context) error {
	select {
	case err := <-f.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	default:
		return nil
	}
}

func (f *feed) fail(err error) {
	select {
	case f.failed <- err:
	default:
	}
}

func (f *feed) batch(b projection.Batch) projection.Batch {
	f.end = max(f.end, f.next)
	b.Next, b.End = projection.Cursor(f.next), projection.Cursor(f.end)
	return b
}

// more tells whether there is more to come soon. One offset more is as a rule the control record of the transaction that has just been read.
func (f *feed) more() bool {
	if f.end <= f.next+1 {
		if _, high, err := f.client.GetWatermarkOffsets(f.Topic, f.Number); err == nil {
			f.end = max(f.end, high)
		}
	}
	return f.end > f.next+1
}

// take adds a message to a batch, and returns how large it is.
func (f *feed) take(ctx context.Context, b *projection.Batch, m *kafka.Message) (int, error) {
	offset := int64(m.TopicPartition.Offset)
	if offset < f.next {
		return 0, nil // it was here before
	}
	if !wire.Match(f.filter, m) {
		f.next = offset + 1
		return 0, nil
	}
	store, r, err := Decode(m)
	if err != nil {
		return 0, err
	}
	if err := f.expect(store, r); err != nil {
		return 0, err
	}
	drop, err := f.duplicate(ctx, store, r, m)
	if err != nil {
		return 0, err
	}
	f.next = offset + 1
	f.last = r.Time
	if drop {
		return 0, nil
	}
	b.Records = append(b.Records, r)
	b.Cursors = append(b.Cursors, projection.Cursor(f.next))
	return wire.MemorySize(m), nil
}

// expect refuses records of another store.
func (f *feed) expect(store string, r es.Record) error {
	stores := f.source.Stores
	switch {
	case store == f.store:
		return nil
	case len(stores) > 0 && !slices.Contains(stores, store):
		return client.Invalid("%v: %s is of store %s, and expected are those of %q: give each store topics of its own, or name it in SourceConfig.Stores", f.Partition, r.ID(), store, stores)
	case len(stores) == 0 && f.store != "":
		return client.Invalid("%v: %s is of store %s, and those before of %s: give each store topics of its own, or name both in SourceConfig.Stores", f.Partition, r.ID(), store, f.store)
	}
	f.store = store
	return nil
}

// explain tells what an error of librdkafka's means to the feed. It mends most of them itself.
func (f *feed) explain(ctx context.Context, err kafka.Error) error {
	switch err.Code() {
	case kafka.ErrAutoOffsetReset:
		low, high, ask := f.source.bounds(ctx, f.Partition)
		if ask != nil {
			return ask
		}
		if broken := f.source.check(ctx); broken != nil {
			return broken
		}
		if f.next > high {
			return fmt.Errorf("kafka: %v has lost its end: %w", f.Partition, &es.AheadError{After: es.Position(f.next), Head: es.Position(high)})
		}
		return client.Invalid("%v: retention has deleted the records from offset %d to %d before they were read: fill a topic anew by a relay and build the read model from that, and give it a longer retention", f.Partition, f.next, low-1)
	case kafka.ErrUnknownTopic, kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownPartition, kafka.ErrUnknownTopicID:
		f.source.doubt()
	case kafka.ErrTopicAuthorizationFailed:
		return fmt.Errorf("kafka: read %v: %w; give the user the right to read it", f.Partition, err)
	}
	if err.IsFatal() {
		return fmt.Errorf("kafka: read %v: %w", f.Partition, err)
	}
	f.source.log.Warn("kafka: trouble, librdkafka goes on", "partition", f.String(), "error", err, "code", err.Code().String())
	return nil
}

// Applied implements [projection.Feed]. The offset is committed later, by and by.
func (f *feed) Applied(upTo projection.Cursor) {
	f.mu.Lock()
	f.stat.Applied = int64(upTo)
	f.mu.Unlock()
	if f.source.Group != "" {
		f.source.mu.Lock()
		f.source.applied[f.Partition] = int64(upTo)
		f.source.mu.Unlock()
	}
}

// Close implements [projection.Feed].
func (f *feed) Close() error {
	f.source.mu.Lock()
	delete(f.source.feeds, f)
	f.source.mu.Unlock()
	return f.client.Close()
}

// note remembers how the feed stands, for those who ask while it reads.
func (f *feed) note() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stat.Read, f.stat.End = f.next, f.end
	f.stat.Behind = 0
	if f.next < f.end && !f.last.IsZero() {
		f.stat.Behind = time.Since(f.last).Seconds()
	}
}

func (f *feed) stats() SourceStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stat
	s.Shard = shardName(f.Partition)
	s.Lag = s.End - s.Applied
	if s.Applied < 0 {
		s.Lag = s.End - f.began
	}
	return s
}
