package relay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// publish is the loop of a session. It has no transaction open while it waits for records.
func (s *session) publish(ctx context.Context, ahead *readAhead) (published bool, err error) {
	idle := time.NewTimer(s.r.KeepAlive)
	defer idle.Stop()
	refresh := time.NewTicker(cmp.Or(s.r.Refresh, refreshEvery))
	defer refresh.Stop()
	var b batch
	for {
		keepAlive := false
		select {
		case <-ctx.Done():
			return published, ctx.Err()
		case <-ahead.ready:
		case <-idle.C:
			keepAlive = true
		case <-refresh.C:
			if err := s.topics.refresh(ctx, &s.c); err != nil {
				return published, err
			}
			continue
		}
		if b, err = ahead.take(b, s.r.pace.bytes()); err != nil {
			return published, err
		}
		if len(b.records) == 0 && !keepAlive && b.upTo-s.c.Position < filteredStep {
			continue
		}
		if err := s.transaction(ctx, b); err != nil {
			return published, err
		}
		published = true
		s.r.Stats.caughtUpTo(ahead.oldest())
		idle.Reset(s.r.KeepAlive)
	}
}

// transaction publishes a batch with the new checkpoint.
func (s *session) transaction(ctx context.Context, b batch) error {
	return s.transactionWith(ctx, b, func(*checkpoint) {})
}

// transactionWith is transaction with a change to the new checkpoint.
func (s *session) transactionWith(ctx context.Context, b batch, change func(*checkpoint)) error {
	c := s.c.clone()
	if err := s.makePlan(ctx, &b, &c); err != nil {
		return err
	}
	change(&c)
	if err := s.r.step("batch"); err != nil {
		return err
	}
	if err := s.pause(ctx); err != nil {
		return err
	}
	if err := s.p.BeginTransaction(); err != nil {
		return wrap("begin a transaction", err)
	}
	if err := s.r.step("begun"); err != nil {
		return err
	}
	s.sending = s.sendingOf(b)
	err := s.fill(ctx, &c)
	if err == nil {
		err = s.r.step("produced")
	}
	if err == nil {
		err = s.commit(ctx)
	}
	if ctx.Err() == nil {
		s.paced(err)
	}
	if err != nil {
		return err
	}
	if err := s.r.step("committed"); err != nil {
		return err
	}
	s.last = time.Now()
	s.firstsAcknowledged()
	s.r.Stats.published(int(c.Records-s.c.Records), c.Position)
	s.c = c
	s.showParked()
	return nil
}

// fill sends a batch in the open transaction, and aborts the transaction if that fails or the topics have changed.
func (s *session) fill(ctx context.Context, c *checkpoint) error {
	sending, stop := context.WithCancel(ctx)
	defer stop()
	unchanged := s.recheck(ctx, stop)
	err := s.produce(sending, c)
	changed := unchanged()
	switch {
	case errors.As(err, new(crash)):
		return err
	case changed != nil:
		aborted := s.abort(ctx) // before the topics are examined, which readers need not wait for
		return errors.Join(s.examineAgain(ctx, changed), aborted)
	case err != nil:
		return errors.Join(err, s.abort(ctx))
	}
	return nil
}

// commitGap is how long a transaction waits after the end of the one before. A commit is acknowledged when it is certain, which is before each partition
// knows it. Until then the coordinator takes no partition into the next transaction, and librdkafka asks again after 20 ms, in which nothing is sent.
const commitGap = 3 * time.Millisecond

// pause waits for the commit gap.
func (s *session) pause(ctx context.Context) error {
	if left := commitGap - time.Since(s.last); left > 0 {
		return client.Sleep(ctx, left)
	}
	return nil
}

// produce hands the messages to librdkafka, the checkpoint first. Each partition joins the transaction by a request to its coordinator, and the
// checkpoint's request overlaps with sending the records.
func (s *session) produce(ctx context.Context, c *checkpoint) error {
	if err := s.produceCheckpoint(ctx, c); err != nil {
		return err
	}
	for i := range s.plan {
		if err := s.send(ctx, i); err != nil {
			return err
		}
		if i == len(s.plan)/2 {
			if err := s.r.step("producing"); err != nil {
				return err
			}
		}
	}
	return nil
}

