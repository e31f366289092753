package kafka

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/deadletter"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// DeadLetters lists, retries and drops what a [Consumer] with [es.Park] has parked.
//
// It handles nothing itself: the member of the group that has the partition does, in order with other records. Fix the
// handler, restart the program, then call Retry. A request that is made while no member runs is executed when one starts.
//
// The exported fields are settings. The methods may be called from several goroutines.
type DeadLetters struct {
	Cluster Cluster
	Topic   string       // the topic that the consumer reads
	Group   string       // the group of the consumer
	Logger  *slog.Logger // receives librdkafka's log; nil discards it
}

// DeadLetter is a parked message.
type DeadLetter struct {
	Partition int32
	Letter    int64 // its offset in the dead-letter topic
	Offset    int64 // its offset in the topic
	Key       string
	Record    es.Record   // zero if the message is not a record
	Message   *RawMessage // in the dead-letter topic: key, value and headers of the record, and further headers
	Error     string      // "" for a message that waits behind an earlier one of its key
	Attempts  int         // with an error: when it was parked
	At        time.Time   // when it was parked or last tried
}

// All returns the parked messages by partition and letter. It reads the topic to its end and holds all of them in memory,
// because later messages say what is no longer parked. An error is returned at most once, last.
func (d *DeadLetters) All(ctx context.Context) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		for letter, err := range d.store().All(ctx) {
			if !yield(DeadLetter(letter), cause.Of(ctx, err)) {
				return
			}
		}
	}
}

// Retry requests another attempt at the parked messages of a letter's key, in order, until one fails. If none fails, the
// key is no longer parked. Retry returns when the request is written.
func (d *DeadLetters) Retry(ctx context.Context, letter DeadLetter) (err error) {
	defer cause.Set(ctx, &err)
	return d.store().Send(ctx, deadletter.Letter(letter), wire.EntryRetry)
}

// Drop requests that a letter, which must be the first of its key, is dropped and the others are retried as by Retry.
// If the letter is not the first one any more, none is dropped.
func (d *DeadLetters) Drop(ctx context.Context, letter DeadLetter) (err error) {
	defer cause.Set(ctx, &err)
	return d.store().Send(ctx, deadletter.Letter(letter), wire.EntryDrop)
}

func (d *DeadLetters) store() *deadletter.Store {
	return &deadletter.Store{Client: d.Cluster.client(), Topic: d.Topic, Group: d.Group, Log: client.Logger(d.Logger)}
}
