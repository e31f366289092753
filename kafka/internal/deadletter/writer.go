package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// MaxPending is the number of entries that a Writer sends before its owner must call Flush.
const MaxPending = 500

// Writer sends entries to one partition and waits until the broker has acknowledged them. It belongs to one goroutine.
// Each entry may carry a value, which Flush returns once the entry is written.
type Writer[T any] struct {
	partition *Partition
	reports   chan kafka.Event
	pending   int
}

// Pending returns the number of entries that Flush has not seen acknowledged.
func (w *Writer[T]) Pending() int { return w.pending }

// Send sends an entry with the values it carries.
func (w *Writer[T]) Send(ctx context.Context, p *Partition, m *kafka.Message, values ...T) error {
	if p == nil {
		return errors.New("there is no dead-letter topic: OnError was es.Stop when the run began")
	}
	if w.reports == nil {
		// Room for all entries, so that the producer never blocks on a Writer that is no longer flushed.
		w.partition, w.reports = p, make(chan kafka.Event, MaxPending+2)
	}
	m.TopicPartition = p.At(int64(kafka.OffsetInvalid))
	m.Opaque = values
	for attempt := 0; ; attempt++ {
		err := p.producer.Produce(m, w.reports)
		var full kafka.Error
		if errors.As(err, &full) && full.Code() == kafka.ErrQueueFull {
			if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return explain(p.producer, p.Partition, m, err)
		}
		w.pending++
		return nil
	}
}

// Flush waits until all entries are acknowledged and read back by the Partition. It returns the values of those that are.
func (w *Writer[T]) Flush(ctx context.Context) (values []T, err error) {
	last := int64(-1)
	for w.pending > 0 {
		select {
		case event := <-w.reports:
			m, ok := event.(*kafka.Message)
			if !ok {
				continue
			}
			w.pending--
			if m.TopicPartition.Error != nil {
				err = explain(w.partition.producer, w.partition.Partition, m, m.TopicPartition.Error)
				continue
			}
			last = max(last, int64(m.TopicPartition.Offset))
			values = append(values, m.Opaque.([]T)...)
		case <-ctx.Done():
			return values, ctx.Err()
		}
	}
	if err == nil && last >= 0 {
		err = w.partition.await(ctx, last)
	}
	return values, err
}

// explain adds to an error what to do about it.
func explain(producer *client.Producer, p client.Partition, m *kafka.Message, err error) error {
	if fatal := producer.GetFatalError(); fatal != nil {
		err = fatal // such as that the user may write to no topic; the report only says that the message was purged
	}
	failed := fmt.Errorf("%v: %w", p, err)
	if e, ok := client.KafkaError(err); ok && e.Code() == kafka.ErrMsgSizeTooLarge {
		return fmt.Errorf("%w; raise max.message.bytes of %s to %d or more", failed, p.Topic, wire.BatchSize(m))
	}
	return cmp.Or(client.Denied(failed, "Write", "topic "+p.Topic), failed)
}
