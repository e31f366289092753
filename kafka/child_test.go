package kafka_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/sqlite"
)

// child is a process of its own that relays the log in a file until it is killed. What it says on standard output is its position.
func child(file string) {
	store, err := sqlite.Open(file)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	r := &kafka.Relay{
		Log: store, Leases: store, Lease: time.Second, Prefix: os.Getenv("KAFKA_TEST_PREFIX"), Topics: kafka.Topics{Partitions: 3}, Batch: 20,
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": os.Getenv("KAFKA_TEST_BOOTSTRAP"), "transaction.timeout.ms": 2000}},
	}
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			fmt.Println(r.Stats().Working, r.Stats().Position)
		}
	}()
	fmt.Println("error", r.Run(context.Background()))
	os.Exit(1)
}
