package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// Invalid returns an error that wraps [es.ErrInvalid].
func Invalid(format string, args ...any) error {
	return fmt.Errorf("kafka: %w: %s", es.ErrInvalid, fmt.Sprintf(format, args...))
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

// Passes reports whether an error of a request may pass, so that the same request succeeds later: the cluster is not available, or is busy.
func Passes(err error) bool {
	if errors.As(err, new(PermanentError)) || errors.Is(err, es.ErrInvalid) {
		return false
	}
	e, ok := KafkaError(err)
	if !ok {
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errTimeout)
	}
	switch e.Code() {
	case kafka.ErrTimedOut, kafka.ErrTimedOutQueue, kafka.ErrTransport, kafka.ErrAllBrokersDown, kafka.ErrResolve, kafka.ErrAuthentication, kafka.ErrSsl,
		kafka.ErrWaitCoord, kafka.ErrWaitCache, kafka.ErrRequestTimedOut, kafka.ErrNetworkException, kafka.ErrBrokerNotAvailable, kafka.ErrReplicaNotAvailable,
		kafka.ErrLeaderNotAvailable, kafka.ErrNotLeaderForPartition, kafka.ErrNotController, kafka.ErrCoordinatorLoadInProgress, kafka.ErrCoordinatorNotAvailable,
		kafka.ErrNotCoordinator, kafka.ErrKafkaStorageError, kafka.ErrThrottlingQuotaExceeded:
		return true
	}
	return e.IsRetriable() && !e.IsFatal()
}
