package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// passing are the error codes after which another attempt may succeed although no setting, right or record has changed. Every
// other code is permanent, also one that a later release of Kafka adds: a stop says what is wrong, and repeating it does not.
var passing = codes(
	// Of librdkafka: the cluster cannot be reached, or the state of this client is at fault, which the next client does not have.
	// The brokers may learn of a password or certificate at any time.
	kafka.ErrTransport, kafka.ErrResolve, kafka.ErrAllBrokersDown, kafka.ErrAuthentication, kafka.ErrSsl, kafka.ErrNodeUpdate, kafka.ErrUnknownBroker,
	kafka.ErrTimedOut, kafka.ErrTimedOutQueue, kafka.ErrMsgTimedOut, kafka.ErrQueueFull, kafka.ErrIntr, kafka.ErrRetry, kafka.ErrCritSysResource,
	kafka.ErrWaitCoord, kafka.ErrWaitCache, kafka.ErrInProgress, kafka.ErrPrevInProgress, kafka.ErrConflict, kafka.ErrState, kafka.ErrOutdated,
	kafka.ErrPurgeQueue, kafka.ErrPurgeInflight, kafka.ErrFatal, kafka.ErrInconsistent, kafka.ErrGaplessGuarantee, kafka.ErrFenced, kafka.ErrFail,
	kafka.ErrUnknownTopic, kafka.ErrUnknownPartition, kafka.ErrIsrInsuff, kafka.ErrNoOffset, kafka.ErrPartitionEOF, kafka.ErrNoop, kafka.ErrNoent, // a new partition has no leader yet
	kafka.ErrBadMsg, kafka.ErrUnderflow, kafka.ErrPartial, kafka.ErrMaxPollExceeded, kafka.ErrAssignmentLost, kafka.ErrDestroy, kafka.ErrDestroyBroker,

	// Of brokers that start, stop, elect a leader or a coordinator, or are overloaded.
	kafka.ErrUnknown, kafka.ErrInvalidMsg, kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopicID, kafka.ErrLeaderNotAvailable, kafka.ErrNotLeaderForPartition,
	kafka.ErrRequestTimedOut, kafka.ErrBrokerNotAvailable, kafka.ErrReplicaNotAvailable, kafka.ErrStaleCtrlEpoch, kafka.ErrNetworkException,
	kafka.ErrCoordinatorLoadInProgress, kafka.ErrCoordinatorNotAvailable, kafka.ErrNotCoordinator, kafka.ErrNotEnoughReplicas,
	kafka.ErrNotEnoughReplicasAfterAppend, kafka.ErrNotController, kafka.ErrKafkaStorageError, kafka.ErrLogDirNotFound, kafka.ErrReassignmentInProgress,
	kafka.ErrListenerNotFound, kafka.ErrFencedLeaderEpoch, kafka.ErrUnknownLeaderEpoch, kafka.ErrStaleBrokerEpoch, kafka.ErrOffsetNotAvailable,
	kafka.ErrPreferredLeaderNotAvailable, kafka.ErrEligibleLeadersNotAvailable, kafka.ErrThrottlingQuotaExceeded, kafka.ErrRebootstrapRequired,
	kafka.ErrFetchSessionIDNotFound, kafka.ErrInvalidFetchSessionEpoch, kafka.ErrSaslAuthenticationFailed, kafka.ErrTopicAlreadyExists,

	// Of a group that rebalances.
	kafka.ErrIllegalGeneration, kafka.ErrUnknownMemberID, kafka.ErrRebalanceInProgress, kafka.ErrMemberIDRequired, kafka.ErrUnstableOffsetCommit,
	kafka.ErrFencedMemberEpoch, kafka.ErrStaleMemberEpoch, kafka.ErrGroupMaxSizeReached,

	// Of producers: the next session reads the checkpoint and begins with a new epoch.
	kafka.ErrOutOfOrderSequenceNumber, kafka.ErrDuplicateSequenceNumber, kafka.ErrInvalidProducerEpoch, kafka.ErrInvalidTxnState,
	kafka.ErrInvalidProducerIDMapping, kafka.ErrConcurrentTransactions, kafka.ErrTransactionCoordinatorFenced, kafka.ErrUnknownProducerID,
	kafka.ErrProducerFenced, kafka.ErrNoError,
	120, // TRANSACTION_ABORTABLE, which confluent-kafka-go has no name for
)

func codes(list ...kafka.ErrorCode) map[kafka.ErrorCode]bool {
	set := make(map[kafka.ErrorCode]bool, len(list))
	for _, code := range list {
		set[code] = true
	}
	return set
}

// Passes reports whether an error of a request may pass, so that the same request succeeds later.
func Passes(err error) bool {
	if errors.As(err, new(PermanentError)) || errors.Is(err, es.ErrInvalid) || errors.As(err, new(*DeniedError)) {
		return false
	}
	e, ok := KafkaError(err)
	if !ok {
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errTimeout)
	}
	return passing[e.Code()] && !e.IsFatal()
}

