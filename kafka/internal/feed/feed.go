package feed

import (
	"cmp"
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
	batchBytes = 8 << 20               // limits a batch, approximately
	gather     = 10 * time.Millisecond // how long a batch waits for more messages, if there are more
)

// feed reads one partition. It shares its client with others; see handle.
type feed struct {
	client.Partition
	source *Source
	handle *handle
	queue
	paused  bool // the handle's lock guards it
	filter  es.Filter
	began   int64 // the offset at which the feed was opened
	next    int64 // everything below has been read
	end     int64 // of the partition, as far as known
	atEnd   bool  // Next has reported the end
	failed  chan error
	highest map[string]place // by store, see duplicate; nil without deduplication
	store   string           // of the records read
	refused error            // why the message at next ends the feed; what stands before it is delivered first
	foreign client.Sparse

	last time.Time // of the last record read

	mu      sync.Mutex
	stat    Stats
	handed  []handed       // batches that have not been applied, in order
	reading client.Waiting // the last record read, if there are others after it
}

func newFeed(s *Source, p client.Partition, offset, high int64, filter es.Filter) *feed {
	f := &feed{
		Partition: p, source: s, filter: filter, queue: queue{ready: make(chan struct{}, 1)},
		began: offset, next: offset, end: max(high, offset), failed: make(chan error, 1),
	}
	f.stat = Stats{Shard: shardName(p), Read: offset, Lag: client.Lag{End: f.end}}
	if s.Deduplicate {
		f.highest = make(map[string]place)
	}
	return f
}

// handed is a batch that Next has returned.
type handed struct {
	first client.Waiting
	upTo  int64
}

// reading is the batch that Next gathers.
type reading struct {
	batch    projection.Batch
	bytes    int
	messages int
	until    time.Time // how long to wait for more
}

// Next implements [projection.Feed].
func (f *feed) Next(ctx context.Context, most int) (projection.Batch, error) {
	defer f.progress()
	if f.refused != nil {
		return projection.Batch{}, f.refused
	}
	var r reading
	began := f.next
	for done := false; !done; {
		if err := f.err(ctx); err != nil {
			return projection.Batch{}, err
		}
		wait := f.wait(&r)
		event := f.nextEvent(ctx, wait)
		var err error
		if done, err = f.process(ctx, &r, event, most); err != nil {
			if f.next == began {
				return projection.Batch{}, err
			}
			f.refused, done = err, true
		}
		if event == nil && r.messages > 0 && (wait == 0 || !time.Now().Before(r.until)) {
			done = true
		}
	}
	f.end = max(f.end, f.next)
	r.batch.Next, r.batch.End = projection.Cursor(f.next), projection.Cursor(f.end)
	f.hand(r.batch)
	return r.batch, nil
}

// wait returns how long to poll.
func (f *feed) wait(r *reading) time.Duration {
	if r.messages == 0 {
		return client.PollFor
	}
	if wait := time.Until(r.until); wait > 0 && f.more() {
		return wait
	}
	return 0
}

// process processes an event, and reports whether the batch is complete.
func (f *feed) process(ctx context.Context, r *reading, event kafka.Event, most int) (done bool, err error) {
	switch event := event.(type) {
	case *kafka.Message:
		if r.messages++; r.messages == 1 {
			r.until = time.Now().Add(gather)
		}
		n, err := f.add(ctx, &r.batch, event)
		r.bytes += n
		return r.messages >= max(most, 1) || r.bytes >= batchBytes, err
	case kafka.PartitionEOF:
		// Control records may be between the last message and the end.
		if at := int64(event.Offset); at > f.next || !f.atEnd || r.messages > 0 {
			f.next, f.end, f.atEnd = max(f.next, at), at, true
			return true, nil
		}
	case kafka.Error:
		return false, f.check(ctx, event)
	}
	return false, nil
}

