package relay

import (
	"context"
	"time"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// first reports whether the first message of a session for a partition was sent. It is acknowledged before a second one is sent.
//
// A broker checks the sequence numbers of a producer only if it has seen that producer in the partition. Otherwise it accepts any. So if
// the first request is refused, for example because a leader is just being elected, and the second is in flight, the second may be
// accepted. Then the first is lost: the broker refuses it from there on, and librdkafka takes it as acknowledged, because what follows it
// is. The transaction commits without it. Kafka 4.5 fixes this for partitions that never had a record (KAFKA-15591).
//
// Topics are examined anew every refreshEvery, long before a broker forgets a producer that does not write (producer.id.expiration.ms).
type first uint8

const (
	firstUnsent first = iota
	firstSent
	firstAcknowledged
)

// sendFirsts sends the first messages for all partitions that the plan has from an index on, and returns when they are acknowledged. So a
// batch waits once at the most.
func (s *session) sendFirsts(ctx context.Context, from int) error {
	for i := from; i < len(s.plan); i++ {
		o := &s.plan[i]
		if o.sent || o.to.first[wire.Partition([]byte(o.r.Stream.ID), o.to.topic.Partitions)] != firstUnsent {
			continue
		}
		if err := s.send(ctx, i); err != nil {
			return err
		}
		o.sent = true
	}
	if err := s.acknowledged(ctx); err != nil {
		return err
	}
	s.firstsAcknowledged()
	return nil
}

func (s *session) firstsAcknowledged() {
	for _, f := range s.firsts {
		*f = firstAcknowledged
	}
	s.firsts = s.firsts[:0]
}

// acknowledged waits until librdkafka has no message any more, or has given up the transaction. A message that has failed makes the
// commit fail.
func (s *session) acknowledged(ctx context.Context) error {
	const step, look = time.Millisecond, 100
	for n := 1; s.p.Len() > 0; n++ {
		if err := client.Sleep(ctx, step); err != nil {
			return err
		}
		if n%look != 0 || s.r.AtLeastOnce != nil {
			continue
		}
		// Within a transaction this changes nothing. Its error is that of the transaction, if it has failed.
		if e, ok := client.KafkaError(s.p.BeginTransaction()); ok && (e.IsFatal() || e.TxnRequiresAbort()) {
			return wrap("publish", e)
		}
	}
	return nil
}
