package kafka_test

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// steps are those of a relay's loop, in order.
var steps = []string{"open", "init", "checkpoint read", "batch", "begun", "producing", "produced", "committed"}

var errCrash = errors.New("killed")

// crashAt returns a hook that ends the session when it reaches a step for the nth time.
func crashAt(step string, nth int) func(string) error {
	var mu sync.Mutex
	return func(at string) error {
		mu.Lock()
		defer mu.Unlock()
		if at == step {
			if nth--; nth == 0 {
				return errCrash
			}
		}
		return nil
	}
}

func TestARelayKilledAtAnyStepLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		r := relay(b, log)
		r.Encoding, r.Batch = kafka.Compact, 20
		crashes := 0
		for nth := 1; nth <= 2; nth++ {
			for i, step := range steps {
				if nth > 1 && i < 3 {
					continue // it comes once in a session
				}
				fill(t, log, 50)
				dying := relay(b, log)
				dying.Encoding, dying.Batch = kafka.Compact, 20
				dying.Hook(crashAt(step, nth))
				run := runRelay(t, dying)
				if err := run.wait(); !errors.Is(err, errCrash) {
					t.Fatalf("at %q, time %d: ended with %v", step, nth, err)
				}
				crashes++
			}
		}
		publishMore(t, r, 1)
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
		if r.Stats().Takeovers != 1 || crashes != 2*len(steps)-3 {
			t.Errorf("%d crashes, stats %+v", crashes, r.Stats())
		}
	})
}

func TestAnOpenTransactionIsNotRead(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		fill(t, log, 100)
		// Everything is sent, including the checkpoint, and nothing is committed.
		dying := relay(b, log)
		dying.Cluster.Config["linger.ms"] = 1
		c, crash := watcher(t, b.Bootstrap), crashAt("produced", 1)
		dying.Hook(func(step string) error {
			err := crash(step)
			if err != nil {
				err = cmp.Or(becomes("messages of the open transaction are there", func() bool { return open(t.Context(), c, b.Prefix+".") }), err)
			}
			return err
		})
		if err := runRelay(t, dying).wait(); !errors.Is(err, errCrash) {
			t.Fatalf("ended with %v", err)
		}
		publishMore(t, relay(b, log), 1)
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
	})
}

func TestATransactionThatTookTooLongIsPublishedAgain(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		fill(t, log, 100)
		r := relay(b, log)
		r.Cluster.Config["transaction.timeout.ms"], r.Cluster.Config["linger.ms"] = 1000, 1
		r.Leases = log
		var once sync.Once
		c := watcher(t, b.Bootstrap)
		r.Hook(func(step string) (err error) {
			if step == "produced" {
				once.Do(func() { err = awaitAbort(t.Context(), c, b.Prefix+".") })
			}
			return err
		})
		publishMore(t, r, 1)
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
		if r.Stats().Retries == 0 {
			t.Errorf("nothing was retried: %+v", r.Stats())
		}
	})
}

// awaitAbort returns when messages that an open transaction held back are readable.
func awaitAbort(ctx context.Context, c *kgo.Client, prefix string) error {
	held := false
	return becomes("the transaction runs out", func() bool {
		now := open(ctx, c, prefix)
		held = held || now
		return held && !now
	})
}

// open reports whether an open transaction blocks readers of topics with a prefix.
func open(ctx context.Context, c *kgo.Client, prefix string) bool {
	all, err := topicsOf(ctx, c, prefix)
	for topic, partitions := range all {
		for p, high := range partitions {
			stable, err := end(ctx, c, topic, p, 1)
			if err != nil || stable < high {
				return true
			}
		}
	}
	return err != nil
}

func TestTwoRelaysWithLeasesShareTheWork(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		both := make([]*kafka.Relay, 2)
		runs := make([]*running, 2)
		for i := range both {
			both[i] = relay(b, log)
			both[i].Leases, both[i].Lease, both[i].Batch = log, 2*time.Second, 50
			runs[i] = runRelay(t, both[i])
		}
		for range 5 {
			last := fill(t, log, 100)
			eventually(t, "all is published", func() bool { return max(both[0].Stats().Position, both[1].Stats().Position) >= last })
		}
		if a, b := both[0].Stats(), both[1].Stats(); a.Working == b.Working || a.Takeovers+b.Takeovers != 1 {
			t.Errorf("the one is %+v\nand the other %+v; want one that works", a, b)
		}
		first := 0
		if both[1].Stats().Working {
			first = 1
		}
		runs[first].mustStop()
		runs[1-first].reaches(fill(t, log, 100))
		runs[1-first].mustStop()
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
	})
}

