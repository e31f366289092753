package estest

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es"
)

// fields are the fields of a type of events, by path such as Lines[].Price, and whether a sample sets them.
type fields map[string]bool

// look notes which fields a value sets. within holds the struct types around it, whose fields are noted already: a tree ends somewhere.
func (f fields) look(path string, v reflect.Value, within []reflect.Type) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		f[path] = f[path] || !v.IsNil()
		if !v.IsNil() {
			f.look(path, v.Elem(), within)
		}
	case reflect.Slice, reflect.Array:
		f[path] = f[path] || v.Len() > 0
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		for i := range v.Len() {
			f.look(path+"[]", v.Index(i), within)
		}
	case reflect.Map:
		f[path] = f[path] || v.Len() > 0
		for _, key := range v.MapKeys() {
			f.look(path+"[]", v.MapIndex(key), within)
		}
	case reflect.Struct:
		f.lookInside(path, v, within)
	default:
		f[path] = f[path] || !v.IsZero()
	}
}

func (f fields) lookInside(path string, v reflect.Value, within []reflect.Type) {
	t := v.Type()
	if slices.Contains(within, t) {
		return
	}
	for field := range t.Fields() {
		if !field.IsExported() && !field.Anonymous {
			f[path] = f[path] || !v.IsZero() // a type such as time.Time, which has no fields for others
			return
		}
	}
	for i := range t.NumField() {
		field := t.Field(i)
		if tag, _, _ := strings.Cut(field.Tag.Get("json"), ","); tag == "-" || field.Name == "_" {
			continue // it is not stored
		}
		name := path + "." + field.Name
		if field.Anonymous && field.Type.Kind() == reflect.Struct {
			name = path
		}
		f.look(name, v.Field(i), append(slices.Clip(within), t))
	}
}

// unset returns the paths that no sample sets.
func (f fields) unset() (paths []string) {
	for path, set := range f {
		if !set {
			paths = append(paths, cmp.Or(strings.TrimPrefix(path, "."), "the value"))
		}
	}
	slices.Sort(paths)
	return paths
}

// checkSamples checks that there is a sample of each event of a codec, and that each field is set in one of them.
func checkSamples[E any](t testing.TB, codec *es.Codec[E], samples []E) {
	t.Helper()
	names := make(map[string]bool)
	types := make(map[reflect.Type]fields)
	var order []reflect.Type
	for _, sample := range samples {
		record, err := codec.Encode(sample)
		if err != nil {
			continue // reported by roundTrip
		}
		names[record.Type] = true
		v := reflect.ValueOf(sample)
		if types[v.Type()] == nil {
			types[v.Type()] = make(fields)
			order = append(order, v.Type())
		}
		if of := codec.Form().Fields; of != nil {
			of(sample, func(path string, isSet bool) { types[v.Type()][path] = types[v.Type()][path] || isSet })
			continue
		}
		types[v.Type()].look("", v, nil)
	}
	for _, name := range codec.Names() {
		if !names[name] {
			t.Errorf("the event %q has no sample: give one, with every field set", name)
		}
	}
	for _, typ := range order {
		if unset := types[typ].unset(); len(unset) > 0 {
			t.Errorf("%v: %s: zero or empty in every sample, which survives any codec: set it in one", typ, strings.Join(unset, ", "))
		}
	}
}
