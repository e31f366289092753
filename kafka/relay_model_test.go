package kafka_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// TestRelayModel appends records while relays start, end, die or pause at any step, take over from each other, and have outdated knowledge of their leases,
// and while the broker fails requests or loses answers. In the end the topics have each record of the log once, and those of a stream in order.
//
// It detects a relay that reads the checkpoint before it fences its predecessor, that relies on its memory of the checkpoint, that leaves the checkpoint
// out of a transaction, or that uses one that is not committed.
func TestRelayModel(t *testing.T) {
	t.Parallel()
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue { // -rapid.checks=100 looks further
		few := "6"
		if testing.Short() {
			few = "2"
		}
		if err := checks.Value.Set(few); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checks.Value.Set(checks.DefValue) }() // it was taken before
	}
	rapid.Check(t, func(r *rapid.T) {
		m := &relayModel{TB: reporting{t, r}, rapid: r, log: new(es.Mem)}
		m.broker = testserver.FakeBroker(m, kafkatest.Options{Folder: t.TempDir(), Brokers: 2})
		defer m.broker.Fake.Close()
		defer m.leave()
		m.begin(r)
		r.Repeat(map[string]func(*rapid.T){
			"append": m.append, "append more": m.append, "begin": m.begin, "end": m.end, "kill": m.kill, "kill soon": m.kill,
			"fail": m.fail, "fail again": m.fail, "lose": m.lose, "restart": m.restart, "cut": m.cut, "catch up": m.catchUp, "": m.check,
			"pass": m.pass, "pass on": m.pass, "pause": m.pause, "hesitate": m.hesitate, "shut out": m.shutOut,
		})
		m.finish()
	})
}

// A reporting test reports failures to rapid, which then looks for a shorter sequence.
type reporting struct {
	testing.TB
	rapid *rapid.T
}

func (r reporting) Errorf(format string, args ...any) { r.rapid.Errorf(format, args...) }
func (r reporting) Error(args ...any)                 { r.rapid.Error(args...) }
func (r reporting) Fatalf(format string, args ...any) { r.rapid.Fatalf(format, args...) }
func (r reporting) Fatal(args ...any)                 { r.rapid.Fatal(args...) }
func (r reporting) Cleanup(f func())                  { r.rapid.Cleanup(f) }
func (r reporting) Context() context.Context          { return r.rapid.Context() }

type relayModel struct {
	testing.TB
	rapid  *rapid.T
	broker testserver.Broker
	log    *es.Mem
	last   es.Position
	relays []*modelRelay
	ended  []*modelRelay // which may run again
	faults []*kfake.FaultHandle
}

type modelRelay struct {
	*kafka.Relay
	lease  *belief
	doom   atomic.Pointer[string] // the step at which it dies
	stay   atomic.Pointer[stay]   // where it stands still
	cancel context.CancelFunc
	done   chan error
}

func (m *relayModel) append(r *rapid.T) {
	events := make([]es.Record, rapid.IntRange(1, 15).Draw(r, "events"))
	for i := range events {
		events[i] = es.Record{Type: "happened", Data: fmt.Appendf(nil, `{"after":%d}`, m.last)}
	}
	stream := es.Stream{
		Kind: rapid.SampledFrom([]string{"account", "transfer"}).Draw(r, "kind"),
		ID:   rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(r, "stream"),
	}
	at, err := m.log.Append(r.Context(), es.Append{Stream: stream, Expected: es.AnyVersion, Events: events})
	if err != nil {
		m.Fatal(err)
	}
	m.last = at
}

// begin runs a relay that is new, or one that ran before.
func (m *relayModel) begin(r *rapid.T) { m.run(m.newRelay(r)) }

func (m *relayModel) newRelay(r *rapid.T) *modelRelay {
	if len(m.relays) == 3 {
		r.Skip("enough of them")
	}
	if last := len(m.ended) - 1; last >= 0 && rapid.Bool().Draw(r, "again") {
		own := m.ended[last]
		m.ended = m.ended[:last]
		return own
	}
	own := &modelRelay{Relay: relay(m.broker, m.log), lease: &belief{Mem: m.log}, done: make(chan error, 1)}
	own.Leases, own.Lease = own.lease, 500*time.Millisecond
	own.Batch = rapid.IntRange(1, 9).Draw(r, "batch")
	own.Encoding = rapid.SampledFrom([]kafka.Encoding{kafka.CloudEvents, kafka.Compact}).Draw(r, "encoding")
	own.Cluster.Config["transaction.timeout.ms"] = 2000
	own.Hook(func(step string) error {
		if s := own.stay.Load(); s != nil && s.step == step {
			s.here()
		}
		if doom := own.doom.Load(); doom != nil && *doom == step {
			return errCrash
		}
		return nil
	})
	return own
}

func (m *relayModel) run(own *modelRelay) {
	ctx, cancel := context.WithCancel(context.Background())
	own.cancel = cancel
	go func() { own.done <- own.Run(ctx) }()
	m.relays = append(m.relays, own)
}

