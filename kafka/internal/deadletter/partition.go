package deadletter

import (
	"context"
	"iter"
	"slices"
	"sort"
	"sync"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// Partition follows one partition of a dead-letter topic and knows which keys are parked.
// A nil Partition is empty and stays so.
type Partition struct {
	client.Partition
	topics   *Topics
	producer *client.Producer // of all letters of the partition, so that they stay in order
	requests func(Request)    // called with each request
	loaded   chan struct{}    // closed when the partition has been read to its end once

	mu        sync.Mutex
	keys      map[string]*Key
	next      int64         // the offset after the last entry read
	moved     chan struct{} // closed and replaced when next moves
	committed int64
}

// Key is the state of a parked key.
type Key struct {
	Letters []int64 // the offsets of its parked messages
	request Request
}

// Request asks the owner of a partition to try the parked messages of a key again. The zero Request means that there is none.
type Request struct {
	Kind wire.EntryKind // Retry or Drop
	Key  string
	Of   int64 // the entry to drop
}

func newPartition(topics *Topics, producer *client.Producer, p client.Partition, begin int64, requests func(Request)) *Partition {
	return &Partition{
		Partition: p,
		topics:    topics,
		producer:  producer,
		requests:  requests,
		loaded:    make(chan struct{}),
		keys:      make(map[string]*Key),
		moved:     make(chan struct{}),
		committed: begin,
	}
}

// Loaded returns a channel that is closed when it is known which keys are parked.
func (p *Partition) Loaded() <-chan struct{} {
	if p == nil {
		loaded := make(chan struct{})
		close(loaded)
		return loaded
	}
	return p.loaded
}

// Parked reports whether a key is parked.
func (p *Partition) Parked(key string) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys[key] != nil
}

// Letters returns the offsets of the parked messages of a key; none if it is not parked. The caller must not change them.
func (p *Partition) Letters(key string) []int64 {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.keys[key]; k != nil {
		return slices.Clip(k.Letters)
	}
	return nil
}

// Keys returns the number of parked keys.
func (p *Partition) Keys() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.keys)
}

// add processes an entry that was read.
func (p *Partition) add(m *kafka.Message) {
	e, key := wire.ReadEntry(m), string(m.Key)
	p.mu.Lock()
	p.apply(e, key, int64(m.TopicPartition.Offset))
	p.mu.Unlock()
	if e.Kind == wire.EntryRetry || e.Kind == wire.EntryDrop {
		select {
		case <-p.loaded:
			p.requests(Request{e.Kind, key, e.Of})
		default: // reachedEnd passes it on
		}
	}
}

// apply is called with the lock held.
func (p *Partition) apply(e wire.Entry, key string, offset int64) {
	k := p.keys[key]
	switch {
	case e.Kind == wire.EntryParked || e.Kind == wire.EntryBehind:
		if k == nil {
			k = new(Key)
			p.keys[key] = k
		}
		k.Letters = append(k.Letters, offset)
	case k == nil: // about a key that is no longer parked
	case e.Kind == wire.EntryDone:
		handled := sort.Search(len(k.Letters), func(i int) bool { return k.Letters[i] > e.Of })
		if k.Letters = k.Letters[handled:]; len(k.Letters) == 0 {
			delete(p.keys, key)
		}
		if k.request.Of == e.Of {
			k.request.Kind = wire.EntryRetry // the entry to drop is gone
		}
	case e.Kind == wire.EntryTried:
		k.request = Request{}
	case e.Kind == wire.EntryRetry || e.Kind == wire.EntryDrop:
		k.request = Request{e.Kind, key, e.Of}
	}
	p.move(offset + 1)
}

// move is called with the lock held.
func (p *Partition) move(next int64) {
	if next > p.next {
		p.next = next
		close(p.moved)
		p.moved = make(chan struct{})
	}
}

// reachedEnd notes that all entries before an offset have been read. The first call passes on the pending requests.
func (p *Partition) reachedEnd(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.move(next)
	select {
	case <-p.loaded:
		return
	default:
	}
	for _, k := range p.keys {
		if k.request.Kind != "" {
			p.requests(k.request)
		}
	}
	close(p.loaded)
}

// await waits until an entry has been read.
func (p *Partition) await(ctx context.Context, entry int64) error {
	for {
		p.mu.Lock()
		next, moved := p.next, p.moved
		p.mu.Unlock()
		if next > entry {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Uncommitted returns the offset from which the next owner must read, and whether it is not committed yet.
func (p *Partition) Uncommitted() (next int64, moved bool) {
	if p == nil {
		return 0, false
	}
	select {
	case <-p.loaded:
	default:
		return 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next = p.next
	for _, k := range p.keys {
		next = min(next, k.Letters[0])
	}
	return next, next > p.committed
}

// SetCommitted notes that an offset was committed.
func (p *Partition) SetCommitted(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = next
}

// Messages reads parked messages by their offsets, which must be sorted.
func (p *Partition) Messages(ctx context.Context, offsets []int64) iter.Seq2[*kafka.Message, error] {
	return p.topics.read(ctx, p.Partition, offsets)
}
