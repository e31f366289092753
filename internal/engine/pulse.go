package engine

import (
	"sync/atomic"
	"time"
)

// A pulse is when the last heartbeat began. Its age is measured on two clocks: the time of day, which may be set back or forward, and a
// monotonic one, which may stand still while the machine is suspended. The longer of both counts. So a worker whose time of day was set back
// goes on with its heartbeats, and one that was suspended does not think that it still holds its shards.
type pulse struct {
	last atomic.Pointer[instant] // nil before the first
}

// An instant is a time on both clocks.
type instant struct {
	day     time.Time     // without a monotonic reading
	running time.Duration // on the monotonic clock
}

// clock reads both clocks. Tests replace it.
type clock func() instant

func newClock() clock {
	began := time.Now()
	return func() instant {
		now := time.Now()
		return instant{now.Round(0), now.Sub(began)}
	}
}

func (p *pulse) beat(at instant) { p.last.Store(&at) }

// age returns how long ago the last heartbeat began. found is false before the first.
func (p *pulse) age(now instant) (age time.Duration, found bool) {
	last := p.last.Load()
	if last == nil {
		return 0, false
	}
	return max(now.running-last.running, now.day.Sub(last.day)), true
}

// SetDay replaces the time of day, for tests of a clock that is set back. It must be called before any projection runs.
func (e *Engine[Tx]) SetDay(day func() time.Time) {
	now := e.clock
	e.clock = func() instant { return instant{day().Round(0), now().running} }
}
