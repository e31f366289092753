package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// Match reports whether a filter lets a message through, from its headers alone. A filter that names kinds or types excludes
// foreign messages, which have neither. It excludes a damaged message if what is left of its headers does not match.
func Match(f es.Filter, m *kafka.Message) bool {
	if len(f.Kinds) == 0 && len(f.Types) == 0 && len(f.Tags) == 0 {
		return true
	}
	kind, name := peek(m)
	if kind == "" && name == "" && Foreign(m) {
		return false
	}
	return (len(f.Kinds) == 0 || kind == "" || slices.Contains(f.Kinds, kind)) &&
		(len(f.Types) == 0 || name == "" || slices.Contains(f.Types, name)) &&
		(len(f.Tags) == 0 || es.Filter{Tags: f.Tags}.Match(es.Record{Tags: peekTags(m)}))
}

// peekTags returns the tags of a message.
func peekTags(m *kafka.Message) (tags []string) {
	for _, h := range m.Headers {
		switch h.Key {
		case headerCompactTags:
			return strings.Split(string(h.Value), "\x00")
		case headerTags:
			if json.Unmarshal(h.Value, &tags) != nil {
				return nil
			}
		}
	}
	return tags
}

// peek returns the stream kind and the event type of a message, or "" for what its headers do not say.
func peek(m *kafka.Message) (kind, name string) {
	if len(m.Headers) > 0 && m.Headers[0].Key == headerCompact {
		_, rest, _ := bytes.Cut(m.Headers[0].Value, []byte{0})
		kind, rest = cut(rest, 0)
		name, _ = cut(rest, 0)
		return kind, name
	}
	for _, h := range m.Headers {
		switch h.Key {
		case headerType:
			name = string(h.Value)
		case headerSubject:
			kind, _ = cut(h.Value, '/')
		}
	}
	return kind, name
}

// cut returns what is before and after the first separator. Without one, nothing is before it: the rest may be missing.
func cut(b []byte, separator byte) (before string, after []byte) {
	i := bytes.IndexByte(b, separator)
	if i < 0 {
		return "", nil
	}
	return string(b[:i]), b[i+1:]
}
