package kafka

import (
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// Encode returns the message for a record, for tests.
func (e Encoding) Encode(store string, r es.Record, topic string) (*kafka.Message, error) {
	return wire.NewEncoder(store, wire.Encoding(e), nil).Encode(&r, &topic, nil)
}

// Hook calls f at each step of a session. Its error ends Run as if the process had been killed there.
func (r *Relay) Hook(f func(step string) error) { r.hook = f }

// Refresh sets how often the relay examines its topics.
func (r *Relay) Refresh(every time.Duration) { r.refresh = every }

// PartitionFor returns the partition of a key.
func PartitionFor(key []byte, partitions int32) int32 { return wire.Partition(key, partitions) }
