package kafka

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// bufferBytes is how many bytes of messages a partition holds in memory, more or less.
const bufferBytes = 8 << 20

// A partition is the work on one partition for as long as it is ours: lanes, each with the messages of some keys, in order.
type partition struct {
	client.Partition
	r         *consumption
	log       *slog.Logger
	letterbox *letterbox // nil if nothing is ever parked
	lanes     []*lane
	paused    bool          // the polling goroutine's
	room      chan struct{} // has something when the buffer may have room

	ctx      context.Context // of the handlers
	cancel   context.CancelFunc
	stopping chan struct{} // closed when the lanes are to take nothing more
	once     sync.Once
	work     sync.WaitGroup

	mu        sync.Mutex // guards what follows, and the queues of the lanes
	offsets   offsets
	seen      int64 // what follows the last message that came
	committed int64
	messages  int // in the buffer or being handled
	bytes     int
	end       int64 // of the partition, as far as is known
	counts    counts
}

// counts are for those who watch.
type counts struct {
	handled, retried, filtered, parked int64
}

// A lane handles messages one after the other.
type lane struct {
	queue []item
	wake  chan struct{}
}

// An item is a message, or if it has none the order to try what is parked under a key.
type item struct {
	m      *kafka.Message
	number uint64
	order  order
}

func newPartition(ctx context.Context, r *consumption, t client.Partition) *partition {
	p := &partition{
		Partition: t,
		r:         r,
		log:       r.log.With("topic", t.Topic, "partition", t.Number),
		room:      make(chan struct{}, 1),
		stopping:  make(chan struct{}),
		committed: -1,
		end:       -1,
	}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for range max(r.Workers, 1) {
		p.lanes = append(p.lanes, &lane{wake: make(chan struct{}, 1)})
	}
	return p
}

// start lets the lanes work, as soon as it is known what is parked.
func (p *partition) start() {
	for _, l := range p.lanes {
		p.work.Go(func() {
			select {
			case <-p.letterbox.loaded():
			case <-p.stopping:
				return
			}
			p.run(l)
		})
	}
}

// stop ends the work: what is being handled may go on for the time of grace. It returns when no handler runs any more.
func (p *partition) stop(grace time.Duration) {
	p.once.Do(func() { close(p.stopping) })
	if grace > 0 {
		done := make(chan struct{})
		go func() {
			p.work.Wait()
			close(done)
		}()
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
			p.log.Warn("kafka: a handler takes longer than Drain: its context ends", "drain", grace)
		}
	}
	p.cancel()
	p.work.Wait()
}

func (p *partition) laneOf(key []byte) *lane {
	if len(p.lanes) == 1 {
		return p.lanes[0]
	}
	h := fnv.New32a()
	_, _ = h.Write(key) // a hash has no error
	return p.lanes[h.Sum32()%uint32(len(p.lanes))]
}

// push takes a message in.
func (p *partition) push(m *kafka.Message) {
	offset := int64(m.TopicPartition.Offset)
	wanted := wire.Match(p.r.Filter, m)
	l := p.laneOf(m.Key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if offset < p.seen {
		return // it was here before
	}
	p.seen = offset + 1
	switch {
	case offset < p.offsets.next:
		// Never yet seen, and it must not be: what is believed to be the end of a partition would hide records.
		p.r.fail(fmt.Errorf("kafka: consumer %s: %v came after the end of its partition was reported to be %d; start again", p.r.Group, m.TopicPartition, p.offsets.next))
	case !wanted:
		p.counts.filtered++
		p.offsets.skip(offset + 1)
	default:
		p.messages++
		p.bytes += wire.MemorySize(m)
		l.push(item{m: m, number: p.offsets.take(offset, m.Timestamp)})
	}
}

// push is called with the partition's lock held.
func (l *lane) push(it item) {
	l.queue = append(l.queue, it)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// order lets a lane try what is parked under a key.
func (p *partition) order(o order) {
	l := p.laneOf([]byte(o.key))
	p.mu.Lock()
	defer p.mu.Unlock()
	l.push(item{order: o})
}

// reached notes that everything before an offset has come.
func (p *partition) reached(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offsets.skip(offset)
	p.end = max(p.end, offset)
}

func (p *partition) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages >= cmp.Or(p.r.Buffer, DefaultBuffer) || p.bytes >= bufferBytes
}

func (p *partition) roomy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages <= cmp.Or(p.r.Buffer, DefaultBuffer)/2 && p.bytes <= bufferBytes/2
}

// uncommitted returns the offset to commit, if there is a new one.
func (p *partition) uncommitted() (next int64, moved bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next = p.offsets.upTo()
	return next, next > p.committed && next > 0
}

func (p *partition) setCommitted(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = next
}

// run handles what comes to a lane.
func (p *partition) run(l *lane) {
	w := &worker{partition: p}
	defer w.settle() // what was sent counts, if there is time
	for {
		it, ok := p.next(l)
		if !ok {
			if ok = w.settle(); ok {
				it, ok = p.await(l)
			}
		}
		if !ok || !w.do(it) {
			return
		}
	}
}

// next returns the next item of a lane, if there is one.
func (p *partition) next(l *lane) (it item, ok bool) {
	select {
	case <-p.stopping:
		return item{}, false
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(l.queue) == 0 {
		return item{}, false
	}
	it = l.queue[0]
	l.queue[0] = item{} // for the garbage collector
	l.queue = l.queue[1:]
	return it, true
}

// await waits for the next item of a lane; there is none if the work ends.
func (p *partition) await(l *lane) (item, bool) {
	for {
		select {
		case <-p.stopping:
			return item{}, false
		case <-l.wake:
		}
		if it, ok := p.next(l); ok {
			return it, true
		}
	}
}

// done notes that messages were handled or parked.
func (p *partition) done(items ...item) {
	p.mu.Lock()
	for _, it := range items {
		p.offsets.done(it.number)
		p.messages--
		p.bytes -= wire.MemorySize(it.m)
	}
	p.mu.Unlock()
	select {
	case p.room <- struct{}{}:
	default:
	}
}

func (p *partition) count(f func(*counts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.counts)
}

// call runs a handler and turns its panic into an error.
func call(ctx context.Context, handle func(context.Context, es.Record) error, r es.Record) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &es.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return handle(ctx, r)
}

func (p *partition) failure(m *kafka.Message, r es.Record, err error) error {
	return &ConsumerError{p.r.Group, p.Topic, p.Number, int64(m.TopicPartition.Offset), string(m.Key), r, err}
}