// send hands a message of the plan to librdkafka, unless sendFirsts has.
func (s *session) send(ctx context.Context, i int) error {
	o := &s.plan[i]
	if o.sent {
		return nil
	}
	m, err := s.encode(o)
	if err != nil {
		return err
	}
	if first := &o.to.first[m.TopicPartition.Partition]; *first != firstAcknowledged {
		if *first == firstSent {
			if err := s.sendFirsts(ctx, i); err != nil {
				return err
			}
			if m, err = s.encode(o); err != nil { // again, because the encoder has reused its memory
				return err
			}
		} else {
			*first = firstSent
			s.firsts = append(s.firsts, first)
		}
	}
	if err := s.enqueue(ctx, m); err != nil {
		return fmt.Errorf("kafka: publish %s to %s: %w", o.r.ID(), o.to.name, err)
	}
	return nil
}

// encode returns a message for its partition of a topic. It is valid until the next call.
func (s *session) encode(o *outgoing) (*kafka.Message, error) {
	m, err := s.encoder.Encode(o.r, &o.to.name, o.extra)
	if err != nil {
		return nil, err
	}
	m.TopicPartition.Partition = wire.Partition(m.Key, o.to.topic.Partitions)
	return m, nil
}

func (s *session) produceCheckpoint(ctx context.Context, c *checkpoint) error {
	written, list := s.list(c)
	if list != nil {
		if err := s.produceState(ctx, s.r.key+listSuffix, list); err != nil {
			return err
		}
		if s.last.IsZero() { // the first message of the partition
			if err := s.acknowledged(ctx); err != nil {
				return err
			}
		}
	}
	return s.produceState(ctx, s.r.key, written)
}

// produceState writes a message to the checkpoint topic.
func (s *session) produceState(ctx context.Context, key string, state any) error {
	value, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("kafka: checkpoint: %w", err)
	}
	if len(value) > s.r.checkpointLimit-1024 {
		return client.Permanentf("checkpoint of relay %s has %d bytes, its topic allows %d; raise the max.message.bytes of %s",
			s.r.Name, len(value), s.r.checkpointLimit, s.r.Checkpoints)
	}
	err = s.enqueue(ctx, &kafka.Message{
		TopicPartition: kafka.TopicPartition{Topic: &s.r.Checkpoints, Partition: 0},
		Key:            []byte(key), Value: value,
	})
	if err != nil {
		return fmt.Errorf("kafka: write the checkpoint: %w", err)
	}
	return nil
}

// enqueue hands over one message. It waits while the queue is full.
func (s *session) enqueue(ctx context.Context, m *kafka.Message) error {
	for {
		err := s.p.Produce(m, nil)
		if e, ok := client.KafkaError(err); !ok || e.Code() != kafka.ErrQueueFull {
			return err
		}
		if err := client.Sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// commit commits the transaction. After an error the outcome is unknown.
func (s *session) commit(ctx context.Context) error {
	var last time.Time // once ctx is done
	for {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(callFor, s.r.pace.longer/4))
		err := s.p.CommitTransaction(limit)
		cancel()
		if err == nil {
			return nil
		}
		e, ok := client.KafkaError(err)
		switch {
		case ok && !e.IsFatal() && e.TxnRequiresAbort():
			return errors.Join(wrap("commit", err), s.abort(ctx))
		case !ok || e.IsFatal() || !e.IsRetriable():
			return wrap("commit", err)
		}
		if ctx.Err() != nil && last.IsZero() {
			last = time.Now().Add(client.TransactionTimeout)
		}
		if !last.IsZero() && time.Now().After(last) {
			return wrap("commit", err)
		}
		s.count()
		err = s.r.trouble.Explain(err)
		s.r.Stats.retried(err)
		s.r.log.Warn("kafka: retrying commit", "err", err)
	}
}

// abort aborts the transaction, so that readers need not wait for its timeout. If that fails, the next session's producer does it.
func (s *session) abort(ctx context.Context) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), callFor)
	defer cancel()
	if err := s.p.AbortTransaction(limit); err != nil {
		return wrap("abort", err)
	}
	return nil
}
