// Package schema exports the shapes of events, for other programs and for people, and checks a log against a codec.
//
// A program's own command or test calls it, because only the program has the codec. See the flag -schema of examples/bank.
package schema

import (
	"fmt"
	"maps"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/shape"
)

// JSON returns the JSON Schema, of draft 2020-12, of each event that a codec writes, by its stored name. Events of old shapes are not among them.
//
// The schema of another format than JSON describes the JSON form of the Go type or message, and has the keyword x-content-type. For protocol
// buffers, each field has x-protobuf, its number and kind. What a type makes of itself by a method, such as MarshalJSON, is not known: there
// the schema has a $comment and lets anything through.
//
// A codec of [es.CodecFunc] has no names, which is an error that wraps [es.ErrInvalid].
func JSON[E any](codec *es.Codec[E]) (map[string][]byte, error) {
	form := codec.Form()
	if len(form.Types) == 0 {
		return nil, fmt.Errorf("schema: %w: the codec has no names, such as those of es.JSON", es.ErrInvalid)
	}
	schemas := make(map[string][]byte)
	for _, name := range slices.Sorted(maps.Keys(form.Types)) {
		s, err := shape.Describe(form.Types[name], form)
		if err != nil {
			return nil, fmt.Errorf("schema: %s: %w", name, err)
		}
		if schemas[name], err = shape.Document(name, codec.ContentType(es.Record{Type: name}), s); err != nil {
			return nil, fmt.Errorf("schema: %s: %w", name, err)
		}
	}
	return schemas, nil
}

// parse reads a schema that JSON has returned.
func parse(data []byte) (shape.Schema, error) {
	v, err := shape.Decode(data)
	if err != nil {
		return nil, err
	}
	s, isObject := v.(shape.Schema)
	if !isObject {
		return nil, fmt.Errorf("it is no JSON object")
	}
	return s, nil
}
