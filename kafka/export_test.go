package kafka

import (
	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// Encode returns the message for a record, for tests.
func (e Encoding) Encode(store string, r es.Record, topic string) (*kafka.Message, error) {
	return newEncoder(store, e, "").encode(&r, &topic)
}
