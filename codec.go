package es

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sort"
)

// A Codec turns events into records and back. [JSON] is the one to begin with.
// All methods may be called from many goroutines.
type Codec[E any] interface {
	// Encode returns a record with the event's Type and Data and, if it needs any, Meta.
	// An event that it has no name for makes an [*UnknownEventError].
	Encode(event E) (Record, error)

	// Decode returns the event of a record. Its error names the stream, the version and the type.
	// It returns [ErrRetired], bare, for an event that is to be read past.
	Decode(record Record) (E, error)
}

// JSONCodec is a [Codec] that keeps events as JSON, each under a name of its own. [JSON] makes it.
//
// The methods that add to it are for the time before its first use, where it is declared:
//
//	var Codec = es.JSON(map[string]Event{
//		"opened":       Opened{},
//		"deposited.v2": Deposited{},
//	}).
//		Rename("account-opened", "opened").
//		Upcast("deposited", es.From(func(old struct{ Euros int64 }) Event { return Deposited{Cents: 100 * old.Euros} })).
//		Retire("statement-printed")
type JSONCodec[E any] struct {
	names   map[reflect.Type]string
	decode  map[string]func(data []byte) (E, error)
	retired map[string]bool
}

// JSON returns a codec for the events whose names and types the map shows: each name with a value of the type, as a rule its zero value.
// A name is for ever: it is what is stored. When the shape of an event changes, give the new shape a new name and upcast the old one.
//
// Reading is tolerant: a field that the type does not have is passed over, one that the data does not have stays zero.
//
// JSON panics on what would lose events: two names for one type, a pointer, a type that encoding/json cannot take, or of which it would
// drop a part without a word, such as an unexported field or a big.Int that is not behind a pointer.
func JSON[E any](events map[string]E) *JSONCodec[E] {
	c := &JSONCodec[E]{
		names:   make(map[reflect.Type]string),
		decode:  make(map[string]func([]byte) (E, error)),
		retired: make(map[string]bool),
	}
	names := make([]string, 0, len(events))
	for name := range events {
		names = append(names, name)
	}
	sort.Strings(names) // so that a message is the same every time
	for _, name := range names {
		c.add(name, reflect.TypeOf(events[name]))
	}
	return c
}

func (c *JSONCodec[E]) add(name string, t reflect.Type) {
	if t == nil {
		panic(fmt.Sprintf("es: JSON: %q has no event: give a value of its type, such as Opened{}", name))
	}
	if t.Kind() == reflect.Pointer {
		panic(fmt.Sprintf("es: JSON: %q is a pointer, %v: events are values, give %v{}", name, t, t.Elem()))
	}
	if other, twice := c.names[t]; twice {
		panic(fmt.Sprintf("es: JSON: %v has two names, %q and %q: keep the one to write, and Rename the other", t, other, name))
	}
	if part := unstorable(t, false, nil); part != "" {
		panic(fmt.Sprintf("es: JSON: %q: encoding/json cannot keep %s, or give %v MarshalJSON and UnmarshalJSON of its own", name, part, t))
	}
	c.claim(name)
	c.names[t] = name
	c.decode[name] = func(data []byte) (E, error) {
		p := reflect.New(t)
		if err := json.Unmarshal(data, p.Interface()); err != nil {
			var none E
			return none, err
		}
		return p.Elem().Interface().(E), nil
	}
}

func (c *JSONCodec[E]) claim(name string) {
	if bad := badName(name, MaxType); bad != "" {
		panic(fmt.Sprintf("es: JSON: event name %.80q %s", name, bad))
	}
	if c.decode[name] != nil || c.retired[name] {
		panic(fmt.Sprintf("es: JSON: event name %q is given twice: a stored name has one meaning", name))
	}
}

// Rename reads what is stored under an old name as the event that now has another. It panics if the new name is unknown or the old one is taken.
func (c *JSONCodec[E]) Rename(old, now string) *JSONCodec[E] {
	decode := c.decode[now]
	if decode == nil {
		panic(fmt.Sprintf("es: JSON: Rename(%q, %q): there is no event %q", old, now, now))
	}
	return c.Upcast(old, decode)
}

// Upcast reads what is stored under an old name by a function of its data; [From] makes one from a function of the old shape.
// It panics if the name is taken.
func (c *JSONCodec[E]) Upcast(old string, up func(data []byte) (E, error)) *JSONCodec[E] {
	c.claim(old)
	c.decode[old] = up
	return c
}

