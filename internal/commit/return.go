package commit

import (
	"math"
	"time"
)

// returning is what is known about the callers that the last transaction has answered. Callers that append again at once miss the next
// transaction by microseconds if it begins as soon as the last one has ended. Then a crowd falls into two halves that take turns, and each
// caller waits for two transactions.
type returning struct {
	part    float64       // of the callers answered lately, those that came back in time
	callers int           // answered by the last transaction
	waiting int           // requests that waited when it ended
	took    time.Duration // the last transaction
}

const (
	shortTransaction = 400 * time.Microsecond // after a shorter one, yielding is enough
	patience         = 1.0 / 8                // how long await waits, as a part of the last transaction
	returnWeight     = 1.0 / 4                // of a transaction in the average
)

// answered notes a transaction that has ended.
func (r *returning) answered(callers, waiting int, took time.Duration) {
	r.callers, r.waiting, r.took = callers, waiting, took
}

// expected returns how many requests are expected to wait soon.
func (r *returning) expected() int {
	return r.waiting + int(math.Round(r.part*float64(r.callers)))
}

// came notes how many requests wait now.
func (r *returning) came(waiting int) {
	part := float64(waiting-r.waiting) / float64(r.callers)
	r.part += (min(max(part, 0), 1) - r.part) * returnWeight
	r.callers = 0
}

// await waits until as many requests wait as are expected, for a small part of the time that the last transaction took. Where callers do not
// come back, as they are many and each appends rarely, it soon expects none, and does not wait.
func (q *Queue) await() {
	r := &q.returning
	if r.callers == 0 || r.took < shortTransaction {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.group.Waiting() < r.expected() {
		full := make(chan struct{})
		q.goal, q.full = r.expected(), full
		q.mu.Unlock()
		timer := time.NewTimer(time.Duration(float64(r.took) * patience))
		select {
		case <-full:
		case <-timer.C:
		}
		timer.Stop()
		q.mu.Lock()
		q.full = nil
	}
	r.came(q.group.Waiting())
}