// pick returns a random relay.
func (m *relayModel) pick(r *rapid.T) *modelRelay {
	if len(m.relays) == 0 {
		r.Skip("no relay")
	}
	i := rapid.IntRange(0, len(m.relays)-1).Draw(r, "relay")
	own := m.relays[i]
	m.relays = slices.Delete(m.relays, i, i+1)
	return own
}

// over waits for a relay to end.
func (m *relayModel) over(own *modelRelay, with error) {
	select {
	case err := <-own.done:
		if !errors.Is(err, with) && !errors.Is(err, context.Canceled) {
			m.Fatalf("a relay ended with %v, want %v", err, with)
		}
	case <-time.After(patience):
		m.Fatalf("a relay does not end; it stands as %+v", own.Stats())
	}
}

func (m *relayModel) end(r *rapid.T) {
	own := m.pick(r)
	own.cancel()
	m.over(own, context.Canceled)
	m.ended = append(m.ended, own)
}

// kill makes a relay die at a step, if it reaches one, while others may already try to take over.
func (m *relayModel) kill(r *rapid.T) {
	own := m.pick(r)
	step := rapid.SampledFrom(steps).Draw(r, "step")
	own.doom.Store(&step)
	m.append(r)
	wait := time.Duration(rapid.IntRange(0, 200).Draw(r, "ms")) * time.Millisecond
	select {
	case err := <-own.done:
		own.done <- err
	case <-time.After(wait): // it does not work, or waits for something
		own.cancel()
	}
	m.over(own, errCrash)
}

var modelFaults = map[kmsg.Key][]*kerr.Error{
	kmsg.InitProducerID:     {kerr.CoordinatorLoadInProgress, kerr.ConcurrentTransactions, kerr.NotCoordinator},
	kmsg.AddPartitionsToTxn: {kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.InvalidTxnState},
	kmsg.Produce: {
		kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.UnknownProducerID,
	},
	kmsg.EndTxn:      {kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.InvalidTxnState, kerr.ProducerFenced},
	kmsg.ListOffsets: {kerr.NotLeaderForPartition, kerr.OffsetNotAvailable, kerr.UnknownLeaderEpoch},
	kmsg.Metadata:    {kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition},
}

var modelRequests = []kmsg.Key{kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.Produce, kmsg.EndTxn, kmsg.ListOffsets, kmsg.Metadata}

func (m *relayModel) fail(r *rapid.T) {
	request := rapid.SampledFrom(modelRequests).Draw(r, "request")
	m.faults = append(m.faults, m.broker.Fake.Fail(request, rapid.SampledFrom(modelFaults[request]).Draw(r, "error"), rapid.IntRange(1, 2).Draw(r, "times")))
	m.append(r)
}

func (m *relayModel) lose(r *rapid.T) {
	request := rapid.SampledFrom(append(modelRequests, kmsg.Fetch)).Draw(r, "request")
	if rapid.Bool().Draw(r, "was it done") {
		m.broker.Fake.LoseAnswer(request)
	} else {
		m.broker.Fake.LoseRequest(request)
	}
	m.append(r)
}

func (m *relayModel) restart(*rapid.T) {
	m.faults = nil // a restart ends them
	if err := m.broker.Fake.Restart(); err != nil {
		m.Fatal(err)
	}
}

func (m *relayModel) cut(r *rapid.T) {
	m.broker.Fake.Cut()
	m.append(r)
	time.Sleep(time.Duration(rapid.IntRange(0, 100).Draw(r, "ms")) * time.Millisecond) // of nothing, which is what is tried
	m.broker.Fake.Heal()
}

func (m *relayModel) catchUp(r *rapid.T) {
	if len(m.relays) == 0 {
		r.Skip("no relay")
	}
	m.reaches()
}

// reaches waits until a relay has published everything.
func (m *relayModel) reaches() { m.reachesWithout(nil) }

// reachesWithout waits until a relay other than one has.
func (m *relayModel) reachesWithout(one *modelRelay) {
	eventually(m, fmt.Sprintf("position %d is published", m.last), func() bool {
		m.check(nil)
		return slices.ContainsFunc(m.relays, func(own *modelRelay) bool { return own != one && own.Stats().Position >= m.last })
	})
}

// check checks that no relay has ended, or has published more than the log has.
func (m *relayModel) check(*rapid.T) {
	for i, own := range m.relays {
		select {
		case err := <-own.done:
			m.relays = slices.Delete(m.relays, i, i+1)
			m.Fatalf("a relay ended with %v", err)
		default:
		}
		if at := own.Stats().Position; at > m.last {
			m.Fatalf("a relay is at position %d of %d", at, m.last)
		}
	}
}

func (m *relayModel) finish() {
	m.broker.Fake.Heal()
	if len(m.relays) == 0 {
		m.begin(m.rapid)
	}
	m.append(m.rapid)
	m.reaches()
	m.leave()
	for _, f := range m.faults { // which would hit the audit
		f.Remove()
	}
	audit(m, m.broker.Bootstrap, m.broker.Prefix, m.log, es.Filter{})
}

func (m *relayModel) leave() {
	for _, own := range m.relays {
		own.cancel()
	}
	for _, own := range m.relays {
		m.over(own, context.Canceled)
	}
	m.relays = nil
}
