package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/notices"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// publication runs a relay that publishes each event once.
type publication struct {
	brokers  string
	embedded *kafkatest.Broker // nil if Kafka is real
	relay    *kafka.Relay
}

// publish prepares to publish the log to a cluster, or to a broker in this process if brokers is empty.
func publish(store projection.Database, brokers string) (*publication, error) {
	p := &publication{brokers: brokers}
	if brokers == "" {
		var err error
		if p.embedded, err = kafkatest.New(kafkatest.Options{}); err != nil {
			return nil, err
		}
		p.brokers = p.embedded.Bootstrap()
	}
	p.relay = &kafka.Relay{
		Log:     store,
		Leases:  store,
		Prefix:  "bank",
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": p.brokers}},
		Topics:  kafka.Topics{Partitions: 4},
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	return p, nil
}

// await waits until everything up to a position is published.
func (p *publication) await(ctx context.Context, position es.Position) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.relay.Stats().Position < position {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// show prints what was published. No other program can read from an embedded broker, so show reads the topic itself, like program notify.
func (p *publication) show(ctx context.Context, log es.Log) error {
	head, err := es.Head(ctx, log)
	if err != nil {
		return err
	}
	if err := p.await(ctx, head); err != nil {
		return err
	}
	stats := p.relay.Stats()
	fmt.Printf("\nThe relay has published all %d events in %d transactions to %s.\n", stats.Records, stats.Transactions, p.where())
	if p.embedded == nil {
		fmt.Printf("To see another service read them: go run ./examples/bank/notify -kafka %s\n", p.brokers)
		return nil
	}
	dir, err := os.MkdirTemp("", "notices")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return consume(ctx, p.brokers, filepath.Join(dir, "notices.db"))
}

func (p *publication) where() string {
	if p.embedded != nil {
		return "a broker in this program"
	}
	return p.brokers
}

// consume runs the projection of program notify until it has caught up.
func consume(ctx context.Context, brokers, path string) (err error) {
	source, err := notices.Open(ctx, brokers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	store, err := sqlite.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	p := notices.Projection(source)
	p.Once = true
	if err := store.Project(ctx, p); err != nil {
		return err
	}
	s, err := notices.Summarize(ctx, store, 3)
	if err != nil {
		return err
	}
	fmt.Printf("Another service with its own database has read the topic and written %d notices to the owners of %d accounts:\n", s.Notices, s.Accounts)
	for _, text := range s.Last {
		fmt.Println("    " + text)
	}
	return nil
}

// close ends the embedded broker.
func (p *publication) close() {
	if p.embedded != nil {
		p.embedded.Close()
	}
}
