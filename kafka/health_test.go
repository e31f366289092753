package kafka_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// refused returns settings with which a broker of these tests refuses every connection: none of them has users.
func refused(b testserver.Broker) kafka.ConfigMap {
	return kafka.ConfigMap{
		"bootstrap.servers": b.Bootstrap, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "es", "sasl.password": "wrong",
	}
}

const refusal = "SASL"

func TestStatsSayThatThePasswordIsWrong(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		for promise, change := range map[string]func(r *kafka.Relay, log *es.Mem){
			"relay":                func(*kafka.Relay, *es.Mem) {},
			"relay, at least once": func(r *kafka.Relay, log *es.Mem) { r.AtLeastOnce = log },
		} {
			t.Run(promise, func(t *testing.T) {
				t.Parallel()
				log, heard := new(es.Mem), new(logged.Text)
				head := fill(t, log, 1000)
				r := relay(b, log)
				r.Cluster.Config, r.Logger = refused(b), slog.New(slog.NewTextHandler(heard, &slog.HandlerOptions{Level: slog.LevelWarn}))
				change(r, log)
				run := runRelay(t, r)
				eventually(t, "the error is in Stats and in the log", func() bool {
					s := r.Stats()
					return strings.Contains(s.Error, refusal) && !s.ErrorAt.IsZero() && strings.Contains(heard.String(), refusal)
				})
				// The checkpoint is in the cluster, or in the store.
				if s := r.Stats(); r.AtLeastOnce == nil && s.Lag != nil {
					t.Errorf("the lag is %+v, though the checkpoint was never read", s.Lag)
				} else if r.AtLeastOnce != nil {
					eventually(t, "the lag is known", func() bool { s := r.Stats(); return s.Lag != nil && s.Lag.Positions == int64(head) })
				}
				// A session that has ended with a timeout does not hide the reason.
				eventually(t, "another attempt", func() bool { return r.Stats().Retries > 0 || r.AtLeastOnce != nil })
				if s := r.Stats(); !strings.Contains(s.Error, refusal) {
					t.Errorf("after another attempt the error is %q", s.Error)
				}
				run.mustStop()
			})
		}
		t.Run("consumer", func(t *testing.T) {
			t.Parallel()
			heard := new(logged.Text)
			c := &kafka.Consumer{
				Cluster: kafka.Cluster{Config: refused(b)}, Group: b.Prefix, Topics: []string{b.Prefix + ".account"},
				Logger: slog.New(slog.NewTextHandler(heard, &slog.HandlerOptions{Level: slog.LevelWarn})),
			}
			stop := start(t, func(ctx context.Context) error { return c.Run(ctx, newCollector().handle) })
			eventually(t, "the error is in Stats and in the log", func() bool {
				s := c.Stats()
				return len(s) == 1 && s[0].Topic == b.Prefix+".account" && s[0].Partition == -1 && s[0].Lag == nil &&
					strings.Contains(s[0].Error, refusal) && !s[0].ErrorAt.IsZero() && strings.Contains(heard.String(), refusal)
			})
			if err := stop(); !errors.Is(err, context.Canceled) {
				t.Errorf("Run returned %v", err)
			}
		})
		t.Run("source", func(t *testing.T) {
			t.Parallel()
			_, err := kafka.SourceConfig{Cluster: kafka.Cluster{Config: refused(b)}, Topics: []string{b.Prefix + ".account"}}.Open(t.Context())
			if err == nil || !strings.Contains(err.Error(), refusal) {
				t.Errorf("Open returned %v", err)
			}
		})
		t.Run("dead letters", func(t *testing.T) {
			t.Parallel()
			d := &kafka.DeadLetters{Cluster: kafka.Cluster{Config: refused(b)}, Topic: b.Prefix + ".account", Group: b.Prefix}
			for _, err := range d.All(t.Context()) {
				if err == nil || !strings.Contains(err.Error(), refusal) {
					t.Errorf("All returned %v", err)
				}
			}
			if err := d.Retry(t.Context(), kafka.DeadLetter{Key: "a"}); err == nil || !strings.Contains(err.Error(), refusal) {
				t.Errorf("Retry returned %v", err)
			}
		})
	})
}

