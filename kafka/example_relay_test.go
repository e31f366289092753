package kafka_test

import (
	"context"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

func ExampleRelay() {
	broker, err := kafkatest.New(kafkatest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer broker.Close()
	store := new(es.Mem)
	_, err = store.Append(context.Background(), es.Append{Stream: es.Stream{Kind: "account", ID: "ann"}, Events: []es.Record{{Type: "opened"}, {Type: "deposited"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)

	relay := &kafka.Relay{
		Log:     store,
		Leases:  store,
		Prefix:  "bank",
		Topics:  kafka.Topics{Partitions: 6},
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap()}},
	}
	go func() { done <- relay.Run(ctx) }()

	for relay.Stats().Position < 2 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	fmt.Println(<-done)
	fmt.Println(relay.Stats().Records, "records are in topic bank.account")
	// Output:
	// context canceled
	// 2 records are in topic bank.account
}
