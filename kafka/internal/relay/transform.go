package relay

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/guard"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// Message is what is published for a record. Package kafka documents it.
type Message struct {
	Type        string
	Data        []byte
	Meta        map[string]string
	ContentType string
	Headers     map[string]string
}

// outgoing is a message of the current batch.
type outgoing struct {
	r     *es.Record // the record, or what Transform made of it
	extra *wire.Extra
	to    *destination
	sent  bool // by sendFirsts
}

// messages appends the messages of a record to all, without their destinations. Without a Transform that is the record itself.
func (r *Relay) messages(all []outgoing, record *es.Record) ([]outgoing, error) {
	if r.Transform == nil {
		return append(all, outgoing{r: record}), nil
	}
	var made []Message
	err := guard.Call(func() (err error) { made, err = r.Transform(*record); return err })
	switch {
	case errors.Is(err, es.ErrUnavailable):
		return all, fmt.Errorf("kafka: transform %s: %w", record.ID(), err)
	case err != nil:
		return all, client.Permanentf("transform %s: %w", record.ID(), err)
	}
	for i := range made {
		o, err := r.message(record, &made[i], i+1)
		if err != nil {
			return all, client.Permanentf("transform %s: message %d: %w", record.ID(), i+1, err)
		}
		all = append(all, o)
	}
	return all, nil
}

// message returns a message that Transform has made, if readers accept it.
func (r *Relay) message(record *es.Record, m *Message, part int) (outgoing, error) {
	made := &es.Record{
		Stream: record.Stream, Version: record.Version, Position: record.Position, Time: record.Time,
		Type: m.Type, Data: m.Data, Meta: m.Meta, Part: part,
	}
	if err := wire.Check(r.store, made); err != nil {
		return outgoing{}, err
	}
	extra := &wire.Extra{ContentType: m.ContentType}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		if name == "" || wire.Reserved(name) {
			return outgoing{}, fmt.Errorf("header %q is the relay's; use another name", name)
		}
		extra.Headers = append(extra.Headers, kafka.Header{Key: name, Value: []byte(m.Headers[name])})
	}
	return outgoing{r: made, extra: extra}, nil
}
