package deadletter

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// All returns the parked messages by partition and letter, and an error at most once, last.
//
// It reads each partition from the group's offset on, because the group keeps that at or before the first parked message.
// Before it are only letters that were handled or dropped, which may be many.
func (s *Store) All(ctx context.Context) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		letters, err := s.letters(ctx)
		if err != nil {
			yield(Letter{}, client.WithPrincipal(err, s.Client))
			return
		}
		for _, letter := range letters {
			if !yield(letter, nil) {
				return
			}
		}
	}
}

func (s *Store) letters(ctx context.Context) ([]Letter, error) {
	config, err := client.ReaderConfig(s.Client, s.Group)
	if err != nil {
		return nil, err
	}
	r, err := client.OpenReader(config, client.NewTrouble(s.Client, s.Log, nil))
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it has written nothing
	from, err := s.from(ctx, r)
	if err != nil {
		return nil, err
	}
	partitions := make(map[int32]parked)
	for m, err := range client.ReadToEnds(ctx, r, from) {
		if err != nil {
			return nil, err
		}
		number := m.TopicPartition.Partition
		if partitions[number] == nil {
			partitions[number] = make(parked)
		}
		partitions[number].apply(m)
	}
	var all []Letter
	for _, keys := range partitions {
		for _, list := range keys {
			all = append(all, list...)
		}
	}
	slices.SortFunc(all, func(a, b Letter) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Letter, b.Letter))
	})
	return all, nil
}

// from returns where to begin reading the partitions that have entries after the group's offset.
func (s *Store) from(ctx context.Context, r *client.Reader) (map[client.Partition]int64, error) {
	name := Topic(s.Topic, s.Group)
	topics, err := r.Describe(ctx, name)
	if err != nil {
		return nil, err
	}
	var all []client.Partition
	var request []kafka.TopicPartition
	for number := range topics[name].Partitions {
		p := client.Partition{Topic: name, Number: number}
		all = append(all, p)
		request = append(request, p.At(int64(kafka.OffsetInvalid)))
	}
	starts, err := r.Starts(ctx, all)
	if err != nil {
		return nil, err
	}
	ends, err := r.Ends(ctx, all)
	if err != nil {
		return nil, err
	}
	committed, err := r.Committed(request, int(client.AskFor.Milliseconds()))
	e, _ := client.KafkaError(err)
	switch {
	case err == nil:
	case e.Code() == kafka.ErrGroupAuthorizationFailed:
		s.Log.Warn("kafka: dead letters are read from the beginning; grant Read on the group", "group", s.Group, "err", err)
		committed = request
	case e.Code() == kafka.ErrGroupIDNotFound: // it has committed nothing
		committed = request
	default:
		return nil, fmt.Errorf("kafka: offsets of group %s: %w", s.Group, r.Trouble.Explain(err))
	}
	from := make(map[client.Partition]int64)
	for _, t := range committed {
		p := client.PartitionOf(t)
		if t.Error != nil {
			return nil, fmt.Errorf("kafka: offset of group %s in %v: %w", s.Group, p, t.Error)
		}
		at := max(starts[p], int64(t.Offset))
		if at > ends[p] {
			at = starts[p] // the topic was created again
		}
		if at < ends[p] {
			from[p] = at
		}
	}
	return from, nil
}

// parked is the parked messages by key, each key's in order.
type parked map[string][]Letter

func (p parked) apply(m *kafka.Message) {
	e, key := wire.ReadEntry(m), string(m.Key)
	switch e.Kind {
	case wire.EntryParked, wire.EntryBehind:
		letter := Letter{
			Partition: m.TopicPartition.Partition, Letter: int64(m.TopicPartition.Offset), Offset: e.Offset, Key: key, Message: m,
			Error: e.Err, Attempts: int(e.Attempts), At: m.Timestamp.UTC(),
		}
		_, letter.Record, _ = wire.Decode(m) // messages that are not records are parked too
		p[key] = append(p[key], letter)
	case wire.EntryDone:
		left := p[key]
		for len(left) > 0 && left[0].Letter <= e.Of {
			left[0] = Letter{} // for the garbage collector
			left = left[1:]
		}
		if p[key] = left; len(left) == 0 {
			delete(p, key)
		}
	case wire.EntryTried:
		if list := p[key]; len(list) > 0 {
			list[0].Error, list[0].At = e.Err, m.Timestamp.UTC()
		}
	case wire.EntryRetry, wire.EntryDrop: // not processed yet
	}
}
