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

// Actions of the model in which two relays are at work at once: each believes that it has the lease, or finds out late that it has not.

// A belief is what one relay hears of its lease: how it is, or what somebody would believe who was paused, or cut off.
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

// expire lets others have the lease that a relay may hold, which hears something else.
func (m *relayModel) expire(own *modelRelay, hears int32) {
	own.lease.tells.Store(hears)
	if err := m.log.ReleaseLease(context.Background(), "relay/"+own.Prefix+"/relay", own.Stats().Holder); err != nil {
		m.Fatal(err)
	}
}

// A stay holds somebody up from when he arrives until it is ended.
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

// here holds up whoever is the first to come.
func (s *stay) here() {
	if s.taken.CompareAndSwap(false, true) {
		close(s.arrived)
		<-s.over
	}
}

// pass has the working relay lose its lease to another, which publishes further than the first knows. The first may get it back, by the same way.
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

// pause has a relay stand still at a step while its lease runs out and another goes on. Then it wakes up, and may believe for a while that nothing has happened.
func (m *relayModel) pause(r *rapid.T) {
	if len(m.relays) == 0 {
		r.Skip("there is none")
	}
	own := m.relays[rapid.IntRange(0, len(m.relays)-1).Draw(r, "relay")]
	if len(m.relays) == 1 {
		m.begin(r)
	}
	s := newStay(rapid.SampledFrom(steps).Draw(r, "step"))
	m.standStill(r, own, s)
}

// hesitate has a new relay that believes to have the lease stand still as it takes over, while the one that works goes on.
func (m *relayModel) hesitate(r *rapid.T) {
	m.working(r)
	s := newStay(rapid.SampledFrom(steps[:4]).Draw(r, "step"))
	m.standStill(r, m.beginAt(r, s), s)
}

// standStill has a relay wait at a step, if it comes to it, until others have published more.
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

// shutOut has a new relay believe that it has the lease, and the broker hears its wish to shut out the one that works only when that has published more:
// what the new one has learnt before it asked is out of date then.
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

// beginAt begins a relay that believes that it has the lease.
func (m *relayModel) beginAt(r *rapid.T, s *stay) *modelRelay {
	own := m.newRelay(r)
	own.stay.Store(s)
	own.lease.tells.Store(itIsYours)
	m.run(own)
	return own
}

// remainAtOdds leaves two relays for a while in the belief that it is their turn.
func (m *relayModel) remainAtOdds(r *rapid.T) {
	if rapid.Bool().Draw(r, "at odds") {
		m.append(r)
		m.reaches()
	}
}

// working returns a relay that works, once there is one.
func (m *relayModel) working(r *rapid.T) (own *modelRelay) {
	if len(m.relays) == 0 {
		r.Skip("there is none")
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
