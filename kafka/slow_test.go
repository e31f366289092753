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

// A consumer polls while its handlers run. So a handler that takes longer than max.poll.interval.ms keeps its partition, and
// no record is handled twice.
func TestSlowHandlerKeepsItsPartition(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: the handler takes 20s")
	}
	t.Parallel()
	const poll = 10 * time.Second // longer than a busy machine delays heartbeats
	b := newBank(t, testserver.FakeBroker(t, kafkatest.Options{}), 1)
	all := newPublisher(t, b).publish(20, 3)
	got, slow := newCollector(), sync.OnceFunc(func() { time.Sleep(2 * poll) }) // exceeds the interval
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
	run() // another member that would get the partition
	got.await(t, "all records", got.has(all))
	got.inOrder(t)
	if len(got.records) != len(all) {
		t.Errorf("%d records were handled, want %d", len(got.records), len(all))
	}
}

// A source is in no group, so nothing limits how long a handler of a read model takes.
func TestSlowReadModelKeepsItsShard(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: the handler takes 3s")
	}
	t.Parallel()
	b := newBank(t, testserver.FakeBroker(t, kafkatest.Options{}), 1)
	all := newPublisher(t, b).publish(200, 5)
	store, _ := openFile(t)
	topics := source(t, b, func(c *kafka.SourceConfig) {
		c.Cluster.Config["session.timeout.ms"], c.Cluster.Config["max.poll.interval.ms"], c.Cluster.Config["heartbeat.interval.ms"] = 1000, 1000, 100
	})
	slow := sync.OnceFunc(func() { time.Sleep(3 * time.Second) }) // exceeds the interval
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
		t.Fatal("the read model has not caught up")
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Project returned %v", err)
	}
	if applied != len(all) {
		t.Errorf("%d records were applied, want %d", applied, len(all))
	}
}
