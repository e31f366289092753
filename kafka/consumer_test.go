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

// consumer returns a Consumer with the settings of most tests. Its session does not expire on a busy machine, because an
// expired session would redeliver records.
func consumer(t testing.TB, b bank) *kafka.Consumer {
	c := &kafka.Consumer{Cluster: kafka.Cluster{Config: b.config()}, Group: b.Prefix + "-notify", Topics: []string{b.topic}, Logger: testLog(t)}
	c.Cluster.Config["session.timeout.ms"], c.Cluster.Config["heartbeat.interval.ms"] = 30_000, 300
	return c
}

func TestConsumerHandlesRecordsInOrderOfTheirKeys(t *testing.T) {
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
				t.Errorf("%d records were handled, want %d", len(got.records), len(all))
			}

			// Handled records are committed: another run handles only new ones.
			p := newPublisherFrom(t, b, all)
			more := p.publish(10, 17)
			again := newCollector()
			c = consumer(t, b)
			stop = start(t, func(ctx context.Context) error { return c.Run(ctx, again.handle) })
			again.await(t, "the new records", again.has(more))
			_ = stop()
			if len(again.records) != len(more) {
				t.Errorf("%d records were handled in the second run, want %d", len(again.records), len(more))
			}
		})
	}
}

// newPublisherFrom returns a publisher that continues after records.
func newPublisherFrom(t testing.TB, b bank, all []es.Record) *publisher {
	p := newPublisher(t, b)
	for _, r := range all {
		p.version[r.Stream], p.position = r.Version, r.Position
	}
	return p
}

func TestConsumersShareThePartitions(t *testing.T) {
	t.Parallel()
	each(t, 8, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		got := newCollector()
		handle := func(ctx context.Context, r es.Record) error {
			time.Sleep(rand.N(2 * time.Millisecond)) // so that partitions move while records are being handled
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

func TestConsumerStopsBeforeAFailedRecord(t *testing.T) {
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

		// With the handler fixed, it continues with that record.
		c, fixed := consumer(t, b), newCollector()
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, fixed.handle) })
		fixed.await(t, "the rest", fixed.has(all[18:]))
		_ = stop()
		if first := fixed.records[0].ID(); first != "account/a3/4" {
			t.Errorf("the second run began with %s", first)
		}
	})
}

func TestConsumerFiltersByHeaders(t *testing.T) {
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
		got.await(t, "the records that match the filter", got.has(wanted))
		_ = stop()
		if len(got.records) != len(wanted) {
			t.Errorf("%d records were handled, want %d", len(got.records), len(wanted))
		}
	})
}

func TestSlowHandlerWithABoundedBuffer(t *testing.T) {
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
			t.Errorf("%d records were handled, want %d", len(got.records), len(all))
		}
	})
}

// A consumer whose handler needs an unavailable store must neither stop nor park the record.
func TestConsumerRetriesWhileUnavailable(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		c := consumer(t, b)
		c.Retries = -1
		failsThreeTimes(t, b, c, func(int) error { return fmt.Errorf("the store: %w", es.ErrUnavailable) })
	})
}

func TestConsumerRetriesErrorsAndPanics(t *testing.T) {
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

// failsThreeTimes runs a consumer whose handler fails three times on one record, with the errors of fail. All records must be
// handled once, in order.
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
		t.Errorf("%d failures, %d records handled, want 3 and %d", failures, len(got.records), len(all))
	}
}

func TestConsumerRefusesInvalidSettings(t *testing.T) {
	t.Parallel()
	b := fake(t, 1)
	for name, change := range map[string]func(*kafka.Consumer){
		"no group":                     func(c *kafka.Consumer) { c.Group = "" },
		"no topics":                    func(c *kafka.Consumer) { c.Topics = nil },
		"an invalid topic name":        func(c *kafka.Consumer) { c.Topics = []string{"bank/account"} },
		"an invalid dead-letter topic": func(c *kafka.Consumer) { c.Group, c.OnError = "a/b", es.Park },
		"negative workers":             func(c *kafka.Consumer) { c.Workers = -1 },
		"a negative buffer":            func(c *kafka.Consumer) { c.Buffer = -1 },
		"no brokers":                   func(c *kafka.Consumer) { c.Cluster.Config = nil },
		"auto commit":                  func(c *kafka.Consumer) { c.Cluster.Config["enable.auto.commit"] = true },
		"uncommitted reads":            func(c *kafka.Consumer) { c.Cluster.Config["isolation.level"] = "read_uncommitted" },
		"a reset":                      func(c *kafka.Consumer) { c.Cluster.Config["auto.offset.reset"] = "latest" },
		"a reset with a topic prefix":  func(c *kafka.Consumer) { c.Cluster.Config["{topic}.auto.offset.reset"] = "latest" },
		"a reset in the topic config": func(c *kafka.Consumer) {
			c.Cluster.Config["default.topic.config"] = kafka.ConfigMap{"auto.offset.reset": "latest"}
		},
		"another group protocol": func(c *kafka.Consumer) { c.Cluster.Config["group.protocol"] = "consumer" },
		"the group as a setting": func(c *kafka.Consumer) { c.Cluster.Config["group.id"] = "1" },
		"an unknown setting":     func(c *kafka.Consumer) { c.Cluster.Config["no.such.thing"] = "1" },
		"acks while parking":     func(c *kafka.Consumer) { c.Cluster.Config["acks"], c.OnError = 1, es.Park },
		"an unknown OnError":     func(c *kafka.Consumer) { c.OnError = 7 },
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
}