func TestWithoutLeasesTheLastRelayToStartWorks(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		first := runRelay(t, relay(b, log))
		first.reaches(fill(t, log, 100))
		eventually(t, "the first works", func() bool { return first.relay.Stats().Working })
		second := runRelay(t, relay(b, log))
		second.reaches(fill(t, log, 100))
		eventually(t, "the second works", func() bool { return second.relay.Stats().Working })
		last := fill(t, log, 1)
		if err := first.wait(); !errors.Is(err, kafka.ErrFenced) {
			t.Errorf("the first ended with %v, want ErrFenced", err)
		}
		second.reaches(last)
		second.mustStop()
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
	})
}

// A relay that was fenced and does not know it yet examines a topic that its successor has written to since. That does not mean that its checkpoint was lost.
func TestATopicOfTheNextRelayIsNotALostCheckpoint(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	log := new(es.Mem)
	late := heldUp{log, make(chan struct{})}
	first := runRelay(t, relay(b, late))
	eventually(t, "the first works", func() bool { return first.relay.Stats().Working })
	second := runRelay(t, relay(b, log))
	second.reaches(fill(t, log, 50))
	close(late.until)
	if err := first.wait(); !errors.Is(err, kafka.ErrFenced) {
		t.Errorf("the first ended with %v, want ErrFenced", err)
	}
	second.mustStop()
	audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
}

// heldUp is a log that reports new records late.
type heldUp struct {
	*es.Mem
	until chan struct{}
}

func (h heldUp) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	head, err := h.Mem.Changed(ctx, after)
	if err == nil && head > 0 {
		select {
		case <-h.until:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return head, err
}

func TestALeaseThatIsLostEndsTheWork(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	log := new(es.Mem)
	leases := &stolen{Mem: log}
	r := relay(b, log)
	r.Leases, r.Lease = leases, 300*time.Millisecond
	run := runRelay(t, r)
	run.reaches(fill(t, log, 10))
	leases.steal(true)
	eventually(t, "it does not work", func() bool { return !r.Stats().Working })
	last := fill(t, log, 10)
	leases.steal(false)
	run.reaches(last)
	run.mustStop()
	if got := r.Stats().Takeovers; got != 1 {
		t.Errorf("%d takeovers by one process, want 1: no other process has worked", got)
	}
	audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
}

// stolen are leases that another holder takes at times.
type stolen struct {
	*es.Mem
	mu    sync.Mutex
	taken bool
}

func (s *stolen) steal(taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = taken
}

func (s *stolen) AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken {
		return es.Lease{Name: name, Holder: "a thief", Until: time.Now().Add(d)}, nil
	}
	return s.Mem.AcquireLease(ctx, name, holder, d, note)
}

// A reader of committed messages sees nothing after another relay's open transaction. A takeover that did not wait would use an older checkpoint.
func TestATakeoverWaitsForOpenTransactions(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log, other := new(es.Mem), new(es.Mem)
		run := runRelay(t, relay(b, log))
		run.reaches(fill(t, log, 100))

		hanging := relay(b, other)
		hanging.Name, hanging.Cluster.Config["transaction.timeout.ms"], hanging.Cluster.Config["linger.ms"] = "hanging", 3000, 1
		fill(t, other, 1) // the first checkpoint comes with the first record
		c := watcher(t, b.Bootstrap)
		topic := kafka.CheckpointTopic(b.Prefix)
		crash := crashAt("produced", 1)
		before, err := end(t.Context(), c, topic, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		hanging.Hook(func(step string) error {
			err := crash(step)
			if err != nil {
				err = cmp.Or(becomes("its checkpoint is there, in an open transaction", func() bool {
					now, err := end(t.Context(), c, topic, 0, 0)
					return err == nil && now > before
				}), err)
			}
			return err
		})
		if err := runRelay(t, hanging).wait(); !errors.Is(err, errCrash) {
			t.Fatalf("ended with %v", err)
		}
		run.reaches(fill(t, log, 100)) // behind the open transaction
		run.mustStop()
		publishMore(t, relay(b, log), 1)
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
	})
}