// err returns why the feed cannot continue, if so.
func (f *feed) err(ctx context.Context) error {
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

// more reports whether more messages will arrive soon. A single further offset is usually the control record of the
// transaction just read.
func (f *feed) more() bool {
	if f.end <= f.next+1 {
		if _, high, err := f.handle.reader.GetWatermarkOffsets(f.Topic, f.Number); err == nil {
			f.end = max(f.end, high)
		}
	}
	return f.end > f.next+1
}

// add adds a message to a batch, and returns its size.
func (f *feed) add(ctx context.Context, b *projection.Batch, m *kafka.Message) (int, error) {
	offset := int64(m.TopicPartition.Offset)
	if offset < f.next {
		return 0, nil // delivered twice
	}
	if !wire.Match(f.filter, m) {
		f.next = offset + 1
		return 0, nil
	}
	store, r, err := wire.Decode(m)
	if err != nil && f.source.SkipForeign && wire.Foreign(m) {
		f.next = offset + 1
		f.skipForeign(offset)
		return 0, nil
	}
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

// skipForeign counts a foreign message that is skipped, and logs it unless another was logged just before.
func (f *feed) skipForeign(offset int64) {
	f.mu.Lock()
	f.stat.Foreign++
	n := f.stat.Foreign
	f.mu.Unlock()
	if f.foreign.Due() {
		f.source.Log.Warn("kafka: foreign message skipped", "topic", f.Topic, "partition", f.Number, "offset", offset, "skipped", n)
	}
}

// expect returns an error for a record of another store.
func (f *feed) expect(store string, r es.Record) error {
	stores := f.source.Stores
	switch {
	case store == f.store:
		return nil
	case len(stores) > 0 && !slices.Contains(stores, store):
		return client.Invalid("%v: %s is of store %s, which Stores does not name", f.Partition, r.ID(), store)
	case len(stores) == 0 && f.store != "":
		return client.Invalid("%v: %s is of store %s, others of %s; name both in Stores", f.Partition, r.ID(), store, f.store)
	}
	f.store = store
	return nil
}

// check returns an error if one of librdkafka's errors ends the feed. It recovers from the others.
func (f *feed) check(ctx context.Context, err kafka.Error) error {
	switch err.Code() {
	case kafka.ErrAutoOffsetReset:
		return f.outOfRange(ctx)
	case kafka.ErrUnknownTopic, kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownPartition, kafka.ErrUnknownTopicID:
		f.source.checkSoon()
	}
	if err.Code() == kafka.ErrGroupAuthorizationFailed && f.source.Group == "" {
		return nil // librdkafka looks for the coordinator of a group that the feed does not join
	}
	failed := fmt.Errorf("kafka: read %v: %w", f.Partition, err)
	if err.IsFatal() {
		return failed
	}
	on := "topic " + f.Topic
	if err.Code() == kafka.ErrGroupAuthorizationFailed {
		on = "group " + f.source.Group
	}
	if final := cmp.Or(client.Denied(failed, "Read", on), client.Final(failed)); final != nil {
		return client.WithPrincipal(final, f.source.Client)
	}
	f.source.client.Trouble.Event(err)
	return nil
}

// outOfRange returns why the next offset does not exist.
func (f *feed) outOfRange(ctx context.Context) error {
	low, high, err := f.source.client.Bounds(ctx, f.Partition)
	if err != nil {
		return err
	}
	if err := f.source.check(ctx); err != nil {
		return err
	}
	if f.next > high {
		return truncated(f.Partition, f.next, high)
	}
	if f.next >= low {
		return f.handle.again(f) // it was about another partition of the client
	}
	return client.Invalid("%v: retention deleted offsets %d to %d unread; republish, and keep records longer", f.Partition, f.next, low-1)
}

// Applied implements [projection.Feed]. Offsets are committed later.
func (f *feed) Applied(upTo projection.Cursor) {
	f.mu.Lock()
	f.stat.Applied = int64(upTo)
	n := 0
	for n < len(f.handed) && f.handed[n].upTo <= int64(upTo) {
		n++
	}
	f.handed = f.handed[n:]
	f.mu.Unlock()
	f.source.setApplied(f.Partition, int64(upTo))
}

// Close implements [projection.Feed].
func (f *feed) Close() error {
	return f.source.closeFeed(f)
}
