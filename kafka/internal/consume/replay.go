package consume

import (
	"errors"
	"slices"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/deadletter"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// requests takes the requests that wait in the lane, one for each key except a given one. Together they read the dead-letter partition once.
// They overtake messages, which are behind the parked ones of their keys in any case.
func (w *worker) requests(except string) (taken []deadletter.Request) {
	keys := map[string]bool{except: true}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lane.queue = slices.DeleteFunc(w.lane.queue, func(it item) bool {
		if it.m != nil || keys[it.request.Key] {
			return false
		}
		keys[it.request.Key] = true
		taken = append(taken, it.request)
		return true
	})
	return taken
}

// replay tries the parked messages of keys, those of each in order until one fails. A key of which none fails is not parked any more.
func (w *worker) replay(requests []deadletter.Request) bool {
	left := make(map[string]deadletter.Request, len(requests))
	for _, r := range requests {
		left[r.Key] = r
	}
	for len(left) > 0 {
		var offsets []int64
		for key := range left {
			letters := w.letters.Letters(key)
			if len(letters) == 0 {
				w.log.Info("kafka: no parked records left", "key", key)
				delete(left, key)
			}
			offsets = append(offsets, letters...)
		}
		slices.Sort(offsets)
		if !w.replayOnce(left, offsets) || !w.flush() {
			return false
		}
	}
	return true
}

// replayOnce tries parked messages, and removes a key from left when one of its messages fails.
func (w *worker) replayOnce(left map[string]deadletter.Request, offsets []int64) bool {
	found := false
	for m, err := range w.letters.Messages(w.ctx, offsets) {
		if err != nil {
			return w.giveUp(left, err)
		}
		found = true
		key := string(m.Key)
		request, wanted := left[key]
		if !wanted {
			continue // an earlier message of the key has failed
		}
		err = w.retry(m, request)
		switch letter := int64(m.TopicPartition.Offset); {
		case w.interrupted(err):
			return false
		case err != nil:
			w.log.With("key", key).Warn("kafka: a parked record failed again", logged(err)...)
			delete(left, key)
			if !w.note(key, wire.EntryTried, letter, err) || !w.flushIfFull() {
				return false
			}
		case !w.note(key, wire.EntryDone, letter, nil), !w.flushIfFull():
			return false
		}
	}
	if !found && len(offsets) > 0 {
		return w.giveUp(left, errNotThere)
	}
	return true
}

var errNotThere = errors.New("the parked records are not in the dead-letter topic any more; set the group's offset there")

// giveUp notes for all keys why their messages could not be read.
func (w *worker) giveUp(left map[string]deadletter.Request, err error) bool {
	if w.interrupted(err) {
		return false
	}
	w.log.Warn("kafka: parked records cannot be read", "keys", len(left), "err", err)
	for key := range left {
		if letters := w.letters.Letters(key); len(letters) > 0 && !w.note(key, wire.EntryTried, letters[0], err) {
			return false
		}
		delete(left, key)
	}
	return true
}

// retry tries one parked message, or drops it if that is requested.
func (w *worker) retry(m *kafka.Message, request deadletter.Request) error {
	if request.Kind == wire.EntryDrop && request.Of == int64(m.TopicPartition.Offset) {
		w.log.Warn("kafka: dropping a parked record", "key", request.Key, "letter", request.Of)
		return nil
	}
	store, r, err := wire.Decode(m)
	if err != nil {
		return err // an earlier release parked what is not a record; it can be dropped
	}
	if _, err = w.try(m, store, r); err == nil {
		w.count(func(c *counts) { c.handled++ })
	}
	return err
}
