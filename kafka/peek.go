package kafka

import (
	"bytes"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// peek reads kind and type from the headers of a message, and nothing else. It says no for what [Decode] would refuse for want of them.
func peek(m *kafka.Message) (kind, name string, ok bool) {
	if len(m.Headers) > 0 && m.Headers[0].Key == headerCompact {
		_, rest, _ := bytes.Cut(m.Headers[0].Value, []byte{0})
		kind, rest, _ := bytes.Cut(rest, []byte{0})
		name, _, ok := bytes.Cut(rest, []byte{0})
		return string(kind), string(name), ok
	}
	for _, h := range m.Headers {
		switch h.Key {
		case headerType:
			name = string(h.Value)
		case headerSubject:
			before, _, _ := bytes.Cut(h.Value, []byte{'/'})
			kind = string(before)
		}
	}
	return kind, name, kind != "" && name != ""
}
