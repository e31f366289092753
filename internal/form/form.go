// Package form has what the packages of this module that test and export codecs know of one, beside what its users see.
package form

import "reflect"

// Form describes how a codec stores events. [github.com/thalo-go/es.Codec.Form] returns it.
type Form struct {
	Types    map[string]reflect.Type // of the events that are written, by stored name
	Renamed  map[string]string       // old names, with the name whose decoder they have
	Exact    map[string]bool         // the events that Codec.Exact promises to be equal once decoded
	Fallback *Form                   // of the codec that reads other names; may be nil

	// The rest is set for formats whose events are not plain Go values. Otherwise it is nil.

	Schema func(t reflect.Type) (map[string]any, error)        // the JSON Schema of a type of events
	JSON   func(event any) ([]byte, error)                     // an event as JSON, for comparisons and for people
	Fields func(event any, note func(path string, isSet bool)) // calls note with each field, also within fields
	Sample func(t reflect.Type) any                            // an event with every field set
}

// Find returns the type that data under a stored name is decoded to, and the form that it has. The type is nil if a function decodes it.
func (f *Form) Find(name string) (t reflect.Type, of *Form) {
	for range f.Renamed { // an old name may have an older one
		to, renamed := f.Renamed[name]
		if !renamed {
			break
		}
		name = to
	}
	if t := f.Types[name]; t != nil {
		return t, f
	}
	if f.Fallback != nil {
		return f.Fallback.Find(name)
	}
	return nil, nil
}
