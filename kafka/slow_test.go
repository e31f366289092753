package kafka_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// A consumer polls whatever its handlers do. So one that takes longer than max.poll.interval.ms keeps its partition, and nothing is handled twice.
func TestASlowHandlerKeepsItsPartition(t *testing.T) {
	t.Parallel()
	const poll = 6 * time.Second // heartbeats come in time also when the machine is busy
	b := newBank(t, testserver.FakeBroker(t, kafkatest.Options{}), 1)
	all := newPublisher(t, b).publish(20, 3)
	got, slow := newCollector(), sync.OnceFunc(func() { time.Sleep(2 * poll) }) // of nothing, which is what is tried
	run := func() {
		c := consumer(t, b)
		c.Cluster.Config["session.timeout.ms"], c.Cluster.Config["max.poll.interval.ms"], c.Cluster.Config["heartbeat.interval.ms"] = int(poll.Milliseconds()), int(poll.Milliseconds()), 100
		start(t, func(ctx context.Context) error {
			return c.Run(ctx, func(ctx context.Context, r es.Record) error {
				err := got.handle(ctx, r)
				slow()
				return err
			})
		})
	}
	run()
	got.await(t, "the first record", func() bool { return len(got.records) > 0 })
	run() // there is somebody who would take the partition
	got.await(t, "all records", got.has(all))
	got.inOrder(t)
	if len(got.records) != len(all) {
		t.Errorf("%d records came, of %d", len(got.records), len(all))
	}
}

// A source is in no group, so a handler of a read model may take as long as it likes.
func TestASlowReadModelKeepsItsShard(t *testing.T) {
	t.Parallel()
	b := newBank(t, testserver.FakeBroker(t, kafkatest.Options{}), 1)
	all := newPublisher(t, b).publish(200, 5)
	store, _ := openFile(t)
	topics := source(t, b, func(c *kafka.SourceConfig) {
		c.Cluster.Config["session.timeout.ms"], c.Cluster.Config["max.poll.interval.ms"], c.Cluster.Config["heartbeat.interval.ms"] = 1000, 1000, 100
	})
	slow := sync.OnceFunc(func() { time.Sleep(3 * time.Second) }) // of nothing, which is what is tried
	p := sqliteModel("slow", topics, testLog(t))
	handle, applied := p.Handle, 0
	p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
		slow()
		applied += len(records)
		return handle(ctx, tx, records)
	}
	up := make(chan struct{})
	p.OnCaughtUp = func(context.Context) error { close(up); return nil }
	stop := start(t, func(ctx context.Context) error { return store.Project(ctx, p) })
	select {
	case <-up:
	case <-time.After(patience):
		t.Fatal("the read model does not catch up")
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Project returned %v", err)
	}
	if applied != len(all) {
		t.Errorf("%d records were applied, of %d", applied, len(all))
	}
}
