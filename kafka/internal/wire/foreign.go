package wire

import (
	"strings"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Foreign reports whether a message has no header that a relay or a dead-letter topic writes. A tombstone of another producer is
// foreign, and so is any message without headers. A message that has some of those headers, but is not a record, is damaged:
// it may be what is left of a record, so no reader may skip it.
func Foreign(m *kafka.Message) bool {
	for _, h := range m.Headers {
		if ours(h.Key) {
			return false
		}
	}
	return true
}

// ours reports whether a relay or a dead-letter topic writes a header. Headers of other producers, such as content-type, may have
// the same names as the relay's, except for those of CloudEvents: what else a CloudEvent of another producer is, no reader can know.
func ours(header string) bool {
	switch header {
	case headerCompact, headerMeta, headerSpecVersion, headerID, headerSource, headerType, headerTime, headerSubject,
		headerVersion, headerPosition, headerCorrelation, headerCausation, headerOther, headerPart, headerCompactPart,
		headerTags, headerCompactTags:
		return true
	}
	return strings.HasPrefix(header, headerEntryKind)
}

// Reserved reports whether a header of a program's own may not have a name, because a relay writes it.
func Reserved(header string) bool {
	switch header {
	case headerContentType, headerTrace, headerTraceState:
		return true
	}
	return ours(header)
}
