package es

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

var (
	marshalers   = []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()}
	unmarshalers = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}
)

func implements(t reflect.Type, interfaces []reflect.Type) bool {
	return slices.ContainsFunc(interfaces, t.Implements)
}

// lossy describes the first part of t that JSON cannot round-trip and how to change it, or returns "".
//
// To encoding/json a value is addressable behind a pointer and in a slice. Only there does it find methods with pointer
// receivers.
func lossy(t reflect.Type, addressable bool, within []reflect.Type) string {
	if slices.Contains(within, t) {
		return ""
	}
	within = append(within, t)
	if p := reflect.PointerTo(t); t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && implements(p, marshalers) {
		switch {
		case !addressable && !implements(t, marshalers):
			return fmt.Sprintf("%v, whose marshaling method has a pointer receiver: use a pointer to it", t)
		case !implements(p, unmarshalers):
			return fmt.Sprintf("%v, which can be marshaled but not unmarshaled: add the method", t)
		}
		return hidden(t)
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return lossy(t.Elem(), true, within)
	case reflect.Array:
		return lossy(t.Elem(), addressable, within)
	case reflect.Map:
		if k := t.Key(); !implements(k, marshalers[1:]) && (k.Kind() < reflect.Int || k.Kind() > reflect.Uintptr) && k.Kind() != reflect.String {
			return fmt.Sprintf("%v as the key of a map: make it a string or a number", k)
		}
		return lossy(t.Elem(), false, within)
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return fmt.Sprintf("the interface %v: use a concrete type", t)
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
			if part := lossy(f.Type, addressable, within); part != "" {
				return part
			}
		}
		return collision(t, make(map[string]string), nil)
	}
	return ""
}

// collision describes two fields of a struct, also of embedded ones, that have one name in JSON, of which
// encoding/json drops at least one. seen has the fields so far, by that name.
func collision(t reflect.Type, seen map[string]string, within []reflect.Type) string {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Tag.Get("json") == "-" || f.Name == "_" {
			continue
		}
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		if f.Anonymous && name == "" && embedded.Kind() == reflect.Struct && !implements(reflect.PointerTo(embedded), marshalers) {
			if !slices.Contains(within, embedded) {
				if part := collision(embedded, seen, append(within, embedded)); part != "" {
					return part
				}
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		field := fmt.Sprintf("%v.%s", t, f.Name)
		if other, taken := seen[name]; taken {
			return fmt.Sprintf("both %s and %s, which have the same name %q: rename one", other, field, name)
		}
		seen[name] = field
	}
	return ""
}

// altered reports whether encoding/json replaced invalid UTF-8 of a value by U+FFFD in its encoding.
//
// encoding/json writes such a replacement as the escape \ufffd, and a U+FFFD of the value as itself. Only raw JSON can
// have the escape for another reason, so the value is looked through only if there is one.
func altered(data []byte, v reflect.Value) bool {
	return bytes.Contains(data, []byte(`\ufffd`)) && hasInvalidText(v)
}

func hasInvalidText(v reflect.Value) bool {
	if v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return false
		}
	}
	if v.IsValid() && v.CanInterface() {
		switch m := v.Interface().(type) {
		case json.Marshaler:
			return false // encoding/json requires valid JSON of it
		case encoding.TextMarshaler:
			text, err := m.MarshalText()
			return err == nil && !utf8.Valid(text)
		}
	}
	switch v.Kind() {
	case reflect.String:
		return !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return hasInvalidText(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if hasInvalidText(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			if hasInvalidText(key) || hasInvalidText(value) {
				return true
			}
		}
	case reflect.Struct:
		for f, value := range v.Fields() {
			if f.Tag.Get("json") != "-" && hasInvalidText(value) {
				return true
			}
		}
	}
	return false
}

// hidden describes the fields of a struct that are hidden by an embedded field, such as a time.Time, whose marshaling
// method the struct promotes.
func hidden(t reflect.Type) string {
	if t.Kind() != reflect.Struct || t.NumField() == 1 {
		return ""
	}
	for f := range t.Fields() {
		if f.Anonymous && (implements(f.Type, marshalers) || implements(reflect.PointerTo(f.Type), marshalers)) {
			return fmt.Sprintf("the fields beside %v.%s, whose marshaling method is promoted: give the field a name", t, f.Name)
		}
	}
	return ""
}

// exact reports whether JSON is certain to bring back an equal value of a type that shares no memory with the first one.
// That holds for numbers, text and booleans, and for arrays and structs of them. It need not hold for slices and maps,
// which may be empty or nil and are shared, for types that encode themselves, such as time.Time, and for interfaces.
func exact(t reflect.Type) bool {
	if implements(t, marshalers) || implements(reflect.PointerTo(t), marshalers) {
		return false
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	case reflect.Array:
		return exact(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			if f.Name == "_" || f.Tag.Get("json") == "-" || !exact(f.Type) {
				return false
			}
		}
		return true
	}
	return false
}
