// Package xes reads event logs in XES, the XML of process mining (IEEE 1849), as a stream. It keeps one trace in memory at a time.
package xes

import (
	"fmt"
	"io"
	"iter"
)

// MaxEvents bounds the events of one trace, and so the memory for a damaged file.
const MaxEvents = 1_000_000

// Trace is one case of a log, with its events in the order of the file.
type Trace struct {
	Line int // in the file, from 1, where the trace begins
	Attributes
	Events []Event
}

// Event is one event of a case.
type Event struct {
	Line int
	Attributes
}

// Attributes are the attributes of a trace or an event in the order of the file, each key once. Nested attributes are left out.
// The log's global attributes follow with their defaults, unless the trace or event has its own.
type Attributes []Attribute

// Attribute is an attribute with its value as in the file. Attributes without a value, such as lists, have the value "".
type Attribute struct {
	Type  string // string, date, int, float, boolean, id, list or container
	Key   string
	Value string
}

// Value returns the value of a key, and whether there is one.
func (a Attributes) Value(key string) (value string, found bool) {
	for i := range a {
		if a[i].Key == key {
			return a[i].Value, true
		}
	}
	return "", false
}

// Error is an error in a file.
type Error struct {
	Line int   // of the file, unpacked, from 1
	Byte int64 // how many bytes of the file, unpacked, come before
	Err  error
}

func (e *Error) Error() string {
	return fmt.Sprintf("xes: line %d (byte %d): %v", e.Line, e.Byte, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Read returns the traces of a log, plain or compressed with gzip. The sequence can be used once.
//
// An error, if any, is the last pair, with a zero Trace; it is an [*Error]. The traces before it are complete. An incomplete
// trace is not returned. An element in an unexpected place is an error, so no trace, event or attribute is skipped. Read ignores extensions,
// classifiers and the attributes of the log itself.
func Read(r io.Reader) iter.Seq2[Trace, error] {
	return func(yield func(Trace, error) bool) {
		p := &parser{}
		if err := p.open(r); err != nil {
			yield(Trace{}, p.at(err))
			return
		}
		if err := p.log(func(t Trace) bool { return yield(t, nil) }); err != nil {
			yield(Trace{}, p.at(err))
		}
	}
}
