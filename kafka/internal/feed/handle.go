package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

const (
	feedsOfHandle = 16                     // the most feeds that share a client, which has about six threads
	queueBytes    = 4 << 20                // of a feed, approximately, before its partition is paused
	queueEvents   = 5000                   // the same, for small messages
	pauseAfter    = 100 * time.Millisecond // how long the other feeds wait before a full one is paused
)

// handle is a client that several feeds share, each for another partition. One goroutine polls it and gives the events to the feeds. A feed
// that is not read is paused, so that it delays the others once, and prefetching is bounded.
type handle struct {
	source *Source
	reader *client.Reader
	work   sync.WaitGroup
	ended  chan struct{}
	taken  chan struct{} // signals that a feed has taken its queue

	mu    sync.Mutex
	feeds map[client.Partition]*feed
}

// openFeed adds a feed at an offset to the source, and to a handle that does not read its partition yet.
func (s *Source) openFeed(f *feed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.broken != nil:
		return s.broken
	}
	for h := range s.handles {
		ok, err := h.add(f)
		if ok {
			s.feeds[f] = struct{}{}
		}
		if ok || err != nil {
			return err
		}
	}
	reader, err := client.OpenReader(s.reading, s.client.Trouble)
	if err != nil {
		return err
	}
	h := &handle{source: s, reader: reader, ended: make(chan struct{}), taken: make(chan struct{}, 1), feeds: make(map[client.Partition]*feed)}
	h.work.Go(h.run)
	if _, err := h.add(f); err != nil {
		return errors.Join(err, h.close())
	}
	s.handles[h], s.feeds[f] = struct{}{}, struct{}{}
	return nil
}

// closeFeed removes a feed from the source and its handle, and closes the handle with its last feed.
func (s *Source) closeFeed(f *feed) error {
	h := f.handle
	s.mu.Lock()
	delete(s.feeds, f)
	last := h.remove(f)
	if last {
		delete(s.handles, h)
	}
	s.mu.Unlock()
	if last {
		return h.close()
	}
	return nil
}

// add assigns a feed's partition, unless the handle has it already or has too many.
func (h *handle) add(f *feed) (ok bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.feeds) == feedsOfHandle || h.feeds[f.Partition] != nil {
		return false, nil
	}
	f.handle = h
	if err := h.reader.IncrementalAssign([]kafka.TopicPartition{f.At(f.next)}); err != nil {
		return false, fmt.Errorf("kafka: read %v: %w", f.Partition, err)
	}
	h.feeds[f.Partition] = f
	return true, nil
}

// remove unassigns a feed's partition, and reports whether it was the last one.
func (h *handle) remove(f *feed) (last bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.feeds, f.Partition)
	h.unassign(f)
	return len(h.feeds) == 0
}

// unassign is called with the lock held.
func (h *handle) unassign(f *feed) {
	p := []kafka.TopicPartition{f.At(0)}
	if f.paused {
		_ = h.reader.Resume(p) // the partition may be assigned again
		f.paused = false
	}
	if err := h.reader.IncrementalUnassign(p); err != nil {
		h.source.Log.Warn("kafka: cannot unassign a partition", "partition", f.String(), "err", err)
	}
}

// again assigns a feed's partition again: after an error that says nothing about its partition, librdkafka may not fetch it any more.
func (h *handle) again(f *feed) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unassign(f)
	if err := h.reader.IncrementalAssign([]kafka.TopicPartition{f.At(f.next)}); err != nil {
		return fmt.Errorf("kafka: read %v: %w", f.Partition, err)
	}
	return nil
}

// close ends the polling and closes the client. The handle has no feed any more.
func (h *handle) close() error {
	close(h.ended)
	h.work.Wait()
	return h.reader.Close()
}

// run polls until the handle is closed.
func (h *handle) run() {
	for {
		select {
		case <-h.ended:
			return
		default:
		}
		h.resume()
		event := h.reader.Poll(int(client.PollFor.Milliseconds()))
		switch e := event.(type) {
		case *kafka.Message:
			h.give(client.PartitionOf(e.TopicPartition), e, wire.MemorySize(e))
		case kafka.PartitionEOF:
			h.give(client.PartitionOf(kafka.TopicPartition(e)), e, 0)
		case kafka.Error:
			for _, f := range h.concerned(e) {
				f.put(e, 0)
			}
		}
	}
}

// concerned returns the feeds whose topic an error names, or all if it names none.
func (h *handle) concerned(err kafka.Error) (feeds []*feed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.feeds {
		if strings.Contains(err.Error(), f.Topic) {
			feeds = append(feeds, f)
		}
	}
	if feeds == nil {
		for _, f := range h.feeds {
			feeds = append(feeds, f)
		}
	}
	return feeds
}

// give gives an event to the feed of a partition. If its queue is full, give waits a moment for a reader that is only a little slower than the
// network, because pausing discards what was prefetched.
func (h *handle) give(p client.Partition, event kafka.Event, bytes int) {
	h.mu.Lock()
	f := h.feeds[p]
	h.mu.Unlock()
	if f == nil || !f.put(event, bytes) {
		return // it was closed, or has capacity
	}
	timer := time.NewTimer(pauseAfter)
	defer timer.Stop()
	for f.full() {
		select {
		case <-h.taken:
			continue
		case <-h.ended:
			return
		case <-timer.C:
		}
		h.pause(f)
		return
	}
}

func (h *handle) pause(f *feed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.feeds[f.Partition] != f {
		return
	}
	if err := h.reader.Pause([]kafka.TopicPartition{f.At(0)}); err != nil {
		h.source.Log.Warn("kafka: cannot pause a partition", "partition", f.String(), "err", err)
		return
	}
	f.paused = true
}

// resume resumes paused partitions whose queues were taken.
func (h *handle) resume() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.feeds {
		if !f.paused || f.full() {
			continue
		}
		if err := h.reader.Resume([]kafka.TopicPartition{f.At(0)}); err != nil {
			h.source.Log.Warn("kafka: cannot resume a partition, retrying", "partition", f.String(), "err", err)
			continue
		}
		f.paused = false
	}
}

// queue is what a handle has received for a feed.
type queue struct {
	mu     sync.Mutex
	events []kafka.Event
	bytes  int
	ready  chan struct{} // signals that there are events

	current []kafka.Event // taken; only the reader of the feed uses it
}

// put adds an event, and reports whether the queue is full.
func (q *queue) put(event kafka.Event, bytes int) (full bool) {
	q.mu.Lock()
	q.events = append(q.events, event)
	q.bytes += bytes
	full = q.fullLocked()
	first := len(q.events) == 1
	q.mu.Unlock()
	if first {
		signal(q.ready)
	}
	return full
}

func (q *queue) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fullLocked()
}

func (q *queue) fullLocked() bool { return q.bytes >= queueBytes || len(q.events) >= queueEvents }

// next returns the next event, or nil if none comes within a time or before ctx ends.
func (f *feed) nextEvent(ctx context.Context, wait time.Duration) kafka.Event {
	if len(f.current) == 0 && !f.take() {
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-f.ready:
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		if !f.take() {
			return nil
		}
	}
	event := f.current[0]
	f.current[0] = nil // for the garbage collector
	f.current = f.current[1:]
	return event
}

// take takes all events that were received, and reports whether there are any.
func (f *feed) take() bool {
	q := &f.queue
	q.mu.Lock()
	q.current, q.events, q.bytes = q.events, nil, 0
	q.mu.Unlock()
	signal(f.handle.taken)
	return len(q.current) > 0
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
