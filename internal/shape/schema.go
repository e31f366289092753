// Package shape describes how encoding/json stores Go types, compares such descriptions, and makes up values.
package shape

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thalo-go/es/internal/form"
)

// Schema is a JSON Schema of draft 2020-12. Its numbers are of type json.Number.
type Schema = map[string]any

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	timeType      = reflect.TypeFor[time.Time]()
	numberType    = reflect.TypeFor[json.Number]()
)

// Of returns the schema of what encoding/json makes of a Go type. What a type makes of itself by a method is not known: such a part of the
// schema has a $comment with the name of the type.
func Of(t reflect.Type) Schema {
	d := definer{defs: make(map[string]any), names: make(map[reflect.Type]string)}
	if t.Kind() == reflect.Pointer {
		t = t.Elem() // events may be pointers, and are not nil
	}
	s := d.schema(t)
	if name, isDefined := d.names[t]; isDefined && !d.used[name] {
		s = d.defs[name].(Schema) // in place, for people
		delete(d.defs, name)
	}
	if len(d.defs) > 0 {
		s["$defs"] = d.defs
	}
	return s
}

// Describe returns the Normal schema of a type of events of a form.
func Describe(t reflect.Type, of *form.Form) (Schema, error) {
	if of.Schema == nil {
		return Normal(Of(t))
	}
	s, err := of.Schema(t)
	if err != nil {
		return nil, err
	}
	return Normal(s)
}

// definer collects the schemas of structs, which may contain themselves.
type definer struct {
	defs  map[string]any
	names map[reflect.Type]string
	used  map[string]bool // names that a reference within a schema has
	depth int
}

func implements(t, method reflect.Type) bool {
	return t.Kind() != reflect.Interface && (t.Implements(method) || reflect.PointerTo(t).Implements(method))
}

