package kafka_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
)

// Actions of the model in which two relays work at the same time: each acts as if it had the lease, or notices late that it does not.

// A belief is the leases as one relay sees them: as they are, or as a process sees them that was paused or disconnected.
type belief struct {
	*es.Mem
	tells atomic.Int32
}

const (
	howItIs int32 = iota
	itIsYours
	itIsAnothers
)

func (b *belief) AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
	l := es.Lease{Name: name, Holder: holder, Until: time.Now().Add(d), Note: note}
	switch b.tells.Load() {
	case itIsYours:
		return l, ctx.Err()
	case itIsAnothers:
		l.Holder = "another"
		return l, ctx.Err()
	}
	return b.Mem.AcquireLease(ctx, name, holder, d, note)
}

// expire gives up the lease of a relay, and shows the relay something else.
func (m *relayModel) expire(own *modelRelay, shown int32) {
	own.lease.tells.Store(shown)
	if err := m.log.ReleaseLease(context.Background(), "relay/"+own.Prefix+"/relay", own.Stats().Holder); err != nil {
		m.Fatal(err)
	}
}

// A stay blocks a goroutine from its arrival until the stay ends.
type stay struct {
	step    string
	arrived chan struct{}
	over    chan struct{}
	taken   atomic.Bool
}

func newStay(step string) *stay {
	return &stay{step: step, arrived: make(chan struct{}), over: make(chan struct{})}
}

func (s *stay) end() { close(s.over) }

// here blocks the first caller.
func (s *stay) here() {
	if s.taken.CompareAndSwap(false, true) {
		close(s.arrived)
		<-s.over
	}
}

// pass moves the lease of the working relay to another, which publishes further than the first knows. The first may get it back in the same way.
func (m *relayModel) pass(r *rapid.T) {
	own := m.working(r)
	if len(m.relays) == 1 {
		m.begin(r)
	}
	m.expire(own, itIsAnothers)
	defer own.lease.tells.Store(howItIs)
	for range 2 { // it may have been in time for the first
		m.append(r)
		m.reachesWithout(own)
	}
}

// pause blocks a relay at a step while its lease expires and another continues. Then the relay resumes, and may act for a while as if nothing had happened.
func (m *relayModel) pause(r *rapid.T) {
	if len(m.relays) == 0 {
		r.Skip("no relay")
	}
	own := m.relays[rapid.IntRange(0, len(m.relays)-1).Draw(r, "relay")]
	if len(m.relays) == 1 {
		m.begin(r)
	}
	s := newStay(rapid.SampledFrom(steps).Draw(r, "step"))
	m.standStill(r, own, s)
}

// hesitate blocks a new relay, which acts as if it had the lease, during its takeover while the working relay continues.
func (m *relayModel) hesitate(r *rapid.T) {
	m.working(r)
	s := newStay(rapid.SampledFrom(steps[:4]).Draw(r, "step"))
	m.standStill(r, m.beginAt(r, s), s)
}

// standStill makes a relay wait at a step, if it reaches it, until others have published more.
func (m *relayModel) standStill(r *rapid.T, own *modelRelay, s *stay) {
	own.stay.Store(s)
	end := sync.OnceFunc(s.end)
	defer end()
	m.append(r)
	select {
	case <-s.arrived:
	case <-time.After(200 * time.Millisecond): // it is at another step, or waits for something
	}
	m.expire(own, itIsYours)
	defer own.lease.tells.Store(howItIs)
	m.append(r)
	m.reaches()
	end()
	m.remainAtOdds(r)
}

// shutOut starts a new relay that acts as if it had the lease. The broker gets its request to fence the working relay only after that has published more,
// so that whatever the new relay read before the request is out of date.
func (m *relayModel) shutOut(r *rapid.T) {
	m.working(r)
	there, release := m.broker.Fake.HoldRequest(kmsg.InitProducerID)
	defer release()
	own := m.beginAt(r, nil)
	defer own.lease.tells.Store(howItIs)
	select {
	case <-there:
	case <-time.After(2 * time.Second): // an earlier fault is in the way
	}
	m.append(r)
	m.reaches()
	release()
	m.remainAtOdds(r)
}

// beginAt begins a relay that acts as if it had the lease.
func (m *relayModel) beginAt(r *rapid.T, s *stay) *modelRelay {
	own := m.newRelay(r)
	own.stay.Store(s)
	own.lease.tells.Store(itIsYours)
	m.run(own)
	return own
}

// remainAtOdds lets two relays act for a while as if they had the lease.
func (m *relayModel) remainAtOdds(r *rapid.T) {
	if rapid.Bool().Draw(r, "at odds") {
		m.append(r)
		m.reaches()
	}
}

// working returns a relay that works, once there is one.
func (m *relayModel) working(r *rapid.T) (own *modelRelay) {
	if len(m.relays) == 0 {
		r.Skip("no relay")
	}
	eventually(m, "a relay works", func() bool {
		m.check(nil)
		i := slices.IndexFunc(m.relays, func(own *modelRelay) bool { return own.Stats().Working })
		if i >= 0 {
			own = m.relays[i]
		}
		return i >= 0
	})
	return own
}
