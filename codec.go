package es

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/thalo-go/es/internal/form"
	"github.com/thalo-go/es/internal/redaction"
	"github.com/thalo-go/es/internal/tag"
)

// Codec turns events into records and back. [JSON], [NewCodec] and [CodecFunc] return one; package protobuf has one for protocol buffers.
// Encode, Decode, Tags, ContentType and Names may be called concurrently.
//
// Rename, Upcast, Retire, Fallback, Tag and Exact configure a codec. They belong to its declaration, before its first use:
//
//	var Codec = es.JSON(map[string]Event{
//		"opened":       Opened{},
//		"deposited.v2": Deposited{},
//	}).
//		Rename("account-opened", "opened").
//		Upcast("deposited", es.From(func(old struct{ Euros int64 }) Event { return Deposited{Cents: 100 * old.Euros} })).
//		Retire("statement-printed")
type Codec[E any] struct {
	contentType string                     // "" for CodecFunc
	types       map[reflect.Type]eventType // of the events to encode
	decoders    map[string]Upcaster[E]     // by stored name
	retired     map[string]bool            // stored names
	marshal     func(v any) ([]byte, error)
	unmarshal   func(data []byte, v any) error

	tags     func(event E) []string // nil if events have none
	fallback *Codec[E]              // nil if there is none
	form     form.Form

	encode func(event E) (Record, error) // of CodecFunc; otherwise nil
	decode func(r Record) (E, error)     // of CodecFunc; otherwise nil
	exact  bool                          // of CodecFunc: Exact was called
}

// JSON returns a codec that stores each event as JSON under the name that the map gives for its type. The map holds one
// value of each type, usually its zero value. Names are permanent: to change the shape of an event, give the new shape
// a new name and [Codec.Upcast] the old one.
//
// Unknown fields in stored data are ignored, and missing fields stay zero.
//
// JSON panics on what would lose data: two names for one type, pointers, types that encoding/json rejects, and types of
// which it would silently drop a field, such as one with an unexported field or with two fields of one name.
// Encode refuses text that is not UTF-8, which encoding/json would replace.
func JSON[E any](events map[string]E) *Codec[E] {
	for _, name := range slices.Sorted(maps.Keys(events)) { // sorted, so that a panic is the same every time
		t := reflect.TypeOf(events[name])
		if t == nil {
			continue // NewCodec refuses it
		}
		if t.Kind() == reflect.Pointer {
			panic(fmt.Sprintf("es: JSON: %q is a pointer, %v: events are values, give %v{}", name, t, t.Elem()))
		}
		if part := lossy(t, false, nil); part != "" {
			panic(fmt.Sprintf("es: JSON: %q: encoding/json cannot keep %s, or give %v MarshalJSON and UnmarshalJSON methods", name, part, t))
		}
	}
	c := NewCodec("application/json", events, marshalJSON, json.Unmarshal)
	for t, event := range c.types {
		c.types[t] = eventType{event.name, exact(t)}
	}
	return c
}

// NewCodec is [JSON] with another format, such as that of cbor.Marshal and cbor.Unmarshal. contentType is the media type of its data.
//
// Events may be pointers: each is decoded into a new value. Encode refuses a nil pointer. marshal gets an event, and unmarshal a pointer to
// a value to fill, which is the event itself if that is a pointer. Both may be called concurrently.
//
// NewCodec cannot know what a format drops, such as unexported fields. Test that events survive by TestCodec of package estest.
// A [Repo] decodes each event before it writes it, so it never writes one that cannot be read; see [Codec.Exact].
//
// NewCodec panics on two names for one type, a name without an event, an empty contentType and nil functions.
func NewCodec[E any](contentType string, events map[string]E, marshal func(v any) ([]byte, error), unmarshal func(data []byte, v any) error) *Codec[E] {
	if contentType == "" || marshal == nil || unmarshal == nil {
		panic("es: codec: NewCodec needs a content type, marshal and unmarshal")
	}
	c := &Codec[E]{contentType: contentType, types: make(map[reflect.Type]eventType), marshal: marshal, unmarshal: unmarshal}
	c.form.Types = make(map[string]reflect.Type)
	for _, name := range slices.Sorted(maps.Keys(events)) {
		c.add(name, reflect.TypeOf(events[name]))
	}
	return c
}

// CodecFunc returns a codec of two functions, for events whose stored name does not follow from their Go type.
//
// Encode returns a record with Type, Data and, if needed, Meta and Tags, and an [*UnknownEventError] for an event that it cannot
// store. Decode returns [ErrRetired] for an event to skip. Both may be called concurrently.
func CodecFunc[E any](encode func(event E) (Record, error), decode func(r Record) (E, error)) *Codec[E] {
	return &Codec[E]{encode: encode, decode: decode, marshal: json.Marshal, unmarshal: json.Unmarshal}
}

