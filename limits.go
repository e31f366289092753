package es

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/thalo-go/es/internal/redaction"
)

// Limits, the same in every store and checked before anything is written.
// Names fit an index key, and an event fits a Kafka message and a round trip.
const (
	MaxKind    = 128      // bytes of a stream's kind
	MaxID      = 512      // bytes of a stream's id
	MaxType    = 256      // bytes of an event's stored name
	MaxData    = 16 << 20 // bytes of one event's data
	MaxMeta    = 64 << 10 // bytes of one event's metadata, keys and values together
	MaxCommand = 1024     // bytes of a command id; fits a Record.ID and a suffix
	MaxTag     = 256      // bytes of one tag
	MaxTags    = 16       // tags of one event, and of one filter of a Condition
	MaxEvents  = 10_000   // events in one call of Store.Append
	MaxBytes   = 64 << 20 // bytes of data, metadata, tags and conditions in one call of Store.Append

	MaxConditions = 64 // filters of one Condition
)

// Check reports what makes the stream's name invalid, or nil. The error wraps [ErrInvalid].
func (s Stream) Check() error {
	if bad := badName(s.Kind, MaxKind); bad != "" {
		return invalid("kind of stream %.80q %s", s, bad)
	}
	if strings.Contains(s.Kind, "/") {
		return invalid("kind of stream %.80q contains \"/\", which separates kind and id", s)
	}
	if bad := badName(s.ID, MaxID); bad != "" {
		return invalid("id of stream %.80q %s", s, bad)
	}
	return nil
}

// CheckAppends reports what makes the arguments of [Store.Append] invalid, or nil. The error wraps [ErrInvalid] and
// names the stream. Implementations of [Store] call it first.
func CheckAppends(appends ...Append) error {
	events, bytes := 0, 0
	var seen map[command]bool
	for i := range appends {
		a := &appends[i]
		n, err := a.check()
		if err != nil {
			return err
		}
		bytes += n
		events += len(a.Events)
		if a.Command != "" && len(appends) > 1 {
			c := command{a.Stream, a.Command}
			if seen[c] {
				return invalid("append to %s: command %q occurs twice in one call", a.Stream, a.Command)
			}
			if seen == nil {
				seen = make(map[command]bool)
			}
			seen[c] = true
		}
	}
	if events > MaxEvents {
		return invalid("append of %d events: the limit is %d; use several calls", events, MaxEvents)
	}
	if bytes > MaxBytes {
		return invalid("append of %d bytes: the limit is %d; use several calls", bytes, MaxBytes)
	}
	return nil
}

// command identifies a command within its stream.
type command struct {
	stream Stream
	id     string
}

func (a *Append) check() (bytes int, err error) {
	if err := a.Stream.Check(); err != nil {
		return 0, err
	}
	if a.Expected < AnyVersion {
		return 0, invalid("append to %s: expected version %d: use 0 for a new stream, or AnyVersion", a.Stream, a.Expected)
	}
	if a.Command != "" {
		if bad := badName(a.Command, MaxCommand); bad != "" {
			return 0, invalid("append to %s: command %.80q %s", a.Stream, a.Command, bad)
		}
	}
	if bytes, err = a.Unless.check(a.Stream); err != nil {
		return 0, err
	}
	for i := range a.Events {
		n, err := a.Events[i].check(a.Stream)
		if err != nil {
			return 0, err
		}
		bytes += n
	}
	return bytes, nil
}

func (r *Record) check(stream Stream) (bytes int, err error) {
	if bad := badName(r.Type, MaxType); bad != "" {
		return 0, invalid("append to %s: event type %.80q %s", stream, r.Type, bad)
	}
	if redaction.Reserved(r.Type) {
		return 0, invalid("append to %s: event type %q begins with %q, which is reserved: give it another name", stream, r.Type, redaction.Prefix)
	}
	if len(r.Data) > MaxData {
		return 0, invalid("append to %s: event %q has %d bytes of data: the limit is %d; store large data elsewhere", stream, r.Type, len(r.Data), MaxData)
	}
	meta := 0
	for key, value := range r.Meta {
		meta += len(key) + len(value)
		if !isText(key) || !isText(value) {
			return 0, invalid("append to %s: event %q: metadata %.80q=%.80q has a NUL byte or is not UTF-8: encode it as text", stream, r.Type, key, value)
		}
	}
	if meta > MaxMeta {
		return 0, invalid("append to %s: event %q has %d bytes of metadata: the limit is %d; put it into the data", stream, r.Type, meta, MaxMeta)
	}
	if len(r.Tags) > 0 {
		if bad := badTags(r.Tags); bad != "" {
			return 0, invalid("append to %s: event %q %s", stream, r.Type, bad)
		}
	}
	return len(r.Data) + meta + sizeOf(r.Tags), nil
}

// check returns the size of the names in a condition of an append.
func (c *Condition) check(stream Stream) (bytes int, err error) {
	if len(c.Match) > MaxConditions {
		return 0, invalid("append to %s: condition with %d filters: the limit is %d", stream, len(c.Match), MaxConditions)
	}
	if c.After < 0 {
		return 0, invalid("append to %s: condition after position %d: must not be negative", stream, c.After)
	}
	for i := range c.Match {
		f := &c.Match[i]
		if len(f.Tags) == 0 {
			return 0, invalid("append to %s: condition: filter %d has no tag: it would read the whole log", stream, i+1)
		}
		if bad := badTags(f.Tags); bad != "" {
			return 0, invalid("append to %s: condition: filter %d %s", stream, i+1, bad)
		}
		for _, list := range []struct {
			what  string
			names []string
			limit int
		}{{"kind", f.Kinds, MaxKind}, {"type", f.Types, MaxType}} {
			for _, name := range list.names {
				if bad := badName(name, list.limit); bad != "" {
					return 0, invalid("append to %s: condition: filter %d: %s %.80q %s", stream, i+1, list.what, name, bad)
				}
				bytes += len(name)
			}
		}
		bytes += sizeOf(f.Tags)
	}
	return bytes, nil
}

func sizeOf(names []string) (bytes int) {
	for _, name := range names {
		bytes += len(name)
	}
	return bytes
}

// badTags returns the rest of a sentence that says what is wrong with tags, or "".
func badTags(tags []string) string {
	if len(tags) > MaxTags {
		return fmt.Sprintf("has %d tags: the limit is %d", len(tags), MaxTags)
	}
	for _, tag := range tags {
		if bad := badName(tag, MaxTag); bad != "" {
			return fmt.Sprintf("has tag %.80q that %s", tag, bad)
		}
	}
	return ""
}

// badName returns the second half of a sentence that says what is wrong with a name, or "".
func badName(name string, limit int) string {
	switch {
	case name == "":
		return "is empty: give it a name"
	case len(name) > limit:
		return fmt.Sprintf("has %d bytes: the limit is %d", len(name), limit)
	case !isText(name):
		return "has a NUL byte or is not UTF-8: names are text"
	}
	return ""
}

func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
