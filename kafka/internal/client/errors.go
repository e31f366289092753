package client

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// Invalid returns an error that wraps [es.ErrInvalid].
func Invalid(format string, args ...any) error {
	return fmt.Errorf("kafka: %w: %s", es.ErrInvalid, fmt.Sprintf(format, args...))
}

// NotNegative returns an error that names a setting below 0, if there is one.
func NotNegative(of string, settings map[string]int64) error {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if settings[name] < 0 {
			return Invalid("%s: %s is negative: 0 is the default", of, name)
		}
	}
	return nil
}

// PermanentError is an error that another attempt does not fix.
type PermanentError struct{ Err error }

func (p PermanentError) Error() string { return p.Err.Error() }

// Unwrap returns the error itself.
func (p PermanentError) Unwrap() error { return p.Err }

// Permanentf returns a [PermanentError] error.
func Permanentf(format string, args ...any) error {
	return PermanentError{fmt.Errorf("kafka: "+format, args...)}
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
