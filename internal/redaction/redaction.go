// Package redaction holds what the root package and every backend agree on when the content of an event is erased.
package redaction

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The reserved types of records.
const (
	Prefix   = "es."          // of all reserved types
	Redacted = "es.redacted"  // of a record whose content was erased
	Audit    = "es.redaction" // of the record that says so, later in the same stream
)

// Reserved reports whether a type is not for events of programs.
func Reserved(eventType string) bool { return strings.HasPrefix(eventType, Prefix) }

type audit struct {
	Version int64  `json:"version"`
	Reason  string `json:"reason"`
}

// Data returns the data of the record that says which version of its stream was erased, and why.
func Data(version int64, reason string) []byte {
	data, _ := json.Marshal(audit{version, reason}) // cannot fail for a number and text
	return data
}

// Version returns the version that such a record names, or 0 if its data is damaged.
func Version(data []byte) int64 {
	var a audit
	if json.Unmarshal(data, &a) != nil {
		return 0
	}
	return a.Version
}

// Refusal returns the rest of a sentence that says why the record at a version of a stream cannot be redacted, or "". The stream ends at
// head, and eventType is the type of the record.
func Refusal(version, head int64, eventType string) string {
	switch {
	case version > head && head == 0:
		return fmt.Sprintf("there is no version %d: the stream has no events", version)
	case version > head:
		return fmt.Sprintf("there is no version %d: the stream ends at version %d", version, head)
	case eventType != Redacted && Reserved(eventType):
		return fmt.Sprintf("version %d is a record of the store, of type %s, and has no content of the program", version, eventType)
	}
	return ""
}

// Readers are what has read a log and may have copies of an event, as far as its store knows.
type Readers struct {
	Projections []string // that read the log; balances, or balances@2
	Reactions   []string
	Relays      []string // those that have left a lease or a checkpoint
}

// Add adds what is stored about a reader: its name, version and kind.
func (r *Readers) Add(name string, version int, kind string) {
	switch {
	case kind == "reaction":
		r.Reactions = append(r.Reactions, name)
	case version != 0:
		r.Projections = append(r.Projections, fmt.Sprintf("%s@%d", name, version))
	default:
		r.Projections = append(r.Projections, name)
	}
}

// Unreached lists the copies that no store can erase, and what to do about each.
func (r Readers) Unreached(tags int) []string {
	list := []string{"the id of the stream, and the ids of its commands: they stay, because streams and repeated commands are told by them"}
	if tags > 0 {
		list = append(list, fmt.Sprintf("%d tags of the record: they stay, because conditions are decided by them", tags))
	}
	for _, name := range r.Projections {
		list = append(list, fmt.Sprintf("read model %s: rebuild it, or have its handler remove the content at a record of type %s", name, Audit))
	}
	for _, name := range r.Reactions {
		list = append(list, fmt.Sprintf("what reaction %s has done with it, such as mail", name))
	}
	topics := "topics of relays"
	if len(r.Relays) > 0 {
		topics += ", such as " + strings.Join(r.Relays, " and ")
	}
	return append(list,
		fmt.Sprintf("%s, and what their readers have kept: a relay publishes the record of type %s to them", topics, Audit),
		"logs, and error texts of handlers that were at work on the event",
		"backups, replicas and other copies of the database: delete those that are older, or redact again after a restore")
}
