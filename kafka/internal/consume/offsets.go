package consume

import (
	"time"

	"github.com/thalo-go/es/kafka/internal/client"
)

// offsets tracks up to which offset all messages of a partition are done, while messages finish in any order.
// Callers must hold partition.mu.
type offsets struct {
	inFlight []message // in order; the first is not done
	number   uint64    // of the first
	next     int64     // the offset after the last message seen
	since    time.Time // when the first was not done and all before it were
}

type message struct {
	offset int64
	time   time.Time // when it was written
	done   bool
}

// first returns the offset of the first message that is not done, if there is one.
func (o *offsets) first() (int64, bool) {
	if len(o.inFlight) == 0 {
		return 0, false
	}
	return o.inFlight[0].offset, true
}

// oldest returns the first message that is not done, if there is one.
func (o *offsets) oldest() client.Waiting {
	if len(o.inFlight) == 0 {
		return client.Waiting{}
	}
	return client.Waiting{Written: o.inFlight[0].time, Since: o.since}
}

// add adds a message and returns its number.
func (o *offsets) add(offset int64, at time.Time) uint64 {
	if len(o.inFlight) == 0 {
		o.since = time.Now()
	}
	o.inFlight = append(o.inFlight, message{offset: offset, time: at})
	o.next = offset + 1
	return o.number + uint64(len(o.inFlight)) - 1
}

// skip notes that nothing is to be done for offsets below to, such as those of filtered messages and control records.
func (o *offsets) skip(to int64) { o.next = max(o.next, to) }

// done marks a message as done.
func (o *offsets) done(number uint64) {
	o.inFlight[number-o.number].done = true
	n := 0
	for n < len(o.inFlight) && o.inFlight[n].done {
		n++
	}
	if n > 0 {
		o.since = time.Now()
	}
	o.inFlight = o.inFlight[n:]
	o.number += uint64(n)
}

// doneUpTo returns the offset below which everything is done.
func (o *offsets) doneUpTo() int64 {
	if len(o.inFlight) > 0 {
		return o.inFlight[0].offset
	}
	return o.next
}