// eventType is how events of a Go type are stored.
type eventType struct {
	name  string
	exact bool // see Codec.Exact
}

func (c *Codec[E]) add(name string, t reflect.Type) {
	if t == nil {
		panic(fmt.Sprintf("es: codec: %q has no event: give a value of its type, such as Opened{}", name))
	}
	if other, twice := c.types[t]; twice {
		panic(fmt.Sprintf("es: codec: %v has two names, %q and %q: keep the one to write, and Rename the other", t, other.name, name))
	}
	if redaction.Reserved(name) {
		panic(fmt.Sprintf("es: codec: event name %q begins with %q, which is reserved: give it another name, and Rename %q to it if it is stored", name, redaction.Prefix, name))
	}
	c.types[t], c.form.Types[name] = eventType{name: name}, t
	shape := maker{t}
	c.set(name, func(r Record, unmarshal func([]byte, any) error) (E, error) {
		p := shape.new()
		if err := unmarshal(r.Data, p.Interface()); err != nil {
			var none E
			return none, err
		}
		return shape.value(p).(E), nil
	})
}

// maker makes values of a type to fill from stored data.
type maker struct{ t reflect.Type }

// new returns a pointer to fill: the value itself if the type is a pointer, or else a pointer to the value.
func (m maker) new() reflect.Value {
	if m.t.Kind() == reflect.Pointer {
		return reflect.New(m.t.Elem())
	}
	return reflect.New(m.t)
}

// value returns the value of what new has returned.
func (m maker) value(p reflect.Value) any {
	if m.t.Kind() == reflect.Pointer {
		return p.Interface()
	}
	return p.Elem().Interface()
}

// set sets the decoder of a stored name, which must be free.
func (c *Codec[E]) set(name string, decode Upcaster[E]) {
	c.reserve(name)
	if c.decoders == nil {
		c.decoders = make(map[string]Upcaster[E])
	}
	c.decoders[name] = decode
}

func (c *Codec[E]) reserve(name string) {
	if bad := badName(name, MaxType); bad != "" {
		panic(fmt.Sprintf("es: codec: event name %.80q %s", name, bad))
	}
	if name == TypeRedacted || name == TypeRedaction {
		panic(fmt.Sprintf("es: codec: event name %q is that of records of the store", name))
	}
	if c.reads(name) {
		panic(fmt.Sprintf("es: codec: event name %q is used twice: a stored name has one meaning", name))
	}
}

// Rename makes Decode read events stored under an old name as the event that now has another name.
// It panics if the new name is unknown or the old one is in use.
func (c *Codec[E]) Rename(old, name string) *Codec[E] {
	decode := c.decoders[name]
	if decode == nil {
		if c.decode == nil {
			panic(fmt.Sprintf("es: codec: Rename(%q, %q): there is no event %q", old, name, name))
		}
		decode = func(r Record, _ func([]byte, any) error) (E, error) {
			r.Type = name
			return c.decode(r)
		}
	}
	if c.form.Renamed == nil {
		c.form.Renamed = make(map[string]string)
	}
	c.form.Renamed[old] = name
	return c.Upcast(old, decode)
}

// reads reports whether a name has a meaning, other than to a CodecFunc.
func (c *Codec[E]) reads(name string) bool {
	return c.decoders[name] != nil || c.retired[name] || c.fallback != nil && c.fallback.reads(name)
}

// Upcaster decodes an old shape of an event. unmarshal is that of the codec.
type Upcaster[E any] func(r Record, unmarshal func(data []byte, v any) error) (E, error)

// From returns an [Upcaster] that turns an old shape into an event of today. If Old is a pointer, up gets one to a new value.
func From[Old, E any](up func(old Old) E) Upcaster[E] {
	shape := maker{reflect.TypeFor[Old]()}
	return func(r Record, unmarshal func([]byte, any) error) (E, error) {
		p := shape.new()
		if err := unmarshal(r.Data, p.Interface()); err != nil {
			var none E
			return none, err
		}
		return up(shape.value(p).(Old)), nil
	}
}

// Upcast makes Decode read events stored under an old name by a function; see [From]. It panics if the name is in use.
func (c *Codec[E]) Upcast(old string, up Upcaster[E]) *Codec[E] {
	c.set(old, up)
	return c
}

// Retire makes Decode return [ErrRetired] for events stored under these names. They count as versions and change no
// state. It panics if a name is in use.
func (c *Codec[E]) Retire(names ...string) *Codec[E] {
	for _, name := range names {
		c.reserve(name)
		if c.retired == nil {
			c.retired = make(map[string]bool)
		}
		c.retired[name] = true
	}
	return c
}

