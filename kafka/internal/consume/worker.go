package consume

import (
	"errors"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/guard"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/deadletter"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// worker processes the items of one lane.
type worker struct {
	*partition
	lane   *lane
	writer deadletter.Writer[item]
}

// process processes an item, and returns false if the lane must end.
func (w *worker) process(it item) bool {
	if it.m == nil {
		return w.flush() && w.replay(append(w.requests(it.request.Key), it.request))
	}
	store, r, err := wire.Decode(it.m)
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.refuse(int64(it.m.TopicPartition.Offset), err)
		return false
	}
	if w.letters.Parked(string(it.m.Key)) {
		return w.park(it, wire.EntryBehind, nil, 0) && w.flushIfFull()
	}
	attempts, err := w.try(it.m, store, r)
	switch {
	case w.interrupted(err):
		return false
	case err == nil:
		w.done(it)
		w.count(func(c *counts) { c.handled++ })
		return true
	case w.r.Park:
		w.failing(err)
		w.log.With("key", string(it.m.Key), "record", r.ID(), "offset", int64(it.m.TopicPartition.Offset), "attempts", attempts).
			Error("kafka: parking a record and the later ones of its key", logged(err)...)
		return w.park(it, wire.EntryParked, err, attempts) && w.flush()
	}
	w.r.fail(&RecordError{w.Partition, int64(it.m.TopicPartition.Offset), r, err})
	return false
}

// interrupted reports whether the partition is stopping, so that an error says nothing about the record.
func (w *worker) interrupted(err error) bool {
	if err == nil {
		return false
	}
	select {
	case <-w.stopping:
		return true
	default:
		return false
	}
}

// try calls the handler until it succeeds or has failed too often, and returns the number of attempts.
// Errors that wrap [es.ErrUnavailable] do not count, because the record is not their cause.
func (w *worker) try(m *kafka.Message, store string, r es.Record) (attempts int, err error) {
	failures := 0
	for attempts = 1; ; attempts++ {
		if err = guard.Call(func() error { return w.r.Handle(w.ctx, store, r) }); err != nil && !errors.Is(err, es.ErrUnavailable) {
			failures++
		}
		if err == nil || failures > w.r.Retries || w.interrupted(err) {
			return attempts, err
		}
		w.count(func(c *counts) { c.retried++ })
		w.failing(err)
		pause := client.Backoff(attempts)
		w.log.With("record", r.ID(), "offset", int64(m.TopicPartition.Offset), "attempt", attempts, "pause", pause).
			Warn("kafka: a record failed, retrying", logged(err)...)
		if !w.sleep(pause) {
			return attempts, err
		}
	}
}

// failing keeps an error of a record for Stats.
func (w *worker) failing(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problem, w.problemAt = err.Error(), time.Now()
}

// logged returns an error as attributes of a log record, with the stack if it is a panic.
func logged(err error) []any {
	attrs := []any{"err", err}
	var p *es.PanicError
	if errors.As(err, &p) {
		attrs = append(attrs, "stack", string(p.Stack))
	}
	return attrs
}

// sleep returns false if the partition stops before the time is over.
func (w *worker) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.stopping:
		return false
	}
}

// park sends a message to the dead-letter topic. The message is done once it is written there; see flush.
func (w *worker) park(it item, kind wire.EntryKind, cause error, attempts int) bool {
	return w.send(wire.NewParked(it.m, kind, cause, attempts), it)
}

// note writes to the dead-letter topic what happened to an entry of a key.
func (w *worker) note(key string, kind wire.EntryKind, entry int64, cause error) bool {
	return w.send(wire.NewNote(key, kind, entry, cause))
}

func (w *worker) send(m *kafka.Message, items ...item) bool {
	if err := w.writer.Send(w.ctx, w.letters, m, items...); err != nil {
		return w.failed(err)
	}
	return true
}

// flush waits until all entries are written and read back. Only then is the set of parked keys known, on which the order
// within a key depends.
func (w *worker) flush() bool {
	items, err := w.writer.Flush(w.ctx)
	w.done(items...)
	w.count(func(c *counts) { c.parked += int64(len(items)) })
	if err != nil {
		return w.failed(err)
	}
	return true
}

func (w *worker) flushIfFull() bool {
	return w.writer.Pending() < deadletter.MaxPending || w.flush()
}

// failed ends the run because of an error of the dead-letter topic.
func (w *worker) failed(err error) bool {
	if !w.interrupted(err) {
		w.r.fail(w.r.errorf("write to the dead-letter topic: %w; the record is not committed", w.r.explain(err)))
	}
	return false
}
