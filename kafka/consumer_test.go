package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

// consumer is one as most tests want it.
func consumer(t testing.TB, b bank) *kafka.Consumer {
	c := &kafka.Consumer{Cluster: kafka.Cluster{Config: b.config()}, Group: b.Prefix + "-notify", Topics: []string{b.topic}, Logger: testLog(t)}
	c.Cluster.Config["session.timeout.ms"], c.Cluster.Config["heartbeat.interval.ms"] = 6000, 300
	return c
}

func TestAConsumerHandlesEachRecordInOrderOfItsKey(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 4} {
		each(t, 3, func(t *testing.T, b bank) {
			all := newPublisher(t, b).publish(1000, 17)
			c, got := consumer(t, b), newCollector()
			c.Workers = workers
			stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
			got.await(t, "all records", got.has(all))
			if err := stop(); !errors.Is(err, context.Canceled) {
				t.Errorf("Run returned %v", err)
			}
			got.inOrder(t)
			if len(got.records) != len(all) {
				t.Errorf("%d records came, of %d", len(got.records), len(all))
			}

			// What was handled is committed: another run has nothing to do but what is new.
			p := newPublisherFrom(t, b, all)
			more := p.publish(10, 17)
			again := newCollector()
			c = consumer(t, b)
			stop = start(t, func(ctx context.Context) error { return c.Run(ctx, again.handle) })
			again.await(t, "the new records", again.has(more))
			_ = stop()
			if len(again.records) != len(more) {
				t.Errorf("%d records came in the second run, of %d", len(again.records), len(more))
			}
		})
	}
}

// newPublisherFrom returns a publisher that goes on behind records.
func newPublisherFrom(t testing.TB, b bank, all []es.Record) *publisher {
	p := newPublisher(t, b)
	for _, r := range all {
		p.version[r.Stream], p.position = r.Version, r.Position
	}
	return p
}

func TestConsumersShareThePartitionsAndSkipNothing(t *testing.T) {
	t.Parallel()
	each(t, 8, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		got := newCollector()
		handle := func(ctx context.Context, r es.Record) error {
			time.Sleep(rand.N(2 * time.Millisecond)) // a handler takes its time
			return got.handle(ctx, r)
		}
		run := func() (stop func() error) {
			c := consumer(t, b)
			c.Workers, c.Buffer = 2, 20
			return start(t, func(ctx context.Context) error { return c.Run(ctx, handle) })
		}
		stops := []func() error{run()}
		var all []es.Record
		for i := range 12 {
			all = append(all, p.publish(300, 40)...)
			if i%3 == 2 && len(stops) > 1 {
				_ = stops[0]()
				stops = stops[1:]
			} else {
				stops = append(stops, run())
			}
		}
		got.await(t, "all records", got.has(all))
		for _, stop := range stops {
			_ = stop()
		}
		got.inOrder(t)
		t.Logf("%d records were handled %d times", len(all), len(got.records))
	})
}

func TestAConsumerStopsBeforeARecordThatFails(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		all := newPublisher(t, b).publish(50, 5)
		broken := errors.New("no such customer")
		c, got := consumer(t, b), newCollector()
		c.Retries = -1
		got.fail = func(r es.Record) error {
			if r.ID() == "account/a3/4" {
				return broken
			}
			return nil
		}
		err := c.Run(t.Context(), got.handle)
		var stopped *kafka.ConsumerError
		if !errors.As(err, &stopped) || !errors.Is(err, broken) || stopped.Record.ID() != "account/a3/4" {
			t.Fatalf("Run returned %v", err)
		}

		// Mended, it goes on with that record.
		c, mended := consumer(t, b), newCollector()
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, mended.handle) })
		mended.await(t, "the rest", mended.has(all[18:]))
		_ = stop()
		if first := mended.records[0].ID(); first != "account/a3/4" {
			t.Errorf("the second run began with %s", first)
		}
	})
}

func TestAConsumerFiltersByTheHeaders(t *testing.T) {
	t.Parallel()
	encodings(t, func(t *testing.T, encoding kafka.Encoding) {
		b := fake(t, 2)
		p := newPublisher(t, b)
		p.encoding = encoding
		var wanted []es.Record
		for i := range 40 {
			r := p.record(fmt.Sprint(i%3), "{}")
			if i%4 == 0 {
				r.Type = "opened"
				wanted = append(wanted, r)
			}
			p.send(true, r)
		}
		c, got := consumer(t, b), newCollector()
		c.Filter = es.Filter{Kinds: []string{"account"}, Types: []string{"opened"}}
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		got.await(t, "what the filter lets through", got.has(wanted))
		_ = stop()
		if len(got.records) != len(wanted) {
			t.Errorf("%d records came, of %d", len(got.records), len(wanted))
		}
	})
}

