package kafka

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// An Encoding is how a record becomes a message: what its headers are. With each of them the key is the id of the stream, the value the data
// untouched, and the timestamp the record's time; and the headers say what [Decode] needs to make the record again, the store it came from and its position.
// Store and position together identify a record among all that a topic may ever have: by them anyone dedupes and orders.
type Encoding int

const (
	// CloudEvents is CloudEvents 1.0 in binary mode, which many tools read.
	//
	//	content-type      application/json, or what Relay.ContentType says
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
	CloudEvents Encoding = iota

	// Compact is one header, or two, as each costs about a microsecond to write and as much to read. The first, es, has fields of text
	// separated by NUL bytes: the id of the store, the kind, the type, the position, the version and the time in microseconds since 1970.
	// The second, es-meta, is there if there is metadata: keys and values by turns, separated likewise.
	Compact
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

// The names of headers.
const (
	headerCompact     = "es"
	headerMeta        = "es-meta"
	headerContentType = "content-type"
	headerSpecVersion = "ce_specversion"
	headerID          = "ce_id"
	headerSource      = "ce_source"
	headerType        = "ce_type"
	headerTime        = "ce_time"
	headerSubject     = "ce_subject"
	headerVersion     = "ce_streamversion"
	headerPosition    = "ce_position"
	headerCorrelation = "ce_correlationid"
	headerCausation   = "ce_causationid"
	headerOther       = "ce_meta"
)

// DefaultContentType is what CloudEvents says of the data if [Relay.ContentType] does not.
const DefaultContentType = "application/json"

// An encoder makes messages of one store's records. It uses the memory of the one for the next, which librdkafka's binding allows: it copies.
type encoder struct {
	store       string
	encoding    Encoding
	contentType string

	message kafka.Message
	headers []kafka.Header
	scratch []byte
}

func newEncoder(store string, encoding Encoding, contentType string) *encoder {
	if contentType == "" {
		contentType = DefaultContentType
	}
	return &encoder{store: store, encoding: encoding, contentType: contentType}
}

// encode returns the message for a topic, which is good until the next call.
func (e *encoder) encode(r *es.Record, topic *string) (*kafka.Message, error) {
	e.headers, e.scratch = e.headers[:0], e.scratch[:0]
	if e.encoding == Compact {
		e.compact(r)
	} else if err := e.cloudEvents(r); err != nil {
		return nil, err
	}
	value := r.Data
	if value == nil {
		value = empty // a null would be a deletion to whoever compacts the topic
	}
	at := len(e.scratch)
	e.scratch = append(e.scratch, r.Stream.ID...)
	e.message = kafka.Message{
		TopicPartition: kafka.TopicPartition{Topic: topic, Partition: kafka.PartitionAny},
		Key:            e.scratch[at:],
		Value:          value,
		Timestamp:      r.Time,
		Headers:        e.headers,
	}
	return &e.message, nil
}

var empty = []byte{}

func (e *encoder) compact(r *es.Record) {
	b := e.scratch
	b = append(b, e.store...)
	b = append(b, 0)
	b = append(b, r.Stream.Kind...)
	b = append(b, 0)
	b = append(b, r.Type...)
	b = append(b, 0)
	b = strconv.AppendInt(b, int64(r.Position), 10)
	b = append(b, 0)
	b = strconv.AppendInt(b, int64(r.Version), 10)
	b = append(b, 0)
	b = strconv.AppendInt(b, r.Time.UnixMicro(), 10)
	e.headers = append(e.headers, kafka.Header{Key: headerCompact, Value: b})
	at := len(b)
	for key, value := range r.Meta {
		if len(b) > at {
			b = append(b, 0)
		}
		b = append(b, key...)
		b = append(b, 0)
		b = append(b, value...)
	}
	if len(r.Meta) > 0 {
		e.headers = append(e.headers, kafka.Header{Key: headerMeta, Value: b[at:]})
	}
	e.scratch = b
}

func (e *encoder) cloudEvents(r *es.Record) error {
	e.text(headerContentType, e.contentType)
	e.text(headerSpecVersion, "1.0")

	at := len(e.scratch)
	e.scratch = append(e.scratch, r.Stream.Kind...)
	e.scratch = append(e.scratch, '/')
	e.scratch = append(e.scratch, r.Stream.ID...)
	subject := len(e.scratch)
	e.scratch = append(e.scratch, '/')
	version := len(e.scratch)
	e.scratch = strconv.AppendInt(e.scratch, int64(r.Version), 10)
	e.header(headerID, e.scratch[at:])
	e.header(headerSubject, e.scratch[at:subject])
	e.header(headerVersion, e.scratch[version:])

	e.text(headerSource, e.store)
	e.text(headerType, r.Type)
	at = len(e.scratch)
	e.scratch = r.Time.UTC().AppendFormat(e.scratch, time.RFC3339Nano)
	e.header(headerTime, e.scratch[at:])
	at = len(e.scratch)
	e.scratch = strconv.AppendInt(e.scratch, int64(r.Position), 10)
	e.header(headerPosition, e.scratch[at:])
	return e.meta(r)
}

// meta writes the metadata as CloudEvents' extensions, whose names may only have small letters and digits.
func (e *encoder) meta(r *es.Record) error {
	others := len(r.Meta)
	if correlation, found := r.Meta[es.MetaCorrelation]; found {
		e.text(headerCorrelation, correlation)
		others--
	}
	if causation, found := r.Meta[es.MetaCausation]; found {
		e.text(headerCausation, causation)
		others--
	}
	if others == 0 {
		return nil
	}
	rest := make(map[string]string, others)
	for key, value := range r.Meta {
		if key != es.MetaCorrelation && key != es.MetaCausation {
			rest[key] = value
		}
	}
	object, err := json.Marshal(rest)
	if err != nil {
		return fmt.Errorf("kafka: metadata of %s: %w", r.ID(), err)
	}
	e.header(headerOther, object)
	return nil
}

func (e *encoder) text(key, value string) {
	at := len(e.scratch)
	e.scratch = append(e.scratch, value...)
	e.header(key, e.scratch[at:])
}

// header adds a header. The value may be of a scratch that has since moved: the old one is as good.
func (e *encoder) header(key string, value []byte) {
	e.headers = append(e.headers, kafka.Header{Key: key, Value: value})
}

// Decode makes a record of a message in either encoding, and returns the id of the store from which a [Relay] took it.
// The data is that of the message, not a copy. Its error wraps [es.ErrInvalid] and names the message.
func Decode(m *kafka.Message) (store string, r es.Record, err error) {
	r = es.Record{Data: m.Value}
	r.Stream.ID = string(m.Key)
	if len(m.Headers) > 0 && m.Headers[0].Key == headerCompact {
		store, err = decodeCompact(&r, m.Headers)
	} else {
		store, err = decodeCloudEvent(&r, m.Headers)
	}
	if err == nil {
		err = checkDecoded(store, &r)
	}
	if err != nil {
		return "", es.Record{}, fmt.Errorf("kafka: message %v: %w: %w; only a Relay's messages can be read here", m.TopicPartition, es.ErrInvalid, err)
	}
	if len(r.Data) == 0 {
		r.Data = nil
	}
	return store, r, nil
}

func checkDecoded(store string, r *es.Record) error {
	switch {
	case store == "":
		return fmt.Errorf("no store")
	case r.Type == "":
		return fmt.Errorf("no type")
	case r.Position < 1:
		return fmt.Errorf("position %d", r.Position)
	case r.Version < 1:
		return fmt.Errorf("version %d", r.Version)
	case !isText(store) || len(store) > es.MaxKind:
		return fmt.Errorf("store %.80q", store)
	case !isText(r.Type) || len(r.Type) > es.MaxType:
		return fmt.Errorf("type %.80q", r.Type)
	case r.Time.Year() < 0 || r.Time.Year() > 9999:
		return fmt.Errorf("a time in the year %d", r.Time.Year())
	}
	size := 0
	for key, value := range r.Meta {
		if size += len(key) + len(value); !isText(key) || !isText(value) || size > es.MaxMeta {
			return fmt.Errorf("metadata %.80q=%.80q", key, value)
		}
	}
	return r.Stream.Check()
}

// isText tells whether a store takes it as a name or as metadata.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

func decodeCompact(r *es.Record, headers []kafka.Header) (store string, err error) {
	fields := strings.Split(string(headers[0].Value), "\x00")
	if len(fields) != 6 {
		return "", fmt.Errorf("header %s has %d fields, not 6", headerCompact, len(fields))
	}
	r.Stream.Kind, r.Type = fields[1], fields[2]
	var numbers [3]int64
	for i := range numbers {
		if numbers[i], err = strconv.ParseInt(fields[3+i], 10, 64); err != nil {
			return "", fmt.Errorf("header %s: %w", headerCompact, err)
		}
	}
	r.Position, r.Version, r.Time = es.Position(numbers[0]), es.Version(numbers[1]), time.UnixMicro(numbers[2]).UTC()
	for _, h := range headers[1:] {
		if h.Key != headerMeta {
			continue
		}
		pairs := strings.Split(string(h.Value), "\x00")
		if len(pairs)%2 != 0 {
			return "", fmt.Errorf("header %s has a key without a value", headerMeta)
		}
		r.Meta = make(map[string]string, len(pairs)/2)
		for i := 0; i < len(pairs); i += 2 {
			r.Meta[pairs[i]] = pairs[i+1]
		}
	}
	return fields[0], nil
}

func decodeCloudEvent(r *es.Record, headers []kafka.Header) (store string, err error) {
	found := 0
	for _, h := range headers {
		switch h.Key {
		case headerSource:
			store = string(h.Value)
		case headerType:
			r.Type = string(h.Value)
		case headerTime:
			r.Time, err = time.Parse(time.RFC3339Nano, string(h.Value))
			r.Time = r.Time.UTC().Truncate(time.Microsecond)
		case headerSubject:
			// The key has the id as well; a message that somebody else keyed is still the record it was.
			r.Stream.Kind, r.Stream.ID, _ = strings.Cut(string(h.Value), "/")
		case headerVersion:
			var n int64
			n, err = strconv.ParseInt(string(h.Value), 10, 64)
			r.Version = es.Version(n)
		case headerPosition:
			var n int64
			n, err = strconv.ParseInt(string(h.Value), 10, 64)
			r.Position = es.Position(n)
		case headerCorrelation:
			setMeta(r, es.MetaCorrelation, string(h.Value))
		case headerCausation:
			setMeta(r, es.MetaCausation, string(h.Value))
		case headerOther:
			var others map[string]string
			err = json.Unmarshal(h.Value, &others)
			for key, value := range others {
				setMeta(r, key, value)
			}
		default:
			continue
		}
		if err != nil {
			return "", fmt.Errorf("header %s: %w", h.Key, err)
		}
		found++
	}
	if found == 0 {
		return "", fmt.Errorf("it has none of the headers %s and %s", headerCompact, headerSource)
	}
	return store, nil
}

func setMeta(r *es.Record, key, value string) {
	if r.Meta == nil {
		r.Meta = make(map[string]string)
	}
	r.Meta[key] = value
}
