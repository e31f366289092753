// Package form has what the packages of this module that test and export codecs know of one, beside what its users see.
package form

import "reflect"

// Form describes how a codec stores events. [github.com/thalo-go/es.Codec.Form] returns it.
type Form struct {
	Types map[string]reflect.Type // of the events that are written, by stored name
	Exact map[string]bool         // the events of which Codec.Exact promises that they are equal once decoded

	// The rest is set for formats whose events are not plain Go values. Otherwise it is nil.

	Schema func(t reflect.Type) (map[string]any, error)        // the JSON Schema of a type of events
	JSON   func(event any) ([]byte, error)                     // an event as JSON, for comparisons and for people
	Fields func(event any, note func(path string, isSet bool)) // calls note with each field, also within fields
}
