// Package xes reads event logs in XES, the XML of process mining (IEEE 1849), as a stream: it holds one trace at a time.
package xes

import (
	"fmt"
	"io"
	"iter"
)

// MaxEvents bounds the events of one trace, and so the memory that a broken file can take.
const MaxEvents = 1_000_000

// A Trace is one case of a log, with its events in the order of the file.
type Trace struct {
	Line int // of the file, from 1, where it begins
	Attributes
	Events []Event
}

// An Event is one thing that happened in a case.
type Event struct {
	Line int
	Attributes
}

// Attributes are what a trace or an event says of itself, in the order of the file: each key once. Attributes within attributes are left out.
// The log's global attributes stand, with their defaults, behind those that the trace or event has itself.
type Attributes []Attribute

// An Attribute has its value as the file spells it. What has none, such as a list, has the value "".
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

// An Error says where a file is not what it should be.
type Error struct {
	Line int   // of the file, unpacked, from 1
	Byte int64 // how many bytes of the file, unpacked, come before
	Err  error
}

func (e *Error) Error() string {
	return fmt.Sprintf("xes: line %d (byte %d): %v", e.Line, e.Byte, e.Err)
}

// Unwrap returns what is wrong there.
func (e *Error) Unwrap() error { return e.Err }

// Read returns the traces of a log, plain or packed with gzip. They can be ranged over once.
//
// The error comes at most once, last, beside a zero Trace; it is an [*Error]. The traces before it are whole:
// of a file that ends in the middle of a trace, that trace is not returned. Nothing is skipped that could be a trace, an event or an attribute of one:
// an element that has no place where it stands is an error. Extensions, classifiers and the attributes of the log itself are passed over.
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
