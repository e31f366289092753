package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// Decode returns the record of a message in either encoding and the id of the store that it came from.
// The record's data is the message's value, not a copy. An error wraps [es.ErrInvalid] and names the message.
func Decode(m *kafka.Message) (store string, r es.Record, err error) {
	if Foreign(m) {
		return "", es.Record{}, fmt.Errorf("kafka: message %v: %w: foreign, no header of a relay; set SkipForeign, or stop its producer",
			m.TopicPartition, es.ErrInvalid)
	}
	r = es.Record{Data: m.Value}
	r.Stream.ID = string(m.Key)
	if len(m.Headers) > 0 && m.Headers[0].Key == headerCompact {
		store, err = decodeCompact(&r, m.Headers)
	} else {
		store, err = decodeCloudEvent(&r, m.Headers)
	}
	if err == nil {
		err = Check(store, &r)
	}
	if err == nil && m.Value == nil {
		err = errors.New("null value") // a relay writes an empty one
	}
	if err != nil {
		return "", es.Record{}, fmt.Errorf("kafka: message %v: %w: damaged, %w; publish to a new topic", m.TopicPartition, es.ErrInvalid, err)
	}
	if len(r.Data) == 0 {
		r.Data = nil
	}
	return store, r, nil
}

// Check returns an error for a record of a store that no reader accepts.
func Check(store string, r *es.Record) error {
	switch {
	case store == "":
		return fmt.Errorf("no store")
	case r.Type == "":
		return fmt.Errorf("no type")
	case r.Position < 1:
		return fmt.Errorf("invalid position %d", r.Position)
	case r.Version < 1:
		return fmt.Errorf("invalid version %d", r.Version)
	case r.Part < 0:
		return fmt.Errorf("invalid part %d", r.Part)
	case !isText(store) || len(store) > es.MaxKind:
		return fmt.Errorf("invalid store id %.80q", store)
	case !isText(r.Type) || len(r.Type) > es.MaxType:
		return fmt.Errorf("invalid type %.80q", r.Type)
	case r.Time.Year() < 0 || r.Time.Year() > 9999:
		return fmt.Errorf("invalid time: year %d", r.Time.Year())
	}
	size := 0
	for key, value := range r.Meta {
		if size += len(key) + len(value); !isText(key) || !isText(value) || size > es.MaxMeta {
			return fmt.Errorf("invalid metadata %.80q=%.80q", key, value)
		}
	}
	if len(r.Tags) > es.MaxTags {
		return fmt.Errorf("invalid tags: %d of them", len(r.Tags))
	}
	for _, tag := range r.Tags {
		if tag == "" || len(tag) > es.MaxTag || !isText(tag) {
			return fmt.Errorf("invalid tag %.80q", tag)
		}
	}
	return r.Stream.Check()
}

// isText reports whether stores accept s as a name or as metadata.
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
		if h.Key == headerCompactPart {
			if r.Part, err = strconv.Atoi(string(h.Value)); err != nil {
				return "", fmt.Errorf("header %s: %w", h.Key, err)
			}
		}
		if h.Key == headerCompactTags {
			r.Tags = strings.Split(string(h.Value), "\x00")
		}
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
			// The subject counts, not the key: a message that was copied under another key is still the same record.
			r.Stream.Kind, r.Stream.ID, _ = strings.Cut(string(h.Value), "/")
		case headerVersion:
			var n int64
			n, err = strconv.ParseInt(string(h.Value), 10, 64)
			r.Version = es.Version(n)
		case headerPart:
			r.Part, err = strconv.Atoi(string(h.Value))
		case headerTags:
			err = json.Unmarshal(h.Value, &r.Tags)
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
		}
		if err != nil {
			return "", fmt.Errorf("header %s: %w", h.Key, err)
		}
	}
	return store, nil
}

func setMeta(r *es.Record, key, value string) {
	if r.Meta == nil {
		r.Meta = make(map[string]string)
	}
	r.Meta[key] = value
}