// Retire reads past what is stored under the names: their versions count and change no state. It panics if a name is taken.
func (c *JSONCodec[E]) Retire(names ...string) *JSONCodec[E] {
	for _, name := range names {
		c.claim(name)
		c.retired[name] = true
	}
	return c
}

// From makes an upcaster for [JSONCodec.Upcast] from a function that turns the old shape of an event into one of today.
func From[Old, E any](up func(old Old) E) func(data []byte) (E, error) {
	return func(data []byte) (E, error) {
		var old Old
		if err := json.Unmarshal(data, &old); err != nil {
			var none E
			return none, err
		}
		return up(old), nil
	}
}

// Names returns the names under which the codec stores events, sorted; not the old ones it also reads.
func (c *JSONCodec[E]) Names() []string {
	names := make([]string, 0, len(c.names))
	for _, name := range c.names {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Encode implements [Codec].
func (c *JSONCodec[E]) Encode(event E) (Record, error) {
	t := reflect.TypeOf(event)
	name, known := c.names[t]
	if !known {
		return Record{}, fmt.Errorf("es: encode: %w", &UnknownEventError{fmt.Sprint(t)})
	}
	data, err := json.Marshal(event)
	if err != nil {
		return Record{}, fmt.Errorf("es: encode %s: %w", name, err)
	}
	return Record{Type: name, Data: data}, nil
}

// Decode implements [Codec].
func (c *JSONCodec[E]) Decode(r Record) (E, error) {
	var none E
	decode := c.decode[r.Type]
	if decode == nil {
		if c.retired[r.Type] {
			return none, ErrRetired
		}
		return none, fmt.Errorf("es: decode %s: %w", r.ID(), &UnknownEventError{r.Type})
	}
	event, err := decode(r.Data)
	if err != nil {
		return none, fmt.Errorf("es: decode %s, a %q: %w", r.ID(), r.Type, err)
	}
	return event, nil
}

var (
	marshalers   = []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()}
	unmarshalers = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}
)

func implements(t reflect.Type, interfaces []reflect.Type) bool {
	return slices.ContainsFunc(interfaces, t.Implements)
}

// unstorable names a part of a type that encoding/json would drop or refuse or could not bring back, and what to do; or it returns "".
// A value is addressable for encoding/json behind a pointer and in a slice; only there it finds methods with pointer receivers.
func unstorable(t reflect.Type, addressable bool, within []reflect.Type) string {
	if slices.Contains(within, t) {
		return ""
	}
	within = append(within, t)
	if p := reflect.PointerTo(t); t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && implements(p, marshalers) {
		switch {
		case !addressable && !implements(t, marshalers):
			return fmt.Sprintf("%v, whose marshaling method has a pointer receiver and is not found on a value: keep a pointer to it", t)
		case !implements(p, unmarshalers):
			return fmt.Sprintf("%v, which has a method to marshal and none to unmarshal it: write it", t)
		}
		return spokenFor(t)
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return unstorable(t.Elem(), true, within)
	case reflect.Array:
		return unstorable(t.Elem(), addressable, within)
	case reflect.Map:
		if k := t.Key(); !implements(k, marshalers[1:]) && (k.Kind() < reflect.Int || k.Kind() > reflect.Uintptr) && k.Kind() != reflect.String {
			return fmt.Sprintf("%v as the key of a map: make it a string or a number", k)
		}
		return unstorable(t.Elem(), false, within)
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return fmt.Sprintf("the interface %v: use a type that is not one", t)
		}
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Sprintf("a %v: leave it out", t)
	case reflect.Struct:
		for f := range t.Fields() {
			if f.Tag.Get("json") == "-" || f.Name == "_" {
				continue
			}
			if !f.IsExported() && (!f.Anonymous || f.Type.Kind() != reflect.Struct) {
				return fmt.Sprintf("%v.%s, which is unexported: export it, tag it `json:\"-\"`", t, f.Name)
			}
			if part := unstorable(f.Type, addressable, within); part != "" {
				return part
			}
		}
	}
	return ""
}

// spokenFor names the embedded field of a struct, such as a time.Time, whose marshaling method is promoted and so would write itself alone.
func spokenFor(t reflect.Type) string {
	if t.Kind() != reflect.Struct || t.NumField() == 1 {
		return ""
	}
	for f := range t.Fields() {
		if f.Anonymous && (implements(f.Type, marshalers) || implements(reflect.PointerTo(f.Type), marshalers)) {
			return fmt.Sprintf("the other fields beside %v.%s, whose marshaling method speaks for all of them: give the field a name", t, f.Name)
		}
	}
	return ""
}
