package consume

import (
	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/deadletter"
)

// lane handles items one after the other. The partition's lock guards queue.
type lane struct {
	queue []item
	wake  chan struct{} // receives when queue has an item
}

// item is a message, or, if m is nil, a request to retry the parked messages of a key.
type item struct {
	m       *kafka.Message
	number  uint64 // in offsets
	request deadletter.Request
}

// after reports whether an item is a message after an offset.
func (it item) after(offset int64) bool {
	return it.m != nil && int64(it.m.TopicPartition.Offset) > offset
}

// add is called with the partition's lock held.
func (l *lane) add(it item) {
	l.queue = append(l.queue, it)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run handles the items of a lane until the partition stops or the run fails.
func (p *partition) run(l *lane) {
	w := &worker{partition: p, lane: l}
	defer w.flush() // so that entries already sent count, if there is time
	for {
		it, ok := p.next(l)
		if !ok {
			if ok = w.flush(); ok {
				it, ok = p.await(l)
			}
		}
		if !ok || !w.process(it) {
			return
		}
	}
}

// next returns the next item of a lane, if there is one and the partition is not stopping.
func (p *partition) next(l *lane) (it item, ok bool) {
	select {
	case <-p.stopping:
		return item{}, false
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(l.queue) == 0 || p.refused != nil && l.queue[0].after(p.refused.Offset) {
		return item{}, false
	}
	it = l.queue[0]
	l.queue[0] = item{} // for the garbage collector
	l.queue = l.queue[1:]
	return it, true
}

// await waits for the next item of a lane. It returns false when the partition stops.
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
