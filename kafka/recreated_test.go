package kafka_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// ended waits for a run to end with an error that has some words in it.
func ended(t testing.TB, what string, done <-chan error, words ...string) {
	t.Helper()
	select {
	case err := <-done:
		for _, word := range words {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s ended with %v\nwant something with %q", what, err, word)
			}
		}
	case <-time.After(patience):
		t.Errorf("%s goes on", what)
	}
}

func TestRecreatedTopicStopsReaders(t *testing.T) {
	t.Parallel()
	b := fake(t, 2)
	log := new(es.Mem)
	r := relay(b.Broker, log)
	r.Route = func(es.Record) string { return b.topic }
	run := runRelay(t, r)
	last := fill(t, log, 200)
	run.reaches(last)

	topics := source(t, b, func(c *kafka.SourceConfig) { c.Cluster.Config["topic.metadata.refresh.interval.ms"] = 200 })
	store, _ := openFile(t)
	model, handler := make(chan error, 1), make(chan error, 1)
	start(t, func(ctx context.Context) error {
		err := store.Project(ctx, sqliteModel("model", topics, nil))
		model <- err
		return err
	})
	c, got := consumer(t, b), newCollector()
	c.Cluster.Config["topic.metadata.refresh.interval.ms"] = 200
	start(t, func(ctx context.Context) error {
		err := c.Run(ctx, got.handle)
		handler <- err
		return err
	})
	got.await(t, "all records", func() bool { return len(got.records) >= int(last) })

	run.mustStop() // what becomes of it says the next test
	b.deleteTopic(t)
	b.createTopic(t, b.topic, 2)
	ended(t, "the read model", model, b.topic, "created again")
	ended(t, "the consumer", handler, b.topic, "created again")
}

// A cluster accepts writes under a topic's name even if the topic was created again. So a relay checks its topics while it writes.
func TestARelayStopsSoonAfterItsTopicIsDeleted(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		again bool
		says  string
	}{"deleted": {false, " is gone"}, "deleted and created again": {true, " was deleted and created again"}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for promise, change := range map[string]func(r *kafka.Relay, log *es.Mem){
				"exactly once":  func(*kafka.Relay, *es.Mem) {},
				"at least once": func(r *kafka.Relay, log *es.Mem) { r.AtLeastOnce = log },
			} {
				t.Run(promise, func(t *testing.T) {
					t.Parallel()
					testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
						log := new(es.Mem)
						r := relay(b, log)
						change(r, log)
						run := runRelay(t, r)
						run.reaches(fill(t, log, 200))
						deleteTopic(t, b.Bootstrap, b.Prefix+".account")
						if test.again {
							makeTopic(t, b.Bootstrap, b.Prefix+".account", 3, nil)
						}
						run.fillUntilItEnds(log, "topic "+b.Prefix+".account"+test.says, "Reset")
					})
				})
			}
		})
	}
}

// fillUntilItEnds appends records until the relay ends with an error that has some words in it.
func (r *running) fillUntilItEnds(log es.Log, with ...string) {
	r.t.Helper()
	eventually(r.t, "the relay ends", func() bool {
		fill(r.t, log, 10)
		return len(r.done) > 0
	})
	r.ends(with...)
}

// Closing a producer can block after a fatal error. A relay ends nevertheless, and leaks none.
func TestARelayEndsAfterAFatalError(t *testing.T) {
	t.Parallel()
	for name, fault := range map[kmsg.Key]*kerr.Error{kmsg.EndTxn: kerr.ProducerFenced, kmsg.Produce: kerr.OutOfOrderSequenceNumber, kmsg.AddPartitionsToTxn: kerr.InvalidProducerEpoch} {
		t.Run(name.Name(), func(t *testing.T) {
			t.Parallel()
			b := testserver.FakeBroker(t, kafkatest.Options{})
			log := new(es.Mem)
			r, heard := relay(b, log), new(logged.Text)
			r.Leases, r.Logger = log, heard.Logger()
			run := runRelay(t, r)
			run.reaches(fill(t, log, 50))
			b.Fake.Fail(name, fault, -1)
			retries := r.Stats().Retries
			fill(t, log, 50)
			eventually(t, "it has begun again, twice", func() bool { return r.Stats().Retries >= retries+2 })
			run.mustStop()
			if text := heard.String(); strings.Contains(text, "not closed") {
				t.Errorf("a producer was left behind:\n%s", text)
			}
		})
	}
}