// outages runs a test on both brokers, which the test can take away and bring back.
func outages(t *testing.T, test func(t *testing.T, b testserver.Broker, away, back func())) {
	t.Run("kafkatest", func(t *testing.T) {
		t.Parallel()
		b := testserver.FakeBroker(t, kafkatest.Options{})
		test(t, b, b.Fake.Cut, b.Fake.Heal)
	})
	t.Run("kafka", func(t *testing.T) {
		b := testserver.RealBroker(t)
		if b.Real == nil {
			t.Skip("the brokers of ES_TEST_KAFKA have no proxies")
		}
		bootstrap, proxies := b.Real.Proxies(t)
		b.Bootstrap = bootstrap
		test(t, b, func() {
			for _, p := range proxies {
				p.Refuse()
				p.Cut()
			}
		}, func() {
			for _, p := range proxies {
				p.Heal(t)
			}
		})
	})
}

// A relay reads ahead of what it publishes, but not to the end of the log.
func TestTheLagGrowsWhileTheClusterIsAway(t *testing.T) {
	outages(t, func(t *testing.T, b testserver.Broker, away, back func()) {
		log := new(es.Mem)
		r := relay(b, log)
		r.Leases, r.Batch = log, 10
		run := runRelay(t, r)
		last := fill(t, log, 20)
		run.reaches(last)
		away()
		for range 3 {
			last = fill(t, log, 100)
			eventually(t, "the lag is that of the log", func() bool {
				lag := r.Stats().Lag
				return lag != nil && lag.Head == last && lag.Positions == int64(last-r.Stats().Position) && lag.Positions > 0 && lag.Age > 0
			})
		}
		back()
		run.reaches(last)
		run.mustStop()
		if lag := r.Stats().Lag; lag == nil || lag.Positions != 0 {
			t.Errorf("at the end the lag is %+v", lag)
		}
	})
}

func TestAConsumerWaitsForAnUnavailableCluster(t *testing.T) {
	outages(t, func(t *testing.T, b testserver.Broker, away, back func()) {
		x := newBank(t, b, 2)
		all := newPublisher(t, x).publish(20, 3)
		away()
		c, got := consumer(t, x), newCollector()
		c.OnError = es.Park
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		eventually(t, "Stats say so", func() bool {
			s := c.Stats()
			return len(s) == 1 && s[0].Partition == -1 && s[0].Error != "" && time.Since(s[0].ErrorAt) < patience
		})
		back()
		got.await(t, "all records", got.has(all))
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestAConsumerStartsBeforeItsTopics(t *testing.T) {
	t.Parallel()
	for _, onError := range []es.OnError{es.Stop, es.Park} {
		for _, fromEnd := range []bool{false, true} {
			testserver.EachBroker(t, func(t *testing.T, broker testserver.Broker) {
				b, later := bank{broker, broker.Prefix + ".account"}, bank{broker, broker.Prefix + ".transfer"}
				heard := new(logged.Text)
				c, got := consumer(t, b), newCollector()
				c.Topics = append(c.Topics, later.topic)
				c.OnError, c.FromEnd, c.Logger = onError, fromEnd, heard.Logger()
				stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
				waits := func(topics ...string) {
					t.Helper()
					eventually(t, "Stats say which topics do not exist", func() bool {
						n := 0
						for _, s := range c.Stats() {
							if s.Partition == -1 && strings.Contains(s.Error, "does not exist") {
								n++
							}
						}
						return n == len(topics)
					})
				}
				waits(b.topic, later.topic)
				if n := heard.Count("waits for a topic"); n != 2 {
					t.Errorf("it was logged %d times that a topic does not exist:\n%s", n, heard)
				}
				// All of a topic that did not exist when the group began is new to it.
				b.createTopic(t, b.topic, 2)
				all := newPublisher(t, b).publish(20, 3)
				got.await(t, "the records of the first topic", got.has(all))
				waits(later.topic)
				later.createTopic(t, later.topic, 3)
				p := newPublisherFrom(t, b, all)
				p.topic = later.topic
				more := p.publish(20, 3)
				got.await(t, "the records of the second topic", got.has(more))
				waits()
				if err := stop(); !errors.Is(err, context.Canceled) {
					t.Errorf("Run returned %v", err)
				}
				got.inOrder(t)
				if n := heard.Count("waits for a topic"); n != 2 {
					t.Errorf("it was logged %d times that a topic does not exist", n)
				}
			})
		}
	}
}