func (d *definer) schema(t reflect.Type) Schema {
	switch {
	case t == timeType:
		return Schema{"type": "string", "format": "date-time"}
	case t == numberType:
		return Schema{"type": "number", "format": "decimal"}
	case t.Kind() == reflect.Pointer:
		return nullable(d.schema(t.Elem()))
	case implements(t, jsonMarshaler):
		return Schema{"$comment": "encoded by " + t.String()}
	case implements(t, textMarshaler):
		return Schema{"type": "string", "$comment": "encoded by " + t.String()}
	}
	switch t.Kind() {
	case reflect.Bool:
		return Schema{"type": "boolean"}
	case reflect.String:
		return Schema{"type": "string"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		bits := t.Bits()
		return Schema{"type": "integer", "minimum": number(strconv.FormatInt(math.MinInt64>>(64-bits), 10)), "maximum": number(strconv.FormatInt(math.MaxInt64>>(64-bits), 10))}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return Schema{"type": "integer", "minimum": number("0"), "maximum": number(strconv.FormatUint(math.MaxUint64>>(64-t.Bits()), 10))}
	case reflect.Float32:
		return Schema{"type": "number", "format": "float"}
	case reflect.Float64:
		return Schema{"type": "number", "format": "double"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 && !implements(t.Elem(), jsonMarshaler) && !implements(t.Elem(), textMarshaler) {
			return Schema{"type": []any{"string", "null"}, "contentEncoding": "base64"}
		}
		return Schema{"type": []any{"array", "null"}, "items": d.schema(t.Elem())}
	case reflect.Array:
		n := number(strconv.Itoa(t.Len()))
		return Schema{"type": "array", "items": d.schema(t.Elem()), "minItems": n, "maxItems": n}
	case reflect.Map:
		s := Schema{"type": []any{"object", "null"}, "additionalProperties": d.schema(t.Elem())}
		if keys := keysOf(t.Key()); keys != nil {
			s["propertyNames"] = keys
		}
		return s
	case reflect.Struct:
		return d.reference(t)
	}
	return Schema{} // any
}

func number(s string) json.Number { return json.Number(s) }

// keysOf returns the schema of the keys of a map, or nil if they are any text.
func keysOf(t reflect.Type) Schema {
	switch {
	case implements(t, textMarshaler):
		return Schema{"$comment": "encoded by " + t.String()}
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		return Schema{"pattern": "^-?[0-9]+$", "$comment": "bits " + strconv.Itoa(t.Bits())}
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uintptr:
		return Schema{"pattern": "^[0-9]+$", "$comment": "bits " + strconv.Itoa(t.Bits())}
	}
	return nil
}

func nullable(s Schema) Schema {
	switch kind := s["type"].(type) {
	case string:
		s["type"] = []any{kind, "null"}
		return s
	case []any:
		return s
	}
	if s["$ref"] != nil {
		return Schema{"anyOf": []any{s, Schema{"type": "null"}}}
	}
	return s // a part without a type may be null anyway
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

// reference returns the schema of a struct: in place if it has no name, and else a reference to its definition.
func (d *definer) reference(t reflect.Type) Schema {
	if t.Name() == "" {
		return d.object(t)
	}
	name, known := d.names[t]
	if !known {
		base := notInNames.ReplaceAllString(t.String(), "_")
		name = base
		for n := 2; d.defs[name] != nil; n++ {
			name = base + "_" + strconv.Itoa(n) // of another package or function
		}
		d.names[t] = name
		d.defs[name] = Schema{}
		d.depth++
		d.defs[name] = d.object(t)
		d.depth--
	}
	if d.depth > 0 {
		if d.used == nil {
			d.used = make(map[string]bool)
		}
		d.used[name] = true
	}
	return Schema{"$ref": "#/$defs/" + name}
}

func (d *definer) object(t reflect.Type) Schema {
	properties, required := make(Schema), []any{}
	for _, f := range fieldsOf(t, nil) {
		s := d.schema(f.Type)
		if f.quoted {
			s = quoted(s)
		}
		properties[f.name] = s
		if !f.optional {
			required = append(required, f.name)
		}
	}
	s := Schema{"type": "object", "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	if inside := sealedType(t); inside != nil {
		s["x-sealed"] = d.schema(inside)
	}
	return s
}

// sealedType returns the T of a Value[T] of package sealed, which is encrypted in its fields, or nil for other types.
func sealedType(t reflect.Type) reflect.Type {
	open, found := t.MethodByName("Open")
	if !found || open.Type.NumOut() == 0 || !strings.HasSuffix(t.PkgPath(), "/es/sealed") {
		return nil
	}
	return open.Type.Out(0)
}

// quoted returns the schema of a value with the option string, which is JSON in a string.
func quoted(s Schema) Schema {
	in := Schema{"type": "string", "contentMediaType": "application/json", "contentSchema": s}
	if types, isList := s["type"].([]any); isList { // a pointer
		s["type"] = types[0]
		in["type"] = []any{"string", "null"}
	}
	return in
}

// field is a field of a struct as encoding/json sees it.
type field struct {
	Type             reflect.Type
	index            []int
	name             string
	optional, quoted bool
}

// fieldsOf returns the fields of a struct with those of embedded structs, sorted by name. Of several with one name it returns the outermost.
func fieldsOf(t reflect.Type, within []reflect.Type) []field {
	if slices.Contains(within, t) {
		return nil
	}
	within = append(within, t)
	found := make(map[string]field)
	var embedded []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" || f.Name == "_" {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if f.Anonymous && name == "" && inner.Kind() == reflect.Struct && !implements(inner, jsonMarshaler) && !implements(inner, textMarshaler) {
			for _, e := range fieldsOf(inner, within) {
				e.index = append([]int{i}, e.index...)
				e.optional = e.optional || f.Type.Kind() == reflect.Pointer
				embedded = append(embedded, e)
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		list := strings.Split(options, ",")
		found[name] = field{
			Type: f.Type, index: []int{i}, name: name,
			optional: slices.Contains(list, "omitempty") || slices.Contains(list, "omitzero"),
			quoted:   slices.Contains(list, "string") && isScalar(inner),
		}
	}
	for _, e := range embedded {
		if _, hidden := found[e.name]; !hidden {
			found[e.name] = e
		}
	}
	all := make([]field, 0, len(found))
	for _, f := range found {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return all
}

func isScalar(t reflect.Type) bool {
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Float64 || t.Kind() == reflect.String
}

// Decode parses JSON without losing digits of numbers.
func Decode(data []byte) (v any, err error) {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("there is more after the value")
	}
	return v, nil
}

// ContentTypeKey is the keyword of a Document that says how the data is stored, if not as JSON.
const ContentTypeKey = "x-content-type"

// Document returns the schema of an event as a document for others. It adds to s.
func Document(name, contentType string, s Schema) ([]byte, error) {
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = name
	if contentType != "application/json" {
		s[ContentTypeKey] = contentType
	}
	return json.MarshalIndent(s, "", "\t")
}

// Normal returns a schema as it is once it has been written and read.
func Normal(s Schema) (Schema, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	v, err := Decode(data)
	if err != nil {
		return nil, err
	}
	return v.(Schema), nil
}
