package protobuf

import (
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// sample returns a message in which each field is set, and of fields that exclude each other the first.
func sample(t reflect.Type) any {
	m, isMessage := reflect.TypeAssert[proto.Message](reflect.New(t.Elem()))
	if !isMessage {
		return nil
	}
	fill(m.ProtoReflect(), nil)
	return m
}

func fill(m protoreflect.Message, within []protoreflect.FullName) {
	d := m.Descriptor()
	within = append(slices.Clip(within), d.FullName())
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if one := fd.ContainingOneof(); one != nil && m.WhichOneof(one) != nil || fd.Message() != nil && !fd.IsMap() && slices.Contains(within, fd.Message().FullName()) {
			continue
		}
		switch {
		case fd.IsMap():
			if value := fd.MapValue(); value.Message() == nil || !slices.Contains(within, value.Message().FullName()) {
				entries := m.Mutable(fd).Map()
				entries.Set(scalar(fd.MapKey()).MapKey(), valueOf(value, entries.NewValue, within))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			list.Append(valueOf(fd, list.NewElement, within))
		default:
			m.Set(fd, valueOf(fd, func() protoreflect.Value { return m.NewField(fd) }, within))
		}
	}
}

// valueOf returns a value for a field, an element or an entry. empty makes an empty message.
func valueOf(fd protoreflect.FieldDescriptor, empty func() protoreflect.Value, within []protoreflect.FullName) protoreflect.Value {
	if fd.Message() == nil {
		return scalar(fd)
	}
	v := empty()
	if name := fd.Message().FullName(); name != "google.protobuf.Any" { // its data is of a type that is named in it
		fill(v.Message(), within)
	}
	return v
}

func scalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("text")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{7})
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(0.5)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(0.5)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(7)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(7)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(7)
	default:
		return protoreflect.ValueOfInt64(7)
	}
}