// Tag adds the tags that a function returns for an event, such as "course:42". Those of the encode function of a [CodecFunc] are
// kept. Tags are part of the stored event: they select records in a [Filter] and a [Condition]. The function
// must depend on the event alone, and may be called concurrently.
//
// Tag panics if the codec has such a function already. Without one, a codec with a [Codec.Fallback] tags as that does.
func (c *Codec[E]) Tag(f func(event E) []string) *Codec[E] {
	if f == nil || c.tags != nil {
		panic("es: codec: Tag needs a function, and is called once")
	}
	c.tags = f
	return c
}

// Tags returns the tags that the event of a stored record has by this codec, sorted and without duplicates. It decodes the
// record, so events of an old shape have tags too. A retired event has none. Errors are those of Decode.
func (c *Codec[E]) Tags(r Record) ([]string, error) {
	event, err := c.Decode(r)
	switch {
	case errors.Is(err, ErrRetired):
		return nil, nil
	case err != nil:
		return nil, err
	case c.encode != nil:
		r, err = c.Encode(event)
		return r.Tags, err
	}
	return c.tagsOf(nil, event), nil
}

// tagsOf returns the tags of an event, given those that it has already.
func (c *Codec[E]) tagsOf(tags []string, event E) []string {
	switch {
	case c.tags != nil:
		tags = slices.Concat(tags, c.tags(event))
	case c.fallback != nil:
		return c.fallback.tagsOf(tags, event)
	}
	return tag.Set(tags)
}

// Names returns the names under which events are stored, sorted. It omits names that are only read, and returns none
// for a [CodecFunc].
func (c *Codec[E]) Names() []string {
	var names []string
	for _, t := range c.types {
		names = append(names, t.name)
	}
	slices.Sort(names)
	return names
}

// Encode returns a record with the Type, Data and Tags of an event. An event without a name is an [*UnknownEventError].
func (c *Codec[E]) Encode(event E) (Record, error) {
	r, _, err := c.encodeExact(event)
	return r, err
}

// encodeExact is Encode. It also reports whether Decode is certain to return an equal event, so that it need not be called.
func (c *Codec[E]) encodeExact(event E) (r Record, exact bool, err error) {
	if c.encode != nil {
		if r, err = c.encode(event); err != nil {
			return r, false, encodeError{err}
		}
		r.Tags = c.tagsOf(r.Tags, event)
		return r, c.exact, nil
	}
	t := reflect.TypeOf(event)
	known, found := c.types[t]
	if !found {
		return Record{}, false, encodeError{fmt.Errorf("es: encode: %w", &UnknownEventError{fmt.Sprint(t)})}
	}
	if t.Kind() == reflect.Pointer && reflect.ValueOf(event).IsNil() {
		return Record{}, false, encodeError{invalid("encode %s: the event is a nil %v", known.name, t)}
	}
	data, err := c.marshal(event)
	if err != nil {
		return Record{}, false, fmt.Errorf("es: encode %s: %w", known.name, err)
	}
	return Record{Type: known.name, Data: data, Tags: c.tagsOf(nil, event)}, known.exact, nil
}

// marshalJSON is json.Marshal that refuses what it would alter.
func marshalJSON(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err == nil && altered(data, reflect.ValueOf(v)) {
		return nil, fmt.Errorf("%w: %+v has text that is not UTF-8: encode it as []byte", ErrInvalid, v)
	}
	return data, err
}

// encodeError is the error of an event that could not be encoded. Projections tell it from a stored event that could not be decoded.
type encodeError struct{ error }

// Unwrap returns the error as it was.
func (e encodeError) Unwrap() error { return e.error }

// Encoding reports that the error is not about a stored event.
func (e encodeError) Encoding() bool { return true }

// Decode returns the event of a record. It returns [ErrRetired] if the event is retired or redacted, and an error that wraps an
// [*UnknownEventError] if its type is unknown. Errors name the record.
//
// A Repo also decodes events before it appends them. Their records have no Position and Time.
func (c *Codec[E]) Decode(r Record) (E, error) {
	var none E
	if r.Type == TypeRedacted || r.Type == TypeRedaction {
		return none, ErrRetired
	}
	decode := c.decoders[r.Type]
	if decode == nil {
		switch {
		case c.retired[r.Type]:
			return none, ErrRetired
		case c.decode != nil:
			return c.decode(r)
		case c.fallback != nil:
			return c.fallback.Decode(r)
		}
		return none, fmt.Errorf("es: decode %s: %w", r.ID(), &UnknownEventError{r.Type})
	}
	event, err := decode(r, c.unmarshal)
	if err != nil {
		return none, fmt.Errorf("es: decode %s, type %q: %w", r.ID(), r.Type, err)
	}
	return event, nil
}