// remedies say what to do about permanent errors that are more than a missing right.
var remedies = map[kafka.ErrorCode]string{
	kafka.ErrInvalidTimestamp:            "raise message.timestamp.after.max.ms (or before) of the topic, or publish to another with Route",
	kafka.ErrTopicException:              "invalid, or like another topic but for dots and underscores; name another with Route",
	kafka.ErrMsgSizeTooLarge:             "raise max.message.bytes of the topic",
	kafka.ErrRecordListTooLarge:          "raise max.message.bytes and segment.bytes of the topic",
	kafka.ErrInvalidRecord:               "a setting of the topic refuses the record; compare it with a topic that works",
	kafka.ErrPolicyViolation:             "a policy of the brokers refuses it; fix the settings, or create the topic yourself",
	kafka.ErrInvalidConfig:               "fix the settings, or create the topic yourself",
	kafka.ErrInvalidPartitions:           "fix the settings, or create the topic yourself",
	kafka.ErrInvalidReplicationFactor:    "set Replication to at most the number of brokers",
	kafka.ErrInvalidTransactionTimeout:   "set transaction.timeout.ms to at most the brokers' transaction.max.timeout.ms",
	kafka.ErrInvalidSessionTimeout:       "set session.timeout.ms within the brokers' group.min and group.max.session.timeout.ms",
	kafka.ErrInconsistentGroupProtocol:   "a member of the group has another partition.assignment.strategy; use a group of its own",
	kafka.ErrUnsupportedCompressionType:  "set compression.type to one that the topic accepts",
	kafka.ErrUnsupportedForMessageFormat: "raise the topic's message format, or use newer brokers",
	kafka.ErrUnsupportedVersion:          "use Kafka 2.5 or newer",
	kafka.ErrUnsupportedSaslMechanism:    "set sasl.mechanisms to one that the brokers have enabled",
	kafka.ErrSecurityDisabled:            "the brokers have no authorizer",
}

// Final returns the error with its remedy if librdkafka's error within it is permanent, and otherwise nil.
func Final(err error) error {
	if denied := (*DeniedError)(nil); errors.As(err, &denied) {
		return err
	}
	e, ok := KafkaError(err)
	if !ok || passing[e.Code()] {
		return nil
	}
	if right, ok := rights[e.Code()]; ok {
		return &DeniedError{Operation: right.Operation, Resource: right.Resource, Err: err}
	}
	if remedy, ok := remedies[e.Code()]; ok {
		return fmt.Errorf("%w; %s", err, remedy)
	}
	return fmt.Errorf("%w; %s is permanent, so it is not retried", err, e.Code())
}

// Right is an operation on a resource, in the words of kafka-acls.
type Right struct{ Operation, Resource string }

// rights are those that are missing most likely if a call does not know which right it needs.
var rights = map[kafka.ErrorCode]Right{
	kafka.ErrTopicAuthorizationFailed:           {"Write", "the topic"},
	kafka.ErrGroupAuthorizationFailed:           {"Read", "the group"},
	kafka.ErrClusterAuthorizationFailed:         {"IdempotentWrite", "the cluster, or Write on the topic"},
	kafka.ErrTransactionalIDAuthorizationFailed: {"Write", "the transactional id"},
}

// DeniedError reports a missing right.
type DeniedError struct {
	Operation string
	Resource  string // such as topic bank.account
	Principal string // see WithPrincipal
	Err       error
}

func (e *DeniedError) Error() string {
	principal := e.Principal
	if principal == "" {
		principal = "the user"
	}
	return fmt.Sprintf("kafka: %s needs the right %s on %s: %s", principal, e.Operation, e.Resource, strings.TrimPrefix(e.Err.Error(), "kafka: "))
}

// Unwrap returns librdkafka's error.
func (e *DeniedError) Unwrap() error { return e.Err }

// Denied returns a [*DeniedError] if an error of a call says that the call lacks its right, and otherwise nil.
func Denied(err error, operation, resource string) error {
	e, ok := KafkaError(err)
	if _, denied := rights[e.Code()]; !ok || !denied || errors.As(err, new(*DeniedError)) {
		return nil
	}
	return &DeniedError{Operation: operation, Resource: resource, Err: err}
}

// WithPrincipal adds to a [*DeniedError] within an error which user lacks the right, and returns the error.
func WithPrincipal(err error, c Cluster) error {
	denied := (*DeniedError)(nil)
	name, ok := c.Config["sasl.username"]
	if !ok || !errors.As(err, &denied) || denied.Principal != "" {
		return err
	}
	before := denied.Error()
	denied.Principal = fmt.Sprintf("User:%v", name)
	return &namedError{strings.Replace(err.Error(), before, denied.Error(), 1), err}
}

// namedError is an error whose text was made before the principal was known.
type namedError struct {
	text string
	error
}

func (e *namedError) Error() string { return e.text }

// Unwrap returns the error itself.
func (e *namedError) Unwrap() error { return e.error }
