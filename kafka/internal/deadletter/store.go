package deadletter

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

// Store lists what the consumers of a group have parked, and writes requests to them.
type Store struct {
	Client client.ConfigMap
	Topic  string // the consumed topic
	Group  string
	Log    *slog.Logger
}

// Letter is a parked message.
type Letter struct {
	Partition int32
	Letter    int64 // its offset in the dead-letter topic
	Offset    int64 // its offset in the consumed topic
	Key       string
	Record    es.Record // zero if the message is not a record
	Message   *kafka.Message
	Error     string
	Attempts  int
	At        time.Time
}

// All returns the parked messages by partition and letter, and an error at most once, last.
func (s *Store) All(ctx context.Context) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		partitions, config, err := s.partitions(ctx)
		if err != nil {
			yield(Letter{}, client.WithPrincipal(err, s.Client))
			return
		}
		for _, p := range partitions {
			letters, err := s.parked(ctx, config, p)
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
}

// partitions returns the partitions of the dead-letter topic.
func (s *Store) partitions(ctx context.Context) ([]client.Partition, client.ConfigMap, error) {
	config, err := client.ReaderConfig(s.Client, s.Group)
	if err != nil {
		return nil, nil, err
	}
	r, err := client.OpenReader(config, client.NewTrouble(s.Log, nil))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = r.Close() }() // it has written nothing
	name := Topic(s.Topic, s.Group)
	topics, err := r.Describe(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	partitions := make([]client.Partition, topics[name].Partitions)
	for i := range partitions {
		partitions[i] = client.Partition{Topic: name, Number: int32(i)}
	}
	return partitions, config, nil
}

// parked reads a partition and returns what is still parked at its end.
func (s *Store) parked(ctx context.Context, config client.ConfigMap, p client.Partition) ([]Letter, error) {
	keys := make(parked)
	for m, err := range client.ReadPartition(ctx, config, client.NewTrouble(s.Log, nil), p, int64(kafka.OffsetBeginning), client.ToEnd) {
		if err != nil {
			return nil, err
		}
		keys.apply(m)
	}
	var all []Letter
	for _, list := range keys {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b Letter) int { return cmp.Compare(a.Letter, b.Letter) })
	return all, nil
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
		left := slices.DeleteFunc(p[key], func(l Letter) bool { return l.Letter <= e.Of })
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

// sendFor is how long Send waits for the cluster. A person waits for it.
const sendFor = 30 * time.Second

// Send writes a request about a letter, and returns when the brokers have acknowledged it.
func (s *Store) Send(ctx context.Context, letter Letter, kind wire.EntryKind) error {
	of := int64(-1)
	if kind == wire.EntryDrop {
		of = letter.Letter
	}
	trouble := client.NewTrouble(s.Log, nil)
	p, err := openProducer(s.Client, trouble)
	if err != nil {
		return err
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(ctx, sendFor)
	defer cancel()
	report := make(chan kafka.Event, 1)
	to := client.Partition{Topic: Topic(s.Topic, s.Group), Number: letter.Partition}
	m := wire.NewNote(letter.Key, kind, of, nil)
	m.TopicPartition = to.At(int64(kafka.OffsetInvalid))
	if err := p.Produce(m, report); err != nil {
		return fmt.Errorf("kafka: write to %v: %w", to, err)
	}
	for {
		select {
		case event := <-p.Events():
			if err, ok := event.(kafka.Error); ok {
				trouble.Event(err)
			}
		case <-ctx.Done():
			return fmt.Errorf("kafka: write to %v: %w; it is not known whether the request was written", to, trouble.Explain(ctx.Err()))
		case event := <-report:
			if m, ok := event.(*kafka.Message); ok && m.TopicPartition.Error != nil {
				err := explain(p, to, m, m.TopicPartition.Error)
				return client.WithPrincipal(fmt.Errorf("kafka: write to %w", err), s.Client)
			}
			return nil
		}
	}
}