func TestASlowHandlerHasBoundedMemoryAndLosesNothing(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, b bank) {
		all := newPublisher(t, b).publish(600, 7)
		c, got := consumer(t, b), newCollector()
		c.Buffer = 10
		stop := start(t, func(ctx context.Context) error {
			return c.Run(ctx, func(ctx context.Context, r es.Record) error {
				if len(r.Data)%2 == 0 {
					time.Sleep(15 * time.Millisecond) // so that partitions are paused
				}
				return got.handle(ctx, r)
			})
		})
		got.await(t, "all records", got.has(all))
		_ = stop()
		got.inOrder(t)
		if len(got.records) != len(all) {
			t.Errorf("%d records came, of %d", len(got.records), len(all))
		}
	})
}

// A consumer whose commands go to a store that is away must neither stop nor park what it was given.
func TestWhatIsUnavailableIsWaitedForInPlace(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		c := consumer(t, b)
		c.Retries = -1
		failsThreeTimes(t, b, c, func(int) error { return fmt.Errorf("the store: %w", es.ErrUnavailable) })
	})
}

func TestAHandlerThatFailsOrPanicsIsTriedAgainInPlace(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		failsThreeTimes(t, b, consumer(t, b), func(n int) error {
			if n == 2 {
				panic("out of luck")
			}
			return errors.New("out of luck")
		})
	})
}

// failsThreeTimes runs a consumer whose handler fails three times on a record, each time as it is told, and which is to get all in order, once.
func failsThreeTimes(t *testing.T, b bank, c *kafka.Consumer, fail func(n int) error) {
	t.Helper()
	all := newPublisher(t, b).publish(20, 4)
	got, failures := newCollector(), 0
	got.fail = func(r es.Record) error {
		if r.ID() == "account/a2/2" && failures < 3 {
			failures++
			return fail(failures)
		}
		return nil
	}
	stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
	got.await(t, "all records", got.has(all))
	_ = stop()
	got.inOrder(t)
	if failures != 3 || len(got.records) != len(all) {
		t.Errorf("%d failures, %d records of %d", failures, len(got.records), len(all))
	}
}

func TestWhatAConsumerRefuses(t *testing.T) {
	t.Parallel()
	b := fake(t, 1)
	for name, change := range map[string]func(*kafka.Consumer){
		"no group":               func(c *kafka.Consumer) { c.Group = "" },
		"no topics":              func(c *kafka.Consumer) { c.Topics = nil },
		"a topic's name":         func(c *kafka.Consumer) { c.Topics = []string{"bank/account"} },
		"a group that parks":     func(c *kafka.Consumer) { c.Group, c.OnError = "a/b", es.Park },
		"no brokers":             func(c *kafka.Consumer) { c.Cluster.Config = nil },
		"auto commit":            func(c *kafka.Consumer) { c.Cluster.Config["enable.auto.commit"] = true },
		"uncommitted":            func(c *kafka.Consumer) { c.Cluster.Config["isolation.level"] = "read_uncommitted" },
		"a reset":                func(c *kafka.Consumer) { c.Cluster.Config["auto.offset.reset"] = "latest" },
		"a reset in topic terms": func(c *kafka.Consumer) { c.Cluster.Config["{topic}.auto.offset.reset"] = "latest" },
		"a reset below": func(c *kafka.Consumer) {
			c.Cluster.Config["default.topic.config"] = kafka.ConfigMap{"auto.offset.reset": "latest"}
		},
		"a static member":         func(c *kafka.Consumer) { c.Cluster.Config["group.instance.id"] = "1" },
		"the group as a setting":  func(c *kafka.Consumer) { c.Cluster.Config["group.id"] = "1" },
		"an unknown setting":      func(c *kafka.Consumer) { c.Cluster.Config["no.such.thing"] = "1" },
		"acks where it parks":     func(c *kafka.Consumer) { c.Cluster.Config["acks"], c.OnError = 1, es.Park },
		"an error policy of none": func(c *kafka.Consumer) { c.OnError = 7 },
	} {
		t.Run(name, func(t *testing.T) {
			c := consumer(t, b)
			change(c)
			if err := c.Run(t.Context(), newCollector().handle); !errors.Is(err, es.ErrInvalid) {
				t.Errorf("Run returned %v", err)
			} else {
				t.Log(err)
			}
		})
	}
	t.Run("a topic that is not there", func(t *testing.T) {
		c := consumer(t, b)
		c.Topics = append(c.Topics, b.Prefix+".transfer")
		var none *kafka.NoTopicError
		if err := c.Run(t.Context(), newCollector().handle); !errors.As(err, &none) || none.Topic != b.Prefix+".transfer" {
			t.Errorf("Run returned %v", err)
		}
	})
}
