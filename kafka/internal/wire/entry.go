package wire

import (
	"strconv"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// EntryKind is the kind of a message in a dead-letter topic. An entry stands in the partition with the same number as the message it is about.
// The entries of a partition, read in order, are the only record of what is parked: a new owner of the partition replays them.
//
//	parked   a record failed: its key is parked from here on. The message is the record's, with all its headers
//	behind   a later record of a parked key, which was not tried
//	tried    the first entry of a key, named by es-dlt-letter, was tried again and failed
//	done     the entry named by es-dlt-letter was handled or dropped, and all before it. After its last entry a key is no longer parked
//	retry    a request to try the entries of the key again
//	drop     the same, but without trying the entry named by es-dlt-letter
type EntryKind string

// The kinds of entries.
const (
	EntryParked EntryKind = "parked"
	EntryBehind EntryKind = "behind"
	EntryTried  EntryKind = "tried"
	EntryDone   EntryKind = "done"
	EntryRetry  EntryKind = "retry"
	EntryDrop   EntryKind = "drop"
)

// The headers of entries. They follow the record's own.
const (
	headerEntryKind     = "es-dlt"
	headerEntryOf       = "es-dlt-letter"   // the offset of another entry
	headerEntryOffset   = "es-dlt-offset"   // the offset of the message in its own topic
	headerEntryError    = "es-dlt-error"    // why it was parked
	headerEntryAttempts = "es-dlt-attempts" // how often it was tried
)

// maxError is how many bytes of an error an entry keeps.
const maxError = 4 << 10

// NewParked returns an entry that has the message itself: of kind [EntryParked] or [EntryBehind]. cause may be nil.
func NewParked(m *kafka.Message, kind EntryKind, cause error, attempts int) *kafka.Message {
	headers := make([]kafka.Header, 0, len(m.Headers)+4)
	headers = append(headers, m.Headers...)
	headers = append(headers, text(headerEntryKind, string(kind)), number(headerEntryOffset, int64(m.TopicPartition.Offset)))
	if cause != nil {
		headers = append(headers, text(headerEntryError, short(cause)), number(headerEntryAttempts, int64(attempts)))
	}
	return &kafka.Message{Key: m.Key, Value: m.Value, Headers: headers}
}

// NewNote returns an entry that says something about another one, or about the whole key. cause may be nil.
func NewNote(key string, kind EntryKind, of int64, cause error) *kafka.Message {
	headers := []kafka.Header{text(headerEntryKind, string(kind)), number(headerEntryOf, of)}
	if cause != nil {
		headers = append(headers, text(headerEntryError, short(cause)))
	}
	return &kafka.Message{Key: []byte(key), Headers: headers}
}

func text(key, value string) kafka.Header { return kafka.Header{Key: key, Value: []byte(value)} }

func number(key string, value int64) kafka.Header {
	return kafka.Header{Key: key, Value: strconv.AppendInt(nil, value, 10)}
}

func short(err error) string {
	s := err.Error()
	return s[:min(len(s), maxError)]
}

// Entry is what the headers of a message in a dead-letter topic say. A number that is missing is 0, and one that is invalid is -1.
type Entry struct {
	Kind     EntryKind
	Of       int64 // the offset of the entry that a note is about
	Offset   int64 // the offset of a parked message in its own topic
	Attempts int64
	Err      string
}

// ReadEntry returns what the headers of a message in a dead-letter topic say.
func ReadEntry(m *kafka.Message) (e Entry) {
	for _, h := range m.Headers {
		switch h.Key {
		case headerEntryKind:
			e.Kind = EntryKind(h.Value)
		case headerEntryOf:
			e.Of = parsed(h.Value)
		case headerEntryOffset:
			e.Offset = parsed(h.Value)
		case headerEntryAttempts:
			e.Attempts = parsed(h.Value)
		case headerEntryError:
			e.Err = string(h.Value)
		}
	}
	return e
}

// parsed returns a number, or -1, which is no offset, if the value is not one.
func parsed(value []byte) int64 {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
