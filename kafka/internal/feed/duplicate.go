package feed

import (
	"context"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// place is the order of the messages of a store: by position, and the messages of one record by part.
type place struct {
	position es.Position
	part     int
}

func placeOf(r es.Record) place { return place{r.Position, r.Part} }

// after reports whether p comes after another place.
func (p place) after(other place) bool {
	return p.position > other.position || p.position == other.position && p.part > other.part
}

// duplicate reports whether a record is in the partition before.
//
// A relay writes the records of a partition in the order of their positions. If it does not know how far it got, it
// starts again at an earlier record, and writes records that it has written already. So a record at or below the
// highest place of its store is a duplicate, and one place per store is enough.
//
// A feed that begins after a cursor finds that number by the time of the first record it reads. Times do not decrease
// along positions, so among the messages before the cursor, only those at least as new as this record can have its
// position or a higher one. The broker finds the first of them by its time index. If the record is not a duplicate,
// they are few: those of the same millisecond.
func (f *feed) duplicate(ctx context.Context, store string, r es.Record, m *kafka.Message) (bool, error) {
	if f.highest == nil {
		return false, nil
	}
	highest, known := f.highest[store]
	if !known && f.began > 0 {
		var err error
		if highest, err = f.findHighest(ctx, store, m.Timestamp); err != nil {
			return false, fmt.Errorf("kafka: %v: find duplicates: %w", f.Partition, err)
		}
	}
	if at := placeOf(r); at.after(highest) {
		f.highest[store] = at
		return false, nil
	}
	f.highest[store] = highest
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stat.Dropped++
	return true, nil
}

// findHighest returns the highest place of a store among the messages before the feed began that are not older than
// since; the zero place if there are none.
func (f *feed) findHighest(ctx context.Context, store string, since time.Time) (highest place, err error) {
	first, err := f.source.client.OffsetAt(ctx, f.Partition, since)
	if err != nil || first < 0 || first >= f.began {
		return place{}, err
	}
	for m, err := range client.ReadPartition(ctx, f.source.reading, f.source.client.Trouble, f.Partition, first, f.began) {
		if err != nil {
			return place{}, err
		}
		of, r, err := wire.Decode(m)
		if err == nil && of == store && placeOf(r).after(highest) {
			highest = placeOf(r)
		}
	}
	return highest, nil
}
