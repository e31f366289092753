package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

// patience is how long a test waits for an expected condition.
const patience = 5 * time.Minute

// publisher writes records to topics as a relay does, in transactions that the test commits or aborts.
type publisher struct {
	t        testing.TB
	producer *confluent.Producer
	store    string
	version  map[es.Stream]es.Version
	position es.Position
	encoding kafka.Encoding
	topic    string
}

func newPublisher(t testing.TB, b bank, largest ...int) *publisher {
	t.Helper()
	p, err := confluent.NewProducer(&confluent.ConfigMap{
		"bootstrap.servers": b.Bootstrap, "transactional.id": b.Prefix, "partitioner": "murmur2_random",
		"go.delivery.reports": false, "enable.metrics.push": false, "log_level": 3, "message.max.bytes": slices.Max(append(largest, 1_000_000)),
		"max.in.flight.requests.per.connection": 1, // so that the first request of a partition is not lost when its leader has just been elected
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	go func() {
		for range p.Events() { // the producer blocks when its events are not received
		}
	}()
	if err := p.InitTransactions(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &publisher{t: t, producer: p, store: "store-1", version: make(map[es.Stream]es.Version), topic: b.topic}
}

// record returns the next record of a stream.
func (p *publisher) record(id, data string) es.Record {
	stream := es.Stream{Kind: "account", ID: id}
	p.version[stream]++
	p.position++
	return es.Record{
		Stream: stream, Version: p.version[stream], Position: p.position,
		Time: time.UnixMicro(1e15 + int64(p.position)*1000).UTC(), Type: "happened", Data: []byte(data),
	}
}

// send writes records to their topics in one transaction, which it commits or aborts.
func (p *publisher) send(commit bool, records ...es.Record) {
	p.t.Helper()
	p.transact(commit, func() error {
		for _, r := range records {
			m, err := p.encoding.Encode(p.store, r, p.topic)
			if err != nil {
				return err
			}
			for err = p.producer.Produce(m, nil); full(err); err = p.producer.Produce(m, nil) {
				p.producer.Flush(100)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// transact produces in a transaction, which it commits or aborts. If a busy broker makes it fail, it aborts and begins again.
func (p *publisher) transact(commit bool, produce func() error) {
	p.t.Helper()
	for {
		err := p.producer.BeginTransaction()
		if err == nil {
			err = produce()
		}
		switch {
		case err != nil:
		case commit:
			err = p.end(p.producer.CommitTransaction)
		default:
			p.producer.Flush(10_000) // otherwise aborted messages never reach the topic
			err = p.end(p.producer.AbortTransaction)
		}
		if err == nil {
			return
		}
		var e confluent.Error
		if !errors.As(err, &e) || !e.TxnRequiresAbort() {
			p.t.Fatal(err)
		}
		p.t.Logf("sending again: %v", err)
		if err := p.end(p.producer.AbortTransaction); err != nil {
			p.t.Fatal(err)
		}
	}
}

// end ends a transaction. It repeats a call that had no answer in time.
func (p *publisher) end(call func(context.Context) error) error {
	for limit := time.Now().Add(patience); ; {
		err := call(p.t.Context())
		var e confluent.Error
		if !errors.As(err, &e) || !e.IsRetriable() || time.Now().After(limit) {
			return err
		}
	}
}

// full reports whether the queue of a producer is full.
func full(err error) bool {
	var e confluent.Error
	return errors.As(err, &e) && e.Code() == confluent.ErrQueueFull
}

// publish writes a number of records of several accounts in a few transactions. Every second one is aborted first.
func (p *publisher) publish(records, accounts int) []es.Record {
	p.t.Helper()
	var all []es.Record
	for len(all) < records {
		var batch []es.Record
		for range min(97, records-len(all)) {
			n := len(all) + len(batch)
			batch = append(batch, p.record(fmt.Sprintf("a%d", n%accounts), fmt.Sprintf(`{"n":%d}`, n)))
		}
		if len(all)%2 == 0 {
			p.send(false, batch...)
		}
		p.send(true, batch...)
		all = append(all, batch...)
	}
	return all
}

// collector is a handler that collects its records.
type collector struct {
	mu      sync.Mutex
	records []es.Record
	ids     map[string]int
	changed chan struct{}
	fail    func(r es.Record) error
}

func newCollector() *collector {
	return &collector{ids: make(map[string]int), changed: make(chan struct{}, 1)}
}

func (c *collector) handle(_ context.Context, r es.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		if err := c.fail(r); err != nil {
			return err
		}
	}
	c.records = append(c.records, r)
	c.ids[r.ID()]++
	select {
	case c.changed <- struct{}{}:
	default:
	}
	return nil
}

// await waits until a condition holds for the collected records.
func (c *collector) await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	limit := time.After(patience)
	for {
		c.mu.Lock()
		ok, n := holds(), len(c.records)
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-c.changed:
		case <-limit:
			t.Fatalf("still waiting for %s after %d records", what, n)
		}
	}
}

// has reports whether all the records were handled.
func (c *collector) has(records []es.Record) func() bool {
	return func() bool {
		for _, r := range records {
			if c.ids[r.ID()] == 0 {
				return false
			}
		}
		return true
	}
}

// inOrder checks that the first deliveries of each stream are in order.
func (c *collector) inOrder(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	last := make(map[es.Stream]es.Version)
	for _, r := range c.records {
		if r.Version > last[r.Stream]+1 {
			t.Errorf("%s was handled after version %d", r.ID(), last[r.Stream])
		}
		last[r.Stream] = max(last[r.Stream], r.Version)
	}
}

// testLog returns a logger that writes to the test's log while the test runs.
func testLog(t testing.TB) *slog.Logger {
	w := &logWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type logWriter struct {
	mu sync.Mutex
	t  testing.TB
}

var _ io.Writer = (*logWriter)(nil)

// Write implements [io.Writer].
func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// start runs a function until the test ends or stop is called.
func start(t testing.TB, run func(ctx context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(patience):
				t.Error("the function has not returned after its context ended")
			}
		})
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}
