package kafka_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// playConsumer is a process that appends the id of each record to a file. Its arguments are file, broker, topic and group.
func playConsumer(ctx context.Context, args []string) error {
	file, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	c := &kafka.Consumer{
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": args[1], "session.timeout.ms": 6000, "heartbeat.interval.ms": 300, "max.poll.interval.ms": 8000}},
		Topics:  []string{args[2]}, Group: args[3], Workers: 2, OnError: es.Park, Retries: -1, Buffer: 20,
	}
	return c.Run(ctx, func(_ context.Context, r es.Record) error {
		if r.Stream.ID == "a3" && r.Version >= 20 {
			return errBroken
		}
		_, err := fmt.Fprintf(file, "%s %d\n", r.Stream.ID, r.Version)
		return err
	})
}

// handled returns how often each record is in the file of [playConsumer]. It checks that first occurrences are in stream order.
func handled(t testing.TB, path string) map[string]int {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		return nil // no record has been handled yet
	}
	defer file.Close()
	times, last := make(map[string]int), make(map[string]int)
	for {
		var id string
		var version int
		if _, err := fmt.Fscanf(file, "%s %d\n", &id, &version); err == io.EOF || err == io.ErrUnexpectedEOF {
			return times
		} else if err != nil {
			t.Fatal(err)
		}
		if version > last[id]+1 {
			t.Fatalf("version %d of %s came after %d", version, id, last[id])
		}
		last[id] = max(last[id], version)
		times[fmt.Sprintf("account/%s/%d", id, version)]++
	}
}

// settled waits until a group has a number of members and does not rebalance.
func (b bank) settled(t testing.TB, group string, members int) {
	t.Helper()
	a := b.admin(t)
	insist(t, "the group settles", func() error {
		described, err := a.DescribeConsumerGroups(t.Context(), []string{group})
		if err != nil {
			return err
		}
		if g := described.ConsumerGroupDescriptions[0]; g.State != confluent.ConsumerGroupStateStable || len(g.Members) != members {
			return fmt.Errorf("it is %v, of %d", g.State, len(g.Members))
		}
		return nil
	})
}

func TestKilledConsumersSkipNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: waits for the session timeouts of killed consumers")
	}
	t.Parallel()
	each(t, 4, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		path, group := t.TempDir()+"/handled", b.Prefix+"-notify"
		run := func() *child.Process { return child.Start(t, "consume", path, b.Bootstrap, b.topic, group) }
		processes := []*child.Process{run(), run()}
		var all []es.Record
		for i := range 5 {
			before := len(handled(t, path))
			all = append(all, p.publish(150, 10)...)
			insist(t, "the consumers go on", func() error {
				if n := len(handled(t, path)); n <= before {
					return fmt.Errorf("%d records have been handled", n)
				}
				return nil
			})
			if b.Fake != nil {
				b.settled(t, group, len(processes)) // because kfake notices a death during a rebalance late
			}
			processes[i%2].Stop()
			processes[i%2] = run()
		}
		bad, good := of(all, "a3", 20)
		insist(t, "all records are handled or parked", func() error {
			times := handled(t, path)
			for _, r := range good {
				if times[r.ID()] == 0 {
					return fmt.Errorf("%s was not handled", r.ID())
				}
			}
			parked := make(map[string]bool)
			for letter, err := range deadLetters(b).All(t.Context()) {
				if err != nil {
					return err
				}
				parked[letter.Record.ID()] = true
			}
			for _, r := range bad {
				if times[r.ID()] > 0 || !parked[r.ID()] {
					return fmt.Errorf("%s was handled %d times and parked %v", r.ID(), times[r.ID()], parked[r.ID()])
				}
			}
			return nil // a record handled before the kill and delivered again may be parked too
		})
	})
}

func TestReadersSurviveABrokerRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: waits until clients connect again")
	}
	t.Parallel()
	b := newBank(t, testserver.FakeBroker(t, kafkatest.Options{Folder: t.TempDir()}), 3)
	p := newPublisher(t, b)
	source := source(t, b)
	store, _ := openFile(t)
	quiet := slog.New(slog.DiscardHandler)
	stopModel := start(t, func(ctx context.Context) error { return store.Project(ctx, sqliteModel("model", source, quiet)) })
	c, got := consumer(t, b), newCollector()
	c.Logger = quiet
	stopConsumer := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })

	all := p.publish(200, 10)
	for i := range 3 {
		switch i {
		case 0:
			b.Fake.Disconnect()
		case 1:
			b.Fake.Cut()
			time.AfterFunc(2*time.Second, b.Fake.Heal)
		case 2:
			if err := b.Fake.Restart(); err != nil {
				t.Fatal(err)
			}
		}
		p = newPublisherFrom(t, b, all) // the previous one may have lost its transaction
		all = append(all, p.publish(200, 10)...)
	}
	got.await(t, "all records", got.has(all))
	insist(t, "the read model has all records", func() error {
		var n int
		if err := store.DB().QueryRowContext(t.Context(), sumHeads).Scan(&n); err != nil || n != len(all) {
			return fmt.Errorf("it has %d of %d, %w", n, len(all), err)
		}
		return nil
	})
	_ = stopConsumer()
	_ = stopModel()
	got.inOrder(t)
}
