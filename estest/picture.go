package estest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unsafe"
)

// picture describes everything that a value consists of, line by line, through pointers, maps, slices and unexported fields.
// Being text, it does not change with the value.
func picture(v any) string {
	var p painter
	p.paint("", reflect.ValueOf(v), nil)
	return p.text.String()
}

type painter struct{ text strings.Builder }

func (p *painter) line(path, format string, args ...any) {
	fmt.Fprintf(&p.text, "%s: %s\n", strings.TrimPrefix(path, "."), fmt.Sprintf(format, args...))
}

// paint describes the value at a path. within holds the pointers that lead to it.
func (p *painter) paint(path string, v reflect.Value, within []unsafe.Pointer) {
	switch v.Kind() {
	case reflect.Invalid:
		p.line(path, "nil")
	case reflect.Pointer:
		switch at := v.UnsafePointer(); {
		case v.IsNil():
			p.line(path, "nil")
		case v.Type() == reflect.TypeFor[*time.Location]():
			p.line(path, "%p", at) // a time zone has hundreds of lines and never changes
		case slices.Contains(within, at):
			p.line(path, "a cycle")
		case isMessage(v.Type()):
			p.line(path, "%s", text(v))
		default:
			p.paint(path, v.Elem(), append(slices.Clip(within), at))
		}
	case reflect.Interface:
		if !v.IsNil() {
			p.line(path, "%v", v.Elem().Type())
		}
		p.paint(path, v.Elem(), within)
	case reflect.Struct:
		for i := range v.NumField() {
			p.paint(path+"."+v.Type().Field(i).Name, v.Field(i), within)
		}
	case reflect.Map:
		p.paintMap(path, v, within)
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			p.line(path, "%q", v.Bytes())
			return
		}
		p.line(path, "%d elements", v.Len())
		for i := range v.Len() {
			p.paint(fmt.Sprintf("%s[%d]", path, i), v.Index(i), within)
		}
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		p.line(path, "%v", v.IsNil())
	default:
		p.line(path, "%#v", v)
	}
}

// paintMap describes a map, sorted by the descriptions of its entries.
func (p *painter) paintMap(path string, v reflect.Value, within []unsafe.Pointer) {
	at := v.UnsafePointer()
	if !v.IsNil() && slices.Contains(within, at) {
		p.line(path, "a cycle")
		return
	}
	within = append(slices.Clip(within), at)
	p.line(path, "%d entries", v.Len())
	var entries []string
	for key, value := range v.Seq2() {
		var k, entry painter
		k.paint("", key, within)
		name := strings.TrimPrefix(strings.TrimSpace(k.text.String()), ": ")
		entry.paint(path+"["+name+"]", value, within)
		entries = append(entries, entry.text.String())
	}
	slices.Sort(entries)
	for _, entry := range entries {
		p.text.WriteString(entry)
	}
}

// isMessage reports whether a type is a pointer to a protocol buffer, which has parts that change when it is encoded or compared.
// Its method says so. This package does not link protocol buffers.
func isMessage(t reflect.Type) bool {
	_, found := t.MethodByName("ProtoReflect")
	return found && t.Kind() == reflect.Pointer && t.Implements(reflect.TypeFor[fmt.Stringer]())
}

// text returns the text form of a message: every field that is set, in one way within a process.
func text(message reflect.Value) string {
	usable := reflect.NewAt(message.Type().Elem(), message.UnsafePointer()) // also if it is in an unexported field
	return usable.Interface().(fmt.Stringer).String()
}
