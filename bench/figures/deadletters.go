package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/kafka"
)

// retriedKeys is the number of keys among which the retried letters are divided.
const retriedKeys = 100

// deadLettersList measures the time of listing no letters, after many were retried, and of a dead-letter topic that is empty.
func deadLettersList(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	bootstrap, err := r.session.broker()
	if err != nil {
		return ours, theirs, err
	}
	letters := min(100_000, r.session.records)
	log := new(es.Mem)
	for key := range retriedKeys {
		events := make([]es.Record, letters/retriedKeys)
		for i := range events {
			events[i] = es.Record{Type: "e", Data: []byte(`{"amount":100}`)}
		}
		stream := es.Stream{Kind: "account", ID: strconv.Itoa(key)}
		if _, err := log.Append(ctx, es.Append{Stream: stream, Expected: es.AnyVersion, Events: events}); err != nil {
			return ours, theirs, err
		}
	}
	p := newRelaying(r, log, letters, bootstrap, kafka.Compact)
	if err := errors.Join(p.begin(ctx), p.publish(ctx), p.end()); err != nil {
		return ours, theirs, err
	}
	retried := &letterbox{bootstrap: bootstrap, topic: p.topic(), group: p.prefix + "-retried"}
	none := &letterbox{bootstrap: bootstrap, topic: p.topic(), group: p.prefix + "-none"}
	if err := errors.Join(retried.parkAndRetry(ctx, letters), none.handle(ctx, letters)); err != nil {
		return ours, theirs, err
	}
	return retried.side("retried"), none.side("empty"), nil
}

// letterbox is the dead letters of a group.
type letterbox struct {
	bootstrap, topic, group string
}

func (l *letterbox) cluster() kafka.Cluster {
	return kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": l.bootstrap}}
}

func (l *letterbox) letters() *kafka.DeadLetters {
	return &kafka.DeadLetters{Cluster: l.cluster(), Topic: l.topic, Group: l.group}
}

// consume runs a consumer that parks until done returns true.
func (l *letterbox) consume(ctx context.Context, handle func(context.Context, es.Record) error, done func(c *kafka.Consumer) (bool, error)) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &kafka.Consumer{Cluster: l.cluster(), Group: l.group, Topics: []string{l.topic}, OnError: es.Park, Retries: -1}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(running, handle) }()
	for {
		ok, err := done(c)
		if ok || err != nil {
			cancel()
			if ending := <-ended; err == nil && !errors.Is(ending, context.Canceled) {
				err = ending
			}
			return err
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the consumer ended: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// handle handles all records, so that the dead-letter topic is there and empty.
func (l *letterbox) handle(ctx context.Context, records int) error {
	var n atomic.Int64
	handle := func(context.Context, es.Record) error { n.Add(1); return nil }
	return l.consume(ctx, handle, func(*kafka.Consumer) (bool, error) { return int(n.Load()) >= records, nil })
}

// parkAndRetry parks all records, and then retries them.
func (l *letterbox) parkAndRetry(ctx context.Context, records int) error {
	var handled atomic.Int64
	var fixed atomic.Bool
	handle := func(context.Context, es.Record) error {
		if !fixed.Load() {
			return errors.New("out of order")
		}
		handled.Add(1)
		return nil
	}
	return l.consume(ctx, handle, func(c *kafka.Consumer) (bool, error) {
		if fixed.Load() {
			return int(handled.Load()) >= records, nil
		}
		parked := 0
		for _, s := range c.Stats() {
			parked += int(s.PutAside)
		}
		if parked < records {
			return false, nil
		}
		fixed.Store(true)
		keys := make(map[string]bool)
		for letter, err := range l.letters().All(ctx) {
			if err != nil {
				return false, err
			}
			if keys[letter.Key] {
				continue
			}
			keys[letter.Key] = true
			if err := l.letters().Retry(ctx, letter); err != nil {
				return false, err
			}
		}
		return false, nil
	})
}

func (l *letterbox) side(name string) measure.Side {
	return measure.Side{Name: name, Callers: 1, Op: func(ctx context.Context, _ int) error {
		for letter, err := range l.letters().All(ctx) {
			if err != nil {
				return err
			}
			return fmt.Errorf("letter %d of %s is still parked", letter.Letter, letter.Key)
		}
		return nil
	}}
}
