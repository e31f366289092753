package kafka

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// A letterbox is what one partition of a dead-letter topic says, as far as it has been read.
// A nil letterbox has nothing and never will.
type letterbox struct {
	client.Partition
	letters *letters
	order   func(order) // told of orders as they come
	ready   chan struct{}

	mu        sync.Mutex
	keys      map[string]*held
	next      int64         // what follows the last letter that was read
	changed   chan struct{} // closed and replaced when next moves
	committed int64
}

// A held is a key that is parked.
type held struct {
	first, last int64 // letters: the first is not before first, the last is last
	letters     int   // about so many
	asked       order // that has not been answered
}

func newLetterbox(l *letters, t client.Partition, begin int64, orders func(order)) *letterbox {
	return &letterbox{
		Partition: t,
		letters:   l,
		order:     orders,
		ready:     make(chan struct{}),
		keys:      make(map[string]*held),
		changed:   make(chan struct{}),
		committed: begin,
	}
}

// loaded returns a channel that is closed when it is known what is parked.
func (b *letterbox) loaded() <-chan struct{} {
	if b == nil {
		ready := make(chan struct{})
		close(ready)
		return ready
	}
	return b.ready
}

// holds tells whether a key is parked.
func (b *letterbox) holds(key string) bool {
	_, ok := b.get(key)
	return ok
}

func (b *letterbox) get(key string) (held, bool) {
	if b == nil {
		return held{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.keys[key]
	if h == nil {
		return held{}, false
	}
	return *h, true
}

// parked returns how many keys are parked.
func (b *letterbox) parked() int {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.keys)
}

// take reads a letter.
func (b *letterbox) take(m *kafka.Message) {
	n, key := wire.ReadEntry(m), string(m.Key)
	b.mu.Lock()
	b.apply(n, key, int64(m.TopicPartition.Offset))
	b.mu.Unlock()
	if n.Kind == wire.EntryRetry || n.Kind == wire.EntryDrop {
		select {
		case <-b.ready:
			b.order(order{n.Kind, key, n.Of})
		default: // see atEnd
		}
	}
}

func (b *letterbox) apply(n wire.Entry, key string, at int64) {
	h := b.keys[key]
	switch {
	case n.Kind == wire.EntryParked || n.Kind == wire.EntryBehind:
		if h == nil {
			h = &held{first: at}
			b.keys[key] = h
		}
		h.last = at
		h.letters++
	case h == nil: // an answer to what somebody else has answered
	case n.Kind == wire.EntryDone && n.Of >= h.last:
		delete(b.keys, key)
	case n.Kind == wire.EntryDone:
		h.first = max(h.first, n.Of+1)
		h.letters = max(h.letters-1, 1)
		if h.asked.letter == n.Of {
			h.asked.kind = wire.EntryRetry // it was dropped
		}
	case n.Kind == wire.EntryTried:
		h.asked = order{}
	case n.Kind == wire.EntryRetry || n.Kind == wire.EntryDrop:
		h.asked = order{n.Kind, key, n.Of}
	}
	b.move(at + 1)
}

// move is called with the lock held.
func (b *letterbox) move(next int64) {
	if next > b.next {
		b.next = next
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

// atEnd notes that everything before an offset has been read. The first time, the partition may begin.
func (b *letterbox) atEnd(next int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.move(next)
	select {
	case <-b.ready:
		return
	default:
	}
	for _, h := range b.keys {
		if h.asked.kind != "" {
			b.order(h.asked)
		}
	}
	close(b.ready)
}

// await waits until a letter has been read.
func (b *letterbox) await(ctx context.Context, letter int64) error {
	for {
		b.mu.Lock()
		next, changed := b.next, b.changed
		b.mu.Unlock()
		if next > letter {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// uncommitted returns where a new owner has to begin to read, if that has moved.
func (b *letterbox) uncommitted() (next int64, moved bool) {
	if b == nil {
		return 0, false
	}
	select {
	case <-b.ready:
	default:
		return 0, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	next = b.next
	for _, h := range b.keys {
		next = min(next, h.first)
	}
	return next, next > b.committed
}

func (b *letterbox) setCommitted(next int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.committed = next
}

// read returns the parked messages of a key, in order.
func (b *letterbox) read(ctx context.Context, key string, h held) iter.Seq2[*kafka.Message, error] {
	return func(yield func(*kafka.Message, error) bool) {
		for m, err := range b.letters.read(ctx, b.Partition, h.first) {
			if err != nil {
				yield(nil, err)
				return
			}
			if kind := wire.ReadEntry(m).Kind; string(m.Key) == key && (kind == wire.EntryParked || kind == wire.EntryBehind) && !yield(m, nil) {
				return
			}
			if int64(m.TopicPartition.Offset) >= h.last {
				return
			}
		}
	}
}

// A post sends letters and waits for the broker to have them. It belongs to one goroutine.
type post struct {
	box     *letterbox
	answers chan kafka.Event
	sent    int
}

func (p *post) underWay() int { return p.sent }

// send sends a letter. The items come back from settle.
func (p *post) send(ctx context.Context, b *letterbox, m *kafka.Message, items ...item) error {
	if b == nil {
		return errors.New("there is none, for OnError was es.Stop when the run began")
	}
	if p.answers == nil {
		// There is room for all, so that the producer need not wait for a lane that has ended.
		p.box, p.answers = b, make(chan kafka.Event, mostUnderWay+2)
	}
	m.TopicPartition = b.At(int64(kafka.OffsetInvalid))
	m.Opaque = items
	for attempt := 0; ; attempt++ {
		err := b.letters.producer.Produce(m, p.answers)
		var full kafka.Error
		if errors.As(err, &full) && full.Code() == kafka.ErrQueueFull {
			if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("%v: %w", b, err)
		}
		p.sent++
		return nil
	}
}

// settle waits for everything that was sent, and returns the items of which the topic has the letters.
func (p *post) settle(ctx context.Context) (items []item, err error) {
	last := int64(-1)
	for p.sent > 0 {
		select {
		case event := <-p.answers:
			m, ok := event.(*kafka.Message)
			if !ok {
				continue
			}
			p.sent--
			if m.TopicPartition.Error != nil {
				err = fmt.Errorf("%v: %w", p.box, m.TopicPartition.Error)
				continue
			}
			last = max(last, int64(m.TopicPartition.Offset))
			items = append(items, m.Opaque.([]item)...)
		case <-ctx.Done():
			return items, ctx.Err()
		}
	}
	if err == nil && last >= 0 {
		err = p.box.await(ctx, last)
	}
	return items, err
}

// An order is what somebody asks for.
type order struct {
	kind   wire.EntryKind // retry or drop
	key    string
	letter int64
}
