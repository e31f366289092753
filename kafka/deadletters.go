package kafka

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// DeadLetters tells what a [Consumer] with [es.Park] has put aside, and has it tried again or given up.
//
// Nothing is handled here: whoever has the partition does that, in order with what comes. So mend the handler, start the program anew, and ask for
// Retry. What is asked for while nobody runs is done when somebody does.
//
// The exported fields are settings. The methods may be called from many goroutines.
type DeadLetters struct {
	Cluster Cluster      // as in Consumer
	Topic   string       // that the consumer reads
	Group   string       // as in Consumer
	Logger  *slog.Logger // hears what librdkafka says; nil means nobody does
}

// A DeadLetter is a message that is parked.
type DeadLetter struct {
	Partition int32
	Letter    int64          // its offset in the dead-letter topic
	Offset    int64          // its offset in the topic
	Key       string         // which is parked
	Record    es.Record      // zero if the message is none
	Message   *kafka.Message // as it is in the dead-letter topic: key, value and headers are those of the record, with some more headers
	Error     string         // "" for one that only waits behind another of its key
	Attempts  int            // of one with an error, when it was parked
	At        time.Time      // when it was parked, or last tried
}

// All returns what is parked, by partition and letter. It holds all of it in memory, for only the end of the topic tells what is still parked.
// The error comes at most once, last, beside a zero DeadLetter.
func (d *DeadLetters) All(ctx context.Context) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		partitions, config, err := d.partitions(ctx)
		if err != nil {
			yield(DeadLetter{}, err)
			return
		}
		for _, t := range partitions {
			letters, err := d.parked(ctx, config, t)
			if err != nil {
				yield(DeadLetter{}, err)
				return
			}
			for _, letter := range letters {
				if !yield(letter, nil) {
					return
				}
			}
		}
	}
}

// partitions returns those of the dead-letter topic. There are none if nobody has parked anything.
func (d *DeadLetters) partitions(ctx context.Context) ([]client.Partition, ConfigMap, error) {
	config, err := client.ReaderConfig(d.Cluster.Config, d.Group)
	if err != nil {
		return nil, nil, err
	}
	r, err := client.OpenReader(config, client.Logger(d.Logger))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = r.Close() }() // it has written nothing
	name := DeadLetterTopic(d.Topic, d.Group)
	states, err := r.Describe(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	partitions := make([]client.Partition, states[name].Partitions)
	for i := range partitions {
		partitions[i] = client.Partition{Topic: name, Number: int32(i)}
	}
	return partitions, config, nil
}

// parked reads a partition and keeps what is still parked at its end.
func (d *DeadLetters) parked(ctx context.Context, config ConfigMap, t client.Partition) ([]DeadLetter, error) {
	keys := make(map[string][]DeadLetter)
	for m, err := range client.ReadPartition(ctx, config, client.Logger(d.Logger), t, int64(kafka.OffsetBeginning), client.ToEnd) {
		if err != nil {
			return nil, err
		}
		n, key := wire.ReadEntry(m), string(m.Key)
		switch n.Kind {
		case wire.EntryParked, wire.EntryBehind:
			letter := DeadLetter{
				Partition: t.Number, Letter: int64(m.TopicPartition.Offset), Offset: n.Offset, Key: key, Message: m,
				Error: n.Err, Attempts: int(n.Attempts), At: m.Timestamp.UTC(),
			}
			_, letter.Record, _ = Decode(m) // what is no record is parked as well
			keys[key] = append(keys[key], letter)
		case wire.EntryDone:
			left := slices.DeleteFunc(keys[key], func(l DeadLetter) bool { return l.Letter <= n.Of })
			if keys[key] = left; len(left) == 0 {
				delete(keys, key)
			}
		case wire.EntryTried:
			if list := keys[key]; len(list) > 0 {
				list[0].Error, list[0].At = n.Err, m.Timestamp.UTC()
			}
		case wire.EntryRetry, wire.EntryDrop: // not answered as yet
		}
	}
	var all []DeadLetter
	for _, list := range keys {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b DeadLetter) int { return cmp.Compare(a.Letter, b.Letter) })
	return all, nil
}

// Retry asks whoever has the partition to try what is parked under the key of a letter again, in order, until something fails.
// If nothing does, the key is not parked any more. Retry returns when that is asked for, durably.
func (d *DeadLetters) Retry(ctx context.Context, letter DeadLetter) error {
	return d.ask(ctx, letter, wire.NewNote(letter.Key, wire.EntryRetry, -1, nil))
}

// Drop gives up on a letter, which must be the first of its key, and then does as Retry. If the letter is not the first any more nothing is given up.
func (d *DeadLetters) Drop(ctx context.Context, letter DeadLetter) error {
	return d.ask(ctx, letter, wire.NewNote(letter.Key, wire.EntryDrop, letter.Letter, nil))
}

func (d *DeadLetters) ask(ctx context.Context, letter DeadLetter, m *kafka.Message) error {
	p, err := letterProducer(d.Cluster.Config, client.Logger(d.Logger))
	if err != nil {
		return err
	}
	defer p.Close()
	answer := make(chan kafka.Event, 1)
	t := client.Partition{Topic: DeadLetterTopic(d.Topic, d.Group), Number: letter.Partition}
	m.TopicPartition = t.At(int64(kafka.OffsetInvalid))
	if err := p.Produce(m, answer); err != nil {
		return fmt.Errorf("kafka: write to %v: %w", t, err)
	}
	for {
		select {
		case <-p.Events(): // librdkafka goes on by itself
		case <-ctx.Done():
			return fmt.Errorf("kafka: write to %v: %w; it may or may not have been asked for", t, ctx.Err())
		case event := <-answer:
			if m, ok := event.(*kafka.Message); ok && m.TopicPartition.Error != nil {
				return fmt.Errorf("kafka: write to %v: %w", t, m.TopicPartition.Error)
			}
			return nil
		}
	}
}
