package wire

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// Encoding is the form of a record's headers. Package kafka documents both.
type Encoding int

// The encodings.
const (
	CloudEvents Encoding = iota // CloudEvents 1.0, binary mode
	Compact                     // one header, and a second one for metadata
)

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
	headerPart        = "ce_part"
	headerTrace       = "ce_traceparent"
	headerTraceState  = "ce_tracestate"
	headerCompactPart = "es-part"
	headerTags        = "ce_tags" // a JSON array of strings
	headerCompactTags = "es-tags" // separated by NUL
)

// defaultContentType is the media type of a record's data unless the relay has a function for it.
const defaultContentType = "application/json"

// Encoder makes messages of the records of one store. It reuses its buffers for the next message, which is safe because
// confluent-kafka-go copies what it is given.
type Encoder struct {
	store       string
	encoding    Encoding
	contentType func(es.Record) string // nil means defaultContentType

	message kafka.Message
	headers []kafka.Header
	scratch []byte
}

// NewEncoder returns an Encoder for the store with an id. contentType may be nil.
func NewEncoder(store string, encoding Encoding, contentType func(es.Record) string) *Encoder {
	return &Encoder{store: store, encoding: encoding, contentType: contentType}
}

// Extra is what a message has besides its record.
type Extra struct {
	ContentType string         // "" means the encoder's
	Headers     []kafka.Header // none has a name that [Reserved] reports
}

// Encode returns the message for a topic. It is valid until the next call. extra may be nil.
func (e *Encoder) Encode(r *es.Record, topic *string, extra *Extra) (*kafka.Message, error) {
	e.headers, e.scratch = e.headers[:0], e.scratch[:0]
	if e.encoding == Compact {
		e.compact(r)
	} else if err := e.cloudEvents(r, extra); err != nil {
		return nil, err
	}
	if extra != nil {
		e.headers = append(e.headers, extra.Headers...)
	}
	value := r.Data
	if value == nil {
		value = empty // a null value is a deletion in a compacted topic
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

// SizeLimit returns a number of bytes that the message of a record does not exceed in a topic. It is cheap and generous; [BatchSize] is exact.
func (e *Encoder) SizeLimit(r *es.Record, extra *Extra) int {
	const fixed = 512 // the batch, the record, and the names of headers
	size := fixed + len(e.mediaType(r, extra)) + len(r.Data) + 4*len(r.Stream.ID) + 3*len(r.Stream.Kind) + len(r.Type)
	for key, value := range r.Meta {
		size += 6*(len(key)+len(value)) + len(value) // as JSON, and perhaps in a header of its own
	}
	for _, tag := range r.Tags {
		size += 6*len(tag) + 4 // as JSON
	}
	if extra != nil {
		for _, h := range extra.Headers {
			size += 10 + len(h.Key) + len(h.Value)
		}
	}
	return size
}

// BatchSize returns the size of a batch that has only this message, uncompressed.
func BatchSize(m *kafka.Message) int {
	size := 61 + 32 + len(m.Key) + len(m.Value) // the overhead of a batch and of a record
	for _, h := range m.Headers {
		size += 10 + len(h.Key) + len(h.Value)
	}
	return size
}

// MemorySize returns about how many bytes of memory a message takes.
func MemorySize(m *kafka.Message) int {
	size := 256 + len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		size += len(h.Key) + len(h.Value)
	}
	return size
}

func (e *Encoder) mediaType(r *es.Record, extra *Extra) string {
	if extra != nil && extra.ContentType != "" {
		return extra.ContentType
	}
	if e.contentType == nil || e.encoding == Compact {
		return defaultContentType
	}
	return cmp.Or(e.contentType(*r), defaultContentType)
}

func (e *Encoder) compact(r *es.Record) {
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
	if r.Part != 0 {
		at = len(b)
		b = strconv.AppendInt(b, int64(r.Part), 10)
		e.headers = append(e.headers, kafka.Header{Key: headerCompactPart, Value: b[at:]})
	}
	if len(r.Tags) > 0 {
		e.headers = append(e.headers, kafka.Header{Key: headerCompactTags, Value: []byte(strings.Join(r.Tags, "\x00"))})
	}
	e.scratch = b
}

func (e *Encoder) cloudEvents(r *es.Record, extra *Extra) error {
	e.text(headerContentType, e.mediaType(r, extra))
	e.text(headerSpecVersion, "1.0")

	at := len(e.scratch)
	e.scratch = append(e.scratch, r.Stream.Kind...)
	e.scratch = append(e.scratch, '/')
	e.scratch = append(e.scratch, r.Stream.ID...)
	subject := len(e.scratch)
	e.scratch = append(e.scratch, '/')
	version := len(e.scratch)
	e.scratch = strconv.AppendInt(e.scratch, int64(r.Version), 10)
	end := len(e.scratch)
	if r.Part != 0 {
		e.scratch = append(e.scratch, '.')
		e.scratch = strconv.AppendInt(e.scratch, int64(r.Part), 10)
	}
	e.header(headerID, e.scratch[at:])
	e.header(headerSubject, e.scratch[at:subject])
	e.header(headerVersion, e.scratch[version:end])
	if r.Part != 0 {
		e.header(headerPart, e.scratch[end+1:])
	}

	e.text(headerSource, e.store)
	e.text(headerType, r.Type)
	at = len(e.scratch)
	e.scratch = r.Time.UTC().AppendFormat(e.scratch, time.RFC3339Nano)
	e.header(headerTime, e.scratch[at:])
	at = len(e.scratch)
	e.scratch = strconv.AppendInt(e.scratch, int64(r.Position), 10)
	e.header(headerPosition, e.scratch[at:])
	if len(r.Tags) > 0 {
		text, err := json.Marshal(r.Tags)
		if err != nil {
			return err
		}
		e.headers = append(e.headers, kafka.Header{Key: headerTags, Value: text})
	}
	return e.meta(r)
}

// meta writes metadata as CloudEvents extensions. Other metadata is one JSON object, because the names of extensions are limited to small letters and digits.
func (e *Encoder) meta(r *es.Record) error {
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
	// The extension of CloudEvents for distributed tracing, which other programs read. Readers of this package read ce_meta.
	if trace, found := r.Meta["traceparent"]; found {
		e.text(headerTrace, trace)
	}
	if state, found := r.Meta["tracestate"]; found {
		e.text(headerTraceState, state)
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

func (e *Encoder) text(key, value string) {
	at := len(e.scratch)
	e.scratch = append(e.scratch, value...)
	e.header(key, e.scratch[at:])
}

// header adds a header. The value may point into an old scratch buffer that append has replaced; its bytes stay valid.
func (e *Encoder) header(key string, value []byte) {
	e.headers = append(e.headers, kafka.Header{Key: key, Value: value})
}
