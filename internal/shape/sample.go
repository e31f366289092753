package shape

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"time"
)

// Sample returns a value of a type in which each field is set that encoding/json stores. It is the same each time.
// What a type with a method of its own accepts is found by trying; if it accepts nothing, it stays zero.
func Sample(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	fill(v, nil)
	return v
}

func fill(v reflect.Value, within []reflect.Type) {
	t := v.Type()
	switch {
	case t == timeType:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)))
		return
	case t == numberType:
		v.SetString("7")
		return
	case t.Kind() != reflect.Pointer && (implements(t, jsonMarshaler) || implements(t, textMarshaler)):
		try(v)
		return
	case slices.Contains(within, t):
		return // a type within itself ends
	}
	switch t.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("text")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		v.SetUint(7)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Interface:
		if t.NumMethod() == 0 {
			v.Set(reflect.ValueOf("text"))
		}
	case reflect.Pointer:
		if slices.Contains(within, t.Elem()) {
			return
		}
		v.Set(reflect.New(t.Elem()))
		fill(v.Elem(), within)
	case reflect.Slice:
		if slices.Contains(within, t.Elem()) {
			return
		}
		v.Set(reflect.MakeSlice(t, 1, 1))
		fill(v.Index(0), within)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), within)
		}
	case reflect.Map:
		if slices.Contains(within, t.Elem()) {
			return
		}
		key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		fill(key, within)
		fill(value, within)
		v.Set(reflect.MakeMap(t))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		within = append(slices.Clip(within), t)
		for _, f := range fieldsOf(t, nil) {
			if at, reached := reach(v, f.index); reached {
				fill(at, within)
			}
		}
	}
}

// reach returns a field of a struct, also one of an embedded struct behind a pointer.
func reach(v reflect.Value, index []int) (reflect.Value, bool) {
	for i, n := range index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !v.CanSet() {
					return v, false
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(n)
	}
	return v, v.CanSet()
}

// try sets a value with methods of its own to the first of some texts that they accept.
func try(v reflect.Value) {
	defer func() { _ = recover() }() // the method may not expect any of them
	into := v.Addr().Interface()
	for _, text := range []string{"7", "text", "2026-01-02T03:04:05Z", "127.0.0.1", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"} {
		if u, isText := into.(encoding.TextUnmarshaler); isText && u.UnmarshalText([]byte(text)) == nil && !v.IsZero() {
			return
		}
		quoted, _ := json.Marshal(text) // cannot fail for text
		u, isJSON := into.(json.Unmarshaler)
		for _, data := range []string{text, string(quoted), `{"value":` + string(quoted) + `}`} {
			if isJSON && json.Valid([]byte(data)) && u.UnmarshalJSON([]byte(data)) == nil && !v.IsZero() {
				return
			}
		}
	}
	v.SetZero()
}

// Lost returns the first value of a JSON document that another one does not have at the same place, as path and value, or "". A zero value
// may be absent: so it is in a field with omitempty. More fields and keys may be there.
func Lost(want, got any) string { return lost("", want, got) }

func lost(path string, want, got any) string {
	switch w := want.(type) {
	case Schema:
		g, isObject := got.(Schema)
		for key, value := range w {
			if !isObject && !empty(value) {
				return missing(path+"."+key, value)
			}
			if text := lost(path+"."+key, value, g[key]); text != "" {
				return text
			}
		}
		return ""
	case []any:
		if got == nil && empty(w) {
			return ""
		}
		g, _ := got.([]any)
		for i, value := range w {
			if i >= len(g) {
				return missing(fmt.Sprintf("%s[%d]", path, i), value)
			}
			if text := lost(fmt.Sprintf("%s[%d]", path, i), value, g[i]); text != "" {
				return text
			}
		}
		return ""
	case json.Number:
		if g, isNumber := got.(json.Number); isNumber && sameNumber(w, g) {
			return ""
		}
	default:
		if reflect.DeepEqual(want, got) {
			return ""
		}
	}
	if got == nil && empty(want) {
		return ""
	}
	return missing(path, want)
}

func missing(path string, value any) string {
	data, _ := json.Marshal(value) // it was JSON
	if path == "" {
		return string(data)
	}
	return path[1:] + " = " + string(data)
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case json.Number:
		return sameNumber(v, "0")
	case []any: // an array of zero values may be omitted too
		return !slices.ContainsFunc(v, func(inner any) bool { return !empty(inner) })
	case Schema:
		for _, inner := range v {
			if !empty(inner) {
				return false
			}
		}
		return true
	}
	return false
}

func sameNumber(a, b json.Number) bool {
	x, okX := new(big.Rat).SetString(string(a))
	y, okY := new(big.Rat).SetString(string(b))
	return okX && okY && x.Cmp(y) == 0
}
