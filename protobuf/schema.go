package protobuf

import (
	"fmt"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// schema returns the JSON Schema of a type of messages in their JSON form. Each field has x-protobuf, its number and its type on the wire.
func schema(t reflect.Type) (map[string]any, error) {
	d := descriptor(t)
	if d == nil {
		return nil, fmt.Errorf("%v has no descriptor", t)
	}
	s := schemas{make(map[string]any)}
	root := s.message(d)
	if len(s.defs) > 0 {
		root["$defs"] = s.defs
	}
	return root, nil
}

// schemas collects the schemas of messages within messages.
type schemas struct{ defs map[string]any }

func (s schemas) message(d protoreflect.MessageDescriptor) map[string]any {
	properties := make(map[string]any)
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		f := s.field(fd)
		f["x-protobuf"] = wire(fd)
		properties[fd.JSONName()] = f
	}
	return map[string]any{"type": "object", "properties": properties}
}

// wire describes what must not change about a field.
func wire(fd protoreflect.FieldDescriptor) string {
	kind := fd.Kind().String()
	switch {
	case fd.IsMap():
		return fmt.Sprintf("%d map of %s to %s", fd.Number(), fd.MapKey().Kind(), fd.MapValue().Kind())
	case fd.IsList():
		kind = "repeated " + kind
	}
	if one := fd.ContainingOneof(); one != nil && !one.IsSynthetic() {
		kind += " in oneof " + string(one.Name())
	}
	return fmt.Sprintf("%d %s", fd.Number(), kind)
}

func (s schemas) field(fd protoreflect.FieldDescriptor) map[string]any {
	switch {
	case fd.IsMap():
		return map[string]any{"type": "object", "additionalProperties": s.value(fd.MapValue())}
	case fd.IsList():
		return map[string]any{"type": "array", "items": s.value(fd)}
	}
	return s.value(fd)
}

func (s schemas) value(fd protoreflect.FieldDescriptor) map[string]any {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return map[string]any{"type": "boolean"}
	case protoreflect.StringKind:
		return map[string]any{"type": "string"}
	case protoreflect.BytesKind:
		return map[string]any{"type": "string", "contentEncoding": "base64"}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return map[string]any{"type": []any{"number", "string"}} // NaN and Infinity are strings
	case protoreflect.EnumKind:
		return map[string]any{"type": []any{"string", "integer"}} // an unknown value is a number
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return s.nested(fd.Message())
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return map[string]any{"type": "string", "pattern": "^-?[0-9]+$"}
	default:
		return map[string]any{"type": "integer"}
	}
}

func (s schemas) nested(d protoreflect.MessageDescriptor) map[string]any {
	name := string(d.FullName())
	if wellKnown(d) {
		return map[string]any{"$comment": name} // it has a JSON form of its own
	}
	if _, known := s.defs[name]; !known {
		s.defs[name] = nil // for a message within itself
		s.defs[name] = s.message(d)
	}
	return map[string]any{"$ref": "#/$defs/" + name}
}

// wellKnown reports whether a message is one of protocol buffers' own, such as a Timestamp.
func wellKnown(d protoreflect.MessageDescriptor) bool {
	return d.ParentFile().Package() == "google.protobuf"
}

// fields calls note with each field of a message, and with those of the messages within.
func fields(event any, note func(path string, isSet bool)) {
	if m, isMessage := event.(proto.Message); isMessage {
		if d := m.ProtoReflect().Descriptor(); wellKnown(d) {
			note("", proto.Size(m) > 0)
			return
		}
		look("", m.ProtoReflect(), nil, note)
	}
}

func look(path string, m protoreflect.Message, within []protoreflect.FullName, note func(path string, isSet bool)) {
	d := m.Descriptor()
	if slices.Contains(within, d.FullName()) {
		return // a message within itself: its fields are noted already
	}
	within = append(slices.Clip(within), d.FullName())
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		at := path + "." + string(fd.Name())
		note(at, m.Has(fd))
		if fd.IsMap() {
			if fd.MapValue().Message() != nil {
				m.Get(fd).Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					look(at+"[]", v.Message(), within, note)
					return true
				})
			}
			continue
		}
		if fd.Message() == nil || !m.Has(fd) || wellKnown(fd.Message()) {
			continue
		}
		if !fd.IsList() {
			look(at, m.Get(fd).Message(), within, note)
			continue
		}
		for list, i := m.Get(fd).List(), 0; i < list.Len(); i++ {
			look(at+"[]", list.Get(i).Message(), within, note)
		}
	}
}
