package kafka

import (
	"strconv"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// DeadLetterTopic returns the name of the topic in which a group parks the records of a topic that fail.
func DeadLetterTopic(topic, group string) string { return topic + "." + group + ".dlt" }

// A letter is a message in a dead-letter topic, in the partition with the same number as the one that it concerns. The letters of a partition,
// read in order, say what is parked: they are a log, and the only memory of it. So a new owner of the partition knows what the old one knew.
//
//	parked   a record failed: from here on its key is parked. The message is the record's, headers and all
//	behind   a record of a key that is parked; it was not tried
//	tried    the first of a key, es-dlt-letter, was tried again and failed
//	done     a letter, es-dlt-letter, was handled or given up, and all of its key before it. If it is the last of the key, the key is parked no more
//	retry    somebody asks to try the letters of the key again
//	drop     the same, without trying the letter es-dlt-letter
type letterKind string

const (
	kindParked letterKind = "parked"
	kindBehind letterKind = "behind"
	kindTried  letterKind = "tried"
	kindDone   letterKind = "done"
	kindRetry  letterKind = "retry"
	kindDrop   letterKind = "drop"
)

// The headers of letters, behind those that the record has.
const (
	headerLetter   = "es-dlt"          // the kind
	headerOf       = "es-dlt-letter"   // the offset of another letter
	headerOffset   = "es-dlt-offset"   // where the message stood in its own topic
	headerError    = "es-dlt-error"    // why
	headerAttempts = "es-dlt-attempts" // how often it was tried
)

// maxError is how much is kept of an error: a panic's has the whole stack.
const maxError = 4 << 10

// parkedLetter makes a letter of a message.
func parkedLetter(m *kafka.Message, kind letterKind, cause error, attempts int) *kafka.Message {
	headers := make([]kafka.Header, 0, len(m.Headers)+4)
	headers = append(headers, m.Headers...)
	headers = append(headers, text(headerLetter, string(kind)), number(headerOffset, int64(m.TopicPartition.Offset)))
	if cause != nil {
		headers = append(headers, text(headerError, short(cause)), number(headerAttempts, int64(attempts)))
	}
	return &kafka.Message{Key: m.Key, Value: m.Value, Headers: headers}
}

// noteLetter makes a letter that says something of others.
func noteLetter(key string, kind letterKind, of int64, cause error) *kafka.Message {
	headers := []kafka.Header{text(headerLetter, string(kind)), number(headerOf, of)}
	if cause != nil {
		headers = append(headers, text(headerError, short(cause)))
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

// A note is what the headers of a letter say.
type note struct {
	kind     letterKind
	of       int64
	offset   int64
	attempts int64
	err      string
}

func readNote(m *kafka.Message) (n note) {
	for _, h := range m.Headers {
		switch h.Key {
		case headerLetter:
			n.kind = letterKind(h.Value)
		case headerOf:
			n.of = parsed(h.Value)
		case headerOffset:
			n.offset = parsed(h.Value)
		case headerAttempts:
			n.attempts = parsed(h.Value)
		case headerError:
			n.err = string(h.Value)
		}
	}
	return n
}

// parsed reads a number. What is none is -1, which is no letter.
func parsed(value []byte) int64 {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// An order is what somebody asks for.
type order struct {
	kind   letterKind // retry or drop
	key    string
	letter int64
}
