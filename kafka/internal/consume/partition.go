package consume

import (
	"context"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/deadletter"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// bufferBytes limits the bytes of messages that a partition buffers, approximately.
const bufferBytes = 8 << 20

// partition handles the messages of one assigned partition, in lanes. Each lane handles the messages of some keys in order.
type partition struct {
	client.Partition
	r       *Run
	log     *slog.Logger
	letters *deadletter.Partition // nil if nothing is parked and nothing will be
	lanes   []*lane
	paused  bool          // used by the polling goroutine only
	drained chan struct{} // receives when the buffer may have capacity

	ctx      context.Context // of the handlers
	cancel   context.CancelFunc
	stopping chan struct{} // closed when the lanes must not begin with another message
	once     sync.Once
	work     sync.WaitGroup

	mu        sync.Mutex // guards the fields below and the queues of the lanes
	offsets   offsets
	seen      int64 // the offset after the last message received
	committed int64 // the last offset committed in this run; -1 if none
	initial   int64 // the group's offset when the partition was assigned
	messages  int   // buffered or being handled
	bytes     int   // of these messages
	end       int64 // of the partition; -1 if not known
	counts    counts
	refused   *RecordError // the first message that is not a record; it ends the run when all before it are done

	foreign   client.Sparse // used by the polling goroutine only
	problem   string        // the last error of a record or of its dead letter
	problemAt time.Time
}

// counts are totals since the partition was assigned.
type counts struct {
	handled, retried, filtered, foreign, parked int64
}

func newPartition(ctx context.Context, r *Run, at start) *partition {
	p := &partition{
		Partition: at.Partition,
		r:         r,
		log:       r.Log.With("topic", at.Topic, "partition", at.Number),
		drained:   make(chan struct{}, 1),
		stopping:  make(chan struct{}),
		committed: -1,
		initial:   at.committed,
		end:       -1,
	}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for range r.Workers {
		p.lanes = append(p.lanes, &lane{wake: make(chan struct{}, 1)})
	}
	return p
}

// start starts the lanes. They begin when it is known what is parked.
func (p *partition) start() {
	for _, l := range p.lanes {
		p.work.Go(func() {
			if p.awaitLetters() {
				p.run(l)
			}
		})
	}
}

// awaitLetters waits until it is known what is parked, and returns false when the partition stops before. It shows that it waits.
func (p *partition) awaitLetters() bool {
	ticker := time.NewTicker(client.AskFor)
	defer ticker.Stop()
	const waits = "the partition waits until its dead-letter partition has been read"
	for {
		select {
		case <-p.letters.Loaded():
			p.mu.Lock()
			if p.problem == waits {
				p.problem = ""
			}
			p.mu.Unlock()
			return true
		case <-p.stopping:
			return false
		case <-ticker.C:
		}
		p.log.Warn("kafka: partition waits until its dead-letter partition has been read", "topic", p.letters.Topic)
		p.mu.Lock()
		p.problem, p.problemAt = waits, time.Now()
		p.mu.Unlock()
	}
}

// stop stops the lanes and waits for them. Handlers that run longer than grace have their context canceled.
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
			p.log.Warn("kafka: a handler takes longer than Drain: its context is canceled", "drain", grace)
		}
	}
	p.cancel()
	p.work.Wait()
}

func (p *partition) lane(key []byte) *lane {
	if len(p.lanes) == 1 {
		return p.lanes[0]
	}
	h := fnv.New32a()
	_, _ = h.Write(key) // a hash returns no error
	return p.lanes[h.Sum32()%uint32(len(p.lanes))]
}

// add adds a message to its lane.
func (p *partition) add(m *kafka.Message) {
	offset := int64(m.TopicPartition.Offset)
	match := wire.Match(p.r.Filter, m)
	foreign := match && wire.Foreign(m)
	l := p.lane(m.Key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if offset < p.seen || p.refused != nil {
		return // delivered twice, or after the message before which the run stops
	}
	p.seen = offset + 1
	switch {
	case offset < p.offsets.next:
		// Should be impossible. If the reported end of a partition were wrong, records would be skipped.
		p.r.fail(p.r.errorf("%v arrived after its partition was reported to end at %d; restart", m.TopicPartition, p.offsets.next))
	case !match:
		p.counts.filtered++
		p.offsets.skip(offset + 1)
	case foreign && p.r.SkipForeign:
		p.counts.foreign++
		p.offsets.skip(offset + 1)
		if p.foreign.Due() {
			p.log.Warn("kafka: foreign message skipped", "offset", offset, "skipped", p.counts.foreign)
		}
	case foreign:
		_, _, err := wire.Decode(m)
		p.refuse(offset, err)
	default:
		p.messages++
		p.bytes += wire.MemorySize(m)
		l.add(item{m: m, number: p.offsets.add(offset, m.Timestamp)})
	}
}

// refuse ends the run before a message that is not a record, when the messages before it are done. The caller holds the lock.
func (p *partition) refuse(offset int64, err error) {
	if p.refused == nil || offset < p.refused.Offset {
		p.refused = &RecordError{Partition: p.Partition, Offset: offset, Err: err}
	}
	p.log.Error("kafka: the run stops before a message that is not a record", "offset", offset, "err", err)
	p.endIfRefused()
}

// endIfRefused ends the run if a message was refused and those before it are done. The caller holds the lock.
func (p *partition) endIfRefused() {
	if p.refused == nil {
		return
	}
	if oldest, ok := p.offsets.first(); !ok || oldest >= p.refused.Offset {
		p.r.fail(p.refused)
	}
}

// request adds a request to retry parked messages to the lane of their key.
func (p *partition) request(r deadletter.Request) {
	l := p.lane([]byte(r.Key))
	p.mu.Lock()
	defer p.mu.Unlock()
	l.add(item{request: r})
}

// reachedEnd notes that all messages before an offset have been received.
func (p *partition) reachedEnd(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offsets.skip(offset)
	p.end = max(p.end, offset)
}

// position returns the offset from which the partition is read on.
func (p *partition) position() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.offsets.next, p.initial)
}

func (p *partition) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages >= p.r.Buffer || p.bytes >= bufferBytes || p.refused != nil
}

func (p *partition) hasCapacity() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages <= p.r.Buffer/2 && p.bytes <= bufferBytes/2 && p.refused == nil
}

// uncommitted returns the offset to commit, and whether it has moved.
func (p *partition) uncommitted() (next int64, moved bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next = p.offsets.doneUpTo()
	return next, next > p.committed && next > 0
}

func (p *partition) setCommitted(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = next
}

// done marks messages as handled or parked.
func (p *partition) done(items ...item) {
	p.mu.Lock()
	for _, it := range items {
		p.offsets.done(it.number)
		p.messages--
		p.bytes -= wire.MemorySize(it.m)
	}
	p.endIfRefused()
	p.mu.Unlock()
	select {
	case p.drained <- struct{}{}:
	default:
	}
}

func (p *partition) count(f func(*counts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.counts)
}
