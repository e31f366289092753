package postgres

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// company decides whether the store combines its batches with those of other processes; see combine.go. There is no setting. The direct way is
// better alone, and with few processes on a cheap flush. While each of k processes writes a batch, the direct way holds the lock for
//
//	k · (flush + handover + work)
//
// and combining holds it for
//
//	flush + handover + k · (work + extra)
//
// so combining is better if (k-1) · (flush + handover) is more than k · extra. A store that meets others on most of its batches tries it for
// some batches. Each tells how long it waited for the lock, how long it held it, and how many others it served.
type company struct {
	now    atomic.Bool // whether batches are left for others
	logger *slog.Logger

	mu      sync.Mutex
	never   string        // why the store never combines; "" if it may
	forced  bool          // always, for tests
	meeting float64       // the part of recent direct batches that met another writer
	calls   int           // of this stay in company
	pause   time.Duration // until the next try, after one that did not pay
	next    time.Time     // of that try

	counts Sharing // Active and Never are not set

	// Moving averages of the calls, in microseconds.
	served, waited, each average // others served, the wait for the lock, the time with the lock for each request
	flush                average // of a call that wrote, beyond the wait and the time with the lock
	rest                 average // the same of a call that found its answer, which has no flush
}

const (
	meetsOften  = 0.5                    // the part of batches that meet others from which combining is tried
	tryCalls    = 24                     // batches after which a try is judged, and again each time
	firstPause  = time.Second            // between tries; it doubles
	longPause   = time.Minute            // the most
	handover    = 100.0                  // microseconds from one holder of the lock to the next
	extraPart   = 1.0                    // what combining adds for each request, as a part of its time with the lock
	keepFactor  = 0.7                    // a store in company stays in it down to this part of the break-even point
	meetingSpan = 1.0 / 16               // the weight of a batch in the average
	callSpan    = 1.0 / 16               // the weight of a call in the averages
	leastWait   = 500 * time.Microsecond // a direct batch that takes less has nothing to gain
)

// average is a moving average. Its zero value has none.
type average struct {
	value float64
	n     int
}

func (a *average) add(x float64) {
	a.n++
	a.value += (x - a.value) * max(callSpan, 1/float64(a.n))
}

// init decides for a store that was just opened. never says why it never combines, or is "".
func (c *company) init(never string, logger *slog.Logger) {
	c.logger = logger
	c.never = never
	if combining.Load() == combinesNever {
		c.never = "a test"
	}
	c.pause = firstPause
	c.forced = c.never == "" && combining.Load() == combinesAlways
	c.now.Store(c.forced)
}

// combining is for stores opened from now on. Tests change it.
var combining atomic.Int32

const (
	combinesInCompany int32 = iota
	combinesAlways
	combinesNever
)

// combines reports whether the next batch is left for others.
func (c *company) combines() bool { return c.now.Load() }

// able reports whether the store can combine.
func (c *company) able() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.never == ""
}

// count changes a counter.
func (c *company) count(change func(counts *Sharing)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.counts)
}

// lost notes a call without an answer. If its error says that the role or the server cannot combine, because a right or a function is
// missing, the store never does.
func (c *company) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Left++
	c.counts.Unanswered++
	switch classify(err).code {
	case undefinedFunction, undefinedTable, insufficientPrivilege:
		c.never = err.Error()
		c.now.Store(false)
		c.logger.Warn("no sharing of flushes with other processes: run roles.sql again", "err", err)
	default:
		c.logger.Info("no answer to a shared batch", "err", err)
	}
}

// met notes a direct batch, whether another writer came before it, and how long it took.
func (c *company) met(other bool, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := 0.0
	if other {
		x = 1
	}
	c.meeting += (x - c.meeting) * meetingSpan
	if c.never != "" || !other || c.meeting < meetsOften || took < leastWait || time.Now().Before(c.next) {
		return
	}
	c.calls, c.served, c.waited, c.each, c.flush, c.rest = 0, average{}, average{}, average{}, average{}, average{}
	c.now.Store(true)
	c.logger.Debug("sharing of flushes with other processes", "met", c.meeting)
}

// A call is what is known about an attempt to combine. waited and held are microseconds.
type call struct {
	took         time.Duration
	waited, held int64
	served       int // other requests, or -1 if another process has written this one
}

// called notes a call.
func (c *company) called(call call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Left++
	beyond := float64(call.took.Microseconds() - call.waited - call.held)
	c.waited.add(float64(call.waited))
	if call.served < 0 {
		c.counts.Served++
		c.rest.add(beyond)
	} else {
		c.counts.Others += int64(call.served)
		c.flush.add(beyond)
		c.served.add(float64(call.served))
		c.each.add(float64(call.held) / float64(call.served+1))
	}
	if c.calls++; c.calls%tryCalls != 0 || c.forced || !c.now.Load() {
		return
	}
	if c.pays() {
		c.pause = max(c.pause/2, firstPause)
		return
	}
	c.meeting = 0
	c.next = time.Now().Add(c.pause)
	c.pause = min(2*c.pause, longPause)
	c.now.Store(false)
	c.logger.Debug("no sharing of flushes with other processes for now", "batches", c.calls, "served", c.served.value, "pause", c.pause)
}

// pays reports whether combining is better than the direct way.
func (c *company) pays() bool {
	turn := max(c.flush.value-c.rest.value, 0) + handover
	k := 1 + max(c.served.value, c.waited.value/(turn+c.each.value*(c.served.value+1)))
	return (k-1)*turn > keepFactor*k*extraPart*c.each.value && k > 1.5
}
