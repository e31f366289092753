package client

import (
	"errors"
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// Invalid returns an error that wraps [es.ErrInvalid].
func Invalid(format string, args ...any) error {
	return fmt.Errorf("kafka: %w: %s", es.ErrInvalid, fmt.Sprintf(format, args...))
}

// Permanent is an error that another attempt does not fix.
type Permanent struct{ Err error }

func (p Permanent) Error() string { return p.Err.Error() }

// Unwrap returns the error itself.
func (p Permanent) Unwrap() error { return p.Err }

// Permanentf returns a [Permanent] error.
func Permanentf(format string, args ...any) error {
	return Permanent{fmt.Errorf("kafka: "+format, args...)}
}

// NoTopicError reports a missing topic. Package kafka documents it.
type NoTopicError struct {
	Topic string
}

func (e *NoTopicError) Error() string {
	return fmt.Sprintf("kafka: topic %s does not exist, or the user may not describe it: run its relay first, or fix the name", e.Topic)
}

// KafkaError returns librdkafka's error within another.
func KafkaError(err error) (e kafka.Error, ok bool) {
	ok = errors.As(err, &e)
	return e, ok
}
