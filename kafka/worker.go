package kafka

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// mostUnderWay is how many letters one lane sends ahead before it waits for the broker.
const mostUnderWay = 500

// A worker does what a lane has to do.
type worker struct {
	*partition
	post post // to the dead-letter topic
}

// do handles an item, and returns false if the work ends.
func (w *worker) do(it item) bool {
	switch {
	case it.m == nil:
		return w.settle() && w.replay(it.order)
	case w.letterbox.holds(string(it.m.Key)):
		return w.park(it, wire.EntryBehind, nil, 0) && (w.post.underWay() < mostUnderWay || w.settle())
	}
	attempts, r, err := w.try(it.m)
	switch {
	case w.ending(err):
		return false
	case err == nil:
		w.done(it)
		w.count(func(c *counts) { c.handled++ })
		return true
	case w.r.OnError == es.Park:
		w.log.Error("kafka: a record is parked, and the later ones of its key behind it",
			"key", string(it.m.Key), "record", r.ID(), "offset", int64(it.m.TopicPartition.Offset), "attempts", attempts, "error", err)
		return w.park(it, wire.EntryParked, err, attempts) && w.settle()
	}
	w.r.fail(w.failure(it.m, r, err))
	return false
}

// ending tells whether the work ends, and an error therefore says nothing about the record.
func (w *worker) ending(err error) bool {
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

// try lets the handler have a message, and again if it fails, and returns how often that was. A message that is no record fails at once.
// What is unavailable is no fault of the record's, and does not count against it.
func (w *worker) try(m *kafka.Message) (attempts int, r es.Record, err error) {
	if _, r, err = Decode(m); err != nil {
		return 1, r, err
	}
	retries := max(0, cmp.Or(w.r.Retries, DefaultRetries))
	failures := 0
	for attempts = 1; ; attempts++ {
		if err = call(w.ctx, w.r.handle, r); err != nil && !errors.Is(err, es.ErrUnavailable) {
			failures++
		}
		if err == nil || failures > retries || w.ending(err) {
			return attempts, r, err
		}
		w.count(func(c *counts) { c.retried++ })
		pause := client.Backoff(attempts)
		w.log.Warn("kafka: a record failed, trying it again", "record", r.ID(), "offset", int64(m.TopicPartition.Offset), "attempt", attempts, "pause", pause, "error", err)
		if !w.rest(pause) {
			return attempts, r, err
		}
	}
}

// rest sleeps, and returns false if the work ends meanwhile.
func (w *worker) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.stopping:
		return false
	}
}

// park sends a message to the dead-letter topic. It is done when that has it; see settle.
func (w *worker) park(it item, kind wire.EntryKind, cause error, attempts int) bool {
	if err := w.post.send(w.ctx, w.letterbox, wire.NewParked(it.m, kind, cause, attempts), it); err != nil {
		return w.cannotPark(err)
	}
	return true
}

// settle waits until the dead-letter topic has all that was sent, and it is known here: only then is it true that nothing of the key is handled out of order.
func (w *worker) settle() bool {
	items, err := w.post.settle(w.ctx)
	w.done(items...)
	w.count(func(c *counts) { c.parked += int64(len(items)) })
	if err != nil {
		return w.cannotPark(err)
	}
	return true
}

func (w *worker) cannotPark(err error) bool {
	if !w.ending(err) {
		w.r.fail(fmt.Errorf("kafka: consumer %s: cannot write to the dead-letter topic: %w; nothing was committed past the record", w.r.Group, err))
	}
	return false
}

// replay tries what is parked under a key, in order, until something fails. If nothing does, the key is not parked any more.
func (w *worker) replay(o order) bool {
	for {
		held, ok := w.letterbox.get(o.key)
		if !ok {
			w.log.Info("kafka: nothing is parked any more", "key", o.key)
			return true
		}
		for m, err := range w.letterbox.read(w.ctx, o.key, held) {
			if err == nil {
				err = w.again(m, o)
			}
			switch {
			case w.ending(err):
				return false
			case err != nil:
				w.log.Warn("kafka: a parked record failed again", "key", o.key, "error", err)
				return w.answer(o.key, wire.EntryTried, held.first, err) && w.settle()
			case !w.answer(o.key, wire.EntryDone, int64(m.TopicPartition.Offset), nil):
				return false
			case w.post.underWay() >= mostUnderWay && !w.settle():
				return false
			}
		}
		if !w.settle() {
			return false
		}
	}
}

// again tries one parked message, or gives it up if that was the order.
func (w *worker) again(m *kafka.Message, o order) error {
	if o.kind == wire.EntryDrop && o.letter == int64(m.TopicPartition.Offset) {
		w.log.Warn("kafka: a parked record is given up", "key", o.key, "letter", o.letter)
		return nil
	}
	_, _, err := w.try(m)
	if err == nil {
		w.count(func(c *counts) { c.handled++ })
	}
	return err
}

// answer says in the dead-letter topic what became of a letter.
func (w *worker) answer(key string, kind wire.EntryKind, letter int64, cause error) bool {
	if err := w.post.send(w.ctx, w.letterbox, wire.NewNote(key, kind, letter, cause)); err != nil {
		return w.cannotPark(err)
	}
	return true
}
