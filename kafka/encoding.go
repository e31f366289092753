package kafka

import (
	"strconv"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// RawMessage is confluent-kafka-go's message.
type RawMessage = kafka.Message

// Encoding is the form of a record's headers. In every encoding the key of a message is the id of the stream, the value is the record's data, unchanged,
// and the timestamp is the record's time. The headers have everything else that [Decode] needs to return the record, with its position
// and the id of the store that it came from. Store and position together identify a record among all that a topic may ever have:
// use them to drop duplicates and to order.
type Encoding int

const (
	// CloudEvents is CloudEvents 1.0 in binary mode, which many tools read.
	//
	//	content-type      application/json, or the result of Relay.ContentType
	//	ce_specversion    1.0
	//	ce_id             the Record.ID, such as account/42/7
	//	ce_source         the id of the store
	//	ce_type           the type of the event
	//	ce_time           its time
	//	ce_subject        the stream, such as account/42
	//	ce_streamversion  the version
	//	ce_position       the position
	//	ce_correlationid  if the metadata has a correlation
	//	ce_causationid    if it has a causation
	//	ce_meta           if it has anything else: a JSON object
	//	ce_traceparent    if it has traceparent, which is in ce_meta too; ce_tracestate also
	//	ce_part           the Part of a message that Relay.Transform made
	CloudEvents Encoding = Encoding(wire.CloudEvents)

	// Compact has one header, or two, because each header costs about a microsecond to write and another to read. The first, es, has fields of text
	// separated by NUL bytes: the id of the store, the kind, the type, the position, the version, and the time in microseconds since 1970.
	// The second, es-meta, exists if there is metadata: alternating keys and values, separated by NUL bytes too. A message that
	// Relay.Transform made has a third, es-part.
	Compact Encoding = Encoding(wire.Compact)
)

// String returns the encoding's name.
func (e Encoding) String() string {
	switch e {
	case CloudEvents:
		return "CloudEvents"
	case Compact:
		return "Compact"
	}
	return "Encoding(" + strconv.Itoa(int(e)) + ")"
}

// Decode returns the record of a message in either encoding and the id of the store from which a [Relay] took it.
// The record's data is the message's value, not a copy. An error wraps [es.ErrInvalid] and names the message.
func Decode(m *RawMessage) (store string, r es.Record, err error) { return wire.Decode(m) }
