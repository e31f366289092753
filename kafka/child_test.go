package kafka_test

import (
	"context"
	"time"

	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/sqlite"
)

// relayInChild runs a relay of a store on a file, with a prefix and the address of a broker. It prints whether the relay works, and its position.
func relayInChild(ctx context.Context, args []string) error {
	store, err := sqlite.Open(args[0])
	if err != nil {
		return err
	}
	r := &kafka.Relay{
		Log: store, Leases: store, Lease: time.Second, Prefix: args[1], Topics: kafka.Topics{Partitions: 3}, Batch: 20,
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": args[2], "transaction.timeout.ms": 2000}},
	}
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			child.Say(r.Stats().Working, r.Stats().Position)
		}
	}()
	return r.Run(ctx)
}
