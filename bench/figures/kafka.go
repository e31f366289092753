package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/server"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/kafka"
)

func kafkaFigures() []figure {
	return []figure{
		{"relay-compact", "a relay of 250,000 records from Postgres, Compact, against a bare librdkafka loop that sends the same messages from memory in transactions of the same size", atLeast(0.6), relayed(true, kafka.Compact)},
		{"relay-cloudevents", "the same with CloudEvents headers", atLeast(0.6), relayed(true, kafka.CloudEvents)},
		{"relay-mem", "the same from Mem, Compact", atLeast(0.85), relayed(false, kafka.Compact)},
		{"relay-p50", "delay from an append in Postgres to a reader of committed messages, one append at a time, median", atMost(25, "ms"), relayDelay(50)},
		{"relay-p99", "the same, 99th percentile", atMost(80, "ms"), relayDelay(99)},
		{"relay-outbox", "a relay of 250,000 records from Postgres, Compact, against an outbox: a polled table, published with delivery reports and marked as sent, 100 rows at a time", atLeast(5), relayOutbox},
		{"relay-quota", "a relay of records of 2 KB under producer_byte_rate=100000, in the second half of a minute, against the quota", atLeast(0.8), relayQuota},
		{"deadletters-list", "time of listing no dead letters after 100,000 were retried, against listing an empty dead-letter topic", atMost(5, ""), times(deadLettersList)},
		{"source-pg", "a read model in Postgres from a topic of 250,000 records, Compact, one multi-row upsert per batch, against a consumer that only reads", atLeast(0.4), sourcePostgres},
	}
}

// backlog is the number of records that a relay has to publish.
const backlog = 250_000

// inTransaction is the number of records per transaction of the bare loop: the maximum of a relay.
const inTransaction = 5000

// few is a smaller effort than usual, because one run publishes a whole backlog.
func (s *session) few() *session {
	few := *s
	few.rounds, few.pairs, few.turn, few.warmUp = min(s.rounds, 2), min(s.pairs, 4), 1, 1
	return &few
}

// broker returns the cluster and starts it when the first figure needs it.
func (s *session) broker() (bootstrap string, err error) {
	if s.kafka == nil {
		if s.kafka, err = server.StartKafka(); err != nil {
			return "", err
		}
	}
	return s.kafka.Bootstrap, nil
}

// A gate is a log that seems empty until it is opened, so that a relay can take over before it is measured.
type gate struct {
	es.Log
	mu   sync.Mutex
	open chan struct{}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	if after >= 0 { // the head is requested
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		select {
		case <-open:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return g.Log.Changed(ctx, after)
}

// A relaying is a relay that publishes the whole log in each run.
type relaying struct {
	log       *gate
	records   int
	bootstrap string
	prefix    string
	encoding  kafka.Encoding

	relay *kafka.Relay
	stop  func() error
}

func newRelaying(r *round, log es.Log, records int, bootstrap string, encoding kafka.Encoding) *relaying {
	p := &relaying{log: &gate{Log: log}, records: records, bootstrap: bootstrap, prefix: "figures-" + rand.Text()[:8], encoding: encoding}
	r.cleanup(func() error { return p.end() })
	return p
}

func (p *relaying) topic() string { return p.prefix + ".account" }

func (p *relaying) end() error {
	if p.stop == nil {
		return nil
	}
	stop := p.stop
	p.stop = nil
	return stop()
}

// begin starts a relay and waits until it has taken over.
func (p *relaying) begin(ctx context.Context) error {
	if err := p.end(); err != nil {
		return err
	}
	p.log.shut()
	p.relay = &kafka.Relay{
		Log: p.log, Prefix: p.prefix, Encoding: p.encoding, Topics: kafka.Topics{Partitions: 6},
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": p.bootstrap}},
	}
	if err := p.relay.Reset(ctx, 0); err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.relay.Run(running) }()
	p.stop = func() error {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
	for p.relay.Stats().Transactions == 0 { // the transaction that takes over
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("the relay ended: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (p *relaying) publish(ctx context.Context) error {
	close(p.log.open)
	for p.relay.Stats().Position < es.Position(p.records) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond): // rarely, because polling costs time too
		}
	}
	return nil
}

func (p *relaying) side() measure.Side {
	return measure.Side{
		Name: "relay", Callers: 1, Units: p.records,
		Before: p.begin, Op: func(ctx context.Context, _ int) error { return p.publish(ctx) },
	}
}

// logOf returns a filled log.
func (s *session) logOf(ctx context.Context, r *round, durable bool, records int) (es.Log, error) {
	if !durable {
		log := new(es.Mem)
		return log, work.Fill(ctx, work.To(log), records, payload)
	}
	store, _, err := s.pgStore(ctx, r)
	if err != nil {
		return nil, err
	}
	return store, work.Fill(ctx, work.To(store), records, payload)
}

func relayed(durable bool, encoding kafka.Encoding) func(context.Context, *session) (outcome, error) {
	return func(ctx context.Context, s *session) (outcome, error) {
		bootstrap, err := s.broker()
		if err != nil {
			return outcome{}, err
		}
		records := min(backlog, s.records)
		return rates(func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
			log, err := s.logOf(ctx, r, durable, records)
			if err != nil {
				return ours, theirs, err
			}
			p := newRelaying(r, log, records, bootstrap, encoding)
			if err := p.begin(ctx); err != nil {
				return ours, theirs, err
			}
			if err := p.publish(ctx); err != nil {
				return ours, theirs, err
			}
			messages, err := readBack(ctx, bootstrap, p.topic(), records)
			if err != nil {
				return ours, theirs, err
			}
			bare, err := baseline.OpenKafka(ctx, bootstrap, p.prefix+"-bare")
			if err != nil {
				return ours, theirs, err
			}
			r.cleanup(bare.Close)
			theirs = measure.Side{Name: "bare loop", Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
				return bare.Send(ctx, p.topic(), messages, inTransaction)
			}}
			return p.side(), theirs, nil
		})(ctx, s.few())
	}
}

