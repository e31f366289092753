package deadletter

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// Store lists what the consumers of a group have parked, and writes requests to them.
type Store struct {
	Client client.Cluster
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

// sendFor is how long Send waits for the cluster. A person waits for it.
const sendFor = 30 * time.Second

// Send writes a request about a letter, and returns when the brokers have acknowledged it.
func (s *Store) Send(ctx context.Context, letter Letter, kind wire.EntryKind) error {
	of := int64(-1)
	if kind == wire.EntryDrop {
		of = letter.Letter
	}
	trouble := client.NewTrouble(s.Client, s.Log, nil)
	config, err := client.DeadLetterConfig(s.Client)
	if err != nil {
		return err
	}
	p, err := client.OpenProducer(config, client.LargestMessage, trouble)
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
