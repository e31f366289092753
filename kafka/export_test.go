package kafka

import (
	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// Encode returns the message for a record, for tests.
func (e Encoding) Encode(store string, r es.Record, topic string) (*kafka.Message, error) {
	return wire.NewEncoder(store, wire.Encoding(e), nil).Encode(&r, &topic)
}

// Hook has a function called at each step of the relay's loop, whose error ends Run there as a crash would end the process.
func (r *Relay) Hook(f func(step string) error) { r.hook = f }

// PartitionFor is where a relay puts a key.
func PartitionFor(key []byte, partitions int32) int32 { return wire.Partition(key, partitions) }
