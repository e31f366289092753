package es

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
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
	}
	return ""
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
