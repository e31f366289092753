package kafka

import (
	"time"
)

// offsets tells up to where everything of a partition has been handled, while what is under way ends in any order.
// Its methods want a lock around them.
type offsets struct {
	flight []flight // in order; the first is not done
	first  uint64   // the number of the first
	next   int64    // what follows the last message that was taken
}

type flight struct {
	offset int64
	time   time.Time // of the message
	done   bool
}

// oldest returns the time of the first message that is not done, if there is one.
func (o *offsets) oldest() (time.Time, bool) {
	if len(o.flight) == 0 {
		return time.Time{}, false
	}
	return o.flight[0].time, true
}

// take notes a message and returns its number.
func (o *offsets) take(offset int64, at time.Time) uint64 {
	o.flight = append(o.flight, flight{offset: offset, time: at})
	o.next = offset + 1
	return o.first + uint64(len(o.flight)) - 1
}

// skip notes that what stands before an offset is none of our business, such as messages that a filter holds back and control records.
func (o *offsets) skip(to int64) { o.next = max(o.next, to) }

// done notes that a message was handled.
func (o *offsets) done(number uint64) {
	o.flight[number-o.first].done = true
	n := 0
	for n < len(o.flight) && o.flight[n].done {
		n++
	}
	o.flight = o.flight[n:]
	o.first += uint64(n)
}

// upTo returns the offset before which everything has been handled.
func (o *offsets) upTo() int64 {
	if len(o.flight) > 0 {
		return o.flight[0].offset
	}
	return o.next
}
