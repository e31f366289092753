package wire

import (
	"bytes"
	"slices"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// Match reports whether a filter lets a message through, from its headers alone. A message that is not a record matches; Decode refuses it later.
func Match(f es.Filter, m *kafka.Message) bool {
	if len(f.Kinds) == 0 && len(f.Types) == 0 {
		return true
	}
	kind, name, ok := peek(m)
	return !ok || (len(f.Kinds) == 0 || slices.Contains(f.Kinds, kind)) && (len(f.Types) == 0 || slices.Contains(f.Types, name))
}

// peek returns the stream kind and the event type of a message. ok is false if the headers lack either, which Decode would refuse.
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
