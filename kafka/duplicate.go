package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// duplicate tells whether a record stands in the partition before.
//
// A relay writes the records of a partition in the order of their positions. If it does not know how far it came it begins again at some record before,
// and writes from there on what it has written already. So all that is at or below the highest position so far has been there: one number for each
// store tells duplicates exactly. What that number was when the feed began, behind a cursor, is found out by the time of the first record that
// comes: times never run backwards along positions. So among the messages before the cursor, only those that are not older than this record can have its
// position or a higher one, and the broker finds the first of them by its index. If the record is no duplicate they are few: those of the same millisecond.
func (f *feed) duplicate(ctx context.Context, store string, r es.Record, m *kafka.Message) (bool, error) {
	if f.seen == nil {
		return false, nil
	}
	highest, known := f.seen[store]
	if !known && f.began > 0 {
		var err error
		if highest, err = f.highest(ctx, store, m.Timestamp); err != nil {
			return false, fmt.Errorf("kafka: %v: look for duplicates: %w", f.Partition, err)
		}
	}
	f.seen[store] = max(highest, r.Position)
	if r.Position > highest {
		return false, nil
	}
	f.mu.Lock()
	f.stat.Dropped++
	f.mu.Unlock()
	return true, nil
}

// highest returns the highest position of a store's records that stand before where the feed began and are not older than a time; 0 if there are none.
func (f *feed) highest(ctx context.Context, store string, since time.Time) (highest es.Position, err error) {
	ask := f.At(since.UnixMilli())
	var found []kafka.TopicPartition
	err = f.source.client.Call("ask for an offset by time", func() (err error) {
		found, err = f.source.client.OffsetsForTimes([]kafka.TopicPartition{ask}, int((client.AskFor - time.Second).Milliseconds()))
		return err
	})
	if err != nil {
		return 0, err
	}
	if len(found) != 1 || found[0].Error != nil || found[0].Offset < 0 || int64(found[0].Offset) >= f.began {
		if len(found) == 1 && found[0].Error != nil {
			return 0, found[0].Error
		}
		return 0, nil
	}
	config, err := f.source.config()
	if err != nil {
		return 0, err
	}
	for m, err := range client.ReadPartition(ctx, config, f.source.log, f.Partition, int64(found[0].Offset), f.began) {
		if err != nil {
			return 0, err
		}
		of, r, err := Decode(m)
		if err == nil && of == store {
			highest = max(highest, r.Position)
		}
	}
	return highest, nil
}