// readBack reads what a relay has published, so that the bare loop can send the same in the same order.
func readBack(ctx context.Context, bootstrap, topic string, records int) ([]*confluent.Message, error) {
	c, err := newReader(bootstrap, topic)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	messages := make([]*confluent.Message, records)
	for n := range messages {
		m, err := c.ReadMessage(30 * time.Second)
		if err != nil {
			return nil, fmt.Errorf("read back %d of %d messages: %w", n, records, err)
		}
		_, record, err := kafka.Decode(m)
		if err != nil {
			return nil, err
		}
		// Messages arrive by partition, but are sent in log order, so that a transaction has all partitions as a
		// relay's does.
		if at := int(record.Position); at < 1 || at > records || messages[at-1] != nil {
			return nil, fmt.Errorf("read back position %d, which is repeated or not in 1 to %d", at, records)
		}
		messages[record.Position-1] = &confluent.Message{Key: m.Key, Value: m.Value, Timestamp: m.Timestamp, Headers: m.Headers}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// newReader reads the committed messages of a topic of six partitions from the beginning.
func newReader(bootstrap, topic string) (*confluent.Consumer, error) {
	c, err := confluent.NewConsumer(&confluent.ConfigMap{
		"bootstrap.servers": bootstrap, "group.id": "figures", "enable.auto.commit": false, "isolation.level": "read_committed", "fetch.wait.max.ms": 100,
		"fetch.queue.backoff.ms": 50, "enable.metrics.push": false, "log_level": 0,
	})
	if err != nil {
		return nil, err
	}
	var all []confluent.TopicPartition
	for partition := range int32(6) {
		all = append(all, confluent.TopicPartition{Topic: &topic, Partition: partition, Offset: confluent.OffsetBeginning})
	}
	return c, c.Assign(all)
}

func relayDelay(percent float64) func(context.Context, *session) (outcome, error) {
	return func(ctx context.Context, s *session) (outcome, error) {
		bootstrap, err := s.broker()
		if err != nil {
			return outcome{}, err
		}
		appends := max(20, min(600, s.records/1000))
		var all, bare measure.Sample
		for range min(s.rounds, 2) {
			err := s.round(func(r *round) error {
				relayed, alone, err := relayDelays(ctx, s, r, bootstrap, appends)
				all.Latencies, bare.Latencies = append(all.Latencies, relayed...), append(bare.Latencies, alone...)
				return err
			})
			if err != nil {
				return outcome{}, err
			}
		}
		return outcome{value: ms(all, percent), details: []string{
			fmt.Sprintf("%d appends\tp50 %.3g ms\tp90 %.3g ms\tp99 %.3g ms", len(all.Latencies), ms(all, 50), ms(all, 90), ms(all, 99)),
			fmt.Sprintf("bare transactions of one message, alternating with them\tp50 %.3g ms\tp90 %.3g ms\tp99 %.3g ms", ms(bare, 50), ms(bare, 90), ms(bare, 99)),
		}}, nil
	}
}

// relayDelays appends one record at a time, when the previous one has arrived and a short time has passed. The bare
// client alternates with it by sending a message, whose time is the lower limit for the relay.
func relayDelays(ctx context.Context, s *session, r *round, bootstrap string, appends int) (relayed, bare []time.Duration, err error) {
	log, err := s.logOf(ctx, r, true, 10)
	if err != nil {
		return nil, nil, err
	}
	p := newRelaying(r, log, 10, bootstrap, kafka.CloudEvents)
	if err = p.begin(ctx); err == nil {
		err = p.publish(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	c, err := newReader(bootstrap, p.topic())
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = c.Close() }()
	alone, err := baseline.OpenKafka(ctx, bootstrap, p.prefix+"-bare")
	if err != nil {
		return nil, nil, err
	}
	r.cleanup(alone.Close)
	arrival := func(want es.Position) (*confluent.Message, error) {
		for {
			m, err := c.ReadMessage(30 * time.Second)
			if err != nil {
				return nil, err
			}
			if _, record, err := kafka.Decode(m); err != nil || record.Position >= want {
				return m, err
			}
		}
	}
	if _, err := arrival(10); err != nil {
		return nil, nil, err
	}
	for i := range appends {
		time.Sleep(time.Duration(5+i%20) * time.Millisecond)
		begin := time.Now()
		at, err := log.Append(ctx, es.Append{Stream: es.Stream{Kind: "account", ID: fmt.Sprint(i % 50)}, Expected: es.AnyVersion, Events: work.Events(1, payload)})
		if err != nil {
			return nil, nil, err
		}
		m, err := arrival(at)
		if err != nil {
			return nil, nil, err
		}
		relayed = append(relayed, time.Since(begin))
		begin = time.Now()
		if err := alone.Send(ctx, p.topic(), []*confluent.Message{{Key: m.Key, Value: m.Value, Timestamp: m.Timestamp, Headers: m.Headers}}, 1); err != nil {
			return nil, nil, err
		}
		if _, err := arrival(at); err != nil {
			return nil, nil, err
		}
		bare = append(bare, time.Since(begin))
	}
	return relayed, bare, nil
}

func relayOutbox(ctx context.Context, s *session) (outcome, error) {
	bootstrap, err := s.broker()
	if err != nil {
		return outcome{}, err
	}
	records := min(backlog, s.records)
	return rates(func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		store, url, err := s.pgStore(ctx, r)
		if err == nil {
			err = work.Fill(ctx, work.To(store), records, payload)
		}
		if err != nil {
			return ours, theirs, err
		}
		p := newRelaying(r, store, records, bootstrap, kafka.Compact)
		if err := p.begin(ctx); err != nil {
			return ours, theirs, err
		}
		if err := p.publish(ctx); err != nil { // creates the topic
			return ours, theirs, err
		}
		outbox, err := baseline.OpenOutbox(ctx, url, bootstrap)
		if err != nil {
			return ours, theirs, err
		}
		r.cleanup(outbox.Close)
		rows := min(10_000, records)
		var same []es.Record
		for r, err := range store.All(ctx, 0, es.Filter{}) {
			if err != nil {
				return ours, theirs, err
			}
			if same = append(same, r); len(same) == rows {
				break
			}
		}
		theirs = measure.Side{
			Name: "outbox", Callers: 1, Units: rows,
			Before: func(ctx context.Context) error { return outbox.Fill(ctx, p.topic(), same) },
			Op: func(ctx context.Context, _ int) error {
				for left := rows; left > 0; {
					sent, err := outbox.Publish(ctx, p.topic())
					if err != nil {
						return err
					}
					left -= sent
				}
				return nil
			},
		}
		return p.side(), theirs, nil
	})(ctx, s.few())
}
